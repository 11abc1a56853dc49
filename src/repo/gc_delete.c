/* Removing what does not count any more.
 *
 * Everything is decided from commit objects that are durable, never from what
 * this run remembers, so that the same code ends what a dead collector began.
 * The order of kinds matters, and each is durable before the next: a commit
 * object must be gone before the forget that hides its point, a segment before
 * the packs that it names, and a condemned list last.
 */
#include "gc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "jv.h"
#include "rand.h"
#include "store.h"

static const char *const kinds[] = {"commit",  "forget", "index", "data",
                                    "meta",    "packs",  "bad",   "gc",
                                    "session", "beat"};
enum kind {
    COMMITS,
    FORGETS,
    SEGMENTS,
    DATA,
    META,
    LISTS,
    BADS,
    CONDEMNED,
    SESSIONS,
    BEATS,
    KINDS
};

struct deletion {
    struct gc *g;
    const struct gc_view *v;
    struct jv *counted; /* object: segments and pack lists that count */
    unsigned synced;    /* kinds before this one are durable */
    uint64_t n;
};

static int
sync_up_to(struct deletion *d, unsigned kind, struct err *err)
{
    for (; d->synced < kind; d->synced++)
        if (store_sync(d->g->r->store, kinds[d->synced], err) < 0)
            return err_wrap(err, "make what was removed durable");
    return 0;
}

static int
del(struct deletion *d, enum kind kind, const char *key, struct err *err)
{
    if (sync_up_to(d, kind, err) < 0 ||
        store_delete(d->g->r->store, key, err) < 0)
        return -1;
    d->n++;
    gc_progress(d->g, "delete", d->n, 0);
    return 0;
}

static bool
is_own(const struct deletion *d, const char *sid)
{
    return strcmp(sid, d->g->sid) == 0;
}

/* -- what counts ------------------------------------------------------------*/

static int
count_list(struct deletion *d, const struct jv *list, struct err *err)
{
    for (size_t i = 0; i < jv_size(list); i++) {
        const char *key = jv_get_str(jv_at(list, i), "key");

        if (key != NULL && jv_get(d->v->gone_index, key) == NULL &&
            jv_set_bool(d->counted, key, true) < 0)
            return err_set_errno(err, ENOMEM, "list of segments");
    }
    return 0;
}

static int
note_counted(struct deletion *d, struct err *err)
{
    for (size_t i = 0; i < d->v->n_commits; i++) {
        const struct gc_commit *c = &d->v->commits[i];

        if (c->fate == GC_STAYS &&
            (count_list(d, jv_get(c->payload, "index"), err) < 0 ||
             count_list(d, jv_get(c->payload, "pack_lists"), err) < 0))
            return -1;
    }
    return 0;
}

/* -- by kind ----------------------------------------------------------------*/

/* While its session object is there, or could come back after a power cut,
 * a session without a commit object looks as if it could still commit, and
 * would be fenced under a name that was used before. */
static int
end_sessions(struct deletion *d, struct err *err)
{
    struct store *st = d->g->r->store;
    bool any = false;

    for (size_t i = 0; i < d->v->n_commits; i++) {
        const struct gc_commit *c = &d->v->commits[i];
        char key[REPO_KEY_MAX];

        if (c->fate != GC_PAST)
            continue;
        any = true;
        (void)snprintf(key, sizeof key, "session/%s", c->sid);
        if (gc_view_has_session(d->v, c->sid) && store_delete(st, key, err) < 0)
            return -1;
    }
    return any ? store_sync(st, "session", err) : 0;
}

static int
delete_commits(struct deletion *d, struct err *err)
{
    if (end_sessions(d, err) < 0)
        return -1;
    for (size_t i = 0; i < d->v->n_commits; i++)
        if (d->v->commits[i].fate == GC_PAST &&
            del(d, COMMITS, d->v->commits[i].key, err) < 0)
            return -1;
    for (size_t i = 0; i < d->v->forgets.n; i++) {
        const struct gc_object *o = &d->v->forgets.v[i];

        if (id_list_has(&d->v->removed, o->sid) &&
            del(d, FORGETS, o->key, err) < 0)
            return -1;
    }
    return 0;
}

static int
delete_unnamed(struct deletion *d, enum kind kind, const struct gc_objects *o,
               struct err *err)
{
    for (size_t i = 0; i < o->n; i++) {
        const char *sid = o->v[i].sid, *key = o->v[i].key;

        if (sid[0] == '\0' || is_own(d, sid) || jv_get(d->counted, key) != NULL)
            continue;
        if ((gc_view_ended(d->v, sid) ||
             jv_get(d->v->gone_index, key) != NULL) &&
            del(d, kind, key, err) < 0)
            return -1;
    }
    return 0;
}

