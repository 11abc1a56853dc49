/* The collector's COMMIT: from here on, what is removed does not count.
 *
 * It takes over what still counts of the commit objects that go, also of earlier
 * collections, so that there is one such object however often collections run.
 */
#include "gc.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "jv.h"
#include "points.h"
#include "store.h"

#define INLINE_PACKS 4096u /* more of them go into lists of their own */
#define LIST_PACKS 16384u

static int
no_memory(struct err *err)
{
    return err_set_errno(err, ENOMEM, "commit object of the collection");
}

/* -- packs ------------------------------------------------------------------*/

/* Only a segment named it: nobody has written down its hash. */
static int
describe_pack(struct gc *g, const struct gc_pack *p, struct err *err)
{
    char key[REPO_KEY_MAX];
    const uint8_t *map;
    size_t len;
    int result;

    pack_key(&p->name, key);
    if (store_map(g->r->store, key, &map, &len, err) < 0)
        return -1;
    result = gc_note_part(g->packs, key, map, len, NULL, 0, err);
    if (result == 0) /* a sector that cannot be read looks like zeroes */
        result = store_check_map(g->r->store, map, err);
    store_unmap(g->r->store, map, len);
    return result;
}

static int
take_over_packs(struct gc *g, struct err *err)
{
    for (size_t i = 0; i < g->view.packs.n; i++) {
        const struct gc_pack *p = &g->view.packs.v[i];

        if (!p->counted || p->chosen || p->kept_named || p->len == 0)
            continue;
        if (p->entry == NULL) {
            if (describe_pack(g, p, err) < 0)
                return -1;
        } else if (jv_add(g->packs, jv_ref(p->entry)) < 0) {
            return no_memory(err);
        }
    }
    return 0;
}

static int
put_list(struct gc *g, const struct jv *packs, size_t from, size_t n,
         struct err *err)
{
    CLEANUP_JV struct jv *list = jv_array();
    CLEANUP_JV struct jv *payload = jv_object();
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    char key[REPO_KEY_MAX];

    for (size_t i = from; i < from + n; i++)
        if (jv_add(list, jv_ref(jv_at(packs, i))) < 0)
            return no_memory(err);
    if (jv_set(payload, "packs", jv_ref(list)) < 0)
        return no_memory(err);
    (void)snprintf(key, sizeof key, "packs/%s-%u", g->sid, ++g->last_list);
    if (record_write(g->r, key, COMMIT_PACKS, payload, err) < 0 ||
        commit_load(g->r, key, &b, err) < 0)
        return -1;
    return gc_note_part(g->pack_lists, key, b.data, b.len, "n", n, err);
}

static int
put_lists(struct gc *g, struct err *err)
{
    size_t n = jv_size(g->packs);

    if (n <= INLINE_PACKS)
        return 0;
    for (size_t i = 0; i < n; i += LIST_PACKS)
        if (put_list(g, g->packs, i, n - i < LIST_PACKS ? n - i : LIST_PACKS,
                     err) < 0)
            return -1;
    jv_free(g->packs);
    g->packs = jv_array();
    return g->packs != NULL ? 0 : no_memory(err);
}

/* -- what earlier collections said ------------------------------------------*/

static struct jv *
set_of(const struct jv *list)
{
    CLEANUP_JV struct jv *set = jv_object();

    for (size_t i = 0; i < jv_size(list); i++)
        if (jv_set_bool(set, jv_str(jv_at(list, i)), true) < 0)
            return NULL;
    return TAKE_PTR(set);
}

/* Packs that segments name which go on counting. */
static int
named_by_segments(struct gc *g, struct pack_set *set, struct err *err)
{
    CLEANUP_JV struct jv *stopped = set_of(g->gone_index);

    if (stopped == NULL)
        return no_memory(err);
    for (size_t i = 0; i < g->view.n_segs; i++) {
        const struct gc_segment *s = &g->view.segs[i];

        if (jv_get(stopped, s->key) != NULL)
            continue;
        for (uint32_t p = 0; p < s->seg.n_packs; p++)
            if (pack_set_add(set, &g->view.packs.v[s->packs[p]].name, err) < 0)
                return -1;
    }
    return 0;
}

/* An entry is needed until the object is gone and nothing names it. */
static int
carry_packs(struct gc *g, struct err *err)
{
    struct pack_set *named = pack_set_new();
    int result =
        named == NULL ? no_memory(err) : named_by_segments(g, named, err);

    for (size_t i = 0; result == 0 && i < g->view.packs.n; i++) {
        const struct gc_pack *p = &g->view.packs.v[i];

        if (p->gone &&
            (p->len > 0 || p->kept_named || pack_set_has(named, &p->name)))
            result = pack_set_add(g->removing, &p->name, err);
    }
    pack_set_free(named);
    return result;
}

static bool
names_segment(const struct gc_commit *c, const char *key)
{
    const struct jv *list = jv_get(c->payload, "index");

    for (size_t i = 0; i < jv_size(list); i++) {
        const char *name = jv_get_str(jv_at(list, i), "key");

        if (name != NULL && strcmp(name, key) == 0)
            return true;
    }
    return false;
}

/* A segment has its session's id in its name, and is named by that session's
 * commit object or by a collector's; collectors' go. */
static bool
segment_is_named(const struct gc_view *v, const char *key)
{
    for (size_t i = 0; i < v->n_commits; i++)
        if (v->commits[i].fate == GC_STAYS &&
            strncmp(key + strlen("index/"), v->commits[i].sid, 32) == 0)
            return names_segment(&v->commits[i], key);
    return false;
}

