/* The index of an open repository: the segments that commit objects name.
 *
 * Only those count.  What an unfinished session wrote may go away again, and a
 * chunk that was reused from it would be lost with it.
 *
 * A segment that is missing or damaged is made again in memory from the tables
 * at the ends of the packs that its commit object names: slower to open, but
 * all points stay readable.
 */
#include "catalog.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "err.h"
#include "index.h"
#include "internal.h"
#include "jv.h"
#include "log.h"
#include "mutant.h"
#include "points.h"
#include "quick.h"
#include "store.h"

#define PROBLEMS_MAX 1000 /* kept; more say nothing new */
/* Segments up to this many bytes are copied, because a process may have only so
 * many mappings (65530 by default): up to so many bytes of all of them, and
 * beyond that when mappings run out. */
#define COPY_MAX (256u << 10)
#define COPIES_MAX (64u << 20)
#define MAPPINGS_MAX 50000u

int
catalog_new(struct catalog **ret, struct err *err)
{
    struct catalog *c = calloc(1, sizeof *c);

    if (c == NULL)
        return err_set_errno(err, ENOMEM, "index");
    c->gone = pack_set_new();
    c->condemned = pack_set_new();
    c->bad = pack_set_new();
    if (c->gone == NULL || c->condemned == NULL || c->bad == NULL ||
        quick_new(&c->quick, err) < 0) {
        (void)err_set_errno(err, ENOMEM, "index");
        catalog_free(c, NULL);
        return -1;
    }
    *ret = c;
    return 0;
}

void
catalog_free(struct catalog *c, struct store *st)
{
    if (c == NULL)
        return;
    for (size_t i = 0; i < c->n; i++) {
        if (c->v[i].map != NULL)
            store_unmap(st, c->v[i].map, c->v[i].map_len);
        buf_done(&c->v[i].own);
    }
    quick_free(c->quick);
    free(c->v);
    free(c->pack_len);
    free(c->pack_flags);
    names_done(&c->seen);
    tips_done(&c->tips);
    names_done(&c->gone_index);
    pack_set_free(c->gone);
    pack_set_free(c->condemned);
    pack_set_free(c->bad);
    id_list_done(&c->removed);
    free(c->bad_frames);
    free(c->problems);
    free(c);
}

/* -- what is wrong ----------------------------------------------------------*/

int
catalog_problem(struct catalog *c, const char *key, const struct err *why,
                struct err *err)
{
    struct problem *p;

    log_debug("index: '%s': %s", key, why->msg);
    for (size_t i = 0; i < c->n_problems; i++)
        if (strcmp(c->problems[i].key, key) == 0)
            return 0;
    if (c->n_problems == PROBLEMS_MAX)
        return 0;
    p = realloc(c->problems, (c->n_problems + 1) * sizeof *p);
    if (p == NULL)
        return err_set_errno(err, ENOMEM, "list of problems");
    c->problems = p;
    p += c->n_problems++;
    memset(p, 0, sizeof *p);
    memcpy(p->key, key, strnlen(key, sizeof p->key - 1));
    memcpy(p->text, why->msg, sizeof p->text);
    return 0;
}

struct jv *
index_problems(struct repo *r)
{
    struct jv *list = jv_array();

    (void)pthread_rwlock_rdlock(&r->index_lock);
    for (size_t i = 0; list != NULL && i < r->catalog->n_problems; i++) {
        const struct problem *p = &r->catalog->problems[i];

        if (jv_add(list, jv_build("{s:s, s:s}", "object", p->key, "problem",
                                  p->text)) < 0) {
            jv_free(list);
            list = NULL;
        }
    }
    (void)pthread_rwlock_unlock(&r->index_lock);
    return list;
}

/* -- loading segments -------------------------------------------------------*/

static int
widen_packs(struct catalog *c, uint32_t n, struct err *err)
{
    uint32_t cap = c->packs_cap == 0 ? 64 : c->packs_cap;
    _Atomic uint64_t *v;
    uint8_t *flags;

    while (cap < n)
        cap = cap > UINT32_MAX / 2 ? UINT32_MAX : 2 * cap;
    if (cap == c->packs_cap)
        return 0;
    flags = realloc(c->pack_flags, cap);
    if (flags != NULL)
        c->pack_flags = flags;
    v = flags != NULL ? realloc(c->pack_len, (size_t)cap * sizeof *v) : NULL;
    if (v == NULL)
        return err_set_errno(err, ENOMEM, "index of %u packs", cap);
    memset(flags + c->packs_cap, 0, cap - c->packs_cap);
    for (uint32_t i = c->packs_cap; i < cap; i++)
        atomic_init(&v[i], 0);
    c->pack_len = v;
    c->packs_cap = cap;
    return 0;
}

