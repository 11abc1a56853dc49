#include "retention.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "repo.h"

#define SECOND_NS 1000000000ll
#define HOUR_NS (3600 * SECOND_NS)
#define DAY_NS (24 * HOUR_NS)
#define SPAN_MAX 100000u /* of each unit */

/* A length of time by the calendar: a month is not 30 days. */
struct span {
    unsigned years, months, days, hours;
};

/* -- the calendar -----------------------------------------------------------*/

/* Also right before 1970, where '/' rounds the wrong way. */
static int64_t
floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

static struct tm
calendar(int64_t time_ns)
{
    time_t t = (time_t)floor_div(time_ns, SECOND_NS);
    struct tm tm = {0};

    (void)gmtime_r(&t, &tm);
    return tm;
}

/* A number that is equal for all times of one period and grows with time. */
static int64_t
period_of(enum retention_rule rule, int64_t time_ns)
{
    struct tm tm = calendar(time_ns);

    if (rule == RETAIN_HOURLY)
        return floor_div(time_ns, HOUR_NS);
    if (rule == RETAIN_DAILY)
        return floor_div(time_ns, DAY_NS);
    if (rule == RETAIN_WEEKLY) /* from Monday; 1970 began with a Thursday */
        return floor_div(floor_div(time_ns, DAY_NS) + 3, 7);
    if (rule == RETAIN_MONTHLY)
        return (int64_t)tm.tm_year * 12 + tm.tm_mon;
    return tm.tm_year;
}

/* "2y6m14d12h", each part once and in any order; 'w' is seven days. */
static int
span_parse(const char *text, struct span *ret)
{
    struct span s = {0};
    const char *p = text;

    while (*p != '\0') {
        char *end;
        unsigned long v = 0;
        unsigned *field;

        if (*p < '0' || *p > '9')
            return -1;
        v = strtoul(p, &end, 10);
        field = *end == 'y'   ? &s.years
                : *end == 'm' ? &s.months
                : *end == 'd' ? &s.days
                : *end == 'w' ? &s.days
                : *end == 'h' ? &s.hours
                              : NULL;
        if (field == NULL || v > SPAN_MAX)
            return -1;
        *field += (unsigned)v * (*end == 'w' ? 7 : 1);
        if (*field > SPAN_MAX)
            return -1;
        p = end + 1;
    }
    if (p == text)
        return -1;
    *ret = s;
    return 0;
}

/* The instant that lies a span before `time_ns`. */
static int64_t
span_before(int64_t time_ns, const struct span *s)
{
    struct tm tm = calendar(time_ns);
    int64_t second = floor_div(time_ns, SECOND_NS);
    time_t t;

    tm.tm_year -= (int)s->years;
    tm.tm_mon -= (int)s->months;
    tm.tm_mday -= (int)s->days;
    t = timegm(&tm);
    t -= (time_t)s->hours * 3600;
    if (t < INT64_MIN / SECOND_NS + 1)
        return INT64_MIN;
    return (int64_t)t * SECOND_NS + (time_ns - second * SECOND_NS);
}

/* -- what is asked for ------------------------------------------------------*/

static const struct period_rule {
    enum retention_rule rule;
    size_t offset; /* of its number in struct retention */
} period_rules[] = {
    {RETAIN_HOURLY, offsetof(struct retention, hourly)},
    {RETAIN_DAILY, offsetof(struct retention, daily)},
    {RETAIN_WEEKLY, offsetof(struct retention, weekly)},
    {RETAIN_MONTHLY, offsetof(struct retention, monthly)},
    {RETAIN_YEARLY, offsetof(struct retention, yearly)},
};

static unsigned
number_of(const struct retention *r, const struct period_rule *rule)
{
    return *(const unsigned *)((const char *)r + rule->offset);
}

bool
retention_any(const struct retention *r)
{
    for (size_t i = 0; i < ARRAY_SIZE(period_rules); i++)
        if (number_of(r, &period_rules[i]) > 0)
            return true;
    return r->last > 0 || r->within != NULL ||
           (r->tags != NULL && r->tags[0] != NULL);
}

