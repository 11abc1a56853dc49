/* Reading chunks in the order in which they lie in the packs.
 *
 * A map names chunks in the order of the disk; on an old repository that is
 * any order of the packs, and one seek per 64 KiB would make a restore ten
 * times slower than the disk.  So requests are collected, sorted by place, and
 * read in ranges of up to 2 MiB.  The thread that calls repo_fetch_add() is the
 * one reader; pool workers decode, prove and deliver.  Memory: FETCH_SLOTS_AHEAD
 * ranges more than there are workers, a chunk per worker, and 60 bytes for each
 * queued request.
 *
 * Damage is local: a range that cannot be read is read again frame by frame, so
 * that one bad sector costs the chunks that lie on it and no others.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "internal.h"
#include "pool.h"
#include "store.h"

#define BATCH_DEFAULT (1u << 20)
#define BATCH_MAX (1u << 30)
#define WORKERS_MAX 256
#define RANGE_MAX (2u << 20) /* bytes of one read, unless a frame is longer */
#define GAP_MAX (64u << 10)  /* read through rather than seek */
#define RANGE_REQUESTS_MAX 1024u /* equal chunks can be asked for very often */
#define FRAME_LEN_MAX (REPO_CHUNK_MAX + (64u << 10))
#define FETCH_SLOTS_AHEAD 3
#define PACK_NONE UINT32_MAX /* sorts behind all packs */

struct request {
    struct chunk_id id;
    uint64_t tag;
    uint32_t pack; /* PACK_NONE: in no pack */
    uint32_t offset;
    uint32_t frame_len;
    uint32_t len; /* of the plaintext */
};

/* A range on its way from the reader to a worker. */
struct slot {
    struct repo_fetch *fetch;
    struct slot *next_free;
    uint8_t *buf;
    size_t cap;
    uint32_t from, to; /* requests order[from .. to - 1] */
    uint64_t offset;   /* of buf[0] in the pack */
    struct err why;    /* set: the range could not be read */
};

struct worker {
    struct frame_ctx *ctx;
    uint8_t *out; /* REPO_CHUNK_MAX bytes */
};

struct repo_fetch {
    /* never changed after repo_fetch_new() */
    struct repo *repo;
    struct repo_fetch_opts opts;
    struct pool *pool;
    struct worker *workers;
    struct slot *slots;
    unsigned n_slots;

    /* owner's; while a batch runs the workers read them, too */
    struct request *req;
    uint32_t *order;
    size_t n, cap;
    bool reloaded; /* the index, after a first miss */

    atomic_bool stop; /* failed when `error` is set, else canceled */

    pthread_mutex_t lock;
    pthread_cond_t slot_freed;
    /* protected by lock */
    struct slot *free_slots;
    struct err error; /* the first of any thread */
};

/* -- life -------------------------------------------------------------------*/

static int
start(struct repo_fetch *f, struct err *err)
{
    f->workers = calloc(f->opts.n_workers, sizeof *f->workers);
    f->slots = calloc(f->n_slots, sizeof *f->slots);
    if (f->workers == NULL || f->slots == NULL)
        return err_set_errno(err, ENOMEM, "fetch");
    for (unsigned i = 0; i < f->n_slots; i++) {
        f->slots[i].fetch = f;
        f->slots[i].next_free = f->free_slots;
        f->free_slots = &f->slots[i];
    }
    for (unsigned i = 0; i < f->opts.n_workers; i++) {
        struct worker *w = &f->workers[i];

        if (frame_ctx_new(&f->repo->keys, 0, &w->ctx, err) < 0)
            return -1;
        w->out = malloc(REPO_CHUNK_MAX);
        if (w->out == NULL)
            return err_set_errno(err, ENOMEM, "fetch");
    }
    return pool_new(f->opts.n_workers, f->n_slots, &f->pool, err);
}

int
repo_fetch_new(struct repo *r, const struct repo_fetch_opts *opts,
               struct repo_fetch **ret, struct err *err)
{
    struct repo_fetch *f;

