/* job/backoff.h - how fast a disk may be read, by what its guest feels.
 *
 * Additive increase, multiplicative decrease, as TCP has it: while the guest's
 * requests take about as long as before the backup the rate grows, and when too
 * many of them take longer it is halved.  A guest that is slow although we hardly
 * read is not slow because of us: then what it has now becomes the measure, so
 * that a backup of a busy machine ends, too.
 *
 * Pure: no clock, no lock, no I/O.  One look every BACKOFF_LOOK_MS or so.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "latency.h"

#define BACKOFF_LOOK_MS 250u
#define BACKOFF_FREE UINT64_MAX            /* no limit */
#define BACKOFF_MIN ((uint64_t)4 << 20)    /* bytes per second; never less */
#define BACKOFF_START ((uint64_t)32 << 20) /* beside a guest that writes */
#define BACKOFF_CEILING ((uint64_t)4 << 30)

/* Requests of one kind of one disk. */
struct backoff_stream {
    uint64_t base_us;   /* slower than this was rare before the backup */
    uint64_t limit_us;  /* slower than this is slow now: base_us or more */
    struct latency low; /* seen while hardly anything was read */
};

struct backoff {
    struct backoff_stream *streams; /* the caller's */
    size_t n;
    uint64_t rate;    /* bytes per second, or BACKOFF_FREE */
    uint64_t hurt_at; /* rate at which the guest was last slow, or 0 */
    /* fading memory of the last looks */
    double seen, slow;
    unsigned n_low;  /* looks in a row at hardly more than the lowest rate */
    unsigned n_back; /* how often the rate was halved */
};

/* `before` has for each stream what was seen just before the instant, `ever`
 * since the machine was started. */
void backoff_begin(struct backoff *b, struct backoff_stream *streams, size_t n,
                   const struct latency *before, const struct latency *ever);

/* `seen` has for each stream what came since the last look; `read_rate` is what
 * was really read meanwhile, in bytes per second. */
void backoff_look(struct backoff *b, const struct latency *seen,
                  uint64_t read_rate);
