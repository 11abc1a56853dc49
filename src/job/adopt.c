#include "adopt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backup.h"
#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "impact.h"
#include "resume.h"

#define REASON_GONE "the point that it was based on is gone"

static bool
is_generation(const struct point_disk *d, const char *generation)
{
    return d != NULL && d->generation != NULL && generation != NULL &&
           strcmp(d->generation, generation) == 0;
}

/* The newest record of the disk whose bitmap has this generation. */
static const struct point_disk *
by_generation(const struct point_list *l, const char *name,
              const char *generation)
{
    for (size_t i = l->n; i-- > 0;) {
        const struct point_disk *d = point_disk(l->v[i], name);

        if (is_generation(d, generation))
            return d;
    }
    return NULL;
}

static bool
equal(const char *a, const char *b)
{
    return a != NULL && b != NULL && strcmp(a, b) == 0;
}

/* The dead run has made a part of this disk durable: `d` is its record. */
static void
from_own(struct plan_disk *p, const struct source_want *w,
         const struct point_disk *d)
{
    p->base = p->older = p->resumed = d;
    p->same = true;
    p->reason = d->reason;
    p->plain.reason = REASON_GONE;
    p->plain.lost = true;
    if (equal(d->base_generation, w->base) ||
        equal(d->base_generation, w->rest))
        p->rest = d->base_generation;
}

/* It had not: begin as it began. */
static void
from_base(const struct backup *b, struct plan_disk *p,
          const struct source_want *w)
{
    const struct point_disk *d =
        by_generation(&b->partials, p->disk->name, w->base);

    p->plain.reason = REASON_GONE;
    p->plain.lost = true;
    if (d != NULL) {
        p->resumed = d;
        p->rest = w->rest;
    } else {
        d = by_generation(&b->points, p->disk->name, w->base);
    }
    p->base = p->older = d;
    if (d == NULL && w->base != NULL) {
        p->reason = REASON_GONE;
        p->lost = true;
    }
}

static int
plan_disk(const struct backup *b, const struct source_want *w,
          struct plan_disk *p, struct err *err)
{
    const struct point_disk *own;

    p->source = w->disk;
    p->disk = source_disk(b->source, w->disk);
    p->reason = w->note != NULL ? w->note : "";
    (void)snprintf(p->generation, sizeof p->generation, "%s", w->generation);
    if (w->n_canaries > ARRAY_SIZE(p->canaries))
        return err_set(err, ERR_FORMAT, "journal of the dead run");
    p->n_canaries = w->n_canaries;
    memcpy(p->canaries, w->canaries, w->n_canaries * sizeof p->canaries[0]);
    own = by_generation(&b->partials, p->disk->name, w->generation);
    if (own != NULL && own->size == p->disk->size && own->done > 0)
        from_own(p, w, own);
    else
        from_base(b, p, w);
    if (p->base != NULL && (p->base->size != p->disk->size ||
                            p->base->chunk_size != repo_chunk_size(b->repo)))
        return err_set(err, ERR_FORMAT,
                       "disk '%s': its record has another size; run a backup "
                       "without --resume",
                       p->disk->name);
    return 0;
}

/* The run may have ended after its commit and before it said so: then its point
 * is there, and QEMU has nothing to tell. */
static bool
committed(const struct backup *b, const struct source_want *w)
{
    return by_generation(&b->points, source_disk(b->source, w->disk)->name,
                         w->generation) != NULL;
}

int
adopt_choose(struct backup *b, struct err *err)
{
    CLEANUP_FREE const struct source_want *want = NULL;
    size_t n;

    if (source_standing(b->source, repo_id(b->repo), &want, &n, err) < 0)
        return -1;
    if (committed(b, &want[0]))
        return err_set(err, ERR_NOT_FOUND,
                       "the run that was cut off had committed its point; run "
                       "a backup without --resume");
    b->plan.points = &b->points;
    b->plan.v = calloc(n, sizeof *b->plan.v);
    b->adopted = calloc(n, sizeof *b->adopted);
    if (b->plan.v == NULL || b->adopted == NULL)
        return err_set_errno(err, ENOMEM, "plan of %zu disks", n);
    for (b->plan.n = 0; b->plan.n < n; b->plan.n++) {
        b->adopted[b->plan.n] = want[b->plan.n];
        if (plan_disk(b, &want[b->plan.n], &b->plan.v[b->plan.n], err) < 0)
            return -1;
    }
    return 0;
}

/* Behind what is durable the older of the two bitmaps counts, or the only one. */
static void
choose_contexts(struct backup *b, size_t i)
{
    const struct plan_disk *p = &b->plan.v[i];
    struct source_got *got = &b->got[i];

    if (p->base == NULL) {
        got->dirty_context = got->rest_context = NULL;
    } else if (p->same) {
        got->rest_context = p->rest == NULL ? NULL
                            : equal(p->rest, b->adopted[i].base)
                                ? got->dirty_context
                                : got->rest_context;
        got->dirty_context = NULL;
    } else if (p->rest == NULL) {
        got->rest_context = NULL;
    }
}

int
adopt_instant(struct backup *b, struct err *err)
{
    char time[CLOCK_TEXT_MAX];

    if (source_adopt(b->source, b->got, &b->instant, err) < 0)
        return -1;
    b->taken = true;
    impact_before(b->impact, b->hooks); /* nobody has read since it began */
    for (size_t i = 0; i < b->plan.n; i++)
        choose_contexts(b, i);
    clock_text(b->instant.time_ns, time, sizeof time);
    (void)snprintf(b->resumed_note, sizeof b->resumed_note,
                   "finished the instant of %s", time);
    return 0;
}
