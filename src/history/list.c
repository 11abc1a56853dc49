/* Runs as JSON.  A run whose process is gone is shown as "died" at once; the row
 * gets that end from the next one who writes. */
#include "internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "jv.h"

#define COLUMNS                                                      \
    RUN_PROCESS                                                      \
    ", start_ns, end_ns, state,"                                     \
    " command, machine, target, repository, repository_id, point,"   \
    " parent, version, duration_ms, exit_status, error, error_code," \
    " tracking, read_bytes, new_bytes, stored_bytes, phase, done, total"
#define COLUMN_PLAIN 8 /* from here on a column is a member as it is */

static int
set_column(struct jv *o, sqlite3_stmt *s, int i)
{
    const char *name = sqlite3_column_name(s, i);

    if (sqlite3_column_type(s, i) == SQLITE_NULL)
        return jv_set(o, name, jv_null());
    if (sqlite3_column_type(s, i) == SQLITE_INTEGER)
        return jv_set_int(o, name, sqlite3_column_int64(s, i));
    return jv_set_str(o, name, (const char *)sqlite3_column_text(s, i));
}

static int
set_time(struct jv *o, const char *key, int64_t ns)
{
    char text[CLOCK_TEXT_MAX];

    if (ns == 0)
        return jv_set(o, key, jv_null());
    clock_text(ns, text, sizeof text);
    return jv_set_str(o, key, text);
}

/* The last sign of life is the end of one that died. */
static int
set_state(const struct history *h, struct jv *o, sqlite3_stmt *s)
{
    const char *state = (const char *)sqlite3_column_text(s, 7);
    int64_t end = sqlite3_column_int64(s, 6);

    if (state != NULL && strcmp(state, "running") == 0 && keep_is_dead(h, s)) {
        state = "died";
        end = sqlite3_column_int64(s, 4);
    }
    if (jv_set_int(o, "id", sqlite3_column_int64(s, 0)) < 0 ||
        jv_set_str(o, "state", state != NULL ? state : "?") < 0 ||
        jv_set_int(o, "pid", sqlite3_column_int64(s, 1)) < 0)
        return -1;
    return set_time(o, "start", sqlite3_column_int64(s, 5)) < 0 ||
                   set_time(o, "end", end) < 0
               ? -1
               : 0;
}

static struct jv *
row_json(struct history *h, sqlite3_stmt *s)
{
    CLEANUP_JV struct jv *o = jv_object();

    if (o == NULL || set_state(h, o, s) < 0)
        return NULL;
    for (int i = COLUMN_PLAIN; i < sqlite3_column_count(s); i++)
        if (set_column(o, s, i) < 0)
            return NULL;
    return TAKE_PTR(o);
}

/* -- lists ------------------------------------------------------------------*/

static bool
failed(const struct jv *run)
{
    const char *state = jv_get_str(run, "state");

    return strcmp(state, "failed") == 0 || strcmp(state, "canceled") == 0 ||
           strcmp(state, "died") == 0;
}

/* Whether a run died is not in its row yet, so that filter and the limit are
 * applied here. */
static int
take_rows(struct history *h, sqlite3_stmt *s, const struct history_filter *f,
          struct jv *runs, struct err *err)
{
    int r;

    while ((r = db_step(h, s, err)) > 0) {
        CLEANUP_JV struct jv *o = row_json(h, s);

        if (o == NULL)
            return err_set(err, ERR_SYSTEM, "out of memory for the history");
        if (f->failed && !failed(o))
            continue;
        if (jv_add(runs, TAKE_PTR(o)) < 0)
            return err_set(err, ERR_SYSTEM, "out of memory for the history");
        if (f->last > 0 && jv_size(runs) >= f->last)
            return 0;
    }
    return r;
}

int
history_list(struct history *h, const struct history_filter *f, struct jv **ret,
             struct err *err)
{
    CLEANUP_STMT sqlite3_stmt *s =
        db_prepare(h,
                   "SELECT " COLUMNS " FROM run WHERE (?1 IS NULL OR"
                   " machine = ?1 OR target = ?1) AND (?2 IS NULL OR"
                   " command = ?2) AND start_ns >= ?3 AND (?4 = 0 OR"
                   " state NOT IN ('done', 'warning')) ORDER BY id DESC",
                   err);
    CLEANUP_JV struct jv *runs = jv_array();

    h->wait = deadline_in(h->opts.wait_ms);
    if (s == NULL ||
        db_bind(h, s, err, "ttii", f->machine, f->command, f->since_ns,
                (int64_t)f->failed) < 0 ||
        take_rows(h, s, f, runs, err) < 0)
        return -1;
    *ret = TAKE_PTR(runs);
    return 0;
}

int
history_last(struct history *h, const char *machine, const char *command,
             struct jv **ret, struct err *err)
{
    static const char *const sql[] = {
        "SELECT " COLUMNS " FROM run WHERE (?1 IS NULL OR machine = ?1 OR"
        " target = ?1) AND command = ?2 ORDER BY id DESC LIMIT 1",
        "SELECT " COLUMNS " FROM run WHERE (?1 IS NULL OR machine = ?1 OR"
        " target = ?1) AND command = ?2 AND state IN ('done', 'warning')"
        " ORDER BY id DESC LIMIT 1"};
    static const char *const keys[] = {"last", "good"};
    CLEANUP_JV struct jv *o = jv_object();

