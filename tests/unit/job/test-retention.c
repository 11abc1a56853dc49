/* Retention: which points stay, against a table of cases worked out by hand and
 * against the rules as one would read them out. */
#include "retention.h"

#include <time.h>

#include "cleanup.h"
#include "err.h"
#include "repo.h"
#include "tap.h"

#define S INT64_C(1000000000)
#define HOUR (3600 * S)
#define DAY (24 * HOUR)
#define N_MAX 400

static struct point store[N_MAX];
static struct point *points[N_MAX];
static unsigned got[N_MAX];
static char machine[] = "web1";
static char *tag_a[] = {(char[]){"a"}},
            *tag_ab[] = {(char[]){"a"}, (char[]){"b"}};

/* "2026-11-20 17:30" */
static int64_t
at(const char *text)
{
    struct tm tm = {0};

    if (strptime(text, "%Y-%m-%d %H:%M", &tm) == NULL)
        abort();
    return (int64_t)timegm(&tm) * S;
}

static void
set(size_t i, int64_t time_ns)
{
    store[i] = (struct point){.machine = machine, .seq = i + 1};
    store[i].time_ns = time_ns;
    (void)snprintf(store[i].id, sizeof store[i].id, "%032zx", i + 1);
    points[i] = &store[i];
}

static size_t
set_all(const char *const *texts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        set(i, at(texts[i]));
    return n;
}

static void
decide(const struct retention *r, size_t n, const bool *bad)
{
    struct err err = ERR_INIT;
    int64_t now = n > 0 ? points[n - 1]->time_ns : 0;

    memset(got, 0xff, sizeof got);
    CHECK_OK(retention_decide(r, points, n, bad, now, got, &err), &err);
}

/* Which of the points stay, as "..x.x". */
static const char *
stay(size_t n)
{
    static char text[N_MAX + 1];

    for (size_t i = 0; i < n; i++)
        text[i] = got[i] != 0 ? 'x' : '.';
    text[n] = '\0';
    return text;
}

static const char *
why(const struct retention *r, size_t i)
{
    static char text[512];
    char one[RETENTION_TEXT_MAX];

    text[0] = '\0';
    for (int k = 0; k < RETAIN_N; k++) {
        size_t used = strlen(text);

        if ((got[i] & RETAIN_BIT(k)) == 0)
            continue;
        (void)snprintf(
            text + used, sizeof text - used, "%s%s", used > 0 ? ", " : "",
            retention_text(r, (enum retention_rule)k, points[i], one));
    }
    return text;
}

/* -- worked out by hand -----------------------------------------------------*/

static const char *const days[] = {"2026-11-18 06:00", "2026-11-18 18:00",
                                   "2026-11-19 18:00", "2026-11-20 06:00",
                                   "2026-11-20 17:05", "2026-11-20 17:55"};

static void
test_newest_of_each_period_stays(void)
{
    size_t n = set_all(days, ARRAY_SIZE(days));

    decide(&(struct retention){.last = 2}, n, NULL);
    CHECK_STR(stay(n), "....xx");
    decide(&(struct retention){.hourly = 2}, n, NULL);
    CHECK_STR(stay(n), "...x.x");
    decide(&(struct retention){.daily = 2}, n, NULL);
    CHECK_STR(stay(n), "..x..x");
    decide(&(struct retention){.daily = 9}, n, NULL);
    CHECK_STR(stay(n), ".xx..x");
    decide(&(struct retention){.hourly = RETENTION_ALL}, n, NULL);
    CHECK_STR(stay(n), "xxxx.x");
    decide(&(struct retention){.last = RETENTION_ALL}, n, NULL);
    CHECK_STR(stay(n), "xxxxxx");
}

/* A period without points does not use up the number. */
static void
test_only_periods_with_points_count(void)
{
    static const char *const rare[] = {"2020-02-29 12:00", "2023-01-01 00:00",
                                       "2026-01-01 00:00"};
    size_t n = set_all(rare, ARRAY_SIZE(rare));

    decide(&(struct retention){.daily = 2}, n, NULL);
    CHECK_STR(stay(n), ".xx");
    decide(&(struct retention){.yearly = 3}, n, NULL);
    CHECK_STR(stay(n), "xxx");
}

