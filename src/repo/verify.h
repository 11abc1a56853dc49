/* repo/verify.h - what the files of the proof share.
 *
 * In this order:
 *   objects  commit objects, the chain, segments, which packs there should be
 *   MARK     every page is read and proven once; a bit is set for the index
 *            record of every page and chunk that is needed
 *   packs    each chosen pack is read once, by several threads: its SHA-256, and
 *            every needed frame decoded (level DATA)
 *   REPORT   only when something looked bad: which ranges of which disks of which
 *            points it hits.  A chunk counts as lost only when it cannot be read
 *            from any place; subtrees without damage are entered once
 * Memory is four bits per index record, about 130 bytes per pack, and the records
 * of the packs under way.
 *
 * Threads: the workers touch only `bad`, their packs, and what `lock` protects.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "internal.h"
#include "map_page.h"
#include "pack.h"
#include "rate.h"

struct repo_verified;

enum verify_pass { VERIFY_MARK, VERIFY_REPORT };

/* Ids that the maps name and that could not be read, so that each is counted
 * once. */
struct id_set {
    struct chunk_id *v; /* open addressing; the zero id is a free place */
    size_t n, cap;
};

/* The problem that may still grow: damage comes in runs. */
struct open_problem {
    const struct point *point; /* NULL: none is open */
    const struct point_disk *disk;
    uint64_t start, end;
    uint64_t more; /* problems joined to the first one */
    char text[512];
};

/* What a worker said of a damaged chunk. */
struct verify_reason {
    uint64_t record;
    char text[256];
};

/* A pack that there should be. */
struct vpack {
    struct pack_name name;
    uint32_t run;   /* the newest that read it whole and found it good, or 0 */
    uint64_t len;   /* as its commit object says */
    uint64_t found; /* bytes that are there; 0: it is missing */
    uint64_t need;  /* index records of it that points need */
    uint8_t sha[32];
    bool listed;    /* by a commit object: len and sha are known */
    bool scope;     /* of this check */
    bool chosen;    /* to be read */
    bool done;      /* was read */
    bool dated;     /* `run` says so already */
    bool failed;    /* is not as it was written */
    bool spoiled;   /* the same, but all that is needed of it is good */
    bool whole_bad; /* not only single frames */
    bool known_bad; /* an earlier verification said so */
    bool kept;      /* that it is bad is in a record now, or belongs in none */
    char *why;      /* of failed; owned */
};

/* A frame that failed. */
struct vbad {
    struct pack_name pack;
    uint32_t at;
};

struct verify {
    struct repo *repo;
    const struct point_list *points;
    struct repo_verify_opts opts;
    enum verify_pass pass;

    /* A bit per index record.  seen: pages of this pass (in REPORT: pages
     * without damage below); need: of pages and chunks; bad: failed; fine:
     * failed, but there is another copy that is good. */
    uint64_t *seen, *need, *bad, *fine;
    uint64_t n_bits;
    struct id_set bad_ids;
    struct frame_ctx *ctx; /* of the main thread */
    uint8_t *plain;        /* REPO_CHUNK_MAX bytes */
    bool damage;           /* something looked bad in some map or chunk */

    struct vpack *packs; /* by name */
    size_t n_packs, cap_packs;
    bool
        listed; /* those that are there were: later ones are asked for singly */
    uint32_t *of_pack; /* by number of the index: place in packs */
    uint32_t n_of_pack;
    struct id_list hit;  /* points with a problem */
    uint64_t n_missing;  /* chunks without any record */
    bool missing_kept;   /* that there are such ones is in a record now */
    struct id_list sids; /* of all commit objects */

    struct open_problem open;
    struct repo_verify_report rep;
    uint64_t total;            /* bytes of all chosen packs */
    uint32_t since;            /* run that a resumed check began with, or 0 */
    struct repo_verified *old; /* what earlier runs have said */

    pthread_mutex_t lock;
    /* protected by lock while workers run */
    struct verify_reason *reasons;
    size_t n_reasons;
    struct vbad *bad_frames;
    size_t n_bad_frames, n_bad_kept; /* kept in a record already */
    uint64_t done;                   /* bytes read */
    struct rate rate;
    struct err failure; /* the check itself cannot go on */
};

