#include "schedule.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static __thread struct actor *self;
static struct prng outside = {88172645463325252u};

struct actor *
sched_self(void)
{
    return self;
}

/* The kernel's random numbers, for this program: ids must depend on the seed. */
ssize_t
getrandom(void *buf, size_t len, unsigned flags)
{
    struct prng *p = self != NULL ? &self->rng : &outside;
    uint8_t *b = buf;

    (void)flags;
    for (size_t i = 0; i < len; i++)
        b[i] = (uint8_t)(prng_next(p) >> 40);
    return (ssize_t)len;
}

/* -- choosing ---------------------------------------------------------------*/

static bool
can_run(const struct sched *s, const struct actor *a)
{
    return !a->ended && (a->dead || a->wake_ns <= s->now_ns);
}

static struct actor *
first_to_wake(const struct sched *s)
{
    struct actor *best = NULL;

    for (unsigned i = 0; i < s->n; i++) {
        struct actor *a = s->actors[i];

        if (!a->ended && (best == NULL || a->wake_ns < best->wake_ns))
            best = a;
    }
    return best;
}

/* NULL when all have ended. */
static struct actor *
choose(struct sched *s)
{
    struct actor *able[SCHED_ACTORS_MAX], *next;
    unsigned n = 0;

    for (unsigned i = 0; i < s->n; i++)
        if (can_run(s, s->actors[i]))
            able[n++] = s->actors[i];
    if (n == 0) {
        next = first_to_wake(s);
        if (next != NULL)
            s->now_ns = next->wake_ns;
        return next;
    }
    if (s->running != NULL && can_run(s, s->running) &&
        !prng_once_in(&s->rng, s->mood.stay))
        return s->running;
    return able[prng_below(&s->rng, n)];
}

/* Hand control on; comes back when it is `a`'s turn again. */
static void
hand_over(struct sched *s, struct actor *a)
{
    struct actor *next = choose(s);

    s->running = next;
    if (next == a)
        return;
    if (next == NULL) {
        (void)sem_post(&s->all_ended);
        return;
    }
    (void)sem_post(&next->go);
    if (a == NULL || a->ended)
        return;
    while (sem_wait(&a->go) != 0)
        ;
}

/* -- life -------------------------------------------------------------------*/

void
sched_seed(uint64_t seed)
{
    outside = prng_seeded(~seed);
}

void
sched_init(struct sched *s, uint64_t seed)
{
    memset(s, 0, sizeof *s);
    s->rng = prng_seeded(seed);
    s->now_ns = SCHED_SECOND;
    s->ops_max = 200000;
    s->mood.stay = 1;
    (void)sem_init(&s->all_ended, 0, 0);
}

void
sched_done(struct sched *s)
{
    (void)sem_destroy(&s->all_ended);
}

struct actor *
sched_add(struct sched *s, const char *name, actor_fn fn, void *arg)
{
    struct actor *a = calloc(1, sizeof *a);

    if (a == NULL || s->n == SCHED_ACTORS_MAX)
        abort();
    a->sched = s;
    a->no = s->n;
    a->fn = fn;
    a->arg = arg;
    a->rng = prng_seeded(prng_next(&s->rng));
    a->last_op_ns = s->now_ns;
    (void)snprintf(a->name, sizeof a->name, "%s%u", name, s->n);
    (void)sem_init(&a->go, 0, 0);
    s->actors[s->n++] = a;
    return a;
}

static void *
actor_main(void *arg)
{
    struct actor *a = arg;

    self = a;
    while (sem_wait(&a->go) != 0)
        ;
    a->fn(a);
    a->ended = true;
    hand_over(a->sched, a);
    return NULL;
}

void
sched_run(struct sched *s)
{
    for (unsigned i = 0; i < s->n; i++)
        if (pthread_create(&s->actors[i]->thread, NULL, actor_main,
                           s->actors[i]) != 0)
            abort();
    hand_over(s, NULL);
    if (s->n > 0)
        while (sem_wait(&s->all_ended) != 0)
            ;
    for (unsigned i = 0; i < s->n; i++) {
        (void)pthread_join(s->actors[i]->thread, NULL);
        (void)sem_destroy(&s->actors[i]->go);
        free(s->actors[i]);
    }
    s->n = 0;
    s->running = NULL;
}

/* -- points -----------------------------------------------------------------*/

void
sched_kill_all(struct sched *s)
{
    for (unsigned i = 0; i < s->n; i++)
        s->actors[i]->dead = true;
}

static void
maybe_stop(struct sched *s, struct actor *a)
{
    static const unsigned seconds[] = {1, 2, 4, 10, 30, 3600};
    uint64_t pause;

    if (s->mood.power_at != 0 && s->n_ops == s->mood.power_at) {
        s->power_cut = true;
        sched_kill_all(s);
    } else if (s->n_ops > s->ops_max) {
        s->gave_up = true;
        sched_kill_all(s);
    } else if (prng_once_in(&s->rng, s->mood.kill)) {
        a->dead = true;
        a->n_faults++;
    } else if (prng_once_in(&s->rng, s->mood.pause)) {
        pause = seconds[prng_below(&s->rng, sizeof seconds / sizeof *seconds)];
        a->wake_ns = s->now_ns + pause * SCHED_SECOND;
    }
    if (s->trace && (a->dead || a->wake_ns > s->now_ns))
        printf("# %8.1f %-10s %s\n", (double)s->now_ns / 1e9, a->name,
               a->dead ? "killed" : "stopped for a while");
}

static void
note_pause(struct sched *s, struct actor *a)
{
    uint64_t pause = s->now_ns - a->last_op_ns;

    if (pause > a->longest_pause)
        a->longest_pause = pause;
    a->last_op_ns = s->now_ns;
}

void
sched_point(struct actor *a)
{
    struct sched *s = a->sched;

    if (a->dead)
        return;
    s->n_ops++;
    s->now_ns += (1 + prng_below(&s->rng, 50)) * 1000000ull;
    maybe_stop(s, a);
    if (!a->dead)
        hand_over(s, a);
    note_pause(s, a);
}

void
sched_sleep(struct actor *a, uint64_t ns)
{
    struct sched *s = a->sched;

    if (a->dead)
        return;
    a->wake_ns = s->now_ns + ns;
    hand_over(s, a);
    a->last_op_ns = s->now_ns;
}
