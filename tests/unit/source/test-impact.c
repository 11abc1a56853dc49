/* What QEMU says of a guest's requests, and where scratch files go. */
#include <string.h>

#include "tap.h"

#include "cleanup.h"
#include "err.h"
#include "jv.h"
#include "latency.h"
#include "scratch.h"

#define GIB ((uint64_t)1 << 30)

static struct jv *
json(const char *text)
{
    struct err err = ERR_INIT;
    struct jv *j = NULL;

    CHECK_OK(jv_parse(text, strlen(text), 8, &j, &err), &err);
    return j;
}

static struct guest_io
parsed(const char *text)
{
    CLEANUP_JV struct jv *j = json(text);
    struct guest_io io;

    latency_parse(j, &io);
    return io;
}

static struct jv *
device_with(struct jv *boundaries)
{
    return jv_build("{s:{s:{s:o, s:[i]}}}", "stats", "wr_latency_histogram",
                    "boundaries", boundaries, "bins", 1);
}

/* -- counters ---------------------------------------------------------------*/

static void
test_bounds_rise_from_50_us_to_13_s(void)
{
    CHECK(latency_bound_us(0) == 50);
    for (size_t i = 1; i < LATENCY_BINS; i++)
        CHECK(latency_bound_us(i) > latency_bound_us(i - 1));
    CHECK(latency_bound_us(LATENCY_BINS - 2) > 13000000);
}

static void
test_counts_and_times_are_there_without_a_histogram(void)
{
    struct guest_io io = parsed("{\"stats\":{\"wr_operations\":4,"
                                "\"wr_total_time_ns\":8000000,"
                                "\"flush_operations\":1}}");

    CHECK(io.op[GUEST_WRITE].n == 4 && !io.op[GUEST_WRITE].has_bins);
    CHECK(latency_mean_us(&io.op[GUEST_WRITE]) == 2000);
    CHECK(latency_slower(&io.op[GUEST_WRITE], 1000) == 4);
    CHECK(latency_slower(&io.op[GUEST_WRITE], 3000) == 0);
    CHECK(latency_quantile_us(&io.op[GUEST_WRITE], 990) == 0);
    CHECK(io.op[GUEST_FLUSH].n == 1 && io.op[GUEST_READ].n == 0);
}

static void
test_a_foreign_histogram_is_used_at_its_slow_ends(void)
{
    struct guest_io io =
        parsed("{\"stats\":{\"wr_operations\":100,\"wr_latency_histogram\":"
               "{\"boundaries\":[1000000,10000000],\"bins\":[90,8,2]}}}");
    const struct latency *w = &io.op[GUEST_WRITE];

    CHECK(w->has_bins);
    CHECK(latency_slower(w, 700) == 100 && latency_slower(w, 1200) == 10);
    CHECK(latency_slower(w, 10000) == 2);
    CHECK(latency_quantile_us(w, 900) == 1200);
    CHECK(latency_quantile_us(w, 990) > 10000);
}

static void
test_bins_that_do_not_fit_their_boundaries_are_no_histogram(void)
{
    static const char *const bad[] = {
        "{\"boundaries\":[1],\"bins\":[1,2,3]}",
        "{\"boundaries\":[],\"bins\":[5]}",
        "{\"boundaries\":7,\"bins\":{}}",
        "{}",
        "null",
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        char text[128];
        struct guest_io io;

        (void)snprintf(text, sizeof text,
                       "{\"stats\":{\"wr_latency_histogram\":%s}}", bad[i]);
        io = parsed(text);
        CHECK(!io.op[GUEST_WRITE].has_bins);
    }
}

static void
test_a_counter_that_went_back_counts_from_zero(void)
{
    struct latency then = {.n = 100, .total_us = 5000, .has_bins = true};
    struct latency now = {.n = 3, .total_us = 60, .has_bins = true}, d;

    then.bins[4] = 100;
    now.bins[4] = 3;
    d = latency_since(&now, &then);
    CHECK(d.n == 3 && d.total_us == 60 && d.bins[4] == 3);
    now.n = 110;
    now.bins[4] = 110;
    d = latency_since(&now, &then);
    CHECK(d.n == 10 && d.bins[4] == 10);
}

/* -- whose histogram --------------------------------------------------------*/

