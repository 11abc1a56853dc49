/* job/copy.h - from NBD exports into the repository: the pipeline.
 *
 *     reader thread per disk ---> worker pool ---> calling thread
 *     status, reads in flight     hash, store      maps, in order
 *
 * Bounded by buffers: each disk has its share of one budget, and a reader
 * without a free buffer waits.  Buffers are made on first use, so a small
 * incremental touches little memory.
 *
 * QEMU before 9.2 aborts when reads and status requests of one snapshot overlap
 * while in flight (qemu.md, section 7).  So a reader asks for the status of a
 * window first and reads that window after, each byte at most once.
 *
 * Maps are written by the calling thread alone: a session belongs to the thread
 * that began it, except for repo_put().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "audit.h"
#include "heal.h"
#include "repo.h"

struct err;
struct map_reader;
struct map_writer;
struct repo_session;

struct copy_disk {
    const char *name;
    const char *socket;
    const char *export_name;
    const char *dirty_context; /* NULL: read everything */
    const char *scratch;       /* of struct source_got, or NULL */
    unsigned grain;            /* see nbd_reader_opts */
    uint64_t size;
    struct map_reader *base; /* to compare chunks with, or NULL; lent to the
                                reader thread */
    struct map_writer *map;  /* full: starts all zero; else from the base */
    struct heal heal;        /* chunks to read and store again */
    /* Gone on from an unfinished run: dirty_context counts for what is before
     * `split`, rest_context (NULL: read everything) for the rest. */
    bool resumed;
    bool same; /* before `split` is nothing to read: it is this very instant */
    uint64_t split;
    const char *rest_context;
    struct audit audit; /* clean chunks to compare with the base */
    /* results */
    uint64_t read_bytes, dirty_bytes, new_bytes, stored_bytes;
    uint64_t healed_chunks; /* of heal: stored again */
    bool base_damaged;      /* why the copy failed: read this disk in full */
    uint64_t resumed_bytes; /* before `split`, not read again */
    /* for a checkpoint */
    uint64_t done;        /* bytes from the start that are this instant's */
    struct chunk_id root; /* of the map with them */
    bool untouched;       /* not begun */
    bool base_gone;       /* there was one: `base` is not compared with */
    uint64_t audited_chunks, audit_bytes; /* compared; read for it */
    bool audit_failed;  /* why the copy failed: a clean chunk had changed */
    uint64_t audit_off; /* where it is */
};

/* Called about ten times a second by the thread that is in copy_run(); `total`
 * grows while dirty ranges are found.  -1 stops the copy with that error. */
typedef int (*copy_poll_fn)(void *arg, uint64_t done, uint64_t total,
                            struct err *err);

struct copy_opts {
    struct repo_session *session;
    uint32_t chunk_size;
    unsigned threads;    /* workers, as the session was begun with */
    size_t budget;       /* bytes of buffers over all disks; 0: 8 MiB */
    unsigned timeout_ms; /* longest silence of an export; 0: 60000 */
    copy_poll_fn poll;
    void *arg;
    struct pace *pace; /* when to read, or NULL: as fast as it goes */
    bool yield_cpu;    /* threads let the guest go first */
    /* Make durable what the disks' `done` and `root` say.  Called by a thread of
     * its own, while nothing else uses the session, when so many bytes are new
     * or so much time has passed.  NULL: never. */
    int (*checkpoint)(void *arg, struct err *err);
    uint64_t checkpoint_bytes;
    uint64_t checkpoint_ms;
};

/* Copy all disks.  0: every chunk is put and set in its map, which the caller
 * finishes.  -1: *err is the first error; no thread is left.  *ret_marked then
 * says that `done` and `root` of all disks are worth a last checkpoint. */
int copy_run(const struct copy_opts *opts, struct copy_disk *disks, size_t n,
             bool *ret_marked, struct err *err);
