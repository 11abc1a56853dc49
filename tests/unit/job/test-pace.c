/* How fast a disk is read: the rule of backing off, and the gate. */
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "tap.h"

#include "backoff.h"
#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "pace.h"
#include "rate.h"

#define MIB ((uint64_t)1 << 20)

/* -- the limiter ------------------------------------------------------------*/

static void
test_a_rate_is_kept_over_any_number_of_turns(void)
{
    struct rate r = {0};
    uint64_t now = 1000000, at = 0;

    CHECK(rate_turn(&r, now, MIB, 4 * MIB) == now);
    for (int i = 1; i <= 8; i++)
        at = rate_turn(&r, now, MIB, 4 * MIB);
    CHECK(at == now + 2000000); /* 8 MiB came before it */
}

static void
test_what_was_not_used_is_not_saved_up(void)
{
    struct rate r = {0};

    (void)rate_turn(&r, 0, MIB, MIB);
    CHECK(rate_turn(&r, 100000000, MIB, MIB) == 100000000);
    CHECK(rate_turn(&r, 100000000, MIB, MIB) == 101000000);
}

/* -- the rule ---------------------------------------------------------------*/

/* `n` requests that took about `us` each. */
static struct latency
took(uint64_t n, uint64_t us)
{
    struct latency l = {.n = n, .total_us = n * us, .has_bins = true};
    size_t i = 0;

    while (i < LATENCY_BINS - 1 && us >= latency_bound_us(i))
        i++;
    l.bins[i] = n;
    return l;
}

static struct latency
blind(struct latency l)
{
    l.has_bins = false;
    return l;
}

static struct backoff_stream stream;

static struct backoff
beside(struct latency before)
{
    struct latency ever = {0};
    struct backoff b;

    backoff_begin(&b, &stream, 1, &before, &ever);
    return b;
}

static void
looks(struct backoff *b, int n, struct latency seen, uint64_t read_rate)
{
    while (n-- > 0)
        backoff_look(b, &seen, read_rate < b->rate ? read_rate : b->rate);
}

static void
test_a_guest_that_does_nothing_is_read_at_full_speed(void)
{
    struct latency none = {0};
    struct backoff b = beside(none);

    CHECK(b.rate == BACKOFF_FREE);
    looks(&b, 100, none, 500 * MIB);
    CHECK(b.rate == BACKOFF_FREE && b.n_back == 0);
}

static void
test_beside_a_guest_that_writes_it_begins_slowly_and_becomes_free(void)
{
    struct backoff b = beside(took(100, 1000));

    CHECK(b.rate == BACKOFF_START);
    looks(&b, 1, took(25, 1000), 500 * MIB);
    CHECK(b.rate == 2 * BACKOFF_START);
    looks(&b, 8, took(25, 1000), 500 * MIB);
    CHECK(b.rate == BACKOFF_FREE && b.n_back == 0);
}

static void
test_slow_requests_halve_what_was_really_read(void)
{
    struct backoff b = beside(took(100, 1000));

    b.rate = BACKOFF_FREE;
    looks(&b, 1, took(25, 8000), 200 * MIB);
    CHECK(b.rate == 100 * MIB && b.n_back == 1);
    looks(&b, 1, took(25, 8000), 200 * MIB);
    CHECK(b.rate == 50 * MIB && b.n_back == 2);
}

static void
test_the_rate_never_falls_below_its_minimum(void)
{
    struct backoff b = beside(took(100, 1000));

    looks(&b, 7, took(25, 800000), 200 * MIB);
    CHECK(b.rate == BACKOFF_MIN);
}

static void
test_a_single_slow_request_is_no_reason(void)
{
    struct backoff b = beside(took(100, 1000));
    struct latency seen = took(25, 1000), one = took(1, 50000);

    latency_add(&seen, &one);
    looks(&b, 1, seen, 200 * MIB);
    CHECK(b.n_back == 0);
}

static void
test_it_grows_in_steps_up_to_what_hurt(void)
{
    struct backoff b = beside(took(100, 1000));

    b.rate = BACKOFF_FREE;
    looks(&b, 1, took(25, 8000), 160 * MIB);
    looks(&b, 1, took(25, 1000), 160 * MIB);
    CHECK(b.rate == 85 * MIB);
    looks(&b, 15, took(25, 1000), 160 * MIB);
    CHECK(b.rate == 160 * MIB);
    looks(&b, 1, took(25, 1000), 160 * MIB);
    CHECK(b.rate == 170 * MIB);
}

/* A guest that is slow by itself: the backup must end all the same. */
static void
test_a_slow_guest_that_waiting_does_not_help_becomes_the_measure(void)
{
    struct backoff b = beside(took(100, 1000));
    uint64_t base = stream.base_us;

    looks(&b, 40, took(25, 30000), 200 * MIB);
    CHECK(stream.limit_us > 30000 && stream.base_us == base);
    CHECK(b.rate > BACKOFF_MIN);
    looks(&b, 100, took(25, 30000), 200 * MIB);
    CHECK(b.rate == BACKOFF_FREE);
    /* and once it is fast again, so is the measure */
    looks(&b, 1000, took(25, 1000), 200 * MIB);
    CHECK(stream.limit_us == base);
}

