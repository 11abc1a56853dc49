#include "impact.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "backoff.h"
#include "cleanup.h"
#include "clock.h"
#include "common.h"
#include "err.h"
#include "jv.h"
#include "log.h"
#include "pace.h"
#include "source.h"

#define IDLE_MS 100u       /* without a request: it does nothing */
#define BEFORE_ENOUGH 200u /* requests to know what is usual */
#define IDLE_LOOK_MS 1000u /* the guest did nothing when we last looked */

struct impact {
    struct source *source;
    struct pace *pace;
    bool backoff;
    bool ready; /* there is something to compare with */
    size_t n;   /* streams: GUEST_OPS for each disk of the machine */
    struct guest_io *io;
    struct latency *then, *seen; /* per stream: last look, and since */
    struct latency *first;       /* when we began to measure */
    struct backoff_stream *streams;
    struct backoff rule;
    struct latency before, during; /* writes of all disks */
    uint64_t looked_ms, next_ms, bytes;
    uint64_t scratch_peak;
};

static int
alloc(struct impact *im)
{
    size_t disks = source_n_disks(im->source);

    im->n = disks * GUEST_OPS;
    im->io = calloc(disks + 1, sizeof *im->io);
    im->then = calloc(im->n + 1, sizeof *im->then);
    im->seen = calloc(im->n + 1, sizeof *im->seen);
    im->first = calloc(im->n + 1, sizeof *im->first);
    im->streams = calloc(im->n + 1, sizeof *im->streams);
    return im->io && im->then && im->seen && im->first && im->streams ? 0 : -1;
}

/* What came since the last look that was kept, in im->seen. */
static int
look(struct impact *im, bool keep)
{
    if (source_impact_look(im->source, im->io) < 0)
        return -1;
    for (size_t i = 0; i < im->n; i++) {
        const struct latency *now = &im->io[i / GUEST_OPS].op[i % GUEST_OPS];

        im->seen[i] = latency_since(now, &im->then[i]);
        if (keep)
            im->then[i] = *now;
    }
    return 0;
}

int
impact_new(struct source *s, uint64_t limit_rate, bool backoff,
           struct impact **ret, struct err *err)
{
    struct impact *im = calloc(1, sizeof *im);

    if (im == NULL)
        return err_set_errno(err, ENOMEM, "impact on the guest");
    im->source = s;
    im->backoff = backoff;
    if (alloc(im) < 0 || pace_new(limit_rate, &im->pace, err) < 0) {
        impact_free(im);
        return err_set_errno(err, ENOMEM, "impact on the guest");
    }
    if (backoff) {
        source_impact_begin(s);
        im->backoff = look(im, true) == 0;
        im->looked_ms = clock_ms();
        for (size_t i = 0; i < im->n; i++)
            im->first[i] = im->then[i];
    }
    *ret = im;
    return 0;
}

void
impact_free(struct impact *im)
{
    if (im == NULL)
        return;
    pace_free(im->pace);
    free(im->io);
    free(im->then);
    free(im->seen);
    free(im->first);
    free(im->streams);
    free(im);
}

static void
sum_writes(const struct impact *im, struct latency *sum)
{
    for (size_t i = GUEST_WRITE; i < im->n; i += GUEST_OPS)
        if (im->seen[i].n > 0)
            latency_add(sum, &im->seen[i]);
}

static uint64_t
requests(const struct impact *im)
{
    uint64_t n = 0;

    for (size_t i = 0; i < im->n; i++)
        n += im->seen[i].n;
    return n;
}

/* Has it had any since the machine was started? */
static bool
ever(const struct impact *im)
{
    uint64_t n = 0;

    for (size_t i = 0; i < im->n; i++)
        n += im->first[i].n;
    return n > 0;
}

/* A guest without requests does not make anybody wait, and neither does a run
 * that took long enough to get here. */
