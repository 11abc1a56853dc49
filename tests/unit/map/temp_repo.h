/* tests/unit/map/temp_repo.h - a small repository in a directory of its own.
 *
 * Disks are made of chunks with known contents: chunk `value` is a text that
 * names it, so that the repository stays small and any byte is comparable.
 */
#pragma once

#include <ftw.h>
#include <inttypes.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "err.h"
#include "fileops.h"
#include "internal.h"
#include "jv.h"
#include "repo.h"
#include "tap.h"

#define TEMP_CHUNK REPO_CHUNK_MIN

/* These tests cut no power: without fsync they take a tenth of the time. */
static inline int
temp_fsync(int fd)
{
    return 0;
}

static inline const struct file_ops *
temp_ops(void)
{
    static struct file_ops ops;

    ops = file_ops_system;
    ops.fsync = temp_fsync;
    return &ops;
}

struct temp_repo {
    char dir[256];  /* removed at the end */
    char path[288]; /* the repository in it */
};

static inline void
temp_repo_init(struct temp_repo *t)
{
    const char *tmp = getenv("TMPDIR");

    (void)snprintf(t->dir, sizeof t->dir, "%.200s/tidemark-test-XXXXXX",
                   tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(t->dir) == NULL)
        abort();
    (void)snprintf(t->path, sizeof t->path, "%s/repo", t->dir);
    (void)repo_init(t->path, TEMP_CHUNK, temp_ops(), ERR_ABORT);
}

static inline int
temp_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static inline void
temp_repo_done(struct temp_repo *t)
{
    (void)nftw(t->dir, temp_remove, 16, FTW_DEPTH | FTW_PHYS);
}

/* What the chunk `value` holds; value 0 is all zeroes. */
static inline void
temp_fill(uint64_t value, uint8_t *data, size_t len)
{
    memset(data, 0, len);
    if (value == 0)
        return;
    memset(data, 'a' + (int)(value % 26), len);
    for (size_t i = 0; i < 8 && i < len; i++)
        data[i] = (uint8_t)((value * 0x9e3779b97f4a7c15u) >> (8 * i)) | 1;
}

static inline uint32_t
temp_len(uint64_t size, uint64_t index)
{
    uint64_t rest = size - index * TEMP_CHUNK;

    return rest < TEMP_CHUNK ? (uint32_t)rest : TEMP_CHUNK;
}

/* Store the disk `values` (one per chunk) and give its map's root. */
static inline int
temp_put_disk(struct repo_session *s, const uint64_t *values, uint64_t size,
              const struct chunk_id *base, struct chunk_id *ret_root,
              struct err *err)
{
    static uint8_t data[TEMP_CHUNK];
    struct map_writer *w = NULL;
    int rc = map_writer_new(s, size, TEMP_CHUNK, base, &w, err);

    for (uint64_t i = 0; rc == 0 && i * TEMP_CHUNK < size; i++) {
        uint32_t len = temp_len(size, i);
        struct chunk_id id;
        struct put_stat stat;

        temp_fill(values[i], data, len);
        rc = repo_put(s, 0, data, len, NULL, &id, &stat, err);
        if (rc == 0)
            rc = map_writer_set(w, i, &id, err);
    }
    if (rc == 0)
        rc = map_writer_finish(w, ret_root, err);
    map_writer_free(w);
    return rc;
}

static inline char *
temp_copy(const char *s)
{
    char *copy = strdup(s);

    if (copy == NULL)
        abort();
    return copy;
}

/* A point with `n` disks, named vda, vdb, ... and still without roots. */
static inline struct point *
temp_point(const char *machine, uint64_t size, size_t n)
{
    struct point *p = point_new();

    if (p == NULL)
        abort();
    p->machine = temp_copy(machine);
    p->consistency = temp_copy("crash");
    p->capture = temp_copy("pull");
    p->time_ns = 1795197607000000000;
    p->disks = calloc(n, sizeof *p->disks);
    if (p->disks == NULL)
        abort();
    for (; p->n_disks < n; p->n_disks++) {
        struct point_disk *d = &p->disks[p->n_disks];
        char name[] = {'v', 'd', (char)('a' + p->n_disks), '\0'};

        d->name = temp_copy(name);
        d->size = size;
        d->chunk_size = TEMP_CHUNK;
        d->format = temp_copy("raw");
        d->tracking = temp_copy("full");
        d->reason = temp_copy("new disk");
    }
    return p;
}

/* One backup of one disk, with a configuration. */
static inline void
temp_backup(struct repo *r, const char *machine, const uint64_t *values,
            uint64_t size, const struct chunk_id *base,
            struct chunk_id *ret_root)
{
    static const char config[] = "{\"memory\": 512}";
    struct repo_session_opts opts = REPO_SESSION_OPTS;
    struct point *p = temp_point(machine, size, 1);
    struct repo_session *s;

    (void)repo_session_begin(r, &opts, &s, ERR_ABORT);
    (void)temp_put_disk(s, values, size, base, &p->disks[0].root, ERR_ABORT);
    p->config_len = sizeof config;
    (void)repo_put_blob(s, config, sizeof config, &p->config, ERR_ABORT);
    (void)repo_commit(s, p, ERR_ABORT);
    *ret_root = p->disks[0].root;
    repo_session_free(s);
    point_free(p);
}
