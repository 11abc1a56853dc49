/* tests/sim/schedule.h - threads of which exactly one runs, chosen by a seed.
 *
 * An actor gives up control at scheduling points only (every operation of the
 * store is one), so a run is a function of its seed.  The clock is simulated: it
 * moves a little with each point, and jumps when everybody sleeps.
 */
#pragma once

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>

#include "prng.h"

#define SCHED_ACTORS_MAX 16
#define SCHED_SECOND 1000000000ull
#define BEAT_EVERY (20 * SCHED_SECOND)

struct actor;
struct sched;

typedef void (*actor_fn)(struct actor *a);

struct actor {
    /* never changed after sched_add() */
    struct sched *sched;
    unsigned no;
    char name[16];
    actor_fn fn;
    void *arg;
    pthread_t thread;
    sem_t go;

    /* belongs to whoever runs */
    struct prng rng; /* the actor's own decisions */
    bool ended;
    bool dead;              /* every operation fails and does nothing */
    uint64_t wake_ns;       /* not before this */
    uint64_t longest_pause; /* without an operation, since it was reset */
    uint64_t last_op_ns;
    unsigned n_faults; /* that it was given */

    /* of the session that it runs, for beats in its name */
    char sid[33];
    uint64_t beat_ns;
    unsigned n_beats;
    void *pending; /* what its commit object will mean */
    /* of the session before a checkpoint, until it is removed */
    char old_sid[33];
    unsigned old_beats;
};

/* How rough a run is; all by the seed. */
struct sched_mood {
    unsigned stay;  /* goes on with the same actor unless once in this many */
    unsigned pause; /* stopped for a while, once in this many operations */
    unsigned kill;  /* stopped for ever */
    unsigned fail;  /* the operation fails */
    unsigned power_at; /* the operation at which the power fails, 0: never */
};

struct sched {
    struct prng rng;
    struct sched_mood mood;
    struct actor *actors[SCHED_ACTORS_MAX];
    unsigned n;
    struct actor *running;
    uint64_t now_ns;
    uint64_t n_ops, ops_max;
    bool power_cut, gave_up;
    sem_t all_ended;
    bool trace;
};

/* For ids that are made outside of actors. */
void sched_seed(uint64_t seed);
void sched_init(struct sched *s, uint64_t seed);
void sched_done(struct sched *s);
struct actor *sched_add(struct sched *s, const char *name, actor_fn fn,
                        void *arg);

/* Let all actors run to their ends, and free them. */
void sched_run(struct sched *s);

/* The actor of this thread, or NULL. */
struct actor *sched_self(void);

/* Before each operation: somebody else may run first, and the actor may be
 * stopped, or dead afterwards. */
void sched_point(struct actor *a);
void sched_sleep(struct actor *a, uint64_t ns);
/* Everybody is dead: the run ends as soon as the stacks are unwound. */
void sched_kill_all(struct sched *s);
