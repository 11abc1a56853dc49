/* The proof of everything but maps and the bytes of packs: commit objects and
 * what they name, the chain of points, index segments, records. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "catalog.h"
#include "cleanup.h"
#include "err.h"
#include "hash.h"
#include "jv.h"
#include "keyring.h"
#include "points.h"
#include "rand.h"
#include "repair.h"
#include "store.h"
#include "verify.h"

DEFINE_CLEANUP(struct keyring *, keyring_close)

/* What collectors have said, while the objects are looked at. */
struct objects {
    struct verify *v;
    struct pack_set *gone;
    struct jv *gone_index;
    struct id_list removed;
    struct names keys; /* of commit objects */
};

static void
objects_done(struct objects *o)
{
    pack_set_free(o->gone);
    jv_free(o->gone_index);
    id_list_done(&o->removed);
    names_done(&o->keys);
}

static int
read_gone(struct objects *o, struct err *err)
{
    pack_set_free(o->gone);
    jv_free(o->gone_index);
    id_list_done(&o->removed);
    o->gone = pack_set_new();
    o->gone_index = jv_array();
    if (o->gone == NULL || o->gone_index == NULL)
        return err_set_errno(err, ENOMEM, "list of what is gone");
    if (index_reload(o->v->repo, err) < 0 ||
        index_gone(o->v->repo, o->gone, o->gone_index, &o->removed, err) < 0)
        return -1;
    id_list_sort(&o->removed);
    return 0;
}

static bool
has_text(const struct jv *list, const char *text)
{
    for (size_t i = 0; i < jv_size(list); i++)
        if (strcmp(jv_str(jv_at(list, i)), text) == 0)
            return true;
    return false;
}

/* -- segments ---------------------------------------------------------------*/

/* In pieces and not mapped: a sector that cannot be read is an error then. */
int
object_sha256(struct repo *r, const char *key, uint64_t len,
              uint8_t ret[HASH_LEN], struct err *why)
{
    const size_t piece = 1u << 20;
    CLEANUP_FREE uint8_t *buf = malloc(piece);
    struct sha256 *h = NULL;
    int rc = buf == NULL ? err_set_errno(why, ENOMEM, "%s", key)
                         : sha256_new(&h, why);

    if (rc == 0)
        rc = sha256_start(h, why);
    for (uint64_t off = 0; rc == 0 && off < len; off += piece) {
        size_t n = len - off < piece ? (size_t)(len - off) : piece;

        rc = store_get(r->store, key, off, n, buf, why);
        if (rc == 0)
            rc = sha256_add(h, buf, n, why);
    }
    if (rc == 0)
        rc = sha256_done(h, ret, why);
    sha256_free(h);
    return rc;
}

int
segment_part_check(struct repo *r, const char *key, const struct jv *part,
                   struct err *why)
{
    const char *text = jv_get_str(part, "sha256");
    uint8_t want[HASH_LEN], is[HASH_LEN];
    uint64_t len = 0, listed = 0;
    int rc = store_size(r->store, key, &len, why);

    if (rc < 0)
        return -1;
    if (rc == 0)
        return err_set(why, ERR_NOT_FOUND, "the object is missing");
    if (!jv_get_uint(part, "len", &listed) || listed != len)
        return err_set(why, ERR_CORRUPT,
                       "%" PRIu64 " bytes long, written were %" PRIu64, len,
                       listed);
    if (text == NULL || !hex_decode(text, want, sizeof want))
        return err_set(why, ERR_FORMAT, "listed without its SHA-256");
    if (object_sha256(r, key, len, is, why) < 0)
        return -1;
    if (!hash_equal(want, is))
        return err_set(why, ERR_CORRUPT,
                       "not the bytes that were written: its SHA-256 differs");
    return 0;
}

/* A collector may have removed it since its commit object was read: 1, 0, -1. */
static int
is_past(struct objects *o, const char *sid, const char *key, struct err *err)
{
    if (read_gone(o, err) < 0)
        return -1;
    return id_list_has(&o->removed, sid) || has_text(o->gone_index, key);
}

static int
take_segment(struct objects *o, const char *sid, const struct jv *part,
             struct err *err)
{
    const char *key = jv_get_str(part, "key");
    struct err why = ERR_INIT;
    int past;

