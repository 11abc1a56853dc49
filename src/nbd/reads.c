#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <libnbd.h>

#include "reader-int.h"

static int
on_chunk(void *arg, const void *data, size_t len, uint64_t off, unsigned status,
         int *error)
{
    struct read_slot *s = arg;

    if (*error == 0 && status != LIBNBD_READ_ERROR)
        s->seen += len;
    return 0;
}

/* A structured reply may leave parts of the buffer alone and call itself a
 * success; libnbd only notices in calls that are not used here. */
static int
on_answer(void *arg, int *error)
{
    struct read_slot *s = arg;

    if (*error != 0)
        s->error = *error;
    else if (s->seen != s->piece_len)
        s->error = EPROTO;
    s->conn->n_busy--;
    s->state = SLOT_ANSWERED;
    return s->queued; /* see conns.h */
}

static struct nbd_conn *
least_busy(struct nbd_reader *r)
{
    struct nbd_conn *best = r->alloc;

    for (unsigned i = 0; i < r->cs.n; i++) {
        struct nbd_conn *c = &r->cs.v[i];

        if (c->reads && c->n_busy < best->n_busy)
            best = c;
    }
    return best;
}

static void
finish(struct nbd_reader *r, struct read_slot *s)
{
    free(s->bounce);
    s->bounce = NULL;
    s->state = SLOT_FINISHED;
    r->n_finished++;
}

/* Where the piece goes: straight into the caller's buffer, or beside it when
 * it had to be rounded outward to the server's blocks. */
static uint8_t *
piece_buffer(struct nbd_reader *r, struct read_slot *s)
{
    uint64_t from = nbd_align_down(s->off, r->cs.block_min);
    uint64_t to = nbd_align_up(&r->cs, s->end);

    if (to - from > r->cs.block_max)
        to = from + r->cs.block_max;
    if (r->grain > 0 && to > nbd_align_down(from, r->grain) + r->grain)
        to = nbd_align_down(from, r->grain) + r->grain;
    s->piece_off = from;
    s->piece_len = (size_t)(to - from);
    s->seen = 0;
    if (from == s->off && to <= s->end)
        return s->buf;
    s->bounce = malloc(s->piece_len);
    return s->bounce;
}

/* Ask for the next piece.  What fails here is told to `done`; a connection that
 * died is found by the next turn. */
static void
send_piece(struct nbd_reader *r, struct read_slot *s)
{
    uint8_t *buf = piece_buffer(r, s);

    if (buf == NULL) {
        s->error = ENOMEM;
        finish(r, s);
        return;
    }
    s->conn = least_busy(r);
    s->conn->n_busy++;
    s->state = SLOT_SENT;
    s->queued = false;
    if (nbd_aio_pread_structured(
            s->conn->h, buf, s->piece_len, s->piece_off,
            (nbd_chunk_callback){.callback = on_chunk, .user_data = s},
            (nbd_completion_callback){.callback = on_answer, .user_data = s},
            0) >= 0) {
        s->queued = true;
        return;
    }
    s->conn->n_busy--;
    s->error = nbd_get_errno() != 0 ? nbd_get_errno() : ENOTCONN;
    finish(r, s);
}

/* The answer to a piece without error: keep what was asked for. */
static void
take_piece(struct read_slot *s)
{
    uint64_t end = s->piece_off + s->piece_len;
    size_t n = (size_t)((end < s->end ? end : s->end) - s->off);

    if (s->bounce != NULL)
        memcpy(s->buf, s->bounce + (s->off - s->piece_off), n);
    free(s->bounce);
    s->bounce = NULL;
    s->buf += n;
    s->off += n;
}

void
reader_reap(struct nbd_reader *r)
{
    for (unsigned i = 0; i < r->in_flight; i++) {
        struct read_slot *s = &r->slots[i];

        if (s->state != SLOT_ANSWERED)
            continue;
        if (s->error == 0)
            take_piece(s);
        if (s->error != 0 || s->off == s->end)
            finish(r, s);
        else
            send_piece(r, s);
    }
}

/* Only after the connections are gone, see invariant (3). */
void
reader_abandon(struct nbd_reader *r, int error)
{
    for (unsigned i = 0; i < r->in_flight; i++) {
        struct read_slot *s = &r->slots[i];

        if (s->state == SLOT_FREE || s->state == SLOT_FINISHED)
            continue;
        s->error = error;
        finish(r, s);
    }
}

void
reader_deliver(struct nbd_reader *r)
{
    for (unsigned i = 0; i < r->in_flight && r->n_finished > 0; i++) {
        struct read_slot *s = &r->slots[i];

        if (s->state != SLOT_FINISHED)
            continue;
        s->state = SLOT_FREE;
        r->n_finished--;
        r->n_busy--;
        s->done(s->arg, s->error);
    }
}

/* [off, end) as it goes over the wire against what is under way. */
bool
reader_overlaps(const struct nbd_reader *r, uint64_t off, uint64_t end)
{
    uint64_t from = nbd_align_down(off, r->cs.block_min);
    uint64_t to = nbd_align_up(&r->cs, end);

    for (unsigned i = 0; i < r->in_flight; i++) {
        const struct read_slot *s = &r->slots[i];

        if (s->state != SLOT_FREE && s->state != SLOT_FINISHED &&
            from < nbd_align_up(&r->cs, s->end) &&
            nbd_align_down(s->off, r->cs.block_min) < to)
            return true;
    }
    return false;
}

static struct read_slot *
free_slot(struct nbd_reader *r)
{
    for (unsigned i = 0; i < r->in_flight; i++)
        if (r->slots[i].state == SLOT_FREE)
            return &r->slots[i];
    return NULL;
}

/* Wait until a read of [off, end) may start. */
static int
make_room(struct nbd_reader *r, uint64_t off, uint64_t end, struct err *err)
{
    if (reader_begin(r, err) < 0)
        return -1;
    while (r->n_busy - r->n_finished >= r->in_flight ||
           reader_overlaps(r, off, end))
        if (reader_turn(r, err) < 0)
            return -1;
    return 0;
}

int
nbd_reader_read(struct nbd_reader *r, void *buf, uint64_t off, size_t len,
                nbd_read_fn done, void *arg, struct err *err)
{
    struct read_slot *s;
    int ret;

    if (len == 0 || len > NBD_READ_MAX || off > r->cs.size ||
        len > r->cs.size - off)
        return err_set(err, ERR_USAGE,
                       "export '%s': read of %zu bytes at %" PRIu64
                       " of %" PRIu64,
                       r->cs.export_name, len, off, r->cs.size);
    ret = make_room(r, off, off + len, err);
    reader_deliver(r);
    if (ret < 0)
        return -1;
    s = free_slot(r);
    *s = (struct read_slot){
        .buf = buf, .off = off, .end = off + len, .done = done, .arg = arg};
    r->n_busy++;
    send_piece(r, s);
    return 0;
}

int
nbd_reader_wait(struct nbd_reader *r, unsigned n, struct err *err)
{
    int ret = reader_begin(r, err);

    while (ret == 0 && r->n_busy - r->n_finished > n)
        ret = reader_turn(r, err);
    reader_deliver(r);
    return ret;
}
