/* Naming points as git names revisions.
 *
 * A time stands for all of the day, minute or second that it writes out:
 * "web1@2026-11-20" finds that evening's point, and "web1@2026-11-20T18:00" the
 * one that a timer took at 18:00:07.  Among the points up to then the highest
 * sequence number counts, not the highest time: clocks go wrong, numbers do not.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "clock.h"
#include "err.h"
#include "repo.h"

#define NAMES_SHOWN 8
#define ID_DIGITS_MIN 4
#define ID_DIGITS_SHOWN 12

/* The points of one machine: a slice of the list. */
struct slice {
    struct point **v; /* ascending seq */
    size_t n;
};

static struct slice
machine_slice(const struct point_list *l, const char *name, size_t len)
{
    struct slice s = {0};

    for (size_t i = 0; i < l->n; i++) {
        const char *m = l->v[i]->machine;

        if (strncmp(m, name, len) != 0 || m[len] != '\0')
            continue;
        if (s.n++ == 0)
            s.v = &l->v[i];
    }
    return s;
}

/* -- what the errors say there is -------------------------------------------*/

static void __attribute__((format(printf, 3, 4)))
append(char *text, size_t cap, const char *fmt, ...)
{
    size_t n = strlen(text);
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text + n, cap - n, fmt, ap);
    va_end(ap);
}

static int
no_machine(const struct point_list *l, const char *name, int len,
           struct err *err)
{
    char names[ERR_MSG_MAX / 2] = "";
    const char *last = NULL;
    size_t n = 0;

    for (size_t i = 0; i < l->n; i++) {
        if (last != NULL && strcmp(last, l->v[i]->machine) == 0)
            continue;
        last = l->v[i]->machine;
        if (n++ < NAMES_SHOWN)
            append(names, sizeof names, "%s'%.40s'", n > 1 ? ", " : "", last);
    }
    if (n == 0)
        return err_set(err, ERR_NOT_FOUND,
                       "no machine '%.*s': there are no points at all; make "
                       "one with: tidemark backup",
                       len, name);
    return err_set(err, ERR_NOT_FOUND,
                   "no machine '%.*s'; there %s %s%s; see: tidemark points",
                   len, name, n > 1 ? "are" : "is", names,
                   n > NAMES_SHOWN ? " and more" : "");
}

static int
no_point(const struct slice *s, const char *what, struct err *err)
{
    const struct point *p = s->v[s->n - 1];
    char when[CLOCK_TEXT_MAX];

    clock_text(p->time_ns, when, sizeof when);
    return err_set(err, ERR_NOT_FOUND,
                   "machine '%s' has no point '%.80s'; newest of %zu is %.*s "
                   "of %s; see: tidemark points %s",
                   p->machine, what, s->n, ID_DIGITS_SHOWN, p->id, when,
                   p->machine);
}

/* -- the three ways to say which --------------------------------------------*/

static int
by_distance(const struct slice *s, const char *what, const struct point **ret,
            struct err *err)
{
    const char *rest = what + strlen("latest");
    uint64_t back = 0;

    if (rest[0] == '~') {
        size_t n = strspn(rest + 1, "0123456789");

        if (n < 1 || n > 9 || rest[1 + n] != '\0')
            return err_set(err, ERR_USAGE,
                           "'%.80s': a number must follow '~', as in latest~2",
                           what);
        back = strtoull(rest + 1, NULL, 10);
    } else if (rest[0] != '\0') {
        return no_point(s, what, err);
    }
    if (back >= s->n)
        return no_point(s, what, err);
    *ret = s->v[s->n - 1 - back];
    return 0;
}

static int
by_id(const struct slice *s, const char *what, size_t len,
      const struct point **ret, struct err *err)
{
    char ids[ERR_MSG_MAX / 2] = "";
    const struct point *found = NULL;
    size_t n = 0;

    for (size_t i = 0; i < s->n; i++) {
        if (strncasecmp(s->v[i]->id, what, len) != 0)
            continue;
        found = s->v[i];
        if (n++ < NAMES_SHOWN)
            append(ids, sizeof ids, "%s%s", n > 1 ? ", " : "", found->id);
    }
    if (n == 0)
        return no_point(s, what, err);
    if (n > 1)
        return err_set(err, ERR_USAGE,
                       "'%s' is ambiguous for machine '%s': %s%s; give more "
                       "digits",
                       what, found->machine, ids,
                       n > NAMES_SHOWN ? " and more" : "");
    *ret = found;
    return 0;
}

