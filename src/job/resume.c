#include "resume.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup.h"
#include "canary.h"
#include "cleanup.h"
#include "clock.h"
#include "common.h"
#include "copy.h"
#include "err.h"
#include "job.h"
#include "jv.h"
#include "log.h"
#include "why.h"

#define CHECKPOINT_BYTES (4ull << 30)
#define CHECKPOINT_MS (5ull * 60 * 1000)

DEFINE_CLEANUP(struct point *, point_free)

/* -- choosing ---------------------------------------------------------------*/

/* Newer than every whole point: else that one has what it has. */
static const struct point *
newest_partial(const struct backup *b)
{
    const struct point *p, *last;

    if (b->partials.n == 0)
        return NULL;
    p = b->partials.v[b->partials.n - 1];
    last = b->points.n > 0 ? b->points.v[b->points.n - 1] : NULL;
    return last == NULL || p->seq > last->seq ? p : NULL;
}

static bool
recording(const struct backup *b, const struct plan_disk *p,
          const char *generation)
{
    return generation != NULL &&
           source_tracking(b->source, p->source, repo_id(b->repo),
                           generation) == TRACKING_OK;
}

static void
choose_disk(const struct backup *b, struct plan_disk *p,
            const struct point_disk *d)
{
    if (d == NULL || d->done == 0 || d->size != p->disk->size ||
        d->chunk_size != repo_chunk_size(b->repo) ||
        !recording(b, p, d->generation) ||
        why_distrust(d->source, p->disk->info) != WHY_INCREMENTAL)
        return;
    p->plain.base = p->base;
    p->plain.older = p->older;
    p->plain.reason = p->reason;
    p->plain.lost = p->lost;
    p->base = p->older = p->resumed = d;
    p->rest = recording(b, p, d->base_generation) ? d->base_generation : NULL;
    if (p->rest != NULL || d->done == d->size) {
        p->reason = "";
        p->lost = false;
    } else if (d->base_generation == NULL && d->reason[0] != '\0') {
        p->reason = d->reason; /* the same as then */
    }
}

void
resume_choose(struct backup *b)
{
    const struct point *last = b->opts->full ? NULL : newest_partial(b);
    char time[CLOCK_TEXT_MAX];
    size_t n = 0;

    for (size_t i = 0; last != NULL && i < b->plan.n; i++) {
        struct plan_disk *p = &b->plan.v[i];

        choose_disk(b, p, point_disk(last, p->disk->name));
        n += p->resumed != NULL;
    }
    if (n == 0)
        return;
    clock_text(last->time_ns, time, sizeof time);
    (void)snprintf(b->resumed_note, sizeof b->resumed_note,
                   "went on from an unfinished run of %s", time);
    hooks_note(b->hooks, "going on from an unfinished run of %s", time);
}

static void
resume_drop(struct plan_disk *p)
{
    p->base = p->plain.base;
    p->older = p->plain.older;
    p->reason = p->plain.reason;
    p->lost = p->plain.lost;
    p->resumed = NULL;
    p->rest = NULL;
    p->same = false;
}

/* Nothing of an unfinished run is reused unseen: every chunk has a record, and its
 * pack is there, long enough and not known to be bad.  What is lost is read
 * again; with a page of the map lost, all of it is as good as lost. */
void
resume_probe(struct backup *b, size_t i)
{
    struct plan_disk *p = &b->plan.v[i];
    struct copy_disk *d = &b->copy[i];
    struct err why = ERR_INIT;

    if (p->resumed == NULL ||
        repo_lost_chunks(b->repo, p->resumed, heal_add, &d->heal, &why) == 0)
        return;
    hooks_note(b->hooks,
               "disk '%s': the unfinished run cannot be gone on from: %s",
               p->disk->name, why.msg);
    heal_done(&d->heal);
    resume_drop(p);
}

/* -- canaries ---------------------------------------------------------------*/

