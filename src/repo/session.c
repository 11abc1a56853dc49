/* A session: from the registration to the point, or to nothing.
 *
 * Registers first and reads the index afterwards, never the other way round: a
 * collector that does not see the session yet must have removed what it removes
 * before the index is read.
 */
#include "session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "flush.h"
#include "frame.h"
#include "hash.h"
#include "index_merge.h"
#include "jv.h"
#include "log.h"
#include "mutant.h"
#include "rand.h"
#include "store.h"
#include "table.h"

DEFINE_CLEANUP(struct repo_session *, repo_session_free)

/* -- begin ------------------------------------------------------------------*/

static int
register_session(struct repo_session *s, const struct repo_session_opts *opts,
                 struct err *err)
{
    if (registration_new(s->repo, "put", opts->machine, NULL,
                         !opts->synchronous, &s->reg, err) < 0)
        return -1;
    (void)strcpy(s->sid_text, registration_sid(s->reg));
    (void)hex_decode(s->sid_text, s->sid, sizeof s->sid);
    if (opts->machine == NULL || opts->synchronous)
        return 0;
    return session_only_one(s->repo, s->sid_text, opts->machine, err);
}

static int
make_workers(struct repo_session *s, int zstd_level, struct err *err)
{
    s->workers = calloc(s->n_workers + 1, sizeof *s->workers);
    if (s->workers == NULL)
        return err_set_errno(err, ENOMEM, "%u workers", s->n_workers);
    for (unsigned i = 0; i <= s->n_workers; i++)
        if (frame_ctx_new(&s->repo->keys, zstd_level, &s->workers[i].ctx, err) <
            0)
            return -1;
    return 0;
}

#ifdef TIDEMARK_MUTANTS
static int
register_late(struct repo_session *s, const struct repo_session_opts *opts,
              struct err *err)
{
    s->repo->mutant_frozen = false;
    if (index_reload(s->repo, err) < 0)
        return -1;
    s->repo->mutant_frozen = true;
    return register_session(s, opts, err);
}
#endif

static int
begin(struct repo_session *s, const struct repo_session_opts *opts,
      struct err *err)
{
    if (opts->n_workers > SESSION_WORKERS_MAX)
        return err_set(err, ERR_USAGE, "%u workers, allowed are %u",
                       opts->n_workers, SESSION_WORKERS_MAX);
    if (repo_may_write(s->repo, err) < 0 ||
        record_table_new(REPO_NEW_RECORDS_MAX, &s->table, err) < 0 ||
        make_workers(s, opts->zstd_level, err) < 0 ||
        flusher_new(s->repo->store, opts->synchronous, &s->flusher, err) < 0)
        return -1;
#ifdef TIDEMARK_MUTANTS
    if (MUTANT(MUTANT_PUT_INDEX_FIRST))
        return register_late(s, opts, err);
#endif
    if (register_session(s, opts, err) < 0 ||
        repo_check_features(s->repo, err) < 0 ||
        repo_may_write(s->repo, err) < 0)
        return -1;
    index_look_again(s->repo);
    return index_reload(s->repo, err);
}

int
repo_session_begin(struct repo *r, const struct repo_session_opts *opts,
                   struct repo_session **ret, struct err *err)
{
    CLEANUP(repo_session_freep) struct repo_session *s = calloc(1, sizeof *s);

    if (s == NULL)
        return err_set_errno(err, ENOMEM, "session");
    (void)pthread_mutex_init(&s->lock, NULL);
    s->repo = r;
    s->n_workers = opts->n_workers;
    s->paranoid = opts->paranoid;
    s->synchronous = opts->synchronous;
    s->pack_target = REPO_PACK_TARGET;
    s->part_max = FLUSH_PART;
    s->merge_max = MERGE_RECORDS_MAX;
    if (begin(s, opts, err) < 0)
        return err_wrap(err, "begin a session in '%s'", repo_path(r));
    *ret = TAKE_PTR(s);
    return 0;
}

