/* job/job.h - what the command line can ask for.
 *
 * No printing and no option parsing here: options come as structs, results go
 * as structs or JSON, progress through a function.  Messages that are no error
 * but that the owner must see are warnings: they make exit status "committed
 * with a warning".
 * Threads: one job at a time per process, from the main thread.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "source.h"

struct err;
struct jv;
struct repo;

/* Progress and interruption, for all jobs. */
struct job_hooks {
    /* done of total bytes of a phase ("read", "restore", "verify"); called a
     * few times a second from the job's own thread.  total 0: not known. */
    void (*progress)(void *arg, const char *phase, uint64_t done,
                     uint64_t total);
    void (*event)(void *arg,
                  const struct jv *event); /* {"event":...}; borrowed */
    void *arg;
    const atomic_bool *cancel; /* set by a signal handler; may be NULL */
};

struct job_backup_opts {
    const char *machine;        /* address */
    const char *name;           /* NULL: QEMU's -name */
    const char *repo;           /* directory */
    bool full;                  /* read everything */
    const char *const *disks;   /* NULL-terminated, or NULL: all */
    const char *const *exclude; /* NULL-terminated, or NULL */
    struct source_opts source;
    int zstd_level;
    bool paranoid;
    unsigned threads; /* 0: number of CPUs */
};

/* Back up.  0: committed; *ret_result is the "committed" object of the design,
 * with "warnings": [...].  -1: nothing was committed. */
int job_backup(const struct job_backup_opts *opts,
               const struct job_hooks *hooks, struct jv **ret_result,
               struct err *err);

struct job_restore_opts {
    const char *repo;
    const char *point;        /* NAME@REV */
    const char *to;           /* directory, made if missing (0700) */
    const char *format;       /* "qcow2", "raw" */
    const char *const *disks; /* NULL-terminated, or NULL: all */
    bool overwrite;           /* replace existing files */
    unsigned threads;
};

/* Restore disks and machine.json.  0: everything is durable under its final
 * name; *ret_result lists the files.  -1: no file of a final name was touched
 * unless its disk was complete. */
int job_restore(const struct job_restore_opts *opts,
                const struct job_hooks *hooks, struct jv **ret_result,
                struct err *err);

struct job_verify_opts {
    const char *repo;
    const char *what; /* NULL: all; NAME: all its points; NAME@REV: one */
    unsigned threads;
};

/* 0: the check ran; result {"points":..,"chunks":..,"bytes":..,
 * "problems":[...]}.  -1: it could not run. */
int job_verify(const struct job_verify_opts *opts,
               const struct job_hooks *hooks, struct jv **ret_result,
               struct err *err);

/* {"repository":..,"points":[{"machine","point","seq","time","consistency",
 * "disks":[...]...}],"problems":[...]}; name may be NULL. */
int job_points(const char *repo, const char *name, struct jv **ret_result,
               struct err *err);

/* Everything about one point, its configuration included. */
int job_show(const char *repo, const char *point, struct jv **ret_result,
             struct err *err);

/* Make a repository: {"repository": id, "path":..., "chunk_size":...}. */
int job_init(const char *repo, uint64_t chunk_size, struct jv **ret_result,
             struct err *err);

/* What source_doctor() says. */
int job_doctor(const char *machine, const struct source_opts *opts,
               struct jv **ret_result, struct err *err);
