/* What the processes of a run do, with the real code.
 *
 * An error is fine for an actor to which something was done (a fault, a pause as
 * long as a fence takes); wrong bytes are never.
 */
#include "actors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "internal.h"
#include "mutant.h"

/* Shorter than in life: watching a dead session costs time here, too. */
#define FENCE_AFTER (120 * SCHED_SECOND)

DEFINE_CLEANUP(struct repo *, repo_close)
DEFINE_CLEANUP(struct repo_pin *, repo_pin_free)
DEFINE_CLEANUP(struct map_reader *, map_reader_free)
DEFINE_CLEANUP(struct map_writer *, map_writer_free)
DEFINE_CLEANUP(struct point *, point_free)

static struct world *
world_of(struct actor *a)
{
    return ((struct shadow *)a->arg)->world;
}

static void
say(struct actor *a, const char *what, const struct err *err)
{
    if (world_of(a)->trace)
        printf("# %8.1f %-10s == %s%s%s\n", (double)a->sched->now_ns / 1e9,
               a->name, what, err != NULL ? ": " : "",
               err != NULL ? err->msg : "");
}

/* Open unless it is open: a process that lives on has an old index. */
static struct repo *
open_repo(struct actor *a, struct repo **r, struct err *err)
{
    if (*r != NULL && prng_once_in(&a->rng, 3)) {
        repo_close(*r);
        *r = NULL;
    }
    if (*r == NULL && repo_open_store(world_store(world_of(a), a), r, err) < 0)
        return NULL;
    return *r;
}

static void
pause_between(struct actor *a)
{
    if (prng_once_in(&a->rng, 2))
        world_pause(world_of(a), a, prng_below(&a->rng, 600) * SCHED_SECOND);
}

/* -- writer -----------------------------------------------------------------*/

struct backup {
    struct actor *actor;
    struct repo *r;
    struct repo_session *s;
    struct chunk_id base_root;
    struct content base;
    struct pending pending;
    bool full;              /* every chunk is put, not only what changed */
    unsigned checkpoint_at; /* chunk, DISK_CHUNKS: none */
    char partial[33];       /* id, or "" */
};

static void
change_content(struct prng *p, struct content *c)
{
    unsigned n = 1 + prng_below(p, 6);

    for (unsigned i = 0; i < n; i++) {
        /* few places, so that pages are shared and rewritten */
        unsigned at = prng_below(p, 12) * (DISK_CHUNKS / 12);

        c->value[at] = (uint8_t)prng_below(p, CHUNK_VALUES);
    }
}

/* The newest point of the machine as it is listed now, most of the time. */
static int
choose_base(struct backup *b, struct err *err)
{
    CLEANUP(point_list_done) struct point_list l = {NULL, 0};
    struct shadow *sh = b->actor->arg;
    const struct shadow_point *sp;
    const struct point *p;

    if (repo_points_all(b->r, NULL, &l, NULL, err) < 0)
        return -1;
    if (l.n == 0 || prng_once_in(&b->actor->rng, 5))
        return 0;
    p = l.v[l.n - 1 - prng_below(&b->actor->rng, l.n < 3 ? (unsigned)l.n : 3)];
    sp = shadow_find(sh, p->id);
    if (sp == NULL) {
        world_violation(sh->world, "point %.8s is listed, never committed",
                        p->id);
        return 0;
    }
    b->base_root = p->disks[0].root;
    b->base = sp->content;
    b->full = prng_once_in(&b->actor->rng, 4);
    return 0;
}

static int
put_one(struct backup *b, struct map_reader *m, unsigned i,
        struct chunk_id *ret, struct err *err)
{
    uint8_t data[CHUNK_SIZE];
    struct chunk_id base;
    bool use_base = m != NULL && prng_once_in(&b->actor->rng, 2);

    if (use_base && map_reader_get(m, i, &base, err) < 0)
        return -1;
    chunk_fill(b->pending.content.value[i], data);
    return repo_put(b->s, 0, data, sizeof data, use_base ? &base : NULL, ret,
                    NULL, err);
}

static char *
copy(const char *s)
{
    char *c = strdup(s);

    if (c == NULL)
        abort();
    return c;
}

