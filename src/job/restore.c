/* job/restore.c - disks of a point into image files.
 *
 * All disks are fetched together in pack order, so each pack is read once; the
 * workers write each chunk where it belongs.  A feeder thread walks the maps and
 * waits for the fetch, so that this thread can report, and cancel.
 *
 * A damaged chunk ends its disk, not the others: what can be had is restored,
 * and what cannot does not appear under its name.
 */
#include "job.h"

#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "common.h"
#include "err.h"
#include "image.h"
#include "pool.h"
#include "repo.h"
#include "restore.h"

#define THREADS_MAX 256
#define REPORT_MS 200

/* -- a target's end ---------------------------------------------------------*/

static void
fail_target(struct restore *r, struct target *t, const struct err *err)
{
    (void)pthread_mutex_lock(&r->lock);
    (void)err_copy(&t->err, err);
    atomic_store(&t->failed, true);
    (void)pthread_mutex_unlock(&r->lock);
}

static bool
all_failed(const struct restore *r)
{
    for (size_t i = 0; i < r->n; i++)
        if (!atomic_load(&r->targets[i].failed))
            return false;
    return true;
}

/* -- the fetch: feeder and workers ------------------------------------------*/

static int
damaged(struct restore *r, struct target *t, uint64_t off, uint64_t len,
        const struct err *why, struct err *err)
{
    struct err e = ERR_INIT;

    (void)err_set(&e, ERR_CORRUPT,
                  "disk '%s': bytes %" PRIu64 " to %" PRIu64
                  " cannot be restored: %s; run verify to see what else is "
                  "hit, and try an older point",
                  t->disk->name, off, off + len - 1,
                  why != NULL ? why->msg : "the chunk is missing");
    (void)err_side(&e, ERR_SIDE_REPO);
    fail_target(r, t, &e);
    return all_failed(r) ? err_copy(err, &e) : 0;
}

static uint64_t
chunk_len(const struct point_disk *d, uint64_t index)
{
    uint64_t off = index * d->chunk_size;

    return d->size - off < d->chunk_size ? d->size - off : d->chunk_size;
}

static int
write_chunk(void *arg, unsigned worker, uint64_t tag, const struct chunk_id *id,
            const void *data, size_t len, const struct err *why,
            struct err *err)
{
    struct restore *r = arg;
    struct target *t = &r->targets[tag >> TAG_SHIFT];
    uint64_t index = tag & ((1ull << TAG_SHIFT) - 1);
    uint64_t off = index * t->disk->chunk_size;

    if (atomic_load(&t->failed))
        return 0;
    if (data == NULL)
        return damaged(r, t, off, chunk_len(t->disk, index), why, err);
    if (image_write(t->image, worker, data, off, len, err) < 0) {
        (void)err_side(err, ERR_SIDE_TARGET);
        return err_wrap(err, "restore to '%s'", r->opts->to);
    }
    atomic_fetch_add(&t->written, len);
    atomic_fetch_add(&r->done, len);
    return 0;
}

/* Ask for every chunk of a disk that is not zero.  -1 with *fatal: the fetch is
 * over; else only this disk is. */
static int
feed_disk(struct restore *r, size_t number, bool *fatal, struct err *err)
{
    const struct point_disk *d = r->targets[number].disk;
    CLEANUP(map_reader_freep) struct map_reader *m = NULL;
    uint64_t n = (d->size + d->chunk_size - 1) / d->chunk_size;
    uint64_t next = 0, index;
    struct chunk_id id;

    *fatal = false;
    if (map_reader_new(r->repo, d->size, d->chunk_size, &d->root, &m, err) < 0)
        return -1;
    for (;;) {
        if (map_reader_next(m, next, &index, &id, err) < 0)
            return -1;
        if (index > n)
            index = n;
        atomic_fetch_add(&r->done, (index - next) * d->chunk_size);
        if (index == n || atomic_load(&r->stop))
            return 0;
        if (repo_fetch_add(r->fetch, (uint64_t)number << TAG_SHIFT | index, &id,
                           (uint32_t)chunk_len(d, index), err) < 0) {
            *fatal = true;
            return -1;
        }
        next = index + 1;
    }
}

static int
feed_disks(struct restore *r, struct err *err)
{
    for (size_t i = 0; i < r->n; i++) {
        struct err e = ERR_INIT;
        bool fatal;

        if (feed_disk(r, i, &fatal, &e) == 0)
            continue;
        (void)err_side(&e, ERR_SIDE_REPO);
        (void)err_wrap(&e, "disk '%s'", r->targets[i].disk->name);
        if (fatal)
            return err_copy(err, &e);
        fail_target(r, &r->targets[i], &e);
    }
    return 0;
}

