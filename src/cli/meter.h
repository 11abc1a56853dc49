/* cli/meter.h - shows progress: a bar on a terminal, lines in a log, JSON.
 *
 * Belongs to one thread.  Whoever prints on standard error while a bar may
 * stand there calls meter_clear() first.
 */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "progress.h"

#define METER_BAR_MS 200u    /* redraw at most 5 times a second */
#define METER_LINES_MS 5000u /* lines in a log */
#define METER_JSON_MS 1000u

enum meter_style { METER_NONE, METER_BAR, METER_LINES, METER_JSON };

struct meter {
    enum meter_style style;
    FILE *to; /* standard error; standard output for JSON */
    struct progress progress;
    uint64_t drawn_ms;
    bool drawn; /* a bar stands on the terminal */
    bool any;   /* something was shown in this phase */
};

void meter_init(struct meter *m, enum meter_style style, FILE *to);

/* A sample; drawn when it is time. */
void meter_update(struct meter *m, const char *phase, uint64_t done,
                  uint64_t total);

/* Take the bar off the terminal. */
void meter_clear(struct meter *m);
