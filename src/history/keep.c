/* How long runs are kept, and the end of those that had none.  Always a few at a
 * time: a run that begins does not wait for the sins of a year. */
#include "internal.h"

#include <stdio.h>

#include "err.h"

#define SETTLE_MAX 64
#define FORGET_MAX 16 /* one comes, sixteen may go */

/* -- runs without an end ----------------------------------------------------*/

bool
keep_is_dead(const struct history *h, sqlite3_stmt *s)
{
    struct history_process p = {.pid = sqlite3_column_int64(s, 1),
                                .start = sqlite3_column_int64(s, 2)};
    const char *scope = (const char *)sqlite3_column_text(s, 3);
    int64_t silent = clock_wall_ns() - sqlite3_column_int64(s, 4);

    (void)snprintf(p.scope, sizeof p.scope, "%s", scope != NULL ? scope : "");
    return process_is_dead(&p, &h->self, silent / 1000000);
}

int
keep_settle(struct history *h, struct err *err)
{
    CLEANUP_STMT sqlite3_stmt *s =
        db_prepare(h,
                   "SELECT " RUN_PROCESS " FROM run"
                   " WHERE state = 'running' ORDER BY id",
                   err);
    int64_t dead[SETTLE_MAX];
    size_t n = 0;
    int r = s != NULL ? 0 : -1;

    while (r == 0 && n < SETTLE_MAX && (r = db_step(h, s, err)) > 0) {
        if (keep_is_dead(h, s))
            dead[n++] = sqlite3_column_int64(s, 0);
        r = 0;
    }
    for (size_t i = 0; r == 0 && i < n; i++)
        r = db_run(h, err,
                   "UPDATE run SET state = 'died', end_ns = alive_ns"
                   " WHERE id = ?1",
                   "i", dead[i]);
    return r;
}

/* -- retention --------------------------------------------------------------*/

/* The newest ones of a machine and a command stay however old they are. */
static const char old_runs[] =
    "SELECT id FROM run AS r WHERE start_ns < ?1 AND state <> 'running'"
    " AND (SELECT count(*) FROM (SELECT 1 FROM run AS newer"
    "  WHERE newer.machine IS r.machine AND newer.command = r.command"
    "  AND newer.id > r.id LIMIT ?2)) >= ?2"
    " ORDER BY start_ns LIMIT ?3";

static int
collect(struct history *h, sqlite3_stmt *s, int64_t *ids, size_t *n,
        struct err *err)
{
    int r = 0;

    while (*n < FORGET_MAX && (r = db_step(h, s, err)) > 0)
        ids[(*n)++] = sqlite3_column_int64(s, 0);
    return r < 0 ? -1 : 0;
}

static int
forget_old(struct history *h, struct err *err)
{
    CLEANUP_STMT sqlite3_stmt *s = db_prepare(h, old_runs, err);
    int64_t before = clock_wall_ns() -
                     (int64_t)h->opts.keep_days * 86400 * 1000000000,
            ids[FORGET_MAX];
    size_t n = 0;

    if (s == NULL ||
        db_bind(h, s, err, "iii", before, (int64_t)h->opts.keep_runs,
                (int64_t)FORGET_MAX) < 0 ||
        collect(h, s, ids, &n, err) < 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        if (db_run(h, err, "DELETE FROM log WHERE run = ?1", "i", ids[i]) < 0 ||
            db_run(h, err, "DELETE FROM run WHERE id = ?1", "i", ids[i]) < 0)
            return -1;
    return 0;
}

/* Bytes that hold something. */
static int
used_bytes(struct history *h, uint64_t *ret, struct err *err)
{
    static const char sql[] =
        "SELECT (page_count - freelist_count) * page_size FROM"
        " pragma_page_count, pragma_freelist_count, pragma_page_size";
    CLEANUP_STMT sqlite3_stmt *s = db_prepare(h, sql, err);
    int r = s != NULL ? db_step(h, s, err) : -1;

    if (r > 0)
        *ret = (uint64_t)sqlite3_column_int64(s, 0);
    return r < 0 ? -1 : 0;
}

/* The log goes long before what a run came to. */
static int
forget_logs(struct history *h, struct err *err)
{
    CLEANUP_STMT sqlite3_stmt *s =
        db_prepare(h,
                   "SELECT id FROM run WHERE has_log = 1 AND state <> 'running'"
                   " ORDER BY id LIMIT ?1",
                   err);
    int64_t ids[FORGET_MAX];
    uint64_t used = 0;
    size_t n = 0;

    if (s == NULL || used_bytes(h, &used, err) < 0)
        return -1;
    if (used <= h->opts.max_bytes)
        return 0;
    if (db_bind(h, s, err, "i", (int64_t)FORGET_MAX) < 0 ||
        collect(h, s, ids, &n, err) < 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        if (db_run(h, err, "DELETE FROM log WHERE run = ?1", "i", ids[i]) < 0 ||
            db_run(h, err, "UPDATE run SET has_log = 0 WHERE id = ?1", "i",
                   ids[i]) < 0)
            return -1;
    return 0;
}

int
keep_forget(struct history *h, struct err *err)
{
    if (forget_old(h, err) < 0)
        return -1;
    return forget_logs(h, err);
}
