#include "ground.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>

#include "clock.h"
#include "err.h"
#include "jv.h"

char ground[TMPDIR_MAX];

void
ground_make(void)
{
    tmpdir_make(ground);
}

void
ground_remove(void)
{
    tmpdir_remove(ground);
}

struct history_opts
ground_opts(void)
{
    struct history_opts o = HISTORY_OPTS_INIT;

    o.dir = ground;
    o.wait_ms = 30000;
    return o;
}

struct history *
ground_open(void)
{
    struct history_opts o = ground_opts();
    struct history *h = NULL;
    struct err err = ERR_INIT;

    if (history_open(&o, &h, &err) < 0) {
        printf("# %s\n", err.msg);
        abort();
    }
    return h;
}

struct history *
ground_run(const char *command, const char *machine)
{
    struct history *h = ground_open();
    const struct history_start s = {.command = command, .machine = machine};

    (void)history_begin(h, &s, ERR_ABORT);
    return h;
}

void
ground_end(struct history *h, const char *state)
{
    const struct history_end e = {.state = state};

    (void)history_end(h, &e, ERR_ABORT);
    history_close(h);
}

struct jv *
ground_list(void)
{
    const struct history_filter all = {.last = 0};
    struct history *h = NULL;
    struct jv *runs = NULL;

    if (history_open_read(ground, &h, ERR_ABORT) == 0)
        (void)history_list(h, &all, &runs, ERR_ABORT);
    history_close(h);
    return runs;
}

struct jv *
ground_show(int64_t id)
{
    struct history *h = NULL;
    struct jv *run = NULL;

    if (history_open_read(ground, &h, ERR_ABORT) == 0)
        (void)history_show(h, id, &run, ERR_ABORT);
    history_close(h);
    return run;
}

static sqlite3 *
raw(void)
{
    char path[TMPDIR_MAX + 16];
    sqlite3 *db = NULL;

    (void)snprintf(path, sizeof path, "%s/history.db", ground);
    if (sqlite3_open(path, &db) != SQLITE_OK)
        abort();
    (void)sqlite3_busy_timeout(db, 10000);
    return db;
}

void
ground_sql(const char *sql)
{
    sqlite3 *db = raw();

    if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK) {
        printf("# %s: %s\n", sql, sqlite3_errmsg(db));
        abort();
    }
    (void)sqlite3_close(db);
}

int64_t
ground_number(const char *sql)
{
    sqlite3 *db = raw();
    sqlite3_stmt *s = NULL;
    int64_t n = -1;

    if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) == SQLITE_OK &&
        sqlite3_step(s) == SQLITE_ROW)
        n = sqlite3_column_int64(s, 0);
    (void)sqlite3_finalize(s);
    (void)sqlite3_close(db);
    return n;
}

int
ground_wait(pid_t pid)
{
    struct deadline d = deadline_in(60000);
    int status = -1;

    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (deadline_left(d) == 0) {
            printf("# process %d does not end\n", (int)pid);
            (void)kill(pid, SIGKILL);
            (void)waitpid(pid, &status, 0);
            return -1;
        }
        (void)poll(NULL, 0, 2);
    }
    return status;
}
