/* What `tidemark run` says at its end: one table, one object, one status. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "cli.h"
#include "err.h"
#include "jv.h"
#include "run.h"
#include "table.h"
#include "text.h"

#define ERROR_LEN 900

static const char *const names[] = {[OUTCOME_OK] = "ok",
                                    [OUTCOME_WARNING] = "warning",
                                    [OUTCOME_BUSY] = "busy",
                                    [OUTCOME_STOPPED] = "stopped",
                                    [OUTCOME_FAILED] = "failed"};

const char *
run_outcome_name(enum outcome o)
{
    return names[o];
}

enum outcome
run_outcome(const struct task *t)
{
    if (t->state != TASK_ENDED)
        return OUTCOME_STOPPED;
    if (t->killed ||
        (t->late && t->status != EXIT_DONE && t->status != EXIT_WARNING))
        return OUTCOME_FAILED;
    switch (t->status) {
    case EXIT_DONE:
        return OUTCOME_OK;
    case EXIT_WARNING:
        return OUTCOME_WARNING;
    case EXIT_BUSY:
        return OUTCOME_BUSY;
    case EXIT_INTERRUPTED:
        return OUTCOME_STOPPED;
    default:
        return OUTCOME_FAILED;
    }
}

static bool
is_point(const struct task *t)
{
    return strcmp(t->kind, "backup") == 0 &&
           run_outcome(t) <= OUTCOME_WARNING &&
           jv_get_str(t->result, "point") != NULL;
}

/* Why there is no point; "" when there is one. */
static const char *
words_of(const struct task *t, char *buf, size_t len)
{
    enum outcome o = run_outcome(t);
    char time[TEXT_DURATION_MAX];

    buf[0] = '\0';
    if (o <= OUTCOME_WARNING)
        return buf;
    if (t->late)
        (void)snprintf(buf, len, "stopped: it did not end within %s",
                       text_duration(t->timeout_ms / 1000, time));
    else if (t->error != NULL)
        (void)snprintf(buf, len, "%s", t->error);
    else if (t->state != TASK_ENDED)
        (void)snprintf(buf, len, "not begun");
    else if (t->killed)
        (void)snprintf(buf, len, "ended by signal %d", t->status - 128);
    else if (o == OUTCOME_BUSY)
        (void)snprintf(buf, len, "already running");
    else if (jv_size(jv_get(t->result, "problems")) > 0)
        (void)snprintf(buf, len, "damage found: %zu problems",
                       jv_size(jv_get(t->result, "problems")));
    else
        (void)snprintf(buf, len, "ended with exit status %d", t->status);
    return buf;
}

/* "incremental", "full", "2 of 3 full". */
static const char *
tracking_of(const struct jv *point, char *buf, size_t len)
{
    const struct jv *disks = jv_get(point, "disks");
    size_t n = jv_size(disks), full = 0;

    for (size_t i = 0; i < n; i++)
        full +=
            strcmp(report_str(jv_at(disks, i), "tracking", ""), "full") == 0;
    if (full == 0)
        return n > 0 ? "incremental" : "no disks";
    if (full == n)
        return "full";
    (void)snprintf(buf, len, "%zu of %zu full", full, n);
    return buf;
}

static uint64_t
sum(const struct jv *point, const char *key)
{
    const struct jv *disks = jv_get(point, "disks");
    uint64_t total = 0;

    for (size_t i = 0; i < jv_size(disks); i++)
        total += report_uint(jv_at(disks, i), key);
    return total;
}

/* -- JSON -------------------------------------------------------------------*/

static struct jv *
task_json(const struct task *t)
{
    char words[ERROR_LEN], tracking[64];
    struct jv *o = jv_build(
        "{s:s, s:s, s:i, s:I, s:s}", "job", t->kind, "result",
        names[run_outcome(t)], "exit_status",
        t->state == TASK_ENDED ? t->status : EXIT_INTERRUPTED, "duration_ms",
        (int64_t)t->ms, "error", words_of(t, words, sizeof words));

    (void)jv_set_str(o, "for", t->label);
    if (!is_point(t))
        return o;
    (void)jv_set_str(o, "machine", report_str(t->result, "machine", ""));
    (void)jv_set_str(o, "point", report_str(t->result, "point", ""));
    (void)jv_set_str(o, "consistency",
                     report_str(t->result, "consistency", ""));
    (void)jv_set_str(o, "tracking",
                     tracking_of(t->result, tracking, sizeof tracking));
    (void)jv_set_int(o, "read_bytes", (int64_t)sum(t->result, "read_bytes"));
    (void)jv_set_int(o, "stored_bytes",
                     (int64_t)sum(t->result, "stored_bytes"));
    return o;
}

static size_t
count(const struct run *r, enum outcome from, enum outcome to)
{
    size_t n = 0;

    for (size_t i = 0; i < r->n; i++) {
        enum outcome o = run_outcome(&r->backups[i]);

        n += o >= from && o <= to;
    }
    return n;
}

