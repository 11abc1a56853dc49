/* cli/progress.h - how fast, how long still: arithmetic and one line of text.
 *
 * Pure: time comes in as a number and text goes out into a buffer; meter.h
 * draws it.  The rate is an average over about PROGRESS_MEMORY_MS that forgets
 * slowly, so that one slow second does not make the time left jump.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROGRESS_MEMORY_MS 8000u /* how far back the rate looks */
#define PROGRESS_TRUST_MS 2000u  /* before this no time left is promised */
#define PROGRESS_LINE_MAX 256u

struct progress {
    char phase[16];
    uint64_t done;
    uint64_t total; /* 0: not known */
    uint64_t start_ms;
    uint64_t last_ms; /* of the last sample that entered the rate */
    uint64_t last_done;
    double rate;      /* bytes a second; 0: not known yet */
    uint64_t scratch; /* bytes, set by the caller; 0 is not shown */
};

#define PROGRESS_INIT \
    {                 \
        .phase = ""   \
    }

/* Take a sample.  A new phase, and work that goes backwards, start over; more
 * done than the total is shown as all done. */
void progress_update(struct progress *p, uint64_t now_ms, const char *phase,
                     uint64_t done, uint64_t total);

/* Percent done, rounded down; 100 only when all is done; 0 without total. */
unsigned progress_percent(const struct progress *p);

/* Seconds left; false when that cannot be said (yet). */
bool progress_left(const struct progress *p, uint64_t *ret_s);

/* "read  [#######------]  54 %  1.1 of 2.0 GiB  200.0 MiB/s  0:04 left" in at
 * most `width` columns; parts are left out from the right end when it is
 * narrow.  `buf` of PROGRESS_LINE_MAX bytes, which is also returned. */
char *progress_line(const struct progress *p, size_t width, bool bar,
                    char *buf);
