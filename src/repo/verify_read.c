/* Reading the chosen packs: the records of some packs are collected and sorted,
 * and workers read these packs, each as a whole. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "catalog.h"
#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "pool.h"
#include "verify.h"

#define BATCH_RECORDS (1u << 20) /* 56 bytes each */
#define BATCH_PACKS 4096u
#define CHECKPOINT_BYTES (16ull << 30)
#define CHECKPOINT_MS 60000u

struct reading;

struct job {
    struct reading *reading;
    struct vpack *pack;
    const struct vframe *frames;
    size_t n;
};

struct reading {
    struct verify *v;
    struct pool *pool;
    struct vreader *readers;
    struct vframe *frames;
    size_t n_frames, cap_frames;
    struct job *jobs;
    uint64_t kept_at, kept_ms; /* bytes and time of the last checkpoint */
};

/* -- the records of a batch -------------------------------------------------*/

static int
add_frame(struct reading *r, const struct vframe *f, struct err *err)
{
    if (r->n_frames == r->cap_frames) {
        size_t cap = r->cap_frames == 0 ? 4096 : 2 * r->cap_frames;
        struct vframe *v = realloc(r->frames, cap * sizeof *v);

        if (v == NULL)
            return err_set_errno(err, ENOMEM, "%zu index records", cap);
        r->frames = v;
        r->cap_frames = cap;
    }
    r->frames[r->n_frames++] = *f;
    return 0;
}

static bool
in_batch(const struct verify *v, uint32_t no, size_t from, size_t to)
{
    uint32_t place = no < v->n_of_pack ? v->of_pack[no] : UINT32_MAX;

    return place >= from && place < to && v->packs[place].chosen &&
           v->packs[place].need > 0;
}

static bool
concerns(const struct verify *v, const struct loaded *l, size_t from, size_t to)
{
    for (uint32_t k = 0; k < l->seg.n_packs; k++)
        if (in_batch(v, l->pack_base + k, from, to))
            return true;
    return false;
}

static int
collect_segment(struct reading *r, const struct loaded *l, size_t from,
                size_t to, struct err *err)
{
    const struct verify *v = r->v;

    for (uint32_t i = 0; i < l->seg.n_records; i++) {
        uint64_t record = l->record_base + i;
        struct index_record rec;
        struct vframe f = {.record = record};

        if (record >= v->n_bits || !verify_bit(v->need, record) ||
            segment_record(&l->seg, i, &rec, NULL) < 0 ||
            !in_batch(v, l->pack_base + rec.pack, from, to))
            continue;
        f.place = v->of_pack[l->pack_base + rec.pack];
        f.offset = rec.offset;
        f.frame_len = rec.frame_len;
        f.raw_len = rec.raw_len;
        f.kind = rec.kind;
        memcpy(f.prefix, rec.prefix, sizeof f.prefix);
        if (add_frame(r, &f, err) < 0)
            return -1;
    }
    return 0;
}

