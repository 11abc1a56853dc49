/* One backup of a synthetic machine: incremental on its newest point when there
 * is one, like the job does it. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "clock.h"
#include "driver.h"
#include "err.h"
#include "internal.h"
#include "model.h"

DEFINE_CLEANUP(struct repo *, repo_close)
DEFINE_CLEANUP(struct repo_session *, repo_session_free)
DEFINE_CLEANUP(struct point *, point_free)
DEFINE_CLEANUP(struct map_writer *, map_writer_free)
DEFINE_CLEANUP(struct map_reader *, map_reader_free)

/* Small, so that one backup has several of each. */
#define PACK_TARGET (200u << 10)
#define RECORDS_MAX 50

struct put {
    const struct driver_opts *o;
    struct repo *r;
    struct repo_session *s;
    uint64_t machine, seed;
    const struct point *base; /* or NULL */
    uint64_t base_seed;
};

static int
put_chunk(struct put *p, uint64_t i, struct map_reader *base,
          struct map_writer *w, struct err *err)
{
    static uint8_t data[MODEL_CHUNK];
    struct timespec ts = {.tv_nsec = p->o->slow_ms * 1000000l};
    uint64_t value = model_value(p->machine, i, p->seed);
    struct chunk_id old, id;

    if (base != NULL && !p->o->full &&
        value == model_value(p->machine, i, p->base_seed))
        return 0;
    if (base != NULL && map_reader_get(base, i, &old, err) < 0)
        return -1;
    model_fill(value, data, model_len(i));
    if (repo_put(p->s, 0, data, model_len(i), base != NULL ? &old : NULL, &id,
                 NULL, err) < 0)
        return -1;
    if (ts.tv_nsec > 0)
        (void)nanosleep(&ts, NULL);
    return map_writer_set(w, i, &id, err);
}

static int
put_disk(struct put *p, struct chunk_id *ret_root, struct err *err)
{
    CLEANUP(map_reader_freep) struct map_reader *base = NULL;
    CLEANUP(map_writer_freep) struct map_writer *w = NULL;
    struct chunk_id root = {0};

    if (p->base != NULL &&
        map_reader_new(p->r, MODEL_SIZE, MODEL_CHUNK, &p->base->disks[0].root,
                       &base, err) < 0)
        return -1;
    if (p->base != NULL && !p->o->full)
        root = p->base->disks[0].root;
    if (map_writer_new(p->s, MODEL_SIZE, MODEL_CHUNK, &root, &w, err) < 0)
        return -1;
    for (uint64_t i = 0; i < MODEL_CHUNKS; i++)
        if (put_chunk(p, i, base, w, err) < 0)
            return -1;
    return map_writer_finish(w, ret_root, err);
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
make_point(const struct put *p, const char *machine)
{
    struct point *pt = point_new();
    struct point_disk *d = calloc(1, sizeof *d);

    if (pt == NULL || d == NULL)
        abort();
    pt->machine = copy(machine);
    pt->consistency = copy("crash");
    pt->capture = copy("pull");
    pt->time_ns = clock_wall_ns();
    pt->disks = d;
    pt->n_disks = 1;
    d->name = copy("vda");
    d->size = MODEL_SIZE;
    d->chunk_size = MODEL_CHUNK;
    d->format = copy("raw");
    d->tracking = copy(p->base != NULL ? "incremental" : "full");
    d->reason = copy(p->base != NULL ? "" : "first");
    return pt;
}

/* The seed that the configuration of a point says. */
static int
seed_of(struct repo *r, const struct point *pt, uint64_t *ret, struct err *err)
{
    CLEANUP_FREE uint8_t *text = NULL;
    char seed[24] = "";

    if (repo_get_blob(r, &pt->config, pt->config_len, &text, err) < 0)
        return -1;
    memcpy(seed, text,
           pt->config_len < sizeof seed ? pt->config_len : sizeof seed - 1);
    *ret = strtoull(seed, NULL, 10);
    return 0;
}

static int
put(struct put *p, const char *machine, struct err *err)
{
    CLEANUP(point_list_done) struct point_list l = {0};
    CLEANUP(point_freep) struct point *pt = NULL;
    char config[2048];
    int n;

    if (repo_points(p->r, machine, &l, NULL, err) < 0)
        return -1;
    p->base = l.n > 0 ? l.v[l.n - 1] : NULL;
    if (p->base != NULL && seed_of(p->r, p->base, &p->base_seed, err) < 0)
        return -1;
    pt = make_point(p, machine);
    n = snprintf(config, sizeof config, "%020" PRIu64 " %s", p->seed, machine);
    pt->config_len = (uint64_t)n + 1;
    if (put_disk(p, &pt->disks[0].root, err) < 0 ||
        repo_put_blob(p->s, config, pt->config_len, &pt->config, err) < 0 ||
        repo_commit(p->s, pt, err) < 0)
        return -1;
    say("committed %s %s %" PRIu64, pt->id, machine, p->seed);
    return 0;
}

int
driver_put(const struct driver_opts *o, const char *machine, uint64_t seed)
{
    struct repo_session_opts opts = REPO_SESSION_OPTS;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(repo_session_freep) struct repo_session *s = NULL;
    struct put p = {.o = o, .machine = model_machine(machine), .seed = seed};
    struct err err = ERR_INIT;

    opts.machine = machine;
    opts.synchronous = o->synchronous;
    if (repo_open(o->repo, o->ops, &r, &err) < 0 ||
        repo_session_begin(r, &opts, &s, &err) < 0)
        return driver_error(&err);
    session_set_limits(s, PACK_TARGET, RECORDS_MAX);
    p.r = r;
    p.s = s;
    if (put(&p, machine, &err) < 0)
        return driver_error(&err);
    return DRIVER_OK;
}
