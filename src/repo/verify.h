/* repo/verify.h - what the files of the proof share.
 *
 * Three walks over the maps of all points:
 *   MARK    every page is read and proven once; a bit is set for the index
 *           record of every chunk that is needed
 *   FETCH   the chunks of those bits are read once, in pack order, and proven
 *   REPORT  only when something was bad: which ranges of which disks of which
 *           points it hits; subtrees without damage are entered once
 * Memory is three bits per index record, and what repo_fetch takes.
 *
 * Threads: the workers of the fetch touch only `bad`, and what `lock` protects.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "internal.h"
#include "map_page.h"

enum verify_pass { VERIFY_MARK, VERIFY_FETCH, VERIFY_REPORT };

/* Ids that the maps name and that could not be read in MARK, so that each is
 * counted once. */
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

struct verify {
    struct repo *repo;
    const struct point_list *points;
    const bool *cancel;
    unsigned n_workers;
    enum verify_pass pass;

    /* A bit per index record.  seen: pages of this pass (in REPORT: pages
     * without damage below); need: chunks still to be read; bad: both. */
    uint64_t *seen, *need, *bad;
    uint64_t n_bits;
    struct id_set bad_ids;
    bool damage; /* something is bad in some map or chunk */

    struct repo_fetch *fetch; /* in FETCH */
    struct open_problem open;
    struct repo_verify_report rep;
    uint64_t total; /* bytes of all needed chunks */

    pthread_mutex_t lock;
    /* protected by lock while the fetch runs */
    struct verify_reason *reasons;
    size_t n_reasons;
    repo_progress_fn progress;
    void *progress_arg;
    uint64_t done;
};

/* ERR_CANCELED once the caller asked to stop. */
int verify_canceled(const struct verify *v, struct err *err);

/* Walk one disk's map in the pass that v->pass names.  -1 only when the check
 * itself cannot go on. */
int verify_walk(struct verify *v, const struct point *p,
                const struct point_disk *d, struct err *err);

/* Look `id` up and have bits for its record: 1 found, 0 not (*why says why),
 * -1 the check cannot go on. */
int verify_look(struct verify *v, const struct chunk_id *id, struct locator *l,
                struct err *why, struct err *err);

bool verify_bit(const uint64_t *bits, uint64_t i);
void verify_bit_set(uint64_t *bits, uint64_t i);

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
/* An object, or something of a point other than a disk; either may be NULL. */
int verify_problem_object(struct verify *v, const char *object,
                          const struct point *p, const char *text,
                          struct err *err);
/* Write the open problem out. */
int verify_problem_end(struct verify *v, struct err *err);