static bool
is_listed(const struct gc_objects *o, const char *key)
{
    for (size_t i = 0; i < o->n; i++)
        if (strcmp(o->v[i].key, key) == 0)
            return true;
    return false;
}

static int
carry_segments(struct gc *g, struct err *err)
{
    const struct jv *old = g->view.gone_index;

    for (void *it = jv_first(old); it != NULL; it = jv_next(old, it)) {
        const char *key = jv_key(it);

        if (strlen(key) < strlen("index/") + 32 ||
            (!is_listed(&g->view.index, key) &&
             !segment_is_named(&g->view, key)))
            continue;
        if (jv_add(g->gone_index, jv_string(key)) < 0)
            return no_memory(err);
    }
    return 0;
}

static bool
is_parent(const struct gc_view *v, const char *sid)
{
    for (size_t i = 0; i < v->n_commits; i++)
        if (v->commits[i].fate == GC_STAYS && v->commits[i].point != NULL &&
            strcmp(v->commits[i].point->parent, sid) == 0)
            return true;
    return false;
}

static struct jv *
list_removed(const struct gc *g)
{
    CLEANUP_JV struct jv *list = jv_array();
    const struct gc_view *v = &g->view;

    for (size_t i = 0; i < v->n_commits; i++)
        if (v->commits[i].fate == GC_GOES &&
            jv_add(list, jv_string(v->commits[i].sid)) < 0)
            return NULL;
    for (size_t i = 0; i < v->removed.n; i++) {
        const char *sid = v->removed.v[i];

        if ((gc_view_commit(v, sid) != NULL || is_parent(v, sid)) &&
            jv_add(list, jv_string(sid)) < 0)
            return NULL;
    }
    return TAKE_PTR(list);
}

/* -- the object -------------------------------------------------------------*/

static struct jv *
payload_of(const struct gc *g)
{
    CLEANUP_JV struct jv *gone = jv_object();
    CLEANUP_JV struct jv *j = jv_object();

    if (jv_set(gone, "packs", pack_set_to_json(g->removing)) < 0 ||
        jv_set(gone, "index", jv_ref(g->gone_index)) < 0 ||
        jv_set(gone, "removed", list_removed(g)) < 0 ||
        jv_set_str(j, "type", "commit") < 0 ||
        jv_set_str(j, "session", g->sid) < 0 ||
        jv_set(j, "packs", jv_ref(g->packs)) < 0 ||
        jv_set(j, "index", jv_ref(g->index)) < 0 ||
        jv_set(j, "gone", jv_ref(gone)) < 0)
        return NULL;
    if (jv_size(g->pack_lists) > 0 &&
        jv_set(j, "pack_lists", jv_ref(g->pack_lists)) < 0)
        return NULL;
    return TAKE_PTR(j);
}

static int
check_there(struct gc *g, const struct jv *list, struct err *err)
{
    for (size_t i = 0; i < jv_size(list); i++) {
        const char *key = jv_get_str(jv_at(list, i), "key");
        uint64_t want = 0, len = 0;
        int found = key != NULL ? store_size(g->r->store, key, &len, err) : 0;

        if (found < 0)
            return -1;
        (void)jv_get_uint(jv_at(list, i), "len", &want);
        if (found == 0 || len != want)
            return err_set(err, ERR_CORRUPT,
                           "%s: written with %" PRIu64
                           " bytes and not there with them; look for who "
                           "removes files in '%s'",
                           key, want, repo_path(g->r));
    }
    return 0;
}

static int
prove(struct gc *g, const struct buf *b, const struct jv *payload,
      struct err *err)
{
    CLEANUP_JV struct jv *back = NULL;
    enum commit_type type;

    if (commit_decode(repo_key_commit(g->r), b->data, b->len, &type, &back,
                      err) < 0)
        return -1;
    if (type != COMMIT_COMMIT || !jv_equal(back, payload))
        return err_set(err, ERR_CORRUPT,
                       "the commit object does not read back as it was made; "
                       "check this machine's memory");
    return 0;
}

static int
create(struct gc *g, const struct buf *b, struct err *err)
{
    struct err why = ERR_INIT;
    char key[REPO_KEY_MAX];

    commit_key(g->sid, 1, key);
    g->in_doubt = true;
    if (store_put(g->r->store, key, b->data, b->len, &why) == 0)
        return 0;
    (void)err_copy(err, &why);
    if (why.code != ERR_EXISTS || !commit_is_fence(g->r, key))
        return err_wrap(err, "commit the collection");
    g->in_doubt = false;
    err_clear(err);
    return err_set(err, ERR_EXISTS,
                   "%s: this collection was fenced: another one took it for "
                   "dead; nothing was deleted",
                   key);
}

int
gc_commit(struct gc *g, struct err *err)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    CLEANUP_JV struct jv *payload = NULL;

    if (check_there(g, g->packs, err) < 0 || check_there(g, g->index, err) < 0)
        return -1;
    for (size_t i = 0; i < jv_size(g->taken_over); i++)
        if (jv_add(g->index, jv_ref(jv_at(g->taken_over, i))) < 0)
            return no_memory(err);
    if (take_over_packs(g, err) < 0 || put_lists(g, err) < 0 ||
        carry_packs(g, err) < 0 || carry_segments(g, err) < 0)
        return -1;
    payload = payload_of(g);
    if (payload == NULL)
        return no_memory(err);
    if (commit_encode(repo_key_commit(g->r), COMMIT_COMMIT, payload, &b, err) <
            0 ||
        prove(g, &b, payload, err) < 0)
        return err_wrap(err, "commit the collection");
    return create(g, &b, err);
}