static int
alive(const char *context, const struct source_got *got,
      const uint64_t *canaries, size_t n, bool *ret, struct err *err)
{
    struct source_got g = *got;
    struct point_disk d = {.n_canaries = n};

    *ret = false;
    if (context == NULL)
        return 0;
    g.dirty_context = context;
    memcpy(d.canaries, canaries, sizeof d.canaries);
    if (canary_check(&g, &d, ret, err) < 0)
        return err_side(err, ERR_SIDE_MACHINE);
    return 0;
}

int
resume_check(struct backup *b, size_t i, struct err *err)
{
    struct plan_disk *p = &b->plan.v[i];
    const struct point_disk *d = p->resumed;
    struct source_got *got = &b->got[i];
    struct copy_disk *c = &b->copy[i];
    bool own, rest;

    own = p->same; /* then there is no bitmap to ask */
    if ((!own && alive(got->dirty_context, got, d->canaries, d->n_canaries,
                       &own, err) < 0) ||
        alive(got->rest_context, got, d->base_canaries, d->n_base_canaries,
              &rest, err) < 0)
        return -1;
    if (!own && !rest)
        return 1;
    c->resumed = own;
    c->same = p->same;
    c->split = d->done;
    /* Of this very instant nothing is read again, so it counts up to what the
     * repository has lost of it. */
    if (p->same && c->heal.n > 0 &&
        c->heal.v[0].index * d->chunk_size < c->split)
        c->split = c->heal.v[0].index * d->chunk_size;
    c->rest_context = rest ? got->rest_context : NULL;
    /* The older bitmap has recorded everything that the lost one should have. */
    if (!own)
        got->dirty_context = got->rest_context;
    if (own && !rest && p->rest != NULL) {
        p->reason = plan_reason_cleared();
        p->lost = true;
        p->rest = NULL;
    }
    return 0;
}

/* -- checkpoints ------------------------------------------------------------*/

/* For tests: TIDEMARK_CHECKPOINT=BYTES,MILLISECONDS (HACKING.md). */
void
resume_limits(struct backup *b, struct copy_opts *opts)
{
    const char *text = getenv("TIDEMARK_CHECKPOINT");
    char *end = NULL;
    bool tracked = false;

    for (size_t i = 0; i < b->plan.n; i++)
        tracked |= b->got[i].tracked;
    opts->checkpoint = tracked ? resume_checkpoint : NULL;
    opts->checkpoint_bytes = CHECKPOINT_BYTES;
    opts->checkpoint_ms = CHECKPOINT_MS;
    if (text == NULL)
        return;
    opts->checkpoint_bytes = strtoull(text, &end, 10);
    if (*end == ',')
        opts->checkpoint_ms = strtoull(end + 1, NULL, 10);
}

/* By which generation what lies behind `done` is told. */
static const char *
base_generation(const struct backup *b, size_t i, const uint64_t **ret_canaries,
                size_t *ret_n)
{
    const struct plan_disk *p = &b->plan.v[i];
    const struct copy_disk *c = &b->copy[i];

    *ret_canaries = NULL;
    *ret_n = 0;
    if (p->base == NULL || (c->resumed && c->rest_context == NULL))
        return NULL;
    if (p->resumed == NULL) {
        *ret_canaries = p->base->canaries;
        *ret_n = p->base->n_canaries;
        return p->base->generation;
    }
    *ret_canaries = p->resumed->base_canaries;
    *ret_n = p->resumed->n_base_canaries;
    return p->rest;
}

static int
copy_text(char **to, const char *from, struct err *err)
{
    free(*to);
    *to = from != NULL ? strdup(from) : NULL;
    return from == NULL || *to != NULL
               ? 0
               : err_set_errno(err, ENOMEM, "record of a disk");
}

/* Nothing of this disk was read yet: what was known before still holds. */
static int
keep_record(const struct backup *b, size_t i, struct point_disk *d,
            struct err *err)
{
    const struct point_disk *old = b->plan.v[i].resumed;

