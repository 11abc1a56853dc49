#include "copy.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "clock.h"
#include "lane.h"
#include "pace.h"
#include "pool.h"
#include "reader.h"

#define BUDGET_DEFAULT ((size_t)8 << 20)
#define TIMEOUT_DEFAULT_MS 60000
#define UNIT_BYTES ((size_t)1 << 20) /* or one chunk, when that is more */
#define DISKS_AT_ONCE 4
#define IN_FLIGHT_MAX 32
#define QUEUE_MAX 4096 /* units of a disk: about 16 MiB of ids */
#define POLL_MS 100

void
copy_news_locked(struct copy *c)
{
    c->has_news = true;
    (void)pthread_cond_signal(&c->news);
}

/* `again`: the exports will be read once more.  Then the reads under way have to
 * end: nobody waits for those of a connection that was closed, and a request for
 * the status of what they read can kill QEMU (copy.h). */
static void
fail(struct copy *c, const struct err *err, bool again)
{
    (void)pthread_mutex_lock(&c->lock);
    if (!atomic_load(&c->failed)) {
        (void)err_copy(&c->err, err);
        atomic_store(&c->failed, true);
        for (size_t i = 0; i < c->n_lanes; i++)
            if (c->lanes[i].nbd != NULL && !again)
                nbd_reader_cancel(c->lanes[i].nbd);
    }
    copy_news_locked(c);
    (void)pthread_cond_broadcast(&c->room);
    (void)pthread_mutex_unlock(&c->lock);
    if (c->opts->pace != NULL)
        pace_wake(c->opts->pace);
}

void
copy_fail(struct copy *c, const struct err *err)
{
    fail(c, err, false);
}

/* -- workers ----------------------------------------------------------------*/

struct put_sum {
    uint64_t new_bytes, stored_bytes, healed;
};

static int
put_unit(struct lane *l, struct unit *u, unsigned worker, struct put_sum *sum,
         struct err *err)
{
    const uint32_t chunk_size = l->copy->opts->chunk_size;

    for (uint64_t i = 0; i < u->n; i++) {
        size_t off = i * chunk_size;
        size_t len = u->bytes - off < chunk_size ? u->bytes - off : chunk_size;
        struct put_stat stat = {0};

        if (atomic_load(&l->copy->failed))
            return err_set(err, ERR_CANCELED, "stopped");
        if (repo_put(l->copy->opts->session, worker, u->buf + off, len,
                     u->has_base && !l->disk->base_gone ? &u->base[i] : NULL,
                     &u->ids[i], &stat, err) < 0) {
            (void)err_side(err, ERR_SIDE_REPO);
            return err_wrap(err,
                            "disk '%s', store %zu bytes of offset %" PRIu64,
                            l->disk->name, len, (u->index + i) * chunk_size);
        }
        sum->new_bytes += stat.is_new ? len : 0;
        sum->stored_bytes += stat.stored_bytes;
        sum->healed += stat.is_new && heal_has(&l->disk->heal, u->index + i);
    }
    return 0;
}

/* Once for each thread: the pool's live as long as the copy. */
static void
yield_cpu(const struct copy *c)
{
    static _Thread_local bool done;

    if (!done && c->opts->yield_cpu)
        pace_yield_cpu();
    done = true;
}

void
copy_audit_failed(struct lane *l, uint64_t index)
{
    struct copy *c = l->copy;
    struct err err = ERR_INIT;

    (void)err_set(&err, ERR_CORRUPT,
                  "disk '%s': what lies at offset %" PRIu64
                  " changed without being marked",
                  l->disk->name, index * c->opts->chunk_size);
    (void)pthread_mutex_lock(&c->lock);
    if (!l->disk->audit_failed)
        l->disk->audit_off = index * c->opts->chunk_size;
    l->disk->audit_failed = true;
    (void)pthread_mutex_unlock(&c->lock);
    fail(c, &err, true);
}

/* False: the unit is not what the base has. */
static bool
audit_unit(struct lane *l, const struct unit *u)
{
    for (uint64_t i = 0; u->has_base && i < u->n; i++)
        if (!chunk_id_equal(&u->ids[i], &u->base[i])) {
            copy_audit_failed(l, u->index + i);
            return false;
        }
    return true;
}

