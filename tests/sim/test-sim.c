/* The repository under a simulated store: many processes, many schedules.
 *
 *     test-sim [--runs N] [--seed S] [--mutant K] [--trace]
 *
 * A run is a function of its seed.  One that ends badly prints it; replay it
 * with --seed S --runs 1 --trace.  After each run, and at times within it, every
 * point that was committed and not forgotten is read back.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors.h"
#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "internal.h"
#include "mutant.h"
#include "store.h"

#define RUNS 4000
#define SECONDS 60         /* after which the rest of RUNS is left out */
#define MUTANT_SECONDS 120 /* of search when the known seed finds nothing */
#define RARE_SECONDS 15

static struct {
    uint64_t seed, runs;
    uint64_t mutant; /* only this one */
    bool trace, fixed;
} args = {.seed = 1, .runs = RUNS};

struct totals {
    uint64_t runs, ops, commits, refused, fenced, forgets, collections, reads;
    uint64_t power_cuts, others, gave_up;
};

/* -- one run ----------------------------------------------------------------*/

static struct sched_mood
choose_mood(struct prng *p)
{
    static const unsigned stays[] = {1, 2, 8, 30, 100};
    static const unsigned pauses[] = {0, 20, 50, 100, 500};
    static const unsigned rare[] = {0, 0, 0, 300, 1000};

    return (struct sched_mood){
        .stay = stays[prng_below(p, 5)],
        .pause = pauses[prng_below(p, 5)],
        .kill = prng_once_in(p, 2) ? 400 + prng_below(p, 2000) : 0,
        .fail = rare[prng_below(p, 5)],
        .power_at = prng_once_in(p, 4) ? 1 + prng_below(p, 1500) : 0,
    };
}

static void
add_totals(struct totals *t, const struct shadow *sh)
{
    t->commits += sh->n_commits;
    t->refused += sh->n_refused;
    t->fenced += sh->n_fenced;
    t->forgets += sh->n_forgets;
    t->collections += sh->n_collections;
    t->reads += sh->n_reads;
    t->others += sh->n_other_errors;
}

/* Some processes at once, until all have ended. */
static void
phase(struct world *w, struct shadow *sh, struct prng *p, struct totals *t)
{
    static const actor_fn fns[] = {actor_writer,    actor_writer,
                                   actor_forgetter, actor_collector,
                                   actor_reader,    actor_writer};
    static const char *const names[] = {"writer",    "writer", "forgetter",
                                        "collector", "reader", "writer"};
    unsigned n = 3 + prng_below(p, 5);
    struct sched s;

    sched_init(&s, prng_next(p));
    s.mood = choose_mood(p);
    s.trace = args.trace;
    w->sched = &s;
    for (unsigned i = 0; i < n; i++) {
        unsigned k = i < 4 ? i : prng_below(p, ARRAY_SIZE(fns));

        (void)sched_add(&s, names[k], fns[k], sh);
    }
    sched_run(&s);
    w->sched = NULL;
    t->ops += s.n_ops;
    t->gave_up += s.gave_up;
    if (s.power_cut && w->violation[0] == '\0') {
        t->power_cuts++;
        world_power_cut(w);
        shadow_resync(sh);
    }
    sched_done(&s);
}

/* Nobody else, nothing fails: what is left then is garbage. */
static void
last_collection(struct world *w, struct shadow *sh)
{
    struct sched s;

    sched_init(&s, 7);
    s.trace = args.trace;
    w->sched = &s;
    (void)sched_add(&s, "last", actor_last, sh);
    sched_run(&s);
    sched_done(&s);
    w->sched = NULL;
}

/* A mutant must lose data; untidiness does not count. */
static bool
repo_is_whole(void)
{
#ifdef TIDEMARK_MUTANTS
    return repo_mutant == MUTANT_NONE;
#else
    return true;
#endif
}

static void
one_run(uint64_t seed, struct totals *t, char violation[1024])
{
    struct prng p = prng_seeded(seed);
    struct store *st;
    struct world w;
    struct shadow sh;
    unsigned phases = 1 + prng_below(&p, 3);

    world_init(&w, seed);
    w.trace = args.trace;
    sched_seed(seed);
    st = world_store(&w, NULL);
    (void)repo_init_store(st, CHUNK_SIZE, ERR_ABORT);
    (void)store_sync(st, "session", ERR_ABORT);
    store_close(st);
    shadow_init(&sh, &w);
    for (unsigned i = 0; i < phases && w.violation[0] == '\0'; i++) {
        phase(&w, &sh, &p, t);
        shadow_prove(&sh, "when all had ended");
    }
    if (w.violation[0] == '\0')
        last_collection(&w, &sh);
    if (w.violation[0] == '\0') {
        shadow_prove(&sh, "at the end");
        if (sh.clean)
            shadow_prove_clean(&sh);
    }
    add_totals(t, &sh);
    t->runs++;
    if (!w.only_left || repo_is_whole())
        memcpy(violation, w.violation, sizeof w.violation);
    shadow_done(&sh);
    world_done(&w);
}

static void
print_totals(const struct totals *t)
{
    printf("# %llu runs, %llu operations: %llu points, %llu refused (%llu "
           "fenced, %llu for reasons of their own), %llu forgotten, %llu "
           "collections, %llu readings, %llu power cuts, %llu endless\n",
           (unsigned long long)t->runs, (unsigned long long)t->ops,
           (unsigned long long)t->commits, (unsigned long long)t->refused,
           (unsigned long long)t->fenced, (unsigned long long)t->others,
           (unsigned long long)t->forgets, (unsigned long long)t->collections,
           (unsigned long long)t->reads, (unsigned long long)t->power_cuts,
           (unsigned long long)t->gave_up);
}

