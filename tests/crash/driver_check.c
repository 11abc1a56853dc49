/* Is every point what its machine was at its seed, byte for byte? */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "driver.h"
#include "err.h"
#include "model.h"
#include "repo.h"

DEFINE_CLEANUP(struct repo *, repo_close)
DEFINE_CLEANUP(struct repo_pin *, repo_pin_free)
DEFINE_CLEANUP(struct repo_fetch *, repo_fetch_free)
DEFINE_CLEANUP(struct map_reader *, map_reader_free)

#define PIN_TRIES 50 /* points may be forgotten between listing and pinning */

struct judge {
    const struct point *pt;
    uint64_t machine, seed;
};

static int
damage(const struct judge *j, uint64_t i, const char *what, struct err *err)
{
    return err_set(err, ERR_CORRUPT,
                   "point %s of '%s' at seed %" PRIu64 ": chunk %" PRIu64
                   ": %s",
                   j->pt->id, j->pt->machine, j->seed, i, what);
}

static int
judge_chunk(void *arg, unsigned worker, uint64_t tag, const struct chunk_id *id,
            const void *data, size_t len, const struct err *why,
            struct err *err)
{
    static _Thread_local uint8_t want[MODEL_CHUNK];
    const struct judge *j = arg;

    (void)worker;
    (void)id;
    if (data == NULL)
        return damage(j, tag, why->msg, err);
    model_fill(model_value(j->machine, tag, j->seed), want, len);
    if (len != model_len(tag) || memcmp(want, data, len) != 0)
        return damage(j, tag, "other bytes than were backed up", err);
    return 0;
}

static int
judge_disk(struct repo *r, struct judge *j, struct err *err)
{
    struct repo_fetch_opts opts = {.n_workers = 1, .fn = judge_chunk, .arg = j};
    CLEANUP(map_reader_freep) struct map_reader *m = NULL;
    CLEANUP(repo_fetch_freep) struct repo_fetch *f = NULL;
    const struct point_disk *d = &j->pt->disks[0];

    if (d->size != MODEL_SIZE)
        return damage(j, 0, "another size", err);
    if (map_reader_new(r, d->size, d->chunk_size, &d->root, &m, err) < 0 ||
        repo_fetch_new(r, &opts, &f, err) < 0)
        return -1;
    for (uint64_t i = 0; i < MODEL_CHUNKS; i++) {
        struct chunk_id id;

        if (map_reader_get(m, i, &id, err) < 0)
            return damage(j, i, err->msg, err);
        if (chunk_id_zero(&id) != (model_value(j->machine, i, j->seed) == 0))
            return damage(j, i, "zeroes and data exchanged", err);
        if (!chunk_id_zero(&id) &&
            repo_fetch_add(f, i, &id, model_len(i), err) < 0)
            return -1;
    }
    return repo_fetch_finish(f, err);
}

static int
judge_point(struct repo *r, const struct point *pt, struct err *err)
{
    struct judge j = {.pt = pt, .machine = model_machine(pt->machine)};
    CLEANUP_FREE uint8_t *text = NULL;
    char *end;

    if (pt->n_disks != 1)
        return damage(&j, 0, "not one disk", err);
    if (repo_get_blob(r, &pt->config, pt->config_len, &text, err) < 0)
        return damage(&j, 0, err->msg, err);
    j.seed = strtoull((char *)text, &end, 10);
    if (end != (char *)text + 20 || strcmp(end + 1, pt->machine) != 0)
        return damage(&j, 0, "another configuration", err);
    if (judge_disk(r, &j, err) < 0)
        return -1;
    say("point %s %s %" PRIu64, pt->id, pt->machine, j.seed);
    return 0;
}

/* List, and with `pin` see to it that what was listed stays. */
static int
hold_points(struct repo *r, bool pin, struct point_list *l,
            struct repo_pin **ret, struct err *err)
{
    for (int tries = 0;; tries++) {
        CLEANUP_FREE const char **ids = NULL;
        struct err why = ERR_INIT;

        if (repo_points(r, NULL, l, NULL, err) < 0)
            return -1;
        ids = calloc(l->n + 1, sizeof *ids);
        if (ids == NULL)
            abort();
        for (size_t i = 0; i < l->n; i++)
            ids[i] = l->v[i]->id;
        if (!pin || l->n == 0 || repo_pin_new(r, ids, l->n, ret, &why) == 0)
            return 0;
        if (why.code != ERR_NOT_FOUND || tries == PIN_TRIES)
            return err_copy(err, &why);
        point_list_done(l);
        *l = (struct point_list){0};
    }
}

int
driver_check(const struct driver_opts *o)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(repo_pin_freep) struct repo_pin *pin = NULL;
    CLEANUP(point_list_done) struct point_list l = {0};
    struct err err = ERR_INIT;
    int rc = DRIVER_OK;

    if (repo_open(o->repo, o->ops, &r, &err) < 0 ||
        hold_points(r, o->pin, &l, &pin, &err) < 0)
        return driver_error(&err);
    for (size_t i = 0; i < l.n; i++)
        if (judge_point(r, l.v[i], &err) < 0)
            rc = driver_error(&err);
    if (rc == DRIVER_OK)
        say("checked %zu", l.n);
    return rc == DRIVER_OK ? DRIVER_OK : DRIVER_DAMAGE;
}
