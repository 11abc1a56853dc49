/* job/units.h - the pieces of one disk under way, and their order.
 *
 * A unit is a run of consecutive chunks that is read, hashed and stored as one.
 * Units are finished in any order, but a map is written from left to right; so
 * they wait in a queue, and only a finished head leaves it.  What waits is small
 * (ids); the buffers go back as soon as a worker is done with them.
 *
 * Runs of zero chunks travel in the same queue, finished from the start.
 *
 * Threads: none of its own; the caller serialises (copy.c holds its lock).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "repo.h"

struct err;

struct unit {
    struct unit *next; /* in the queue */
    void *owner;       /* the caller's */
    uint64_t index;    /* first chunk */
    uint64_t n;        /* chunks; only a zero run may have more than a leaf */
    bool zero;         /* a run of zero chunks: no buffer, no ids */
    bool finished;
    bool has_base; /* base[] is filled */
    bool audit;    /* taken to be unchanged: compare, nothing else */
    size_t bytes;  /* in buf */
    uint8_t *buf;
    struct chunk_id *base; /* n, ids of the base point's chunks */
    struct chunk_id ids[]; /* n, valid when finished */
};

struct units {
    size_t buf_bytes;   /* of one buffer */
    unsigned max_bufs;  /* at most so many exist */
    unsigned max_units; /* at most so many wait in the queue */
    unsigned n_bufs, n_idle, n_units;
    uint8_t **idle; /* stack of free buffers: the one used last is warm */
    struct unit *head, **tail;
    uint64_t next_index; /* indexes must ascend */
};

int units_init(struct units *u, size_t buf_bytes, unsigned max_bufs,
               unsigned max_units, struct err *err);
void units_done(struct units *u); /* frees everything; also half made */

/* True when a unit (with a buffer, if `buffer`) can be added now. */
bool units_room(const struct units *u, bool buffer);

/* Append a unit of `n` chunks, `bytes` (<= buf_bytes) to be read into its
 * buffer. Needs units_room(u, true); -1: no memory. */
int units_add(struct units *u, uint64_t index, unsigned n, size_t bytes,
              struct unit **ret, struct err *err);

/* Append a run of zero chunks; needs units_room(u, false). */
int units_add_zero(struct units *u, uint64_t index, uint64_t n,
                   struct err *err);

/* The ids of `unit` are known, its buffer is free again. */
void units_finish(struct units *u, struct unit *unit);

/* Take the oldest unit out when it is finished, else NULL.  The caller frees
 * it with free(). */
struct unit *units_pop(struct units *u);

bool units_empty(const struct units *u);
/* True when no buffer is in use. */
bool units_idle(const struct units *u);
