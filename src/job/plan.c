#include "plan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "common.h"
#include "err.h"
#include "job.h"
#include "jv.h"
#include "rand.h"
#include "repo.h"
#include "source.h"
#include "why.h"

/* What the choice for one disk looks at. */
struct choice {
    const struct source *source;
    const struct point_list *points;
    const char *repo_id;
    uint32_t chunk_size;
    bool full; /* asked for */
};

/* -- base -------------------------------------------------------------------*/

static const struct point_disk *
newest_record(const struct point_list *points, const char *name)
{
    for (size_t i = points->n; i > 0; i--) {
        const struct point_disk *d = point_disk(points->v[i - 1], name);

        if (d != NULL)
            return d;
    }
    return NULL;
}

static bool
same_shape(const struct choice *c, const struct source_disk *disk,
           const struct point_disk *d)
{
    return d->size == disk->size && d->chunk_size == c->chunk_size;
}

/* Newest first: the bitmap of an older point has recorded longer, so it would be
 * right too, but it marks more. */
static void
find_base(const struct choice *c, struct plan_disk *p)
{
    for (size_t i = c->points->n; i > 0; i--) {
        const struct point_disk *d =
            point_disk(c->points->v[i - 1], p->disk->name);

        if (d == NULL || !same_shape(c, p->disk, d))
            continue;
        if (p->older == NULL)
            p->older = d;
        if (!c->full && d->generation != NULL &&
            source_tracking(c->source, p->source, c->repo_id, d->generation) ==
                TRACKING_OK &&
            why_distrust(d->source, p->disk->info) == WHY_INCREMENTAL) {
            p->base = d;
            p->older = d;
            return;
        }
    }
}

/* Has the image a bitmap that began on another disk of the machine? */
static bool
was_other_disk(const struct choice *c, const struct plan_disk *p)
{
    for (size_t i = 0; i < c->points->n; i++)
        for (size_t k = 0; k < c->points->v[i]->n_disks; k++) {
            const struct point_disk *d = &c->points->v[i]->disks[k];

            if (d->generation != NULL && strcmp(d->name, p->disk->name) != 0 &&
                source_tracking(c->source, p->source, c->repo_id,
                                d->generation) != TRACKING_MISSING)
                return true;
        }
    return false;
}

static void
collect_facts(const struct choice *c, const struct plan_disk *p,
              struct why_facts *f)
{
    const struct point_disk *d = newest_record(c->points, p->disk->name);

    *f = (struct why_facts){
        .newest = d,
        .n_points = c->points->n,
        .disk = p->disk,
        .chunk_size = c->chunk_size,
        .asked = c->full,
        .state = TRACKING_MISSING,
        .offline = source_offline(c->source),
        .has_bitmaps = source_has_bitmaps(c->source, p->source, c->repo_id),
    };
    if (d != NULL && d->generation != NULL)
        f->state =
            source_tracking(c->source, p->source, c->repo_id, d->generation);
    if (p->base == NULL && f->has_bitmaps)
        f->was_other = was_other_disk(c, p);
}

/* The last block, which a resize cuts off, and some that nobody can guess. */
static void
choose_canaries(struct plan_disk *p)
{
    uint64_t n = p->disk->size / POINT_CANARY_SIZE +
                 (p->disk->size % POINT_CANARY_SIZE != 0);

    p->n_canaries = 0;
    for (size_t i = 0; n > 0 && i < ARRAY_SIZE(p->canaries); i++) {
        uint64_t block = n - 1;
        bool again = false;

        if (i > 0) {
            rand_bytes(&block, sizeof block);
            block %= n;
        }
        for (size_t k = 0; k < p->n_canaries; k++)
            again |= p->canaries[k] == block;
        if (!again)
            p->canaries[p->n_canaries++] = block;
    }
}

static void
choose_base(const struct choice *c, struct plan_disk *p)
{
    struct why_facts f;
    enum why why;
    uint8_t random[16];

    find_base(c, p);
    collect_facts(c, p, &f);
    why = p->base != NULL ? WHY_INCREMENTAL : why_full(&f);
    p->reason = why_text(why);
    p->note = p->base != NULL ? why_note(&f, p->base) : "";
    p->lost =
        !why_expected(why) && f.newest != NULL && f.newest->generation != NULL;
    rand_bytes(random, sizeof random);
    hex_encode(random, sizeof random, p->generation);
    choose_canaries(p);
}

/* -- disks ------------------------------------------------------------------*/

/* "a, b, c", for errors. */
static const char *
list_names(const struct source *s, struct buf *b)
{
    const char *text;

    for (size_t i = 0; i < source_n_disks(s); i++)
        if (buf_printf(b, "%s%s", NULL, i > 0 ? ", " : "",
                       source_disk(s, i)->name) < 0)
            break;
    text = buf_str(b);
    return text != NULL ? text : "";
}

static int
check_known(const struct source *s, const char *const *list, struct err *err)
{
    for (; list != NULL && *list != NULL; list++) {
        CLEANUP(buf_done) struct buf b = BUF_INIT;
        size_t i = 0;

        while (i < source_n_disks(s) &&
               strcmp(source_disk(s, i)->name, *list) != 0)
            i++;
        if (i == source_n_disks(s))
            return err_set(err, ERR_USAGE,
                           "the machine has no disk '%s'; it has: %s", *list,
                           list_names(s, &b));
    }
    return 0;
}

/* 1: take it; 0: leave it. */
static int
wanted(const struct job_backup_opts *opts, const struct source_disk *d,
       struct err *err)
{
    if (opts->disks != NULL && !name_in(opts->disks, d->name))
        return 0;
    if (name_in(opts->exclude, d->name))
        return 0;
    if (d->skip == NULL)
        return 1;
    if (opts->disks != NULL)
        return err_set(err, ERR_USAGE, "disk '%s' cannot be backed up: %s",
                       d->name, d->skip);
    return 0;
}

