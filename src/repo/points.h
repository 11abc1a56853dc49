/* repo/points.h - commit objects as they lie in the store, inside the repo
 * folder. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "internal.h"

/* One point with what only its commit object knows. */
struct commit_rec {
    struct point *point;
    uint8_t sha256[32]; /* of the commit object's bytes */
    uint8_t prev[32];   /* of the parent's, as recorded by this one */
    bool has_prev;
};

struct commit_recs {
    struct commit_rec *v; /* by machine, seq, id */
    size_t n;
};
void commit_recs_done(struct commit_recs *l);

/* One of them, without its place in the chain; rec->point is NULL, and there is
 * nothing to free, for an object that is no point. */
int commit_rec_read(struct repo *r, const char *key, struct commit_rec *rec,
                    struct err *err);

/* Read, authenticate and parse every point of the repository, the forgotten ones
 * as well.  What is wrong is
 * added to `bad` (array of strings) and the rest is listed; with `bad` NULL the
 * first commit object that does not verify is an error. */
int commit_scan(struct repo *r, struct commit_recs *ret, struct jv *bad,
                struct err *err);

/* Read and authenticate one commit object of `len` bytes.  `ret_sha256` may be
 * NULL. */
int commit_read(struct repo *r, const char *key, enum commit_type *ret_type,
                struct jv **ret_payload, uint8_t *ret_sha256, struct err *err);

/* A fence is under this name, for certain.  A name that is taken may be taken by
 * one's own object, when an answer of the store was lost. */
bool commit_is_fence(struct repo *r, const char *key);