int
catalog_add(struct catalog *c, struct loaded *l, struct err *err)
{
    struct loaded *v;

    if (UINT32_MAX - c->n_packs < l->seg.n_packs)
        return err_set(err, ERR_UNSUPPORTED, "more than %u packs", UINT32_MAX);
    if (c->n == c->cap) {
        size_t cap = c->cap == 0 ? 16 : c->cap * 2;

        v = realloc(c->v, cap * sizeof *v);
        if (v == NULL)
            return err_set_errno(err, ENOMEM, "%zu index segments", cap);
        c->v = v;
        c->cap = cap;
    }
    if (widen_packs(c, c->n_packs + l->seg.n_packs, err) < 0)
        return -1;
    if (l->map != NULL)
        c->n_mapped++;
    else
        c->n_copied += l->own.len;
    l->pack_base = c->n_packs;
    l->record_base = c->n_records;
    c->n_packs += l->seg.n_packs;
    c->n_records += l->seg.n_records;
    c->v[c->n++] = *l;
    return 0;
}

/* The segment under `key` is the one that was committed. */
static int
check_segment(const struct loaded *l, const char *key, const struct jv *part,
              struct err *err)
{
    struct segment_name name = {.k = l->seg.k};
    char own[REPO_KEY_MAX];
    uint64_t len;

    memcpy(name.sid, l->seg.sid, sizeof name.sid);
    segment_key(&name, own);
    if (strcmp(own, key) != 0)
        return err_set(err, ERR_CORRUPT, "this is '%s' under a wrong name",
                       own);
    if (!jv_get_uint(part, "len", &len) || len != l->map_len)
        return err_set(err, ERR_CORRUPT,
                       "%zu bytes, the commit object says otherwise",
                       l->map_len);
    return 0;
}

static int
copy_small(struct repo *r, struct loaded *l, struct err *err)
{
    const struct catalog *c = r->catalog;

    if (c->n_mapped < MAPPINGS_MAX &&
        (l->map_len > COPY_MAX || c->n_copied + l->map_len > COPIES_MAX))
        return 0;
    if (buf_append(&l->own, l->map, l->map_len, err) < 0 ||
        store_check_map(r->store, l->map, err) < 0)
        return -1;
    store_unmap(r->store, l->map, l->map_len);
    l->map = NULL;
    return 0;
}

static int
open_segment(struct repo *r, const char *key, const struct jv *part,
             struct loaded *l, struct err *err)
{
    int rc;

    if (store_map(r->store, key, &l->map, &l->map_len, err) < 0 ||
        copy_small(r, l, err) < 0)
        return -1;
    rc = segment_open(l->map != NULL ? l->map : l->own.data, l->map_len,
                      &l->seg, err);
    if (l->map != NULL && store_check_map(r->store, l->map, err) < 0)
        rc = -1;
    if (rc < 0)
        return -1;
    /* What has been read whole is checked whole: damaged, it can be made again
     * from packs, which a look-up cannot do any more. */
    if (l->map == NULL && segment_check_records(&l->seg, err) < 0)
        return -1;
    return check_segment(l, key, part, err);
}

static int
load_segment(struct repo *r, const char *key, const struct jv *part,
             struct err *err)
{
    struct loaded l = {.own = BUF_INIT};

    if (open_segment(r, key, part, &l, err) == 0 &&
        catalog_add(r->catalog, &l, err) == 0)
        return 0;
    if (l.map != NULL)
        store_unmap(r->store, l.map, l.map_len);
    buf_done(&l.own);
    return -1;
}

/* -- commit objects ---------------------------------------------------------*/

/* What is kept of a commit object between reading all of them and opening
 * segments. */
struct summary {
    char key[REPO_KEY_MAX];
    struct jv *index; /* NULL: nothing counts, or all of it is loaded */
    bool collector;   /* its segments hold records of other sessions' packs */
    bool again;       /* some of its segments are loaded */
};

struct summaries {
    struct summary *v;
    size_t n;
    bool vanished; /* a commit object that was listed, or a segment */
};