static int
nothing_left(const struct job_backup_opts *opts, const struct source *s,
             struct err *err)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;

    if (source_n_disks(s) == 0)
        return err_set(err, ERR_NOT_FOUND,
                       "machine '%s' has no disks to back up", opts->machine);
    return err_set(err,
                   opts->disks || opts->exclude ? ERR_USAGE : ERR_NOT_FOUND,
                   "no disk of machine '%s' is left to back up; it has: %s",
                   opts->machine, list_names(s, &b));
}

int
plan_make(const struct job_backup_opts *opts, const struct source *s,
          const struct point_list *points, const char *repo_id,
          uint32_t chunk_size, struct plan *ret, struct err *err)
{
    const struct choice c = {s, points, repo_id, chunk_size, opts->full};
    CLEANUP_FREE struct plan_disk *v = NULL;
    size_t n = 0;

    if (check_known(s, opts->disks, err) < 0 ||
        check_known(s, opts->exclude, err) < 0)
        return -1;
    v = calloc(source_n_disks(s) + 1, sizeof *v);
    if (v == NULL)
        return err_set_errno(err, ENOMEM, "plan of %zu disks",
                             source_n_disks(s));
    for (size_t i = 0; i < source_n_disks(s); i++) {
        const struct source_disk *d = source_disk(s, i);
        int take = wanted(opts, d, err);

        if (take < 0)
            return -1;
        if (take == 0)
            continue;
        if (name_check_disk(d->name, err) < 0)
            return err_wrap(err, "disk %zu (node '%s')", i, d->node);
        v[n] = (struct plan_disk){.source = i, .disk = d};
        choose_base(&c, &v[n++]);
    }
    if (n == 0)
        return nothing_left(opts, s, err);
    ret->v = TAKE_PTR(v);
    ret->n = n;
    ret->points = points;
    return 0;
}

void
plan_base_damaged(struct plan_disk *p)
{
    if (p->base != NULL) {
        p->reason = why_text(WHY_BASE_DAMAGED);
        p->lost = true;
    }
    p->base = NULL;
    p->older = NULL;
    p->resumed = NULL;
    p->same = false;
}

void
plan_base_cleared(struct plan_disk *p)
{
    p->reason = why_text(WHY_CLEARED);
    p->lost = true;
    p->base = NULL;
    p->resumed = NULL;
}

const char *
plan_reason_cleared(void)
{
    return why_text(WHY_CLEARED);
}

const char *
plan_tracking(const struct plan_disk *p)
{
    bool rest_full = p->resumed != NULL && p->rest == NULL &&
                     p->resumed->done < p->resumed->size;

    /* Of the very same instant nothing may be left to read: what counts is why the
     * run that was cut off had read it. */
    if (p->same && p->reason[0] != '\0')
        return "full";
    return p->base != NULL && !rest_full ? "incremental" : "full";
}

void
plan_audit_failed(struct plan_disk *p, uint64_t off)
{
    (void)snprintf(p->text, sizeof p->text,
                   "audit failed: what lies at offset %" PRIu64
                   " changed without being marked",
                   off);
    p->reason = p->text;
    p->lost = true;
    p->base = NULL;
    p->resumed = NULL;
    p->same = false;
}

void
plan_base_gone(struct plan_disk *p)
{
    p->reason = "base was removed during the backup";
    p->lost = true;
    p->base = p->older = NULL;
    p->resumed = NULL;
    p->same = false;
}

void
plan_done(struct plan *p)
{
    free(p->v);
    *p = (struct plan){0};
}

static bool
planned(const struct plan *p, const struct source_disk *d)
{
    for (size_t i = 0; i < p->n; i++)
        if (strcmp(p->v[i].disk->name, d->name) == 0)
            return true;
    return false;
}

const char *
plan_base_id(const struct plan *p, size_t i)
{
    const struct plan_disk *d = &p->v[i];
    const struct point_disk *base =
        d->resumed != NULL ? d->plain.base : d->base;
    const struct point_list *l = p->points;

    for (size_t k = 0; base != NULL && k < l->n; k++)
        if (point_disk(l->v[k], base->name) == base)
            return l->v[k]->id;
    return "";
}

const char *
plan_note(const struct plan_disk *p)
{
    return p->base != NULL && p->note != NULL ? p->note : "";
}

struct jv *
plan_event(const struct plan *p, const struct source *s)
{
    CLEANUP_JV struct jv *disks = jv_array();
    CLEANUP_JV struct jv *skipped = jv_array();

    for (size_t i = 0; i < p->n; i++)
        if (jv_add(disks,
                   jv_build("{s:s, s:s, s:s, s:I, s:s, s:s}", "disk",
                            p->v[i].disk->name, "tracking",
                            plan_tracking(&p->v[i]), "reason", p->v[i].reason,
                            "size", (int64_t)p->v[i].disk->size, "base",
                            plan_base_id(p, i), "note", plan_note(&p->v[i]))) <
            0)
            return NULL;
    for (size_t i = 0; i < source_n_disks(s); i++) {
        const struct source_disk *d = source_disk(s, i);

        const char *why = d->skip;

        if (why == NULL && !planned(p, d))
            why = "not asked for, or excluded";
        if (why != NULL && jv_add(skipped, jv_build("{s:s, s:s}", "disk",
                                                    d->name, "why", why)) < 0)
            return NULL;
    }
    return jv_build("{s:s, s:o, s:o, s:s}", "event", "plan", "disks",
                    TAKE_PTR(disks), "skipped", TAKE_PTR(skipped), "scratch",
                    source_scratch(s));
}