/* Seeds from `first` on until a violation, `runs` or `seconds`: true when one
 * was found. */
static bool
search(uint64_t first, uint64_t runs, unsigned seconds, struct totals *t)
{
    uint64_t until = clock_ms() + seconds * 1000ull;
    char violation[1024] = "";

    for (uint64_t i = 0; i < runs && (seconds == 0 || clock_ms() < until);
         i++) {
        one_run(first + i, t, violation);
        if (violation[0] == '\0')
            continue;
        printf("# seed %llu: %s\n", (unsigned long long)(first + i), violation);
        return true;
    }
    return false;
}

/* -- tests ------------------------------------------------------------------*/

#ifdef TIDEMARK_MUTANTS
/* `seed` found it once and is tried first.  A change of the code moves the
 * schedules: when a seed finds nothing any more, some time is spent on the
 * search for another, and test-sim-mutants --mutant K --runs 20000 tells one
 * to write down here. */
static const struct {
    const char *name;
    uint64_t seed;
} mutants[MUTANT_MAX] = {
    [MUTANT_GC_NO_WAIT] = {"the collector does not wait for sessions", 25},
    [MUTANT_GC_SESSIONS_FIRST] = {"sessions are listed before condemned is put",
                                  766},
    [MUTANT_GC_DELETE_FIRST] = {"packs are removed before the COMMIT", 855},
    [MUTANT_GC_ROOTS_SHRINK] = {"forgets are read again for the second mark",
                                513},
    [MUTANT_GC_OWN_CONDEMNED] = {"condemned lists of others are ignored", 31},
    [MUTANT_GC_LEFTOVERS] = {"every pack without a COMMIT is a leftover", 42},
    [MUTANT_GC_NO_COPY] = {"survivors are not copied", 4},
    [MUTANT_GC_NO_PINS] = {"pins are not read", 95},
    [MUTANT_GC_NO_EXCLUSION] = {"two collectors work at once", 189},
    [MUTANT_PUT_CONDEMNED] = {"a writer reuses what is condemned", 88},
    [MUTANT_PUT_INDEX_FIRST] = {"a writer reads the index, then registers",
                                178},
    [MUTANT_PUT_COMMIT_SHARED] = {"a commit replaces a fence", 259},
    [MUTANT_PUT_FORGOTTEN_BASE] = {"a writer builds on a forgotten point", 35},
    [MUTANT_PUT_OLD_LOOKS] = {"packs seen before registering are believed in",
                              1910},
    [MUTANT_PUT_UNCOMMITTED] = {"segments of unfinished sessions count", 5},
};

static int
run_tests(void)
{
    unsigned n = 0, failed = 0;

    printf("1..%u\n", args.mutant != 0 ? 1 : MUTANT_MAX - 1);
    for (unsigned k = 1; k < MUTANT_MAX; k++) {
        struct totals t = {0};
        bool found;

        if (args.mutant != 0 && args.mutant != k)
            continue;
        repo_mutant = k;
        found = (!args.fixed && search(mutants[k].seed, 1, 0, &t)) ||
                search(args.seed, args.fixed ? args.runs : UINT64_MAX,
                       args.fixed                    ? 0
                       : k == MUTANT_GC_ROOTS_SHRINK ? RARE_SECONDS
                                                     : MUTANT_SECONDS,
                       &t);
        print_totals(&t);
        if (!found && k == MUTANT_GC_ROOTS_SHRINK) {
            /* Needs a half-dead pack, a forget and a new writer within one wait:
             * found once in thousands of runs.  The model always finds it. */
            printf("ok %u - noticed: %s # SKIP too rare here, see FORGET_AGAIN "
                   "in docs/collect.pml\n",
                   ++n, mutants[k].name);
            continue;
        }
        failed += !found;
        printf("%s %u - noticed: %s\n", found ? "ok" : "not ok", ++n,
               mutants[k].name);
    }
    return failed != 0;
}
#else
static int
run_tests(void)
{
    struct totals t = {0};
    bool found = search(args.seed, args.runs, args.fixed ? 0 : SECONDS, &t);

    printf("1..1\n");
    print_totals(&t);
    printf("%s 1 - every point survives every schedule\n",
           found ? "not ok" : "ok");
    return found;
}
#endif

static uint64_t
number(const char *s)
{
    char *end;
    unsigned long long n = strtoull(s != NULL ? s : "", &end, 10);

    if (s == NULL || *s == '\0' || *end != '\0') {
        fprintf(stderr, "usage: test-sim [--runs N] [--seed S] [--mutant K] "
                        "[--trace]\n");
        exit(2);
    }
    return n;
}

int
main(int argc, char **argv)
{
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--runs") == 0) {
            args.runs = number(argv[++i]);
            args.fixed = true;
        } else if (strcmp(argv[i], "--seed") == 0) {
            args.seed = number(argv[++i]);
        } else if (strcmp(argv[i], "--mutant") == 0) {
            args.mutant = number(argv[++i]);
        } else if (strcmp(argv[i], "--trace") == 0) {
            args.trace = true;
        } else {
            (void)number(NULL);
        }
    }
    repo_beat_ns = 3600 * SCHED_SECOND; /* the world beats for its actors */
    return run_tests();
}
