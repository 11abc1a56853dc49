#include "clock.h"

#include <limits.h>
#include <stdio.h>
#include <time.h>

uint64_t
clock_us(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

uint64_t
clock_ms(void)
{
    return clock_us() / 1000;
}

int64_t
clock_wall_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void
clock_text(int64_t wall_ns, char *buf, size_t len)
{
    time_t t = (time_t)(wall_ns / 1000000000);
    struct tm tm;

    if (gmtime_r(&t, &tm) == NULL ||
        strftime(buf, len, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        (void)snprintf(buf, len, "?");
}

struct deadline
deadline_in(uint64_t ms)
{
    struct deadline d = {clock_ms() + ms};

    return d;
}

int
deadline_left(struct deadline d)
{
    uint64_t now = clock_ms();

    if (now >= d.at_ms)
        return 0;
    return d.at_ms - now > INT_MAX ? INT_MAX : (int)(d.at_ms - now);
}