    if (key == NULL || has_text(o->gone_index, key) ||
        segment_part_check(o->v->repo, key, part, &why) == 0)
        return 0;
    past = is_past(o, sid, key, err);
    return past != 0 ? (past < 0 ? -1 : 0)
                     : verify_problem_object(o->v, key, NULL, why.msg, err);
}

static int
take_segments(struct objects *o, const char *sid, const struct jv *list,
              struct err *err)
{
    for (size_t i = 0; i < jv_size(list); i++)
        if (verify_canceled(o->v, err) < 0 ||
            take_segment(o, sid, jv_at(list, i), err) < 0)
            return -1;
    return 0;
}

/* -- packs ------------------------------------------------------------------*/

static int
take_pack(struct objects *o, const struct jv *part, bool scope, struct err *err)
{
    const char *key = jv_get_str(part, "key");
    const char *sha = jv_get_str(part, "sha256");
    struct vpack p = {.listed = true, .scope = scope};

    if (key == NULL || !pack_name_parse(key, &p.name) ||
        !jv_get_uint(part, "len", &p.len) || sha == NULL ||
        !hex_decode(sha, p.sha, sizeof p.sha))
        return verify_problem_object(
            o->v, NULL, NULL,
            "a pack is listed without key, length and SHA-256", err);
    if (pack_set_has(o->gone, &p.name))
        return 0;
    return verify_pack_add(o->v, &p, err);
}

static int
take_list(struct objects *o, const struct jv *list, bool scope, struct err *err)
{
    for (size_t i = 0; i < jv_size(list); i++)
        if (take_pack(o, jv_at(list, i), scope, err) < 0)
            return -1;
    return 0;
}

static int
take_pack_lists(struct objects *o, const struct jv *list, bool scope,
                struct err *err)
{
    for (size_t i = 0; i < jv_size(list); i++) {
        const char *key = jv_get_str(jv_at(list, i), "key");
        CLEANUP_JV struct jv *payload = NULL;
        struct err why = ERR_INIT;
        int rc;

        if (key == NULL)
            rc = verify_problem_object(o->v, NULL, NULL,
                                       "a list of packs has no name", err);
        else if (record_read(o->v->repo, key, COMMIT_PACKS, &payload, &why) < 0)
            rc = verify_problem_object(o->v, key, NULL, why.msg, err);
        else
            rc = take_list(o, jv_get(payload, "packs"), scope, err);
        if (rc < 0)
            return -1;
    }
    return 0;
}

/* -- commit objects ---------------------------------------------------------*/

static const struct point *
point_of(const struct verify *v, const char *sid)
{
    for (size_t i = 0; i < v->points->n; i++)
        if (strcmp(v->points->v[i]->id, sid) == 0)
            return v->points->v[i];
    return NULL;
}

static int
take_commit(struct objects *o, const char *key, struct err *err)
{
    CLEANUP_JV struct jv *payload = NULL;
    struct verify *v = o->v;
    struct err why = ERR_INIT;
    char sid[REPO_SID_TEXT];
    enum commit_type type;
    const struct point *p;
    bool scope;

    (void)snprintf(sid, sizeof sid, "%.32s", key + strlen("commit/"));
    p = point_of(v, sid);
    scope = v->opts.whole || p != NULL;
    if (id_list_has(&o->removed, sid))
        return 0;
    if (commit_read(v->repo, key, &type, &payload, NULL, &why) < 0)
        return why.code == ERR_NOT_FOUND && p == NULL
                   ? 0
                   : verify_problem_object(v, key, p, why.msg, err);
    if (type != COMMIT_COMMIT)
        return p == NULL
                   ? 0
                   : verify_problem_object(v, key, p, "no point any more", err);
    if (id_list_add(&v->sids, sid, err) < 0 ||
        take_list(o, jv_get(payload, "packs"), scope, err) < 0 ||
        take_pack_lists(o, jv_get(payload, "pack_lists"), scope, err) < 0)
        return -1;
    return scope ? take_segments(o, sid, jv_get(payload, "index"), err) : 0;
}

static int
collect_key(void *arg, const char *key, uint64_t len)
{
    struct objects *o = arg;

    (void)len;
    return strlen(key) < REPO_KEY_MAX ? names_add(&o->keys, key, NULL) : 0;
}