static int
look_before(struct impact *im, const struct job_hooks *hooks)
{
    const struct timespec nap = {.tv_nsec = 20 * 1000000};
    const uint64_t until = im->looked_ms + IMPACT_BEFORE_MS;
    const uint64_t idle = im->looked_ms + (ever(im) ? IDLE_MS : 0);

    while (look(im, false) == 0) {
        uint64_t n = requests(im);

        if ((n == 0 && clock_ms() >= idle) || n >= BEFORE_ENOUGH ||
            clock_ms() >= until || hooks_canceled(hooks))
            return look(im, true);
        (void)nanosleep(&nap, NULL);
    }
    return -1;
}

void
impact_before(struct impact *im, const struct job_hooks *hooks)
{
    if (!im->backoff || look_before(im, hooks) < 0)
        return;
    sum_writes(im, &im->before);
    backoff_begin(&im->rule, im->streams, im->n, im->seen, im->first);
    pace_set(im->pace, im->rule.rate);
    im->ready = true;
    im->bytes = pace_bytes(im->pace);
    im->looked_ms = clock_ms();
    im->next_ms = im->looked_ms + BACKOFF_LOOK_MS;
    log_debug("guest: %" PRIu64 " writes before, mean %" PRIu64
              " us, 99 %% below %" PRIu64 " us",
              im->before.n, latency_mean_us(&im->before),
              latency_quantile_us(&im->before, 990));
}

static void
follow(struct impact *im, uint64_t now_ms)
{
    uint64_t bytes = pace_bytes(im->pace), old = im->rule.rate;
    uint64_t ms = now_ms > im->looked_ms ? now_ms - im->looked_ms : 1;

    sum_writes(im, &im->during);
    backoff_look(&im->rule, im->seen, (bytes - im->bytes) * 1000 / ms);
    pace_set(im->pace, im->rule.rate);
    if (im->rule.rate < old)
        log_debug("the guest has become slow: reading %" PRIu64
                  " KiB a second at most",
                  im->rule.rate >> 10);
    im->bytes = bytes;
    im->looked_ms = now_ms;
    im->next_ms = now_ms + (requests(im) > 0 || im->rule.rate != BACKOFF_FREE
                                ? BACKOFF_LOOK_MS
                                : IDLE_LOOK_MS);
}

uint64_t
impact_watch(struct impact *im)
{
    uint64_t now = clock_ms(), scratch = source_scratch_bytes(im->source);

    if (scratch > im->scratch_peak)
        im->scratch_peak = scratch;
    if (!im->ready || now < im->next_ms)
        return scratch;
    if (look(im, true) == 0)
        follow(im, now);
    else
        im->next_ms = now + IDLE_LOOK_MS;
    return scratch;
}

struct pace *
impact_pace(struct impact *im)
{
    return im->pace;
}

static int
set_pair(struct jv *o, const char *key, uint64_t before, uint64_t during)
{
    CLEANUP_JV struct jv *pair = jv_object();

    if (before == 0 && during == 0)
        return 0;
    if ((before > 0 && jv_set_int(pair, "before", (int64_t)before) < 0) ||
        (during > 0 && jv_set_int(pair, "during", (int64_t)during) < 0))
        return -1;
    return jv_set(o, key, TAKE_PTR(pair));
}

int
impact_report(struct impact *im, struct jv *committed)
{
    if (jv_set_int(committed, "backoff_ms",
                   (int64_t)pace_backoff_ms(im->pace)) < 0 ||
        jv_set_int(committed, "scratch_peak_bytes", (int64_t)im->scratch_peak) <
            0)
        return -1;
    if (set_pair(committed, "guest_write_p99_us",
                 latency_quantile_us(&im->before, 990),
                 latency_quantile_us(&im->during, 990)) < 0)
        return -1;
    return set_pair(committed, "guest_write_mean_us",
                    latency_mean_us(&im->before), latency_mean_us(&im->during));
}
