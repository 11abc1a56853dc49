#include "lane.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "log.h"
#include "pace.h"
#include "pool.h"
#include "reader.h"
#include "runs.h"

/* Status is asked for so much at a time, which bounds the extents in memory:
 * zero extents can be as short as a sector, dirty ones are a bitmap's grain. */
#define ZERO_WINDOW (1ull << 30)
#define DIRTY_WINDOW (64ull << 30)

/* Below this a dirty run is read without asking whether it is zero: the answer
 * would cost as much as the data. */
#define ASK_ZERO_MIN (1u << 20)

static uint64_t
chunk_off(const struct lane *l, uint64_t index)
{
    return index * l->copy->opts->chunk_size;
}

/* Bytes of `n` chunks from `index`: the last chunk of a disk may be short. */
static uint64_t
run_bytes(const struct lane *l, uint64_t index, uint64_t n)
{
    uint64_t off = chunk_off(l, index), len = chunk_off(l, n);

    return len < l->disk->size - off ? len : l->disk->size - off;
}

/* -- reads ------------------------------------------------------------------*/

/* Called inside nbd_reader_read() and _wait(), so an error is only noted: what
 * these return says more (a timeout ends every read with an errno). */
static void
read_done(void *arg, int error)
{
    struct unit *u = arg;
    struct lane *l = u->owner;

    l->n_reading--;
    if (error == 0) {
        pool_submit(l->copy->pool, copy_store_unit, u);
    } else if (l->read_errno == 0) {
        l->read_errno = error;
        l->read_off = chunk_off(l, u->index);
    }
}

/* What an nbd call returned, and what the reads it completed said. */
static int
check_reads(struct lane *l, int r, struct err *err)
{
    if (r < 0)
        return err_wrap(err, "disk '%s'", l->disk->name);
    if (l->read_errno != 0)
        return err_set_errno(err, l->read_errno,
                             "disk '%s': read at offset %" PRIu64,
                             l->disk->name, l->read_off);
    return 0;
}

static int
stopped(struct err *err)
{
    return err_set(err, ERR_CANCELED, "stopped");
}

/* Wait for room in the queue, and for a buffer.  Reads end only inside nbd calls
 * of this thread, so as long as some are under way they are what to wait for. */
static int
wait_room(struct lane *l, bool buffer, struct err *err)
{
    struct copy *c = l->copy;

    for (;;) {
        bool room;

        (void)pthread_mutex_lock(&c->lock);
        while (!(room = units_room(&l->units, buffer)) && l->n_reading == 0 &&
               !atomic_load(&c->failed)) {
            copy_news_locked(c);
            (void)pthread_cond_wait(&c->room, &c->lock);
        }
        (void)pthread_mutex_unlock(&c->lock);
        if (atomic_load(&c->failed))
            return stopped(err);
        if (room)
            return 0;
        if (check_reads(l, nbd_reader_wait(l->nbd, l->n_reading - 1, err),
                        err) < 0)
            return -1;
    }
}

/* What the base has at these chunks.  A page of it that cannot be read costs
 * only the comparison; an incremental map will say more when it needs it. */
static void
fill_base(struct lane *l, struct unit *u)
{
    struct err err = ERR_INIT;

    if (l->base == NULL)
        return;
    for (uint64_t i = 0; i < u->n; i++) {
        if (map_reader_get(l->base, u->index + i, &u->base[i], &err) < 0) {
            log_debug("disk '%s': base map: %s", l->disk->name, err.msg);
            l->base = NULL;
            return;
        }
        if (heal_has(&l->disk->heal, u->index + i))
            memset(&u->base[i], 0, sizeof u->base[i]); /* equals no data */
    }
    u->has_base = true;
}

/* Reads under way are ended before a wait: nobody else takes their replies. */
static int
wait_turn(struct lane *l, size_t bytes, struct err *err)
{
    struct pace *p = l->copy->opts->pace;
    uint64_t at = p != NULL ? pace_turn(p, bytes) : 0;

    if (at == 0)
        return 0;
    if (check_reads(l, nbd_reader_wait(l->nbd, 0, err), err) < 0)
        return -1;
    return pace_wait(p, at, &l->copy->failed) ? 0 : stopped(err);
}

