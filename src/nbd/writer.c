#include "writer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <libnbd.h>

#include "cleanup.h"
#include "conns.h"
#include "err.h"

#define IN_FLIGHT_MAX 1024

/* A server without holes writes them out, and says nothing meanwhile: short
 * enough for any deadline, long enough for a disk of many TiB. */
#define ZERO_MAX (64u << 20)

/* For servers without WRITE ZEROES. */
static const uint8_t zeroes[256 << 10];

struct write_slot {
    struct nbd_writer *w;
    bool busy;
    bool queued;      /* see conns.h */
    const char *what; /* for errors */
    uint64_t off, end;
    uint8_t *copy; /* kept for the next write */
    size_t cap;
};

struct nbd_writer {
    struct nbd_conns cs;
    struct nbd_handle *h;
    struct err failed; /* the first error; sticks */
    bool can_zero, can_flush;
    struct write_slot *slots;
    unsigned in_flight; /* number of slots */
    unsigned n_busy;
};

static int
on_end(void *arg, int *error)
{
    struct write_slot *s = arg;
    struct nbd_writer *w = s->w;

    if (*error == ENOSPC)
        (void)err_set_errno(&w->failed, ENOSPC, "export '%s': %s at %" PRIu64,
                            w->cs.export_name, s->what, s->off);
    else if (*error != 0)
        (void)err_set(&w->failed, *error == ENOTCONN ? ERR_CLOSED : ERR_REMOTE,
                      "export '%s': %s at %" PRIu64 ": %s", w->cs.export_name,
                      s->what, s->off, strerror(*error));
    s->busy = false;
    w->n_busy--;
    return s->queued; /* see conns.h */
}

/* The error of the connection says more than those of the writes it took with
 * it, and is known later. */
static int
turn(struct nbd_writer *w, struct err *err)
{
    struct err before = w->failed, dead = ERR_INIT;

    if (nbd_conns_turn(&w->cs, &dead) < 0) {
        nbd_conns_drop(&w->cs);
        w->failed = before.code != ERR_NONE ? before : dead;
        w->n_busy = 0;
    }
    return w->failed.code != ERR_NONE ? err_copy(err, &w->failed) : 0;
}

static bool
overlaps(const struct nbd_writer *w, uint64_t off, uint64_t end)
{
    for (unsigned i = 0; i < w->in_flight; i++) {
        const struct write_slot *s = &w->slots[i];

        if (s->busy && off < s->end && s->off < end)
            return true;
    }
    return false;
}

static int
wait_until(struct nbd_writer *w, unsigned n, struct err *err)
{
    if (w->failed.code != ERR_NONE)
        return err_copy(err, &w->failed);
    nbd_conns_begin(&w->cs);
    while (w->n_busy > n)
        if (turn(w, err) < 0)
            return -1;
    return 0;
}

/* A slot for [off, end); NULL when the writer has failed. */
static struct write_slot *
get_slot(struct nbd_writer *w, uint64_t off, uint64_t end, struct err *err)
{
    struct write_slot *s = w->slots;

    if (wait_until(w, w->in_flight - 1, err) < 0)
        return NULL;
    while (overlaps(w, off, end))
        if (turn(w, err) < 0)
            return NULL;
    while (s->busy)
        s++;
    s->off = off;
    s->end = end;
    return s;
}

static nbd_completion_callback
start(struct write_slot *s, const char *what)
{
    s->what = what;
    s->busy = true;
    s->queued = false;
    s->w->n_busy++;
    return (nbd_completion_callback){.callback = on_end, .user_data = s};
}

/* What libnbd said to a new command; when it refuses one it forgets the
 * callback. */
static int
started(struct write_slot *s, int64_t cookie, struct err *err)
{
    struct nbd_writer *w = s->w;

    s->queued = cookie >= 0;
    if (s->queued)
        return 0;
    s->busy = false;
    w->n_busy--;
    (void)err_set(&w->failed, ERR_CLOSED, "export '%s': %s at %" PRIu64 ": %s",
                  w->cs.export_name, s->what, s->off, nbd_get_error());
    return err_copy(err, &w->failed);
}

static int
fill(struct write_slot *s, const uint8_t *data, size_t len, struct err *err)
{
    if (s->cap < len) {
        uint8_t *p = realloc(s->copy, len);

        if (p == NULL)
            return err_set(err, ERR_SYSTEM, "no memory to write %zu bytes",
                           len);
        s->copy = p;
        s->cap = len;
    }
    memcpy(s->copy, data, len);
    return 0;
}

/* Writing less than a block would need reading it first, and nothing that is
 * restored to has such blocks.  The odd end of a disk is no block at all. */
static int
check_range(struct nbd_writer *w, uint64_t off, uint64_t len, struct err *err)
{
    const struct nbd_conns *cs = &w->cs;

    if (off > cs->size || len > cs->size - off)
        return err_set(err, ERR_USAGE,
                       "export '%s': write of %" PRIu64 " bytes at %" PRIu64
                       " of %" PRIu64,
                       cs->export_name, len, off, cs->size);
    if (off % cs->block_min != 0 ||
        (len % cs->block_min != 0 && off + len != cs->size))
        return err_set(err, ERR_UNSUPPORTED,
                       "export '%s': write of %" PRIu64 " bytes at %" PRIu64
                       ", but the server takes only whole blocks of %" PRIu32,
                       cs->export_name, len, off, cs->block_min);
    return 0;
}