/* ISO weeks: the week of a Thursday belongs to its year. */
static void
test_weeks_are_iso_weeks(void)
{
    static const char *const turn[] = {
        "2020-12-27 23:59", /* Sunday, 2020-W52 */
        "2020-12-28 00:00", /* Monday, 2020-W53 */
        "2021-01-03 23:59", /* Sunday, 2020-W53 */
        "2021-01-04 00:00", /* Monday, 2021-W01 */
    };
    struct retention r = {.weekly = 3};
    size_t n = set_all(turn, ARRAY_SIZE(turn));

    decide(&r, n, NULL);
    CHECK_STR(stay(n), "x.xx");
    CHECK_STR(why(&r, 0), "weekly 2020-W52");
    CHECK_STR(why(&r, 2), "weekly 2020-W53");
    CHECK_STR(why(&r, 3), "weekly 2021-W01");
}

static void
test_every_rule_is_named(void)
{
    const char *tags[] = {"b", "a", NULL};
    struct retention r = {.last = 1,
                          .hourly = 1,
                          .daily = 2,
                          .weekly = 1,
                          .monthly = 1,
                          .yearly = 1,
                          .within = "30h",
                          .tags = tags};
    size_t n = set_all(days, ARRAY_SIZE(days));

    store[0].tags = tag_a;
    store[0].n_tags = 1;
    store[1].tags = tag_ab;
    store[1].n_tags = 2;
    decide(&r, n, NULL);
    CHECK_STR(why(&r, 5),
              "last, hourly 2026-11-20 17, daily 2026-11-20, weekly 2026-W47, "
              "monthly 2026-11, yearly 2026, within 30h");
    CHECK_STR(why(&r, 2), "daily 2026-11-19, within 30h");
    CHECK_STR(why(&r, 3), "within 30h");
    CHECK_STR(why(&r, 1), "tag b");
    CHECK_STR(why(&r, 0), "tag a");
}

/* Back from the newest point, by the calendar. */
static void
test_within(void)
{
    static const char *const t[] = {"2026-01-31 12:00", "2026-02-28 11:59",
                                    "2026-02-28 12:00", "2026-02-28 12:01",
                                    "2026-03-27 12:00", "2026-03-28 12:00"};
    size_t n = set_all(t, ARRAY_SIZE(t));

    decide(&(struct retention){.within = "1m"}, n, NULL);
    CHECK_STR(stay(n), "...xxx");
    decide(&(struct retention){.within = "4w1h"}, n, NULL);
    CHECK_STR(stay(n), ".xxxxx");
    decide(&(struct retention){.within = "4w"}, n, NULL);
    CHECK_STR(stay(n), "...xxx");
    decide(&(struct retention){.within = "23h"}, n, NULL);
    CHECK_STR(stay(n), ".....x");
    decide(&(struct retention){.within = "1y2m3d4h"}, n, NULL);
    CHECK_STR(stay(n), "xxxxxx");
    decide(&(struct retention){.within = "99999y"}, n, NULL);
    CHECK_STR(stay(n), "xxxxxx");
}

/* Which points stay does not depend on when that is asked. */
static void
test_now_does_not_matter(void)
{
    struct retention r = {.daily = 2, .within = "1d", .monthly = 1};
    size_t n = set_all(days, ARRAY_SIZE(days));
    unsigned first[N_MAX];

    decide(&r, n, NULL);
    memcpy(first, got, sizeof first);
    for (int64_t later = 0; later < 3000; later += 97) {
        CHECK(retention_decide(&r, points, n, NULL,
                               points[n - 1]->time_ns + later * DAY, got,
                               ERR_ABORT) == 0);
        CHECK(memcmp(first, got, n * sizeof *got) == 0);
    }
}

/* -- what is never removed --------------------------------------------------*/