static void
test_ours_is_known_by_every_one_of_its_boundaries(void)
{
    CLEANUP_JV struct jv *ours = device_with(latency_boundaries());
    CLEANUP_JV struct jv *none = json("{\"stats\":{}}");
    CLEANUP_JV struct jv *longer = NULL;
    CLEANUP_JV struct jv *other = NULL;
    struct jv *b = latency_boundaries();

    CHECK(latency_owner(ours) == HISTOGRAM_OURS);
    CHECK(latency_owner(none) == HISTOGRAM_NONE);
    CHECK(jv_add(b, jv_int(INT64_MAX)) == 0);
    longer = device_with(b);
    CHECK(latency_owner(longer) == HISTOGRAM_FOREIGN);
    other = device_with(json("[1000,2000]"));
    CHECK(latency_owner(other) == HISTOGRAM_FOREIGN);
}

static void
test_one_foreign_histogram_makes_the_device_foreign(void)
{
    CLEANUP_JV struct jv *both = device_with(latency_boundaries());
    CLEANUP_JV struct jv *stats = jv_ref(jv_get(both, "stats"));

    CHECK(jv_set(stats, "rd_latency_histogram",
                 json("{\"boundaries\":[1],\"bins\":[0,0]}")) == 0);
    CHECK(latency_owner(both) == HISTOGRAM_FOREIGN);
}

/* -- scratch ----------------------------------------------------------------*/

static void
test_the_first_place_with_room_is_chosen(void)
{
    static const struct {
        const char *why;
        struct scratch_place v[3];
        uint64_t room;
        size_t want;
    } table[] = {
        {"the system's place has room",
         {{"a", 5 * GIB, 1, 0}, {"b", 90 * GIB, 1, 0}},
         GIB,
         0},
        {"only the second has",
         {{"a", GIB / 2, 1, 0}, {"b", 90 * GIB, 1, 0}, {"c", 99 * GIB, 1, 0}},
         GIB,
         1},
        {"none has: the one with most",
         {{"a", 1, 1, 0}, {"b", 3, 1, 0}, {"c", 2, 1, 0}},
         GIB,
         1},
        {"memory is left alone",
         {{"a", 90 * GIB, 1, 1}, {"b", 5 * GIB, 1, 0}},
         GIB,
         1},
        {"even when the other is too small",
         {{"a", 90 * GIB, 1, 1}, {"b", 5, 1, 0}},
         GIB,
         1},
        {"memory when there is nothing else",
         {{"a", 90 * GIB, 1, 1}, {"b", 5 * GIB, 0, 0}},
         GIB,
         0},
        {"what cannot be written is no place",
         {{"a", 90 * GIB, 0, 0}, {"b", 5, 1, 0}},
         GIB,
         1},
        {"nothing at all", {{"a", 90 * GIB, 0, 0}}, GIB, 3},
    };

    for (size_t i = 0; i < ARRAY_SIZE(table); i++)
        if (scratch_choose(table[i].v, 3, table[i].room) != table[i].want)
            CHECK_STR("another place", table[i].why);
}

static void
test_room_is_a_tenth_of_the_disks_and_no_less_than_a_gib(void)
{
    CHECK(scratch_room(0) == GIB && scratch_room(10 * GIB) == GIB);
    CHECK(scratch_room(200 * GIB) == 20 * GIB);
}

static void
test_more_is_left_where_images_lie(void)
{
    CHECK(scratch_reserve(8 << 20, false) == 1 << 20);
    CHECK(scratch_reserve(100 * GIB, false) == 64 << 20);
    CHECK(scratch_reserve(4 * GIB, true) == GIB);
    CHECK(scratch_reserve(1000 * GIB, true) == 16 * GIB);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_bounds_rise_from_50_us_to_13_s),
        TEST(test_counts_and_times_are_there_without_a_histogram),
        TEST(test_a_foreign_histogram_is_used_at_its_slow_ends),
        TEST(test_bins_that_do_not_fit_their_boundaries_are_no_histogram),
        TEST(test_a_counter_that_went_back_counts_from_zero),
        TEST(test_ours_is_known_by_every_one_of_its_boundaries),
        TEST(test_one_foreign_histogram_makes_the_device_foreign),
        TEST(test_the_first_place_with_room_is_chosen),
        TEST(test_room_is_a_tenth_of_the_disks_and_no_less_than_a_gib),
        TEST(test_more_is_left_where_images_lie),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