    if (opts->n_workers < 1 || opts->n_workers > WORKERS_MAX)
        return err_set(err, ERR_USAGE, "%u workers, 1 to %d are allowed",
                       opts->n_workers, WORKERS_MAX);
    f = calloc(1, sizeof *f);
    if (f == NULL)
        return err_set_errno(err, ENOMEM, "fetch");
    (void)pthread_mutex_init(&f->lock, NULL);
    (void)pthread_cond_init(&f->slot_freed, NULL);
    f->repo = r;
    f->opts = *opts;
    if (f->opts.batch == 0)
        f->opts.batch = BATCH_DEFAULT;
    if (f->opts.batch > BATCH_MAX)
        f->opts.batch = BATCH_MAX;
    f->n_slots = opts->n_workers + FETCH_SLOTS_AHEAD;
    if (start(f, err) < 0) {
        repo_fetch_free(f);
        return -1;
    }
    *ret = f;
    return 0;
}

void
repo_fetch_free(struct repo_fetch *f)
{
    if (f == NULL)
        return;
    pool_free(f->pool);
    for (unsigned i = 0; f->slots != NULL && i < f->n_slots; i++)
        free(f->slots[i].buf);
    for (unsigned i = 0; f->workers != NULL && i < f->opts.n_workers; i++) {
        frame_ctx_free(f->workers[i].ctx);
        free(f->workers[i].out);
    }
    (void)pthread_mutex_destroy(&f->lock);
    (void)pthread_cond_destroy(&f->slot_freed);
    free(f->slots);
    free(f->workers);
    free(f->req);
    free(f->order);
    free(f);
}

void
repo_fetch_cancel(struct repo_fetch *f)
{
    atomic_store(&f->stop, true);
}

static void
fail(struct repo_fetch *f, const struct err *e)
{
    (void)pthread_mutex_lock(&f->lock);
    (void)err_copy(&f->error, e);
    (void)pthread_mutex_unlock(&f->lock);
    atomic_store(&f->stop, true);
}

/* 0 while the fetch is alive, else its first error. */
static int
state(struct repo_fetch *f, struct err *err)
{
    int rc = 0;

    if (!atomic_load(&f->stop))
        return 0;
    (void)pthread_mutex_lock(&f->lock);
    if (f->error.code != ERR_NONE)
        rc = err_copy(err, &f->error);
    (void)pthread_mutex_unlock(&f->lock);
    if (rc == 0)
        rc = err_set(err, ERR_CANCELED, "reading was canceled");
    return rc;
}

/* -- workers ----------------------------------------------------------------*/

/* Make the plaintext of `q` in w->out from the place that was looked up. */
static int
decode_first(const struct slot *s, struct worker *w, const struct request *q,
             struct err *why)
{
    struct locator l = {.pack = q->pack};
    char key[REPO_KEY_MAX];

    if (q->pack == PACK_NONE)
        return err_set(why, ERR_NOT_FOUND, "the chunk is in no index segment");
    if (s->why.code != ERR_NONE)
        return err_copy(why, &s->why);
    if (frame_decode(w->ctx, s->buf + (q->offset - s->offset), q->frame_len,
                     &q->id, q->len, w->out, why) == 0)
        return 0;
    if (locator_pack_key(s->fetch->repo, &l, key) == 0)
        (void)err_wrap(why, "%s at offset %" PRIu32, key, q->offset);
    return -1;
}

static int
decode(const struct slot *s, struct worker *w, const struct request *q,
       struct err *why)
{
    if (chunk_id_zero(&q->id)) {
        memset(w->out, 0, q->len);
        return 0;
    }
    if (decode_first(s, w, q, why) == 0)
        return 0;
    if (s->fetch->opts.first_only ||
        frame_read(s->fetch->repo, w->ctx, &q->id, w->out, q->len, NULL) < 0)
        return -1;
    err_clear(why);
    return 0;
}

static bool
same_chunk(const struct request *a, const struct request *b)
{
    return a->pack == b->pack && a->offset == b->offset && a->len == b->len &&
           chunk_id_equal(&a->id, &b->id);
}

