/* The points of a repository are its commit objects, nothing else: there is no
 * list that could be out of step with them.
 *
 * Each point names the SHA-256 of its parent's commit object, so a point that
 * was exchanged for another is seen by its successor.  A missing parent is
 * nothing to report: points are deleted in any order.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "err.h"
#include "hash.h"
#include "jv.h"
#include "point.h"
#include "points.h"
#include "store.h"

#define COMMITS_MAX (1u << 20) /* of one repository */

void
commit_recs_done(struct commit_recs *l)
{
    for (size_t i = 0; i < l->n; i++)
        point_free(l->v[i].point);
    free(l->v);
    l->v = NULL;
    l->n = 0;
}

/* -- names of commit objects ------------------------------------------------*/

struct key_list {
    char (*v)[REPO_KEY_MAX];
    size_t n, cap;
    struct err *err;
};

static int
add_key(void *arg, const char *key, uint64_t len)
{
    struct key_list *l = arg;

    if (strlen(key) >= sizeof l->v[0] || l->n >= COMMITS_MAX)
        return err_set(l->err, ERR_FORMAT,
                       "more than %u objects, or names longer than %d bytes, "
                       "in 'commit/'",
                       COMMITS_MAX, REPO_KEY_MAX - 1);
    if (l->n == l->cap) {
        size_t cap = l->cap == 0 ? 64 : 2 * l->cap;
        char(*v)[REPO_KEY_MAX] = realloc(l->v, cap * sizeof *v);

        if (v == NULL)
            return err_set_errno(l->err, ENOMEM, "list of points");
        l->v = v;
        l->cap = cap;
    }
    (void)strcpy(l->v[l->n++], key);
    return 0;
}

static int
compare_keys(const void *a, const void *b)
{
    return strcmp(a, b);
}

static int
list_keys(struct repo *r, struct key_list *l, struct err *err)
{
    l->err = err;
    if (store_list(r->store, "commit", add_key, l, err) != 0)
        return err_wrap(err, "list the points of '%s'", repo_path(r));
    if (l->n > 0) /* no order on disk: the reports shall have one */
        qsort(l->v, l->n, sizeof *l->v, compare_keys);
    return 0;
}

/* "commit/<sid>.<k>": the session id, or false. */
static bool
key_sid(const char *key, char sid[REPO_SID_TEXT])
{
    const char *name = strchr(key, '/');
    size_t n;

    if (name == NULL || strspn(++name, "0123456789abcdef") != 32)
        return false;
    n = strspn(name + 33, "0123456789");
    if (name[32] != '.' || n < 1 || n > 9 || name[33 + n] != '\0')
        return false;
    memcpy(sid, name, 32);
    sid[32] = '\0';
    return true;
}

/* -- one commit object ------------------------------------------------------*/

int
commit_read(struct repo *r, const char *key, enum commit_type *ret_type,
            struct jv **ret_payload, uint8_t *ret_sha256, struct err *err)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    uint8_t sha[HASH_LEN];
    int rc;

    if (commit_load(r, key, &b, err) < 0)
        return err_wrap(err, "%s", key);
    rc = commit_decode(repo_key_commit(r), b.data, b.len, ret_type, ret_payload,
                       err);
    if (rc == 0 && hash_sha256(b.data, b.len, sha, err) < 0) {
        jv_free(TAKE_PTR(*ret_payload));
        rc = -1;
    }
    if (rc < 0)
        return err_wrap(err, "%s", key);
    if (ret_sha256 != NULL)
        memcpy(ret_sha256, sha, sizeof sha);
    return 0;
}

bool
commit_is_fence(struct repo *r, const char *key)
{
    CLEANUP_JV struct jv *payload = NULL;
    enum commit_type type;

    return commit_read(r, key, &type, &payload, NULL, NULL) == 0 &&
           type == COMMIT_ABORT;
}

int
commit_rec_read(struct repo *r, const char *key, struct commit_rec *rec,
                struct err *err)
{
    CLEANUP_JV struct jv *payload = NULL;
    char sid[REPO_SID_TEXT];
    enum commit_type type;
    const char *session;

