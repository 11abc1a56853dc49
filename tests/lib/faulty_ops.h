/* tests/lib/faulty_ops.h - a file system whose Nth operation goes wrong.
 *
 * Nothing is synced for real: fsync() only notes what a power cut would keep.
 * faulty_power_cut() then takes away what was not synced: the bytes of files
 * and the names of files and directories.
 */
#pragma once

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fileops.h"
#include "tmpdir.h"

enum faulty_mode {
    FAULTY_EIO,    /* the Nth operation fails, later ones work */
    FAULTY_ENOSPC, /* the Nth that needs space fails, and all later ones */
    FAULTY_SHORT,  /* the Nth operation, if a write or read, does half */
    FAULTY_CRASH,  /* the Nth and all later ones fail */
    FAULTY_N_MODES,
};

#define FAULTY_FILES 1024
#define FAULTY_PATH 512

struct faulty_name {
    char path[FAULTY_PATH];
    bool is_dir;
};

static struct {
    pthread_mutex_t lock;
    /* protected by lock */
    enum faulty_mode mode;
    unsigned at, n; /* fail the at-th; n so far */
    bool hit;
    char fd_path[FAULTY_FILES][FAULTY_PATH]; /* by descriptor */
    int unsynced[FAULTY_FILES]; /* own descriptors of files, by descriptor */
    struct faulty_name names[FAULTY_FILES]; /* not synced, in order */
    unsigned n_names;
} faulty = {.lock = PTHREAD_MUTEX_INITIALIZER};

static inline void
faulty_start(enum faulty_mode mode, unsigned at)
{
    faulty.mode = mode;
    faulty.at = at;
    faulty.n = 0;
    faulty.hit = false;
    faulty.n_names = 0;
    for (unsigned i = 0; i < FAULTY_FILES; i++)
        faulty.unsynced[i] = -1;
}

/* Count one operation: 0, or the errno it fails with.  -1: do half of it. */
static inline int
faulty_next(bool needs_space)
{
    int r = 0;

    (void)pthread_mutex_lock(&faulty.lock);
    faulty.n++;
    if (faulty.mode == FAULTY_ENOSPC) {
        if (faulty.n >= faulty.at && needs_space)
            r = ENOSPC;
    } else if (faulty.mode == FAULTY_CRASH) {
        r = faulty.n >= faulty.at ? EIO : 0;
    } else if (faulty.n == faulty.at) {
        r = faulty.mode == FAULTY_EIO ? EIO : -1;
    }
    faulty.hit |= r != 0;
    (void)pthread_mutex_unlock(&faulty.lock);
    return r;
}

static inline int
faulty_fail(int r)
{
    errno = r;
    return -1;
}

static inline void
faulty_note_name(const char *path, bool is_dir)
{
    (void)pthread_mutex_lock(&faulty.lock);
    if (faulty.n_names == FAULTY_FILES || strlen(path) >= FAULTY_PATH)
        abort();
    strcpy(faulty.names[faulty.n_names].path, path);
    faulty.names[faulty.n_names++].is_dir = is_dir;
    (void)pthread_mutex_unlock(&faulty.lock);
}

static inline int
faulty_open(const char *path, int flags, mode_t mode)
{
    int r = faulty_next((flags & O_CREAT) != 0), fd;

    if (r > 0)
        return faulty_fail(r);
    fd = open(path, flags, mode);
    if (fd < 0)
        return -1;
    if (fd >= FAULTY_FILES || strlen(path) >= FAULTY_PATH)
        abort();
    (void)pthread_mutex_lock(&faulty.lock);
    strcpy(faulty.fd_path[fd], path);
    faulty.unsynced[fd] = (flags & O_CREAT) != 0 ? dup(fd) : -1;
    (void)pthread_mutex_unlock(&faulty.lock);
    return fd;
}

static inline ssize_t
faulty_pread(int fd, void *buf, size_t len, off_t off)
{
    int r = faulty_next(false);

    if (r > 0)
        return faulty_fail(r);
    return pread(fd, buf, r < 0 && len > 1 ? len / 2 : len, off);
}

