/* tests/lib/cut_ops.h - a file system whose Nth operation goes wrong, or at
 * whose Nth operation the power goes.
 *
 * More than faulty_ops.h it remembers removals: what was removed and not synced
 * may be there again after a cut.  Nothing is synced for real.  A cut takes back
 * what was not synced, all of it or a random part of it in no order (directories
 * promise none), and tears files whose bytes were not synced.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fileops.h"
#include "tmpdir.h"

enum cut_mode {
    CUT_NEVER,  /* only count */
    CUT_EIO,    /* the Nth operation fails, later ones work */
    CUT_LATE,   /* the same, but it was done: only the answer was lost */
    CUT_ENOSPC, /* the Nth and all later ones that need space fail */
    CUT_SHORT,  /* the Nth, if it reads or writes, does half */
    CUT_DEATH,  /* the Nth and all later ones fail: the process is gone */
    CUT_POWER,  /* the same, and nothing that was not synced is left */
    CUT_TORN,   /* the same, and a random part of it is left */
    CUT_N_MODES,
};

static const char *const cut_names[CUT_N_MODES] = {
    "none",  "error", "late error", "no space",
    "short", "death", "power cut",  "torn"};

#define CUT_PENDING 4096
#define CUT_PATH 256
#define CUT_FDS 1024

enum cut_what { CUT_ADDED, CUT_MADE_DIR, CUT_REMOVED, CUT_REMOVED_DIR };

/* A change of a name that its directory has not synced. */
struct cut_change {
    enum cut_what what;
    char path[CUT_PATH];
    unsigned grave; /* removed: the file is kept under this number */
};

/* A file whose bytes are not synced. */
struct cut_file {
    int fd; /* own descriptor */
    dev_t dev;
    ino_t ino;
};

static struct {
    char graves[CUT_PATH]; /* directory for removed files, or "" */
    pthread_mutex_t lock;
    /* protected by lock */
    enum cut_mode mode;
    unsigned at, n; /* fail the at-th; n so far */
    bool hit;
    uint64_t random;
    struct cut_change changes[CUT_PENDING];
    unsigned n_changes, n_graves;
    ino_t buried[CUT_PENDING]; /* by grave */
    struct cut_file files[CUT_FDS];
    unsigned n_files;
    char dirs[CUT_FDS][CUT_PATH]; /* path of what is open, by descriptor */
} cut = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* -- counting ---------------------------------------------------------------*/

static inline void
cut_start(enum cut_mode mode, unsigned at)
{
    while (cut.n_files > 0)
        (void)close(cut.files[--cut.n_files].fd);
    cut.mode = mode;
    cut.at = at;
    cut.n = 0;
    cut.hit = false;
    cut.n_changes = 0;
    cut.random = 0x9e3779b97f4a7c15u * (at + 1);
}

static inline bool
cut_dies(void)
{
    return cut.mode >= CUT_DEATH;
}

/* Count one operation: 0, or the errno it fails with; -1: do half of it; -2: do
 * it and fail with EIO. */
static inline int
cut_next(bool needs_space)
{
    int r = 0;

    (void)pthread_mutex_lock(&cut.lock);
    cut.n++;
    if (cut.mode == CUT_ENOSPC)
        r = cut.n >= cut.at && needs_space ? ENOSPC : 0;
    else if (cut_dies())
        r = cut.n >= cut.at ? EIO : 0;
    else if (cut.mode != CUT_NEVER && cut.n == cut.at)
        r = cut.mode == CUT_EIO ? EIO : cut.mode == CUT_LATE ? -2 : -1;
    cut.hit |= r != 0;
    (void)pthread_mutex_unlock(&cut.lock);
    return r;
}

static inline int
cut_end(int r, int result)
{
    if (r != -2)
        return result;
    errno = EIO;
    return -1;
}

static inline int
cut_fail(int r)
{
    errno = r;
    return -1;
}

static inline uint64_t
cut_random(void)
{
    cut.random ^= cut.random << 13;
    cut.random ^= cut.random >> 7;
    cut.random ^= cut.random << 17;
    return cut.random >> 11;
}

/* Between two runs: nothing that was removed can come back any more. */
static inline void
cut_empty_graves(void)
{
    tmpdir_remove(cut.graves);
    (void)mkdir(cut.graves, 0700);
    cut.n_graves = 0;
}

