/* repo/repo.h - a repository of points: what other folders may use.
 *
 * Bytes on disk: docs/format.md.  Life of a backup:
 *
 *     repo_open -> repo_points -> repo_session_begin
 *         per disk:  map_writer_new, map_writer_set (ascending), _finish
 *         per chunk: repo_put (any worker thread)
 *     repo_commit   <- the point exists from here on, and only from here on
 *
 * Threads: a struct repo may be shared by threads for reading; one session is
 * shared by its workers through repo_put(), everything else on it belongs to
 * the thread that began it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct file_ops;
struct jv;
struct repo;
struct repo_session;

#define REPO_CHUNK_MIN (16u << 10)
#define REPO_CHUNK_MAX (4u << 20)
#define REPO_CHUNK_DEFAULT (64u << 10)

/* Name of a chunk or map page; all zero stands for zeroes and stores nothing. */
struct chunk_id {
    uint8_t b[32];
};
bool chunk_id_zero(const struct chunk_id *id);
bool chunk_id_equal(const struct chunk_id *a, const struct chunk_id *b);

/* -- repository -------------------------------------------------------------*/

/* Make a repository in the new or empty directory `path`. chunk_size: a power
 * of two in REPO_CHUNK_MIN..MAX.  `ops` NULL for the real file system. */
int repo_init(const char *path, uint32_t chunk_size, const struct file_ops *ops,
              struct err *err);

/* Open; refuses unknown incompatible features and things that are no
 * repository (the error says how to make one). */
int repo_open(const char *path, const struct file_ops *ops, struct repo **ret,
              struct err *err);
void repo_close(struct repo *r); /* NULL is fine */

const char *repo_id(const struct repo *r); /* 32 hex digits */
uint32_t repo_chunk_size(const struct repo *r);
const char *repo_path(const struct repo *r);
int repo_free_space(const struct repo *r, uint64_t *ret, struct err *err);

/* -- points -----------------------------------------------------------------*/

/* Blocks that a new bitmap is born with, whatever the guest writes: a bitmap
 * that lacks one later was cleared, cut by a resize or replaced, and is not
 * believed. */
#define POINT_CANARIES 8
#define POINT_CANARY_SIZE \
    (64u << 10) /* bytes; block n begins at n times this */

struct point_disk {
    char *name;    /* stable disk name */
    uint64_t size; /* bytes */
    uint32_t chunk_size;
    struct chunk_id root; /* of the map; zero id: all zero */
    char *format;         /* of the source image: "qcow2", "raw" */
    /* Tracking that began at this point; generation NULL: none could begin. */
    char *generation; /* 32 hex digits, part of the bitmap's name */
    bool persistent;  /* the bitmap survives a shutdown of QEMU */
    uint64_t canaries[POINT_CANARIES]; /* block numbers */
    size_t n_canaries;
    char *tracking;        /* how this point was read: "full", "incremental" */
    char *reason;          /* why full; "" for incremental */
    uint64_t read_bytes;   /* read from the machine */
    uint64_t dirty_bytes;  /* what had to be looked at */
    uint64_t new_bytes;    /* of chunks that were not in the repository */
    uint64_t stored_bytes; /* what those took in packs */
    struct jv *source;     /* node, file, backing chain, ... as captured */
};

struct point {
    char id[33];     /* hex; "" before the commit */
    char parent[33]; /* previous point of the machine, or "" */
    uint64_t seq;    /* 1, 2, ... per machine; orders points */
    char *machine;
    char *lineage;     /* 32 hex, minted at the machine's first point */
    int64_t time_ns;   /* wall clock of the instant: a label */
    char *consistency; /* "filesystem", "crash" */
    uint64_t freeze_ms;
    char *capture;          /* "pull" */
    struct chunk_id config; /* blob: the machine's configuration as JSON text */
    uint64_t config_len;
    struct point_disk *disks;
    size_t n_disks;
};
struct point *point_new(void);    /* all empty; NULL without memory */
void point_free(struct point *p); /* NULL is fine */
const struct point_disk *point_disk(const struct point *p, const char *name);

struct point_list {
    struct point **v; /* by machine, then seq */
    size_t n;
};
void point_list_done(struct point_list *l);

/* All points of `machine` (NULL: of all machines).  A commit object that does
 * not parse or does not verify is an error that names it, except that with
 * `ret_bad` (may be NULL) its message is added there (array of strings, owned
 * by the caller) and the rest is listed. */
int repo_points(struct repo *r, const char *machine, struct point_list *ret,
                struct jv **ret_bad, struct err *err);

/* Find "NAME", "NAME@latest", "NAME@latest~2", "NAME@2026-11-20T18:00" (newest
 * at or before the end of the day, minute or second written, UTC),
 * "NAME@1f3a9c" (4 or more digits of the id).  *ret is borrowed from `l`, which must hold
 * all points of the machine.  ERR_NOT_FOUND names what there is. */
int point_find(const struct point_list *l, const char *spec,
               const struct point **ret, struct err *err);

/* The blob stored with repo_put_blob(): *ret is malloc'd, *len its length,
 * verified against its id. */
int repo_get_blob(struct repo *r, const struct chunk_id *id, uint64_t len,
                  uint8_t **ret, struct err *err);

/* -- writing ----------------------------------------------------------------*/

struct repo_session_opts {
    unsigned n_workers; /* threads that will call repo_put(), 0 .. n-1 */
    int zstd_level;     /* 1 by default; 0: store without compression */
    bool paranoid;      /* decode and compare every chunk, not 1 in 8 */
};
#define REPO_SESSION_OPTS               \
    {                                   \
        .n_workers = 1, .zstd_level = 1 \
    }

