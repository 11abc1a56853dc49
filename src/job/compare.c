/* job/compare.c - what changed between two points, and what points take. */
#include "job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "common.h"
#include "err.h"
#include "jv.h"
#include "repo.h"

DEFINE_CLEANUP(struct repo *, repo_close)
DEFINE_CLEANUP(struct repo_pin *, repo_pin_free)

static int
no_memory(struct err *err)
{
    return err_set_errno(err, ENOMEM, "report");
}

/* -- diff -------------------------------------------------------------------*/

struct diff {
    const struct job_diff_opts *opts;
    const struct job_hooks *hooks;
    struct repo *repo;
    const struct point *from, *to;
    struct jv *disks;
    /* of the disk that is walked */
    const char *disk;
    int64_t n_extents, changed, zero;
};

static int
on_extent(void *arg, uint64_t off, uint64_t len, bool zero, struct err *err)
{
    struct diff *d = arg;

    if (hooks_canceled(d->hooks))
        return err_set(err, ERR_CANCELED, "stopped on request");
    d->n_extents++;
    d->changed += (int64_t)len;
    d->zero += zero ? (int64_t)len : 0;
    hooks_event(d->hooks,
                jv_build("{s:s, s:s, s:I, s:I, s:b}", "event", "extent", "disk",
                         d->disk, "offset", (int64_t)off, "length",
                         (int64_t)len, "zero", (int)zero));
    return 0;
}

static int
diff_disk(struct diff *d, const struct point_disk *from,
          const struct point_disk *to, struct err *err)
{
    d->disk = to->name;
    d->n_extents = d->changed = d->zero = 0;
    if (map_diff(d->repo, from, to, on_extent, d, err) < 0)
        return err_wrap(err, "disk '%s'", to->name);
    if (jv_add(d->disks, jv_build("{s:s, s:I, s:I, s:I, s:I, s:I}", "disk",
                                  to->name, "size", (int64_t)to->size,
                                  "from_size", (int64_t)from->size, "extents",
                                  d->n_extents, "changed_bytes", d->changed,
                                  "zero_bytes", d->zero)) < 0)
        return no_memory(err);
    return 0;
}

static int
only_in(struct diff *d, const char *disk, const char *where, struct err *err)
{
    if (jv_add(d->disks,
               jv_build("{s:s, s:s}", "disk", disk, "only_in", where)) < 0)
        return no_memory(err);
    return 0;
}

static bool
wanted(const struct diff *d, const char *disk)
{
    return d->opts->disks == NULL || name_in(d->opts->disks, disk);
}

static int
diff_disks(struct diff *d, struct err *err)
{
    for (size_t i = 0; i < d->to->n_disks; i++) {
        const struct point_disk *to = &d->to->disks[i];
        const struct point_disk *from = point_disk(d->from, to->name);
        int rc = 0;

        if (wanted(d, to->name))
            rc = from != NULL ? diff_disk(d, from, to, err)
                              : only_in(d, to->name, "to", err);
        if (rc < 0)
            return -1;
    }
    for (size_t i = 0; i < d->from->n_disks; i++) {
        const char *name = d->from->disks[i].name;

        if (wanted(d, name) && point_disk(d->to, name) == NULL &&
            only_in(d, name, "from", err) < 0)
            return -1;
    }
    return 0;
}

static int
check_disks(const struct diff *d, struct err *err)
{
    const char *const *name = d->opts->disks;

    for (; name != NULL && *name != NULL; name++)
        if (point_disk(d->from, *name) == NULL &&
            point_disk(d->to, *name) == NULL)
            return err_set(err, ERR_NOT_FOUND,
                           "neither point has a disk '%.255s'; see: tidemark "
                           "show %.300s",
                           *name, d->opts->to);
    return 0;
}

