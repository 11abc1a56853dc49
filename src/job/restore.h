/* job/restore.h - a restore under way; inside of restore.c and publish.c. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cleanup.h"
#include "err.h"
#include "repo.h"

struct image;
struct job_hooks;
struct job_restore_opts;
struct jv;

#define CONFIG_FILE "machine.json"

/* Tag of a fetch request: disk number above, chunk index below. */
#define TAG_SHIFT 48
#define DISKS_MAX (1u << (64 - TAG_SHIFT))

DEFINE_CLEANUP(struct map_reader *, map_reader_free)

/* One disk on its way into a file. */
struct target {
    const struct point_disk *disk;
    char *file; /* name in the destination */
    struct image *image;
    _Atomic uint64_t written;
    atomic_bool failed;
    struct err err; /* why; protected by restore.lock */
};

struct restore {
    /* never changed once the fetch has begun */
    const struct job_restore_opts *opts;
    const struct job_hooks *hooks;
    unsigned threads;
    bool qcow2;
    struct repo *repo;
    struct repo_pin *pin;
    struct point_list list;
    const struct point *point;
    char *dir; /* absolute */
    int dir_fd;
    char sock_dir[96];
    struct target *targets;
    size_t n;
    uint64_t total;
    struct repo_fetch *fetch;

    atomic_bool stop;
    _Atomic uint64_t done;
    pthread_mutex_t lock;
    pthread_cond_t end;
    /* protected by lock */
    bool fed; /* the feeder has ended */
    struct err err;
};

/* Open the repository, find the point, choose its disks. */
int restore_choose(struct restore *r, struct err *err);

/* Look at the destination, then make the images there. */
int restore_prepare(struct restore *r, struct err *err);

/* Every chunk is written or its disk has failed: make files and configuration
 * durable under their names. */
int restore_publish(struct restore *r, struct jv **ret_result, struct err *err);