static void *
feed(void *arg)
{
    struct restore *r = arg;
    struct err err = ERR_INIT;

    if (feed_disks(r, &err) == 0)
        (void)repo_fetch_finish(r->fetch, &err);
    (void)pthread_mutex_lock(&r->lock);
    (void)err_copy(&r->err, &err);
    r->fed = true;
    (void)pthread_cond_signal(&r->end);
    (void)pthread_mutex_unlock(&r->lock);
    return NULL;
}

/* Until the feeder has ended, report a few times a second. */
static bool
wait_fed(struct restore *r)
{
    struct timespec until;
    bool fed;

    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += REPORT_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    (void)pthread_mutex_lock(&r->lock);
    while (!r->fed)
        if (pthread_cond_timedwait(&r->end, &r->lock, &until) != 0)
            break;
    fed = r->fed;
    (void)pthread_mutex_unlock(&r->lock);
    return fed;
}

static int
start_feeder(struct restore *r, pthread_t *thread, struct err *err)
{
    sigset_t all, old;
    int e;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    e = pthread_create(thread, NULL, feed, r);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return e == 0 ? 0 : err_set_errno(err, e, "start a thread");
}

static int
fetch_disks(struct restore *r, struct err *err)
{
    const struct repo_fetch_opts opts = {
        .n_workers = r->threads, .fn = write_chunk, .arg = r};
    pthread_t feeder;

    if (repo_fetch_new(r->repo, &opts, &r->fetch, err) < 0)
        return err_side(err, ERR_SIDE_REPO);
    if (start_feeder(r, &feeder, err) < 0)
        return -1;
    while (!wait_fed(r)) {
        uint64_t done = atomic_load(&r->done);

        hooks_progress(r->hooks, "restore", done < r->total ? done : r->total,
                       r->total);
        if (hooks_canceled(r->hooks) && !atomic_exchange(&r->stop, true))
            repo_fetch_cancel(r->fetch);
    }
    (void)pthread_join(feeder, NULL);
    if (atomic_load(&r->stop))
        return err_set(err, ERR_CANCELED, "canceled");
    if (r->err.code == ERR_NONE || all_failed(r))
        return 0; /* each disk has its own error */
    (void)err_side(&r->err, ERR_SIDE_REPO);
    return err_copy(err, &r->err);
}

/* -- all of it --------------------------------------------------------------*/

static void
init_sync(struct restore *r)
{
    pthread_condattr_t attr;

    (void)pthread_mutex_init(&r->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&r->end, &attr);
    (void)pthread_condattr_destroy(&attr);
}

static void
restore_done(struct restore *r)
{
    repo_fetch_free(r->fetch);
    for (size_t i = 0; i < r->n; i++) {
        image_free(r->targets[i].image);
        free(r->targets[i].file);
    }
    free(r->targets);
    if (r->sock_dir[0] != '\0')
        (void)rmdir(r->sock_dir);
    if (r->dir_fd >= 0)
        (void)close(r->dir_fd);
    free(r->dir);
    repo_pin_free(r->pin);
    point_list_done(&r->list);
    repo_close(r->repo);
    (void)pthread_cond_destroy(&r->end);
    (void)pthread_mutex_destroy(&r->lock);
}

/* A collector leaves the point alone from here on. */
static int
pin(struct restore *r, struct err *err)
{
    const char *id = r->point->id;

    if (repo_pin_new(r->repo, &id, 1, &r->pin, err) < 0)
        return err_side(err, ERR_SIDE_REPO);
    return 0;
}

int
job_restore(const struct job_restore_opts *opts, const struct job_hooks *hooks,
            struct jv **ret_result, struct err *err)
{
    CLEANUP(restore_done)
    struct restore r = {.opts = opts, .hooks = hooks, .dir_fd = -1};

    init_sync(&r);
    r.threads = opts->threads ? opts->threads : pool_cpus();
    r.threads = r.threads < THREADS_MAX ? r.threads : THREADS_MAX;
    if (restore_choose(&r, err) < 0 || pin(&r, err) < 0 ||
        restore_prepare(&r, err) < 0 || fetch_disks(&r, err) < 0)
        return -1;
    return restore_publish(&r, ret_result, err);
}