void
copy_store_unit(void *unit, unsigned worker)
{
    struct unit *u = unit;
    struct lane *l = u->owner;
    struct copy *c = l->copy;
    struct put_sum sum = {0};
    struct err err = ERR_INIT;

    yield_cpu(c);
    (void)pthread_rwlock_rdlock(&c->puts);
    if (put_unit(l, u, worker, &sum, &err) < 0) {
        (void)pthread_rwlock_unlock(&c->puts);
        copy_fail(c, &err);
        return; /* the unit is freed with its queue */
    }
    if (u->audit && !audit_unit(l, u)) {
        (void)pthread_rwlock_unlock(&c->puts);
        return;
    }
    (void)pthread_mutex_lock(&c->lock);
    l->disk->audited_chunks += u->audit && u->has_base ? u->n : 0;
    l->disk->new_bytes += sum.new_bytes;
    l->disk->stored_bytes += sum.stored_bytes;
    l->disk->healed_chunks += sum.healed;
    c->done += u->bytes;
    c->new_bytes += sum.stored_bytes;
    units_finish(&l->units, u);
    if (l->units.n_units > l->units.max_units / 2)
        copy_news_locked(c);
    (void)pthread_cond_broadcast(&c->room);
    (void)pthread_mutex_unlock(&c->lock);
    (void)pthread_rwlock_unlock(&c->puts);
}

/* -- reader threads ---------------------------------------------------------*/

static struct lane *
next_lane(struct copy *c)
{
    struct lane *l = NULL;

    (void)pthread_mutex_lock(&c->lock);
    if (c->next_lane < c->n_lanes && !atomic_load(&c->failed))
        l = &c->lanes[c->next_lane++];
    if (l == NULL) {
        c->n_running--;
        copy_news_locked(c);
    }
    (void)pthread_mutex_unlock(&c->lock);
    return l;
}

static void *
read_disks(void *arg)
{
    struct lane *l;

    yield_cpu(arg);
    while ((l = next_lane(arg)) != NULL)
        lane_run(l);
    return NULL;
}

/* Threads block all signals, so that the calling thread gets them. */
static int
start_threads(struct copy *c, pthread_t *threads, struct err *err)
{
    sigset_t all, old;
    int r = 0;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    (void)pthread_mutex_lock(&c->lock);
    while (r == 0 && c->n_running < c->n_threads) {
        r = pthread_create(&threads[c->n_running], NULL, read_disks, c);
        c->n_running += r == 0;
    }
    c->n_threads = c->n_running; /* no thread runs on before the unlock */
    (void)pthread_mutex_unlock(&c->lock);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r == 0 ? 0 : err_set_errno(err, r, "start a reader thread");
}

/* -- the calling thread -----------------------------------------------------*/

/* A page of the base that cannot be read, and no failure to write. */
static bool
is_damage(const struct err *err)
{
    return err->code == ERR_CORRUPT || err->code == ERR_NOT_FOUND ||
           err->code == ERR_FORMAT || err->sys == EIO;
}

int
copy_apply_unit(struct copy_disk *d, const struct unit *u, struct err *err)
{
    static const struct chunk_id zero;
    const bool full = d->dirty_context == NULL && !d->resumed;

    if (u->audit)
        return 0; /* the map has it */
    for (uint64_t i = 0; i < u->n; i++) {
        const struct chunk_id *id = u->zero ? &zero : &u->ids[i];

        if (full && chunk_id_zero(id))
            continue; /* the map started all zero */
        if (map_writer_set(d->map, u->index + i, id, err) == 0)
            continue;
        (void)err_side(err, ERR_SIDE_REPO);
        d->base_damaged = !full && is_damage(err);
        return err_wrap(err, "map of disk '%s'", d->name);
    }
    return 0;
}

static struct unit *
pop_unit(struct copy *c, struct lane *l)
{
    struct unit *u;

    (void)pthread_mutex_lock(&c->lock);
    u = units_pop(&l->units);
    if (u != NULL)
        (void)pthread_cond_broadcast(&c->room);
    (void)pthread_mutex_unlock(&c->lock);
    return u;
}

static int
apply_finished(struct copy *c, struct err *err)
{
    for (size_t i = 0; i < c->n_lanes; i++) {
        struct unit *u;

        while ((u = pop_unit(c, &c->lanes[i])) != NULL) {
            int r = copy_apply_unit(c->lanes[i].disk, u, err);

            free(u);
            if (r < 0)
                return -1;
        }
    }
    return 0;
}

void
copy_wait_news(struct copy *c)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += POLL_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    (void)pthread_mutex_lock(&c->lock);
    while (!c->has_news)
        if (pthread_cond_timedwait(&c->news, &c->lock, &until) != 0)
            break;
    c->has_news = false;
    (void)pthread_mutex_unlock(&c->lock);
}

int
copy_poll(struct copy *c, struct err *err)
{
    uint64_t done, total;

    (void)pthread_mutex_lock(&c->lock);
    done = c->done;
    total = c->total;
    (void)pthread_mutex_unlock(&c->lock);
    return c->opts->poll == NULL
               ? 0
               : c->opts->poll(c->opts->arg, done, total, err);
}