static struct point *
describe(const struct backup *b, const struct chunk_id *root)
{
    struct point *p = point_new();

    if (p == NULL)
        abort();
    p->machine = copy(machine_name(b->pending.machine));
    p->consistency = copy("crash");
    p->capture = copy("pull");
    p->disks = calloc(1, sizeof *p->disks);
    if (p->disks == NULL)
        abort();
    p->n_disks = 1;
    p->disks[0].name = copy("vda");
    p->disks[0].size = DISK_SIZE;
    p->disks[0].chunk_size = CHUNK_SIZE;
    p->disks[0].root = *root;
    p->disks[0].format = copy("raw");
    p->disks[0].tracking = copy(b->full ? "full" : "incremental");
    p->disks[0].reason = copy("");
    return p;
}

/* What a partial point holds with the first `done` chunks copied. */
static void
content_so_far(const struct backup *b, unsigned done, struct content *ret)
{
    for (unsigned i = 0; i < DISK_CHUNKS; i++)
        ret->value[i] = i < done  ? b->pending.content.value[i]
                        : b->full ? 0
                                  : b->base.value[i];
}

/* Make the first `done` chunks durable and go on with the map. */
static int
checkpoint(struct backup *b, struct map_writer **w, unsigned done,
           struct err *err)
{
    CLEANUP(point_freep) struct point *p = NULL;
    struct pending partial = b->pending;
    struct chunk_id root;
    int result;

    if (map_writer_finish(*w, &root, err) < 0)
        return -1;
    map_writer_free(TAKE_PTR(*w));
    content_so_far(b, done, &partial.content);
    p = describe(b, &root);
    p->partial = true;
    p->disks[0].done = (uint64_t)done * CHUNK_SIZE;
    (void)strcpy(partial.sid, session_sid(b->s));
    b->actor->pending = &partial;
    result = repo_session_checkpoint(b->s, p, err);
    b->actor->pending = NULL;
    if (result < 0)
        return -1;
    if (!partial.created)
        world_violation(world_of(b->actor),
                        "%s: a checkpoint without a commit object",
                        b->actor->name);
    say(b->actor, "checkpoint", NULL);
    (void)strcpy(b->partial, p->id);
    return map_writer_new(b->s, DISK_SIZE, CHUNK_SIZE, &root, w, err);
}

static int
write_map(struct backup *b, struct chunk_id *ret_root, struct err *err)
{
    static const struct chunk_id zero;
    CLEANUP(map_writer_freep) struct map_writer *w = NULL;
    CLEANUP(map_reader_freep) struct map_reader *m = NULL;
    const uint8_t *now = b->pending.content.value;

    if (!chunk_id_zero(&b->base_root) &&
        map_reader_new(b->r, DISK_SIZE, CHUNK_SIZE, &b->base_root, &m, err) < 0)
        return -1;
    if (map_writer_new(b->s, DISK_SIZE, CHUNK_SIZE,
                       b->full ? &zero : &b->base_root, &w, err) < 0)
        return -1;
    for (unsigned i = 0; i < DISK_CHUNKS; i++) {
        struct chunk_id id;

        if (b->full ? now[i] == 0 : now[i] == b->base.value[i])
            continue;
        if (put_one(b, m, i, &id, err) < 0 ||
            map_writer_set(w, i, &id, err) < 0)
            return -1;
        if (i < b->checkpoint_at)
            continue;
        /* In the map and entered once more, as what waits in a queue is; the
         * base counts no more. */
        b->checkpoint_at = DISK_CHUNKS;
        map_reader_free(TAKE_PTR(m));
        if (checkpoint(b, &w, i + 1, err) < 0 ||
            map_writer_set(w, i, &id, err) < 0)
            return -1;
    }
    return map_writer_finish(w, ret_root, err);
}

static int
commit(struct backup *b, const struct chunk_id *root, struct err *err)
{
    CLEANUP(point_freep) struct point *p = describe(b, root);
    struct shadow *sh = b->actor->arg;
    unsigned faults = b->actor->n_faults;
    int result;

    (void)strcpy(b->pending.sid, session_sid(b->s));
    b->actor->pending = &b->pending;
    result = repo_commit(b->s, p, err);
    b->actor->pending = NULL;
    if (result == 0 && !b->pending.created)
        world_violation(sh->world, "%s: a commit without a commit object",
                        b->actor->name);
    if (result < 0 && b->pending.created && b->actor->n_faults == faults &&
        !b->actor->dead)
        world_violation(sh->world, "%s: a refused commit is visible: %s",
                        b->actor->name, err->msg);
    return result;
}

