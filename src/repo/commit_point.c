/* Committing a point: the last and only step that makes it exist.
 *
 * Before the commit object is created, everything that it names is checked to
 * be there, because afterwards nobody asks again until a restore.  The object's
 * own bytes are decoded and parsed like a reader's would be, so that a point
 * which cannot be read is never created.
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
#include "map_page.h"
#include "mutant.h"
#include "point.h"
#include "points.h"
#include "rand.h"
#include "session.h"
#include "store.h"

DEFINE_CLEANUP(struct point *, point_free)

static int
check_object(struct repo *r, const struct jv *part, struct err *err)
{
    const char *key = jv_get_str(part, "key");
    uint64_t want, len = 0;
    int rc;

    if (key == NULL || !jv_get_uint(part, "len", &want))
        return err_set(err, ERR_FORMAT, "object without key or length");
    rc = store_size(r->store, key, &len, err);
    if (rc < 0)
        return err_wrap(err, "check %s before the commit", key);
    if (rc == 0)
        return err_set(err, ERR_CORRUPT,
                       "%s: vanished before the commit; check what else "
                       "writes to '%s', then run the backup again",
                       key, repo_path(r));
    if (len != want)
        return err_set(err, ERR_CORRUPT,
                       "%s: has %" PRIu64 " bytes instead of %" PRIu64
                       "; check the disk under '%s', then run the backup again",
                       key, len, want, repo_path(r));
    return 0;
}

static int
check_objects(struct repo *r, const struct jv *parts, struct err *err)
{
    static const char *const kinds[] = {"packs", "index"};

    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        const struct jv *list = jv_get(parts, kinds[k]);

        for (size_t i = 0; i < jv_size(list); i++)
            if (check_object(r, jv_at(list, i), err) < 0)
                return -1;
    }
    return 0;
}

/* What the point's disks and configuration begin with must be readable: a root
 * of another repository or session would be a point without data. */
static int
check_roots(struct repo_session *s, const struct point *p, struct err *err)
{
    for (size_t i = 0; i < p->n_disks; i++) {
        uint8_t page[MAP_PAGE_LEN];

        if (page_get_session(s, &p->disks[i].root, page, sizeof page, err) < 0)
            return err_wrap(err, "map of disk '%s'", p->disks[i].name);
    }
    if (p->config_len > 0 && p->config_len <= POINT_CONFIG_MAX) {
        CLEANUP_FREE uint8_t *blob = malloc(p->config_len);

        if (blob == NULL)
            return err_set_errno(err, ENOMEM, "configuration");
        if (page_get_session(s, &p->config, blob, p->config_len, err) < 0)
            return err_wrap(err, "configuration");
    }
    return 0;
}

/* The machine's newest point, ret->point NULL when it has none.  A damaged commit object of whatever
 * machine must not stop backups, so those are passed over here; listing and
 * verifying report them. */
static int
newest(struct repo *r, const char *machine, struct commit_rec *ret,
       struct err *err)
{
    char sid[REPO_SID_TEXT] = "", key[REPO_KEY_MAX];
    uint64_t seq = 0;

    memset(ret, 0, sizeof *ret);
    if (index_reload(r, err) < 0)
        return -1;
    while (ret->point == NULL && index_newest(r, machine, &seq, sid)) {
        struct err why = ERR_INIT;

        commit_key(sid, 1, key);
        if (commit_rec_read(r, key, ret, &why) < 0 && why.sys == ENOMEM)
            return err_copy(err, &why);
    }
    return 0;
}

/* Put the point behind `parent` (NULL: it is the machine's first). */
static int
place(struct point *p, const char *sid, const struct commit_rec *parent,
      struct err *err)
{
    char lineage[33];
    uint8_t bytes[16];
    char *copy;

    rand_bytes(bytes, sizeof bytes);
    hex_encode(bytes, sizeof bytes, lineage);
    copy = strdup(parent == NULL ? lineage : parent->point->lineage);
    if (copy == NULL)
        return err_set_errno(err, ENOMEM, "point");
    free(p->lineage);
    p->lineage = copy;
    (void)strcpy(p->id, sid);
    (void)strcpy(p->parent, parent == NULL ? "" : parent->point->id);
    if (parent != NULL && parent->point->seq >= POINT_SEQ_MAX)
        return err_set(err, ERR_FORMAT, "machine '%s' has no numbers left",
                       p->machine);
    p->seq = parent == NULL ? 1 : parent->point->seq + 1;
    return 0;
}

static void
unplace(struct point *p)
{
    p->id[0] = p->parent[0] = '\0';
    p->seq = 0;
    free(TAKE_PTR(p->lineage));
}

/* Adds session and point to `parts`, which makes it the payload. */
static int
encode(struct repo *r, const char *sid, const struct point *p,
       const uint8_t *prev, struct jv *parts, struct buf *ret, struct err *err)
{
    struct jv *j = point_to_json(p, prev, err);

    if (j == NULL)
        return -1;
    if (jv_set(parts, "point", j) < 0 ||
        jv_set_str(parts, "type", "commit") < 0 ||
        jv_set_str(parts, "session", sid) < 0)
        return err_set_errno(err, ENOMEM, "point");
    return commit_encode(repo_key_commit(r), COMMIT_COMMIT, parts, ret, err);
}

static int
prove(struct repo *r, const struct buf *object, const struct jv *payload,
      struct err *err)
{
    CLEANUP(point_freep) struct point *p = NULL;
    CLEANUP_JV struct jv *back = NULL;
    uint8_t prev[HASH_LEN];
    enum commit_type type;
    bool has_prev;

