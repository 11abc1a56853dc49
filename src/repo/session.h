/* repo/session.h - a running session; for session.c, put.c, spill.c and
 * page.c. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "index.h"
#include "internal.h"
#include "pack.h"

struct flusher;
struct record_table;

#define SESSION_WORKERS_MAX 256
#define SESSION_CHECK_EVERY 8 /* data chunks, one of which is decoded again */

/* What one thread needs to store chunks. */
struct put_worker {
    struct frame_ctx *ctx;
    uint8_t *plain; /* of the decoded frame */
    size_t plain_cap;
    unsigned n_put;
};

/* An index segment that this session has written. */
struct spilled {
    struct segment seg;
    const uint8_t *map;
    size_t map_len;
    uint8_t sha[32]; /* of the whole object */
    unsigned level;  /* 0: as spilled; n: merged from those of level n-1 */
};
#define SPILL_LEVELS 8
#define SPILL_MERGE_AT 8 /* runs of one level that are merged into one */

struct repo_session {
    /* never changed after repo_session_begin(); sid and flusher by a checkpoint,
     * while nothing is put */
    struct repo *repo;
    uint8_t sid[REPO_SID_LEN];
    char sid_text[REPO_SID_TEXT];
    unsigned n_workers;
    bool paranoid, synchronous;
    struct put_worker *workers; /* n_workers, and one for the owner */
    struct flusher *flusher;
    size_t pack_target, part_max;

    enum session_fate fate;   /* the owner's */
    struct registration *reg; /* NULL: not registered yet */
    bool sealed;
    atomic_bool dead;

    pthread_mutex_t lock;
    /* protected by lock */
    struct record_table *table; /* records' pack numbers are pack seqs */
    struct pack *current[PACK_META + 1]; /* by class, or NULL */
    uint8_t *classes;                    /* of pack 1 .. n_packs */
    uint32_t n_packs, classes_cap;
    /* A run is one spill, or what one merge made: disjoint, so that a look-up
     * reads one segment of it.  Of one level they follow each other. */
    struct spilled *spilled;
    uint32_t n_spilled;
    unsigned n_runs[SPILL_LEVELS];
    uint32_t merge_max;   /* records of one merged segment */
    uint32_t last_k;      /* index segments tried */
    uint64_t index_bytes; /* written */
    struct err failure;   /* the first, if dead */
};

/* Look at the store's features again: after registering, so that whoever adds one
 * either sees this session or is seen by it. */
int repo_check_features(struct repo *r, struct err *err);

/* Keep the error: the session is dead.  When it was fenced, *err says that
 * afterwards.  Returns -1. */
int session_fail(struct repo_session *s, struct err *err);
/* -1 with the first error when dead. */
int session_alive(struct repo_session *s, struct err *err);

/* Where the session itself put `id`: 1 and the pack's class and number, 0,
 * -1. */
int session_find_locked(struct repo_session *s, const struct chunk_id *id,
                        struct index_record *ret, enum pack_class *ret_class,
                        struct err *err);

/* Write the records in memory as an index segment, so that memory stays bounded
 * however much is new, and merge segments when they have become many. */
int session_spill_locked(struct repo_session *s, struct err *err);

/* Take in a new frame. */
int session_add_locked(struct repo_session *s, const struct frame_head *head,
                       const uint8_t *frame, size_t len, struct err *err);

/* Hand over both packs, wait until they are durable, write the index. */
int session_flush_locked(struct repo_session *s, struct err *err);
