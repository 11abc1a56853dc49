#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "hash.h"
#include "jv.h"
#include "pack.h"
#include "points.h"
#include "rand.h"
#include "store.h"
#include "verify.h"

DEFINE_CLEANUP(struct repo_fetch *, repo_fetch_free)

int
verify_canceled(const struct verify *v, struct err *err)
{
    if (v->cancel == NULL || !__atomic_load_n(v->cancel, __ATOMIC_RELAXED))
        return 0;
    return err_set(err, ERR_CANCELED, "the check was canceled");
}

/* -- objects ----------------------------------------------------------------*/

static int
check_sha256(const uint8_t *data, size_t len, const struct jv *part,
             struct err *why)
{
    const char *text = jv_get_str(part, "sha256");
    uint8_t want[HASH_LEN], is[HASH_LEN];

    if (text == NULL || !hex_decode(text, want, sizeof want))
        return err_set(why, ERR_FORMAT, "listed without its SHA-256");
    if (hash_sha256(data, len, is, why) < 0)
        return -1;
    if (!hash_equal(want, is))
        return err_set(why, ERR_CORRUPT,
                       "not the bytes that were written: its SHA-256 differs");
    return 0;
}

/* The table at the end of a pack: what an index is made from again when it is
 * lost.  The frames are proven one by one, later. */
static int
check_table(const uint8_t *data, size_t len, const char *key, struct err *why)
{
    struct pack_view view;
    char own[REPO_KEY_MAX];

    if (pack_parse(data, len, &view, why) < 0)
        return -1;
    pack_key(&view.name, own);
    if (strcmp(own, key) != 0)
        return err_set(why, ERR_CORRUPT, "holds '%s'", own);
    return 0;
}

static int
check_bytes(struct verify *v, const char *key, const struct jv *part,
            bool index, struct err *why)
{
    const uint8_t *data;
    size_t len;
    int rc;

    if (store_map(v->repo->store, key, &data, &len, why) < 0)
        return -1;
    rc = index ? check_sha256(data, len, part, why)
               : check_table(data, len, key, why);
    store_unmap(v->repo->store, data, len);
    return rc;
}

/* Does the object exist as its commit object says? */
static int
check_part(struct verify *v, const struct jv *part, bool index, struct err *err)
{
    const char *key = jv_get_str(part, "key");
    struct err why = ERR_INIT;
    uint64_t want, len = 0;
    int rc;

    if (key == NULL || !jv_get_uint(part, "len", &want))
        return verify_problem_object(v, NULL, NULL,
                                     "an object is listed without key and "
                                     "length",
                                     err);
    rc = store_size(v->repo->store, key, &len, &why);
    if (rc == 0)
        (void)err_set(&why, ERR_NOT_FOUND, "the object is missing");
    else if (rc == 1 && len != want)
        rc =
            err_set(&why, ERR_CORRUPT,
                    "%" PRIu64 " bytes long, written were %" PRIu64, len, want);
    else if (rc == 1 && check_bytes(v, key, part, index, &why) < 0)
        rc = -1;
    return rc == 1 ? 0 : verify_problem_object(v, key, NULL, why.msg, err);
}

static int
check_commit(struct verify *v, const struct point *p, struct err *err)
{
    static const char *const kinds[] = {"packs", "index"};
    CLEANUP_JV struct jv *payload = NULL;
    struct err why = ERR_INIT;
    enum commit_type type;
    char key[REPO_KEY_MAX];

    commit_key(p->id, 1, key);
    if (commit_read(v->repo, key, &type, &payload, NULL, &why) < 0)
        return verify_problem_object(v, key, p, why.msg, err);
    if (type != COMMIT_COMMIT)
        return verify_problem_object(v, key, p, "no point any more", err);
    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        const struct jv *list = jv_get(payload, kinds[k]);

        for (size_t i = 0; i < jv_size(list); i++)
            if (check_part(v, jv_at(list, i), k == 1, err) < 0)
                return -1;
    }
    return 0;
}

