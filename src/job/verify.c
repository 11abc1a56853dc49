/* job/verify.c - proving a repository, and repairing it. */
#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "common.h"
#include "err.h"
#include "job.h"
#include "jv.h"
#include "pool.h"
#include "repo.h"

DEFINE_CLEANUP(struct repo *, repo_close)
DEFINE_CLEANUP(struct repo_verified *, repo_verified_free)

static int
no_memory(struct err *err)
{
    return err_set_errno(err, ENOMEM, "report");
}

/* -- verify -----------------------------------------------------------------*/

struct verifying {
    const struct job_verify_opts *opts;
    const struct job_hooks *hooks;
    struct repo *repo;
    struct point_list list; /* of the machine or of all; owned */
    struct point *one;      /* borrowed from list */
    struct repo_pin *pin;
    struct jv *bad; /* commit objects that cannot be read */
};

static void
verify_progress(void *arg, uint64_t done, uint64_t total)
{
    hooks_progress(arg, "verify", done, total);
}

/* Looks it up again for the words of the one place that has them. */
static int
no_machine(struct verifying *v, const char *what, struct err *err)
{
    const struct point *found;

    point_list_done(&v->list);
    if (point_pick(v->repo, what, &v->list, &found, err) < 0)
        return -1;
    return err_set(err, ERR_NOT_FOUND, "machine '%s' has just got a point",
                   what);
}

static int
find_points(struct verifying *v, struct err *err)
{
    const char *what = v->opts->what;
    const struct point *found;

    if (what != NULL && strchr(what, '@') != NULL) {
        if (point_pick(v->repo, what, &v->list, &found, err) < 0)
            return -1;
        for (size_t i = 0; i < v->list.n; i++)
            if (v->list.v[i] == found)
                v->one = v->list.v[i];
        return 0;
    }
    /* Of the whole repository what unfinished runs have stored, too. */
    if ((what == NULL ? repo_points_all : repo_points)(v->repo, what, &v->list,
                                                       &v->bad, err) < 0)
        return -1;
    if (what != NULL && v->list.n == 0 && jv_size(v->bad) == 0)
        return no_machine(v, what, err);
    return 0;
}

/* Commit objects that cannot be read come first: nothing is worse. */
static struct jv *
all_problems(const struct verifying *v, const struct repo_verify_report *report)
{
    CLEANUP_JV struct jv *a = jv_array();

    for (size_t i = 0; i < jv_size(v->bad); i++)
        if (jv_add(a, jv_build("{s:s, s:o}", "object", "point", "problem",
                               jv_ref(jv_at(v->bad, i)))) < 0)
            return NULL;
    for (size_t i = 0; i < jv_size(report->problems); i++)
        if (jv_add(a, jv_ref(jv_at(report->problems, i))) < 0)
            return NULL;
    return TAKE_PTR(a);
}

/* A collector leaves what is being proven alone. */
static int
pin(struct verifying *v, const struct point_list *l, struct err *err)
{
    CLEANUP_FREE const char **ids = calloc(l->n + 1, sizeof *ids);

    if (ids == NULL)
        return no_memory(err);
    for (size_t i = 0; i < l->n; i++)
        ids[i] = l->v[i]->id;
    return repo_pin_new(v->repo, ids, l->n, &v->pin, err);
}

/* When everything that a point needs was last read. */
static struct jv *
dates_json(const struct verifying *v, const struct point_list *l)
{
    CLEANUP(repo_verified_freep) struct repo_verified *d = NULL;
    CLEANUP_JV struct jv *o = jv_object();

    if (repo_verified_read(v->repo, &d, NULL) < 0)
        return TAKE_PTR(o);
    for (size_t i = 0; i < l->n; i++)
        if (jv_set(o, l->v[i]->id, verified_json(d, l->v[i]->id)) < 0)
            return NULL;
    return TAKE_PTR(o);
}

static struct jv *
report_json(const struct verifying *v, const struct point_list *l,
            const struct repo_verify_report *r)
{
    return jv_build(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o}",
        "points", (int64_t)r->points, "pages", (int64_t)r->pages, "chunks",
        (int64_t)r->chunks, "bytes", (int64_t)r->bytes, "bad_chunks",
        (int64_t)r->bad_chunks, "bad_pages", (int64_t)r->bad_pages, "packs",
        (int64_t)r->packs, "packs_read", (int64_t)r->packs_read, "packs_bytes",
        (int64_t)r->packs_bytes, "packs_skipped", (int64_t)r->packs_skipped,
        "verified", dates_json(v, l), "notes", jv_ref(r->notes), "problems",
        all_problems(v, r));
}