static int
diff(struct diff *d, struct jv **ret, struct err *err)
{
    const char *ids[] = {d->from->id, d->to->id};
    CLEANUP(repo_pin_freep) struct repo_pin *pin = NULL;
    struct jv *o;

    d->disks = jv_array();
    if (check_disks(d, err) < 0 ||
        repo_pin_new(d->repo, ids, ARRAY_SIZE(ids), &pin, err) < 0 ||
        diff_disks(d, err) < 0)
        return -1;
    o = jv_build("{s:o, s:o, s:o}", "from", point_json_short(d->from), "to",
                 point_json_short(d->to), "disks", TAKE_PTR(d->disks));
    if (o == NULL)
        return no_memory(err);
    *ret = o;
    return 0;
}

int
job_diff(const struct job_diff_opts *opts, const struct job_hooks *hooks,
         struct jv **ret_result, struct err *err)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(point_list_done) struct point_list from = {0};
    CLEANUP(point_list_done) struct point_list to = {0};
    struct diff d = {.opts = opts, .hooks = hooks};
    int rc;

    if (open_repo(opts->repo, &r, err) < 0)
        return -1;
    d.repo = r;
    rc = point_pick(r, opts->from, &from, &d.from, err) < 0 ||
                 point_pick(r, opts->to, &to, &d.to, err) < 0
             ? -1
             : diff(&d, ret_result, err);
    jv_free(d.disks);
    return rc < 0 ? err_side(err, ERR_SIDE_REPO) : 0;
}

/* -- stats ------------------------------------------------------------------*/

static int
set_ratio(struct jv *o, const char *key, uint64_t whole, uint64_t part)
{
    if (part == 0)
        return jv_set(o, key, jv_null());
    return jv_set(o, key, jv_real((double)whole / (double)part));
}

static int
set_figures(struct jv *o, const struct repo_stat *s)
{
    const struct {
        const char *name;
        uint64_t value;
    } figures[] = {
        {"size", s->size},           {"data_bytes", s->data},
        {"unique_bytes", s->unique}, {"stored_bytes", s->stored},
        {"meta_bytes", s->meta},     {"freed_bytes", s->freed},
    };

    for (size_t i = 0; i < ARRAY_SIZE(figures); i++)
        if (jv_set_int(o, figures[i].name, (int64_t)figures[i].value) < 0)
            return -1;
    if (set_ratio(o, "deduplication", s->data, s->unique) < 0)
        return -1;
    return set_ratio(o, "compression", s->unique, s->stored);
}

struct stats {
    struct repo *repo;
    struct point_list list;
    struct repo_stats st;
    struct jv *problems;
    const char *what;        /* NULL: all */
    const struct point *one; /* NULL: not just one */
};

static bool
is_told(const struct stats *s, const struct point *p)
{
    if (p->partial)
        return false;
    if (s->one != NULL)
        return p == s->one;
    return s->what == NULL || strcmp(p->machine, s->what) == 0;
}

/* The points of machine `m`, which begin at *i in the list; NULL: no memory. */
static struct jv *
points_json(const struct stats *s, size_t *i)
{
    const char *machine = s->list.v[*i]->machine;
    CLEANUP_JV struct jv *a = jv_array();

    for (; *i < s->list.n && strcmp(s->list.v[*i]->machine, machine) == 0;
         (*i)++) {
        CLEANUP_JV struct jv *o = NULL;

        if (!is_told(s, s->list.v[*i]))
            continue;
        o = point_json_short(s->list.v[*i]);
        if (o == NULL || set_figures(o, &s->st.points[*i]) < 0 ||
            jv_add(a, TAKE_PTR(o)) < 0)
            return NULL;
    }
    return TAKE_PTR(a);
}

