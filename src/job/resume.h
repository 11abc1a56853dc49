/* job/resume.h - going on from what an unfinished run has made durable.
 *
 * A long copy commits a partial point from time to time.  Per disk it says how far
 * that instant was copied (`done`): before it the map is that instant's and the
 * bitmap that began there tells what changed since; behind it the map is the base's,
 * and the base's bitmap has gone on recording.  A later run takes both.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct backup;
struct copy_opts;
struct err;
struct jv;

/* Take the newest partial point as base where it can be believed. */
void resume_choose(struct backup *b);
/* Look at what is stored of it, and at what is lost (into the disk's `heal`); when
 * it cannot be read, the plan is what it was without it. */
void resume_probe(struct backup *b, size_t i);

/* After source_begin(): which bitmaps have kept their canaries, and so what is
 * read by which.  1: nothing can be believed, read in full; 0; -1. */
int resume_check(struct backup *b, size_t i, struct err *err);

/* When a checkpoint is due, and what makes it. */
void resume_limits(struct backup *b, struct copy_opts *opts);
int resume_checkpoint(void *backup, struct err *err);
/* Before the copy begins again: bases that were chosen under a session before the
 * last checkpoint count only if they are still there; what has none is read in
 * full. */
void resume_look_again(struct backup *b);
/* Tell of the checkpoint that was made last, once. */
void resume_tell(struct backup *b);
/* The copy has failed, but what `done` and `root` of its disks say is good. */
void resume_last(struct backup *b);

/* A bitmap lies, so what was read with it and made durable is not to be gone on
 * from. */
void resume_distrust(struct backup *b);

/* A whole point is committed: unfinished ones are of no more use. */
void resume_forget(struct backup *b);

/* Add what was taken over to the "committed" object. */
int resume_report(const struct backup *b, struct jv *o);