    h->wait = deadline_in(h->opts.wait_ms);
    for (size_t i = 0; i < ARRAY_SIZE(sql); i++) {
        CLEANUP_STMT sqlite3_stmt *s = db_prepare(h, sql[i], err);
        int r;

        if (s == NULL || db_bind(h, s, err, "tt", machine, command) < 0)
            return -1;
        r = db_step(h, s, err);
        if (r < 0)
            return -1;
        if (jv_set(o, keys[i], r > 0 ? row_json(h, s) : jv_null()) < 0)
            return err_set(err, ERR_SYSTEM, "out of memory for the history");
    }
    *ret = TAKE_PTR(o);
    return 0;
}

/* -- one run ----------------------------------------------------------------*/

/* JSON that was stored as text; null when it is none. */
static struct jv *
stored_json(sqlite3_stmt *s, int i)
{
    const char *text = (const char *)sqlite3_column_text(s, i);
    struct jv *j = NULL;

    if (text == NULL || jv_parse(text, (size_t)sqlite3_column_bytes(s, i),
                                 JV_DEPTH_MAX, &j, NULL) < 0)
        return jv_null();
    return j;
}

static int
add_gap(struct jv *log, int64_t n)
{
    char text[64];

    (void)snprintf(text, sizeof text, "(%" PRId64 " lines left out here)", n);
    return jv_add(log, jv_build("{s:n, s:s}", "ms", "text", text));
}

static int
add_log(struct history *h, int64_t id, struct jv *o, int64_t dropped,
        struct err *err)
{
    CLEANUP_STMT sqlite3_stmt *s = db_prepare(
        h, "SELECT seq, text FROM log WHERE run = ?1 ORDER BY seq", err);
    CLEANUP_JV struct jv *log = jv_array();
    int64_t next = 0;
    int r;

    if (s == NULL || db_bind(h, s, err, "i", id) < 0)
        return -1;
    while ((r = db_step(h, s, err)) > 0) {
        int64_t seq = sqlite3_column_int64(s, 0);
        const char *text = (const char *)sqlite3_column_text(s, 1);

        if (seq != next && add_gap(log, dropped) < 0)
            return -1;
        next = seq + 1;
        if (text != NULL &&
            lines_parse(text, (size_t)sqlite3_column_bytes(s, 1), log) < 0)
            return err_set(err, ERR_SYSTEM, "out of memory for the log");
    }
    return r < 0 ? -1 : jv_set(o, "log", TAKE_PTR(log));
}

static int
add_children(struct history *h, int64_t id, struct jv *o, struct err *err)
{
    CLEANUP_STMT sqlite3_stmt *s = db_prepare(
        h, "SELECT " COLUMNS " FROM run WHERE parent = ?1 ORDER BY id", err);
    const struct history_filter all = {.last = 0};
    CLEANUP_JV struct jv *runs = jv_array();
    char text[24];

    (void)snprintf(text, sizeof text, "%" PRId64, id);
    if (s == NULL || db_bind(h, s, err, "t", text) < 0 ||
        take_rows(h, s, &all, runs, err) < 0)
        return -1;
    return jv_set(o, "children", TAKE_PTR(runs));
}

static int
add_parts(struct history *h, int64_t id, struct jv *o, struct err *err)
{
    CLEANUP_STMT sqlite3_stmt *s =
        db_prepare(h,
                   "SELECT plan, result, warnings, log_dropped FROM run"
                   " WHERE id = ?1",
                   err);
    int64_t dropped;

    if (s == NULL || db_bind(h, s, err, "i", id) < 0 || db_step(h, s, err) <= 0)
        return -1;
    dropped = sqlite3_column_int64(s, 3);
    if (jv_set(o, "plan", stored_json(s, 0)) < 0 ||
        jv_set(o, "result", stored_json(s, 1)) < 0 ||
        jv_set(o, "warnings", stored_json(s, 2)) < 0 ||
        jv_set_int(o, "log_dropped", dropped) < 0 ||
        add_children(h, id, o, err) < 0)
        return -1;
    return add_log(h, id, o, dropped, err);
}

static int
show(struct history *h, int64_t id, struct jv **ret, struct err *err)
{
    CLEANUP_STMT sqlite3_stmt *s =
        db_prepare(h, "SELECT " COLUMNS " FROM run WHERE id = ?1", err);
    CLEANUP_JV struct jv *o = NULL;
    int r;

    if (s == NULL || db_bind(h, s, err, "i", id) < 0)
        return -1;
    r = db_step(h, s, err);
    if (r == 0)
        return err_set(err, ERR_NOT_FOUND,
                       "no run %" PRId64 " in the history; see: tidemark "
                       "history",
                       id);
    o = r > 0 ? row_json(h, s) : NULL;
    if (o == NULL || add_parts(h, id, o, err) < 0) {
        (void)err_set(err, ERR_SYSTEM, "out of memory for the history");
        return -1;
    }
    *ret = TAKE_PTR(o);
    return 0;
}

/* One transaction: the run may go on while it is shown. */
int
history_show(struct history *h, int64_t id, struct jv **ret, struct err *err)
{
    int r;

    h->wait = deadline_in(h->opts.wait_ms);
    if (db_exec(h, "BEGIN", err) < 0)
        return -1;
    r = show(h, id, ret, err);
    (void)sqlite3_exec(h->db, "ROLLBACK", NULL, NULL, NULL);
    return r;
}