struct jv *
run_summary(const struct run *r, int status)
{
    CLEANUP_JV struct jv *machines = jv_array();
    CLEANUP_JV struct jv *chores = jv_array();

    for (size_t i = 0; i < r->n; i++)
        if (jv_add(machines, task_json(&r->backups[i])) != 0)
            return NULL;
    for (size_t i = 0; i < r->n_chores; i++)
        if (jv_add(chores, task_json(&r->chores[i])) != 0)
            return NULL;
    return jv_build("{s:s, s:o, s:o, s:I, s:I, s:I, s:I, s:i}", "event",
                    "summary", "machines", TAKE_PTR(machines), "chores",
                    TAKE_PTR(chores), "committed",
                    (int64_t)count(r, OUTCOME_OK, OUTCOME_WARNING), "busy",
                    (int64_t)count(r, OUTCOME_BUSY, OUTCOME_BUSY), "stopped",
                    (int64_t)count(r, OUTCOME_STOPPED, OUTCOME_STOPPED),
                    "failed", (int64_t)count(r, OUTCOME_FAILED, OUTCOME_FAILED),
                    "exit_status", status);
}

/* -- for people -------------------------------------------------------------*/

static void
add_row(struct table *t, const struct task *b)
{
    char text[ERROR_LEN], ref[POINT_REF_MAX], time[TEXT_DURATION_MAX];

    table_text(t, b->label);
    table_text(t, names[run_outcome(b)]);
    if (is_point(b)) {
        table_text(t, tracking_of(b->result, text, sizeof text));
        table_size(t, sum(b->result, "read_bytes"));
        table_size(t, sum(b->result, "stored_bytes"));
        point_ref(b->result, POINT_REF_DIGITS, ref, sizeof ref);
    } else {
        for (unsigned i = 0; i < 3; i++)
            table_text(t, NULL);
        (void)words_of(b, text, sizeof text);
    }
    table_text(t, text_duration(b->ms / 1000, time));
    table_text(t, is_point(b) ? ref : text);
}

static void
report_chore(struct out *o, const struct task *t)
{
    char words[ERROR_LEN], time[TEXT_DURATION_MAX];

    if (run_outcome(t) > OUTCOME_WARNING)
        out_line(o, "%s of %s: %s: %s", t->kind, t->label,
                 names[run_outcome(t)], words_of(t, words, sizeof words));
    else if (strcmp(t->kind, "prune") == 0)
        out_line(o, "prune of %s: %" PRIu64 " removed, %" PRIu64 " stay",
                 t->label, report_uint(t->result, "removed"),
                 report_uint(t->result, "kept"));
    else
        out_line(o, "%s of %s: %s, %s", t->kind, t->label,
                 names[run_outcome(t)], text_duration(t->ms / 1000, time));
}

int
run_report(const struct run *r, int status, struct err *err)
{
    CLEANUP(table_freep)
    struct table *t = table_new(
        "MACHINE|RESULT|TRACKING|>READ|>STORED|>TIME|POINT OR REASON");
    struct out *o = &r->cli->out;
    size_t failed = count(r, OUTCOME_FAILED, OUTCOME_FAILED);
    size_t stopped = count(r, OUTCOME_STOPPED, OUTCOME_STOPPED);
    size_t busy = count(r, OUTCOME_BUSY, OUTCOME_BUSY);

    for (size_t i = 0; i < r->n; i++)
        add_row(t, &r->backups[i]);
    if (table_print(t, 0, o->result, err) != 0)
        return -1;
    for (size_t i = 0; i < r->n_chores; i++)
        report_chore(o, &r->chores[i]);
    out_line(o, "%zu of %zu machines committed, %zu failed%s%s",
             count(r, OUTCOME_OK, OUTCOME_WARNING), r->n, failed,
             busy > 0 ? ", some are being backed up by another run" : "",
             stopped > 0 ? ", stopped before the end" : "");
    return 0;
}

/* -- status -----------------------------------------------------------------*/

int
run_status(const struct run *r, bool stopped)
{
    size_t failed = count(r, OUTCOME_FAILED, OUTCOME_FAILED);
    size_t committed = count(r, OUTCOME_OK, OUTCOME_WARNING);
    bool warned = committed - count(r, OUTCOME_OK, OUTCOME_OK) > 0 ||
                  count(r, OUTCOME_BUSY, OUTCOME_BUSY) > 0 ||
                  r->cli->out.n_warnings > 0;

    for (size_t i = 0; i < r->n_chores; i++) {
        enum outcome o = run_outcome(&r->chores[i]);

        failed += o == OUTCOME_FAILED || (o == OUTCOME_STOPPED && !stopped);
        warned |= o == OUTCOME_WARNING || o == OUTCOME_BUSY;
    }
    if (stopped)
        return EXIT_INTERRUPTED;
    /* Somebody stopped a child, and not us. */
    failed += count(r, OUTCOME_STOPPED, OUTCOME_STOPPED);
    if (failed > 0)
        return committed > 0 ? EXIT_SOME_FAILED : EXIT_FAILED;
    return warned ? EXIT_WARNING : EXIT_DONE;
}
