/* repo/gc.h - a collection, inside the repo folder; docs/format.md 13.
 *
 * A collection looks at the whole repository twice, and each look is a view: what
 * lies in the store, and what commit objects say of it.  The order in which a
 * view reads is part of the protocol (gc_view.c).  A view keeps its own table
 * of segments instead of using the index of the open repository: that one keeps
 * what was there when the repository was opened.
 *
 * Threads: one, and every step through the store, so that a simulator can drive
 * it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "err.h"
#include "index.h"
#include "internal.h"
#include "mutant.h"
#include "pack.h"
#include "repo.h"

struct jv;
struct point;

/* -- what is there ----------------------------------------------------------*/

#define GC_NONE UINT32_MAX

struct gc_pack {
    struct pack_name name;
    uint64_t len;           /* of the object; 0: it is not there */
    const struct jv *entry; /* in a list of packs that counts, or NULL */
    uint32_t commit;        /* whose list, or GC_NONE */
    bool counted;           /* by a commit object or by a segment that counts */
    bool kept_named;        /* by a commit object that stays */
    bool gone;              /* a collector said so */
    bool condemned;         /* by a list that was found */
    bool chosen;            /* this collection removes it */
    bool bad;               /* failed a verification as a whole */
    bool bad_live;          /* the only copy of something live fails here */
    /* of the last mark */
    uint64_t live_bytes;
    uint32_t n_live;
};

struct gc_packs {
    struct gc_pack *v;
    size_t n, cap;
    uint32_t *slots;
    size_t n_slots;
};

enum gc_fate {
    GC_STAYS, /* its packs and segments count as it says */
    GC_GOES,  /* counts, and this collection removes it */
    GC_PAST,  /* does not count any more */
    GC_FENCE, /* type ABORT */
};

struct gc_commit {
    char key[REPO_KEY_MAX];
    char sid[REPO_SID_TEXT];
    enum gc_fate fate;
    struct jv *payload;  /* NULL of a fence */
    struct jv *lists;    /* array of the payloads of its pack lists, or NULL */
    struct point *point; /* or NULL: a collector's or repairer's */
};

/* An object whose bytes are not needed yet. */
struct gc_object {
    char key[REPO_KEY_MAX];
    char sid[REPO_SID_TEXT]; /* that its name begins with, or "" */
    uint64_t len;
};
struct gc_objects {
    struct gc_object *v; /* by key */
    size_t n, cap;
};

struct gc_segment {
    char key[REPO_KEY_MAX];
    const struct jv *part; /* in the commit object */
    uint32_t commit;
    struct segment seg;
    const uint8_t *map; /* of the store, or NULL: `own` */
    size_t map_len;
    uint8_t *own;
    uint32_t *packs; /* by the segment's pack number: number in gc_packs */
    uint64_t record_base;
};

struct gc_condemned {
    char key[REPO_KEY_MAX];
    struct pack_set *packs;
};

struct gc_bad_frame {
    uint32_t pack, at;
};

struct gc_view {
    struct repo *r;
    struct gc_packs packs;
    struct gc_commit *commits; /* by key */
    size_t n_commits;
    bool bad_commit; /* one of them cannot be read */
    struct gc_objects index, lists, beats, forgets, bads; /* in the store */
    struct session_list sessions;
    struct gc_condemned *condemned;
    size_t n_condemned;
    struct id_list removed;  /* said by any commit object */
    struct pack_set *gone;   /* the same */
    struct jv *gone_index;   /* the same: object, by key */
    struct gc_segment *segs; /* those that count, by key */
    size_t n_segs;
    uint64_t n_records;
    struct gc_bad_frame *bad_frames; /* by pack, then offset */
    size_t n_bad_frames;
};

/* Read everything but segments, in the protocol's order.  Refuses what cannot be
 * read. */
int gc_view_read(struct gc_view *v, struct repo *r, struct err *err);
/* Open the segments that count, each checked whole. */
int gc_view_open_segments(struct gc_view *v, struct err *err);
/* Once more, before anything that they said cannot be taken back. */
int gc_view_check_segments(const struct gc_view *v, struct err *err);
void gc_view_done(struct gc_view *v);

const struct gc_commit *gc_view_commit(const struct gc_view *v,
                                       const char *sid);
bool gc_view_has_session(const struct gc_view *v, const char *sid);
/* The session can add nothing that counts any more. */
bool gc_view_ended(const struct gc_view *v, const char *sid);

/* gc_packs.c */
uint32_t gc_packs_find(const struct gc_packs *p, const struct pack_name *n);
int gc_packs_add(struct gc_packs *p, const struct pack_name *n, uint32_t *ret,
                 struct err *err);
void gc_packs_sort(struct gc_packs *p);
void gc_packs_done(struct gc_packs *p);
int gc_objects_list(struct repo *r, const char *kind, struct gc_objects *ret,
                    struct err *err);
void gc_objects_done(struct gc_objects *o);

/* -- one frame --------------------------------------------------------------*/

/* How good a copy is; the least is the best. */
enum gc_rank {
    GC_GOOD,
    GC_CONDEMNED, /* there, but its pack goes */
    GC_BAD,       /* there, failed a verification */
    GC_BAD_CONDEMNED,
    GC_ABSENT,
    GC_UNKNOWN, /* no record */
};

struct gc_ref {
    struct chunk_id id; /* behind the prefix zero where only that is known */
    uint64_t record;
    uint32_t pack; /* in gc_packs */
    uint32_t offset, frame_len, raw_len;
    uint8_t kind, rank;
    bool spare; /* another copy is in a pack that goes */
};