void
session_set_limits(struct repo_session *s, size_t pack_target,
                   size_t records_max)
{
    struct record_table *t = NULL;

    s->pack_target = pack_target;
    s->part_max = pack_target / 4;
    if (record_table_new((uint32_t)records_max, &t, NULL) < 0)
        return;
    record_table_free(s->table);
    s->table = t;
    s->merge_max = 2 * (uint32_t)records_max;
}

struct repo *
session_repo(struct repo_session *s)
{
    return s->repo;
}

const char *
session_sid(const struct repo_session *s)
{
    return s->sid_text;
}

void
session_set_fate(struct repo_session *s, enum session_fate fate)
{
    s->fate = fate;
}

uint64_t
repo_session_stored(const struct repo_session *s)
{
    /* The lock is not part of what const promises. */
    struct repo_session *m = (struct repo_session *)(uintptr_t)s;
    uint64_t n;

    (void)pthread_mutex_lock(&m->lock);
    n = s->index_bytes;
    (void)pthread_mutex_unlock(&m->lock);
    return n + flusher_stored(s->flusher);
}

/* -- failure ----------------------------------------------------------------*/

/* A fenced session's files are removed under its hands, which looks like damage
 * and is none.  True: *err says so now. */
static bool
name_the_fence(const struct repo_session *s, struct err *err)
{
    char key[REPO_KEY_MAX];
    uint64_t len;

    commit_key(s->sid_text, 1, key);
    if (s->fate != SESSION_OPEN || /* then the object may be its own */
        store_size(s->repo->store, key, &len, NULL) != 1)
        return false;
    err_clear(err);
    (void)err_set(err, ERR_EXISTS,
                  "%s: this session was fenced: a collector took it for dead; "
                  "run the backup again",
                  key);
    return true;
}

int
session_fail(struct repo_session *s, struct err *err)
{
    (void)name_the_fence(s, err);
    (void)pthread_mutex_lock(&s->lock);
    (void)err_copy(&s->failure, err);
    (void)pthread_mutex_unlock(&s->lock);
    atomic_store(&s->dead, true);
    return -1;
}

int
session_alive(struct repo_session *s, struct err *err)
{
    if (!atomic_load(&s->dead))
        return 0;
    (void)pthread_mutex_lock(&s->lock);
    (void)err_copy(err, &s->failure);
    (void)pthread_mutex_unlock(&s->lock);
    return -1;
}

/* -- seal -------------------------------------------------------------------*/

/* A pack that is not there with its length would be a point with holes. */
static int
check_pack(struct repo_session *s, const struct flushed *d, const char *key,
           struct err *err)
{
    uint64_t len = 0;
    int found = store_size(s->repo->store, key, &len, err);

    if (found < 0)
        return -1;
    if (found == 0)
        return err_set(err, ERR_NOT_FOUND,
                       "pack '%s' was written and is gone; look for who "
                       "removes files in '%s'",
                       key, repo_path(s->repo));
    if (len != d->len)
        return err_set(err, ERR_CORRUPT,
                       "pack '%s' was written with %llu bytes and has %llu",
                       key, (unsigned long long)d->len,
                       (unsigned long long)len);
    return 0;
}

static struct jv *
part_to_json(const char *key, uint64_t len, const uint8_t sha[HASH_LEN])
{
    char hex[2 * HASH_LEN + 1];

    hex_encode(sha, HASH_LEN, hex);
    return jv_build("{s:s, s:I, s:s}", "key", key, "len", (int64_t)len,
                    "sha256", hex);
}

static int
list_packs(struct repo_session *s, struct jv *list, struct err *err)
{
    size_t n;
    const struct flushed *d = flusher_done(s->flusher, &n);

    for (size_t i = 0; i < n; i++) {
        char key[REPO_KEY_MAX];

        pack_key(&d[i].name, key);
        if (check_pack(s, &d[i], key, err) < 0)
            return -1;
        if (jv_add(list, part_to_json(key, d[i].len, d[i].sha)) < 0)
            return err_set_errno(err, ENOMEM, "list of %zu packs", n);
    }
    return 0;
}

