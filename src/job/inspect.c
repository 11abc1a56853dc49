/* job/inspect.c - looking: points, show, verify, doctor; and init. */
#include "job.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "cleanup.h"
#include "common.h"
#include "err.h"
#include "jv.h"
#include "pool.h"
#include "repo.h"
#include "source.h"

DEFINE_CLEANUP(struct repo *, repo_close)
DEFINE_CLEANUP(struct source *, source_close)

static int
no_memory(struct err *err)
{
    return err_set_errno(err, ENOMEM, "report");
}

static int
open_repo(const char *path, struct repo **ret, struct err *err)
{
    if (repo_open(path, NULL, ret, err) < 0)
        return err_side(err, ERR_SIDE_REPO);
    return 0;
}

/* -- points and show --------------------------------------------------------*/

static struct jv *
list_json(const struct point_list *l)
{
    CLEANUP_JV struct jv *a = jv_array();

    for (size_t i = 0; i < l->n; i++)
        if (jv_add(a, point_json(l->v[i], false)) < 0)
            return NULL;
    return TAKE_PTR(a);
}

int
job_points(const char *repo, const char *name, struct jv **ret_result,
           struct err *err)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(point_list_done) struct point_list list = {0};
    CLEANUP_JV struct jv *bad = NULL;
    struct jv *o;

    if (open_repo(repo, &r, err) < 0)
        return -1;
    if (repo_points(r, name, &list, &bad, err) < 0)
        return err_side(err, ERR_SIDE_REPO);
    if (bad == NULL)
        bad = jv_array();
    o = jv_build("{s:s, s:o, s:o}", "repository", repo_id(r), "points",
                 list_json(&list), "problems", TAKE_PTR(bad));
    if (o == NULL)
        return no_memory(err);
    *ret_result = o;
    return 0;
}

int
job_show(const char *repo, const char *point, struct jv **ret_result,
         struct err *err)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(point_list_done) struct point_list list = {0};
    CLEANUP_JV struct jv *config = NULL;
    CLEANUP_JV struct jv *problems = jv_array();
    CLEANUP_JV struct jv *o = NULL;
    const struct point *p;
    struct err why = ERR_INIT;

    if (open_repo(repo, &r, err) < 0)
        return -1;
    if (point_pick(r, point, &list, &p, err) < 0)
        return err_side(err, ERR_SIDE_REPO);
    /* The disks of a point are worth showing when its configuration is lost. */
    if (point_config(r, p, &config, &why) < 0) {
        config = jv_null();
        if (jv_add(problems, jv_string(why.msg)) < 0)
            return no_memory(err);
    }
    o = point_json(p, true);
    if (jv_set_str(o, "repository", repo_id(r)) < 0 ||
        jv_set(o, "config", TAKE_PTR(config)) < 0 ||
        jv_set(o, "problems", TAKE_PTR(problems)) < 0)
        return no_memory(err);
    *ret_result = TAKE_PTR(o);
    return 0;
}

/* -- verify -----------------------------------------------------------------*/

struct verifying {
    const struct job_verify_opts *opts;
    const struct job_hooks *hooks;
    struct repo *repo;
    struct point_list list; /* of the machine or of all; owned */
    struct point *one;      /* borrowed from list */
    struct jv *bad;         /* commit objects that cannot be read */
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
    if (repo_points(v->repo, what, &v->list, &v->bad, err) < 0)
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

static int
verify_points(struct verifying *v, struct jv **ret, struct err *err)
{
    const struct point_list one = {.v = &v->one, .n = 1};
    unsigned threads = v->opts->threads ? v->opts->threads : pool_cpus();
    struct repo_verify_report report = {0};
    /* A bool that somebody else sets: the atomic's representation is a bool's,
     * and repo reads it as such. */
    const void *cancel = v->hooks != NULL ? v->hooks->cancel : NULL;
    struct jv *o;

    if (find_points(v, err) < 0 ||
        repo_verify(v->repo, v->one != NULL ? &one : &v->list, threads,
                    verify_progress, (void *)(uintptr_t)v->hooks, cancel,
                    &report, err) < 0)
        return err_side(err, ERR_SIDE_REPO);
    o = jv_build(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "points", (int64_t)report.points,
        "pages", (int64_t)report.pages, "chunks", (int64_t)report.chunks,
        "bytes", (int64_t)report.bytes, "bad_chunks",
        (int64_t)report.bad_chunks, "bad_pages", (int64_t)report.bad_pages,
        "problems", all_problems(v, &report));
    jv_free(report.problems);
    if (o == NULL)
        return no_memory(err);
    *ret = o;
    return 0;
}

int
job_verify(const struct job_verify_opts *opts, const struct job_hooks *hooks,
           struct jv **ret_result, struct err *err)
{
    struct verifying v = {.opts = opts, .hooks = hooks};
    int r;

    if (open_repo(opts->repo, &v.repo, err) < 0)
        return -1;
    r = verify_points(&v, ret_result, err);
    point_list_done(&v.list);
    jv_free(v.bad);
    repo_close(v.repo);
    return r;
}

/* -- init and doctor --------------------------------------------------------*/

int
job_init(const char *repo, uint64_t chunk_size, struct jv **ret_result,
         struct err *err)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    struct jv *o;

    if (chunk_size == 0)
        chunk_size = REPO_CHUNK_DEFAULT;
    if (chunk_size < REPO_CHUNK_MIN || chunk_size > REPO_CHUNK_MAX ||
        (chunk_size & (chunk_size - 1)) != 0)
        return err_set(err, ERR_USAGE,
                       "chunk size %" PRIu64 " is not a power of two from 16K "
                       "to 4M",
                       chunk_size);
    if (repo_init(repo, (uint32_t)chunk_size, NULL, err) < 0)
        return err_side(err, ERR_SIDE_REPO);
    if (open_repo(repo, &r, err) < 0)
        return -1;
    o = jv_build("{s:s, s:s, s:I}", "repository", repo_id(r), "path",
                 repo_path(r), "chunk_size", (int64_t)repo_chunk_size(r));
    if (o == NULL)
        return no_memory(err);
    *ret_result = o;
    return 0;
}

int
job_doctor(const char *machine, const struct source_opts *opts,
           struct jv **ret_result, struct err *err)
{
    CLEANUP(source_closep) struct source *s = NULL;
    struct source_opts look = *opts;

    look.look_only = true;
    if (source_open(machine, &look, &s, err) < 0 ||
        source_doctor(s, ret_result, err) < 0)
        return err_side(err, ERR_SIDE_MACHINE);
    return 0;
}
