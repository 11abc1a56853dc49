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
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "err.h"
#include "index.h"
#include "internal.h"
#include "jv.h"
#include "log.h"
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
    if (quick_new(&c->quick, err) < 0) {
        free(c);
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
    free(c->seen);
    free(c->problems);
    free(c);
}

/* -- what is wrong ----------------------------------------------------------*/

static int
add_problem(struct catalog *c, const char *key, const struct err *why,
            struct err *err)
{
    struct problem *p;

    log_debug("index: '%s': %s", key, why->msg);
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

    while (cap < n)
        cap = cap > UINT32_MAX / 2 ? UINT32_MAX : 2 * cap;
    if (cap == c->packs_cap)
        return 0;
    v = realloc(c->pack_len, (size_t)cap * sizeof *v);
    if (v == NULL)
        return err_set_errno(err, ENOMEM, "index of %u packs", cap);
    for (uint32_t i = c->packs_cap; i < cap; i++)
        atomic_init(&v[i], 0);
    c->pack_len = v;
    c->packs_cap = cap;
    return 0;
}

static int
add_segment(struct catalog *c, struct loaded *l, struct err *err)
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
    if (buf_append(&l->own, l->map, l->map_len, err) < 0)
        return -1;
    store_unmap(r->store, l->map, l->map_len);
    l->map = NULL;
    return 0;
}

static int
open_segment(struct repo *r, const char *key, const struct jv *part,
             struct loaded *l, struct err *err)
{
    if (store_map(r->store, key, &l->map, &l->map_len, err) < 0 ||
        copy_small(r, l, err) < 0 ||
        segment_open(l->map != NULL ? l->map : l->own.data, l->map_len, &l->seg,
                     err) < 0)
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
        add_segment(r->catalog, &l, err) == 0)
        return 0;
    if (l.map != NULL)
        store_unmap(r->store, l.map, l.map_len);
    buf_done(&l.own);
    return -1;
}

/* -- making a segment again from packs --------------------------------------*/

struct rebuild {
    struct buf packs;   /* struct pack_name */
    struct buf records; /* struct index_record */
};

static void
rebuild_done(struct rebuild *b)
{
    buf_done(&b->packs);
    buf_done(&b->records);
}

static int
add_pack_entries(struct rebuild *b, const struct pack_view *v, struct err *err)
{
    uint32_t no = (uint32_t)(b->packs.len / sizeof v->name);

    for (uint32_t i = 0; i < v->n_entries; i++) {
        struct pack_entry e;
        struct index_record rec = {.pack = no};

        pack_entry_at(v, i, &e);
        memcpy(rec.prefix, e.id.b, sizeof rec.prefix);
        rec.offset = e.offset;
        rec.frame_len = e.frame_len;
        rec.raw_len = e.raw_len;
        rec.kind = e.kind;
        if (buf_append(&b->records, &rec, sizeof rec, err) < 0)
            return -1;
    }
    return buf_append(&b->packs, &v->name, sizeof v->name, err);
}

static int
rebuild_pack(struct repo *r, const char *key, struct rebuild *b,
             struct err *err)
{
    char own[REPO_KEY_MAX];
    struct pack_view v;
    const uint8_t *map;
    size_t len;
    int result = -1;

    if (store_map(r->store, key, &map, &len, err) < 0)
        return -1;
    if (pack_parse(map, len, &v, err) == 0) {
        pack_key(&v.name, own);
        if (strcmp(own, key) != 0)
            (void)err_set(err, ERR_CORRUPT, "this is '%s' under a wrong name",
                          own);
        else
            result = add_pack_entries(b, &v, err);
    }
    store_unmap(r->store, map, len);
    return result;
}

static int
collect_entries(struct repo *r, const struct jv *payload, struct rebuild *b,
                struct err *err)
{
    const struct jv *list = jv_get(payload, "packs");

    for (size_t i = 0; i < jv_size(list); i++) {
        const char *key = jv_get_str(jv_at(list, i), "key");
        struct err why = ERR_INIT;

        if (key != NULL && rebuild_pack(r, key, b, &why) < 0 &&
            add_problem(r->catalog, key, &why, err) < 0)
            return -1;
    }
    if (b->packs.len / sizeof(struct pack_name) > SEGMENT_PACKS_MAX ||
        b->records.len / sizeof(struct index_record) > SEGMENT_RECORDS_MAX)
        return err_set(err, ERR_UNSUPPORTED, "too many packs in one commit");
    return 0;
}

