/* repo/repair.h - what the files of the repair share. */
#pragma once

#include <stdbool.h>

#include "buf.h"
#include "catalog.h"
#include "internal.h"
#include "session.h"

/* A segment that a commit object names and that cannot be used. */
struct lost_segment {
    char key[REPO_KEY_MAX];
    char commit[REPO_KEY_MAX];
    bool collector; /* holds records of any pack that counts */
};

struct repair {
    struct repo *repo;
    struct repo_repair_opts opts;
    struct frame_ctx *ctx;
    struct repo_session *session; /* NULL in a dry run */
    struct repo_repair_report rep;
    struct buf lost;          /* struct lost_segment */
    struct pack_set *damaged; /* packs to look through */
    struct pack_set *gone;    /* what collectors have said */
    struct id_list removed;
    struct jv *segments; /* made again: parts of the COMMIT */
};

int repair_canceled(const struct repair *p, struct err *err);
int repair_say(struct repair *p, struct err *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* repair_index.c: find segments that are lost; make them again (into the session,
 * whose packs are sealed). */
int repair_find_segments(struct repair *p, struct err *err);
int repair_segments(struct repair *p, struct err *err);

/* repair_packs.c: find damaged packs; copy what is good out of them. */
int repair_find_packs(struct repair *p, struct err *err);
int repair_packs(struct repair *p, struct err *err);

/* SHA-256 of an object, in pieces (verify_objects.c). */
int object_sha256(struct repo *r, const char *key, uint64_t len,
                  uint8_t ret[32], struct err *err);
/* Does the segment `part` of a commit object lie there as written? */
int segment_part_check(struct repo *r, const char *key, const struct jv *part,
                       struct err *why);

/* Records that are bad and have no good copy (damaged.c). */
int damage_count(struct repo *r, uint64_t *ret, struct err *err);

/* All commit objects of type COMMIT that count: -1 of fn ends the walk. */
typedef int (*commit_fn)(void *arg, const char *key, const struct jv *payload,
                         struct err *err);
int repair_commits(struct repair *p, commit_fn fn, void *arg, struct err *err);
/* All packs that a commit object names, those in lists of their own, too. */
typedef int (*part_fn)(void *arg, const struct pack_name *name,
                       const struct jv *part, struct err *err);
int repair_parts(struct repair *p, const struct jv *payload, part_fn fn,
                 void *arg, struct err *err);