/* What record `no` of segment `s` says; GC_UNKNOWN when it does not count. */
int gc_ref_at(const struct gc_view *v, const struct gc_segment *s, uint32_t no,
              struct gc_ref *ret, struct err *err);
/* Fill refs[], sorted here by id and with one of each left (*n), with the best
 * record of each. */
int gc_find(const struct gc_view *v, struct gc_ref *refs, size_t *n,
            struct err *err);
/* All records of one id, the best first. */
#define GC_COPIES_MAX 16
int gc_find_copies(const struct gc_view *v, const struct gc_ref *want,
                   struct gc_ref ret[GC_COPIES_MAX], size_t *ret_n,
                   struct err *err);

/* Reads frames that lie near each other at once. */
struct gc_reader {
    const struct gc_view *v;
    struct frame_ctx *ctx;
    struct buf window;
    uint32_t pack;
    uint64_t start;
    uint8_t *plain; /* REPO_BLOB_MAX bytes */
};
int gc_reader_init(struct gc_reader *rd, const struct gc_view *v,
                   struct err *err);
void gc_reader_done(struct gc_reader *rd);
/* Frame refs[i]; refs[i+1 .. n-1] are wanted next, sorted by pack and offset. */
int gc_reader_get(struct gc_reader *rd, const struct gc_ref *refs, size_t i,
                  size_t n, const uint8_t **ret, struct err *err);
/* The same, decoded and proved: *ret_plain holds refs[i].raw_len bytes. */
int gc_reader_prove(struct gc_reader *rd, const struct gc_ref *refs, size_t i,
                    size_t n, const uint8_t **ret_frame, struct err *err);
void gc_refs_sort_by_place(struct gc_ref *refs, size_t n);

/* -- the collection ---------------------------------------------------------*/

/* A test reaches these earlier. */
struct gc_limits {
    size_t pack_target;    /* bytes of a new pack */
    uint32_t segment_max;  /* records of a new segment */
    uint32_t segment_fold; /* segments of fewer records are merged */
    uint32_t fold_worth;   /* so many of them are worth a collection */
    unsigned small_worth;  /* so many small packs are worth merging */
};

struct mark;

struct gc {
    struct repo *r;
    const struct repo_gc_opts *opts;
    struct gc_limits limits;
    struct repo_gc_report rep;
    struct registration *reg;
    const char *sid;
    uint8_t sid_bytes[REPO_SID_LEN];
    struct gc_view view;
    struct mark *mark;
    struct id_list forgotten; /* as read in step 2; never read again */
    struct id_list pinned;    /* points, only grows */
    struct session_list mutant_sessions;
    struct jv *temps; /* temporary files that were there at the beginning */

    /* written, to be named by the COMMIT */
    struct jv *packs, *index, *pack_lists;
    uint32_t last_seq, last_k, last_list; /* tried */
    uint8_t *classes;                     /* of pack 1 .. last_seq */
    bool in_doubt, committed;             /* the COMMIT was tried, is there */

    struct buf copies;         /* struct index_record: .pack is a seq of ours */
    struct jv *taken_over;     /* entries of segments that go on as they are */
    struct jv *gone_index;     /* keys of segments that stop to count */
    struct pack_set *removing; /* packs that stop to count */
    struct pack_set *old_condemned; /* those that others condemned before */
};

int repo_gc_limited(struct repo *r, const struct repo_gc_opts *opts,
                    const struct gc_limits *limits, struct repo_gc_report *ret,
                    struct err *err);
#define GC_LIMITS                                                     \
    {                                                                 \
        .pack_target = REPO_PACK_TARGET, .segment_max = 2u << 20,     \
        .segment_fold = 1u << 20, .fold_worth = 16, .small_worth = 16 \
    }

/* gc.c */
int gc_canceled(const struct gc *g, struct err *err);
void gc_progress(const struct gc *g, const char *phase, uint64_t done,
                 uint64_t total);

/* gc_wait.c: step 1, 1 this one goes on, 0 another one works, -1; and step 6. */
int gc_exclude_others(struct gc *g, struct err *err);
int gc_wait(struct gc *g, struct err *err);
/* Who shows no sign of life is fenced. */
int gc_fence_dead(struct gc *g, struct err *err);

/* gc_choose.c: step 4 and 13.3 */
int gc_choose(struct gc *g, struct err *err);
int gc_choose_leftovers(struct gc *g, struct err *err);
bool gc_is_leftover(const struct gc *g, const char *sid);

/* gc_copy.c, gc_index.c: step 8 */
int gc_copy(struct gc *g, struct err *err);
int gc_write_index(struct gc *g, struct err *err);
int gc_put_segment(struct gc *g, const struct pack_name *packs,
                   uint32_t n_packs, struct index_record *records,
                   uint32_t n_records, struct err *err);
int gc_note_part(struct jv *list, const char *key, const uint8_t *bytes,
                 size_t len, const char *count, uint64_t n, struct err *err);
unsigned gc_n_foldable(const struct gc *g);

/* gc_temps.c: what dead writers left in the store itself */
int gc_note_temps(struct gc *g, struct err *err);
void gc_remove_temps(struct gc *g);

/* gc_commit.c: step 9 */
int gc_commit(struct gc *g, struct err *err);

/* gc_delete.c: step 10; also what a dead collector left.  `v` was read after the
 * COMMIT.  *ret_n: objects removed, may be NULL. */
int gc_delete(struct gc *g, const struct gc_view *v, uint64_t *ret_n,
              struct err *err);
