/* base/rate.h - keeping to a number of bytes per second.
 *
 * Pure: the caller has the clock, the lock, and the sleep.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct rate {
    uint64_t next_us; /* the bytes so far are paid for from then on */
};

/* When `len` more bytes may begin to move at `per_second`, which is not 0: now
 * or later, never more than one turn at once.  They count from that moment. */
uint64_t rate_turn(struct rate *r, uint64_t now_us, size_t len,
                   uint64_t per_second);
