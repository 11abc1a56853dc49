/* nbd/conns.h - the connections of one reader or writer (this folder).
 *
 * libnbd's synchronous calls wait for ever, so nothing here calls one: each
 * handle's state machine is driven from one poll loop with one deadline, which
 * every byte that moves renews.
 *
 * Completion callbacks return 1, which makes libnbd free the command.  But when
 * the connection dies while nbd_aio_*() hands a request over, the callback runs
 * inside that call, and libnbd 1.14 reads the command after freeing it.  So they
 * return 0 until the call has returned (`queued`); nbd_close() frees the rest.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "clock.h"

struct err;
struct nbd_handle;

#define NBD_CONNS_MAX 17            /* one for the dirty context, 16 to read */
#define NBD_PAYLOAD_MAX (32u << 20) /* what every server takes in one request */

struct nbd_conn {
    struct nbd_handle *h;
    int peek_fd;     /* of the same socket, see peer_left() */
    unsigned n_busy; /* reads under way */
    bool reads;      /* may be used for reads */
};

struct nbd_conns {
    struct nbd_conn v[NBD_CONNS_MAX];
    unsigned n;
    char *socket, *export_name;
    unsigned timeout_ms;
    struct deadline until;

    /* What the server said; the strictest over all connections. */
    uint64_t size;
    uint32_t block_min; /* a power of two */
    uint32_t block_max; /* a multiple of block_min */

    /* Set and written by any thread. */
    atomic_bool canceled;
    int cancel_fd; /* eventfd, or -1 */
};

/* `cs` is zeroed and ready for nbd_conns_done() in any case. */
int nbd_conns_init(struct nbd_conns *cs, const char *socket,
                   const char *export_name, unsigned timeout_ms,
                   struct err *err);

/* Connect and negotiate `context` (NULL: none), which must be granted. */
int nbd_conns_add(struct nbd_conns *cs, const char *context,
                  struct nbd_conn **ret, struct err *err);

/* Start the deadline anew: somebody begins to wait. */
void nbd_conns_begin(struct nbd_conns *cs);

/* Wait for something to happen on any connection and let libnbd handle it.
 * -1: canceled, timed out, or a connection died; call nbd_conns_drop(). */
int nbd_conns_turn(struct nbd_conns *cs, struct err *err);

/* Whether nbd_conns_turn() would fail at once: canceled, or a connection that
 * died while a request was handed to libnbd. */
bool nbd_conns_over(const struct nbd_conns *cs);

/* Hang up at once; libnbd touches no buffer and calls nothing afterwards. */
void nbd_conns_drop(struct nbd_conns *cs);

/* Say goodbye where a connection is open, waiting NBD_GOODBYE_MS at most for
 * the server to hang up, and free everything. */
#define NBD_GOODBYE_MS 500
void nbd_conns_done(struct nbd_conns *cs);

static inline uint64_t
nbd_align_down(uint64_t v, uint32_t align)
{
    return v - v % align;
}

/* Never beyond the end of the disk; v is at most the size. */
static inline uint64_t
nbd_align_up(const struct nbd_conns *cs, uint64_t v)
{
    uint64_t up = v + (cs->block_min - v % cs->block_min) % cs->block_min;

    return up < cs->size ? up : cs->size;
}