static struct repo_verify_opts
make_opts(const struct verifying *v)
{
    const struct job_verify_opts *o = v->opts;
    /* A bool that somebody else sets: the atomic's representation is a bool's,
     * and repo reads it as such. */
    const void *cancel = v->hooks != NULL ? v->hooks->cancel : NULL;

    return (struct repo_verify_opts){
        .level = o->structure ? REPO_VERIFY_STRUCTURE : REPO_VERIFY_DATA,
        .whole = o->what == NULL,
        .sample = o->sample,
        .limit_rate = o->limit_rate,
        .resume = o->resume,
        .read_only = o->read_only,
        .n_workers = o->threads ? o->threads : pool_cpus(),
        .progress = verify_progress,
        .arg = (void *)(uintptr_t)v->hooks,
        .cancel = cancel};
}

static int
verify_points(struct verifying *v, struct jv **ret, struct err *err)
{
    const struct repo_verify_opts opts = make_opts(v);
    struct point_list one = {.n = 1};
    struct repo_verify_report report = {0};
    const struct point_list *l;

    if (find_points(v, err) < 0)
        return err_side(err, ERR_SIDE_REPO);
    one.v = &v->one;
    l = v->one != NULL ? &one : &v->list;
    if ((!opts.read_only && pin(v, l, err) < 0) ||
        repo_verify_run(v->repo, l, &opts, &report, err) < 0)
        return err_side(err, ERR_SIDE_REPO);
    *ret = report_json(v, l, &report);
    repo_verify_report_done(&report);
    return *ret != NULL ? 0 : no_memory(err);
}

static int
verify_open(struct verifying *v, struct jv **ret, struct err *err)
{
    int r = verify_points(v, ret, err);

    repo_pin_free(v->pin);
    point_list_done(&v->list);
    jv_free(v->bad);
    return r;
}

int
job_verify(const struct job_verify_opts *opts, const struct job_hooks *hooks,
           struct jv **ret_result, struct err *err)
{
    struct verifying v = {.opts = opts, .hooks = hooks};
    int r;

    if (open_repo(opts->repo, &v.repo, err) < 0)
        return -1;
    r = verify_open(&v, ret_result, err);
    repo_close(v.repo);
    return r;
}

/* -- check ------------------------------------------------------------------*/

static void
repair_progress(void *arg, uint64_t done, uint64_t total)
{
    hooks_progress(arg, "repair", done, total);
}

static int
repair(const struct job_check_opts *opts, const struct job_hooks *hooks,
       struct jv **ret, struct err *err)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    const void *cancel = hooks != NULL ? hooks->cancel : NULL;
    const struct repo_repair_opts o = {.dry_run = opts->dry_run,
                                       .progress = repair_progress,
                                       .arg = (void *)(uintptr_t)hooks,
                                       .cancel = cancel};
    struct repo_repair_report p = {0};

    if (open_repo(opts->repo, &r, err) < 0)
        return -1;
    if (repo_repair(r, &o, &p, err) < 0)
        return err_side(err, ERR_SIDE_REPO);
    *ret = jv_build(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "segments_rebuilt",
        (int64_t)p.segments_rebuilt, "records", (int64_t)p.records,
        "packs_damaged", (int64_t)p.packs_damaged, "frames_copied",
        (int64_t)p.frames_copied, "bytes_copied", (int64_t)p.bytes_copied,
        "frames_lost", (int64_t)p.frames_lost, "records_removed",
        (int64_t)p.records_removed, "actions", p.actions);
    return *ret != NULL ? 0 : no_memory(err);
}

/* Looks at the repository as a program does that opens it after the repair. */
int
job_check(const struct job_check_opts *opts, const struct job_hooks *hooks,
          struct jv **ret_result, struct err *err)
{
    const struct job_verify_opts look = {.repo = opts->repo,
                                         .threads = opts->threads,
                                         .structure = true,
                                         .read_only =
                                             !opts->repair || opts->dry_run};
    CLEANUP_JV struct jv *done = NULL;

    if (opts->repair && repair(opts, hooks, &done, err) < 0)
        return -1;
    if (job_verify(&look, hooks, ret_result, err) < 0)
        return -1;
    if (done != NULL && jv_set(*ret_result, "repair", TAKE_PTR(done)) < 0) {
        jv_free(TAKE_PTR(*ret_result));
        return no_memory(err);
    }
    return 0;
}
