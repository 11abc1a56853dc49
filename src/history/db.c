/* SQLite calls with words for their errors and a deadline for their waits. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "err.h"

/* -- errors -----------------------------------------------------------------*/

bool
db_is_damage(int rc)
{
    return (rc & 0xff) == SQLITE_CORRUPT || (rc & 0xff) == SQLITE_NOTADB;
}

/* The next one who opens for writing looks closer (damage.c). */
static void
remember_damage(const struct history *h)
{
    CLEANUP_FREE char *path = NULL;
    CLEANUP_CLOSE int fd = -1;

    if (asprintf(&path, "%s/" HISTORY_DAMAGED, h->dir) < 0) {
        path = NULL;
        return;
    }
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
}

int
db_error(struct history *h, int rc, const char *what, struct err *err)
{
    int sys = h->db != NULL ? sqlite3_system_errno(h->db) : 0;

    if (db_is_damage(rc)) {
        remember_damage(h);
        return err_set(err, ERR_CORRUPT, "'%s' is damaged (%s)", h->path,
                       sqlite3_errstr(rc));
    }
    switch (rc & 0xff) {
    case SQLITE_FULL:
        return err_set_errno(err, ENOSPC, "'%s'", h->path);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
        return err_set(err, ERR_TIMEOUT, "'%s' is held by another process",
                       h->path);
    case SQLITE_NOMEM:
        return err_set_errno(err, ENOMEM, "'%s'", h->path);
    case SQLITE_READONLY:
        return err_set_errno(err, EROFS, "'%s'", h->path);
    case SQLITE_CANTOPEN:
    case SQLITE_IOERR:
    case SQLITE_PERM:
        if (sys != 0)
            return err_set_errno(err, sys, "'%s'", h->path);
        break;
    default:
        break;
    }
    return err_set(err, ERR_SYSTEM, "'%s': %s: %s", h->path, what,
                   h->db != NULL ? sqlite3_errmsg(h->db) : sqlite3_errstr(rc));
}

/* -- statements -------------------------------------------------------------*/

int
db_exec(struct history *h, const char *sql, struct err *err)
{
    int rc = sqlite3_exec(h->db, sql, NULL, NULL, NULL);

    return rc == SQLITE_OK ? 0 : db_error(h, rc, "write", err);
}

sqlite3_stmt *
db_prepare(struct history *h, const char *sql, struct err *err)
{
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(h->db, sql, -1, &s, NULL);

    if (rc == SQLITE_OK)
        return s;
    (void)db_error(h, rc, "look", err);
    return NULL;
}

static int
bind_one(sqlite3_stmt *s, int i, char type, va_list *ap)
{
    const struct buf *b;

    switch (type) {
    case 'i':
        return sqlite3_bind_int64(s, i, va_arg(*ap, int64_t));
    case 't':
        return sqlite3_bind_text(s, i, va_arg(*ap, const char *), -1,
                                 SQLITE_TRANSIENT);
    case 'b':
        b = va_arg(*ap, const struct buf *);
        return sqlite3_bind_text(s, i, (const char *)b->data, (int)b->len,
                                 SQLITE_TRANSIENT);
    default:
        return SQLITE_MISUSE;
    }
}

static int
bind_all(struct history *h, sqlite3_stmt *s, struct err *err, const char *types,
         va_list *ap)
{
    for (int i = 0; types[i] != '\0'; i++) {
        int rc = bind_one(s, i + 1, types[i], ap);

        if (rc != SQLITE_OK)
            return db_error(h, rc, "value", err);
    }
    return 0;
}

int
db_bind(struct history *h, sqlite3_stmt *s, struct err *err, const char *types,
        ...)
{
    va_list ap;
    int r;

    va_start(ap, types);
    r = bind_all(h, s, err, types, &ap);
    va_end(ap);
    return r;
}

int
db_step(struct history *h, sqlite3_stmt *s, struct err *err)
{
    int rc = sqlite3_step(s);

    if (rc == SQLITE_ROW)
        return 1;
    return rc == SQLITE_DONE ? 0 : db_error(h, rc, "read", err);
}

int
db_run(struct history *h, struct err *err, const char *sql, const char *types,
       ...)
{
    CLEANUP_STMT sqlite3_stmt *s = db_prepare(h, sql, err);
    va_list ap;
    int r;

    if (s == NULL)
        return -1;
    va_start(ap, types);
    r = bind_all(h, s, err, types, &ap);
    va_end(ap);
    while (r == 0 && (r = db_step(h, s, err)) > 0)
        r = 0;
    return r;
}

/* -- transactions -----------------------------------------------------------*/

int
db_begin(struct history *h, unsigned ms, struct err *err)
{
    h->wait = deadline_in(ms);
    return db_exec(h, "BEGIN IMMEDIATE", err);
}

int
db_end(struct history *h, int result, struct err *err)
{
    if (result == 0 && db_exec(h, "COMMIT", err) == 0)
        return 0;
    if (sqlite3_get_autocommit(h->db) == 0)
        (void)sqlite3_exec(h->db, "ROLLBACK", NULL, NULL, NULL);
    return -1;
}