/* A mutant breaks rules that a checkpoint relies on in other ways than that it
 * shall be noticed for, and its seeds are known without them. */
static bool
makes_checkpoints(void)
{
#ifdef TIDEMARK_MUTANTS
    return repo_mutant == MUTANT_NONE;
#else
    return true;
#endif
}

static int
backup(struct backup *b, struct err *err)
{
    struct repo_session_opts opts = REPO_SESSION_OPTS;
    struct chunk_id root;

    b->pending.machine = prng_below(&b->actor->rng, MACHINES);
    opts.machine = machine_name(b->pending.machine);
    opts.synchronous = true;
    if (MUTANT(MUTANT_PUT_FORGOTTEN_BASE) && choose_base(b, err) < 0)
        return -1;
    if (repo_session_begin(b->r, &opts, &b->s, err) < 0)
        return -1;
    session_set_limits(b->s, 900, 10);
    if (!MUTANT(MUTANT_PUT_FORGOTTEN_BASE) && choose_base(b, err) < 0)
        return -1;
    b->pending.content = b->base;
    change_content(&b->actor->rng, &b->pending.content);
    b->checkpoint_at = makes_checkpoints() && prng_once_in(&b->actor->rng, 3)
                           ? prng_below(&b->actor->rng, DISK_CHUNKS)
                           : DISK_CHUNKS;
    if (write_map(b, &root, err) < 0)
        return -1;
    if (prng_once_in(&b->actor->rng, 12))
        return err_set(err, ERR_CANCELED, "changed its mind");
    return commit(b, &root, err);
}

/* Whatever it was, may this actor fail now? */
static bool
excused(const struct actor *a)
{
    return a->dead || a->n_faults > 0 ||
           a->longest_pause + BEAT_EVERY >= FENCE_AFTER;
}

static void
count_failure(struct actor *a, const struct err *why)
{
    struct shadow *sh = a->arg;

    sh->n_refused++;
    if (why->code == ERR_EXISTS)
        sh->n_fenced++;
    if (!excused(a) && why->code != ERR_CANCELED)
        sh->n_other_errors++;
    if (why->code == ERR_EXISTS && !excused(a))
        world_violation(sh->world, "%s: fenced, and was alive: %s", a->name,
                        why->msg);
}

void
actor_writer(struct actor *a)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    unsigned n = 1 + prng_below(&a->rng, 3);

    for (unsigned i = 0; i < n && !a->dead; i++) {
        struct backup b = {.actor = a};
        struct err why = ERR_INIT;

        a->n_faults = 0;
        a->longest_pause = 0;
        say(a, "backup", NULL);
        b.r = open_repo(a, &r, &why);
        if (b.r == NULL || backup(&b, &why) < 0) {
            say(a, "no point", &why);
            count_failure(a, &why);
        } else {
            say(a, "committed", NULL);
            if (b.partial[0] != '\0')
                (void)repo_forget(b.r, b.partial, "test", NULL);
        }
        repo_session_free(b.s);
        if (b.pending.created && prng_once_in(&a->rng, 4))
            shadow_prove(a->arg, "after a commit");
        pause_between(a);
    }
}

/* -- forgetter --------------------------------------------------------------*/

void
actor_forgetter(struct actor *a)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    unsigned n = 1 + prng_below(&a->rng, 4);

    for (unsigned i = 0; i < n && !a->dead; i++) {
        CLEANUP(point_list_done) struct point_list l = {NULL, 0};
        struct err why = ERR_INIT;

        if (open_repo(a, &r, &why) != NULL &&
            repo_points_all(r, NULL, &l, NULL, &why) == 0 && l.n > 0) {
            const struct point *p = l.v[prng_below(&a->rng, (unsigned)l.n)];

            /* What is forgotten is not looked at any more: look now. */
            if (prng_once_in(&a->rng, 3))
                shadow_prove(a->arg, "before a point is forgotten");
            (void)repo_forget(r, p->id, "test", &why);
            say(a, "forgets", why.code != ERR_NONE ? &why : NULL);
        }
        pause_between(a);
    }
}

/* -- reader -----------------------------------------------------------------*/

