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

#include "secret.h"

struct err;
struct file_ops;
struct jv;
struct repo;
struct repo_session;
struct store;

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
/* The same in any kind of store (store/backend.h).  Opening takes `st`, also when
 * it fails. */
int repo_init_store(struct store *st, uint32_t chunk_size, struct err *err);
int repo_open_store(struct store *st, struct repo **ret, struct err *err);

/* The same for encrypted repositories (repo/keyring.h). */
struct repo_init_opts {
    uint32_t chunk_size;
    const struct file_ops *ops; /* NULL for the real file system */
    bool encrypt;
    secret_fn passphrase; /* the first one; asked with `fresh` */
    void *arg;
    const char *label;         /* of the first key slot, or NULL */
    uint64_t kdf_ops, kdf_mem; /* cost of a guess; 0: the default */
};
struct repo_open_opts {
    const struct file_ops *ops;
    /* Asked when the repository is encrypted; NULL: ERR_KEY then.  From that
     * moment on the process writes no core file and cannot be traced. */
    secret_fn unlock;
    void *arg;
    bool encrypted; /* refuse one that is not: its format object may have been
                     * exchanged to make us write in the clear */
};
int repo_init_with(const char *path, const struct repo_init_opts *opts,
                   char ret_id[33], struct err *err);
int repo_open_with(const char *path, const struct repo_open_opts *opts,
                   struct repo **ret, struct err *err);
bool repo_encrypted(const struct repo *r);

void repo_close(struct repo *r); /* NULL is fine */

const char *repo_id(const struct repo *r); /* 32 hex digits */
uint32_t repo_chunk_size(const struct repo *r);
const char *repo_path(const struct repo *r);
int repo_free_space(const struct repo *r, uint64_t *ret, struct err *err);

/* -- points -----------------------------------------------------------------*/

#define POINT_TAGS_MAX 64

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
    /* Of a partial point only: bytes from the start of the disk that are this
     * instant's; behind them the map is what `base_generation` began at, or
     * all zero when that is NULL, save for chunks that this instant had
     * otherwise, which any later run reads again. */
    uint64_t done;
    char *base_generation;
    uint64_t base_canaries[POINT_CANARIES];
    size_t n_base_canaries;
    struct {
        uint64_t round; /* audits so far: which chunks are next */
        uint64_t bound; /* runs that cover the disk; 0: was not audited */
        uint64_t chunks, bytes; /* compared; read for it */
    } audit;                    /* of what was taken to be unchanged */
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
    char *capture; /* "pull" */
    char **tags;   /* words given by the user, no two equal */
    size_t n_tags;
    struct chunk_id config; /* blob: the machine's configuration as JSON text */
    uint64_t config_len;
    struct point_disk *disks;
    size_t n_disks;
    /* Of an unfinished run: no state that the machine ever had, kept so that the
     * next run need not read again what is durable. */
    bool partial;
};
struct point *point_new(void);    /* all empty; NULL without memory */
void point_free(struct point *p); /* NULL is fine */
const struct point_disk *point_disk(const struct point *p, const char *name);
bool point_has_tag(const struct point *p, const char *tag);
/* 1 to 32 of a-z 0-9 - _ . */
bool point_tag_ok(const char *tag);

struct point_list {
    struct point **v; /* by machine, then seq */
    size_t n;
};
void point_list_done(struct point_list *l);
/* Move the partial points of `l` to `ret`, which is empty; the order stays. */
int point_list_split(struct point_list *l, struct point_list *ret,
                     struct err *err);

/* All points of `machine` (NULL: of all machines) that are not forgotten and not
 * partial.  A commit object that does
 * not parse or does not verify is an error that names it, except that with
 * `ret_bad` (may be NULL) its message is added there (array of strings, owned
 * by the caller) and the rest is listed. */
int repo_points(struct repo *r, const char *machine, struct point_list *ret,
                struct jv **ret_bad, struct err *err);
/* The same with partial points. */
int repo_points_all(struct repo *r, const char *machine, struct point_list *ret,
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
    unsigned n_workers;  /* threads that will call repo_put(), 0 .. n-1 */
    int zstd_level;      /* 1 by default; 0: store without compression */
    bool paranoid;       /* decode and compare every chunk, not 1 in 8 */
    const char *machine; /* whose point this will be, or NULL: another live
                          * session of the same machine refuses this one */
    bool synchronous;    /* no thread of its own: packs are written by the
                          * caller and nothing beats (tests, simulator) */
};
#define REPO_SESSION_OPTS               \
    {                                   \
        .n_workers = 1, .zstd_level = 1 \
    }

/* Register a session, then read what is condemned, then load the index (the
 * order is the protocol's, docs/format.md 11).  Points that are to serve as a
 * base must be listed after this.  Until the session is freed, it beats: a
 * collector fences a session that does not. */
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

/* Commit the partial point `p` (p->partial) and go on: the session gets a new id,
 * maps and lists go on with what the partial point has.  Everything that was put
 * since the session began or since its last checkpoint must be reached from `p`,
 * all map writers of the session must be finished, and no other thread may put
 * meanwhile.  What was given to repo_put() as a base counts no more unless `p`
 * reaches it.  After -1 the session is dead; the point may exist when the error
 * says so. */