static int
compare_frames(const void *a, const void *b)
{
    const struct vframe *x = a, *y = b;

    if (x->place != y->place)
        return x->place < y->place ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static int
collect(struct reading *r, size_t from, size_t to, struct err *err)
{
    struct repo *repo = r->v->repo;
    int rc = 0;

    r->n_frames = 0;
    (void)pthread_rwlock_rdlock(&repo->index_lock);
    for (size_t i = 0; rc == 0 && i < repo->catalog->n; i++)
        if (concerns(r->v, &repo->catalog->v[i], from, to))
            rc = collect_segment(r, &repo->catalog->v[i], from, to, err);
    (void)pthread_rwlock_unlock(&repo->index_lock);
    if (rc == 0 && r->n_frames > 0)
        qsort(r->frames, r->n_frames, sizeof *r->frames, compare_frames);
    return rc;
}

/* -- workers ----------------------------------------------------------------*/

static bool
failed(struct verify *v)
{
    bool yes;

    (void)pthread_mutex_lock(&v->lock);
    yes = v->failure.code != ERR_NONE;
    (void)pthread_mutex_unlock(&v->lock);
    return yes;
}

static void
work(void *arg, unsigned worker)
{
    struct job *j = arg;
    struct verify *v = j->reading->v;
    struct err err = ERR_INIT;
    int rc;

    if (failed(v))
        return;
    rc = verify_one_pack(v, &j->reading->readers[worker], j->pack, j->frames,
                         j->n, &err);
    (void)pthread_mutex_lock(&v->lock);
    if (rc < 0)
        (void)err_copy(&v->failure, &err);
    else
        v->rep.packs_read++;
    (void)pthread_mutex_unlock(&v->lock);
}

/* -- checkpoints ------------------------------------------------------------*/

static int
checkpoint(struct reading *r, struct err *err)
{
    struct verify *v = r->v;
    uint64_t every = v->opts.checkpoint, done;

    if (every == 0)
        every = CHECKPOINT_BYTES;
    (void)pthread_mutex_lock(&v->lock);
    done = v->done;
    (void)pthread_mutex_unlock(&v->lock);
    if (done - r->kept_at < every && clock_ms() - r->kept_ms < CHECKPOINT_MS)
        return 0;
    /* Their results are complete only when the packs under way have ended. */
    pool_drain(r->pool);
    r->kept_at = done;
    r->kept_ms = clock_ms();
    return failed(v) ? 0 : verified_keep(v, false, err);
}

/* -- all of it --------------------------------------------------------------*/

static int
read_batch(struct reading *r, size_t from, size_t to, struct err *err)
{
    struct verify *v = r->v;
    size_t k = 0;
    int rc = collect(r, from, to, err);

    for (size_t i = from; rc == 0 && i < to && !failed(v); i++) {
        struct job *j = &r->jobs[i - from];
        size_t first = k;

        while (k < r->n_frames && r->frames[k].place == i)
            k++;
        if (!v->packs[i].chosen)
            continue;
        *j = (struct job){r, &v->packs[i],
                          r->frames != NULL ? r->frames + first : NULL,
                          k - first};
        pool_submit(r->pool, work, j);
        rc = checkpoint(r, err);
    }
    pool_drain(r->pool);
    if (rc == 0 && failed(v))
        rc = err_copy(err, &v->failure);
    return rc;
}

static int
read_all(struct reading *r, struct err *err)
{
    const struct verify *v = r->v;
    size_t to;

    for (size_t from = 0; from < v->n_packs; from = to) {
        uint64_t n = 0;

        for (to = from; to < v->n_packs && to - from < BATCH_PACKS; to++) {
            if (to > from && n + v->packs[to].need > BATCH_RECORDS)
                break;
            n += v->packs[to].chosen ? v->packs[to].need : 0;
        }
        if (read_batch(r, from, to, err) < 0)
            return -1;
    }
    return 0;
}

static int
start(struct reading *r, struct err *err)
{
    unsigned n = r->v->opts.n_workers;

    if (n < 1 || n > 256)
        return err_set(err, ERR_USAGE, "%u workers, 1 to 256 are allowed", n);
    r->jobs = calloc(BATCH_PACKS, sizeof *r->jobs);
    r->readers = calloc(n, sizeof *r->readers);
    if (r->jobs == NULL || r->readers == NULL)
        return err_set_errno(err, ENOMEM, "%u workers", n);
    for (unsigned i = 0; i < n; i++)
        if (vreader_init(&r->readers[i], r->v->repo, err) < 0)
            return -1;
    return pool_new(n, n, &r->pool, err);
}

int
verify_read(struct verify *v, struct err *err)
{
    struct reading r = {.v = v, .kept_ms = clock_ms()};
    int rc = start(&r, err);

    if (rc == 0 && v->opts.progress != NULL)
        v->opts.progress(v->opts.arg, 0, v->total);
    if (rc == 0)
        rc = read_all(&r, err);
    pool_free(r.pool);
    for (unsigned i = 0; r.readers != NULL && i < v->opts.n_workers; i++)
        vreader_done(&r.readers[i]);
    free(r.readers);
    free(r.jobs);
    free(r.frames);
    verify_reason_sort(v);
    return rc;
}
