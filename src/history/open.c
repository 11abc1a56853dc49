/* Opening and closing: the directory, the lock on it, and a handle. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "err.h"
#include "jv.h"

#define READ_WAIT_MS 2000
#define HEAL_WAIT_MS 50 /* while others write, it is no hurry */

/* -- the directory and its lock ---------------------------------------------*/

static int
make_dirs(const char *dir, struct err *err)
{
    CLEANUP_FREE char *path = strdup(dir);

    if (path == NULL)
        return err_set_errno(err, ENOMEM, "history");
    for (char *p = path + 1; p[-1] != '\0'; p++) {
        char was = *p;

        if (was != '/' && was != '\0')
            continue;
        *p = '\0';
        if (mkdir(path, 0700) < 0 && errno != EEXIST && was == '\0')
            return err_set_errno(err, errno, "'%s'", path);
        *p = was;
        if (was == '\0')
            break;
    }
    return 0;
}

/* flock() has no deadline of its own. */
int
history_lock(struct history *h, int how, unsigned ms, struct err *err)
{
    struct deadline d = deadline_in(ms);

    while (flock(h->lock, how | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return err_set_errno(err, errno, "'%s/" HISTORY_LOCK "'", h->dir);
        if (deadline_left(d) == 0)
            return err_set(err, ERR_TIMEOUT, "'%s' is held by another process",
                           h->path);
        (void)usleep(5000);
    }
    return 0;
}

static int
lock_open(struct history *h, struct err *err)
{
    CLEANUP_FREE char *path = NULL;
    int flags = h->writable ? O_RDWR | O_CREAT : O_RDONLY;

    if (asprintf(&path, "%s/" HISTORY_LOCK, h->dir) < 0) {
        path = NULL;
        return err_set_errno(err, ENOMEM, "history");
    }
    h->lock = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (h->lock < 0 && !h->writable)
        return 0; /* nobody writes who has not made it */
    if (h->lock < 0)
        return err_set_errno(err, errno, "'%s'", path);
    return history_lock(h, LOCK_SH, h->opts.wait_ms, err);
}

/* -- open and close ---------------------------------------------------------*/

static struct history *
new_handle(const struct history_opts *opts, bool writable, struct err *err)
{
    struct history *h = calloc(1, sizeof *h);

    if (h != NULL) {
        h->opts = *opts;
        h->lock = -1;
        h->writable = writable;
        lines_init(&h->lines);
        process_self(&h->self);
        h->dir = strdup(opts->dir);
        if (h->dir != NULL &&
            asprintf(&h->path, "%s/" HISTORY_FILE, opts->dir) >= 0)
            return h;
        h->path = NULL;
        history_close(h);
    }
    (void)err_set_errno(err, ENOMEM, "history");
    return NULL;
}

int
history_open(const struct history_opts *opts, struct history **ret,
             struct err *err)
{
    CLEANUP_HISTORY struct history *h = new_handle(opts, true, err);
    struct err why = ERR_INIT;

    if (h == NULL || make_dirs(opts->dir, err) < 0 || lock_open(h, err) < 0)
        return -1;
    if (damage_met(h) && damage_heal(h, HEAL_WAIT_MS, NULL) < 0 &&
        history_lock(h, LOCK_SH, opts->wait_ms, err) < 0)
        return -1; /* others are at work: as if nobody had met it */
    if (db_open_write(h, &why) < 0) {
        db_close(h);
        if (why.code != ERR_CORRUPT)
            return err_copy(err, &why);
        if (damage_heal(h, opts->wait_ms, err) < 0 || db_open_write(h, err) < 0)
            return -1;
    }
    *ret = TAKE_PTR(h);
    return 0;
}

/* Readers need to write, too: the shared memory of a write-ahead log.  Where they
 * may not, and nobody else can either, the file is read as it is. */
static int
open_any(struct history *h, struct err *err)
{
    CLEANUP_FREE char *name = NULL;

    if (access(h->path, W_OK) == 0)
        return db_open(h, h->path, SQLITE_OPEN_READWRITE, err);
    if (db_open(h, h->path, SQLITE_OPEN_READONLY, NULL) == 0 &&
        db_owner(h, NULL) >= 0)
        return 0;
    db_close(h);
    if (strpbrk(h->path, "%?#") != NULL) /* mean something in a URI */
        return err_set_errno(err, EROFS, "'%s'", h->path);
    if (asprintf(&name, "file:%s?immutable=1", h->path) < 0) {
        name = NULL;
        return err_set_errno(err, ENOMEM, "history");
    }
    return db_open(h, name, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, err);
}

int
history_open_read(const char *dir, struct history **ret, struct err *err)
{
    struct history_opts opts = HISTORY_OPTS_INIT;
    CLEANUP_HISTORY struct history *h = NULL;
    int r;

    opts.dir = dir;
    opts.wait_ms = READ_WAIT_MS;
    h = new_handle(&opts, false, err);
    if (h == NULL)
        return -1;
    if (access(h->path, R_OK) < 0)
        return errno == ENOENT ? 1 : err_set_errno(err, errno, "'%s'", h->path);
    if (lock_open(h, err) < 0 || open_any(h, err) < 0)
        return -1;
    r = db_owner(h, err);
    if (r == 0)
        *ret = TAKE_PTR(h);
    return r;
}

const char *
history_moved(const struct history *h)
{
    return h->moved;
}

void
history_close(struct history *h)
{
    if (h == NULL)
        return;
    db_close(h);
    if (h->lock >= 0)
        (void)close(h->lock);
    lines_done(&h->lines);
    jv_free(h->plan);
    free(h->machine);
    free(h->repo);
    free(h->dir);
    free(h->path);
    free(h->moved);
    free(h);
}
