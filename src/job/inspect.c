/* job/inspect.c - looking: points, show, doctor; and init. */
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
DEFINE_CLEANUP(struct repo_verified *, repo_verified_free)
DEFINE_CLEANUP(struct source *, source_close)

static int
no_memory(struct err *err)
{
    return err_set_errno(err, ENOMEM, "report");
}

/* -- points and show --------------------------------------------------------*/

static struct jv *
list_json(const struct point_list *l, const struct repo_verified *d)
{
    CLEANUP_JV struct jv *a = jv_array();

    for (size_t i = 0; i < l->n; i++) {
        CLEANUP_JV struct jv *p = point_json(l->v[i], false);

        if (jv_set(p, "verified", verified_json(d, l->v[i]->id)) < 0 ||
            jv_add(a, jv_ref(p)) < 0)
            return NULL;
    }
    return TAKE_PTR(a);
}

int
job_points(const char *repo, const char *name, struct jv **ret_result,
           struct err *err)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(point_list_done) struct point_list list = {0};
    CLEANUP(repo_verified_freep) struct repo_verified *d = NULL;
    CLEANUP_JV struct jv *bad = NULL;
    struct jv *o;

    if (open_repo(repo, &r, err) < 0)
        return -1;
    if (repo_points(r, name, &list, &bad, err) < 0 ||
        repo_verified_read(r, &d, err) < 0)
        return err_side(err, ERR_SIDE_REPO);
    if (bad == NULL)
        bad = jv_array();
    o = jv_build("{s:s, s:o, s:o}", "repository", repo_id(r), "points",
                 list_json(&list, d), "problems", TAKE_PTR(bad));
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

/* -- init and doctor --------------------------------------------------------*/

int
job_init(const struct job_init_opts *opts, struct jv **ret_result,
         struct err *err)
{
    uint64_t chunk_size =
        opts->chunk_size != 0 ? opts->chunk_size : REPO_CHUNK_DEFAULT;
    struct repo_init_opts init = {.encrypt = opts->encrypt,
                                  .label = opts->label,
                                  .kdf_mem = opts->kdf_memory};
    char id[33];
    struct jv *o;

    if (chunk_size < REPO_CHUNK_MIN || chunk_size > REPO_CHUNK_MAX ||
        (chunk_size & (chunk_size - 1)) != 0)
        return err_set(err, ERR_USAGE,
                       "chunk size %" PRIu64 " is not a power of two from 16K "
                       "to 4M",
                       chunk_size);
    init.chunk_size = (uint32_t)chunk_size;
    unlock_for_init(&init);
    if (repo_init_with(opts->repo, &init, id, err) < 0)
        return err_side(err, ERR_SIDE_REPO);
    o = jv_build("{s:s, s:s, s:I, s:b}", "repository", id, "path", opts->repo,
                 "chunk_size", (int64_t)chunk_size, "encrypted",
                 (int)opts->encrypt);
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
