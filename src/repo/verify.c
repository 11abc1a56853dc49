/* The proof of a repository, from begin to end. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "jv.h"
#include "verify.h"

int
verify_canceled(const struct verify *v, struct err *err)
{
    if (v->opts.cancel == NULL ||
        !__atomic_load_n(v->opts.cancel, __ATOMIC_RELAXED))
        return 0;
    return err_set(err, ERR_CANCELED, "the check was canceled");
}

/* -- passes -----------------------------------------------------------------*/

static int
run_pass(struct verify *v, enum verify_pass pass, struct err *err)
{
    v->pass = pass;
    if (v->n_bits > 0)
        memset(v->seen, 0, v->n_bits / 8);
    for (size_t i = 0; i < v->points->n; i++) {
        const struct point *p = v->points->v[i];

        for (size_t k = 0; k < p->n_disks; k++)
            if (verify_walk(v, p, &p->disks[k], err) < 0)
                return err_wrap(err, "machine '%s', point %s, disk '%s'",
                                p->machine, p->id, p->disks[k].name);
    }
    return 0;
}

static int
read_and_report(struct verify *v, struct err *err)
{
    if ((v->opts.level != REPO_VERIFY_STRUCTURE && verify_read(v, err) < 0) ||
        verify_packs_report(v, err) < 0)
        return -1;
    return v->damage ? run_pass(v, VERIFY_REPORT, err) : 0;
}

/* What was found until a failure is kept all the same. */
static int
check(struct verify *v, struct err *err)
{
    struct err why = ERR_INIT;

    if (verify_objects(v, err) < 0 || verified_load(v, err) < 0 ||
        run_pass(v, VERIFY_MARK, err) < 0 || verify_packs_choose(v, err) < 0)
        return -1;
    if (read_and_report(v, err) < 0) {
        (void)verified_keep(v, false, &why);
        return -1;
    }
    id_list_sort(&v->hit);
    return verified_keep(v, true, err);
}

static int
prepare(struct verify *v, struct err *err)
{
    v->rep.problems = jv_array();
    v->rep.notes = jv_array();
    v->plain = malloc(REPO_CHUNK_MAX);
    if (v->rep.problems == NULL || v->rep.notes == NULL || v->plain == NULL)
        return err_set_errno(err, ENOMEM, "check");
    return frame_ctx_new(&v->repo->keys, 0, &v->ctx, err);
}

static void
release(struct verify *v)
{
    verify_packs_free(v);
    repo_verified_free(v->old);
    id_list_done(&v->sids);
    id_list_done(&v->hit);
    frame_ctx_free(v->ctx);
    free(v->plain);
    free(v->seen);
    free(v->need);
    free(v->bad);
    free(v->fine);
    free(v->bad_ids.v);
    free(v->bad_frames);
    free(v->reasons);
}

void
repo_verify_report_done(struct repo_verify_report *rep)
{
    jv_free(TAKE_PTR(rep->problems));
    jv_free(TAKE_PTR(rep->notes));
}

int
repo_verify_run(struct repo *r, const struct point_list *l,
                const struct repo_verify_opts *opts,
                struct repo_verify_report *ret, struct err *err)
{
    struct verify v = {.repo = r, .points = l, .opts = *opts};
    int rc;

    (void)pthread_mutex_init(&v.lock, NULL);
    rc = prepare(&v, err);
    if (rc == 0)
        rc = check(&v, err);
    (void)pthread_mutex_destroy(&v.lock);
    release(&v);
    if (rc < 0) {
        repo_verify_report_done(&v.rep);
        return err_wrap(err, "check of '%s'", repo_path(r));
    }
    *ret = v.rep;
    return 0;
}

int
repo_verify(struct repo *r, const struct point_list *l, unsigned n_workers,
            repo_progress_fn progress, void *arg, const bool *cancel,
            struct repo_verify_report *ret, struct err *err)
{
    const struct repo_verify_opts opts = {.read_only = true,
                                          .n_workers = n_workers,
                                          .progress = progress,
                                          .arg = arg,
                                          .cancel = cancel};

    if (repo_verify_run(r, l, &opts, ret, err) < 0)
        return -1;
    jv_free(TAKE_PTR(ret->notes));
    return 0;
}