int
retention_check(const struct retention *r, struct err *err)
{
    struct span span;

    if (!retention_any(r))
        return err_set(err, ERR_USAGE,
                       "no rule says what to keep: give --keep-last, "
                       "--keep-hourly, --keep-daily, --keep-weekly, "
                       "--keep-monthly, --keep-yearly, --keep-within or "
                       "--keep-tag");
    if (r->within != NULL && span_parse(r->within, &span) < 0)
        return err_set(err, ERR_USAGE,
                       "'%.40s' is no length of time; write it as 14d, 1y6m or "
                       "2w12h",
                       r->within);
    for (size_t i = 0; r->tags != NULL && r->tags[i] != NULL; i++)
        if (!point_tag_ok(r->tags[i]))
            return err_set(err, ERR_USAGE,
                           "tag '%.40s' is no word of a-z 0-9 - _ .",
                           r->tags[i]);
    return 0;
}

/* -- clocks that cannot be right --------------------------------------------*/

static int
in_future(const struct point *p, int64_t now_ns, struct err *err)
{
    char when[CLOCK_TEXT_MAX], now[CLOCK_TEXT_MAX];

    clock_text(p->time_ns, when, sizeof when);
    clock_text(now_ns, now, sizeof now);
    return err_set(
        err, ERR_FORMAT,
        "point '%s@%.8s' of %s lies in the future (this host's clock "
        "says %s): set the clock that is wrong, remove the point by "
        "its name, or judge by these times with --ignore-clock",
        p->machine, p->id, when, now);
}

static int
out_of_order(const struct point *before, const struct point *p, struct err *err)
{
    char first[CLOCK_TEXT_MAX], then[CLOCK_TEXT_MAX];

    clock_text(before->time_ns, first, sizeof first);
    clock_text(p->time_ns, then, sizeof then);
    return err_set(err, ERR_FORMAT,
                   "point '%s@%.8s' of %s was committed after '%s@%.8s' of %s: "
                   "a clock was wrong at one of them; remove the one with the "
                   "wrong time by its name, or judge by these times with "
                   "--ignore-clock",
                   p->machine, p->id, then, before->machine, before->id, first);
}

int
retention_clock(struct point *const *points, size_t n, int64_t now_ns,
                struct err *err)
{
    const struct point *latest = NULL;

    for (size_t i = 0; i < n; i++) {
        const struct point *p = points[i];

        if (p->time_ns > now_ns && p->time_ns - DAY_NS > now_ns)
            return in_future(p, now_ns, err);
        if (latest != NULL && latest->time_ns >= INT64_MIN + HOUR_NS &&
            p->time_ns < latest->time_ns - HOUR_NS)
            return out_of_order(latest, p, err);
        if (latest == NULL || p->time_ns > latest->time_ns)
            latest = p;
    }
    return 0;
}

/* -- the verdict ------------------------------------------------------------*/

struct in_period {
    int64_t period;
    size_t i;
};

/* Newest period first, in it the point that was committed last: that is the
 * order of seq, which never goes wrong, and not that of times. */
static int
compare(const void *a, const void *b)
{
    const struct in_period *x = a, *y = b;

    if (x->period != y->period)
        return x->period < y->period ? 1 : -1;
    return (x->i < y->i) - (x->i > y->i);
}

static void
keep_periods(const struct period_rule *rule, unsigned number,
             struct point *const *points, size_t n, struct in_period *room,
             unsigned *verdicts)
{
    for (size_t i = 0; i < n; i++)
        room[i] =
            (struct in_period){period_of(rule->rule, points[i]->time_ns), i};
    qsort(room, n, sizeof *room, compare);
    for (size_t i = 0; i < n && number > 0; i++) {
        if (i > 0 && room[i].period == room[i - 1].period)
            continue;
        verdicts[room[i].i] |= RETAIN_BIT(rule->rule);
        if (number != RETENTION_ALL)
            number--;
    }
}