    d->root = b->copy[i].root;
    d->done = old->done;
    d->persistent = old->persistent;
    d->n_canaries = old->n_canaries;
    memcpy(d->canaries, old->canaries, sizeof d->canaries);
    d->n_base_canaries = old->n_base_canaries;
    memcpy(d->base_canaries, old->base_canaries, sizeof d->base_canaries);
    return copy_text(&d->generation, old->generation, err) < 0
               ? -1
               : copy_text(&d->base_generation, old->base_generation, err);
}

static int
new_record(const struct backup *b, size_t i, struct point_disk *d,
           struct err *err)
{
    const struct plan_disk *p = &b->plan.v[i];
    const struct copy_disk *c = &b->copy[i];
    const uint64_t *canaries;
    const char *base = base_generation(b, i, &canaries, &d->n_base_canaries);

    d->root = c->root;
    d->done = c->done;
    d->persistent = b->got[i].tracked && b->got[i].persistent;
    d->n_canaries = p->n_canaries;
    memcpy(d->canaries, p->canaries, sizeof p->canaries);
    if (canaries != NULL)
        memcpy(d->base_canaries, canaries, sizeof d->base_canaries);
    if (copy_text(&d->generation, b->got[i].tracked ? p->generation : NULL,
                  err) < 0)
        return -1;
    return copy_text(&d->base_generation, base, err);
}

static int
partial_disk(const struct backup *b, size_t i, struct point_disk *d,
             struct err *err)
{
    const struct plan_disk *p = &b->plan.v[i];
    const struct copy_disk *c = &b->copy[i];

    d->size = c->size;
    d->chunk_size = repo_chunk_size(b->repo);
    d->source = jv_ref(p->disk->info);
    /* Not to its end: the next run audits the same. */
    d->audit.round = p->base != NULL    ? p->base->audit.round
                     : p->older != NULL ? p->older->audit.round
                                        : 0;
    if (copy_text(&d->name, p->disk->name, err) < 0 ||
        copy_text(&d->format, p->disk->format, err) < 0 ||
        copy_text(&d->tracking, plan_tracking(p), err) < 0 ||
        copy_text(&d->reason, p->reason, err) < 0)
        return -1;
    return (c->resumed && c->untouched ? keep_record : new_record)(b, i, d,
                                                                   err);
}

static int
partial_point(const struct backup *b, struct point **ret, struct err *err)
{
    CLEANUP(point_freep) struct point *p = point_new();

    if (p == NULL)
        return err_set_errno(err, ENOMEM, "partial point");
    p->partial = true;
    p->time_ns = b->instant.time_ns;
    p->config = b->point->config;
    p->config_len = b->point->config_len;
    p->disks = calloc(b->plan.n, sizeof *p->disks);
    if (p->disks == NULL || copy_text(&p->machine, b->machine, err) < 0 ||
        copy_text(&p->consistency, "unfinished", err) < 0 ||
        copy_text(&p->capture, "pull", err) < 0)
        return err_set_errno(err, ENOMEM, "partial point");
    p->n_disks = b->plan.n;
    for (size_t i = 0; i < b->plan.n; i++)
        if (partial_disk(b, i, &p->disks[i], err) < 0)
            return -1;
    *ret = TAKE_PTR(p);
    return 0;
}

/* Those before the newest are of no use, and it needs nothing of them that it does
 * not refer to itself. */
static void
forget_partials(struct backup *b, const char *why)
{
    for (size_t i = 0; i < b->partials.n; i++) {
        struct err err = ERR_INIT;

        if (repo_forget(b->repo, b->partials.v[i]->id, why, &err) < 0 &&
            err.code != ERR_NOT_FOUND)
            log_debug("unfinished run %s: %s; a later backup forgets it",
                      b->partials.v[i]->id, err.msg);
    }
}