static int
read_unit(struct lane *l, uint64_t index, unsigned n, struct err *err)
{
    struct copy *c = l->copy;
    size_t bytes = run_bytes(l, index, n);
    struct unit *u;
    int r;

    if (wait_turn(l, bytes, err) < 0 || wait_room(l, true, err) < 0)
        return -1;
    (void)pthread_mutex_lock(&c->lock);
    r = units_add(&l->units, index, n, bytes, &u, err);
    *(l->auditing ? &l->disk->audit_bytes : &l->disk->read_bytes) += bytes;
    if (r == 0)
        l->pos = index + n;
    (void)pthread_mutex_unlock(&c->lock);
    if (r < 0)
        return -1;
    u->owner = l;
    u->audit = l->auditing;
    fill_base(l, u);
    l->n_reading++; /* before: the read may end inside the call */
    r = nbd_reader_read(l->nbd, u->buf, chunk_off(l, index), bytes, read_done,
                        u, err);
    if (r < 0)
        l->n_reading--;
    return check_reads(l, r, err);
}

/* Units start at multiples of their size, so none crosses a leaf of the map. */
static int
read_run(struct lane *l, uint64_t index, uint64_t n, struct err *err)
{
    const unsigned full = l->copy->unit_chunks;

    while (n > 0) {
        unsigned m = full - (unsigned)(index % full);

        if (m > n)
            m = (unsigned)n;
        if (read_unit(l, index, m, err) < 0)
            return -1;
        index += m;
        n -= m;
    }
    return 0;
}

/* -- zero -------------------------------------------------------------------*/

/* A zero chunk is a value: over a base it must be set.  A full map starts all
 * zero and has it already. */
static int
zero_run(struct lane *l, uint64_t index, uint64_t n, struct err *err)
{
    struct copy *c = l->copy;
    bool set = l->disk->dirty_context != NULL || l->disk->resumed;
    int r = 0;

    if (n == 0)
        return 0;
    if (set && wait_room(l, false, err) < 0)
        return -1;
    (void)pthread_mutex_lock(&c->lock);
    if (set)
        r = units_add_zero(&l->units, index, n, err);
    c->done += run_bytes(l, index, n);
    if (r == 0)
        l->pos = index + n;
    (void)pthread_mutex_unlock(&c->lock);
    return r;
}

/* Clean chunks that read as zeroes: zeroes are what the base must have. */
static int
audit_zero(struct lane *l, uint64_t index, uint64_t n, struct err *err)
{
    struct copy *c = l->copy;
    struct chunk_id id;

    for (uint64_t i = 0; l->base != NULL && i < n; i++) {
        if (map_reader_get(l->base, index + i, &id, NULL) < 0) {
            l->base = NULL; /* no more to compare with, see fill_base() */
        } else if (!chunk_id_zero(&id)) {
            copy_audit_failed(l, index + i);
            return stopped(err);
        }
    }
    if (n == 0)
        return 0;
    (void)pthread_mutex_lock(&c->lock);
    l->disk->audited_chunks += l->base != NULL ? n : 0;
    c->done += run_bytes(l, index, n);
    (void)pthread_mutex_unlock(&c->lock);
    return 0;
}

/* The next stretch of chunks from `index` to `end` that the scratch file has
 * something of: false: none.  A file that cannot tell has all. */
static bool
overwritten(struct lane *l, uint64_t index, uint64_t end, uint64_t *ret_start,
            uint64_t *ret_end)
{
    const uint32_t chunk_size = l->copy->opts->chunk_size;
    off_t data = lseek(l->scratch_fd, (off_t)chunk_off(l, index), SEEK_DATA);
    off_t hole;

    *ret_start = index;
    *ret_end = end;
    if (data < 0)
        return errno != ENXIO;
    if ((uint64_t)data >= chunk_off(l, end))
        return false;
    hole = lseek(l->scratch_fd, data, SEEK_HOLE);
    *ret_start = (uint64_t)data / chunk_size;
    if (hole > data && (uint64_t)hole < chunk_off(l, end))
        *ret_end = ((uint64_t)hole + chunk_size - 1) / chunk_size;
    return true;
}

/* The export says that these chunks are zero.  Where the guest has written since
 * the instant, that may be said of the live disk: what was there before is in the
 * scratch file by then, because it is copied before the guest's write begins.  So
 * the file is asked after the status, and such chunks are read. */
static int
zero_or_read(struct lane *l, uint64_t index, uint64_t n, struct err *err)
{
    int (*take)(struct lane *, uint64_t, uint64_t, struct err *) =
        l->auditing ? audit_zero : zero_run;
    uint64_t last = index + n, start, end;

    while (l->scratch_fd >= 0 && index < last &&
           overwritten(l, index, last, &start, &end)) {
        if (take(l, index, start - index, err) < 0 ||
            read_run(l, start, end - start, err) < 0)
            return -1;
        index = end;
    }
    return take(l, index, last - index, err);
}