static void
summaries_done(struct summaries *l)
{
    for (size_t i = 0; i < l->n; i++)
        jv_free(l->v[i].index);
    free(l->v);
}

static int
summarize(struct repo *r, const char *key, struct summaries *l, struct err *err)
{
    CLEANUP_JV struct jv *payload = NULL;
    struct summary *s = &l->v[l->n];
    enum commit_type type;
    struct err why = ERR_INIT;

    memset(s, 0, sizeof *s);
    if (commit_read(r, key, &type, &payload, NULL, &why) < 0) {
        l->vanished |= why.code == ERR_NOT_FOUND;
        return why.code == ERR_NOT_FOUND
                   ? 0
                   : catalog_problem(r->catalog, key, &why, err);
    }
    if (type == COMMIT_COMMIT) {
        const struct jv *gone = jv_get(payload, "gone");

        char sid[REPO_SID_TEXT];

        (void)snprintf(sid, sizeof sid, "%.32s", key + strlen("commit/"));
        if (notes_gone(r->catalog, gone, &why) < 0)
            return catalog_problem(r->catalog, key, &why, err);
        if (tips_add(&r->catalog->tips, sid, jv_get(payload, "point"), err) < 0)
            return -1;
        s->index = jv_ref(jv_get(payload, "index"));
        s->collector = gone != NULL;
    }
    (void)strcpy(s->key, key);
    l->n++;
    return names_add(&r->catalog->seen, key, err);
}

static bool
is_loaded(const struct catalog *c, const char *key)
{
    for (size_t i = c->n; i-- > 0;) {
        struct segment_name name = {.k = c->v[i].seg.k};
        char own[REPO_KEY_MAX];

        memcpy(name.sid, c->v[i].seg.sid, sizeof name.sid);
        segment_key(&name, own);
        if (strcmp(own, key) == 0)
            return true;
    }
    return false;
}

static bool
counts(const struct catalog *c, const struct summary *s)
{
    char sid[REPO_SID_TEXT];

    (void)snprintf(sid, sizeof sid, "%.32s", s->key + strlen("commit/"));
    return s->index != NULL && !id_list_has(&c->removed, sid);
}

static int
rebuild_lost(struct repo *r, const struct summary *s, struct err *err)
{
    CLEANUP_JV struct jv *payload = NULL;
    enum commit_type type;
    struct err why = ERR_INIT;

    if (commit_read(r, s->key, &type, &payload, NULL, &why) < 0)
        return catalog_problem(r->catalog, s->key, &why, err);
    return rebuild_segment(r, payload, s->collector, err);
}

/* With `patient`, segments that are not there are left for the next turn: a
 * collector may have removed them since its COMMIT, which was not listed. */
static int
load_segments(struct repo *r, struct summary *s, bool patient, struct err *err)
{
    const struct catalog *c = r->catalog;
    bool lost = false;

    for (size_t i = 0; i < jv_size(s->index); i++) {
        const struct jv *part = jv_at(s->index, i);
        const char *key = jv_get_str(part, "key");
        struct err why = ERR_INIT;

        /* Only a collector takes over segments of others. */
        if (key == NULL || names_has(&c->gone_index, key) ||
            ((s->collector || s->again) && is_loaded(c, key)) ||
            load_segment(r, key, part, &why) == 0)
            continue;
        if (patient && why.code == ERR_NOT_FOUND) {
            s->again = true;
            return 0;
        }
        lost = true;
        if (catalog_problem(r->catalog, key, &why, err) < 0)
            return -1;
    }
    jv_free(TAKE_PTR(s->index));
    return lost ? rebuild_lost(r, s, err) : 0;
}

struct commit_walk {
    const struct catalog *c;
    struct names fresh;
    struct err *err;
};

static int
collect_commit(void *arg, const char *key, uint64_t len)
{
    struct commit_walk *w = arg;

    (void)len;
    if (strlen(key) >= REPO_KEY_MAX || names_has(&w->c->seen, key))
        return 0;
    return names_add(&w->fresh, key, w->err);
}

/* A commit object or a segment that vanishes while it is read was removed by a
 * collector, whose own COMMIT says where the chunks are now.  A segment that is
 * not there when nothing new was committed is lost. */
#define RELOADS_MAX 10

