#include "backoff.h"

/* Fewer requests say nothing of a tail, and nothing of a mean either. */
#define ENOUGH 30u
#define ACTIVE 4u /* requests just before: a guest that does something */

/* Nobody minds what is faster than this. */
#define FLOOR_US 500u
#define FLOOR_BY_MEAN_US 5000u
#define FLOOR_UNKNOWN_US 20000u

/* Slow are more than 2 of 100 requests where 1 was before; a single one never. */
#define SLOW_SHARE 0.02
#define SLOW_MIN 1.5
#define FADE 0.75

/* So long near the lowest rate, and it is clear what the guest has by itself. */
#define LOW_RATE (2 * BACKOFF_MIN)
#define LOW_LOOKS 12u

static uint64_t
larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t
smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* One bin above what 99 % stayed below. */
static uint64_t
limit_by_tail(const struct latency *l)
{
    uint64_t p99 = latency_quantile_us(l, 990);

    return p99 + p99 / 3;
}

static uint64_t
limit_by(const struct latency *l)
{
    return l->has_bins ? limit_by_tail(l) : 2 * latency_mean_us(l);
}

static uint64_t
first_limit(const struct latency *before, const struct latency *ever)
{
    if (before->n >= ENOUGH)
        return larger(limit_by(before), FLOOR_US);
    if (ever->n >= ENOUGH)
        return larger(4 * latency_mean_us(ever), FLOOR_BY_MEAN_US);
    return FLOOR_UNKNOWN_US;
}

void
backoff_begin(struct backoff *b, struct backoff_stream *streams, size_t n,
              const struct latency *before, const struct latency *ever)
{
    uint64_t active = 0;

    *b = (struct backoff){.streams = streams, .n = n, .rate = BACKOFF_FREE};
    for (size_t i = 0; i < n; i++) {
        uint64_t us = first_limit(&before[i], &ever[i]);

        streams[i] = (struct backoff_stream){.base_us = us, .limit_us = us};
        active += before[i].n;
    }
    /* At full speed the harm would be done before the first look. */
    if (active >= ACTIVE)
        b->rate = BACKOFF_START;
}

/* -- slow or not ------------------------------------------------------------*/

static bool
is_slow(struct backoff *b, const struct latency *seen)
{
    b->seen *= FADE;
    b->slow *= FADE;
    for (size_t i = 0; i < b->n; i++) {
        b->seen += (double)seen[i].n;
        b->slow += (double)latency_slower(&seen[i], b->streams[i].limit_us);
    }
    return b->slow >= SLOW_MIN && b->slow > SLOW_SHARE * b->seen;
}

static void
forget(struct backoff *b)
{
    b->seen = b->slow = 0;
}

static void
end_low(struct backoff *b)
{
    b->n_low = 0;
    for (size_t i = 0; i < b->n; i++)
        b->streams[i].low = (struct latency){0};
}

/* Hardly reading, and still slow: that is the guest's own doing, or the price of
 * keeping its old data, which does not depend on how fast we read. */
static void
learn_low(struct backoff *b, const struct latency *seen, uint64_t read_rate)
{
    if (b->rate > LOW_RATE && read_rate > LOW_RATE) {
        end_low(b);
        return;
    }
    for (size_t i = 0; i < b->n; i++)
        latency_add(&b->streams[i].low, &seen[i]);
    if (++b->n_low < LOW_LOOKS)
        return;
    for (size_t i = 0; i < b->n; i++) {
        struct backoff_stream *s = &b->streams[i];

        if (s->low.n > 0)
            s->limit_us = larger(s->limit_us, limit_by(&s->low));
    }
    end_low(b);
}

/* A raised limit comes down again, slowly, once the guest stays far below it. */
static void
lower_limits(struct backoff *b, const struct latency *seen)
{
    for (size_t i = 0; i < b->n; i++) {
        struct backoff_stream *s = &b->streams[i];

        if (s->limit_us > s->base_us && seen[i].n > 0 &&
            latency_slower(&seen[i], s->limit_us / 2) == 0)
            s->limit_us =
                larger(s->base_us, s->limit_us - s->limit_us / 128 - 1);
    }
}

/* -- the rate ---------------------------------------------------------------*/

/* Doubles until the guest was hurt for the first time, and again beyond the rate
 * that hurt it; in between in steps. */
static void
faster(struct backoff *b)
{
    if (b->rate == BACKOFF_FREE)
        return;
    if (b->hurt_at == 0)
        b->rate *= 2;
    else if (b->rate < b->hurt_at)
        b->rate += larger(b->hurt_at / 32, 1u << 18);
    else
        b->rate += b->rate / 16;
    if (b->rate >= BACKOFF_CEILING)
        b->rate = BACKOFF_FREE;
}

static void
slower(struct backoff *b, uint64_t read_rate)
{
    uint64_t now = smaller(b->rate, larger(read_rate, BACKOFF_MIN));

    b->hurt_at = now;
    b->rate = larger(now / 2, BACKOFF_MIN);
    b->n_back++;
}

void
backoff_look(struct backoff *b, const struct latency *seen, uint64_t read_rate)
{
    bool slow = is_slow(b, seen);

    learn_low(b, seen, read_rate);
    if (!slow) {
        lower_limits(b, seen);
        faster(b);
        return;
    }
    forget(b); /* what we act upon must not be counted twice */
    if (b->rate > BACKOFF_MIN && read_rate > BACKOFF_MIN)
        slower(b, read_rate);
    else
        b->rate = smaller(b->rate, BACKOFF_START);
}