/* Register a session and load the index. */
int repo_session_begin(struct repo *r, const struct repo_session_opts *opts,
                       struct repo_session **ret, struct err *err);

struct put_stat {
    bool is_new;           /* was not in the repository */
    uint32_t stored_bytes; /* what it took, 0 when not new */
};

/* Store one chunk (1 .. REPO_CHUNK_MAX bytes) unless the repository has it, and
 * give its id.  All zeroes: the zero id.  `base`, when not NULL, is the chunk at
 * the same place of the base point: if equal, nothing is looked up.  Worker
 * `worker` only.  After a failure the session is dead: every later call fails. */
int repo_put(struct repo_session *s, unsigned worker, const void *data,
             size_t len, const struct chunk_id *base, struct chunk_id *ret_id,
             struct put_stat *ret_stat, struct err *err);

/* Store a blob of up to 16 MiB among the map pages (worker 0, owner thread). */
int repo_put_blob(struct repo_session *s, const void *data, size_t len,
                  struct chunk_id *ret_id, struct err *err);

/* Make everything durable, then create the commit object: the point exists
 * after 0.  Fills p->id, p->parent, p->seq, p->lineage from the machine's newest
 * point as read now.  After -1 the point does not exist.  The session stays to
 * be freed. */
int repo_commit(struct repo_session *s, struct point *p, struct err *err);

/* Bytes written to the store so far (packs and index). */
uint64_t repo_session_stored(const struct repo_session *s);

/* End the session; without a successful commit its packs are removed. */
void repo_session_free(struct repo_session *s); /* NULL is fine */

/* -- maps -------------------------------------------------------------------*/

struct map_writer;

/* Start the map of a disk of `size` bytes from the map `base_root` of the same
 * size and chunk size; the zero id starts from an all-zero disk. */
int map_writer_new(struct repo_session *s, uint64_t size, uint32_t chunk_size,
                   const struct chunk_id *base_root, struct map_writer **ret,
                   struct err *err);
/* Entry `index` is now `id`.  Indexes must ascend strictly. */
int map_writer_set(struct map_writer *w, uint64_t index,
                   const struct chunk_id *id, struct err *err);
int map_writer_finish(struct map_writer *w, struct chunk_id *ret_root,
                      struct err *err);
void map_writer_free(struct map_writer *w); /* NULL is fine */

/* Random access for reading; neighbours are cheap (the path is cached).
 * Belongs to one thread. */
struct map_reader;
int map_reader_new(struct repo *r, uint64_t size, uint32_t chunk_size,
                   const struct chunk_id *root, struct map_reader **ret,
                   struct err *err);
int map_reader_get(struct map_reader *m, uint64_t index,
                   struct chunk_id *ret_id, struct err *err);
/* The first index >= `index` whose entry is not zero, or UINT64_MAX; skips
 * empty subtrees without reading. */
int map_reader_next(struct map_reader *m, uint64_t index, uint64_t *ret_index,
                    struct chunk_id *ret_id, struct err *err);
void map_reader_free(struct map_reader *m); /* NULL is fine */

/* -- reading chunks in pack order -------------------------------------------*/

struct repo_fetch;

/* Called by worker threads, several at once, in pack order as far as that goes:
 * `data` is the verified plaintext of the request with this `tag`; NULL when
 * the chunk is missing or damaged, *why then says how.  Return 0 to go on, -1
 * with *err to stop the fetch. */
typedef int (*repo_fetch_fn)(void *arg, unsigned worker, uint64_t tag,
                             const struct chunk_id *id, const void *data,
                             size_t len, const struct err *why,
                             struct err *err);

struct repo_fetch_opts {
    unsigned n_workers;
    size_t batch; /* requests sorted at a time; 0: default (1 Mi) */
    repo_fetch_fn fn;
    void *arg;
};

int repo_fetch_new(struct repo *r, const struct repo_fetch_opts *opts,
                   struct repo_fetch **ret, struct err *err);
/* Ask for a chunk of `len` plaintext bytes.  Work starts when a batch is full. */
int repo_fetch_add(struct repo_fetch *f, uint64_t tag,
                   const struct chunk_id *id, uint32_t len, struct err *err);
/* Work off what is queued and wait for it. */
int repo_fetch_finish(struct repo_fetch *f, struct err *err);
void repo_fetch_cancel(struct repo_fetch *f); /* from any thread */
void repo_fetch_free(struct repo_fetch *f);   /* NULL is fine */

/* -- proof ------------------------------------------------------------------*/

struct repo_verify_report {
    uint64_t points, pages, chunks, bytes; /* checked, each once */
    uint64_t bad_chunks, bad_pages;
    /* Array of {"object", "problem"}, {"point", "machine", "problem"} or
     * {"point", "machine", "disk", "offset", "length", "problem"}, at most
     * 10000 and a last one that says so; owned by the caller. */
    struct jv *problems;
};

/* In bytes.  Calls come one at a time, but from any thread. */
typedef void (*repo_progress_fn)(void *arg, uint64_t done, uint64_t total);

/* Check every object that the points in `l` need: commit objects, index, maps,
 * and every chunk's bytes against its id, each once, in pack order; with the
 * exact points, disks and ranges that a damaged object hits.  0 also when
 * problems were found; -1 when the check itself could not be done. */
int repo_verify(struct repo *r, const struct point_list *l, unsigned n_workers,
                repo_progress_fn progress, void *arg, const bool *cancel,
                struct repo_verify_report *ret, struct err *err);