static int
make_room(struct summaries *l, size_t n, struct err *err)
{
    struct summary *v = realloc(l->v, (l->n + n + 1) * sizeof *v);

    if (v == NULL)
        return err_set_errno(err, ENOMEM, "%zu commit objects", n);
    l->v = v;
    return 0;
}

/* Read every commit object that was not read before, then load what counts. */
static int
reload_commits(struct repo *r, const struct names *fresh, struct summaries *l,
               int turn, struct err *err)
{
    const uint32_t first_pack = r->catalog->n_packs;
    size_t n_gone = pack_set_n(r->catalog->gone), n_before = l->n;
    bool patient;

    if (make_room(l, fresh->n, err) < 0)
        return -1;
    for (size_t i = 0; i < fresh->n; i++)
        if (summarize(r, fresh->v[i].key, l, err) < 0)
            return -1;
    patient = turn + 1 < RELOADS_MAX && (turn == 0 || l->n > n_before);
    names_sort(&r->catalog->seen);
    names_sort(&r->catalog->gone_index);
    id_list_sort(&r->catalog->removed);
    for (size_t i = 0; i < l->n; i++) {
        if (!counts(r->catalog, &l->v[i]))
            continue;
        if (load_segments(r, &l->v[i], patient, err) < 0)
            return -1;
        l->vanished |= l->v[i].index != NULL;
    }
    notes_flag(r->catalog,
               pack_set_n(r->catalog->gone) != n_gone ? 0 : first_pack);
    return 0;
}

#ifdef TIDEMARK_MUTANTS
static int
load_uncommitted(void *arg, const char *key, uint64_t len)
{
    CLEANUP_JV struct jv *part = jv_build("{s:I}", "len", (int64_t)len);
    struct repo *r = arg;

    if (!is_loaded(r->catalog, key))
        (void)load_segment(r, key, part, NULL);
    return 0;
}

static int
mutant_reload(struct repo *r, struct err *err)
{
    if (!MUTANT(MUTANT_PUT_UNCOMMITTED))
        return 0;
    if (store_list(r->store, "index", load_uncommitted, r, err) < 0)
        return -1;
    notes_flag(r->catalog, 0);
    return 0;
}
#endif

static int
reload_turn(struct repo *r, struct summaries *l, int turn, struct err *err)
{
    struct commit_walk w = {r->catalog, {NULL, 0, 0}, err};
    int result = store_list(r->store, "commit", collect_commit, &w, err);

    l->vanished = false;
    names_sort(&w.fresh);
    if (result == 0)
        result = reload_commits(r, &w.fresh, l, turn, err);
    names_done(&w.fresh);
    return result;
}

static int
reload_locked(struct repo *r, struct err *err)
{
    CLEANUP(summaries_done) struct summaries l = {NULL, 0, true};
    int result = notes_read(r, err);

    for (int turn = 0; result == 0 && l.vanished && turn < RELOADS_MAX; turn++)
        result = reload_turn(r, &l, turn, err);
#ifdef TIDEMARK_MUTANTS
    if (result == 0)
        result = mutant_reload(r, err);
#endif
    return result == 0 ? 0 : -1;
}

int
index_reload(struct repo *r, struct err *err)
{
    int result;

#ifdef TIDEMARK_MUTANTS
    if (r->mutant_frozen)
        return 0;
#endif
    (void)pthread_rwlock_wrlock(&r->index_lock);
    result = reload_locked(r, err);
    (void)pthread_rwlock_unlock(&r->index_lock);
    return result < 0 ? err_wrap(err, "read the index") : 0;
}

int
index_gone(struct repo *r, struct pack_set *packs, struct jv *segments,
           struct id_list *removed, struct err *err)
{
    const struct catalog *c = r->catalog;
    int result = 0;

    (void)pthread_rwlock_rdlock(&r->index_lock);
    for (size_t i = 0; packs != NULL && result == 0 && i < pack_set_n(c->gone);
         i++)
        result = pack_set_add(packs, pack_set_at(c->gone, i), err);
    for (size_t i = 0; segments != NULL && result == 0 && i < c->gone_index.n;
         i++)
        result = jv_add(segments, jv_string(c->gone_index.v[i].key));
    for (size_t i = 0; removed != NULL && result == 0 && i < c->removed.n; i++)
        result = id_list_add(removed, c->removed.v[i], err);
    (void)pthread_rwlock_unlock(&r->index_lock);
    return result < 0 ? err_set_errno(err, ENOMEM, "list of what is gone") : 0;
}