static uint64_t
smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

int
nbd_writer_write(struct nbd_writer *w, const void *buf, uint64_t off,
                 size_t len, struct err *err)
{
    const uint8_t *data = buf;
    uint64_t end = off + len;

    if (w->failed.code != ERR_NONE)
        return err_copy(err, &w->failed);
    if (len > NBD_WRITE_MAX)
        return err_set(err, ERR_USAGE, "write of %zu bytes, more than %u", len,
                       NBD_WRITE_MAX);
    if (check_range(w, off, len, err) < 0)
        return -1;
    while (off < end) {
        size_t n = (size_t)smaller(end - off, w->cs.block_max);
        struct write_slot *s = get_slot(w, off, off + n, err);

        if (s == NULL || fill(s, data, n, err) < 0)
            return -1;
        if (started(s,
                    nbd_aio_pwrite(w->h, s->copy, n, off, start(s, "write"), 0),
                    err) < 0)
            return -1;
        off += n;
        data += n;
    }
    return 0;
}

static int64_t
send_zero(struct nbd_writer *w, struct write_slot *s, size_t n)
{
    nbd_completion_callback end = start(s, "write zeroes");

    if (w->can_zero)
        return nbd_aio_zero(w->h, n, s->off, end, 0);
    return nbd_aio_pwrite(w->h, zeroes, n, s->off, end, 0);
}

int
nbd_writer_zero(struct nbd_writer *w, uint64_t off, uint64_t len,
                struct err *err)
{
    uint64_t end = off + len, max = ZERO_MAX;

    if (w->failed.code != ERR_NONE)
        return err_copy(err, &w->failed);
    if (check_range(w, off, len, err) < 0)
        return -1;
    if (!w->can_zero)
        max = smaller(w->cs.block_max, sizeof zeroes);
    while (off < end) {
        size_t n = (size_t)smaller(end - off, max);
        struct write_slot *s = get_slot(w, off, off + n, err);

        if (s == NULL || started(s, send_zero(w, s, n), err) < 0)
            return -1;
        off += n;
    }
    return 0;
}

int
nbd_writer_flush(struct nbd_writer *w, struct err *err)
{
    struct write_slot *s;

    if (wait_until(w, 0, err) < 0)
        return -1;
    if (!w->can_flush)
        return 0;
    s = &w->slots[0];
    s->off = s->end = 0;
    if (started(s, nbd_aio_flush(w->h, start(s, "flush"), 0), err) < 0)
        return -1;
    return wait_until(w, 0, err);
}

static int
set_up(struct nbd_writer *w, unsigned in_flight, struct err *err)
{
    struct nbd_conn *c;

    if (in_flight == 0 || in_flight > IN_FLIGHT_MAX)
        return err_set(err, ERR_USAGE, "%u NBD writes at once, not 1 to %d",
                       in_flight, IN_FLIGHT_MAX);
    w->slots = calloc(in_flight, sizeof *w->slots);
    if (w->slots == NULL)
        return err_set(err, ERR_SYSTEM, "no memory for an NBD writer");
    w->in_flight = in_flight;
    for (unsigned i = 0; i < in_flight; i++)
        w->slots[i].w = w;
    if (nbd_conns_add(&w->cs, NULL, &c, err) < 0)
        return -1;
    w->h = c->h;
    if (nbd_is_read_only(w->h) != 0)
        return err_set(err, ERR_UNSUPPORTED,
                       "export '%s' is read-only; export it writable",
                       w->cs.export_name);
    w->can_zero = nbd_can_zero(w->h) == 1;
    w->can_flush = nbd_can_flush(w->h) == 1;
    return 0;
}

DEFINE_CLEANUP(struct nbd_writer *, nbd_writer_close)

int
nbd_writer_open(const char *socket, const char *export_name, unsigned in_flight,
                unsigned timeout_ms, struct nbd_writer **ret, struct err *err)
{
    CLEANUP(nbd_writer_closep) struct nbd_writer *w = calloc(1, sizeof *w);

    if (w == NULL)
        return err_set(err, ERR_SYSTEM, "no memory for an NBD writer");
    if (nbd_conns_init(&w->cs, socket, export_name, timeout_ms, err) < 0)
        return -1;
    if (set_up(w, in_flight, err) < 0)
        return -1;
    *ret = TAKE_PTR(w);
    return 0;
}

uint64_t
nbd_writer_size(const struct nbd_writer *w)
{
    return w->cs.size;
}

void
nbd_writer_close(struct nbd_writer *w)
{
    if (w == NULL)
        return;
    nbd_conns_done(&w->cs);
    for (unsigned i = 0; i < w->in_flight; i++)
        free(w->slots[i].copy);
    free(w->slots);
    free(w);
}
