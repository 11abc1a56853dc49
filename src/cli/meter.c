#include "meter.h"

#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>

#include "clock.h"
#include "jv.h"

#define WIDTH_DEFAULT 80u

void
meter_init(struct meter *m, enum meter_style style, FILE *to)
{
    *m = (struct meter){.style = style, .to = to, .progress = PROGRESS_INIT};
}

/* One column is left free: a full line makes some terminals wrap. */
static size_t
width(FILE *to)
{
    struct winsize ws;

    if (ioctl(fileno(to), TIOCGWINSZ, &ws) != 0 || ws.ws_col < 2)
        return WIDTH_DEFAULT - 1;
    return ws.ws_col - 1u;
}

static void
draw_json(const struct meter *m)
{
    const struct progress *p = &m->progress;
    CLEANUP_JV struct jv *o = jv_object();
    CLEANUP_FREE char *text = NULL;
    uint64_t left;

    (void)jv_set_str(o, "event", "progress");
    (void)jv_set_str(o, "phase", p->phase);
    (void)jv_set_int(o, "done", (int64_t)p->done);
    (void)jv_set_int(o, "total", (int64_t)p->total);
    (void)jv_set_int(o, "bytes_per_second", (int64_t)p->rate);
    if (progress_left(p, &left))
        (void)jv_set_int(o, "seconds_left", (int64_t)left);
    if (p->scratch > 0)
        (void)jv_set_int(o, "scratch_bytes", (int64_t)p->scratch);
    text = o == NULL ? NULL : jv_text(o, false);
    if (text != NULL) {
        (void)fprintf(m->to, "%s\n", text);
        (void)fflush(m->to);
    }
}

static void
draw(struct meter *m)
{
    char line[PROGRESS_LINE_MAX];

    switch (m->style) {
    case METER_NONE:
        return;
    case METER_BAR:
        (void)fprintf(m->to, "\r\033[K%s",
                      progress_line(&m->progress, width(m->to), true, line));
        m->drawn = true;
        break;
    case METER_LINES:
        (void)fprintf(
            m->to, "tidemark: %s\n",
            progress_line(&m->progress, PROGRESS_LINE_MAX, false, line));
        break;
    case METER_JSON:
        draw_json(m);
        break;
    }
    (void)fflush(m->to);
}

static uint64_t
interval(enum meter_style style)
{
    return style == METER_BAR    ? METER_BAR_MS
           : style == METER_JSON ? METER_JSON_MS
                                 : METER_LINES_MS;
}

void
meter_update(struct meter *m, const char *phase, uint64_t done, uint64_t total)
{
    uint64_t now = clock_ms();

    if (m->style == METER_NONE)
        return;
    progress_update(&m->progress, now, phase, done, total);
    if (m->any && now - m->drawn_ms < interval(m->style))
        return;
    /* A log gets its first line only after a while: a backup of two seconds
     * needs no progress report. */
    if (!m->any && m->style == METER_LINES) {
        m->any = true;
        m->drawn_ms = now;
        return;
    }
    draw(m);
    m->any = true;
    m->drawn_ms = now;
}

void
meter_clear(struct meter *m)
{
    if (!m->drawn)
        return;
    (void)fputs("\r\033[K", m->to);
    (void)fflush(m->to);
    m->drawn = false;
}
