/* tests/lib/tmpdir.h - a scratch directory that is gone afterwards. */
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TMPDIR_MAX 256

static inline void
tmpdir_make(char path[TMPDIR_MAX])
{
    const char *base = getenv("TMPDIR");

    (void)snprintf(path, TMPDIR_MAX, "%s/tidemark-test-XXXXXX",
                   base != NULL && strlen(base) < 200 ? base : "/tmp");
    if (mkdtemp(path) == NULL) {
        perror("mkdtemp");
        abort();
    }
}

static inline int
tmpdir_remove_one(const char *path, const struct stat *st, int flag,
                  struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static inline void
tmpdir_remove(const char *path)
{
    (void)nftw(path, tmpdir_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Overwrite `len` bytes of the file `dir`/`name` at `off`; abort()s when that
 * fails. */
static inline void
tmpdir_poke(const char *dir, const char *name, uint64_t off, const void *data,
            size_t len)
{
    char path[2 * TMPDIR_MAX];
    int fd;

    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || pwrite(fd, data, len, (off_t)off) != (ssize_t)len) {
        perror(path);
        abort();
    }
    (void)close(fd);
}

/* Files below `dir` whose name begins with `prefix`. */
static inline unsigned
tmpdir_count(const char *dir, const char *prefix)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    unsigned n = 0;

    while (d != NULL && (e = readdir(d)) != NULL) {
        char path[2 * TMPDIR_MAX];

        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (snprintf(path, sizeof path, "%s/%s", dir, e->d_name) >=
            (int)sizeof path)
            continue;
        if (e->d_type == DT_DIR)
            n += tmpdir_count(path, prefix);
        else
            n += strncmp(e->d_name, prefix, strlen(prefix)) == 0;
    }
    if (d != NULL)
        (void)closedir(d);
    return n;
}
