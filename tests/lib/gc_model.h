/* tests/lib/gc_model.h - a repository and what its points must read as, for tests
 * of collection. */
#pragma once

#include "../unit/map/temp_repo.h"

#include "gc.h"
#include "store.h"

#ifndef MODEL_CHUNKS
#define MODEL_CHUNKS 70 /* more than one leaf of a map */
#endif
#define MODEL_SIZE ((uint64_t)MODEL_CHUNKS * TEMP_CHUNK)
#define MODEL_POINTS 64

DEFINE_CLEANUP(struct repo *, repo_close)
DEFINE_CLEANUP(struct repo_session *, repo_session_free)

struct model_point {
    char id[33];
    uint64_t values[MODEL_CHUNKS];
    bool forgotten;
};

struct model {
    struct temp_repo t;
    const struct file_ops *ops; /* NULL: those of temp_ops() */
    struct repo *r;
    struct model_point points[MODEL_POINTS];
    unsigned n;
    uint64_t next_value;
};

/* Everything is small, so that little data makes many packs and segments. */
static const struct gc_limits model_limits = {.pack_target = 4096,
                                              .segment_max = 64,
                                              .segment_fold = 48,
                                              .fold_worth = 16,
                                              .small_worth = 16};

static inline void
model_reopen(struct model *m)
{
    repo_close(m->r);
    m->r = NULL;
    CHECK_OK(repo_open(m->t.path, m->ops != NULL ? m->ops : temp_ops(), &m->r,
                       ERR_ABORT),
             ERR_ABORT);
}

static inline void
model_begin(struct model *m)
{
    memset(m, 0, sizeof *m);
    m->next_value = 1;
    temp_repo_init(&m->t);
    model_reopen(m);
}

static inline void
model_end(struct model *m)
{
    repo_close(m->r);
    temp_repo_done(&m->t);
}

static inline struct repo_session *
model_session(struct model *m)
{
    struct repo_session_opts opts = REPO_SESSION_OPTS;
    struct repo_session *s = NULL;

    opts.synchronous = true;
    CHECK_OK(repo_session_begin(m->r, &opts, &s, ERR_ABORT), ERR_ABORT);
    session_set_limits(s, 2048, 1000);
    return s;
}

/* Store the values as a point of `machine`; the model knows it if that works. */
static inline int
model_commit(struct model *m, struct repo_session *s, const char *machine,
             const uint64_t *values, struct err *err)
{
    static const char config[] = "{\"memory\": 512}";
    struct point *p = temp_point(machine, MODEL_SIZE, 1);
    struct model_point *mp = &m->points[m->n];
    int rc = temp_put_disk(s, values, MODEL_SIZE, &(struct chunk_id){{0}},
                           &p->disks[0].root, err);

    p->config_len = sizeof config;
    if (rc == 0)
        rc = repo_put_blob(s, config, sizeof config, &p->config, err);
    if (rc == 0)
        rc = repo_commit(s, p, err);
    if (rc == 0) {
        memcpy(mp->id, p->id, sizeof mp->id);
        memcpy(mp->values, values, sizeof mp->values);
        mp->forgotten = false;
        m->n++;
    }
    point_free(p);
    return rc;
}

/* The values of the last point, `n_new` of them, from `first` on and `step`
 * apart, replaced by new ones. */
static inline void
model_values(struct model *m, uint64_t *values, unsigned first, unsigned step,
             unsigned n_new)
{
    if (m->n > 0)
        memcpy(values, m->points[m->n - 1].values,
               MODEL_CHUNKS * sizeof *values);
    else
        memset(values, 0, MODEL_CHUNKS * sizeof *values);
    for (unsigned i = 0; i < n_new; i++)
        values[(first + i * step) % MODEL_CHUNKS] = m->next_value++;
}

static inline void
model_backup(struct model *m, const char *machine, unsigned first,
             unsigned step, unsigned n_new)
{
    CLEANUP(repo_session_freep) struct repo_session *s = model_session(m);
    uint64_t values[MODEL_CHUNKS];

    model_values(m, values, first, step, n_new);
    CHECK_OK(model_commit(m, s, machine, values, ERR_ABORT), ERR_ABORT);
}

static inline void
model_forget(struct model *m, unsigned no)
{
    CHECK_OK(repo_forget(m->r, m->points[no].id, "test", ERR_ABORT), ERR_ABORT);
    m->points[no].forgotten = true;
}

/* Store a chunk that no map names yet. */
static inline void
model_put(struct repo_session *s, uint64_t value)
{
    uint8_t data[TEMP_CHUNK];
    struct chunk_id id;

    temp_fill(value, data, sizeof data);
    CHECK_OK(repo_put(s, 0, data, sizeof data, NULL, &id, NULL, ERR_ABORT),
             ERR_ABORT);
}

/* A machine with a full backup and three increments. */
static inline void
model_chain(struct model *m)
{
    model_begin(m);
    model_backup(m, "vm", 0, 1, MODEL_CHUNKS);
    model_backup(m, "vm", 0, 7, 10);
    model_backup(m, "vm", 1, 7, 10);
    model_backup(m, "vm", 2, 7, 10);
}

/* -- checks -----------------------------------------------------------------*/