/* A store that answers slowly holds the reading up, not the guest. */
static void
test_slow_requests_are_not_blamed_on_reading_that_hardly_reads(void)
{
    struct backoff b = beside(took(100, 1000));

    looks(&b, 3, took(25, 8000), 100000);
    CHECK(b.n_back == 0 && b.rate == BACKOFF_START);
}

static void
test_without_histograms_the_mean_decides(void)
{
    struct backoff b = beside(blind(took(100, 1000)));

    looks(&b, 2, blind(took(25, 1800)), 200 * MIB);
    CHECK(b.n_back == 0);
    looks(&b, 1, blind(took(25, 2500)), 200 * MIB);
    CHECK(b.n_back == 1);
}

static void
test_without_a_baseline_the_machine_s_history_and_then_a_floor_decide(void)
{
    struct latency none = {0}, ever = took(100000, 4000);
    struct backoff b;

    backoff_begin(&b, &stream, 1, &none, &ever);
    CHECK(stream.base_us == 16000);
    backoff_begin(&b, &stream, 1, &none, &none);
    CHECK(stream.base_us == 20000);
    looks(&b, 1, took(25, 40000), 200 * MIB);
    CHECK(b.rate == 100 * MIB);
}

/* -- the gate ---------------------------------------------------------------*/

static void
test_without_limits_nobody_waits(void)
{
    struct err err = ERR_INIT;
    struct pace *p;

    CHECK_OK(pace_new(0, &p, &err), &err);
    for (int i = 0; i < 1000; i++)
        CHECK(pace_turn(p, 32 * MIB) == 0);
    CHECK(pace_bytes(p) == 32000 * MIB && pace_backoff_ms(p) == 0);
    pace_free(p);
}

static void
test_the_lower_of_both_limits_counts(void)
{
    struct err err = ERR_INIT;
    struct pace *p;
    uint64_t now;

    CHECK_OK(pace_new(MIB, &p, &err), &err);
    CHECK(pace_turn(p, 1000 * MIB) == 0);
    pace_set(p, 2 * MIB);
    now = clock_us();
    CHECK(pace_turn(p, 1) > now + 900 * 1000000ull);
    pace_free(p);
    CHECK_OK(pace_new(2 * MIB, &p, &err), &err);
    pace_set(p, MIB);
    CHECK(pace_turn(p, 1000 * MIB) == 0);
    CHECK(pace_turn(p, 1) > now + 900 * 1000000ull);
    pace_set(p, BACKOFF_FREE);
    CHECK(pace_turn(p, 1) > now + 900 * 1000000ull);
    pace_free(p);
}

static void
test_a_wait_for_the_owner_s_limit_is_not_the_guest_s_fault(void)
{
    struct err err = ERR_INIT;
    atomic_bool stop = false;
    struct pace *p;

    CHECK_OK(pace_new(MIB, &p, &err), &err);
    CHECK(pace_wait(p, clock_us() + 2000, &stop));
    CHECK(pace_backoff_ms(p) == 0);
    pace_set(p, 1000);
    CHECK(pace_wait(p, clock_us() + 2000, &stop));
    CHECK(pace_backoff_ms(p) >= 1);
    pace_free(p);
}

struct waiter {
    struct pace *p;
    atomic_bool stop;
    atomic_bool waits;
    bool went_on;
};

static void *
wait_long(void *arg)
{
    struct waiter *w = arg;

    atomic_store(&w->waits, true);
    w->went_on = pace_wait(w->p, clock_us() + 3600 * 1000000ull, &w->stop);
    return NULL;
}

static void
test_a_wait_ends_when_it_is_stopped(void)
{
    struct waiter w = {.went_on = true};
    struct err err = ERR_INIT;
    pthread_t t;

    CHECK_OK(pace_new(MIB, &w.p, &err), &err);
    CHECK(pthread_create(&t, NULL, wait_long, &w) == 0);
    while (!atomic_load(&w.waits))
        (void)sched_yield();
    atomic_store(&w.stop, true);
    pace_wake(w.p);
    (void)pthread_join(t, NULL);
    CHECK(!w.went_on);
    pace_free(w.p);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_a_rate_is_kept_over_any_number_of_turns),
        TEST(test_what_was_not_used_is_not_saved_up),
        TEST(test_a_guest_that_does_nothing_is_read_at_full_speed),
        TEST(test_beside_a_guest_that_writes_it_begins_slowly_and_becomes_free),
        TEST(test_slow_requests_halve_what_was_really_read),
        TEST(test_the_rate_never_falls_below_its_minimum),
        TEST(test_a_single_slow_request_is_no_reason),
        TEST(test_it_grows_in_steps_up_to_what_hurt),
        TEST(test_a_slow_guest_that_waiting_does_not_help_becomes_the_measure),
        TEST(test_slow_requests_are_not_blamed_on_reading_that_hardly_reads),
        TEST(test_without_histograms_the_mean_decides),
        TEST(
            test_without_a_baseline_the_machine_s_history_and_then_a_floor_decide),
        TEST(test_without_limits_nobody_waits),
        TEST(test_the_lower_of_both_limits_counts),
        TEST(test_a_wait_for_the_owner_s_limit_is_not_the_guest_s_fault),
        TEST(test_a_wait_ends_when_it_is_stopped),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
