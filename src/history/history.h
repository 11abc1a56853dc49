/* history/history.h - what every run did, kept on this host in SQLite.
 *
 * Why: QEMU forgets its jobs, a log on a terminal is gone, and a run that was
 * killed says nothing at all.  Here each run has a row from its first moment on,
 * with its log, its reasons and figures and its end; one whose process is gone
 * without an end is shown as "died".
 *
 * It is a record and no part of a backup: whoever writes it reports a failure
 * once, as a warning, and goes on.  Every wait for another process has a
 * deadline.  Nothing is decided about data by what is written here.
 *
 * The directory is of one host, on a local file system (docs/man/tidemark.pod).
 *
 * Threads: one thread (the main one) calls everything but history_log().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct jv;
struct history;

struct history_opts {
    const char *dir;    /* made (0700) when missing */
    unsigned keep_days; /* older runs go ... */
    unsigned keep_runs; /* but these newest per machine and command */
    uint64_t max_bytes; /* of the database; above, the oldest logs go */
    uint64_t log_bytes; /* of one run: half for its first, half for its last */
    unsigned wait_ms;   /* for other processes, per call */
};

#define HISTORY_OPTS_INIT                                          \
    {                                                              \
        .keep_days = 90, .keep_runs = 20, .max_bytes = 512u << 20, \
        .log_bytes = 1u << 20, .wait_ms = 1000                     \
    }

/* Open for writing.  A database that is no database any more is moved aside and
 * a new one begun: history_moved() tells.  One of a newer version, or of another
 * program, is left alone: -1. */
int history_open(const struct history_opts *opts, struct history **ret,
                 struct err *err);

/* Open for reading only.  1: nothing was ever recorded, *ret is not set. */
int history_open_read(const char *dir, struct history **ret, struct err *err);

/* Where a damaged database was moved to, or NULL. */
const char *history_moved(const struct history *h);

/* Close.  A run without an end stays without one.  NULL is fine. */
void history_close(struct history *h);

/* -- recording: one run per handle ------------------------------------------*/

struct history_start {
    const char *command;
    const char *target;  /* as it was given: "qmp:/run/web1.qmp", or NULL */
    const char *machine; /* NULL: what earlier runs on `target` found out */
    const char *repo;    /* path, or NULL */
    const char *parent;  /* whatever started this run, or NULL */
};

/* Record that a run begins; then forget what is too old, a few at a time. */
int history_begin(struct history *h, const struct history_start *s,
                  struct err *err);

/* Number of the run; 0 before history_begin(). */
int64_t history_id(const struct history *h);

/* Keep a line for the log; any thread, never waits for the disk.  What is too
 * much for memory until the next flush is counted and left out. */
void history_log(struct history *h, const char *line);

/* How far it is; written with the next flush. */
void history_progress(struct history *h, const char *phase, uint64_t done,
                      uint64_t total);

/* Write the log so far; at most every `every_ms`, so that it may be called
 * often.  Waits a quarter of a second at most for others: what could not be written
 * stays for the next time, which is no error. */
int history_flush(struct history *h, unsigned every_ms, struct err *err);

/* What was found out about the run since it began: the machine's name, the path
 * of the repository; NULL: nothing new.  Written with the next flush. */
void history_about(struct history *h, const char *machine, const char *repo);

/* What was decided: the "plan" event, written with the next flush. */
void history_plan(struct history *h, const struct jv *plan);

/* The result of the job, written at once: should this process die now, it is
 * known what exists. */
int history_result(struct history *h, const struct jv *result, struct err *err);

struct history_end {
    const char *state; /* "done", "warning", "failed", "canceled" */
    int exit_status;
    const char *error;         /* or NULL */
    const char *error_code;    /* or NULL */
    const struct jv *warnings; /* array, or NULL */
};

/* Record the end, with the rest of the log. */
int history_end(struct history *h, const struct history_end *e,
                struct err *err);

/* -- reading ----------------------------------------------------------------*/

struct history_filter {
    const char *machine; /* or what was given as such; NULL: all */
    const char *command; /* NULL: all */
    bool failed;         /* only "failed", "canceled" and "died" */
    int64_t since_ns;    /* wall clock; 0: all */
    unsigned last;       /* 0: all */
};

/* Array of runs, newest first: {"id","command","machine","target","repository",
 * "repository_id","point","parent","version","start","end","duration_ms",
 * "state","exit_status","error","error_code","tracking","read_bytes",
 * "new_bytes","stored_bytes","phase","done","total","pid"}; what is not known
 * is null. */
int history_list(struct history *h, const struct history_filter *f,
                 struct jv **ret, struct err *err);

/* Everything about one run: the above, "plan", "result", "warnings", "log":
 * [{"ms","text"}], "log_dropped" (lines), "children": [runs whose parent it is].
 * ERR_NOT_FOUND when there is none. */
int history_show(struct history *h, int64_t id, struct jv **ret,
                 struct err *err);

/* {"last": run or null, "good": the newest that ended as "done" or "warning", or
 * null}, of a machine (NULL: any) and a command. */
int history_last(struct history *h, const char *machine, const char *command,
                 struct jv **ret, struct err *err);

#include "cleanup.h"
DEFINE_CLEANUP(struct history *, history_close)
#define CLEANUP_HISTORY CLEANUP(history_closep)