    if (commit_decode(repo_key_commit(r), object->data, object->len, &type,
                      &back, err) < 0 ||
        point_from_json(jv_get(back, "point"), &p, prev, &has_prev, err) < 0)
        return err_wrap(err, "read back the point's own bytes");
    if (type != COMMIT_COMMIT || !jv_equal(back, payload))
        return err_set(err, ERR_CORRUPT,
                       "the point's bytes do not read back as they were "
                       "written; check this machine's memory");
    return 0;
}

/* Refusals that come before anything is written. */
static bool
refused(const struct err *why)
{
    return why->code == ERR_NO_SPACE || why->sys == EACCES ||
           why->sys == EPERM || why->sys == EROFS || why->sys == EMFILE ||
           why->sys == ENFILE;
}

/* Once store_put() was called, only a fence under the name, or a refusal without
 * the object, proves that there is none. */
static int
create(struct repo_session *s, const char *key, const struct buf *object,
       struct err *err)
{
    struct repo *r = session_repo(s);
    struct err why = ERR_INIT;
    uint64_t len;

    session_set_fate(s, SESSION_IN_DOUBT);
    if (store_put(r->store, key, object->data, object->len, &why) == 0) {
        session_set_fate(s, SESSION_COMMITTED);
        /* So that this process can read the point at once; if that fails, the
         * point exists all the same, and a reader will say what is wrong. */
        (void)index_reload(r, NULL);
        return 0;
    }
    if (why.code == ERR_EXISTS && MUTANT(MUTANT_PUT_COMMIT_SHARED) &&
        store_delete(r->store, key, NULL) == 0)
        return store_put(r->store, key, object->data, object->len, err);
    if (why.code == ERR_EXISTS && commit_is_fence(r, key)) {
        session_set_fate(s, SESSION_OPEN);
        return err_set(err, ERR_EXISTS,
                       "%s: this session was fenced: a collector took it for "
                       "dead; run the backup again",
                       key);
    }
    if (refused(&why) && store_size(r->store, key, &len, NULL) == 0) {
        session_set_fate(s, SESSION_OPEN);
        (void)err_copy(err, &why);
        return err_wrap(err, "%s", key);
    }
    (void)err_copy(err, &why);
    return err_wrap(err,
                    "%s: the point may exist all the same, and is complete "
                    "then (see: tidemark points)",
                    key);
}

/* 1 it is there, 0 it was removed since it was read, -1. */
static int
parent_there(struct repo *r, const struct commit_rec *parent, struct err *err)
{
    char key[REPO_KEY_MAX];
    uint64_t len;

    if (parent == NULL)
        return 1;
    commit_key(parent->point->id, 1, key);
    return store_size(r->store, key, &len, err);
}

/* Place the point behind the machine's newest one and create its commit object:
 * 0, -1, or 1 when that newest one was removed meanwhile. */
static int
commit_once(struct repo_session *s, struct point *p, struct jv *parts,
            struct err *err)
{
    struct commit_rec rec = {.point = NULL};
    CLEANUP(point_freep) struct point *owned = NULL;
    CLEANUP(buf_done) struct buf object = BUF_INIT;
    struct repo *r = session_repo(s);
    const char *sid = session_sid(s);
    const struct commit_rec *parent;
    char key[REPO_KEY_MAX];
    int there;

    if (newest(r, p->machine, &rec, err) < 0)
        return -1;
    owned = rec.point;
    parent = rec.point != NULL ? &rec : NULL;
    if (place(p, sid, parent, err) < 0 ||
        encode(r, sid, p, parent == NULL ? NULL : parent->sha256, parts,
               &object, err) < 0 ||
        prove(r, &object, parts, err) < 0 || check_objects(r, parts, err) < 0)
        return -1;
    there = parent_there(r, parent, err);
    if (there <= 0)
        return there < 0 ? err_wrap(err, "check the parent") : 1;
    commit_key(sid, 1, key);
    return create(s, key, &object, err);
}

#define COMMIT_TURNS 10 /* a collector removes old points, not for ever */

static int
commit(struct repo_session *s, struct point *p, struct err *err)
{
    CLEANUP_JV struct jv *parts = NULL;
    int result = 1;

    if (check_roots(s, p, err) < 0 || session_seal(s, &parts, err) < 0)
        return -1;
    for (int turn = 0; result > 0 && turn < COMMIT_TURNS; turn++)
        result = commit_once(s, p, parts, err);
    if (result > 0)
        return err_set(err, ERR_NOT_FOUND,
                       "the machine's newest point vanishes again and again; "
                       "check what else writes to '%s'",
                       repo_path(session_repo(s)));
    return result;
}

int
repo_commit(struct repo_session *s, struct point *p, struct err *err)
{
    struct err why = ERR_INIT;

    if (!point_name_ok(p->machine))
        return err_set(err, ERR_USAGE,
                       "the machine's name must be 1 to %d bytes of printable "
                       "text without '/'",
                       POINT_NAME_MAX);
    if (commit(s, p, &why) < 0) {
        if (why.code == ERR_NOT_FOUND || why.code == ERR_CORRUPT)
            (void)session_fail(s, &why);
        unplace(p);
        (void)err_copy(err, &why);
        return err_wrap(err, "point of machine '%s' not made", p->machine);
    }
    return 0;
}