static void
test_last_good_point_stays(void)
{
    static const bool bad[] = {false, false, false, false, true, true};
    static const bool all_bad[] = {true, true, true, true, true, true};
    const char *tags[] = {"none", NULL};
    struct retention r = {.tags = tags};
    size_t n = set_all(days, ARRAY_SIZE(days));

    decide(&r, n, NULL);
    CHECK_STR(stay(n), ".....x");
    CHECK_STR(why(&r, 5), "last good point");
    decide(&r, n, bad);
    CHECK_STR(stay(n), "...x..");
    decide(&r, n, all_bad);
    CHECK_STR(stay(n), ".....x");
    r.remove_last = true;
    decide(&r, n, bad);
    CHECK_STR(stay(n), "......");
    /* A rule that keeps it is what is named; others do not count it. */
    r = (struct retention){.last = 1};
    decide(&r, n, bad);
    CHECK_STR(stay(n), "...x.x");
    r.last = 3;
    decide(&r, n, bad);
    CHECK_STR(why(&r, 3), "last");
}

static void
refused(const struct retention *r, size_t n, int64_t now, enum err_code code,
        const char *word)
{
    struct err err = ERR_INIT;

    CHECK(retention_decide(r, points, n, NULL, now, got, &err) < 0);
    CHECK(err.code == code);
    if (strstr(err.msg, word) == NULL)
        CHECK_STR(err.msg, word);
}

static void
test_no_rule_is_an_error(void)
{
    static const char *const none[] = {NULL}, *const odd[] = {"a b", NULL};
    static const char *const spans[] = {"",    "7",       "d",     "-7d",
                                        "7d ", "7x",      "1d2",   "1.5d",
                                        " 7d", "100001d", "99999w"};
    size_t n = set_all(days, ARRAY_SIZE(days));

    refused(&(struct retention){.last = 0}, n, points[n - 1]->time_ns,
            ERR_USAGE, "--keep-last");
    refused(&(struct retention){.tags = none, .remove_last = true}, n,
            points[n - 1]->time_ns, ERR_USAGE, "--keep-last");
    refused(&(struct retention){.tags = odd}, n, points[n - 1]->time_ns,
            ERR_USAGE, "a b");
    for (size_t i = 0; i < ARRAY_SIZE(spans); i++)
        refused(&(struct retention){.within = spans[i]}, n,
                points[n - 1]->time_ns, ERR_USAGE, "no length of time");
}

/* -- clocks -----------------------------------------------------------------*/

static void
test_future_is_refused(void)
{
    struct retention r = {.last = 1};
    size_t n = set_all(days, ARRAY_SIZE(days));
    int64_t newest = points[n - 1]->time_ns;

    CHECK(retention_clock(points, n, newest - DAY, ERR_ABORT) == 0);
    refused(&r, n, newest - DAY - 1, ERR_FORMAT, "web1@00000000");
    refused(&r, n, newest - DAY - 1, ERR_FORMAT, "--ignore-clock");
    r.ignore_clock = true;
    CHECK(retention_decide(&r, points, n, NULL, 0, got, ERR_ABORT) == 0);
    CHECK_STR(stay(n), ".....x");
}

static void
test_clock_that_went_back_is_refused(void)
{
    struct retention r = {.daily = 1};
    size_t n = set_all(days, ARRAY_SIZE(days));
    int64_t now = points[n - 1]->time_ns + DAY;

    set(5, store[4].time_ns - HOUR);
    CHECK(retention_clock(points, n, now, ERR_ABORT) == 0);
    set(5, store[4].time_ns - HOUR - 1);
    refused(&r, n, now, ERR_FORMAT, "was committed after");
    /* Back by little, twice: against the latest time, not the one before. */
    set(4, store[3].time_ns - HOUR / 2 - 1);
    set(5, store[4].time_ns - HOUR / 2);
    refused(&r, n, now, ERR_FORMAT, "was committed after");
    /* The time of the wrong clock puts its point last of its day, and still
     * what was committed last is the newest. */
    set_all(days, ARRAY_SIZE(days));
    set(5, at("2026-11-20 05:00"));
    r.ignore_clock = true;
    CHECK(retention_decide(&r, points, n, NULL, now, got, ERR_ABORT) == 0);
    CHECK_STR(stay(n), ".....x");
    r.last = 1;
    CHECK(retention_decide(&r, points, n, NULL, now, got, ERR_ABORT) == 0);
    CHECK_STR(stay(n), ".....x");
}