static void
check_reading(struct actor *a, const struct shadow_point *sp, int result,
              bool pinned, const struct err *why)
{
    struct shadow *sh = a->arg;

    sh->n_reads++;
    say(a, "has read", why->code != ERR_NONE ? why : NULL);
    if (result == 2)
        world_violation(sh->world, "%s: point %.8s reads wrong", a->name,
                        sp->id);
    if (result == 1 && !excused(a) && (pinned || !sp->forgotten))
        world_violation(sh->world, "%s: %s point %.8s cannot be read: %s",
                        a->name, pinned ? "pinned" : "living", sp->id,
                        why->msg);
}

static void
read_point(struct actor *a, struct repo *r, const struct point *p)
{
    CLEANUP(repo_pin_freep) struct repo_pin *pin = NULL;
    struct shadow_point *sp = shadow_find(a->arg, p->id), was;
    struct err why = ERR_INIT;
    const char *id = p->id;
    int result;

    if (sp == NULL)
        return;
    if (!prng_once_in(&a->rng, 4) && repo_pin_new(r, &id, 1, &pin, &why) < 0)
        return;
    say(a, pin != NULL ? "holds a pin" : "reads without a pin", NULL);
    for (unsigned turn = 0; turn < 2; turn++) {
        pause_between(a);
        was = *shadow_find(a->arg, p->id); /* the list may move meanwhile */
        err_clear(&why);
        result = shadow_read(r, &was, p, &why);
        was.forgotten = shadow_find(a->arg, p->id)->forgotten;
        check_reading(a, &was, result, pin != NULL, &why);
    }
}

void
actor_reader(struct actor *a)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    unsigned n = 1 + prng_below(&a->rng, 3);

    for (unsigned i = 0; i < n && !a->dead; i++) {
        CLEANUP(point_list_done) struct point_list l = {NULL, 0};
        struct err why = ERR_INIT;

        a->n_faults = 0;
        a->longest_pause = 0;
        if (open_repo(a, &r, &why) != NULL &&
            repo_points_all(r, NULL, &l, NULL, &why) == 0 && l.n > 0)
            read_point(a, r, l.v[prng_below(&a->rng, (unsigned)l.n)]);
        pause_between(a);
    }
}

/* -- collector --------------------------------------------------------------*/

static uint64_t
simulated_now(void *arg)
{
    return ((struct actor *)arg)->sched->now_ns;
}

static void
simulated_sleep(void *arg, uint64_t ns)
{
    sched_sleep(arg, ns);
}

/* Once; `fine` when it did its work, or another one does. */
static void
collect(struct actor *a, struct repo **r)
{
    struct shadow *sh = a->arg;
    struct repo_gc_opts opts = {.arg = a,
                                .now_ns = simulated_now,
                                .sleep_ns = simulated_sleep,
                                .fence_after = FENCE_AFTER};
    struct repo_gc_report report = {0};
    struct err why = ERR_INIT;

    opts.rewrite = 1 + prng_below(&a->rng, 100);
    a->n_faults = 0;
    a->longest_pause = 0;
    say(a, "collects", NULL);
    if (open_repo(a, r, &why) != NULL && repo_gc(*r, &opts, &report, &why) == 0)
        sh->n_collections += !report.other_runs;
    else if (!excused(a))
        world_violation(sh->world, "%s: no collection: %s", a->name, why.msg);
    say(a, report.other_runs ? "another collects" : "has collected",
        why.code != ERR_NONE ? &why : NULL);
}

void
actor_collector(struct actor *a)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    unsigned n = 1 + prng_below(&a->rng, 2);

    for (unsigned i = 0; i < n && !a->dead; i++) {
        collect(a, &r);
        if (prng_once_in(&a->rng, 2))
            shadow_prove(a->arg, "after a collection");
        pause_between(a);
    }
}

/* A collection that has nothing to remove does not wait for the dead. */
static bool
forget_one(struct repo *r)
{
    CLEANUP(point_list_done) struct point_list l = {NULL, 0};

    return repo_points_all(r, NULL, &l, NULL, NULL) == 0 && l.n > 0 &&
           repo_forget(r, l.v[0]->id, "test", NULL) == 0;
}

void
actor_last(struct actor *a)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    struct shadow *sh = a->arg;

    sh->clean = open_repo(a, &r, NULL) != NULL && forget_one(r);
    /* One to find the dead, one to remove what they held, one to clean up. */
    for (unsigned i = 0; i < 3 && !a->dead; i++)
        collect(a, &r);
}