/* -- what is not synced -----------------------------------------------------*/

static inline void
cut_note(enum cut_what what, const char *path, unsigned grave)
{
    struct cut_change *c;

    (void)pthread_mutex_lock(&cut.lock);
    if (cut.n_changes == CUT_PENDING || strlen(path) >= CUT_PATH)
        abort();
    c = &cut.changes[cut.n_changes++];
    c->what = what;
    c->grave = grave;
    (void)strcpy(c->path, path);
    (void)pthread_mutex_unlock(&cut.lock);
}

static inline void
cut_grave_path(unsigned grave, char path[2 * CUT_PATH])
{
    (void)snprintf(path, 2 * CUT_PATH, "%s/%u", cut.graves, grave);
}

static inline void
cut_sync_names_locked(const char *dir)
{
    size_t len = strlen(dir);
    unsigned kept = 0;

    for (unsigned i = 0; i < cut.n_changes; i++) {
        const char *p = cut.changes[i].path;

        if (strncmp(p, dir, len) != 0 || p[len] != '/' ||
            strchr(p + len + 1, '/') != NULL)
            cut.changes[kept++] = cut.changes[i];
    }
    cut.n_changes = kept;
}

static inline void
cut_sync_file_locked(int fd)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return;
    for (unsigned i = 0; i < cut.n_files; i++) {
        if (cut.files[i].ino != st.st_ino || cut.files[i].dev != st.st_dev)
            continue;
        (void)close(cut.files[i].fd);
        cut.files[i--] = cut.files[--cut.n_files];
    }
}

static inline void
cut_note_file(int fd)
{
    struct cut_file *f;
    struct stat st;

    if (fstat(fd, &st) < 0)
        abort();
    (void)pthread_mutex_lock(&cut.lock);
    if (cut.n_files == CUT_FDS)
        abort();
    f = &cut.files[cut.n_files++];
    f->fd = dup(fd);
    f->dev = st.st_dev;
    f->ino = st.st_ino;
    (void)pthread_mutex_unlock(&cut.lock);
}

/* -- operations -------------------------------------------------------------*/

static inline int
cut_open(const char *path, int flags, mode_t mode)
{
    bool new = (flags & O_CREAT) != 0;
    int r = cut_next(new), fd;

    if (r > 0 || r == -2) /* late: nobody could close it */
        return cut_fail(r > 0 ? r : EIO);
    fd = open(path, flags, mode);
    if (fd < 0)
        return -1;
    if (fd >= CUT_FDS || strlen(path) >= CUT_PATH)
        abort();
    (void)pthread_mutex_lock(&cut.lock);
    (void)strcpy(cut.dirs[fd], path);
    (void)pthread_mutex_unlock(&cut.lock);
    if (new) {
        cut_note(CUT_ADDED, path, 0);
        cut_note_file(fd);
    }
    return fd;
}

static inline ssize_t
cut_pread(int fd, void *buf, size_t len, off_t off)
{
    int r = cut_next(false);

    if (r > 0 || r == -2)
        return cut_fail(EIO);
    return pread(fd, buf, r < 0 && len > 1 ? len / 2 : len, off);
}

static inline ssize_t
cut_pwrite(int fd, const void *buf, size_t len, off_t off)
{
    int r = cut_next(true);
    ssize_t n;

    if ((r == ENOSPC || cut_dies()) && r > 0 && len > 1)
        (void)!pwrite(fd, buf, len / 2, off); /* as real ones do */
    if (r > 0)
        return cut_fail(r);
    n = pwrite(fd, buf, r == -1 && len > 1 ? len / 2 : len, off);
    return r == -2 ? cut_fail(EIO) : n;
}

static inline int
cut_fsync(int fd)
{
    int r = cut_next(true);

    if (r > 0)
        return cut_fail(r);
    (void)pthread_mutex_lock(&cut.lock);
    cut_sync_names_locked(cut.dirs[fd]);
    cut_sync_file_locked(fd);
    (void)pthread_mutex_unlock(&cut.lock);
    return cut_end(r, 0);
}

static inline int
cut_close(int fd)
{
    int r = cut_next(false);

    (void)close(fd);
    return r > 0 || r == -2 ? cut_fail(EIO) : 0;
}

