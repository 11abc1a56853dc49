/* repo/flush.h - writes packs in the background, in parts while they grow.
 *
 * At most FLUSH_WAITING parts wait: a store that is slower than the workers
 * makes them wait instead of filling memory.  The first failure is kept and
 * given to everyone who asks later; nothing is written after it.
 *
 * Threads: any.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pack.h"

#define FLUSH_PART (512u << 10) /* bytes worth a write */
#define FLUSH_WAITING 8u
#define FLUSH_BYTES (8u << 20) /* that wait, unless it is one part */

struct flusher;

struct flushed {
    struct pack_name name;
    uint64_t len;
    uint8_t sha[32]; /* of the whole pack */
};

/* `synchronous`: no thread, flusher_submit() writes. */
int flusher_new(struct store *st, bool synchronous, struct flusher **ret,
                struct err *err);

/* Write what is being written, drop what waits and what has no end yet, end the
 * thread. */
void flusher_free(struct flusher *f); /* NULL is fine */

/* Hand over a finished pack (freed here, also on failure). */
int flusher_submit(struct flusher *f, struct pack *p, struct err *err);

/* Hand over what a growing pack holds; it goes on with empty memory.  One pack
 * of a class at a time: its last part comes with flusher_submit(). */
int flusher_part(struct flusher *f, struct pack *p, struct err *err);

/* Wait until everything handed over is durable. */
int flusher_drain(struct flusher *f, struct err *err);

/* Copy `len` bytes at `off` of pack `seq` if they wait or are being written: 1,
 * else 0. */
int flusher_copy(struct flusher *f, uint32_t seq, uint32_t off, size_t len,
                 void *dst);

/* What was written; call after flusher_drain(). */
const struct flushed *flusher_done(const struct flusher *f, size_t *ret_n);
uint64_t flusher_stored(struct flusher *f); /* bytes */
