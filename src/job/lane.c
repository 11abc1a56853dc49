#include "lane.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "log.h"
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

static int
read_unit(struct lane *l, uint64_t index, unsigned n, struct err *err)
{
    struct copy *c = l->copy;
    size_t bytes = run_bytes(l, index, n);
    struct unit *u;
    int r;

    if (wait_room(l, true, err) < 0)
        return -1;
    (void)pthread_mutex_lock(&c->lock);
    r = units_add(&l->units, index, n, bytes, &u, err);
    l->disk->read_bytes += bytes;
    (void)pthread_mutex_unlock(&c->lock);
    if (r < 0)
        return -1;
    u->owner = l;
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
    bool set = l->disk->dirty_context != NULL;
    int r = 0;

    if (n == 0)
        return 0;
    if (set && wait_room(l, false, err) < 0)
        return -1;
    (void)pthread_mutex_lock(&c->lock);
    if (set)
        r = units_add_zero(&l->units, index, n, err);
    c->done += run_bytes(l, index, n);
    (void)pthread_mutex_unlock(&c->lock);
    return r;
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
        if (zero_run(l, index, start - index, err) < 0 ||
            read_run(l, start, m, err) < 0)
            return -1;
        index = start + m;
    }
    return zero_run(l, index, end - index, err);
}

static int
scan_run(struct lane *l, uint64_t index, uint64_t n, struct err *err)
{
    const uint64_t window = ZERO_WINDOW / l->copy->opts->chunk_size;

    while (n > 0) {
        uint64_t m = n < window ? n : window;

        if (scan_window(l, index, m, err) < 0)
            return -1;
        index += m;
        n -= m;
    }
    return 0;
}

/* -- a disk -----------------------------------------------------------------*/

static void
add_total(struct lane *l, uint64_t bytes)
{
    (void)pthread_mutex_lock(&l->copy->lock);
    l->copy->total += bytes;
    l->disk->dirty_bytes += bytes;
    (void)pthread_mutex_unlock(&l->copy->lock);
}

/* One stretch of dirty extents: count first, so that progress knows its end. */
static int
scan_dirty(struct lane *l, const struct nbd_extents *e, struct err *err)
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

        if ((ask ? scan_run : read_run)(l, index, n, err) < 0)
            return -1;
    }
    return 0;
}

static int
scan_incremental(struct lane *l, struct err *err)
{
    const uint64_t size = l->disk->size;

    for (uint64_t off = 0; off < size; off += DIRTY_WINDOW) {
        CLEANUP(nbd_extents_done) struct nbd_extents e = {0};
        uint64_t len = size - off < DIRTY_WINDOW ? size - off : DIRTY_WINDOW;

        if (check_reads(l, nbd_reader_dirty(l->nbd, off, len, &e, err), err) <
                0 ||
            heal_extents(&l->disk->heal, l->copy->opts->chunk_size, off, len,
                         &e, err) < 0 ||
            scan_dirty(l, &e, err) < 0)
            return -1;
    }
    return 0;
}

static int
scan_full(struct lane *l, struct err *err)
{
    const uint32_t chunk_size = l->copy->opts->chunk_size;

    add_total(l, l->disk->size);
    return scan_run(l, 0, (l->disk->size + chunk_size - 1) / chunk_size, err);
}

static int
open_export(struct lane *l, struct err *err)
{
    const struct nbd_reader_opts opts = {
        .socket = l->disk->socket,
        .export_name = l->disk->export_name,
        .dirty_context = l->disk->dirty_context,
        .connections = l->disk->dirty_context == NULL ? 4 : 2,
        .in_flight = l->copy->in_flight,
        .timeout_ms = l->copy->opts->timeout_ms,
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

static int
read_disk(struct lane *l, struct err *err)
{
    struct copy *c = l->copy;

    if (open_export(l, err) < 0)
        return -1;
    if ((l->disk->dirty_context != NULL ? scan_incremental
                                        : scan_full)(l, err) < 0)
        return -1;
    if (check_reads(l, nbd_reader_wait(l->nbd, 0, err), err) < 0)
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
    struct nbd_reader *nbd;

    l->base = l->disk->base;
    if (read_disk(l, &err) < 0) {
        copy_fail(l->copy, &err);
        /* Buffers are the server's until their reads have ended. */
        if (l->nbd != NULL)
            (void)nbd_reader_wait(l->nbd, 0, NULL);
    }
    (void)pthread_mutex_lock(&l->copy->lock);
    nbd = TAKE_PTR(l->nbd);
    (void)pthread_mutex_unlock(&l->copy->lock);
    nbd_reader_close(nbd);
}