static inline int
cut_link(const char *from, const char *to)
{
    int r = cut_next(true);

    if (r > 0)
        return cut_fail(r);
    if (link(from, to) < 0)
        return -1;
    cut_note(CUT_ADDED, to, 0);
    return cut_end(r, 0);
}

static inline int
cut_rename(const char *from, const char *to)
{
    (void)from;
    (void)to;
    abort(); /* a store does not rename */
}

static inline int
cut_unlink(const char *path)
{
    char kept[2 * CUT_PATH];
    struct stat st;
    unsigned grave;
    int r = cut_next(false);

    if (r > 0)
        return cut_fail(r);
    if (stat(path, &st) < 0)
        return -1;
    (void)pthread_mutex_lock(&cut.lock);
    if (cut.n_graves == CUT_PENDING)
        abort();
    grave = cut.n_graves++;
    cut.buried[grave] = st.st_ino;
    (void)pthread_mutex_unlock(&cut.lock);
    cut_grave_path(grave, kept);
    if (link(path, kept) < 0 || unlink(path) < 0)
        return -1;
    cut_note(CUT_REMOVED, path, grave);
    return cut_end(r, 0);
}

static inline int
cut_mkdir(const char *path, mode_t mode)
{
    int r = cut_next(true);

    if (r > 0)
        return cut_fail(r);
    if (mkdir(path, mode) < 0)
        return -1;
    cut_note(CUT_MADE_DIR, path, 0);
    return cut_end(r, 0);
}

static inline int
cut_rmdir(const char *path)
{
    int r = cut_next(false);

    if (r > 0)
        return cut_fail(r);
    if (rmdir(path) < 0)
        return -1;
    cut_note(CUT_REMOVED_DIR, path, 0);
    return cut_end(r, 0);
}

static inline int
cut_stat(const char *path, struct stat *st)
{
    int r = cut_next(false);

    if (r > 0 || r == -2)
        return cut_fail(EIO);
    if (stat(path, st) < 0)
        return -1;
    (void)pthread_mutex_lock(&cut.lock);
    for (unsigned i = 0; i < cut.n_graves; i++)
        st->st_nlink -= cut.buried[i] == st->st_ino;
    (void)pthread_mutex_unlock(&cut.lock);
    return 0;
}

static const struct file_ops cut_ops = {
    .open = cut_open,
    .pread = cut_pread,
    .pwrite = cut_pwrite,
    .fsync = cut_fsync,
    .close = cut_close,
    .link = cut_link,
    .rename = cut_rename,
    .unlink = cut_unlink,
    .mkdir = cut_mkdir,
    .rmdir = cut_rmdir,
    .stat = cut_stat,
};

/* -- the cut ----------------------------------------------------------------*/

static inline void
cut_undo(const struct cut_change *c)
{
    char kept[2 * CUT_PATH];

    if (c->what == CUT_ADDED)
        (void)unlink(c->path);
    else if (c->what == CUT_MADE_DIR)
        tmpdir_remove(c->path);
    else if (c->what == CUT_REMOVED_DIR)
        (void)mkdir(c->path, 0700);
    if (c->what != CUT_REMOVED)
        return;
    cut_grave_path(c->grave, kept);
    (void)!link(kept, c->path); /* its directory may be gone for good */
}

/* The bytes of a file that were not synced: none, or some, or a hole. */
static inline void
cut_tear(const struct cut_file *f)
{
    static const char zeroes[4096];
    off_t len = lseek(f->fd, 0, SEEK_END);

    if (cut.mode == CUT_TORN && len > 0 && cut_random() % 2 == 0)
        (void)!pwrite(f->fd, zeroes, sizeof zeroes,
                      (off_t)(cut_random() % (uint64_t)len));
    else
        (void)!ftruncate(f->fd, cut.mode == CUT_TORN && len > 0
                                    ? (off_t)(cut_random() % (uint64_t)len)
                                    : 0);
}

/* What a power cut leaves, for the modes that are one; then all works again. */
static inline void
cut_power(void)
{
    bool torn = cut.mode == CUT_TORN;

    if (cut.mode >= CUT_POWER) {
        for (unsigned i = 0; i < cut.n_files; i++)
            cut_tear(&cut.files[i]);
        while (cut.n_changes > 0) {
            const struct cut_change *c = &cut.changes[--cut.n_changes];

            if (!torn || cut_random() % 2 == 0)
                cut_undo(c);
        }
    }
    cut_start(CUT_NEVER, 0);
}