static const char *
kept_tag(const struct retention *r, const struct point *p)
{
    for (size_t i = 0; r->tags != NULL && r->tags[i] != NULL; i++)
        if (point_has_tag(p, r->tags[i]))
            return r->tags[i];
    return NULL;
}

static void
keep_others(const struct retention *r, struct point *const *points, size_t n,
            unsigned *verdicts)
{
    struct span span = {0};
    int64_t after = INT64_MAX;

    if (r->within != NULL && span_parse(r->within, &span) == 0)
        after = span_before(points[n - 1]->time_ns, &span);
    for (size_t i = 0; i < n; i++) {
        if (n - i <= r->last)
            verdicts[i] |= RETAIN_BIT(RETAIN_LAST);
        if (points[i]->time_ns > after)
            verdicts[i] |= RETAIN_BIT(RETAIN_WITHIN);
        if (kept_tag(r, points[i]) != NULL)
            verdicts[i] |= RETAIN_BIT(RETAIN_TAG);
    }
}

size_t
retention_last_good(size_t n, const bool *bad)
{
    for (size_t i = n; i-- > 0;)
        if (bad == NULL || !bad[i])
            return i;
    return n - 1; /* a damaged point is still more than none */
}

int
retention_decide(const struct retention *r, struct point *const *points,
                 size_t n, const bool *bad, int64_t now_ns,
                 unsigned *ret_verdicts, struct err *err)
{
    CLEANUP_FREE struct in_period *room = NULL;
    size_t last;

    if (retention_check(r, err) < 0 ||
        (!r->ignore_clock && retention_clock(points, n, now_ns, err) < 0))
        return -1;
    if (n == 0)
        return 0;
    room = calloc(n, sizeof *room);
    if (room == NULL)
        return err_set_errno(err, ENOMEM, "%zu points", n);
    memset(ret_verdicts, 0, n * sizeof *ret_verdicts);
    for (size_t i = 0; i < ARRAY_SIZE(period_rules); i++)
        keep_periods(&period_rules[i], number_of(r, &period_rules[i]), points,
                     n, room, ret_verdicts);
    keep_others(r, points, n, ret_verdicts);
    last = retention_last_good(n, bad);
    if (!r->remove_last && ret_verdicts[last] == 0)
        ret_verdicts[last] = RETAIN_BIT(RETAIN_LAST_GOOD);
    return 0;
}

char *
retention_text(const struct retention *r, enum retention_rule rule,
               const struct point *p, char *buf)
{
    struct tm tm = calendar(p->time_ns);
    const char *tag = kept_tag(r, p);

    buf[0] = '\0';
    switch (rule) {
    case RETAIN_LAST:
        (void)strcpy(buf, "last");
        break;
    case RETAIN_HOURLY:
        (void)strftime(buf, RETENTION_TEXT_MAX, "hourly %Y-%m-%d %H", &tm);
        break;
    case RETAIN_DAILY:
        (void)strftime(buf, RETENTION_TEXT_MAX, "daily %Y-%m-%d", &tm);
        break;
    case RETAIN_WEEKLY:
        (void)strftime(buf, RETENTION_TEXT_MAX, "weekly %G-W%V", &tm);
        break;
    case RETAIN_MONTHLY:
        (void)strftime(buf, RETENTION_TEXT_MAX, "monthly %Y-%m", &tm);
        break;
    case RETAIN_YEARLY:
        (void)strftime(buf, RETENTION_TEXT_MAX, "yearly %Y", &tm);
        break;
    case RETAIN_WITHIN:
        (void)snprintf(buf, RETENTION_TEXT_MAX, "within %.40s",
                       r->within != NULL ? r->within : "");
        break;
    case RETAIN_TAG:
        (void)snprintf(buf, RETENTION_TEXT_MAX, "tag %.40s",
                       tag != NULL ? tag : "");
        break;
    case RETAIN_LAST_GOOD:
        (void)strcpy(buf, "last good point");
        break;
    case RETAIN_N:
        break;
    }
    return buf;
}