static int
delete_packs(struct deletion *d, enum pack_class class, struct err *err)
{
    for (size_t i = 0; i < d->v->packs.n; i++) {
        const struct gc_pack *p = &d->v->packs.v[i];
        char key[REPO_KEY_MAX], sid[REPO_SID_TEXT];

        hex_encode(p->name.sid, sizeof p->name.sid, sid);
        if (p->name.class != class || p->len == 0 || p->counted ||
            is_own(d, sid) || !(p->gone || gc_view_ended(d->v, sid)))
            continue;
        pack_key(&p->name, key);
        if (del(d, class == PACK_DATA ? DATA : META, key, err) < 0)
            return -1;
    }
    return 0;
}

/* Packs that did not count when the view was read are removed by now. */
static bool
is_past(const struct gc_view *v, const struct pack_name *n)
{
    uint32_t no = gc_packs_find(&v->packs, n);

    return no == GC_NONE || v->packs.v[no].gone || v->packs.v[no].len == 0;
}

static bool
all_past(const struct gc_view *v, const struct pack_set *s)
{
    for (size_t i = 0; i < pack_set_n(s); i++)
        if (!is_past(v, pack_set_at(s, i)))
            return false;
    return true;
}

static int
bad_is_past(struct deletion *d, const char *key, struct err *err)
{
    CLEANUP_JV struct jv *payload = NULL;
    struct pack_set *set = pack_set_new();
    const struct jv *frames;
    struct err why = ERR_INIT;
    int past = 1;

    if (set == NULL)
        return err_set_errno(err, ENOMEM, "bad packs");
    if (record_read(d->g->r, key, COMMIT_BAD, &payload, &why) < 0)
        past = why.code == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
    else if (jv_get(payload, "packs") != NULL &&
             pack_set_from_json(set, jv_get(payload, "packs"), err) < 0)
        past = -1;
    if (past > 0)
        past = all_past(d->v, set);
    pack_set_free(set);
    frames = jv_get(payload, "frames");
    for (size_t i = 0; past > 0 && i < jv_size(frames); i++) {
        const char *pack = jv_get_str(jv_at(frames, i), "pack");
        struct pack_name name;

        past = pack != NULL && pack_name_parse(pack, &name) &&
               is_past(d->v, &name);
    }
    return past;
}

static int
delete_notes(struct deletion *d, struct err *err)
{
    for (size_t i = 0; i < d->v->bads.n; i++) {
        int past = d->v->bads.v[i].sid[0] == '\0'
                       ? 0
                       : bad_is_past(d, d->v->bads.v[i].key, err);

        if (past < 0 ||
            (past > 0 && del(d, BADS, d->v->bads.v[i].key, err) < 0))
            return -1;
    }
    for (size_t i = 0; i < d->v->n_condemned; i++)
        if (all_past(d->v, d->v->condemned[i].packs) &&
            del(d, CONDEMNED, d->v->condemned[i].key, err) < 0)
            return -1;
    return 0;
}

static bool
has_ended(const struct deletion *d, const char *sid)
{
    return !is_own(d, sid) && gc_view_ended(d->v, sid);
}

static int
delete_sessions(struct deletion *d, struct err *err)
{
    for (size_t i = 0; i < d->v->sessions.n; i++) {
        const char *sid = d->v->sessions.v[i].sid;
        char key[REPO_KEY_MAX];

        (void)snprintf(key, sizeof key, "session/%s", sid);
        if (has_ended(d, sid) && del(d, SESSIONS, key, err) < 0)
            return -1;
    }
    for (size_t i = 0; i < d->v->beats.n; i++) {
        const char *sid = d->v->beats.v[i].sid;

        if (sid[0] == '\0' || is_own(d, sid))
            continue;
        if ((has_ended(d, sid) || !gc_view_has_session(d->v, sid)) &&
            del(d, BEATS, d->v->beats.v[i].key, err) < 0)
            return -1;
    }
    return 0;
}

static int
delete_all(struct deletion *d, struct err *err)
{
    if (note_counted(d, err) < 0 || delete_commits(d, err) < 0 ||
        delete_unnamed(d, SEGMENTS, &d->v->index, err) < 0 ||
        delete_packs(d, PACK_DATA, err) < 0 ||
        delete_packs(d, PACK_META, err) < 0 ||
        delete_unnamed(d, LISTS, &d->v->lists, err) < 0 ||
        delete_notes(d, err) < 0 || delete_sessions(d, err) < 0)
        return -1;
    return d->n > 0 ? sync_up_to(d, KINDS, err) : 0;
}

int
gc_delete(struct gc *g, const struct gc_view *v, uint64_t *ret_n,
          struct err *err)
{
    struct deletion d = {.g = g, .v = v, .counted = jv_object()};
    int result = d.counted == NULL
                     ? err_set_errno(err, ENOMEM, "list of segments")
                     : delete_all(&d, err);

    jv_free(d.counted);
    if (result < 0)
        return err_wrap(err, "remove what is not needed (run it again)");
    if (ret_n != NULL)
        *ret_n = d.n;
    return 0;
}