/* Read what is data in these chunks (at most ZERO_WINDOW). */
static int
scan_window(struct lane *l, uint64_t index, uint64_t n, struct err *err)
{
    CLEANUP(nbd_extents_done) struct nbd_extents e = {0};
    struct runs runs = {
        .extents = &e, .chunk_size = l->copy->opts->chunk_size, .flag = false};
    uint64_t end = index + n, start, m;

    if (check_reads(l,
                    nbd_reader_zero(l->nbd, chunk_off(l, index),
                                    run_bytes(l, index, n), &e, err),
                    err) < 0)
        return -1;
    while (runs_next(&runs, &start, &m)) {
        if (zero_or_read(l, index, start - index, err) < 0 ||
            read_run(l, start, m, err) < 0)
            return -1;
        index = start + m;
    }
    return zero_or_read(l, index, end - index, err);
}

static int
scan_run(struct lane *l, uint64_t index, uint64_t n, struct err *err)
{
    const uint64_t window = ZERO_WINDOW / l->copy->opts->chunk_size;

    while (n > 0) {
        uint64_t m = n < window ? n : window;

        if (atomic_load(&l->copy->failed))
            return stopped(err);
        if (scan_window(l, index, m, err) < 0)
            return -1;
        index += m;
        n -= m;
    }
    return 0;
}

/* -- audit ------------------------------------------------------------------*/

static void
add_total(struct lane *l, uint64_t bytes)
{
    (void)pthread_mutex_lock(&l->copy->lock);
    l->copy->total += bytes;
    l->disk->dirty_bytes += l->auditing ? 0 : bytes;
    (void)pthread_mutex_unlock(&l->copy->lock);
}

static int
audit_run(struct lane *l, uint64_t index, uint64_t n, struct err *err)
{
    add_total(l, run_bytes(l, index, n));
    return scan_window(l, index, n, err);
}

/* Nothing from chunk `from` to before chunk `to` is dirty. */
static int
audit_clean(struct lane *l, uint64_t from, uint64_t to, struct err *err)
{
    const uint32_t chunk_size = l->copy->opts->chunk_size;
    const uint64_t n_chunks = (l->disk->size + chunk_size - 1) / chunk_size;
    uint64_t index, n;
    int r = 0;

    l->auditing = true;
    while (r == 0 && from < to && l->base != NULL &&
           audit_next(&l->disk->audit, n_chunks, from, &index, &n) &&
           index < to) {
        uint64_t end = index + n < to ? index + n : to;

        index = index > from ? index : from;
        r = audit_run(l, index, end - index, err);
        from = end;
    }
    l->auditing = false;
    return r;
}

/* -- a disk -----------------------------------------------------------------*/

/* One stretch of dirty extents, which covers chunks from `from` to before `to`:
 * count first, so that progress knows its end. */
static int
scan_dirty(struct lane *l, const struct nbd_extents *e, uint64_t from,
           uint64_t to, struct err *err)
{
    const struct runs all = {
        .extents = e, .chunk_size = l->copy->opts->chunk_size, .flag = true};
    struct runs runs = all;
    uint64_t index, n, sum = 0;

    while (runs_next(&runs, &index, &n))
        sum += run_bytes(l, index, n);
    add_total(l, sum);
    runs = all;
    while (runs_next(&runs, &index, &n)) {
        bool ask = run_bytes(l, index, n) >= ASK_ZERO_MIN;

        if (audit_clean(l, from, index, err) < 0 ||
            (ask ? scan_run : read_run)(l, index, n, err) < 0)
            return -1;
        from = index + n;
    }
    return audit_clean(l, from, to, err);
}

/* Everything before `off`, a chunk's begin or the disk's end, is under way. */
static void
passed(struct lane *l, uint64_t off)
{
    const uint32_t chunk_size = l->copy->opts->chunk_size;

    (void)pthread_mutex_lock(&l->copy->lock);
    l->pos = off / chunk_size + (off % chunk_size != 0);
    (void)pthread_mutex_unlock(&l->copy->lock);
}

static int
scan_incremental(struct lane *l, uint64_t from, uint64_t end, struct err *err)
{
    const uint32_t chunk_size = l->copy->opts->chunk_size;

    for (uint64_t off = from; off < end; off += DIRTY_WINDOW) {
        CLEANUP(nbd_extents_done) struct nbd_extents e = {0};
        uint64_t len = end - off < DIRTY_WINDOW ? end - off : DIRTY_WINDOW;

        if (check_reads(l, nbd_reader_dirty(l->nbd, off, len, &e, err), err) <
                0 ||
            heal_extents(&l->disk->heal, chunk_size, off, len, &e, err) < 0 ||
            scan_dirty(l, &e, off / chunk_size,
                       (off + len + chunk_size - 1) / chunk_size, err) < 0)
            return -1;
        passed(l, off + len);
    }
    return 0;
}

