#include "latency.h"

#include <string.h>

#include "jv.h"

#define BOUNDARIES_MAX 256u /* of a foreign histogram */
#define FIRST_NS 50021u     /* a prime, as nobody would type it */

static const struct {
    const char *n, *time, *histogram;
} keys[GUEST_OPS] = {
    [GUEST_WRITE] = {"stats.wr_operations", "stats.wr_total_time_ns",
                     "stats.wr_latency_histogram"},
    [GUEST_READ] = {"stats.rd_operations", "stats.rd_total_time_ns",
                    "stats.rd_latency_histogram"},
    [GUEST_FLUSH] = {"stats.flush_operations", "stats.flush_total_time_ns",
                     "stats.flush_latency_histogram"},
};

/* Bound of bin i: an octave every two, 3/2 in between. */
static uint64_t
bound_ns(size_t i)
{
    uint64_t octave = (uint64_t)FIRST_NS << (i / 2);

    return i % 2 == 0 ? octave : octave + octave / 2;
}

uint64_t
latency_bound_us(size_t i)
{
    return bound_ns(i) / 1000;
}

static size_t
bin_of(uint64_t ns)
{
    size_t i = 0;

    while (i < LATENCY_BINS - 1 && ns >= bound_ns(i))
        i++;
    return i;
}

/* A bin of theirs counts as slow as its slowest request could be: where it ends.
 * The last has no end. */
static void
parse_bins(const struct jv *h, struct latency *l)
{
    const struct jv *bounds = jv_get(h, "boundaries"),
                    *bins = jv_get(h, "bins");
    size_t n = jv_size(bins);

    if (n < 2 || n > BOUNDARIES_MAX + 1 || jv_size(bounds) + 1 != n)
        return;
    l->has_bins = true;
    for (size_t i = 0; i < n; i++) {
        const bool last = i + 1 == n;
        uint64_t count = 0, end = 0;
        size_t to;

        (void)jv_uint(jv_at(bins, i), &count);
        (void)jv_uint(jv_at(bounds, last ? i - 1 : i), &end);
        to = bin_of(end > 0 ? end - 1 : 0) + last;
        l->bins[to < LATENCY_BINS ? to : LATENCY_BINS - 1] += count;
    }
}

void
latency_parse(const struct jv *device, struct guest_io *ret)
{
    memset(ret, 0, sizeof *ret);
    for (size_t i = 0; i < GUEST_OPS; i++) {
        struct latency *l = &ret->op[i];
        uint64_t ns = 0;

        (void)jv_get_uint(device, keys[i].n, &l->n);
        (void)jv_get_uint(device, keys[i].time, &ns);
        l->total_us = ns / 1000;
        parse_bins(jv_path(device, keys[i].histogram), l);
    }
}

static uint64_t
since(uint64_t now, uint64_t then)
{
    return now >= then ? now - then : now;
}

struct latency
latency_since(const struct latency *now, const struct latency *then)
{
    struct latency d = {.n = since(now->n, then->n),
                        .total_us = since(now->total_us, then->total_us),
                        .has_bins = now->has_bins && then->has_bins};

    for (size_t i = 0; d.has_bins && i < LATENCY_BINS; i++)
        d.bins[i] = since(now->bins[i], then->bins[i]);
    return d;
}

void
latency_add(struct latency *sum, const struct latency *more)
{
    sum->n += more->n;
    sum->total_us += more->total_us;
    sum->has_bins |= more->has_bins;
    for (size_t i = 0; more->has_bins && i < LATENCY_BINS; i++)
        sum->bins[i] += more->bins[i];
}

static uint64_t
in_bins(const struct latency *l)
{
    uint64_t n = 0;

    for (size_t i = 0; l->has_bins && i < LATENCY_BINS; i++)
        n += l->bins[i];
    return n;
}

uint64_t
latency_quantile_us(const struct latency *l, unsigned permille)
{
    uint64_t n = in_bins(l), below = 0;
    double want = (double)n * permille / 1000;

    if (n == 0)
        return 0;
    for (size_t i = 0; i < LATENCY_BINS - 1; i++) {
        below += l->bins[i];
        if ((double)below >= want)
            return latency_bound_us(i);
    }
    return latency_bound_us(LATENCY_BINS - 1);
}

uint64_t
latency_mean_us(const struct latency *l)
{
    return l->n > 0 ? l->total_us / l->n : 0;
}

uint64_t
latency_slower(const struct latency *l, uint64_t us)
{
    uint64_t n = 0;

    if (!l->has_bins)
        return latency_mean_us(l) >= us ? l->n : 0;
    for (size_t i = 1; i < LATENCY_BINS; i++)
        if (latency_bound_us(i - 1) >= us)
            n += l->bins[i];
    return n;
}

static bool
is_ours(const struct jv *histogram)
{
    const struct jv *b = jv_get(histogram, "boundaries");

    for (size_t i = 0; i < LATENCY_BINS - 1; i++) {
        uint64_t v;

        if (!jv_uint(jv_at(b, i), &v) || v != bound_ns(i))
            return false;
    }
    return jv_size(b) == LATENCY_BINS - 1;
}

enum histogram
latency_owner(const struct jv *device)
{
    enum histogram owner = HISTOGRAM_NONE;

    for (size_t i = 0; i < GUEST_OPS; i++) {
        const struct jv *h = jv_path(device, keys[i].histogram);

        if (h != NULL && !is_ours(h))
            return HISTOGRAM_FOREIGN;
        if (h != NULL)
            owner = HISTOGRAM_OURS;
    }
    return owner;
}

struct jv *
latency_boundaries(void)
{
    CLEANUP_JV struct jv *a = jv_array();

    for (size_t i = 0; i < LATENCY_BINS - 1; i++)
        if (jv_add(a, jv_int((int64_t)bound_ns(i))) < 0)
            return NULL;
    return TAKE_PTR(a);
}