/* `n` digits at *p, which moves behind them; -1 when there are fewer. */
static int
number(const char **p, int n)
{
    int v = 0;

    for (int i = 0; i < n; i++) {
        char c = **p;

        if (c < '0' || c > '9')
            return -1;
        v = 10 * v + (c - '0');
        (*p)++;
    }
    return v;
}

static bool
date_ok(const struct tm *t)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int y = t->tm_year + 1900;
    bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;

    return y >= 1970 && y <= 2200 && t->tm_mon >= 0 && t->tm_mon < 12 &&
           t->tm_mday >= 1 &&
           t->tm_mday <= days[t->tm_mon] + (leap && t->tm_mon == 1);
}

/* The seconds of the day; *ret_span becomes how many seconds the text names. */
static bool
parse_clock(const char **p, struct tm *t, int *ret_span)
{
    if (**p != 'T')
        return true;
    (*p)++;
    t->tm_hour = number(p, 2);
    if (*(*p)++ != ':')
        return false;
    t->tm_min = number(p, 2);
    *ret_span = 60;
    if (**p == ':') {
        (*p)++;
        t->tm_sec = number(p, 2);
        *ret_span = 1;
    }
    if (**p == 'Z')
        (*p)++;
    return t->tm_hour >= 0 && t->tm_hour < 24 && t->tm_min >= 0 &&
           t->tm_min < 60 && t->tm_sec >= 0 && t->tm_sec < 60;
}

/* "2026-11-20", "...T18:00", "...T18:00:05", each time also with a 'Z': the
 * first nanosecond behind what is named. */
static bool
parse_time(const char *text, int64_t *ret_end_ns)
{
    struct tm t = {0};
    const char *p = text;
    int span = 24 * 60 * 60;

    t.tm_year = number(&p, 4) - 1900;
    if (*p++ != '-')
        return false;
    t.tm_mon = number(&p, 2) - 1;
    if (*p++ != '-')
        return false;
    t.tm_mday = number(&p, 2);
    if (!date_ok(&t) || !parse_clock(&p, &t, &span) || *p != '\0')
        return false;
    *ret_end_ns = ((int64_t)timegm(&t) + span) * 1000000000;
    return true;
}

static int
by_time(const struct slice *s, const char *what, const struct point **ret,
        struct err *err)
{
    int64_t end_ns;

    if (!parse_time(what, &end_ns))
        return err_set(err, ERR_USAGE,
                       "'%.80s' is no time; write it in UTC as 2026-11-20, "
                       "2026-11-20T18:00 or 2026-11-20T18:00:00",
                       what);
    for (size_t i = s->n; i-- > 0;) {
        if (s->v[i]->time_ns < end_ns) {
            *ret = s->v[i];
            return 0;
        }
    }
    return no_point(s, what, err);
}

static int
find_in(const struct slice *s, const char *what, const struct point **ret,
        struct err *err)
{
    size_t digits = strspn(what, "0123456789abcdefABCDEF");

    if (strncmp(what, "latest", 6) == 0)
        return by_distance(s, what, ret, err);
    if (what[digits] == '\0' && digits >= ID_DIGITS_MIN && digits <= 32)
        return by_id(s, what, digits, ret, err);
    if (digits == 4 && what[4] == '-')
        return by_time(s, what, ret, err);
    return err_set(err, ERR_USAGE,
                   "'%.80s' names no point; give latest, latest~2, a time such "
                   "as 2026-11-20T18:00, or %d or more digits of an id (see: "
                   "tidemark points %s)",
                   what, ID_DIGITS_MIN, s->v[0]->machine);
}

int
point_find(const struct point_list *l, const char *spec,
           const struct point **ret, struct err *err)
{
    struct slice s = machine_slice(l, spec, strlen(spec));
    const char *at = strrchr(spec, '@');

    if (s.n > 0) { /* also a machine whose name has an '@' */
        *ret = s.v[s.n - 1];
        return 0;
    }
    if (at == NULL)
        return no_machine(l, spec, (int)strnlen(spec, 255), err);
    s = machine_slice(l, spec, (size_t)(at - spec));
    if (s.n == 0)
        return no_machine(l, spec, (int)(at - spec < 255 ? at - spec : 255),
                          err);
    return find_in(&s, at + 1, ret, err);
}
