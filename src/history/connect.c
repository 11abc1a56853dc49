/* One connection: whose the database is, and how it is written.
 *
 * A write-ahead log, because a commit then needs no fsync (but for the first one
 * of a log): the main thread of a backup writes here every few seconds, and must
 * not stand behind a disk that is busy with that very backup.  A process that is
 * killed loses nothing; a power cut costs the last moments at most.  Where the
 * file system cannot map shared memory, a rollback journal does the same with an
 * fsync per write.
 */
#include "internal.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "err.h"

static const char schema[] =
    "CREATE TABLE run ("
    " id INTEGER PRIMARY KEY AUTOINCREMENT, command TEXT NOT NULL,"
    " target TEXT, machine TEXT, repository TEXT, repository_id TEXT,"
    " point TEXT, parent TEXT, version TEXT NOT NULL,"
    " pid INTEGER NOT NULL, pid_start INTEGER NOT NULL, scope TEXT NOT NULL,"
    " start_ns INTEGER NOT NULL, end_ns INTEGER, alive_ns INTEGER NOT NULL,"
    " duration_ms INTEGER NOT NULL, state TEXT NOT NULL, exit_status INTEGER,"
    " error TEXT, error_code TEXT, phase TEXT, done INTEGER, total INTEGER,"
    " tracking TEXT, read_bytes INTEGER, new_bytes INTEGER,"
    " stored_bytes INTEGER, plan TEXT, result TEXT, warnings TEXT,"
    " log_dropped INTEGER NOT NULL DEFAULT 0,"
    " has_log INTEGER NOT NULL DEFAULT 0);"
    "CREATE INDEX run_by_machine ON run (machine, command, id);"
    "CREATE INDEX run_by_target ON run (target, id);"
    "CREATE INDEX run_by_start ON run (start_ns);"
    "CREATE INDEX run_by_parent ON run (parent) WHERE parent IS NOT NULL;"
    "CREATE INDEX run_live ON run (id) WHERE state = 'running';"
    "CREATE INDEX run_logged ON run (id) WHERE has_log = 1;"
    "CREATE TABLE log (run INTEGER NOT NULL, seq INTEGER NOT NULL,"
    " n_lines INTEGER NOT NULL, text TEXT NOT NULL,"
    " PRIMARY KEY (run, seq)) WITHOUT ROWID;";

/* -- the database -----------------------------------------------------------*/

static int
on_busy(void *arg, int n)
{
    const struct history *h = arg;

    if (deadline_left(h->wait) == 0)
        return 0;
    (void)usleep(n < 8 ? 1000 : 10000);
    return 1;
}

static int
get_int(struct history *h, const char *sql, int64_t *ret, struct err *err)
{
    CLEANUP_STMT sqlite3_stmt *s = db_prepare(h, sql, err);
    int r = s != NULL ? db_step(h, s, err) : -1;

    if (r > 0)
        *ret = sqlite3_column_int64(s, 0);
    return r < 0 ? -1 : 0;
}

int
db_owner(struct history *h, struct err *err)
{
    int64_t app = 0, version = 0, n = 0;

    if (get_int(h, "PRAGMA application_id", &app, err) < 0 ||
        get_int(h, "PRAGMA user_version", &version, err) < 0 ||
        get_int(h, "SELECT count(*) FROM sqlite_schema", &n, err) < 0)
        return -1;
    if (app == 0 && version == 0 && n == 0)
        return 1;
    if (app != HISTORY_APP_ID)
        return err_set(err, ERR_EXISTS,
                       "'%s' belongs to another program; it is left alone",
                       h->path);
    if (version != HISTORY_VERSION)
        return err_set(err, ERR_UNSUPPORTED,
                       "'%s' is of another version of tidemark (format %lld, "
                       "this one writes %d); it is left alone",
                       h->path, (long long)version, HISTORY_VERSION);
    return 0;
}