static void
test_extreme_times_do_no_harm(void)
{
    struct retention r = {.daily = 1,
                          .weekly = 1,
                          .monthly = 1,
                          .yearly = 1,
                          .hourly = 1,
                          .within = "1y",
                          .ignore_clock = true};

    set(0, INT64_MIN);
    set(1, INT64_MAX);
    set(2, -1);
    set(3, INT64_MIN);
    CHECK(retention_decide(&r, points, 4, NULL, INT64_MIN, got, ERR_ABORT) ==
          0);
    CHECK(got[1] != 0 && got[2] != 0);
    r.ignore_clock = false;
    CHECK(retention_decide(&r, points, 4, NULL, INT64_MAX, got, NULL) < 0);
    CHECK(retention_decide(&r, points, 0, NULL, 0, got, ERR_ABORT) == 0);
}

/* -- as one would read it out -----------------------------------------------*/

#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* of strftime */

/* From the newest to the oldest; whenever the name of the period is another than
 * before, and the number is not used up, the point stays. */
static void
read_out(const char *format, unsigned number, size_t n, unsigned bit,
         unsigned *want)
{
    char before[64] = "", name[64];

    for (size_t i = n; i-- > 0;) {
        time_t t = (time_t)(points[i]->time_ns / S);
        struct tm tm;

        (void)gmtime_r(&t, &tm);
        (void)strftime(name, sizeof name, format, &tm);
        if (strcmp(name, before) == 0 || number == 0)
            continue;
        (void)strcpy(before, name);
        number--;
        want[i] |= bit;
    }
}

static uint64_t seed = 1;

static unsigned
pick(unsigned n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(seed >> 33) % n;
}

static void
test_random_histories(void)
{
    static const int64_t steps[] = {HOUR / 7, HOUR,    5 * HOUR,
                                    DAY,      9 * DAY, 40 * DAY};

    for (int turn = 0; turn < 300; turn++) {
        struct retention r = {.last = pick(4),
                              .hourly = pick(30),
                              .daily = pick(20),
                              .weekly = pick(10),
                              .monthly = pick(20),
                              .yearly = 1 + pick(4)};
        size_t n = 1 + pick(N_MAX);
        int64_t t = at("1999-12-20 00:00") + pick(1 << 30) * S;
        unsigned want[N_MAX] = {0};

        for (size_t i = 0; i < n; i++) {
            t += (int64_t)pick(1000) * steps[pick(6)] / 500;
            set(i, t);
        }
        for (size_t i = 0; i < r.last && i < n; i++)
            want[n - 1 - i] |= RETAIN_BIT(RETAIN_LAST);
        read_out("%Y%m%d%H", r.hourly, n, RETAIN_BIT(RETAIN_HOURLY), want);
        read_out("%Y%m%d", r.daily, n, RETAIN_BIT(RETAIN_DAILY), want);
        read_out("%G-%V", r.weekly, n, RETAIN_BIT(RETAIN_WEEKLY), want);
        read_out("%Y%m", r.monthly, n, RETAIN_BIT(RETAIN_MONTHLY), want);
        read_out("%Y", r.yearly, n, RETAIN_BIT(RETAIN_YEARLY), want);
        CHECK(retention_decide(&r, points, n, NULL, t, got, ERR_ABORT) == 0);
        CHECK(memcmp(got, want, n * sizeof *got) == 0);
    }
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_newest_of_each_period_stays),
        TEST(test_only_periods_with_points_count),
        TEST(test_weeks_are_iso_weeks),
        TEST(test_every_rule_is_named),
        TEST(test_within),
        TEST(test_now_does_not_matter),
        TEST(test_last_good_point_stays),
        TEST(test_no_rule_is_an_error),
        TEST(test_future_is_refused),
        TEST(test_clock_that_went_back_is_refused),
        TEST(test_extreme_times_do_no_harm),
        TEST(test_random_histories),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