    memset(rec, 0, sizeof *rec);
    if (!key_sid(key, sid))
        return err_set(err, ERR_FORMAT, "%s: not the name of a commit object",
                       key);
    if (commit_read(r, key, &type, &payload, rec->sha256, err) < 0)
        return -1;
    session = jv_get_str(payload, "session");
    if (session == NULL || strcmp(session, sid) != 0)
        return err_set(err, ERR_CORRUPT, "%s: belongs to session '%.32s'", key,
                       session == NULL ? "" : session);
    if (type != COMMIT_COMMIT && type != COMMIT_ABORT)
        return err_set(err, ERR_CORRUPT, "%s: an object of another kind", key);
    /* A commit without a point only adds packs and segments. */
    if (type != COMMIT_COMMIT || jv_get(payload, "point") == NULL)
        return 0;
    if (point_from_json(jv_get(payload, "point"), &rec->point, rec->prev,
                        &rec->has_prev, err) < 0)
        return err_wrap(err, "%s: point", key);
    if (strcmp(rec->point->id, sid) != 0) {
        point_free(TAKE_PTR(rec->point));
        return err_set(err, ERR_CORRUPT, "%s: holds another session's point",
                       key);
    }
    return 0;
}

/* -- order and chain --------------------------------------------------------*/

static int
compare_recs(const void *a, const void *b)
{
    const struct point *p = ((const struct commit_rec *)a)->point;
    const struct point *q = ((const struct commit_rec *)b)->point;
    int c = strcmp(p->machine, q->machine);

    if (c == 0)
        c = (p->seq > q->seq) - (p->seq < q->seq);
    return c != 0 ? c : strcmp(p->id, q->id);
}

/* Report: an error, or with `bad` a line in it. */
static int
report(struct jv *bad, struct err *why, struct err *err)
{
    if (bad == NULL)
        return err_copy(err, why);
    if (jv_add(bad, jv_string(why->msg)) < 0)
        return err_set_errno(err, ENOMEM, "list of points");
    return 0;
}

static int
compare_rec_ids(const void *a, const void *b)
{
    const struct commit_rec *const *x = a, *const *y = b;

    return strcmp((*x)->point->id, (*y)->point->id);
}

static int
sort_by_id(const struct commit_recs *l, const struct commit_rec ***ret,
           struct err *err)
{
    const struct commit_rec **v = calloc(l->n + 1, sizeof *v);

    if (v == NULL)
        return err_set_errno(err, ENOMEM, "list of %zu points", l->n);
    for (size_t i = 0; i < l->n; i++)
        v[i] = &l->v[i];
    if (l->n > 0)
        qsort(v, l->n, sizeof *v, compare_rec_ids);
    *ret = v;
    return 0;
}

