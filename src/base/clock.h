/* base/clock.h - monotonic time for deadlines, wall time for labels.
 *
 * No decision about data depends on the wall clock: it is only ever a label.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Milliseconds of CLOCK_MONOTONIC. */
uint64_t clock_ms(void);

/* Microseconds of CLOCK_MONOTONIC. */
uint64_t clock_us(void);

/* Nanoseconds since 1970 UTC. */
int64_t clock_wall_ns(void);

/* "2026-11-20T18:00:00Z" (UTC); `buf` of at least 24 bytes. */
#define CLOCK_TEXT_MAX 24
void clock_text(int64_t wall_ns, char *buf, size_t len);

/* A point of monotonic time by which something must have happened. */
struct deadline {
    uint64_t at_ms;
};

struct deadline deadline_in(uint64_t ms);

/* Milliseconds left, 0 when it has passed; never more than INT_MAX, so that it
 * fits poll(). */
int deadline_left(struct deadline d);
