/* A session: from the registration to the point, or to nothing.
 *
 * Registers first and reads the index afterwards, never the other way round: a
 * collector that does not see the session yet must have removed what it removes
 * before the index is read.
 */
#include "session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "clock.h"
#include "flush.h"
#include "frame.h"
#include "hash.h"
#include "jv.h"
#include "log.h"
#include "rand.h"
#include "store.h"
#include "table.h"

DEFINE_CLEANUP(struct repo_session *, repo_session_free)

/* -- begin ------------------------------------------------------------------*/

static void
session_key(const struct repo_session *s, char key[REPO_KEY_MAX])
{
    (void)snprintf(key, REPO_KEY_MAX, "session/%s", s->sid_text);
}

static int
register_session(struct repo_session *s, struct err *err)
{
    char host[256] = "", time[CLOCK_TEXT_MAX], key[REPO_KEY_MAX];
    CLEANUP_JV struct jv *j = NULL;
    CLEANUP_FREE char *text = NULL;

    (void)gethostname(host, sizeof host - 1);
    clock_text(clock_wall_ns(), time, sizeof time);
    j = jv_build("{s:o, s:I, s:s, s:s, s:s}", "host", jv_string(host), "pid",
                 (int64_t)getpid(), "tool", "tidemark " TIDEMARK_VERSION,
                 "what", "put", "time", time);
    text = j != NULL ? jv_text(j, true) : NULL;
    if (text == NULL)
        return err_set_errno(err, ENOMEM, "session");
    session_key(s, key);
    /* From here on something may be there to be removed. */
    s->registered = true;
    return store_put(s->repo->store, key, text, strlen(text), err);
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

static int
may_write(const struct repo *r, struct err *err)
{
    if (r->read_only[0] == '\0')
        return 0;
    return err_set(err, ERR_UNSUPPORTED,
                   "the repository uses the feature '%s', with which this "
                   "program may only read it; use a newer tidemark",
                   r->read_only);
}

static int
begin(struct repo_session *s, const struct repo_session_opts *opts,
      struct err *err)
{
    if (opts->n_workers > SESSION_WORKERS_MAX)
        return err_set(err, ERR_USAGE, "%u workers, allowed are %u",
                       opts->n_workers, SESSION_WORKERS_MAX);
    if (may_write(s->repo, err) < 0 ||
        record_table_new(REPO_NEW_RECORDS_MAX, &s->table, err) < 0 ||
        make_workers(s, opts->zstd_level, err) < 0 ||
        flusher_new(s->repo->store, &s->flusher, err) < 0 ||
        register_session(s, err) < 0 || repo_check_features(s->repo, err) < 0 ||
        may_write(s->repo, err) < 0)
        return -1;
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
    s->pack_target = REPO_PACK_TARGET;
    rand_bytes(s->sid, sizeof s->sid);
    hex_encode(s->sid, sizeof s->sid, s->sid_text);
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
    if (record_table_new((uint32_t)records_max, &t, NULL) < 0)
        return;
    record_table_free(s->table);
    s->table = t;
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

int
session_fail(struct repo_session *s, const struct err *err)
{
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
    char key[REPO_KEY_MAX];

    if (s == NULL)
        return;
    flusher_free(s->flusher);
    if (s->fate == SESSION_OPEN)
        remove_written(s);
    if (s->registered && s->fate != SESSION_IN_DOUBT) {
        session_key(s, key);
        remove_object(s, key);
    }
    free_memory(s);
}