static int
rebuild_segment(struct repo *r, const struct jv *payload, struct err *err)
{
    CLEANUP(rebuild_done) struct rebuild b = {BUF_INIT, BUF_INIT};
    struct segment_name name = {.k = 0};
    struct loaded l = {.own = BUF_INIT};

    if (collect_entries(r, payload, &b, err) == 0 &&
        segment_build(&name, (const struct pack_name *)(void *)b.packs.data,
                      (uint32_t)(b.packs.len / sizeof(struct pack_name)),
                      (struct index_record *)(void *)b.records.data,
                      (uint32_t)(b.records.len / sizeof(struct index_record)),
                      &l.own, err) == 0 &&
        segment_open(l.own.data, l.own.len, &l.seg, err) == 0 &&
        add_segment(r->catalog, &l, err) == 0)
        return 0;
    buf_done(&l.own);
    return err_wrap(err, "make an index again from packs");
}

/* -- commit objects ---------------------------------------------------------*/

static int
load_payload(struct repo *r, const struct jv *payload, struct err *err)
{
    const struct jv *list = jv_get(payload, "index");
    bool lost = false;

    for (size_t i = 0; i < jv_size(list); i++) {
        const struct jv *part = jv_at(list, i);
        const char *key = jv_get_str(part, "key");
        struct err why = ERR_INIT;

        if (key == NULL || load_segment(r, key, part, &why) == 0)
            continue;
        lost = true;
        if (add_problem(r->catalog, key, &why, err) < 0)
            return -1;
    }
    return lost ? rebuild_segment(r, payload, err) : 0;
}

static int
read_commit(struct repo *r, const char *key, enum commit_type *ret_type,
            struct jv **ret, struct err *err)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;

    if (commit_load(r, key, &b, err) < 0)
        return -1;
    return commit_decode(r->keys.commit, b.data, b.len, ret_type, ret, err);
}

static int
load_commit(struct repo *r, const char *key, struct err *err)
{
    CLEANUP_JV struct jv *payload = NULL;
    enum commit_type type;
    struct err why = ERR_INIT;

    if (read_commit(r, key, &type, &payload, &why) < 0)
        return add_problem(r->catalog, key, &why, err);
    return type == COMMIT_COMMIT ? load_payload(r, payload, err) : 0;
}

static int
compare_names(const void *a, const void *b)
{
    const struct name *x = a, *y = b;

    return strcmp(x->key, y->key);
}

struct commit_walk {
    struct catalog *c;
    struct buf fresh; /* struct name */
    struct err *err;
};

static int
collect_commit(void *arg, const char *key, uint64_t len)
{
    struct commit_walk *w = arg;
    struct name n = {""};

    (void)len;
    if (strlen(key) >= sizeof n.key)
        return 0;
    memcpy(n.key, key, strlen(key));
    if (w->c->n_seen > 0 &&
        bsearch(&n, w->c->seen, w->c->n_seen, sizeof n, compare_names) != NULL)
        return 0;
    return buf_append(&w->fresh, &n, sizeof n, w->err);
}

static int
note_seen(struct catalog *c, const struct buf *fresh, struct err *err)
{
    size_t n = fresh->len / sizeof(struct name);
    struct name *v = realloc(c->seen, (c->n_seen + n) * sizeof *v);

    if (v == NULL)
        return err_set_errno(err, ENOMEM, "%zu commit objects", c->n_seen + n);
    c->seen = v;
    memcpy(v + c->n_seen, fresh->data, fresh->len);
    c->n_seen += n;
    qsort(v, c->n_seen, sizeof *v, compare_names);
    return 0;
}

static int
reload_locked(struct repo *r, struct err *err)
{
    struct commit_walk w = {r->catalog, BUF_INIT, err};
    CLEANUP(buf_done) struct buf fresh = BUF_INIT;
    const struct name *v;
    int result = store_list(r->store, "commit", collect_commit, &w, err);

    fresh = w.fresh;
    v = (const struct name *)(const void *)fresh.data;
    for (size_t i = 0; result == 0 && i < fresh.len / sizeof *v; i++)
        result = load_commit(r, v[i].key, err);
    if (result < 0)
        return -1;
    return fresh.len > 0 ? note_seen(r->catalog, &fresh, err) : 0;
}

int
index_reload(struct repo *r, struct err *err)
{
    int result;

    (void)pthread_rwlock_wrlock(&r->index_lock);
    result = reload_locked(r, err);
    (void)pthread_rwlock_unlock(&r->index_lock);
    return result < 0 ? err_wrap(err, "read the index") : 0;
}