static void
give_slot(struct slot *s)
{
    struct repo_fetch *f = s->fetch;

    (void)pthread_mutex_lock(&f->lock);
    s->next_free = f->free_slots;
    f->free_slots = s;
    (void)pthread_cond_signal(&f->slot_freed);
    (void)pthread_mutex_unlock(&f->lock);
}

static void
work(void *arg, unsigned worker)
{
    struct slot *s = arg;
    struct repo_fetch *f = s->fetch;
    struct worker *w = &f->workers[worker];
    const struct request *last = NULL;
    struct err why = ERR_INIT;

    for (uint32_t i = s->from; i < s->to && !atomic_load(&f->stop); i++) {
        const struct request *q = &f->req[f->order[i]];
        struct err err = ERR_INIT;

        if (last == NULL || !same_chunk(last, q)) {
            err_clear(&why);
            (void)decode(s, w, q, &why);
            last = q;
        }
        if (f->opts.fn(f->opts.arg, worker, q->tag, &q->id,
                       why.code == ERR_NONE ? w->out : NULL, q->len,
                       why.code == ERR_NONE ? NULL : &why, &err) < 0) {
            if (err.code == ERR_NONE)
                (void)err_set(&err, ERR_CANCELED, "reading was stopped");
            fail(f, &err);
        }
    }
    give_slot(s);
}

/* -- reader -----------------------------------------------------------------*/

static struct slot *
take_slot(struct repo_fetch *f)
{
    struct slot *s;

    (void)pthread_mutex_lock(&f->lock);
    while (f->free_slots == NULL)
        (void)pthread_cond_wait(&f->slot_freed, &f->lock);
    s = f->free_slots;
    f->free_slots = s->next_free;
    (void)pthread_mutex_unlock(&f->lock);
    return s;
}

static const struct request *
at(const struct repo_fetch *f, uint32_t i)
{
    return &f->req[f->order[i]];
}

static uint64_t
end_of(const struct request *q)
{
    return (uint64_t)q->offset + q->frame_len;
}

/* The first request behind those that one read gets; *ret_end is its end. */
static uint32_t
range_end(const struct repo_fetch *f, uint32_t from, uint64_t *ret_end)
{
    const struct request *first = at(f, from);
    uint64_t end = end_of(first);
    uint32_t i;

    for (i = from + 1; i < f->n && i - from < RANGE_REQUESTS_MAX; i++) {
        const struct request *q = at(f, i);
        uint64_t q_end = end_of(q) > end ? end_of(q) : end;

        if (q->pack != first->pack)
            break;
        if (q->offset > end + GAP_MAX ||
            (q_end != end && q_end - first->offset > RANGE_MAX))
            break;
        end = q_end;
    }
    *ret_end = end;
    return i;
}

/* Read the range of `s` up to `end`; -1 with s->why when that cannot be. */
static int
read_slot(struct slot *s, uint64_t end)
{
    struct repo_fetch *f = s->fetch;
    const struct request *first = at(f, s->from);
    struct locator l = {.pack = first->pack};
    size_t len = (size_t)(end - first->offset);
    char key[REPO_KEY_MAX];

    err_clear(&s->why);
    s->offset = first->offset;
    if (first->pack == PACK_NONE)
        return 0;
    if (locator_pack_key(f->repo, &l, key) < 0)
        return err_set(&s->why, ERR_CORRUPT, "pack %" PRIu32 " has no name",
                       first->pack);
    if (len > RANGE_MAX && len > FRAME_LEN_MAX)
        return err_set(&s->why, ERR_CORRUPT,
                       "%s: the index has a frame of %zu bytes at offset "
                       "%" PRIu32,
                       key, len, first->offset);
    if (len > s->cap) {
        free(s->buf);
        s->cap = 0;
        s->buf = malloc(len);
        if (s->buf == NULL)
            return err_set_errno(&s->why, ENOMEM, "read %zu bytes of %s", len,
                                 key);
        s->cap = len;
    }
    return store_get(f->repo->store, key, s->offset, len, s->buf, &s->why);
}