/* True when every thread has ended and so every unit is finished. */
static bool
readers_ended(struct copy *c)
{
    bool ended;

    (void)pthread_mutex_lock(&c->lock);
    ended = c->n_running == 0;
    (void)pthread_mutex_unlock(&c->lock);
    return ended;
}

static int
attend(struct copy *c, struct err *err)
{
    for (;;) {
        bool ended = readers_ended(c);

        if (atomic_load(&c->failed))
            return -1; /* the error is in c->err */
        if (apply_finished(c, err) < 0 || copy_poll(c, err) < 0)
            return -1;
        if (ended)
            return 0;
        if (copy_checkpoint(c, err) < 0)
            return -1;
        copy_wait_news(c);
    }
}

/* -- start and end ----------------------------------------------------------*/

static void
init_sync(struct copy *c)
{
    pthread_condattr_t attr;
    pthread_rwlockattr_t fair;

    /* or workers, of which one always puts, would keep a checkpoint out */
    (void)pthread_rwlockattr_init(&fair);
    (void)pthread_rwlockattr_setkind_np(
        &fair, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    (void)pthread_rwlock_init(&c->puts, &fair);
    (void)pthread_rwlockattr_destroy(&fair);
    (void)pthread_mutex_init(&c->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&c->room, &attr);
    (void)pthread_cond_init(&c->news, &attr);
    (void)pthread_condattr_destroy(&attr);
}

static int
init_lanes(struct copy *c, struct copy_disk *disks, struct err *err)
{
    const size_t chunk_size = c->opts->chunk_size;
    const size_t budget = c->opts->budget ? c->opts->budget : BUDGET_DEFAULT;
    size_t unit, bufs;

    c->unit_chunks = chunk_size < UNIT_BYTES ? UNIT_BYTES / chunk_size : 1;
    unit = c->unit_chunks * chunk_size;
    bufs = budget / unit / c->n_threads;
    bufs = bufs < 2 ? 2 : bufs;
    c->in_flight = bufs / 2 < IN_FLIGHT_MAX ? bufs / 2 : IN_FLIGHT_MAX;
    for (size_t i = 0; i < c->n_lanes; i++) {
        c->lanes[i].copy = c;
        c->lanes[i].disk = &disks[i];
        if (units_init(&c->lanes[i].units, unit, (unsigned)bufs, QUEUE_MAX,
                       err) < 0)
            return -1;
    }
    /* Room for every buffer, so that a finished read never waits. */
    return pool_new(c->opts->threads, (unsigned)bufs * c->n_threads, &c->pool,
                    err);
}

static void
free_copy(struct copy *c)
{
    pool_free(c->pool);
    for (size_t i = 0; c->lanes != NULL && i < c->n_lanes; i++)
        if (c->lanes[i].copy != NULL)
            units_done(&c->lanes[i].units);
    free(c->lanes);
    (void)pthread_rwlock_destroy(&c->puts);
    (void)pthread_mutex_destroy(&c->lock);
    (void)pthread_cond_destroy(&c->room);
    (void)pthread_cond_destroy(&c->news);
}

static bool
base_damaged(const struct copy *c)
{
    for (size_t i = 0; i < c->n_lanes; i++)
        if (c->lanes[i].disk->base_damaged)
            return true;
    return false;
}

static int
copy_all(struct copy *c, struct err *err)
{
    pthread_t threads[DISKS_AT_ONCE];
    struct err first = ERR_INIT;

    if (start_threads(c, threads, &first) < 0 || attend(c, &first) < 0)
        fail(c, &first, base_damaged(c));
    for (unsigned i = 0; i < c->n_threads; i++)
        (void)pthread_join(threads[i], NULL);
    pool_drain(c->pool);
    return atomic_load(&c->failed) ? err_copy(err, &c->err) : 0;
}

int
copy_run(const struct copy_opts *opts, struct copy_disk *disks, size_t n,
         bool *ret_marked, struct err *err)
{
    struct copy_opts o = *opts;
    CLEANUP(free_copy) struct copy c = {.opts = &o, .n_lanes = n};

    *ret_marked = false;
    c.marked_ms = clock_ms();
    init_sync(&c);
    if (n == 0)
        return 0;
    if (o.timeout_ms == 0)
        o.timeout_ms = TIMEOUT_DEFAULT_MS;
    c.n_threads = n < DISKS_AT_ONCE ? (unsigned)n : DISKS_AT_ONCE;
    c.lanes = calloc(n, sizeof *c.lanes);
    if (c.lanes == NULL)
        return err_set_errno(err, ENOMEM, "pipeline of %zu disks", n);
    if (init_lanes(&c, disks, err) < 0)
        return -1;
    if (copy_all(&c, err) == 0)
        return 0;
    *ret_marked = copy_last_mark(&c, &c.err);
    return -1;
}
