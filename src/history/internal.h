/* history/internal.h - the parts of the history among themselves. */
#pragma once

#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "clock.h"
#include "history.h"

#define HISTORY_VERSION 1
#define HISTORY_APP_ID 0x54644d6b /* "TdMk" */
#define HISTORY_FILE "history.db"
#define HISTORY_LOCK "history.lock"       /* shared by all who have it open */
#define HISTORY_DAMAGED "history.damaged" /* somebody met damage */
#define HISTORY_JSON_MAX (4u << 20)       /* of a result; more is left out */

/* -- log.c: lines on their way to the database ------------------------------*/

struct history_lines {
    pthread_mutex_t lock;
    struct buf text; /* "MS LINE\n"...; lock */
    uint64_t n_lost; /* lines that found no room; lock */
    uint64_t start_ms;
};

void lines_init(struct history_lines *l);
void lines_done(struct history_lines *l);
void lines_add(struct history_lines *l, const char *line);
/* Take what is there, with a word about what was lost: *ret is the caller's, the
 * buffer is empty again. */
void lines_take(struct history_lines *l, struct buf *ret);
/* Put back in front what could not be written. */
void lines_return(struct history_lines *l, struct buf *text);
/* Text of the database as [{"ms","text"}]; pure.  What does not parse is shown
 * as it is. */
int lines_parse(const char *text, size_t len, struct jv *array);

/* -- alive.c: who writes, and is it still there? ----------------------------*/

#define SCOPE_MAX 160

struct history_process {
    int64_t pid;
    int64_t start; /* clock ticks since boot; 0: not known */
    char scope
        [SCOPE_MAX]; /* boot and name space of process ids; "": not known */
};

void process_self(struct history_process *p);
/* Field 22 of /proc/PID/stat; false when the text is something else.  Pure. */
bool process_parse_start(const char *stat, int64_t *ret);
/* `silent_ms`: since it last wrote, by the wall clock. */
bool process_is_dead(const struct history_process *p,
                     const struct history_process *self, int64_t silent_ms);

/* -- the handle -------------------------------------------------------------*/

/* The first half of a log stays; behind it the oldest rows make room. */
struct log_ring {
    uint64_t head_bytes, tail_bytes;
    int64_t next_seq;
    int64_t tail_seq; /* first row of the ring; 0: not begun */
};

struct history {
    struct history_opts opts;
    char *dir, *path, *moved;
    int lock; /* descriptor; shared while the database is open */
    sqlite3 *db;
    struct deadline wait; /* of the busy handler */
    bool writable;
    bool no_shm; /* a file system that cannot map shared memory */
    struct history_process self;
    /* The run, if any. */
    int64_t id;
    uint64_t start_ms, flushed_ms;
    struct history_lines lines;
    struct log_ring ring; /* as it is in the database */
    char phase[32];
    uint64_t done, total;
    char *machine, *repo; /* of history_about(), or NULL */
    struct jv *plan;      /* not written yet, or NULL */
};

/* -- open.c, connect.c, damage.c --------------------------------------------*/

/* Change the lock: LOCK_SH or LOCK_EX.  After a failure there may be none. */
int history_lock(struct history *h, int how, unsigned ms, struct err *err);
/* A connection with SQLite's SQLITE_OPEN_ flags; and one that may create. */
int db_open(struct history *h, const char *name, int flags, struct err *err);
int db_open_write(struct history *h, struct err *err);
void db_close(struct history *h);
/* 0: the database is ours.  1: it is empty. */
int db_owner(struct history *h, struct err *err);
/* Did somebody meet damage? */
bool damage_met(const struct history *h);
/* Alone with the file, which others have left after `ms` at most, look closer,
 * and move it aside if it is damaged.  The connection must be closed. */
int damage_heal(struct history *h, unsigned ms, struct err *err);

/* -- db.c: statements with words for their errors ---------------------------*/

/* The error of the last call on `h`; -1.  Damage is remembered for the next
 * one who opens for writing. */
int db_error(struct history *h, int rc, const char *what, struct err *err);
bool db_is_damage(int rc);
/* One or several statements without values. */
int db_exec(struct history *h, const char *sql, struct err *err);
/* Compile; NULL with *err. */
sqlite3_stmt *db_prepare(struct history *h, const char *sql, struct err *err);
/* Values by type: "i" int64_t, "t" text or NULL, "b" struct buf *, in order. */
int db_bind(struct history *h, sqlite3_stmt *s, struct err *err,
            const char *types, ...);
/* 1: a row, 0: done, -1. */
int db_step(struct history *h, sqlite3_stmt *s, struct err *err);
/* Prepare, bind, run to the end. */
int db_run(struct history *h, struct err *err, const char *sql,
           const char *types, ...);
/* BEGIN IMMEDIATE, waiting at most `ms`. */
int db_begin(struct history *h, unsigned ms, struct err *err);
/* Commit when `result` is 0, else roll back; the result, or -1. */
int db_end(struct history *h, int result, struct err *err);

static inline void
db_finalizep(sqlite3_stmt **s)
{
    (void)sqlite3_finalize(*s); /* its error was seen by db_step() */
}
#define CLEANUP_STMT CLEANUP(db_finalizep)

/* -- keep.c -----------------------------------------------------------------*/

/* Is the process of this row gone?  Its columns begin with RUN_PROCESS. */
#define RUN_PROCESS "id, pid, pid_start, scope, alive_ns"
bool keep_is_dead(const struct history *h, sqlite3_stmt *s);
/* Give an end to runs whose process is gone.  Inside a transaction. */
int keep_settle(struct history *h, struct err *err);
/* Forget what is too old or too much, a few runs at a time.  Likewise. */
int keep_forget(struct history *h, struct err *err);