/* Most parents are gone where old points are thinned out. */
static const struct commit_rec *
find_rec(const struct commit_rec *const *by_id, size_t n, const char *id)
{
    size_t lo = 0, hi = n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(by_id[mid]->point->id, id);

        if (c == 0)
            return by_id[mid];
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

static int
check_parent(const struct commit_recs *l, const struct commit_rec *const *by_id,
             size_t i, struct err *why)
{
    const struct commit_rec *rec = &l->v[i];
    const struct point *p = rec->point;
    const struct commit_rec *parent;

    if (!rec->has_prev)
        return 0;
    parent = find_rec(by_id, l->n, p->parent);
    if (parent == NULL)
        return 0; /* deleted */
    if (!hash_equal(parent->sha256, rec->prev) ||
        strcmp(parent->point->machine, p->machine) != 0 ||
        parent->point->seq >= p->seq)
        return err_set(why, ERR_CORRUPT,
                       "commit/%s.1: was exchanged or rolled back: it is not "
                       "the parent that point %s of machine '%s' was built on",
                       p->parent, p->id, p->machine);
    return 0;
}

static int
check_chain(const struct commit_recs *l, struct jv *bad, struct err *err)
{
    CLEANUP_FREE const struct commit_rec **by_id = NULL;

    if (sort_by_id(l, &by_id, err) < 0)
        return -1;
    for (size_t i = 0; i < l->n; i++) {
        const struct point *p = l->v[i].point;
        const struct point *q = i > 0 ? l->v[i - 1].point : NULL;
        struct err why = ERR_INIT;

        if (check_parent(l, by_id, i, &why) < 0 && report(bad, &why, err) < 0)
            return -1;
        if (bad == NULL || q == NULL || q->seq != p->seq ||
            strcmp(p->machine, q->machine) != 0)
            continue;
        /* Two runs at once: both points are good, only their order is not
         * known.  So it is said but stops nothing. */
        err_clear(&why);
        (void)err_set(&why, ERR_FORMAT,
                      "machine '%s' has two points with number %" PRIu64
                      ", %s and %s: two backups of it ran at once",
                      p->machine, p->seq, q->id, p->id);
        if (report(bad, &why, err) < 0)
            return -1;
    }
    return 0;
}

static int
scan_key(struct repo *r, const char *key, struct commit_recs *l, struct jv *bad,
         struct err *err)
{
    struct err why = ERR_INIT;
    struct commit_rec rec;

    if (commit_rec_read(r, key, &rec, &why) < 0) {
        if (why.code == ERR_NOT_FOUND)
            return 0; /* deleted since it was listed */
        return report(bad, &why, err);
    }
    if (rec.point != NULL)
        l->v[l->n++] = rec;
    return 0;
}

int
commit_scan(struct repo *r, struct commit_recs *ret, struct jv *bad,
            struct err *err)
{
    CLEANUP(commit_recs_done) struct commit_recs l = {0};
    CLEANUP_FREE void *keys_mem = NULL;
    struct key_list keys = {0};
    int rc = list_keys(r, &keys, err);

    keys_mem = keys.v;
    if (rc < 0)
        return -1;
    l.v = calloc(keys.n + 1, sizeof *l.v);
    if (l.v == NULL)
        return err_set_errno(err, ENOMEM, "list of %zu points", keys.n);
    for (size_t i = 0; i < keys.n; i++)
        if (scan_key(r, keys.v[i], &l, bad, err) < 0)
            return -1;
    qsort(l.v, l.n, sizeof *l.v, compare_recs);
    if (check_chain(&l, bad, err) < 0)
        return -1;
    *ret = l;
    l = (struct commit_recs){0};
    return 0;
}

static int
list_points(struct repo *r, const char *machine, bool partial,
            struct point_list *ret, struct jv **ret_bad, struct err *err)
{
    CLEANUP(commit_recs_done) struct commit_recs l = {0};
    CLEANUP_JV struct jv *bad = ret_bad == NULL ? NULL : jv_array();
    CLEANUP(id_list_done) struct id_list gone = {0};
    struct point_list list = {0};

    if (ret_bad != NULL && bad == NULL)
        return err_set_errno(err, ENOMEM, "list of points");
    /* In this order: what is listed can be read; and a point whose forget object
     * was removed already has no commit object any more (docs/collect.pml,
     * COMMITS_FIRST). */
    if (forgotten_list(r, &gone, err) < 0 || commit_scan(r, &l, bad, err) < 0 ||
        index_reload(r, err) < 0 || index_gone(r, NULL, NULL, &gone, err) < 0)
        return -1;
    id_list_sort(&gone);
    list.v = calloc(l.n + 1, sizeof(struct point *));
    if (list.v == NULL)
        return err_set_errno(err, ENOMEM, "list of %zu points", l.n);
    for (size_t i = 0; i < l.n; i++)
        if ((machine == NULL || strcmp(l.v[i].point->machine, machine) == 0) &&
            (partial || !l.v[i].point->partial) &&
            !id_list_has(&gone, l.v[i].point->id))
            list.v[list.n++] = TAKE_PTR(l.v[i].point);
    if (ret_bad != NULL)
        *ret_bad = TAKE_PTR(bad);
    *ret = list;
    return 0;
}

int
repo_points(struct repo *r, const char *machine, struct point_list *ret,
            struct jv **ret_bad, struct err *err)
{
    return list_points(r, machine, false, ret, ret_bad, err);
}

int
repo_points_all(struct repo *r, const char *machine, struct point_list *ret,
                struct jv **ret_bad, struct err *err)
{
    return list_points(r, machine, true, ret, ret_bad, err);
}