static int
scan_full(struct lane *l, uint64_t from, uint64_t end, struct err *err)
{
    const uint32_t chunk_size = l->copy->opts->chunk_size;
    uint64_t first = from / chunk_size,
             last = (end + chunk_size - 1) / chunk_size;

    add_total(l, end - from);
    return scan_run(l, first, last - first, err);
}

static int
open_export(struct lane *l, const char *context, struct err *err)
{
    const struct nbd_reader_opts opts = {.socket = l->disk->socket,
                                         .export_name = l->disk->export_name,
                                         .dirty_context = context,
                                         .connections = context == NULL ? 4 : 2,
                                         .in_flight = l->copy->in_flight,
                                         .timeout_ms =
                                             l->copy->opts->timeout_ms,
                                         .grain = l->disk->grain};
    struct nbd_reader *nbd;

    if (check_reads(l, nbd_reader_open(&opts, &nbd, err), err) < 0)
        return -1;
    (void)pthread_mutex_lock(&l->copy->lock);
    l->nbd = nbd;
    (void)pthread_mutex_unlock(&l->copy->lock);
    if (atomic_load(&l->copy->failed))
        return stopped(err);
    if (nbd_reader_size(nbd) == l->disk->size)
        return 0;
    return err_set(err, ERR_PROTOCOL,
                   "disk '%s': export has %" PRIu64 " bytes, the disk has "
                   "%" PRIu64,
                   l->disk->name, nbd_reader_size(nbd), l->disk->size);
}

static void
close_export(struct lane *l)
{
    struct nbd_reader *nbd;

    (void)pthread_mutex_lock(&l->copy->lock);
    nbd = TAKE_PTR(l->nbd);
    (void)pthread_mutex_unlock(&l->copy->lock);
    nbd_reader_close(nbd);
}

/* What lies from `from` to `end`; context NULL: all of it. */
static int
read_part(struct lane *l, const char *context, uint64_t from, uint64_t end,
          struct err *err)
{
    if (open_export(l, context, err) < 0)
        return -1;
    if ((context != NULL ? scan_incremental : scan_full)(l, from, end, err) < 0)
        return -1;
    return check_reads(l, nbd_reader_wait(l->nbd, 0, err), err);
}

/* First what an unfinished run had copied, then what it had not. */
static int
read_parts(struct lane *l, struct err *err)
{
    struct copy_disk *d = l->disk;

    if (!d->resumed)
        return read_part(l, d->dirty_context, 0, d->size, err);
    if (!d->same && read_part(l, d->dirty_context, 0, d->split, err) < 0)
        return -1;
    passed(l, d->split);
    (void)pthread_mutex_lock(&l->copy->lock);
    d->resumed_bytes = d->split - d->dirty_bytes;
    (void)pthread_mutex_unlock(&l->copy->lock);
    close_export(l);
    return d->split < d->size
               ? read_part(l, d->rest_context, d->split, d->size, err)
               : 0;
}

static int
read_disk(struct lane *l, struct err *err)
{
    struct copy *c = l->copy;

    if (read_parts(l, err) < 0)
        return -1;
    (void)pthread_mutex_lock(&c->lock);
    while (!units_idle(&l->units) && !atomic_load(&c->failed))
        (void)pthread_cond_wait(&c->room, &c->lock);
    (void)pthread_mutex_unlock(&c->lock);
    return 0;
}

void
lane_run(struct lane *l)
{
    struct err err = ERR_INIT;

    l->base = l->disk->base;
    l->scratch_fd = -1;
    if (l->disk->scratch != NULL)
        l->scratch_fd =
            open(l->disk->scratch, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (l->disk->scratch != NULL && l->scratch_fd < 0) {
        (void)err_set_errno(&err, errno, "open scratch file '%s'",
                            l->disk->scratch);
        copy_fail(l->copy, &err);
        return;
    }
    if (read_disk(l, &err) < 0) {
        copy_fail(l->copy, &err);
        /* Buffers are the server's until their reads have ended. */
        if (l->nbd != NULL)
            (void)nbd_reader_wait(l->nbd, 0, NULL);
    }
    close_export(l);
    if (l->scratch_fd >= 0)
        (void)close(l->scratch_fd);
}