static inline const struct point *
model_listed(const struct point_list *l, const char *id)
{
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->v[i]->id, id) == 0)
            return l->v[i];
    return NULL;
}

static inline bool
model_reads(struct repo *r, const struct point *p, const uint64_t *values)
{
    const struct point_disk *d = &p->disks[0];
    struct map_reader *map = NULL;
    struct err err = ERR_INIT;
    uint8_t want[TEMP_CHUNK], got[TEMP_CHUNK], *blob = NULL;
    bool same =
        map_reader_new(r, d->size, d->chunk_size, &d->root, &map, &err) == 0;

    for (uint64_t i = 0; same && i < MODEL_CHUNKS; i++) {
        struct chunk_id id;

        temp_fill(values[i], want, sizeof want);
        same = map_reader_get(map, i, &id, &err) == 0 &&
               page_get(r, &id, got, sizeof got, &err) == 0 &&
               memcmp(want, got, sizeof got) == 0;
    }
    map_reader_free(map);
    same =
        same && repo_get_blob(r, &p->config, p->config_len, &blob, &err) == 0;
    free(blob);
    if (!same)
        printf("# point %s: %s\n", p->id, err.msg);
    return same;
}

/* As a new process sees it: what is not forgotten reads back, the rest is not
 * listed, and the index is whole. */
static inline bool
model_check(struct model *m)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP_JV struct jv *problems = NULL;
    CLEANUP_JV struct jv *bad = NULL;
    struct point_list l = {NULL, 0};
    struct err err = ERR_INIT;
    bool good = repo_open(m->t.path, temp_ops(), &r, &err) == 0 &&
                repo_points(r, NULL, &l, &bad, &err) == 0;

    if (!good)
        printf("# %s\n", err.msg);
    for (unsigned i = 0; good && i < m->n; i++) {
        const struct point *p = model_listed(&l, m->points[i].id);

        good = m->points[i].forgotten
                   ? p == NULL
                   : p != NULL && model_reads(r, p, m->points[i].values);
        if (!good)
            printf("# point %u %s\n", i, p != NULL ? "is there" : "is missing");
    }
    problems = good ? index_problems(r) : NULL;
    for (size_t i = 0; i < jv_size(problems); i++)
        printf("# %s: %s\n", jv_get_str(jv_at(problems, i), "object"),
               jv_get_str(jv_at(problems, i), "problem"));
    good = good && jv_size(problems) == 0 && jv_size(bad) == 0;
    point_list_done(&l);
    return good;
}

static inline int
model_count_one(void *arg, const char *key, uint64_t len)
{
    (void)key;
    (void)len;
    ++*(unsigned *)arg;
    return 0;
}

static inline unsigned
model_count(struct model *m, const char *kind)
{
    unsigned n = 0;

    CHECK_OK(store_list(m->r->store, kind, model_count_one, &n, ERR_ABORT),
             ERR_ABORT);
    return n;
}

/* Nothing is there that is not needed or at least counted. */
static inline bool
model_clean(struct model *m)
{
    struct gc_view v;
    bool clean;

    CHECK_OK(gc_view_read(&v, m->r, ERR_ABORT), ERR_ABORT);
    CHECK_OK(gc_view_open_segments(&v, ERR_ABORT), ERR_ABORT);
    clean = v.n_condemned == 0 && v.sessions.n == 0 && v.beats.n == 0 &&
            v.forgets.n == 0 && v.index.n == v.n_segs;
    if (!clean)
        printf("# condemned %zu, sessions %zu, beats %zu, forgets %zu, "
               "segments %zu of %zu\n",
               v.n_condemned, v.sessions.n, v.beats.n, v.forgets.n, v.n_segs,
               v.index.n);
    for (size_t i = 0; i < v.packs.n; i++)
        if (v.packs.v[i].len > 0 && !v.packs.v[i].counted)
            clean = false;
    gc_view_done(&v);
    return clean;
}

/* -- collecting -------------------------------------------------------------*/

/* A clock that only sleeping moves, and what happens meanwhile. */
struct model_clock {
    uint64_t now;
    unsigned n_sleeps;
    void (*each)(void *arg, unsigned sleep);
    void *arg;
};

static inline uint64_t
model_now(void *arg)
{
    return ((struct model_clock *)arg)->now;
}

static inline void
model_sleep(void *arg, uint64_t ns)
{
    struct model_clock *c = arg;

    c->now += ns;
    c->n_sleeps++;
    if (c->n_sleeps > 100000)
        abort(); /* it waits for ever */
    if (c->each != NULL)
        c->each(c->arg, c->n_sleeps);
}

static inline int
model_gc(struct model *m, struct model_clock *clock, bool dry_run,
         struct repo_gc_report *rep, struct err *err)
{
    struct model_clock own = {0};
    struct repo_gc_opts opts = {.dry_run = dry_run,
                                .now_ns = model_now,
                                .sleep_ns = model_sleep,
                                .arg = clock != NULL ? clock : &own};

    memset(rep, 0, sizeof *rep);
    return repo_gc_limited(m->r, &opts, &model_limits, rep, err);
}

static inline void
model_collect(struct model *m, struct model_clock *clock,
              struct repo_gc_report *rep)
{
    CHECK_OK(model_gc(m, clock, false, rep, ERR_ABORT), ERR_ABORT);
}
