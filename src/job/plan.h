/* job/plan.h - which disks, each from which base, and why not.
 *
 * Every full read has a reason that the owner gets to see, because a full read
 * nobody can explain is where trust in incremental backups ends.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct job_backup_opts;
struct jv;
struct point_disk;
struct point_list;
struct source;
struct source_disk;

struct plan_disk {
    size_t source;                  /* index in the source */
    const struct source_disk *disk; /* borrowed from the source */
    /* Incremental: the record of the point whose bitmap is believed.  NULL:
     * full read. Borrowed from the points. */
    const struct point_disk *base;
    /* A record of equal size and chunk size to compare chunks with, or NULL. */
    const struct point_disk *older;
    const char *reason;   /* why full; "" for incremental */
    bool lost;            /* full although tracking had begun: warn */
    char generation[33];  /* of the bitmap to begin now */
    uint64_t canaries[4]; /* blocks that it is born with */
    size_t n_canaries;
    /* Gone on from an unfinished run (resume.h): `base` is its record then. */
    const struct point_disk *resumed;
    const char *rest; /* generation for what it had not copied, or NULL */
    bool same;        /* it is this very instant (adopt.h) */
    struct {
        const struct point_disk *base, *older;
        const char *reason;
        bool lost;
    } plain;        /* what was chosen without it */
    char text[128]; /* where a reason is made, not chosen */
};

struct plan {
    struct plan_disk *v;
    size_t n;
};

/* Choose.  `points` are this machine's, in order of seq; `chunk_size` is the
 * repository's.  Source and points must outlive the plan. */
int plan_make(const struct job_backup_opts *opts, const struct source *s,
              const struct point_list *points, const char *repo_id,
              uint32_t chunk_size, struct plan *ret, struct err *err);
void plan_done(struct plan *p);

/* The base's map cannot be read: read the disk in full after all. */
void plan_base_damaged(struct plan_disk *p);

/* The base's bitmap has lost its canaries: it does not say what changed. */
void plan_base_cleared(struct plan_disk *p);

/* Nobody knows any more whether the base's chunks stay. */
void plan_base_gone(struct plan_disk *p);

const char *plan_reason_cleared(void);

/* "full", "incremental" */
const char *plan_tracking(const struct plan_disk *p);
/* What lies at `off` changed and the base's bitmap does not say so. */
void plan_audit_failed(struct plan_disk *p, uint64_t off);

/* {"event":"plan","disks":[...],"skipped":[...]}; NULL without memory. */
struct jv *plan_event(const struct plan *p, const struct source *s);
