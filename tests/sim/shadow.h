/* tests/sim/shadow.h - what the points must read back as, kept beside the store.
 *
 * A point begins to exist in the moment in which its commit object does, and is
 * given up in the moment in which its forget object begins to exist.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "repo.h"
#include "world.h"

#define DISK_CHUNKS 150 /* two levels of map pages, and a bit */
#define CHUNK_SIZE REPO_CHUNK_MIN
#define DISK_SIZE ((uint64_t)DISK_CHUNKS * CHUNK_SIZE)
#define CHUNK_VALUES 40 /* different contents in the whole world; 0: zeroes */
#define MACHINES 3

struct content {
    uint8_t value[DISK_CHUNKS];
};

struct shadow_point {
    char id[33];
    unsigned machine;
    struct content content;
    bool there, forgotten;
    bool unsure; /* a power cut took its forget object: listed or not */
};

/* What a writer is about to commit. */
struct pending {
    char sid[33]; /* of the session that commits it */
    unsigned machine;
    struct content content;
    bool created;
};

struct shadow {
    struct world *world;
    struct shadow_point *v;
    size_t n;
    unsigned n_commits, n_refused, n_forgets, n_collections, n_reads;
    unsigned n_fenced, n_other_errors;
    bool clean; /* the last collection had something to remove */
};

void shadow_init(struct shadow *s, struct world *w);
void shadow_done(struct shadow *s);

const char *machine_name(unsigned machine);
/* CHUNK_SIZE bytes. */
void chunk_fill(unsigned value, uint8_t *p);

struct shadow_point *shadow_find(struct shadow *s, const char *id);

/* Read the whole point and compare: 0 equal; 1 it cannot be read (*err); 2 it
 * reads as something else. */
int shadow_read(struct repo *r, const struct shadow_point *sp,
                const struct point *p, struct err *err);

/* All points that must be there are there, read back equal, and no others. A
 * violation if not. */
void shadow_prove(struct shadow *s, const char *when);

/* After a last collection: nothing that no point needs. */
void shadow_prove_clean(struct shadow *s);

/* After a power cut: what is there is there. */
void shadow_resync(struct shadow *s);
