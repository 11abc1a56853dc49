#include "status.h"

#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "jv.h"
#include "text.h"

#define NS UINT64_C(1000000000)
/* Clocks of two hosts differ a little; more is a wrong clock. */
#define AHEAD_NS (INT64_C(300) * 1000000000)

static const char *const names[] = {[HEALTH_OK] = "ok",
                                    [HEALTH_WARNING] = "warning",
                                    [HEALTH_CRITICAL] = "critical"};

const char *
health_name(enum health h)
{
    return names[h];
}

static enum health
say(struct jv *o, enum health h, const char *text)
{
    (void)jv_set_str(o, "state", names[h]);
    (void)jv_set_str(o, "text", text);
    return h;
}

static enum health
judge_age(struct jv *o, uint64_t age_ns, uint64_t max_age_ns, uint64_t damaged)
{
    char text[256], age[TEXT_DURATION_MAX], max[TEXT_DURATION_MAX];
    int n;

    (void)text_age(age_ns / NS, age);
    (void)text_age(max_age_ns / NS, max);
    n = snprintf(text, sizeof text, "last good point %s ago", age);
    if (damaged > 0)
        n += snprintf(text + n, sizeof text - (size_t)n, ", %llu newer damaged",
                      (unsigned long long)damaged);
    if (age_ns > max_age_ns)
        (void)snprintf(text + n, sizeof text - (size_t)n,
                       ", should be %s at most", max);
    if (age_ns / 2 >= max_age_ns)
        return say(o, HEALTH_CRITICAL, text);
    return say(o,
               age_ns > max_age_ns || damaged > 0 ? HEALTH_WARNING : HEALTH_OK,
               text);
}

enum health
status_judge(struct jv *o, const struct jv *machine, int64_t now_ns,
             uint64_t max_age_ns)
{
    uint64_t damaged = report_uint(machine, "damaged");
    int64_t taken = 0;

    (void)jv_set_int(o, "max_age_s", (int64_t)(max_age_ns / NS));
    if (machine == NULL)
        return say(o, HEALTH_CRITICAL, "no point");
    if (!jv_get_int(machine, "time_ns", &taken))
        return say(o, HEALTH_CRITICAL, "no good point: all are damaged");
    if (taken > now_ns + AHEAD_NS)
        return say(o, HEALTH_WARNING,
                   "the last point lies in the future: a clock is wrong");
    if (taken > now_ns)
        taken = now_ns;
    (void)jv_set_int(o, "age_s", (now_ns - taken) / (int64_t)NS);
    return judge_age(o, (uint64_t)(now_ns - taken), max_age_ns, damaged);
}