static struct jv *
machines_json(const struct stats *s)
{
    CLEANUP_JV struct jv *a = jv_array();
    size_t i = 0;

    for (size_t m = 0; m < s->st.n_machines; m++) {
        CLEANUP_JV struct jv *o = jv_object();
        CLEANUP_JV struct jv *points = NULL;

        if (jv_set_str(o, "machine", s->list.v[i]->machine) < 0 ||
            jv_set_int(o, "n_points", (int64_t)s->st.machines[m].points) < 0 ||
            set_figures(o, &s->st.machines[m]) < 0)
            return NULL;
        points = points_json(s, &i);
        if (points == NULL)
            return NULL;
        if (jv_size(points) > 0 && (jv_set(o, "points", TAKE_PTR(points)) < 0 ||
                                    jv_add(a, TAKE_PTR(o)) < 0))
            return NULL;
    }
    return TAKE_PTR(a);
}

static int
stats_json(struct stats *s, struct jv **ret, struct err *err)
{
    CLEANUP_JV struct jv *all = jv_object();
    uint64_t unreferenced = s->st.pack_bytes > s->st.all.freed
                                ? s->st.pack_bytes - s->st.all.freed
                                : 0;
    struct jv *o;

    if (jv_set_int(all, "n_points", (int64_t)s->st.all.points) < 0 ||
        set_figures(all, &s->st.all) < 0)
        return no_memory(err);
    if (s->problems == NULL)
        s->problems = jv_array();
    o = jv_build("{s:s, s:I, s:I, s:o, s:o, s:o}", "repository",
                 repo_id(s->repo), "pack_bytes", (int64_t)s->st.pack_bytes,
                 "unreferenced_bytes", (int64_t)unreferenced, "all",
                 TAKE_PTR(all), "machines", machines_json(s), "problems",
                 TAKE_PTR(s->problems));
    if (o == NULL)
        return no_memory(err);
    *ret = o;
    return 0;
}

static int
pin_all(const struct stats *s, struct repo_pin **ret, struct err *err)
{
    CLEANUP_FREE const char **ids = calloc(s->list.n + 1, sizeof *ids);

    if (ids == NULL)
        return no_memory(err);
    for (size_t i = 0; i < s->list.n; i++)
        ids[i] = s->list.v[i]->id;
    return repo_pin_new(s->repo, ids, s->list.n, ret, err);
}

/* Unfinished runs take room and are not told. */
static int
find_told(struct stats *s, struct err *err)
{
    CLEANUP_FREE struct point **v = calloc(s->list.n + 1, sizeof *v);
    struct point_list complete = {.v = v};
    const struct point *found = NULL;

    if (v == NULL)
        return no_memory(err);
    for (size_t i = 0; i < s->list.n; i++)
        if (!s->list.v[i]->partial)
            v[complete.n++] = s->list.v[i];
    if (point_find(&complete, s->what, &found, err) < 0)
        return -1;
    if (strchr(s->what, '@') != NULL)
        s->one = found;
    return 0;
}

static int
stats(struct stats *s, const bool *cancel, struct jv **ret, struct err *err)
{
    CLEANUP(repo_pin_freep) struct repo_pin *pin = NULL;

    if (repo_points_all(s->repo, NULL, &s->list, &s->problems, err) < 0)
        return -1;
    if (s->what != NULL && find_told(s, err) < 0)
        return -1;
    if (pin_all(s, &pin, err) < 0 ||
        repo_stats(s->repo, &s->list, cancel, &s->st, err) < 0)
        return -1;
    return stats_json(s, ret, err);
}

int
job_stats(const char *repo, const char *what, const struct job_hooks *hooks,
          struct jv **ret_result, struct err *err)
{
    struct stats s = {.what = what};
    const void *cancel = hooks != NULL ? hooks->cancel : NULL;
    int rc;

    if (open_repo(repo, &s.repo, err) < 0)
        return -1;
    rc = stats(&s, cancel, ret_result, err);
    if (rc < 0)
        (void)err_side(err, ERR_SIDE_REPO);
    point_list_done(&s.list);
    repo_stats_done(&s.st);
    jv_free(s.problems);
    repo_close(s.repo);
    return rc;
}
