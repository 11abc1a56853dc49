/* What becomes of a damaged database: it is moved aside, and a new one begins.
 *
 * Everybody who has the database open holds a shared lock on a file beside it.
 * Only who gets it exclusively may move the database: nobody goes on writing to a
 * name that has become another file.
 */
#include "internal.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "cleanup.h"
#include "err.h"

#define CHECK_MS 1000 /* for a closer look */

static void
move_one(struct history *h, const char *suffix)
{
    char from[PATH_MAX], to[PATH_MAX];

    if (snprintf(from, sizeof from, "%s%s", h->path, suffix) < PATH_MAX &&
        snprintf(to, sizeof to, "%s%s", h->moved, suffix) < PATH_MAX)
        (void)rename(from, to);
}

/* Its log first: a log of a file that is gone would be read into the new one. */
static int
move_aside(struct history *h, struct err *err)
{
    char time[CLOCK_TEXT_MAX];

    clock_text(clock_wall_ns(), time, sizeof time);
    free(TAKE_PTR(h->moved));
    if (asprintf(&h->moved, "%s.damaged-%s", h->path, time) < 0) {
        h->moved = NULL;
        return err_set_errno(err, ENOMEM, "history");
    }
    move_one(h, "-wal");
    move_one(h, "-shm");
    move_one(h, "-journal");
    if (rename(h->path, h->moved) < 0)
        return err_set_errno(err, errno, "move the damaged '%s' aside",
                             h->path);
    return 0;
}

static int
check_late(void *arg)
{
    const struct history *h = arg;

    return deadline_left(h->wait) == 0;
}

/* True when damage is certain; a check that takes too long proves nothing. */
static bool
check_closer(struct history *h)
{
    CLEANUP_STMT sqlite3_stmt *s = NULL;
    const char *text = NULL;
    int rc = SQLITE_OK;

    if (db_open(h, h->path, SQLITE_OPEN_READWRITE, NULL) == 0) {
        h->wait = deadline_in(CHECK_MS);
        sqlite3_progress_handler(h->db, 1000, check_late, h);
        rc = sqlite3_prepare_v2(h->db, "PRAGMA quick_check(1)", -1, &s, NULL);
        if (rc == SQLITE_OK)
            rc = sqlite3_step(s);
        if (rc == SQLITE_ROW)
            text = (const char *)sqlite3_column_text(s, 0);
    } else if (h->db != NULL) {
        rc = sqlite3_errcode(h->db);
    }
    return db_is_damage(rc) || (text != NULL && strcmp(text, "ok") != 0);
}

int
damage_heal(struct history *h, unsigned ms, struct err *err)
{
    CLEANUP_FREE char *marker = NULL;
    bool damaged;

    if (asprintf(&marker, "%s/" HISTORY_DAMAGED, h->dir) < 0) {
        marker = NULL;
        return err_set_errno(err, ENOMEM, "history");
    }
    if (history_lock(h, LOCK_EX, ms, err) < 0)
        return -1;
    damaged = check_closer(h);
    db_close(h);
    if (damaged && move_aside(h, err) < 0)
        return -1;
    (void)unlink(marker);
    return history_lock(h, LOCK_SH, h->opts.wait_ms, err);
}

bool
damage_met(const struct history *h)
{
    char path[PATH_MAX];

    return snprintf(path, sizeof path, "%s/" HISTORY_DAMAGED, h->dir) <
               PATH_MAX &&
           access(path, F_OK) == 0;
}