static inline ssize_t
faulty_pwrite(int fd, const void *buf, size_t len, off_t off)
{
    int r = faulty_next(true);

    if (r == ENOSPC && len > 1)
        (void)!pwrite(fd, buf, len / 2, off); /* as real ones do */
    if (r > 0)
        return faulty_fail(r);
    return pwrite(fd, buf, r < 0 && len > 1 ? len / 2 : len, off);
}

/* Names in the directory `path` are durable now. */
static inline void
faulty_sync_names(const char *path)
{
    unsigned kept = 0;
    size_t len = strlen(path);

    for (unsigned i = 0; i < faulty.n_names; i++) {
        const char *p = faulty.names[i].path;

        if (strncmp(p, path, len) == 0 && p[len] == '/' &&
            strchr(p + len + 1, '/') == NULL)
            continue;
        faulty.names[kept++] = faulty.names[i];
    }
    faulty.n_names = kept;
}

static inline int
faulty_fsync(int fd)
{
    int r = faulty_next(true);

    if (r > 0)
        return faulty_fail(r);
    (void)pthread_mutex_lock(&faulty.lock);
    faulty_sync_names(faulty.fd_path[fd]);
    if (faulty.unsynced[fd] >= 0)
        (void)close(faulty.unsynced[fd]);
    faulty.unsynced[fd] = -1;
    (void)pthread_mutex_unlock(&faulty.lock);
    return 0;
}

/* A file that was closed without fsync() is lost by a power cut; its own
 * descriptor moves aside because this number is used again. */
static inline int
faulty_close(int fd)
{
    int r = faulty_next(false);

    (void)pthread_mutex_lock(&faulty.lock);
    if (faulty.unsynced[fd] >= 0) {
        (void)!ftruncate(faulty.unsynced[fd], 0);
        (void)close(faulty.unsynced[fd]);
        faulty.unsynced[fd] = -1;
    }
    (void)close(fd);
    (void)pthread_mutex_unlock(&faulty.lock);
    return r > 0 ? faulty_fail(r) : 0;
}

static inline int
faulty_link(const char *from, const char *to)
{
    int r = faulty_next(true);

    if (r > 0)
        return faulty_fail(r);
    if (link(from, to) < 0)
        return -1;
    faulty_note_name(to, false);
    return 0;
}

static inline int
faulty_rename(const char *from, const char *to)
{
    int r = faulty_next(true);

    return r > 0 ? faulty_fail(r) : rename(from, to);
}

static inline int
faulty_unlink(const char *path)
{
    int r = faulty_next(false);

    return r > 0 ? faulty_fail(r) : unlink(path);
}

static inline int
faulty_mkdir(const char *path, mode_t mode)
{
    int r = faulty_next(true);

    if (r > 0)
        return faulty_fail(r);
    if (mkdir(path, mode) < 0)
        return -1;
    faulty_note_name(path, true);
    return 0;
}

static inline int
faulty_rmdir(const char *path)
{
    int r = faulty_next(false);

    return r > 0 ? faulty_fail(r) : rmdir(path);
}

static inline int
faulty_stat(const char *path, struct stat *st)
{
    int r = faulty_next(false);

    return r > 0 ? faulty_fail(r) : stat(path, st);
}

static const struct file_ops faulty_ops = {
    .open = faulty_open,
    .pread = faulty_pread,
    .pwrite = faulty_pwrite,
    .fsync = faulty_fsync,
    .close = faulty_close,
    .link = faulty_link,
    .rename = faulty_rename,
    .unlink = faulty_unlink,
    .mkdir = faulty_mkdir,
    .rmdir = faulty_rmdir,
    .stat = faulty_stat,
};

/* Take away every name that was not synced. */
static inline void
faulty_power_cut(void)
{
    while (faulty.n_names > 0) {
        const struct faulty_name *n = &faulty.names[--faulty.n_names];

        if (n->is_dir)
            tmpdir_remove(n->path);
        else
            (void)unlink(n->path);
    }
}