/* ERR_CANCELED once the caller asked to stop. */
int verify_canceled(const struct verify *v, struct err *err);

/* -- verify_walk.c ----------------------------------------------------------*/

/* Walk one disk's map in the pass that v->pass names.  -1 only when the check
 * itself cannot go on. */
int verify_walk(struct verify *v, const struct point *p,
                const struct point_disk *d, struct err *err);

bool verify_bit(const uint64_t *bits, uint64_t i);
void verify_bit_set(uint64_t *bits, uint64_t i);

/* -- verify_objects.c -------------------------------------------------------*/

/* Everything but maps and the bytes of packs; fills v->packs. */
int verify_objects(struct verify *v, struct err *err);

/* -- verify_packs.c ---------------------------------------------------------*/

int verify_pack_add(struct verify *v, const struct vpack *p, struct err *err);
/* Sort, add those that only the index names, and note what is there. */
int verify_packs_settle(struct verify *v, struct err *err);
/* The pack with this number in the index, or NULL without memory. */
struct vpack *verify_pack(struct verify *v, uint32_t no, struct err *err);
struct vpack *verify_pack_named(const struct verify *v,
                                const struct pack_name *name);
void verify_packs_free(struct verify *v);
/* Choose what is to be read. */
int verify_packs_choose(struct verify *v, struct err *err);
/* What is missing or failed: problems and notes. */
int verify_packs_report(struct verify *v, struct err *err);

/* -- verify_read.c, verify_pack.c -------------------------------------------*/

/* Read all chosen packs; keeps records on the way.  */
int verify_read(struct verify *v, struct err *err);

/* A frame to prove. */
struct vframe {
    uint64_t record;
    uint32_t place; /* in v->packs */
    uint32_t offset, frame_len, raw_len;
    enum frame_kind kind;
    uint8_t prefix[16];
};
/* What a worker needs. */
struct vreader {
    struct frame_ctx *ctx;
    struct sha256 *sha;
    uint8_t *buf, *plain;
    size_t cap, plain_cap;
};
int vreader_init(struct vreader *w, struct repo *r, struct err *err);
void vreader_done(struct vreader *w);
/* Read a pack whole and prove `n` frames of it, by offset.  Any thread; -1 only
 * when the check itself cannot go on. */
int verify_one_pack(struct verify *v, struct vreader *w, struct vpack *p,
                    const struct vframe *f, size_t n, struct err *err);

/* -- verified.c -------------------------------------------------------------*/

/* What the newest record says, put into v->packs. */
int verified_load(struct verify *v, struct err *err);
/* Keep what is known now: bad frames and packs, and what was verified.  `ended`:
 * the run is complete.  A repository that cannot be written to gets a note. */
int verified_keep(struct verify *v, bool ended, struct err *err);

/* -- bad.c ------------------------------------------------------------------*/

/* Create bad/<sid> with what is not kept yet; nothing new, no object. */
int bad_keep(struct verify *v, struct err *err);

/* -- verify_report.c --------------------------------------------------------*/

/* True when `id` was not in the set yet; without memory also true. */
bool id_set_add(struct id_set *s, const struct chunk_id *id);

/* Keep what is said of a record, and give it again (or a general text); sort
 * once between the two. */
void verify_reason_add(struct verify *v, uint64_t record, const char *text);
void verify_reason_sort(struct verify *v);
const char *verify_reason_get(const struct verify *v, uint64_t record);

/* Bytes start .. end - 1 of a disk cannot be read. */
int verify_problem(struct verify *v, const struct point *p,
                   const struct point_disk *d, uint64_t start, uint64_t end,
                   const char *text, struct err *err);
/* An object, or something of a point other than a disk; either may be NULL. An
 * object is named once. */
int verify_problem_object(struct verify *v, const char *object,
                          const struct point *p, const char *text,
                          struct err *err);
/* Write the open problem out. */
int verify_problem_end(struct verify *v, struct err *err);
/* Odd, but no damage. */
int verify_note(struct verify *v, struct err *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
