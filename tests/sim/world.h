/* tests/sim/world.h - a store in memory that delays, fails and loses.
 *
 * Several actors share one world, each through a struct store of its own.  Where
 * the contract of store.h leaves something open, the seed decides:
 *  - an operation may fail and do nothing, or do it and fail all the same;
 *  - a listing may or may not show what was made or removed while it ran;
 *  - a power cut may bring back what was removed and not synced, and take what
 *    a failed put left.
 * What a name once meant it must always mean: a key that is used twice is
 * a violation.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "schedule.h"

struct err;
struct store;
struct world;

enum object_state {
    OBJECT_THERE,
    OBJECT_REMOVED, /* a power cut may bring it back */
    OBJECT_GONE,
};

struct object {
    char *key;
    uint8_t *data;
    size_t len;
    enum object_state state;
    bool durable;
};

/* Told of every object that comes into being or goes, while nothing else runs.
 * `a` may be NULL. */
typedef void (*world_fn)(void *arg, struct actor *a, const struct object *o);

struct world {
    struct object *v; /* in the order of their making */
    size_t n, cap;
    struct sched *sched; /* of the running phase, or NULL */
    struct prng rng;
    world_fn put_hook;
    void *arg;
    char violation[1024]; /* the first, or "" */
    bool only_left;       /* it is garbage, not a loss */
    bool trace;
};

void world_init(struct world *w, uint64_t seed);
void world_done(struct world *w);

/* A store for one actor; NULL: for the proof, which nothing disturbs. */
struct store *world_store(struct world *w, struct actor *a);

const struct object *world_find(const struct world *w, const char *key);

/* Let time pass for an actor that is idle, and alive. */
void world_pause(struct world *w, struct actor *a, uint64_t ns);

/* Lose what was not durable. */
void world_power_cut(struct world *w);

/* Keep the first, and end the run. */
void world_violation(struct world *w, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