static int
set_mode(struct history *h)
{
    sqlite3_stmt *s = NULL;
    const char *mode;
    int rc = sqlite3_prepare_v2(h->db, "PRAGMA journal_mode=WAL", -1, &s, NULL);

    if (rc == SQLITE_OK)
        rc = sqlite3_step(s);
    mode = rc == SQLITE_ROW ? (const char *)sqlite3_column_text(s, 0) : NULL;
    if (mode != NULL && strcmp(mode, "wal") == 0)
        rc = SQLITE_OK;
    (void)sqlite3_finalize(s);
    return rc;
}

/* Read alone, with all others locked out, it can go on with a journal. */
static int
leave_wal(struct history *h, struct err *err)
{
    return db_exec(
        h,
        "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=TRUNCATE;"
        "PRAGMA locking_mode=NORMAL",
        err);
}

/* Whose it is comes first: nothing is changed in what is not ours.  0: ours,
 * written as it should be.  1: the same, and empty. */
static int
journal(struct history *h, struct err *err)
{
    int r = db_owner(h, err), rc;

    if (r < 0)
        return -1;
    rc = h->no_shm ? SQLITE_IOERR_SHMMAP : set_mode(h);
    while ((rc & 0xff) == SQLITE_BUSY && on_busy(h, 8))
        rc = set_mode(h);
    if (rc == SQLITE_OK)
        return r;
    if (rc != SQLITE_IOERR_SHMMAP)
        return db_error(h, rc, "open", err);
    return leave_wal(h, err) < 0 ? -1 : r;
}

static int
create(struct history *h, struct err *err)
{
    char sql[128];
    int r;

    if (db_begin(h, h->opts.wait_ms, err) < 0)
        return -1;
    r = db_owner(h, err); /* another process may have been faster */
    (void)snprintf(sql, sizeof sql,
                   "PRAGMA application_id=%d; PRAGMA user_version=%d",
                   HISTORY_APP_ID, HISTORY_VERSION);
    if (r > 0)
        r = db_exec(h, schema, err) < 0 ? -1 : db_exec(h, sql, err);
    return db_end(h, r, err);
}

void
db_close(struct history *h)
{
    (void)sqlite3_close_v2(TAKE_PTR(h->db));
}

/* No checkpoints on the way: they wait for the disk. */
static const char settings[] =
    "PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON;"
    "PRAGMA temp_store=MEMORY; PRAGMA mmap_size=0;"
    "PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=0";

static int
try_open(struct history *h, const char *name, int flags)
{
    int rc, on;

    h->wait = deadline_in(h->opts.wait_ms);
    rc = sqlite3_open_v2(name, &h->db, flags | SQLITE_OPEN_EXRESCODE, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_busy_handler(h->db, on_busy, h);
    if (rc == SQLITE_OK)
        rc = sqlite3_db_config(h->db, SQLITE_DBCONFIG_DEFENSIVE, 1, &on);
    if (rc == SQLITE_OK && h->no_shm)
        rc = sqlite3_exec(h->db, "PRAGMA locking_mode=EXCLUSIVE", NULL, NULL,
                          NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(h->db, settings, NULL, NULL, NULL);
    return rc;
}

/* The settings look at the file, and so find out whether its log can be read. */
int
db_open(struct history *h, const char *name, int flags, struct err *err)
{
    int rc;

    h->no_shm = false;
    rc = try_open(h, name, flags);
    if (rc == SQLITE_IOERR_SHMMAP) {
        db_close(h);
        h->no_shm = true;
        rc = try_open(h, name, flags);
    }
    return rc == SQLITE_OK ? 0 : db_error(h, rc, "open", err);
}

/* The log is asked for before its shared memory is: only a second look shows
 * that there is none. */
int
db_open_write(struct history *h, struct err *err)
{
    const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    int r = -1;

    for (unsigned i = 0; i < 2; i++) {
        if (db_open(h, h->path, flags, err) < 0)
            return -1;
        r = journal(h, err);
        if (r < 0 || h->no_shm || db_owner(h, NULL) >= 0)
            break;
        db_close(h);
    }
    if (r >= 0 && h->db == NULL)
        return err_set(err, ERR_SYSTEM, "'%s' cannot be read", h->path);
    return r > 0 ? create(h, err) : r;
}
