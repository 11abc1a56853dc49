/* job/offline.h - what earlier points know of a machine that is off.
 *
 * Images have no names of disks and say nothing of their machine.  Points do:
 * each has the file of each disk, so that a machine that is backed up now on,
 * now off stays one machine with the same disks.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "source.h"

struct err;
struct job_backup_opts;
struct point_list;
struct repo;
struct repo_session;
struct chunk_id;

struct offline_known {
    struct source_known *v;
    size_t n;
    char *machine; /* the one whose newest point has these images, or NULL */
    bool several;  /* more than one machine has */
};

/* Look into the points of the machine, or without its name for the one that
 * has the images.  Nothing to do unless the machine is, or may be, off. */
int offline_know(struct repo *r, const struct job_backup_opts *opts,
                 struct offline_known *ret, struct err *err);
void offline_known_done(struct offline_known *k);

/* Store the configuration of the newest point that has one again.  *ret_len 0:
 * there is none that can be read. */
int offline_config(struct repo *r, struct repo_session *session,
                   const struct point_list *points, struct chunk_id *ret,
                   uint64_t *ret_len, struct err *err);

/* What has become of the machine's name; ERR_USAGE without one. */
const char *offline_machine(const struct offline_known *k, const char *address,
                            struct err *err);
