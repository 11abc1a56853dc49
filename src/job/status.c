/* job/status.c - per machine: the newest good point, and how it is tracked. */
#include "job.h"

#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "common.h"
#include "err.h"
#include "jv.h"
#include "repo.h"

DEFINE_CLEANUP(struct repo *, repo_close)
DEFINE_CLEANUP(struct repo_verified *, repo_verified_free)

struct look {
    struct repo *repo;
    const struct job_hooks *hooks;
    struct point_list list;
    struct repo_verified *verified;
};

static int
no_memory(struct err *err)
{
    return err_set_errno(err, ENOMEM, "report");
}

/* The newest point of first .. end-1 that is not known to be damaged; `end`
 * when there is none. */
static int
newest_good(struct look *l, size_t first, size_t end, size_t *ret,
            struct err *err)
{
    const void *cancel = l->hooks != NULL ? l->hooks->cancel : NULL;

    *ret = end;
    for (size_t i = end; i-- > first;) {
        int rc = 0;

        if (repo_damage_known(l->repo))
            rc = repo_point_damaged(l->repo, l->list.v[i], cancel, NULL, err);
        if (rc < 0)
            return -1;
        if (rc == 0) {
            *ret = i;
            return 0;
        }
    }
    return 0;
}

/* The last point up to `i` that read the disk in full, and why. */
static int
add_last_full(struct jv *o, const struct look *l, size_t first, size_t i,
              const char *disk)
{
    char time[CLOCK_TEXT_MAX];

    for (i++; i-- > first;) {
        const struct point_disk *d = point_disk(l->list.v[i], disk);

        if (d == NULL || d->tracking == NULL ||
            strcmp(d->tracking, "full") != 0)
            continue;
        clock_text(l->list.v[i]->time_ns, time, sizeof time);
        return jv_set_str(o, "full_time", time) < 0 ||
                       jv_set_str(o, "full_reason",
                                  d->reason != NULL ? d->reason : "") < 0
                   ? -1
                   : 0;
    }
    return 0; /* that point is gone */
}

static struct jv *
disks_json(const struct look *l, size_t first, size_t i)
{
    CLEANUP_JV struct jv *a = jv_array();
    const struct point *p = l->list.v[i];
    /* What was not kept in the image went with the storage daemon. */
    bool off = p->consistency != NULL && strcmp(p->consistency, "offline") == 0;

    for (size_t k = 0; k < p->n_disks; k++) {
        const struct point_disk *d = &p->disks[k];
        CLEANUP_JV struct jv *o =
            jv_build("{s:s, s:I, s:s, s:s, s:b, s:b}", "disk", d->name, "size",
                     (int64_t)d->size, "tracking",
                     d->tracking != NULL ? d->tracking : "", "reason",
                     d->reason != NULL ? d->reason : "", "tracked",
                     (int)(d->generation != NULL && (d->persistent || !off)),
                     "persistent", (int)d->persistent);

        if (o == NULL || add_last_full(o, l, first, i, d->name) < 0 ||
            jv_add(a, jv_ref(o)) < 0)
            return NULL;
    }
    return TAKE_PTR(a);
}

static struct jv *
machine_json(const struct look *l, size_t first, size_t end, size_t good)
{
    CLEANUP_JV struct jv *o =
        jv_build("{s:s, s:I, s:I}", "machine", l->list.v[first]->machine,
                 "points", (int64_t)(end - first), "damaged",
                 (int64_t)(good < end ? end - good - 1 : end - first));
    const struct point *p = good < end ? l->list.v[good] : NULL;
    char time[CLOCK_TEXT_MAX];

    if (o == NULL || p == NULL)
        return TAKE_PTR(o);
    clock_text(p->time_ns, time, sizeof time);
    if (jv_set_str(o, "point", p->id) < 0 || jv_set_str(o, "time", time) < 0 ||
        jv_set_int(o, "time_ns", p->time_ns) < 0 ||
        jv_set_str(o, "consistency",
                   p->consistency != NULL ? p->consistency : "") < 0 ||
        jv_set(o, "disks", disks_json(l, first, good)) < 0)
        return NULL;
    return TAKE_PTR(o);
}

/* The latest time at which everything that some point needs was found good. */
static int
add_verified(struct jv *o, const struct look *l, size_t first, size_t end)
{
    int64_t best = 0;
    char time[CLOCK_TEXT_MAX];

    for (size_t i = first; i < end; i++) {
        int64_t ns = repo_verified_time(l->verified, l->list.v[i]->id);

        best = ns > best ? ns : best;
    }
    if (best <= 0)
        return jv_set(o, "verified", jv_null());
    clock_text(best, time, sizeof time);
    return jv_set_str(o, "verified", time) < 0
               ? -1
               : jv_set_int(o, "verified_ns", best);
}

static int
look_at_machines(struct look *l, struct jv *machines, struct err *err)
{
    size_t end, good;

    for (size_t first = 0; first < l->list.n; first = end) {
        CLEANUP_JV struct jv *o = NULL;

        for (end = first; end < l->list.n; end++)
            if (strcmp(l->list.v[end]->machine, l->list.v[first]->machine) != 0)
                break;
        if (newest_good(l, first, end, &good, err) < 0)
            return -1;
        o = machine_json(l, first, end, good);
        if (o == NULL || add_verified(o, l, first, end) < 0 ||
            jv_add(machines, jv_ref(o)) < 0)
            return no_memory(err);
    }
    return 0;
}

int
job_status(const char *repo, const struct job_hooks *hooks,
           struct jv **ret_result, struct err *err)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(repo_verified_freep) struct repo_verified *d = NULL;
    CLEANUP_JV struct jv *bad = NULL;
    CLEANUP_JV struct jv *machines = jv_array();
    struct look l = {.hooks = hooks};
    struct jv *o;
    int rc;

    if (open_repo(repo, &r, err) < 0)
        return -1;
    l.repo = r;
    if (repo_points(r, NULL, &l.list, &bad, err) < 0)
        return err_side(err, ERR_SIDE_REPO);
    rc = repo_verified_read(r, &d, err);
    l.verified = d;
    if (rc == 0)
        rc = look_at_machines(&l, machines, err);
    point_list_done(&l.list);
    if (rc < 0)
        return err_side(err, ERR_SIDE_REPO);
    if (bad == NULL)
        bad = jv_array();
    o = jv_build("{s:s, s:o, s:o}", "repository", repo_id(r), "machines",
                 TAKE_PTR(machines), "problems", TAKE_PTR(bad));
    if (o == NULL)
        return no_memory(err);
    *ret_result = o;
    return 0;
}
