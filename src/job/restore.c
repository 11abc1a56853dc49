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

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "common.h"
#include "err.h"
#include "image.h"
#include "io.h"
#include "jv.h"
#include "outfile.h"
#include "pool.h"
#include "repo.h"
#include "restore.h"

#define TAG_SHIFT 48 /* disk number above, chunk index below */
#define DISKS_MAX (1u << (64 - TAG_SHIFT))
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
    if (image_write(t->image, worker, data, off, len, err) < 0)
        return err_side(err, ERR_SIDE_TARGET);
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

/* -- destination ------------------------------------------------------------*/

/* The directory, made if missing; r->dir becomes its absolute path, because a
 * relative one with a ':' would be a protocol to QEMU. */
static int
open_dir(struct restore *r, struct err *err)
{
    const char *to = r->opts->to;
    bool made = mkdir(to, 0700) == 0;

    if (!made && errno != EEXIST)
        return err_set_errno(err, errno, "make directory '%s'", to);
    r->dir = realpath(to, NULL);
    if (r->dir == NULL)
        return err_set_errno(err, errno, "directory '%s'", to);
    r->dir_fd = open(r->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r->dir_fd < 0)
        return err_set_errno(err, errno, "open directory '%s'", to);
    if (made) {
        CLEANUP_FREE char *parent = NULL;

        if (asprintf(&parent, "%s/..", r->dir) < 0 || io_sync_dir(parent) < 0)
            return err_set_errno(err, errno, "make directory '%s' durable", to);
    }
    return 0;
}

static int
check_free_name(const struct restore *r, const char *name, struct err *err)
{
    struct stat st;

    if (fstatat(r->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? 0
                               : err_set_errno(err, errno, "look at '%s/%s'",
                                               r->opts->to, name);
    if (r->opts->overwrite && S_ISREG(st.st_mode))
        return 0;
    return err_set(err, ERR_EXISTS,
                   r->opts->overwrite
                       ? "'%s/%s' exists and is no regular file: choose "
                         "another directory"
                       : "'%s/%s' exists: choose another directory or use "
                         "--overwrite",
                   r->opts->to, name);
}

/* Nothing is written before every name is known to be free. */
static int
check_names(const struct restore *r, struct err *err)
{
    for (size_t i = 0; i < r->n; i++)
        if (check_free_name(r, r->targets[i].file, err) < 0)
            return -1;
    return check_free_name(r, CONFIG_FILE, err);
}

static int
make_sock_dir(struct restore *r, struct err *err)
{
    const char *base = secure_getenv("XDG_RUNTIME_DIR");

    /* Socket paths have about 100 bytes. */
    if (base == NULL || base[0] != '/' || strlen(base) > 60)
        base = "/tmp";
    (void)snprintf(r->sock_dir, sizeof r->sock_dir, "%s/tidemark-XXXXXX", base);
    if (mkdtemp(r->sock_dir) != NULL)
        return 0;
    r->sock_dir[0] = '\0';
    return err_set_errno(err, errno, "make a directory in '%s'", base);
}

static int
make_images(struct restore *r, struct err *err)
{
    if (r->qcow2 && make_sock_dir(r, err) < 0)
        return -1;
    for (size_t i = 0; i < r->n; i++) {
        const struct image_opts opts = {.dir_fd = r->dir_fd,
                                        .dir = r->dir,
                                        .name = r->targets[i].file,
                                        .qcow2 = r->qcow2,
                                        .size = r->targets[i].disk->size,
                                        .overwrite = r->opts->overwrite,
                                        .n_workers = r->threads,
                                        .sock_dir = r->sock_dir,
                                        .number = (unsigned)i};

        if (hooks_canceled(r->hooks))
            return err_set(err, ERR_CANCELED, "canceled");
        if (image_make(&opts, &r->targets[i].image, err) < 0)
            return -1;
    }
    return 0;
}

static int
prepare(struct restore *r, struct err *err)
{
    if (open_dir(r, err) < 0 || check_names(r, err) < 0 ||
        make_images(r, err) < 0)
        return err_side(err, ERR_SIDE_TARGET);
    return 0;
}

/* -- choice -----------------------------------------------------------------*/

static int
check_disk(const struct point *p, size_t i, struct err *err)
{
    const struct point_disk *d = &p->disks[i];

    if (name_check_disk(d->name, err) < 0)
        return -1;
    if (d->chunk_size < REPO_CHUNK_MIN || d->chunk_size > REPO_CHUNK_MAX ||
        (d->chunk_size & (d->chunk_size - 1)) != 0 || d->size > INT64_MAX / 2)
        return err_set(err, ERR_FORMAT, "disk '%s' has an impossible size",
                       d->name);
    if (point_disk(p, d->name) != d)
        return err_set(err, ERR_FORMAT, "there are two disks '%s'", d->name);
    return 0;
}

static int
check_asked(const struct restore *r, struct err *err)
{
    char known[ERR_MSG_MAX / 2] = "";
    size_t len = 0;

    for (size_t i = 0; i < r->point->n_disks && len < sizeof known; i++)
        len += (size_t)snprintf(known + len, sizeof known - len, "%s%s",
                                i > 0 ? ", " : "", r->point->disks[i].name);
    for (const char *const *d = r->opts->disks; d != NULL && *d != NULL; d++)
        if (point_disk(r->point, *d) == NULL)
            return err_set(err, ERR_USAGE,
                           "point '%s' has no disk '%s'; it has: %s",
                           r->opts->point, *d, known);
    return 0;
}

static int
choose_disks(struct restore *r, struct err *err)
{
    if (check_asked(r, err) < 0)
        return -1;
    r->targets = calloc(r->point->n_disks + 1, sizeof *r->targets);
    if (r->targets == NULL || r->point->n_disks >= DISKS_MAX)
        return err_set_errno(err, ENOMEM, "restore of %zu disks",
                             r->point->n_disks);
    for (size_t i = 0; i < r->point->n_disks; i++) {
        const struct point_disk *d = &r->point->disks[i];
        struct target *t = &r->targets[r->n];

        if (r->opts->disks != NULL && !name_in(r->opts->disks, d->name))
            continue;
        if (check_disk(r->point, i, err) < 0) {
            (void)err_side(err, ERR_SIDE_REPO);
            return err_wrap(err, "point '%s'", r->opts->point);
        }
        t->disk = d;
        if (asprintf(&t->file, "%s.%s", d->name, r->opts->format) < 0) {
            t->file = NULL;
            return err_set_errno(err, ENOMEM, "disk '%s'", d->name);
        }
        r->total += d->size;
        r->n++;
    }
    return 0;
}

static int
choose(struct restore *r, struct err *err)
{
    r->qcow2 = strcmp(r->opts->format, "qcow2") == 0;
    if (!r->qcow2 && strcmp(r->opts->format, "raw") != 0)
        return err_set(err, ERR_USAGE, "format '%s' is neither qcow2 nor raw",
                       r->opts->format);
    if (repo_open(r->opts->repo, NULL, &r->repo, err) < 0 ||
        point_pick(r->repo, r->opts->point, &r->list, &r->point, err) < 0)
        return err_side(err, ERR_SIDE_REPO);
    return choose_disks(r, err);
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
    point_list_done(&r->list);
    repo_close(r->repo);
    (void)pthread_cond_destroy(&r->end);
    (void)pthread_mutex_destroy(&r->lock);
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
    if (choose(&r, err) < 0 || prepare(&r, err) < 0 || fetch_disks(&r, err) < 0)
        return -1;
    return restore_publish(&r, ret_result, err);
}