static int
check_commits(struct objects *o, struct err *err)
{
    if (store_list(o->v->repo->store, "commit", collect_key, o, err) != 0)
        return err_wrap(err, "list the commit objects");
    names_sort(&o->keys);
    for (size_t i = 0; i < o->keys.n; i++)
        if (verify_canceled(o->v, err) < 0 ||
            take_commit(o, o->keys.v[i].key, err) < 0)
            return -1;
    id_list_sort(&o->v->sids);
    return 0;
}

/* -- the chain --------------------------------------------------------------*/

static bool
parent_known(const struct objects *o, const struct point *p)
{
    char key[REPO_KEY_MAX];

    commit_key(p->parent, 1, key);
    return p->parent[0] == '\0' || names_has(&o->keys, key) ||
           id_list_has(&o->removed, p->parent);
}

/* A parent that is neither there nor was removed by a collector was taken away
 * by somebody else; nobody can tell what it held. */
static int
check_chain(struct objects *o, struct err *err)
{
    bool again = false;

    for (size_t i = 0; i < o->v->points->n; i++) {
        const struct point *p = o->v->points->v[i];
        char text[160];

        if (parent_known(o, p))
            continue;
        if (!again && read_gone(o, err) < 0) /* a collector since then? */
            return -1;
        again = true;
        if (parent_known(o, p))
            continue;
        (void)snprintf(text, sizeof text,
                       "the point before it, %s, was taken away, and not by a "
                       "collection",
                       p->parent);
        if (verify_problem_object(o->v, NULL, p, text, err) < 0)
            return -1;
    }
    return 0;
}

/* -- all of it --------------------------------------------------------------*/

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

/* The one that opened the repository is good; the others may be needed one day. */
static int
check_slots(struct verify *v, struct err *err)
{
    CLEANUP(keyring_closep) struct keyring *k = NULL;

    if (!v->opts.whole || !repo_encrypted(v->repo))
        return 0;
    if (keyring_open(repo_path(v->repo), NULL, &k, err) < 0)
        return -1;
    for (size_t i = 0; i < keyring_size(k); i++) {
        const struct key_info *s = keyring_at(k, i);
        char key[REPO_KEY_MAX];
        uint64_t len;

        (void)snprintf(key, sizeof key, "key/%s", s->slot);
        if (s->problem[0] == '\0' || s->going ||
            store_size(v->repo->store, key, &len, NULL) == 0)
            continue;
        if (verify_problem_object(v, key, NULL, s->problem, err) < 0)
            return -1;
    }
    return 0;
}

/* What opening the index has found: segments, commit objects, records. */
static int
check_index(struct verify *v, struct err *err)
{
    CLEANUP_JV struct jv *list = index_problems(v->repo);

    if (list == NULL)
        return err_set_errno(err, ENOMEM, "list of problems");
    for (size_t i = 0; i < jv_size(list); i++) {
        const struct jv *j = jv_at(list, i);
        const char *text = jv_get_str(j, "problem");
        const char *key = jv_get_str(j, "object");
        struct pack_name name;

        /* packs are judged by what is needed of them */
        if (key != NULL && pack_name_parse(key, &name))
            continue;
        if (verify_problem_object(v, key, NULL, text == NULL ? "damaged" : text,
                                  err) < 0)
            return -1;
    }
    return 0;
}

int
verify_objects(struct verify *v, struct err *err)
{
    CLEANUP(objects_done) struct objects o = {.v = v};

    if (read_gone(&o, err) < 0 || check_slots(v, err) < 0 ||
        check_index(v, err) < 0 || check_commits(&o, err) < 0 ||
        check_chain(&o, err) < 0)
        return -1;
    for (size_t i = 0; i < v->points->n; i++) {
        const struct point *p = v->points->v[i];
        char key[REPO_KEY_MAX];

        commit_key(p->id, 1, key);
        if (!names_has(&o.keys, key) &&
            verify_problem_object(v, key, p, "the object is missing", err) < 0)
            return -1;
        if (verify_canceled(v, err) < 0 || check_config(v, p, err) < 0)
            return -1;
        v->rep.points++;
    }
    return verify_packs_settle(v, err);
}
