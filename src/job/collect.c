/* job/collect.c - freeing what no point needs. */
#include "job.h"

#include <errno.h>

#include "cleanup.h"
#include "common.h"
#include "err.h"
#include "jv.h"
#include "repo.h"

DEFINE_CLEANUP(struct repo *, repo_close)

/* Progress is shown as bytes, and a collection counts pages and chunks. */
static void
on_progress(void *arg, const char *phase, uint64_t done, uint64_t total)
{
    hooks_progress(arg, phase, 0, 0);
}

static struct jv *
report_json(const struct repo_gc_report *g)
{
    const struct {
        const char *name;
        uint64_t value;
    } figures[] = {
        {"points_removed", g->points_removed},
        {"points_live", g->points_live},
        {"packs", g->packs},
        {"packs_removed", g->packs_removed},
        {"packs_rewritten", g->packs_rewritten},
        {"chunks_live", g->chunks_live},
        {"before_bytes", g->bytes_before},
        {"removed_bytes", g->bytes_removed},
        {"copied_bytes", g->bytes_copied},
        {"segments_before", g->segments_before},
        {"segments_after", g->segments_after},
        {"leftovers", g->leftovers},
        {"sessions_fenced", g->sessions_fenced},
        {"resumed", g->resumed},
    };
    CLEANUP_JV struct jv *o = jv_object();

    for (size_t i = 0; i < ARRAY_SIZE(figures); i++)
        if (jv_set_int(o, figures[i].name, (int64_t)figures[i].value) < 0)
            return NULL;
    return jv_set_bool(o, "other_runs", g->other_runs) < 0 ? NULL : TAKE_PTR(o);
}

int
job_gc(const struct job_gc_opts *opts, const struct job_hooks *hooks,
       struct jv **ret_result, struct err *err)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP_JV struct jv *o = NULL;
    struct repo_gc_report report = {0};
    /* A bool that somebody else sets: the atomic's representation is a bool's,
     * and repo reads it as such. */
    const void *cancel = hooks != NULL ? hooks->cancel : NULL;
    struct repo_gc_opts gc = {.dry_run = opts->dry_run,
                              .rewrite = opts->rewrite,
                              .fence_after = opts->fence_after,
                              .cancel = cancel,
                              .progress = on_progress,
                              .arg = (void *)(uintptr_t)hooks};

    if (open_repo(opts->repo, &r, err) < 0)
        return -1;
    if (repo_gc(r, &gc, &report, err) < 0)
        return err_side(err, ERR_SIDE_REPO);
    o = report_json(&report);
    if (jv_set_str(o, "repository", repo_id(r)) < 0 ||
        jv_set_bool(o, "dry_run", opts->dry_run) < 0)
        return err_set_errno(err, ENOMEM, "report");
    *ret_result = TAKE_PTR(o);
    return 0;
}
