/* job/backup.h - a backup under way; inside of backup.c and record.c. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "err.h"
#include "plan.h"
#include "repo.h"
#include "source.h"

struct copy_disk;
struct job_backup_opts;
struct job_hooks;
struct jv;

struct backup {
    const struct job_backup_opts *opts;
    const struct job_hooks *hooks;
    unsigned threads;
    uint64_t start_ms;
    struct repo *repo;
    struct source *source;
    const char *machine;
    struct point_list points;
    struct plan plan;
    struct repo_session *session;
    struct point *point;
    /* per disk of the plan */
    struct copy_disk *copy;
    struct source_got *got;
    struct source_instant instant;
    struct jv *warnings;
    bool taken;       /* the instant stands in QEMU */
    bool released;    /* and its exports do not any more */
    struct err cause; /* why source_watch() said that it is broken */
    /* of unfinished runs, this one included (resume.h) */
    struct point_list partials;
    atomic_uint checkpoints; /* of this run */
    unsigned told;
    char resumed_note[96];
    struct source_want *adopted; /* per disk of the plan, with --resume */
};

/* Something the owner must see, although the point is good. */
void backup_warn(struct backup *b, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Everything is copied: finish the maps and fill the point. */
int backup_record(struct backup *b, struct err *err);

/* Committed: the "committed" object; takes the warnings. */
int backup_report(struct backup *b, struct jv **ret, struct err *err);
