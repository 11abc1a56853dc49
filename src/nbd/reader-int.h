/* nbd/reader-int.h - what the files of the reader share (this folder).
 *
 * reader.c opens and closes, reads.c is the read pipeline, status.c asks for
 * extents.  All of them wait in reader_turn() only.
 *
 * Invariants:
 * (1) No two slots that are SENT overlap, block sizes included, and neither
 *     does an allocation request overlap a SENT slot: QEMU 7.0 to 9.1 aborts,
 *     and takes the guest with it, when overlapping requests meet on a
 *     snapshot-access node.
 * (2) `done` of a slot is called in reader_deliver() only, once, after which
 *     the slot is FREE.
 * (3) A dead reader has no connection left, so that nothing writes into the
 *     caller's buffers any more.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conns.h"
#include "err.h"
#include "reader.h"

enum slot_state {
    SLOT_FREE,
    SLOT_SENT,     /* libnbd has it */
    SLOT_ANSWERED, /* the answer to one piece is here */
    SLOT_FINISHED, /* nothing more to do but to call `done` */
};

/* One read of the caller, done piece by piece where the server takes less. */
struct read_slot {
    enum slot_state state;
    struct nbd_conn *conn; /* while SENT */
    bool queued;           /* see conns.h */
    uint8_t *buf;
    uint64_t off, end;
    nbd_read_fn done;
    void *arg;

    /* The piece under way. */
    uint64_t piece_off;
    size_t piece_len;
    size_t seen;     /* bytes of it that the server covered */
    uint8_t *bounce; /* holds an unaligned piece, or NULL */

    int error;
};

struct nbd_reader {
    struct nbd_conns cs;
    struct nbd_conn *alloc, *dirty; /* dirty may be NULL */
    char *dirty_context;
    struct err dead; /* code is not ERR_NONE: dead */

    struct read_slot *slots;
    unsigned grain;     /* see nbd_reader_opts */
    unsigned in_flight; /* number of slots */
    unsigned n_busy;    /* not FREE */
    unsigned n_finished;
};

/* Start waiting, or using it.  -1: the reader is dead. */
int reader_begin(struct nbd_reader *r, struct err *err);

/* Wait for an event and handle answers.  -1: the reader is dead now, and every
 * slot in use is FINISHED. */
int reader_turn(struct nbd_reader *r, struct err *err);

/* reads.c */
bool reader_overlaps(const struct nbd_reader *r, uint64_t off, uint64_t end);
void reader_reap(struct nbd_reader *r);
void reader_abandon(struct nbd_reader *r, int error);
void reader_deliver(struct nbd_reader *r);
