/* source/latency.h - how long a guest's requests take, as QEMU counts it.
 *
 * QEMU counts per device: operations, their total time, and, where somebody has
 * asked for it, a histogram.  Whatever boundaries that has, it is told here in
 * bins of our own, so that two looks can be compared.
 *
 * Pure: QEMU's answers in, structs out.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct jv;

enum guest_op { GUEST_WRITE, GUEST_READ, GUEST_FLUSH, GUEST_OPS };

/* Bin i holds what took less than latency_bound_us(i) and no less than the bound
 * of bin i - 1; the last one everything else.  Two bins an octave, from 50 us to
 * 13 s. */
#define LATENCY_BINS 38
uint64_t latency_bound_us(size_t i);

struct latency {
    uint64_t n;        /* requests */
    uint64_t total_us; /* their time, summed up */
    bool has_bins;
    uint64_t bins[LATENCY_BINS]; /* their sum may differ from n */
};

/* Counters of one device: latencies since it was started. */
struct guest_io {
    struct latency op[GUEST_OPS];
};

/* One element of query-blockstats' answer.  What it lacks counts as nothing. */
void latency_parse(const struct jv *device, struct guest_io *ret);

/* What came between two looks; a counter that went back, because QEMU or
 * somebody else began anew, counts from zero. */
struct latency latency_since(const struct latency *now,
                             const struct latency *then);

void latency_add(struct latency *sum, const struct latency *more);

/* What `permille` of the requests stayed below, as the bound of a bin; 0 without
 * a histogram or without requests. */
uint64_t latency_quantile_us(const struct latency *l, unsigned permille);

/* How many took `us` or more.  Without a histogram all or none, by the mean. */
uint64_t latency_slower(const struct latency *l, uint64_t us);

uint64_t latency_mean_us(const struct latency *l); /* 0 without requests */

/* Whose histograms a device has. */
enum histogram { HISTOGRAM_NONE, HISTOGRAM_OURS, HISTOGRAM_FOREIGN };
enum histogram latency_owner(const struct jv *device);

/* The boundaries that we ask for, in ns; owned by the caller.  Nobody else would
 * choose these very numbers: by them a dead run's are known. */
struct jv *latency_boundaries(void);