int repo_session_checkpoint(struct repo_session *s, struct point *p,
                            struct err *err);

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

/* -- what changed -----------------------------------------------------------*/

/* Bytes off .. off + len - 1 of the newer disk are not those of the older one;
 * `zero`: they read as zeroes now. */
typedef int (*map_diff_fn)(void *arg, uint64_t off, uint64_t len, bool zero,
                           struct err *err);

/* Call `fn` for what differs, in ascending order, neighbours joined, whole chunks
 * (cut at the newer disk's end).  Only subtrees that differ are read, and memory
 * is a few pages.  The sizes may differ: what the newer disk has behind the end
 * of the older one is compared with zeroes, what it lacks is not reported. ERR_UNSUPPORTED
 * when the chunk sizes differ; what fn fails with. */
int map_diff(struct repo *r, const struct point_disk *older,
             const struct point_disk *newer, map_diff_fn fn, void *arg,
             struct err *err);

/* -- what it costs ----------------------------------------------------------*/

struct repo_stat {
    uint64_t points;
    uint64_t size;   /* of the disks, as the guest sees them */
    uint64_t data;   /* of those what is not zero, each time it is named */
    uint64_t unique; /* of that what no point before it in the list had */
    uint64_t stored; /* what the unique data takes in packs */
    uint64_t meta;  /* and map pages and configurations, counted the same way */
    uint64_t freed; /* bytes in packs that nothing else refers to */
};

struct repo_stats {
    struct repo_stat all;
    struct repo_stat *points;   /* as in the list */
    struct repo_stat *machines; /* in the order of the list */
    size_t n_machines;
    uint64_t pack_bytes; /* of all pack objects, what nobody needs included */
};
void repo_stats_done(struct repo_stats *s);

/* Count over all points of the repository: with a shorter list, what the missing
 * ones refer to would look as if it could be freed. `l` as repo_points() made it.
 * Reads every map page once, and those that points share up to three times; memory is
 * four bytes per index record and some per map page. */
int repo_stats(struct repo *r, const struct point_list *l, const bool *cancel,
               struct repo_stats *ret, struct err *err);

/* Does the repository know of any damage?  If not, repo_point_damaged() need not
 * be asked, which takes a look-up per chunk. */
bool repo_damage_known(struct repo *r);
/* 1: something that the point needs is known to be damaged or missing (*why may
 * be NULL), 0: nothing is known, -1.  Asks the index and reads the maps, no
 * data: what nobody has verified is not known. */
int repo_point_damaged(struct repo *r, const struct point *p,
                       const bool *cancel, struct err *why, struct err *err);

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
    bool first_only; /* a chunk that cannot be read at its first place counts as
                      * damaged, also when there is another copy (proofs) */
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

/* -- points that are being read ---------------------------------------------*/

/* While a pin is held, no collection removes what these points need, even when
 * they are forgotten meanwhile.  ERR_NOT_FOUND: one of them is forgotten or
 * removed already.  Where the store cannot be written, *ret is NULL and the
 * result 0: a collector that runs at the same time may then break the reading
 * (an error, never wrong bytes). */
struct repo_pin;
int repo_pin_new(struct repo *r, const char *const *ids, size_t n,
                 struct repo_pin **ret, struct err *err);
void repo_pin_free(struct repo_pin *p); /* NULL is fine */

/* -- deletion ---------------------------------------------------------------*/

/* The point is no longer listed, and the next collection removes it.  0 also
 * when it was forgotten before; ERR_NOT_FOUND without such a point. Durable. */
int repo_forget(struct repo *r, const char *id, const char *why,
                struct err *err);

/* How long a collector watches a heartbeat that does not change. */
#define REPO_FENCE_AFTER_NS (15ull * 60 * 1000000000)

struct repo_gc_opts {
    bool dry_run;         /* only say what would be done */
    unsigned rewrite;     /* rewrite packs of which this percentage or more is
                            * dead, 1 .. 100; 0: default (50) */
    uint64_t fence_after; /* ns; 0: REPO_FENCE_AFTER_NS */
    const bool *cancel;   /* may be NULL */
    void (*progress)(void *arg, const char *phase, uint64_t done,
                     uint64_t total);
    void *arg;
    /* A test's clock and sleep; NULL: the system's monotonic clock. */
    uint64_t (*now_ns)(void *arg);
    void (*sleep_ns)(void *arg, uint64_t ns);
};

struct repo_gc_report {
    uint64_t points_removed, points_live;
    uint64_t packs, packs_removed, packs_rewritten;
    uint64_t chunks_live;
    uint64_t bytes_before, bytes_removed, bytes_copied; /* of packs */
    uint64_t segments_before, segments_after;
    uint64_t leftovers;       /* packs and segments of dead sessions */
    uint64_t sessions_fenced; /* taken for dead */
    uint64_t resumed;         /* unfinished collections brought to their end */
    bool other_runs;          /* another collector works: nothing was done */
};

/* Remove what no point needs (docs/format.md 13).  May run at any time, on any
 * host, beside backups and restores; may be killed and run again.  Refuses on a
 * repository with damage that hides what is needed, and on a store that fails its
 * self-test. */
