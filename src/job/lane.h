/* job/lane.h - one disk in the pipeline of copy.h; inside of copy.c and lane.c.
 *
 * Lock order: copy.puts, then copy.lock; nothing is called with copy.lock held but
 * units_*() and nbd_reader_cancel().
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "copy.h"
#include "err.h"
#include "units.h"

struct nbd_reader;
struct pool;

struct copy {
    /* never changed after the start */
    const struct copy_opts *opts;
    struct lane *lanes;
    size_t n_lanes;
    unsigned n_threads, in_flight;
    unsigned unit_chunks; /* chunks of a full unit: a power of two <= 64 */
    struct pool *pool;

    atomic_bool failed; /* set with lock held */
    pthread_mutex_t lock;
    pthread_cond_t room; /* a buffer is free, a queue is shorter, failed */
    pthread_cond_t news; /* something for the calling thread to do */
    /* protected by lock */
    bool has_news;
    struct err err; /* the first error */
    size_t next_lane;
    unsigned n_running; /* reader threads */
    uint64_t done, total;
    uint64_t new_bytes; /* stored since the last checkpoint */

    /* Read side: a unit is stored and marked as finished.  Write side: a
     * checkpoint, which must know of everything that was put. */
    pthread_rwlock_t puts;
    uint64_t marked_ms; /* the calling thread's: the last checkpoint */
};

struct lane {
    struct copy *copy;
    struct copy_disk *disk; /* results: protected by copy.lock */
    struct units units;     /* protected by copy.lock */
    struct nbd_reader *nbd; /* set and cleared with copy.lock, for cancel */
    uint64_t pos;           /* chunks before it are copied or in `units`;
                               protected by copy.lock */
    /* of the reader thread */
    struct map_reader *base; /* dropped when it cannot be read */
    int scratch_fd;          /* or -1 */
    bool auditing;           /* what is read now is taken to be unchanged */
    unsigned n_reading;
    int read_errno;    /* of the first failed read, or 0 */
    uint64_t read_off; /* of that read */
};

/* Read one disk to its end: returns when its buffers are free again.  Errors go
 * to copy_fail(). */
void lane_run(struct lane *l);

/* Keep the first error, wake everybody, cancel all readers.  Any thread. */
void copy_fail(struct copy *c, const struct err *err);

/* A pool job: put the chunks of a unit whose reads have ended. */
void copy_store_unit(void *unit, unsigned worker);

/* The clean chunk `index` is not what the base has.  Any thread. */
void copy_audit_failed(struct lane *l, uint64_t index);

/* Wake the calling thread; with the lock held. */
void copy_news_locked(struct copy *c);

/* -- of the calling thread --------------------------------------------------*/

/* Enter a finished unit into its map. */
int copy_apply_unit(struct copy_disk *d, const struct unit *u, struct err *err);

/* Ask the caller's function; wait for news or a tenth of a second. */
int copy_poll(struct copy *c, struct err *err);
void copy_wait_news(struct copy *c);

/* A checkpoint if one is due. */
int copy_checkpoint(struct copy *c, struct err *err);
/* The copy has failed with *why and no thread is left: are `done` and `root` of the
 * disks worth a last checkpoint? */
bool copy_last_mark(struct copy *c, const struct err *why);
