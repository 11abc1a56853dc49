/* cli/out.h - everything that is printed goes through here.
 *
 * Results go to standard output; progress, warnings and errors to standard
 * error.  With --json, standard output carries one JSON object per line and
 * nothing else.  All text is escaped (text.h).
 * Threads: out_trace() from any thread, the rest from the main thread.
 */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "meter.h"

struct err;
struct jv;

struct out {
    FILE *result; /* standard output */
    FILE *notes;  /* standard error */
    bool json;
    bool quiet;
    struct meter meter;
    struct jv *warned; /* texts of warnings so far: none is shown twice */
    unsigned n_warnings;
    char *complaint; /* the last error that was shown, or NULL */
    int write_errno; /* of the first write that failed, or 0 */
};

void out_init(struct out *o);
void out_done(struct out *o);

/* Choose how progress is shown, once the options are known. */
void out_progress(struct out *o, bool debug, bool json_events);

/* "tidemark: warning: TEXT", unless the same text was shown before. */
void out_warning(struct out *o, const char *text);
void out_warnings(struct out *o, const struct jv *texts); /* array */

/* "tidemark: error: TEXT", and with --json the error object. */
void out_error(struct out *o, const struct err *err, int status);

/* The line for people alone, where a JSON object already says it. */
void out_complain(struct out *o, const char *text);

/* Print a value as one line of JSON. */
int out_json(struct out *o, const struct jv *value, struct err *err);

/* A labelled value, and a line, on standard output for people. */
void out_field(struct out *o, const char *label, const char *value);
__attribute__((format(printf, 2, 3))) void out_line(struct out *o,
                                                    const char *fmt, ...);

/* Trace lines for base/log.h; `arg` is a struct out. */
void out_trace(void *arg, const char *line);

/* Did everything reach standard output? */
int out_flush(struct out *o, struct err *err);
