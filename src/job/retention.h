/* job/retention.h - which points of a machine stay, and by which rule.
 *
 * The rules of restic: of each hour, day, week (ISO 8601), month or year that
 * has points the newest one, for as many such periods as were asked for; the
 * newest N; all within a time; all with a tag.  A point stays when any rule keeps
 * it.  Periods are those of UTC.
 *
 * Pure: points in, verdicts out.  No verdict depends on what time it is now; the
 * present is only asked whether a point lies in the future, because points with
 * a wrong time would push good ones out of their periods.
 */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct point;

#define RETENTION_ALL UINT_MAX /* as many as there are */

struct retention {
    unsigned last, hourly, daily, weekly, monthly, yearly; /* 0: no such rule */
    const char *within;      /* "1y6m14d12h", back from the newest point; or
                              * NULL */
    const char *const *tags; /* NULL-terminated, or NULL */
    bool ignore_clock;       /* judge by times that cannot be right */
    bool remove_last;        /* also the last good point of a machine */
};

/* Why a point stays: bits of a verdict.  0: it is removed. */
enum retention_rule {
    RETAIN_LAST,
    RETAIN_HOURLY,
    RETAIN_DAILY,
    RETAIN_WEEKLY,
    RETAIN_MONTHLY,
    RETAIN_YEARLY,
    RETAIN_WITHIN,
    RETAIN_TAG,
    RETAIN_LAST_GOOD, /* no rule keeps it, but nothing better is left */
    RETAIN_N,
};
#define RETAIN_BIT(rule) (1u << (rule))

/* Is there any rule that keeps something? */
bool retention_any(const struct retention *r);

/* ERR_USAGE when there is no rule at all, or one that cannot be understood. */
int retention_check(const struct retention *r, struct err *err);

/* ERR_FORMAT, with the names of the points, when one lies more than a day in
 * the future of `now_ns`, or is taken more than an hour before one that was
 * committed before it.  `points` of one machine, oldest first. */
int retention_clock(struct point *const *points, size_t n, int64_t now_ns,
                    struct err *err);

/* One verdict per point.  `points` of one machine, oldest first; bad[i]: it is
 * known that it cannot be restored whole (NULL: none is). */
int retention_decide(const struct retention *r, struct point *const *points,
                     size_t n, const bool *bad, int64_t now_ns,
                     unsigned *ret_verdicts, struct err *err);

/* The newest point that is not bad; the newest when all are; `n` > 0. */
size_t retention_last_good(size_t n, const bool *bad);

/* "hourly 2026-11-20 17", "weekly 2026-W47", "within 7d", "tag yearly": what
 * keeps `p`, whose verdict has the rule.  Returns `buf`. */
#define RETENTION_TEXT_MAX 96
char *retention_text(const struct retention *r, enum retention_rule rule,
                     const struct point *p, char *buf);