static void
submit(struct repo_fetch *f, uint32_t from, uint32_t to, uint64_t end,
       bool alone)
{
    struct slot *s = take_slot(f);

    s->from = from;
    s->to = to;
    if (read_slot(s, end) < 0 && !alone && s->why.code != ERR_NOT_FOUND) {
        give_slot(s);
        for (uint32_t i = from, next; i < to; i = next) {
            for (next = i + 1; next < to; next++)
                if (at(f, next)->offset != at(f, i)->offset ||
                    at(f, next)->frame_len != at(f, i)->frame_len)
                    break;
            submit(f, i, next, end_of(at(f, i)), true);
        }
        return;
    }
    pool_submit(f->pool, work, s);
}

static int
compare(const void *a, const void *b, void *arg)
{
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    const struct request *p = &((const struct request *)arg)[i];
    const struct request *q = &((const struct request *)arg)[j];

    if (p->pack != q->pack)
        return p->pack < q->pack ? -1 : 1;
    if (p->offset != q->offset)
        return p->offset < q->offset ? -1 : 1;
    return (i > j) - (i < j);
}

static int
run_batch(struct repo_fetch *f, struct err *err)
{
    uint32_t i = 0;

    for (uint32_t k = 0; k < f->n; k++)
        f->order[k] = k;
    /* Numbers, not requests: qsort() takes as much memory again. */
    if (f->n > 1)
        qsort_r(f->order, f->n, sizeof *f->order, compare, f->req);
    while (i < f->n && !atomic_load(&f->stop)) {
        uint64_t end;
        uint32_t to = range_end(f, i, &end);

        submit(f, i, to, end, false);
        i = to;
    }
    pool_drain(f->pool);
    f->n = 0;
    return state(f, err);
}

/* -- queue ------------------------------------------------------------------*/

static int
grow(struct repo_fetch *f, struct err *err)
{
    size_t cap = f->cap == 0 ? 1024 : 2 * f->cap;
    struct request *req;
    uint32_t *order;

    if (cap > f->opts.batch)
        cap = f->opts.batch;
    req = realloc(f->req, cap * sizeof *req);
    if (req != NULL)
        f->req = req;
    order = realloc(f->order, cap * sizeof *order);
    if (order != NULL)
        f->order = order;
    if (req == NULL || order == NULL)
        return err_set_errno(err, ENOMEM, "queue of %zu chunks", cap);
    f->cap = cap;
    return 0;
}

/* Where the chunk is; another process may have added it since the index was
 * loaded, so the first miss loads it again. */
static void
locate(struct repo_fetch *f, struct request *q)
{
    struct locator l;
    int rc;

    q->pack = PACK_NONE;
    if (chunk_id_zero(&q->id))
        return;
    rc = index_find(f->repo, &q->id, &l, NULL);
    if (rc == 0 && !f->reloaded) {
        f->reloaded = true;
        if (index_reload(f->repo, NULL) == 0)
            rc = index_find(f->repo, &q->id, &l, NULL);
    }
    if (rc != 1)
        return;
    q->pack = l.pack;
    q->offset = l.offset;
    q->frame_len = l.frame_len;
}

int
repo_fetch_add(struct repo_fetch *f, uint64_t tag, const struct chunk_id *id,
               uint32_t len, struct err *err)
{
    struct request q = {.id = *id, .tag = tag, .len = len};

    if (len < 1 || len > REPO_CHUNK_MAX)
        return err_set(err, ERR_USAGE, "chunk of %" PRIu32 " bytes", len);
    if (state(f, err) < 0)
        return -1;
    if (f->n == f->cap && grow(f, err) < 0)
        return -1;
    locate(f, &q);
    f->req[f->n++] = q;
    return f->n == f->opts.batch ? run_batch(f, err) : 0;
}

int
repo_fetch_finish(struct repo_fetch *f, struct err *err)
{
    if (state(f, err) < 0)
        return -1;
    return run_batch(f, err);
}
