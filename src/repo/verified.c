/* What was verified, and when: one record, replaced by each run (docs/format.md
 * 13.7).  Times are labels; runs are ordered by their numbers. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "catalog.h"
#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "jv.h"
#include "rand.h"
#include "store.h"
#include "verify.h"

struct repo_verified {
    uint64_t run;       /* the newest, 0: none */
    struct jv *payload; /* of the newest, or NULL */
    struct names keys;  /* of all that were found */
};

void
repo_verified_free(struct repo_verified *d)
{
    if (d == NULL)
        return;
    jv_free(d->payload);
    names_done(&d->keys);
    free(d);
}

DEFINE_CLEANUP(struct repo_verified *, repo_verified_free)

/* -- reading ----------------------------------------------------------------*/

static int
collect_key(void *arg, const char *key, uint64_t len)
{
    struct repo_verified *d = arg;

    (void)len;
    return strlen(key) < REPO_KEY_MAX ? names_add(&d->keys, key, NULL) : 0;
}

/* One that cannot be read costs a label, nothing else. */
static void
take(struct repo *r, struct repo_verified *d, const char *key)
{
    CLEANUP_JV struct jv *payload = NULL;
    uint64_t run;

    if (record_read(r, key, COMMIT_VERIFIED, &payload, NULL) < 0 ||
        !jv_get_uint(payload, "run", &run) || run > UINT32_MAX || run <= d->run)
        return;
    jv_free(d->payload);
    d->payload = TAKE_PTR(payload);
    d->run = run;
}

int
repo_verified_read(struct repo *r, struct repo_verified **ret, struct err *err)
{
    CLEANUP(repo_verified_freep) struct repo_verified *d = calloc(1, sizeof *d);

    if (d == NULL)
        return err_set_errno(err, ENOMEM, "record of verifications");
    if (store_list(r->store, "verified", collect_key, d, err) != 0)
        return err_wrap(err, "list the records of verifications");
    names_sort(&d->keys); /* of two with one number the first, always */
    for (size_t i = 0; i < d->keys.n; i++)
        take(r, d, d->keys.v[i].key);
    *ret = TAKE_PTR(d);
    return 0;
}

/* The second of the pair [run, x] of this run, or NULL. */
static const struct jv *
pair_of(const struct jv *list, uint64_t run)
{
    for (size_t i = 0; i < jv_size(list); i++) {
        uint64_t n;

        if (jv_uint(jv_at(jv_at(list, i), 0), &n) && n == run)
            return jv_at(jv_at(list, i), 1);
    }
    return NULL;
}

/* The run since which all of the point is verified, or 0. */
static uint64_t
run_of_point(const struct jv *payload, const char *id)
{
    const struct jv *points = jv_get(payload, "points");
    uint64_t run = 0;

    return jv_uint(jv_get(points, id), &run) ? run : 0;
}

int64_t
repo_verified_time(const struct repo_verified *v, const char *point_id)
{
    uint64_t run = run_of_point(v->payload, point_id), ns = 0;

    if (run == 0 || !jv_uint(pair_of(jv_get(v->payload, "times"), run), &ns))
        return 0;
    return (int64_t)ns;
}

static int
load_run(struct verify *v, const struct jv *pair, struct err *err)
{
    struct pack_set *set = pack_set_new();
    uint64_t run = 0;
    int rc = 0;

    if (set == NULL)
        return err_set_errno(err, ENOMEM, "record of verifications");
    if (jv_uint(jv_at(pair, 0), &run) && run <= UINT32_MAX &&
        pack_set_from_json(set, jv_at(pair, 1), NULL) == 0)
        for (size_t i = 0; i < pack_set_n(set); i++) {
            struct vpack *p = verify_pack_named(v, pack_set_at(set, i));

            if (p != NULL && run > p->run)
                p->run = (uint32_t)run;
        }
    pack_set_free(set);
    return rc;
}

int
verified_load(struct verify *v, struct err *err)
{
    const struct jv *packs;
    uint64_t since;

    if (repo_verified_read(v->repo, &v->old, err) < 0)
        return -1;
    packs = jv_get(v->old->payload, "packs");
    for (size_t i = 0; i < jv_size(packs); i++)
        if (load_run(v, jv_at(packs, i), err) < 0)
            return -1;
    if (jv_get_uint(v->old->payload, "since", &since) && since <= UINT32_MAX)
        v->since = (uint32_t)since;
    return 0;
}

