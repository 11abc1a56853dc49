#include "progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "size.h"
#include "text.h"

#define SAMPLE_MS 250u   /* shorter steps are mostly noise */
#define BAR_MIN 10u      /* a shorter bar says nothing */
#define BAR_MAX 40u      /* a longer one neither */
#define LEFT_MAX_S 8.6e6 /* 100 days: no promise beyond */

static void
restart(struct progress *p, uint64_t now_ms, const char *phase, uint64_t done)
{
    (void)text_escape_to(phase, p->phase, sizeof p->phase);
    p->start_ms = p->last_ms = now_ms;
    p->last_done = done;
    p->rate = 0;
}

/* Exponential forgetting; at the start the plain average since the start. */
static void
sample(struct progress *p, uint64_t now_ms)
{
    uint64_t ms = now_ms - p->last_ms, age = now_ms - p->start_ms;
    double rate, weight;

    if (ms < SAMPLE_MS)
        return;
    rate = (double)(p->done - p->last_done) * 1000.0 / (double)ms;
    weight = (double)ms /
             (double)(age < PROGRESS_MEMORY_MS ? age : PROGRESS_MEMORY_MS);
    if (weight > 1)
        weight = 1;
    p->rate += (rate - p->rate) * weight;
    p->last_ms = now_ms;
    p->last_done = p->done;
}

void
progress_update(struct progress *p, uint64_t now_ms, const char *phase,
                uint64_t done, uint64_t total)
{
    char shown[sizeof p->phase];

    (void)text_escape_to(phase, shown, sizeof shown);
    if (total > 0 && done > total)
        done = total;
    if (strcmp(shown, p->phase) != 0 || done < p->last_done ||
        now_ms < p->last_ms)
        restart(p, now_ms, phase, done);
    p->done = done;
    p->total = total;
    sample(p, now_ms);
}

unsigned
progress_percent(const struct progress *p)
{
    double v;

    if (p->total == 0)
        return 0;
    if (p->done >= p->total)
        return 100;
    v = (double)p->done / (double)p->total * 100.0;
    return v >= 99.0 ? 99 : (unsigned)v;
}

bool
progress_left(const struct progress *p, uint64_t *ret_s)
{
    double s;

    if (p->total == 0 || p->rate < 1.0 ||
        p->last_ms - p->start_ms < PROGRESS_TRUST_MS)
        return false;
    s = (double)(p->total - p->done) / p->rate;
    if (s > LEFT_MAX_S)
        return false;
    *ret_s = (uint64_t)(s + 0.5);
    return true;
}

/* Append `part` after two spaces if it fits; the first that does not fit ends
 * the line, so that the parts never change places. */
static bool
add(char *buf, size_t width, const char *part)
{
    size_t n = strlen(buf), gap = n > 0 ? 2 : 0, len = strlen(part);

    if (text_columns(buf) + gap + text_columns(part) > width ||
        n + gap + len >= PROGRESS_LINE_MAX)
        return false;
    memset(buf + n, ' ', gap);
    memcpy(buf + n + gap, part, len + 1);
    return true;
}

static void
amount_text(const struct progress *p, char *buf, size_t len)
{
    char done[SIZE_TEXT_MAX], total[SIZE_TEXT_MAX];

    if (p->total == 0)
        (void)snprintf(buf, len, "%s", size_text(p->done, done));
    else
        (void)snprintf(buf, len, "%s of %s", size_text(p->done, done),
                       size_text(p->total, total));
}

static void
bar_text(const struct progress *p, size_t cells, char *buf)
{
    size_t full =
        p->total == 0
            ? 0
            : (size_t)((double)cells * (double)p->done / (double)p->total);

    buf[0] = '[';
    for (size_t i = 0; i < cells; i++)
        buf[1 + i] = i < full ? '#' : '-';
    (void)snprintf(buf + 1 + cells, 2, "]");
}

/* What stands right of the bar, as far as `width` allows. */
static void
facts(const struct progress *p, size_t width, char *buf)
{
    char part[96], size[SIZE_TEXT_MAX], time[TEXT_DURATION_MAX];
    uint64_t left;

    buf[0] = '\0';
    if (p->total > 0) {
        (void)snprintf(part, sizeof part, "%3u %%", progress_percent(p));
        if (!add(buf, width, part))
            return;
    }
    if (p->total > 0 || p->done > 0) {
        amount_text(p, part, sizeof part);
        if (!add(buf, width, part))
            return;
    }
    if (p->rate >= 1.0) {
        (void)snprintf(part, sizeof part, "%s/s",
                       size_text((uint64_t)p->rate, size));
        if (!add(buf, width, part))
            return;
    }
    if (progress_left(p, &left)) {
        (void)snprintf(part, sizeof part, "%s left", text_duration(left, time));
        if (!add(buf, width, part))
            return;
    }
    if (p->scratch > 0) {
        (void)snprintf(part, sizeof part, "scratch %s",
                       size_text(p->scratch, size));
        (void)add(buf, width, part);
    }
}

char *
progress_line(const struct progress *p, size_t width, bool bar, char *buf)
{
    char right[PROGRESS_LINE_MAX], cells[BAR_MAX + 3];
    size_t used, room;

    buf[0] = '\0';
    if (width >= PROGRESS_LINE_MAX)
        width = PROGRESS_LINE_MAX - 1;
    (void)add(buf, width, p->phase);
    used = text_columns(buf) + 2;
    facts(p, width > used ? width - used : 0, right);
    used += text_columns(right) + 2;
    room = width > used + 2 ? width - used - 2 : 0;
    if (bar && p->total > 0 && room >= BAR_MIN) {
        bar_text(p, room < BAR_MAX ? room : BAR_MAX, cells);
        (void)add(buf, width, cells);
    }
    if (right[0] != '\0')
        (void)add(buf, width, right);
    return buf;
}