int repo_gc(struct repo *r, const struct repo_gc_opts *opts,
            struct repo_gc_report *ret, struct err *err);

/* -- proof ------------------------------------------------------------------*/

enum repo_verify_level {
    REPO_VERIFY_DATA,      /* every byte of every pack */
    REPO_VERIFY_STRUCTURE, /* commit objects, index, maps, sizes of packs */
};

/* In bytes.  Calls come one at a time, but from any thread. */
typedef void (*repo_progress_fn)(void *arg, uint64_t done, uint64_t total);

struct repo_verify_opts {
    enum repo_verify_level level;
    bool whole;          /* the list has all points: also look at what no point
                          * needs any more, and at the chain */
    unsigned sample;     /* data: this many of 10000 packs, those that were not
                          * verified for the longest time; 0: all */
    uint64_t limit_rate; /* bytes per second read from packs; 0: no limit */
    bool resume;         /* data: leave out what an interrupted run has read */
    bool read_only;      /* keep no record: neither what is bad nor what was
                          * verified */
    unsigned n_workers;
    uint64_t checkpoint; /* bytes after which a record is kept; 0: default */
    repo_progress_fn progress;
    void *arg;
    const bool *cancel; /* may be NULL */
};

struct repo_verify_report {
    uint64_t points, pages, chunks, bytes; /* checked, each once */
    uint64_t bad_chunks, bad_pages;
    uint64_t packs, packs_read,
        packs_bytes;        /* in all; read whole, their bytes */
    uint64_t packs_skipped; /* read by the run that was resumed */
    uint64_t run;           /* number that this run was recorded under, or 0 */
    /* Array of {"object", "problem"}, {"point", "machine", "problem"} or
     * {"point", "machine", "disk", "offset", "length", "problem"}, at most
     * 10000 and a last one that says so; owned by the caller. */
    struct jv *problems;
    /* Array of texts: odd, but nothing that a point needs; owned as well. */
    struct jv *notes;
};

/* Check every object that the points in `l` need: commit objects, index, maps,
 * and every pack's bytes against SHA-256 and ids, each once, in pack order; with
 * the exact points, disks and ranges that a damaged object hits.  What is bad is
 * noted in the repository, so that nothing is built on it.  0 also when
 * problems were found; -1 when the check itself could not be done; what was
 * verified until then is kept. */
int repo_verify_run(struct repo *r, const struct point_list *l,
                    const struct repo_verify_opts *opts,
                    struct repo_verify_report *ret, struct err *err);

/* The same for all bytes, without keeping a record. */
int repo_verify(struct repo *r, const struct point_list *l, unsigned n_workers,
                repo_progress_fn progress, void *arg, const bool *cancel,
                struct repo_verify_report *ret, struct err *err);
void repo_verify_report_done(struct repo_verify_report *rep);

/* When was all that the point needs read and found good?  *ret is the wall clock
 * of the oldest run that counts, a label; 0: never. */
struct repo_verified;
int repo_verified_read(struct repo *r, struct repo_verified **ret,
                       struct err *err);
int64_t repo_verified_time(const struct repo_verified *v, const char *point_id);
void repo_verified_free(struct repo_verified *v); /* NULL is fine */

/* Runs of chunks of the disk that are known to be bad or missing, ascending.
 * Costs next to nothing while nothing is known to be bad.  -1 also when the map
 * itself cannot be read. */
typedef int (*repo_damaged_fn)(void *arg, uint64_t index, uint64_t n,
                               struct err *err);
int repo_damaged(struct repo *r, const struct point_disk *d, repo_damaged_fn fn,
                 void *arg, struct err *err);
/* The same, asking the index for every chunk whether or not damage is known, and so
 * whether packs are there with their length. */
int repo_lost_chunks(struct repo *r, const struct point_disk *d,
                     repo_damaged_fn fn, void *arg, struct err *err);
/* Read all pages of a map that is known to be damaged, so that no bad one of them
 * is taken for stored by this process. */
void repo_probe_map(struct repo *r, const struct point_disk *d);
/* Is anything known to be bad that has no good copy? 1, 0, -1. */
int repo_has_damage(struct repo *r, struct err *err);

struct repo_repair_opts {
    bool dry_run;
    repo_progress_fn progress;
    void *arg;
    const bool *cancel; /* may be NULL */
};

struct repo_repair_report {
    uint64_t segments_rebuilt, records;   /* index segments made again */
    uint64_t packs_damaged;               /* looked at, frame by frame */
    uint64_t frames_copied, bytes_copied; /* good frames, into new packs */
    uint64_t frames_lost;                 /* without any good copy */
    uint64_t records_removed; /* unreadable condemned and bad lists */
    struct jv *actions;       /* array of texts: what was, or would be, done */
};

/* Make the repository whole again as far as its own bytes allow: index segments
 * from packs, good frames out of damaged packs.  Adds objects only, but for
 * records that nobody can read. */
int repo_repair(struct repo *r, const struct repo_repair_opts *opts,
                struct repo_repair_report *ret, struct err *err);