static int
check_config(struct verify *v, const struct point *p, struct err *err)
{
    CLEANUP_FREE uint8_t *blob = NULL;
    struct err why = ERR_INIT;

    if (p->config_len == 0 ||
        repo_get_blob(v->repo, &p->config, p->config_len, &blob, &why) == 0)
        return 0;
    (void)err_wrap(&why, "configuration of the machine");
    return verify_problem_object(v, NULL, p, why.msg, err);
}

static int
check_objects(struct verify *v, struct err *err)
{
    CLEANUP_JV struct jv *index = NULL;

    if (index_reload(v->repo, err) < 0)
        return -1;
    index = index_problems(v->repo);
    if (index == NULL)
        return err_set_errno(err, ENOMEM, "list of problems");
    for (size_t i = 0; i < jv_size(index); i++) {
        const struct jv *j = jv_at(index, i);
        const char *text = jv_get_str(j, "problem");

        if (verify_problem_object(v, jv_get_str(j, "object"), NULL,
                                  text == NULL ? "damaged" : text, err) < 0)
            return -1;
    }
    for (size_t i = 0; i < v->points->n; i++) {
        const struct point *p = v->points->v[i];

        if (verify_canceled(v, err) < 0 || check_commit(v, p, err) < 0 ||
            check_config(v, p, err) < 0)
            return -1;
        v->rep.points++;
    }
    return 0;
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

/* A chunk was read, or could not be; its record number is the tag. */
static int
proven(void *arg, unsigned worker, uint64_t tag, const struct chunk_id *id,
       const void *data, size_t len, const struct err *why, struct err *err)
{
    struct verify *v = arg;

    if (verify_canceled(v, err) < 0)
        return -1;
    (void)pthread_mutex_lock(&v->lock);
    v->rep.chunks++;
    v->rep.bytes += len;
    if (data == NULL) {
        v->damage = true;
        v->rep.bad_chunks++;
        verify_bit_set(v->bad, tag);
        verify_reason_add(v, tag, why->msg);
    }
    v->done += len;
    if (v->progress != NULL)
        v->progress(v->progress_arg, v->done, v->total);
    (void)pthread_mutex_unlock(&v->lock);
    return 0;
}

static int
fetch_all(struct verify *v, struct err *err)
{
    struct repo_fetch_opts opts = {
        .n_workers = v->n_workers, .fn = proven, .arg = v};
    CLEANUP(repo_fetch_freep) struct repo_fetch *f = NULL;

    if (v->progress != NULL)
        v->progress(v->progress_arg, 0, v->total);
    if (repo_fetch_new(v->repo, &opts, &f, err) < 0)
        return -1;
    v->fetch = f;
    if (run_pass(v, VERIFY_FETCH, err) < 0)
        return -1;
    return repo_fetch_finish(f, err);
}

static int
check(struct verify *v, struct err *err)
{
    if (check_objects(v, err) < 0 || run_pass(v, VERIFY_MARK, err) < 0 ||
        fetch_all(v, err) < 0)
        return -1;
    verify_reason_sort(v);
    return v->damage ? run_pass(v, VERIFY_REPORT, err) : 0;
}

int
repo_verify(struct repo *r, const struct point_list *l, unsigned n_workers,
            repo_progress_fn progress, void *arg, const bool *cancel,
            struct repo_verify_report *ret, struct err *err)
{
    struct verify v = {.repo = r,
                       .points = l,
                       .cancel = cancel,
                       .n_workers = n_workers,
                       .progress = progress,
                       .progress_arg = arg};
    int rc;

    v.rep.problems = jv_array();
    if (v.rep.problems == NULL)
        return err_set_errno(err, ENOMEM, "list of problems");
    (void)pthread_mutex_init(&v.lock, NULL);
    rc = check(&v, err);
    (void)pthread_mutex_destroy(&v.lock);
    free(v.seen);
    free(v.need);
    free(v.bad);
    free(v.bad_ids.v);
    free(v.reasons);
    if (rc < 0) {
        jv_free(v.rep.problems);
        return err_wrap(err, "check of '%s'", repo_path(r));
    }
    *ret = v.rep;
    return 0;
}
