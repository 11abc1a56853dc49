/* job/impact.h - what a backup does to its guest: seen, kept small, and told.
 *
 * Joins what QEMU says of the guest's requests (source_impact_look()) with the
 * rule (backoff.h) and the gate of the reads (pace.h).
 * Threads: the main thread; the pace is for the readers.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct err;
struct impact;
struct jv;
struct pace;
struct source;

/* `limit_rate` 0: none.  Without `backoff` the guest is not looked at. */
int impact_new(struct source *s, uint64_t limit_rate, bool backoff,
               struct impact **ret, struct err *err);
void impact_free(struct impact *im); /* NULL is fine */

/* Just before the instant: what the guest has without us.  Where it is at work
 * and little was seen so far this takes IMPACT_BEFORE_MS at most. */
#define IMPACT_BEFORE_MS 1000u
struct job_hooks;
void impact_before(struct impact *im, const struct job_hooks *hooks);

/* Again and again during the copy; looks when it is time to.  The bytes of the
 * scratch files. */
uint64_t impact_watch(struct impact *im);

struct pace *impact_pace(struct impact *im);

/* "backoff_ms", "scratch_peak_bytes", and, where known, "guest_write_p99_us" and
 * "guest_write_mean_us": {"before", "during"}. */
int impact_report(struct impact *im, struct jv *committed);
