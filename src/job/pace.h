/* job/pace.h - the one gate that all reads of a backup pass.
 *
 * Two limits, the lower one counts: the owner's, which never changes, and the one
 * that backing off sets from time to time.  Waiting is the reader threads'
 * business: nobody else is held up.
 * Threads: pace_turn() and pace_wait() from reader threads, the rest from any.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct pace;

/* `limit`: bytes per second, 0: none. */
int pace_new(uint64_t limit, struct pace **ret, struct err *err);
void pace_free(struct pace *p); /* NULL is fine */

/* The guest's limit from now on, or BACKOFF_FREE. */
void pace_set(struct pace *p, uint64_t rate);

/* Count `len` bytes to be read.  0: at once; else the time (clock_us()) to wait
 * for. */
uint64_t pace_turn(struct pace *p, size_t len);

/* Wait for that time; false as soon as *stop is set and pace_wake() was called. */
bool pace_wait(struct pace *p, uint64_t at_us, const atomic_bool *stop);
void pace_wake(struct pace *p);

uint64_t pace_bytes(struct pace *p);      /* that got their turn so far */
uint64_t pace_backoff_ms(struct pace *p); /* waited because of the guest */

/* The calling thread lets others go first where CPUs are short. */
void pace_yield_cpu(void);
