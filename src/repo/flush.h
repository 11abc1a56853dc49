/* repo/flush.h - writes finished packs in the background.
 *
 * One thread, and at most FLUSH_WAITING packs wait for it: a store that is
 * slower than the workers makes them wait instead of filling memory.  The first
 * failure is kept and given to everyone who asks later; nothing is written
 * after it.
 *
 * Threads: any.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "pack.h"

#define FLUSH_WAITING 2

struct flusher;

struct flushed {
    struct pack_name name;
    uint64_t len;
    uint8_t sha[32]; /* of the whole pack */
};

int flusher_new(struct store *st, struct flusher **ret, struct err *err);

/* Write what is being written, drop what waits, end the thread. */
void flusher_free(struct flusher *f); /* NULL is fine */

/* Hand over a finished pack (freed here, also on failure). */
int flusher_submit(struct flusher *f, struct pack *p, struct err *err);

/* Give a new, still small pack the memory of one that was written. */
void flusher_reuse(struct flusher *f, struct pack *p);

/* Wait until everything handed over is durable. */
int flusher_drain(struct flusher *f, struct err *err);

/* Copy `len` bytes at `off` of pack `seq` if it is still in memory: 1, else
 * 0. */
int flusher_copy(struct flusher *f, uint32_t seq, uint32_t off, size_t len,
                 void *dst);

/* What was written; call after flusher_drain(). */
const struct flushed *flusher_done(const struct flusher *f, size_t *ret_n);
uint64_t flusher_stored(struct flusher *f); /* bytes */