/* -- writing ----------------------------------------------------------------*/

/* What is in the making. */
struct making {
    struct verify *v;
    uint32_t run;
    int64_t time_ns;
    struct jv *payload; /* owned */
};

static int
compare_numbers(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static bool
still_there(const struct vpack *p)
{
    return p->run > 0 && p->found > 0 && !p->failed;
}

/* The numbers of all runs that count for some pack, ascending. */
static int
list_runs(struct verify *v, uint32_t **ret, size_t *ret_n, struct err *err)
{
    uint32_t *runs = calloc(v->n_packs + 1, sizeof *runs);
    size_t n = 0, k = 0;

    if (runs == NULL)
        return err_set_errno(err, ENOMEM, "record of verifications");
    for (size_t i = 0; i < v->n_packs; i++)
        if (still_there(&v->packs[i]))
            runs[n++] = v->packs[i].run;
    qsort(runs, n, sizeof *runs, compare_numbers);
    for (size_t i = 0; i < n; i++)
        if (k == 0 || runs[k - 1] != runs[i])
            runs[k++] = runs[i];
    *ret = runs;
    *ret_n = k;
    return 0;
}

static int
add_run(struct making *m, uint32_t run, struct jv *packs, struct jv *times)
{
    struct verify *v = m->v;
    struct pack_set *set = pack_set_new();
    struct jv *j = NULL;
    uint64_t ns = (uint64_t)m->time_ns;
    int rc = set != NULL ? 0 : -1;

    for (size_t i = 0; rc == 0 && i < v->n_packs; i++)
        if (still_there(&v->packs[i]) && v->packs[i].run == run)
            rc = pack_set_add(set, &v->packs[i].name, NULL);
    if (rc == 0)
        j = pack_set_to_json(set);
    pack_set_free(set);
    if (run != m->run)
        (void)jv_uint(pair_of(jv_get(v->old->payload, "times"), run), &ns);
    if (jv_add(packs, jv_build("[I, o]", (int64_t)run, j)) < 0 ||
        jv_add(times, jv_build("[I, I]", (int64_t)run, (int64_t)ns)) < 0)
        return -1;
    return 0;
}

static int
add_runs(struct making *m, struct err *err)
{
    CLEANUP_JV struct jv *packs = jv_array();
    CLEANUP_JV struct jv *times = jv_array();
    CLEANUP_FREE uint32_t *runs = NULL;
    size_t n = 0;

    if (list_runs(m->v, &runs, &n, err) < 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        if (add_run(m, runs[i], packs, times) < 0)
            return err_set_errno(err, ENOMEM, "record of verifications");
    if (jv_set(m->payload, "packs", TAKE_PTR(packs)) < 0 ||
        jv_set(m->payload, "times", TAKE_PTR(times)) < 0)
        return err_set_errno(err, ENOMEM, "record of verifications");
    return 0;
}

/* The oldest run among the packs that the points of this check need; 0 when one
 * of them was never verified. */
static uint32_t
oldest_run(const struct verify *v)
{
    uint32_t run = UINT32_MAX;

    for (size_t i = 0; i < v->n_packs; i++) {
        const struct vpack *p = &v->packs[i];

        if (p->need == 0)
            continue;
        if (p->failed || p->found == 0)
            return 0;
        run = p->run < run ? p->run : run;
    }
    return run == UINT32_MAX ? 0 : run;
}

/* Before its end a run does not know all of it. */
static bool
is_hit(const struct making *m, bool ended, const char *id)
{
    return ended && id_list_has(&m->v->hit, id);
}

/* A newer run can only add: what an older one said of a point stays true. */
static int
add_points(struct making *m, bool ended, struct err *err)
{
    const struct verify *v = m->v;
    const struct jv *old = jv_get(v->old->payload, "points");
    CLEANUP_JV struct jv *points = jv_object();
    uint32_t run = ended ? oldest_run(v) : 0;

    for (void *it = jv_first(old); it != NULL; it = jv_next(old, it))
        if (id_list_has(&v->sids, jv_key(it)) &&
            !is_hit(m, ended, jv_key(it)) &&
            jv_set(points, jv_key(it), jv_ref(jv_value(it))) < 0)
            return err_set_errno(err, ENOMEM, "record of verifications");
    for (size_t i = 0; i < v->points->n; i++)
        if (!is_hit(m, ended, v->points->v[i]->id) &&
            run > run_of_point(v->old->payload, v->points->v[i]->id) &&
            jv_set_int(points, v->points->v[i]->id, run) < 0)
            return err_set_errno(err, ENOMEM, "record of verifications");
    if (jv_set(m->payload, "points", TAKE_PTR(points)) < 0)
        return err_set_errno(err, ENOMEM, "record of verifications");
    return 0;
}

/* Also of runs that only points name. */
static int
add_times(struct making *m, struct err *err)
{
    const struct jv *points = jv_get(m->payload, "points");
    const struct jv *old = jv_get(m->v->old->payload, "times");
    struct jv *times = (struct jv *)(uintptr_t)jv_get(m->payload, "times");

    for (void *it = jv_first(points); it != NULL; it = jv_next(points, it)) {
        uint64_t run, ns;

        if (!jv_uint(jv_value(it), &run) || pair_of(times, run) != NULL ||
            !jv_uint(pair_of(old, run), &ns))
            continue;
        if (jv_add(times, jv_build("[I, I]", (int64_t)run, (int64_t)ns)) < 0)
            return err_set_errno(err, ENOMEM, "record of verifications");
    }
    return 0;
}

static int
create(struct verify *v, struct jv *payload, uint32_t run, struct err *err)
{
    char key[REPO_KEY_MAX], sid[REPO_SID_TEXT];
    uint8_t random[REPO_SID_LEN];

    rand_bytes(random, sizeof random);
    hex_encode(random, sizeof random, sid);
    (void)snprintf(key, sizeof key, "verified/%s", sid);
    if (record_write(v->repo, key, COMMIT_VERIFIED, payload, err) < 0)
        return -1;
    /* It has all that counts of the ones before. */
    for (size_t i = 0; i < v->old->keys.n; i++)
        (void)store_delete(v->repo->store, v->old->keys.v[i].key, NULL);
    v->old->keys.n = 0;
    jv_free(v->old->payload);
    v->old->payload = jv_ref(payload);
    v->old->run = run;
    v->rep.run = run;
    return names_add(&v->old->keys, key, err);
}

static void
date_packs(struct verify *v, uint32_t run)
{
    for (size_t i = 0; i < v->n_packs; i++) {
        struct vpack *p = &v->packs[i];

        if (!p->done || p->dated || p->failed || p->found == 0)
            continue;
        p->run = run;
        p->dated = true;
    }
}

/* Where a run that reads everything began, until it has ended; a sample in
 * between leaves that alone. */
static int
set_since(struct verify *v, struct jv *payload, uint32_t run, bool ended)
{
    if (v->opts.sample == 0) {
        if (v->since == 0 || (!v->opts.resume && v->rep.run == 0))
            v->since = run;
        if (ended)
            return 0;
    }
    return v->since == 0 ? 0 : jv_set_int(payload, "since", v->since);
}

static int
write_verified(struct verify *v, bool ended, struct err *err)
{
    struct making m = {v, (uint32_t)v->old->run + 1, clock_wall_ns(), NULL};
    CLEANUP_JV struct jv *payload =
        jv_build("{s:I, s:I, s:s}", "run", (int64_t)m.run, "time_ns", m.time_ns,
                 "level", v->opts.sample > 0 ? "sample" : "data");

    if (payload == NULL)
        return err_set_errno(err, ENOMEM, "record of verifications");
    m.payload = payload;
    date_packs(v, m.run);
    if (set_since(v, payload, m.run, ended) < 0)
        return err_set_errno(err, ENOMEM, "record of verifications");
    if (add_runs(&m, err) < 0 || add_points(&m, ended, err) < 0 ||
        add_times(&m, err) < 0)
        return -1;
    return create(v, payload, m.run, err);
}

int
verified_keep(struct verify *v, bool ended, struct err *err)
{
    struct err why = ERR_INIT;

    if (v->opts.read_only)
        return 0;
    if (repo_may_write(v->repo, &why) == 0 && bad_keep(v, &why) == 0 &&
        (v->opts.level == REPO_VERIFY_STRUCTURE ||
         write_verified(v, ended, &why) == 0))
        return 0;
    v->opts.read_only = true;
    return verify_note(v, err, "what was found could not be recorded: %s",
                       why.msg);
}
