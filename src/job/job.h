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

#include "retention.h"
#include "secret.h"
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
    const char *const *tags;    /* NULL-terminated words, or NULL */
    struct source_opts source;
    int zstd_level;
    bool paranoid;
    unsigned threads; /* 0: number of CPUs */
    bool resume;      /* finish the instant of a run that was cut off */
    bool hold;        /* leave the instant in QEMU when the repository fails */
    unsigned audit;   /* share of 10000 of what is clean to re-read; 0: none */
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
    bool structure;      /* all but the bytes of packs */
    unsigned sample;     /* of 10000 packs, 0: all */
    uint64_t limit_rate; /* bytes per second, 0: no limit */
    bool resume;         /* go on with what an interrupted run has not read */
    bool read_only;      /* keep no record */
};

/* 0: the check ran; result {"points":..,"chunks":..,"bytes":..,
 * "problems":[...]}.  -1: it could not run. */
int job_verify(const struct job_verify_opts *opts,
               const struct job_hooks *hooks, struct jv **ret_result,
               struct err *err);

struct job_check_opts {
    const char *repo;
    bool repair;
    bool dry_run; /* with repair: only say what it would do */
    unsigned threads;
};

/* job_verify() of the structure; with `repair` first repo_repair(): "actions"
 * and what it counted are in "repair" then. */
int job_check(const struct job_check_opts *opts, const struct job_hooks *hooks,
              struct jv **ret_result, struct err *err);

/* {"repository":..,"points":[{"machine","point","seq","time","consistency",
 * "disks":[...]...}],"problems":[...]}; name may be NULL. */
int job_points(const char *repo, const char *name, struct jv **ret_result,
               struct err *err);

/* Everything about one point, its configuration included. */
int job_show(const char *repo, const char *point, struct jv **ret_result,
             struct err *err);

struct job_prune_opts {
    const char *repo;
    /* Machines; with `remove` NAME@REV or whole machines.  NULL-terminated; NULL:
     * all machines. */
    const char *const *names;
    struct retention keep; /* with `remove` only its remove_last counts */
    bool remove;           /* remove what is named, and nothing else */
    bool dry_run;
};

/* Forget the points that no rule keeps; what they take is freed by job_gc().
 * {"repository","dry_run","kept","removed","machines":[{"machine","kept",
 * "removed","points":[{"machine","point","seq","time","tags","action":
 * "keep"|"remove","rules":[...]}]}],"problems":[...]}.  Everything is decided
 * before the first point is forgotten. */
int job_prune(const struct job_prune_opts *opts, const struct job_hooks *hooks,
              struct jv **ret_result, struct err *err);

struct job_gc_opts {
    const char *repo;
    bool dry_run;
    unsigned rewrite;     /* percent; 0: default */
    uint64_t fence_after; /* ns; 0: default */
};

/* The figures of struct repo_gc_report, and "dry_run", "repository". */
int job_gc(const struct job_gc_opts *opts, const struct job_hooks *hooks,
           struct jv **ret_result, struct err *err);

struct job_diff_opts {
    const char *repo;
    const char *from, *to;    /* NAME@REV */
    const char *const *disks; /* NULL-terminated, or NULL: all */
};

/* Events {"event":"extent","disk","offset","length","zero"} in ascending order
 * per disk, then the result {"from":{...},"to":{...},"disks":[{"disk","size",
 * "from_size","extents","changed_bytes","zero_bytes"} or {"disk","only_in":
 * "from"|"to"}]}. */
int job_diff(const struct job_diff_opts *opts, const struct job_hooks *hooks,
             struct jv **ret_result, struct err *err);

/* {"repository","pack_bytes","unreferenced_bytes","all":{figures},"machines":
 * [{"machine",figures,"points":[{"machine","point","seq","time",figures}]}],
 * "problems":[...]}; `what` limits what is told to a machine or a point, NULL:
 * all.  Figures: docs/man/tidemark.pod. */
int job_stats(const char *repo, const char *what, const struct job_hooks *hooks,
              struct jv **ret_result, struct err *err);

struct job_init_opts {
    const char *repo;
    uint64_t chunk_size; /* 0: the default */
    bool encrypt;
    const char *label;   /* of the first key slot, or NULL */
    uint64_t kdf_memory; /* bytes; 0: the default */
};

/* Make a repository: {"repository": id, "path":..., "chunk_size":...,
 * "encrypted":...}. */
int job_init(const struct job_init_opts *opts, struct jv **ret_result,
             struct err *err);

/* -- encryption -------------------------------------------------------------*/

/* Whom to ask for the passphrase of an encrypted repository, for all jobs; once,
 * before there are threads.  It may be asked again by a later job.  `required`:
 * repositories that are not encrypted are refused. */
void job_set_unlock(secret_fn fn, void *arg, bool required);

enum job_key_action {
    JOB_KEY_LIST, /* asks for nothing */
    JOB_KEY_ADD,
    JOB_KEY_REMOVE,
    JOB_KEY_PASSWD,
    JOB_KEY_EXPORT, /* only by job_key_export() */
};

struct job_key_opts {
    enum job_key_action action;
    const char *repo;
    const char *slot;     /* to remove: 4 digits or more */
    const char *label;    /* of a new one, or NULL */
    uint64_t kdf_memory;  /* bytes; 0: the default */
    secret_fn passphrase; /* asked for a new one, with `fresh` */
};

/* {"repository", "slot"} of what was added or removed, or "keys": [{"slot",
 * "label","time","ops","mem","removing","problem"}]. */
int job_key(const struct job_key_opts *opts, struct jv **ret_result,
            struct err *err);

/* The text of the paper key.  The caller wipes it. */
int job_key_export(const char *repo, struct secret *ret, struct err *err);

/* What source_doctor() says. */
int job_doctor(const char *machine, const struct source_opts *opts,
               struct jv **ret_result, struct err *err);