static int
list_segments(struct repo_session *s, struct jv *list, struct err *err)
{
    for (uint32_t i = 0; i < s->n_spilled; i++) {
        const struct spilled *sp = &s->spilled[i];
        struct segment_name name = {.k = sp->seg.k};
        char key[REPO_KEY_MAX];
        struct jv *part;

        memcpy(name.sid, s->sid, sizeof name.sid);
        segment_key(&name, key);
        part = part_to_json(key, sp->map_len, sp->sha);
        (void)jv_set_int(part, "records", sp->seg.n_records);
        if (jv_add(list, part) < 0)
            return err_set_errno(err, ENOMEM, "list of index segments");
    }
    return 0;
}

static int
seal(struct repo_session *s, struct jv **ret_parts, struct err *err)
{
    CLEANUP_JV struct jv *packs = jv_array();
    CLEANUP_JV struct jv *index = jv_array();
    struct jv *parts;
    int r;

    (void)pthread_mutex_lock(&s->lock);
    r = session_flush_locked(s, err);
    (void)pthread_mutex_unlock(&s->lock);
    if (r < 0 || list_packs(s, packs, err) < 0 ||
        list_segments(s, index, err) < 0)
        return -1;
    parts =
        jv_build("{s:o, s:o}", "packs", jv_ref(packs), "index", jv_ref(index));
    if (parts == NULL)
        return err_set_errno(err, ENOMEM, "list of packs");
    *ret_parts = parts;
    return 0;
}

int
session_seal(struct repo_session *s, struct jv **ret_parts, struct err *err)
{
    struct err why = ERR_INIT;

    if (session_alive(s, err) < 0)
        return -1;
    if (s->sealed)
        return err_set(err, ERR_USAGE, "the session is sealed already");
    if (seal(s, ret_parts, &why) < 0) {
        (void)session_fail(s, &why);
        return err_copy(err, &why);
    }
    s->sealed = true;
    return 0;
}

/* -- end --------------------------------------------------------------------*/

static void
remove_object(struct repo_session *s, const char *key)
{
    struct err err = ERR_INIT;

    if (store_delete(s->repo->store, key, &err) < 0)
        log_debug("session: leftover '%s': %s", key, err.msg);
}

/* Also those whose writing failed: they may exist all the same. */
static void
remove_written(struct repo_session *s)
{
    char key[REPO_KEY_MAX];

    for (uint32_t seq = 1; seq <= s->n_packs; seq++) {
        struct pack_name name = {.class = s->classes[seq - 1], .seq = seq};

        memcpy(name.sid, s->sid, sizeof name.sid);
        pack_key(&name, key);
        remove_object(s, key);
    }
    for (uint32_t k = 1; k <= s->last_k; k++) {
        struct segment_name name = {.k = k};

        memcpy(name.sid, s->sid, sizeof name.sid);
        segment_key(&name, key);
        remove_object(s, key);
    }
}

static void
free_memory(struct repo_session *s)
{
    for (unsigned i = 0; s->workers != NULL && i <= s->n_workers; i++) {
        frame_ctx_free(s->workers[i].ctx);
        free(s->workers[i].plain);
    }
    for (uint32_t i = 0; i < s->n_spilled; i++)
        store_unmap(s->repo->store, s->spilled[i].map, s->spilled[i].map_len);
    pack_free(s->current[PACK_DATA]);
    pack_free(s->current[PACK_META]);
    record_table_free(s->table);
    (void)pthread_mutex_destroy(&s->lock);
    free(s->spilled);
    free(s->classes);
    free(s->workers);
    free(s);
}

void
repo_session_free(struct repo_session *s)
{
    if (s == NULL)
        return;
    flusher_free(s->flusher);
#ifdef TIDEMARK_MUTANTS
    s->repo->mutant_frozen = false;
#endif
    if (s->fate == SESSION_OPEN)
        remove_written(s);
    registration_free(s->reg, s->fate == SESSION_IN_DOUBT);
    free_memory(s);
}
