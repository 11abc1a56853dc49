/* job/record.c - what a backup writes into its point, and what it tells. */
#include "backup.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "common.h"
#include "copy.h"
#include "err.h"
#include "job.h"
#include "jv.h"
#include "log.h"
#include "resume.h"

void
backup_warn(struct backup *b, const char *fmt, ...)
{
    char text[ERR_MSG_MAX];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    log_debug("warning: %s", text);
    (void)jv_add(b->warnings, jv_string(text));
}

/* -- the point --------------------------------------------------------------*/

/* A tag that is given twice is there once. */
static int
fill_tags(const struct backup *b, struct point *p, struct err *err)
{
    const char *const *tag = b->opts->tags;
    size_t n = 0;

    while (tag != NULL && tag[n] != NULL)
        n++;
    if (n == 0)
        return 0;
    p->tags = calloc(n, sizeof *p->tags);
    if (p->tags == NULL)
        return err_set_errno(err, ENOMEM, "tags of the new point");
    for (; *tag != NULL; tag++) {
        if (point_has_tag(p, *tag))
            continue;
        p->tags[p->n_tags] = strdup(*tag);
        if (p->tags[p->n_tags++] == NULL)
            return err_set_errno(err, ENOMEM, "tags of the new point");
    }
    return 0;
}

/* A round counts when it was read to its end; what a full read is compared with
 * hands its round on. */
static void
fill_audit(const struct plan_disk *p, const struct copy_disk *c,
           struct point_disk *d)
{
    const struct point_disk *before = p->base != NULL ? p->base : p->older;
    bool audited = p->base != NULL && c->audit.period > 0;

    d->audit.round = (before != NULL ? before->audit.round : 0) + audited;
    d->audit.bound = audited ? c->audit.period : 0;
    d->audit.chunks = c->audited_chunks;
    d->audit.bytes = c->audit_bytes;
}

static int
fill_disk(struct backup *b, size_t i, struct point_disk *d, struct err *err)
{
    const struct plan_disk *p = &b->plan.v[i];
    const struct copy_disk *c = &b->copy[i];

    d->name = strdup(p->disk->name);
    d->format = strdup(p->disk->format);
    d->tracking = strdup(plan_tracking(p));
    d->reason = strdup(p->reason);
    d->source = jv_ref(p->disk->info);
    if (b->got[i].tracked)
        d->generation = strdup(p->generation);
    if (d->name == NULL || d->format == NULL || d->tracking == NULL ||
        d->reason == NULL || (b->got[i].tracked && d->generation == NULL))
        return err_set_errno(err, ENOMEM, "record of disk '%s'", c->name);
    d->persistent = b->got[i].tracked && b->got[i].persistent;
    d->n_canaries = p->n_canaries;
    memcpy(d->canaries, p->canaries, sizeof p->canaries);
    d->size = c->size;
    d->chunk_size = repo_chunk_size(b->repo);
    d->read_bytes = c->read_bytes;
    d->dirty_bytes = c->dirty_bytes;
    d->new_bytes = c->new_bytes;
    d->stored_bytes = c->stored_bytes;
    fill_audit(p, c, d);
    if (map_writer_finish(c->map, &d->root, err) < 0)
        return err_wrap(err, "map of disk '%s'", c->name);
    return 0;
}

int
backup_record(struct backup *b, struct err *err)
{
    struct point *p = b->point;

    p->machine = strdup(b->machine);
    p->consistency = strdup(b->instant.filesystem ? "filesystem" : "crash");
    p->capture = strdup("pull");
    p->disks = calloc(b->plan.n, sizeof *p->disks);
    if (p->machine == NULL || p->consistency == NULL || p->capture == NULL ||
        p->disks == NULL)
        return err_set_errno(err, ENOMEM, "new point");
    p->n_disks = b->plan.n;
    p->time_ns = b->instant.time_ns;
    p->freeze_ms = b->instant.freeze_ms;
    for (size_t i = 0; i < b->plan.n; i++)
        if (fill_disk(b, i, &p->disks[i], err) < 0)
            return -1;
    return fill_tags(b, p, err);
}

/* -- the end ----------------------------------------------------------------*/

static void
warn_disks(struct backup *b)
{
    for (size_t i = 0; i < b->plan.n; i++) {
        const struct plan_disk *p = &b->plan.v[i];

        if (p->lost)
            backup_warn(b,
                        "disk '%s' was read in full, its tracking was lost: %s",
                        p->disk->name, p->reason);
        if (!b->got[i].tracked)
            backup_warn(
                b,
                "disk '%s': tracking could not begin, so the next backup "
                "will read it in full",
                p->disk->name);
    }
}

static void
warn_instant(struct backup *b)
{
    const struct source_instant *in = &b->instant;
    bool agent = strstr(b->opts->machine, ",agent=") != NULL;

    if (!in->thaw_confirmed)
        backup_warn(
            b, "the guest has not confirmed that it was thawed: look at it");
    if (!in->filesystem && agent && b->opts->source.quiesce != QUIESCE_OFF)
        backup_warn(b, "the point is crash consistent only: %s",
                    in->note[0] != '\0' ? in->note
                                        : "the guest was not frozen");
}

int
backup_report(struct backup *b, struct jv **ret, struct err *err)
{
    CLEANUP_JV struct jv *o = point_json(b->point, false);
    uint64_t healed = 0;

    for (size_t i = 0; i < b->plan.n; i++)
        healed += b->copy[i].healed_chunks;
    warn_disks(b);
    warn_instant(b);
    if (jv_set_str(o, "event", "committed") < 0 ||
        jv_set_int(o, "duration_ms", (int64_t)(clock_ms() - b->start_ms)) < 0 ||
        jv_set_int(o, "healed_chunks", (int64_t)healed) < 0 ||
        jv_set(o, "warnings", TAKE_PTR(b->warnings)) < 0 ||
        resume_report(b, o) < 0)
        return err_set_errno(err, ENOMEM, "point %s is committed; its report",
                             b->point->id);
    *ret = TAKE_PTR(o);
    return 0;
}