/* The list grows by one and keeps what the plan has borrowed. */
static int
remember(struct backup *b, struct point *p, struct err *err)
{
    struct point **v =
        realloc(b->partials.v, (b->partials.n + 1) * sizeof(struct point *));

    if (v == NULL)
        return err_set_errno(err, ENOMEM, "list of points");
    b->partials.v = v;
    v[b->partials.n++] = p;
    return 0;
}

int
resume_checkpoint(void *arg, struct err *err)
{
    CLEANUP(point_freep) struct point *p = NULL;
    struct backup *b = arg;

    if (partial_point(b, &p, err) < 0)
        return -1;
    if (repo_session_checkpoint(b->session, p, err) < 0)
        return err_wrap(err, "checkpoint");
    source_keep(b->source, true);
    forget_partials(b, "a later part of the run is durable");
    if (remember(b, p, err) < 0)
        return -1;
    p = NULL;
    atomic_fetch_add(&b->checkpoints, 1);
    return 0;
}

static bool
stands(const struct point_list *l, const struct point_disk *d)
{
    for (size_t i = 0; i < l->n; i++) {
        const struct point_disk *o = point_disk(l->v[i], d->name);

        if (o != NULL && chunk_id_equal(&o->root, &d->root) &&
            o->size == d->size)
            return true;
    }
    return false;
}

void
resume_look_again(struct backup *b)
{
    CLEANUP(point_list_done) struct point_list now = {0};
    CLEANUP_JV struct jv *bad = NULL;

    if (atomic_load(&b->checkpoints) == 0)
        return;
    if (repo_points_all(b->repo, b->machine, &now, &bad, NULL) < 0)
        now.n = 0;
    for (size_t i = 0; i < b->plan.n; i++) {
        struct plan_disk *p = &b->plan.v[i];

        if (p->base == NULL || stands(&now, p->base))
            continue;
        plan_base_gone(p);
        b->copy[i].resumed = b->copy[i].same = false;
        b->got[i].dirty_context = b->copy[i].dirty_context = NULL;
    }
}

void
resume_tell(struct backup *b)
{
    const struct point *p;
    uint64_t done = 0, size = 0;

    if (atomic_load(&b->checkpoints) == b->told)
        return;
    b->told = atomic_load(&b->checkpoints);
    p = b->partials.v[b->partials.n - 1];
    for (size_t i = 0; i < p->n_disks; i++) {
        done += p->disks[i].done;
        size += p->disks[i].size;
    }
    hooks_event(b->hooks,
                jv_build("{s:s, s:s, s:I, s:I}", "event", "checkpoint", "point",
                         p->id, "done", (int64_t)done, "size", (int64_t)size));
}

void
resume_last(struct backup *b)
{
    struct err err = ERR_INIT;

    if (resume_checkpoint(b, &err) < 0) {
        log_debug("no last checkpoint: %s", err.msg);
        return;
    }
    resume_tell(b);
    hooks_note(b->hooks, "what was copied is durable: the next backup goes on "
                         "from there");
}

void
resume_distrust(struct backup *b)
{
    source_keep(b->source, false);
    forget_partials(b, "a bitmap that it was read with had missed changes");
}

void
resume_forget(struct backup *b)
{
    forget_partials(b, "its machine has a whole point again");
}

/* -- telling ----------------------------------------------------------------*/

int
resume_report(const struct backup *b, struct jv *o)
{
    const struct jv *disks = jv_get(o, "disks");

    for (size_t i = 0; i < b->plan.n && i < jv_size(disks); i++) {
        /* A child of what the caller owns. */
        struct jv *d = (struct jv *)(uintptr_t)jv_at(disks, i);

        if (b->plan.v[i].resumed != NULL &&
            (jv_set_int(d, "resumed_bytes", (int64_t)b->copy[i].resumed_bytes) <
                 0 ||
             jv_set_str(d, "note", b->resumed_note) < 0))
            return -1;
    }
    return 0;
}
