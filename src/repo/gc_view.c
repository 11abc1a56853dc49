/* One look at the whole repository.
 *
 * The order of reading is what makes a collection right beside writers:
 * condemned lists and forgets first, then the packs and segments in the store,
 * then sessions, and commit objects last.  Whoever's pack was listed, and whose
 * session object was not there after that, has ended before the commit objects
 * were listed: without one among them, it has none.
 *
 * Nothing is passed over here.  What cannot be read might need what would be
 * removed.
 */
#include "gc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "jv.h"
#include "point.h"
#include "points.h"
#include "rand.h"
#include "store.h"

#define TRIES 8 /* until the commit objects hold still while they are read */
#define ADVICE "nothing was deleted; run: tidemark check --repair"
/* What it names is not known, so neither is what could go. */
#define COMMIT_ADVICE                                                     \
    "nothing was deleted; put this object back from another copy of the " \
    "repository, or give its point up: tidemark check --repair, then "    \
    "remove this one file"

/* -- what collectors and verifications say ----------------------------------*/

static int
add_condemned(struct gc_view *v, const char *key, struct err *err)
{
    struct gc_condemned *list =
        realloc(v->condemned, (v->n_condemned + 1) * sizeof *list);
    CLEANUP_JV struct jv *payload = NULL;
    struct err why = ERR_INIT;
    struct gc_condemned *c;

    if (list == NULL)
        return err_set_errno(err, ENOMEM, "condemned packs");
    v->condemned = list;
    if (record_read(v->r, key, COMMIT_CONDEMNED, &payload, &why) < 0)
        return why.code == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
    c = &list[v->n_condemned];
    memset(c, 0, sizeof *c);
    memcpy(c->key, key, strlen(key) + 1);
    c->packs = pack_set_new();
    if (c->packs == NULL)
        return err_set_errno(err, ENOMEM, "condemned packs");
    v->n_condemned++;
    return pack_set_from_json(c->packs, jv_get(payload, "packs"), err);
}

static int
read_condemned(struct gc_view *v, struct err *err)
{
    struct gc_objects o = {0};
    int result = gc_objects_list(v->r, "gc", &o, err);

    for (size_t i = 0; result == 0 && i < o.n; i++)
        if (o.v[i].sid[0] != '\0' && strcmp(o.v[i].key + 35, ".condemned") == 0)
            result = add_condemned(v, o.v[i].key, err);
    gc_objects_done(&o);
    return result < 0 ? err_wrap(err, "condemned packs (" ADVICE ")") : 0;
}

static int
add_bad_frames(struct gc_view *v, const struct jv *entry, struct err *err)
{
    const char *key = jv_get_str(entry, "pack");
    const struct jv *at = jv_get(entry, "at");
    struct gc_bad_frame *f;
    struct pack_name name;
    uint32_t pack;
    uint64_t off;

    if (key == NULL || !pack_name_parse(key, &name))
        return err_set(err, ERR_CORRUPT, "this is no list of bad frames");
    pack = gc_packs_find(&v->packs, &name);
    if (pack == GC_NONE || jv_size(at) == 0)
        return 0;
    f = realloc(v->bad_frames, (v->n_bad_frames + jv_size(at)) * sizeof *f);
    if (f == NULL)
        return err_set_errno(err, ENOMEM, "bad frames");
    v->bad_frames = f;
    for (size_t i = 0; i < jv_size(at); i++) {
        if (!jv_uint(jv_at(at, i), &off) || off > UINT32_MAX)
            return err_set(err, ERR_CORRUPT, "this is no list of bad frames");
        f[v->n_bad_frames++] = (struct gc_bad_frame){pack, (uint32_t)off};
    }
    return 0;
}

static int
add_bad(struct gc_view *v, const char *key, struct err *err)
{
    CLEANUP_JV struct jv *payload = NULL;
    struct pack_set *set = pack_set_new();
    const struct jv *frames;
    struct err why = ERR_INIT;
    int result = 0;

    if (set == NULL)
        return err_set_errno(err, ENOMEM, "bad packs");
    if (record_read(v->r, key, COMMIT_BAD, &payload, &why) < 0) {
        pack_set_free(set);
        return why.code == ERR_NOT_FOUND ? 0 : err_copy(err, &why);
    }
    if (jv_get(payload, "packs") != NULL)
        result = pack_set_from_json(set, jv_get(payload, "packs"), err);
    for (size_t i = 0; result == 0 && i < pack_set_n(set); i++) {
        uint32_t no = gc_packs_find(&v->packs, pack_set_at(set, i));

        if (no != GC_NONE)
            v->packs.v[no].bad = true;
    }
    pack_set_free(set);
    frames = jv_get(payload, "frames");
    for (size_t i = 0; result == 0 && i < jv_size(frames); i++)
        result = add_bad_frames(v, jv_at(frames, i), err);
    return result < 0 ? err_wrap(err, "%s", key) : 0;
}

static int
compare_bad(const void *a, const void *b)
{
    const struct gc_bad_frame *x = a, *y = b;

    if (x->pack != y->pack)
        return x->pack < y->pack ? -1 : 1;
    return (x->at > y->at) - (x->at < y->at);
}

/* When all packs are in the table. */
static int
read_bad(struct gc_view *v, struct err *err)
{
    for (size_t i = 0; i < v->bads.n; i++)
        if (v->bads.v[i].sid[0] != '\0' &&
            add_bad(v, v->bads.v[i].key, err) < 0)
            return -1;
    if (v->n_bad_frames > 0)
        qsort(v->bad_frames, v->n_bad_frames, sizeof *v->bad_frames,
              compare_bad);
    return 0;
}

/* -- commit objects ---------------------------------------------------------*/

static int
read_point(struct gc_commit *c, struct err *err)
{
    const struct jv *j = jv_get(c->payload, "point");
    uint8_t prev[32];
    bool has_prev;

    if (j == NULL)
        return 0;
    if (point_from_json(j, &c->point, prev, &has_prev, err) < 0)
        return -1;
    if (strcmp(c->point->id, c->sid) != 0)
        return err_set(err, ERR_CORRUPT, "holds another session's point");
    return 0;
}

static int
add_gone(struct gc_view *v, const struct jv *gone, struct err *err)
{
    const struct jv *index = jv_get(gone, "index");
    const struct jv *removed = jv_get(gone, "removed");

    if (gone == NULL)
        return 0;
    if (jv_get(gone, "packs") != NULL &&
        pack_set_from_json(v->gone, jv_get(gone, "packs"), err) < 0)
        return -1;
    for (size_t i = 0; i < jv_size(index); i++) {
        const char *key = jv_str(jv_at(index, i));

        if (key == NULL || jv_set_bool(v->gone_index, key, true) < 0)
            return err_set(err, ERR_CORRUPT, "bad list of segments");
    }
    for (size_t i = 0; i < jv_size(removed); i++) {
        const char *sid = jv_str(jv_at(removed, i));

        if (!id_text_valid(sid))
            return err_set(err, ERR_CORRUPT, "bad list of removed points");
        if (id_list_add(&v->removed, sid, err) < 0)
            return -1;
    }
    return 0;
}

static int
read_commit(struct gc_view *v, struct gc_commit *c, struct err *err)
{
    enum commit_type type;
    const char *session;

    if (commit_read(v->r, c->key, &type, &c->payload, NULL, err) < 0)
        return -1;
    session = jv_get_str(c->payload, "session");
    if (session == NULL || strcmp(session, c->sid) != 0)
        return err_set(err, ERR_CORRUPT, "%s: belongs to session '%.32s'",
                       c->key, session != NULL ? session : "");
    if (type == COMMIT_ABORT) {
        jv_free(TAKE_PTR(c->payload));
        c->fate = GC_FENCE;
        return 0;
    }
    if (type != COMMIT_COMMIT)
        return err_set(err, ERR_UNSUPPORTED, "%s: type %d is not known", c->key,
                       (int)type);
    if (read_point(c, err) < 0 ||
        add_gone(v, jv_get(c->payload, "gone"), err) < 0)
        return err_wrap(err, "%s", c->key);
    return 0;
}

static bool
same_keys(const struct gc_objects *a, const struct gc_objects *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (strcmp(a->v[i].key, b->v[i].key) != 0)
            return false;
    return true;
}

/* A listing may miss what was created while it ran, and show what was created
 * after that: a point without its base, whose pages it shares.  So it is listed
 * until twice the same comes: all bases were there before the second time. */
static int
list_commits(struct gc_view *v, struct gc_objects *ret, struct err *err)
{
    bool same = false;
    int result = gc_objects_list(v->r, "commit", ret, err);

    for (unsigned i = 0; result == 0 && !same && i < TRIES; i++) {
        struct gc_objects again = {0};

        result = gc_objects_list(v->r, "commit", &again, err);
        same = same_keys(ret, &again);
        gc_objects_done(ret);
        *ret = again;
    }
    return result;
}

static int
read_commits(struct gc_view *v, struct err *err)
{
    struct gc_objects o = {0};
    int result = list_commits(v, &o, err);

    if (result == 0) {
        v->commits = calloc(o.n + 1, sizeof *v->commits);
        if (v->commits == NULL)
            result = err_set_errno(err, ENOMEM, "%zu commit objects", o.n);
    }
    for (size_t i = 0; result == 0 && i < o.n; i++) {
        struct gc_commit *c = &v->commits[v->n_commits++];

        memcpy(c->key, o.v[i].key, sizeof c->key);
        memcpy(c->sid, o.v[i].sid, sizeof c->sid);
        if (c->sid[0] == '\0' || c->key[39] != '.')
            result = err_set(err, ERR_FORMAT,
                             "%s: not the name of a commit object", c->key);
        else
            result = read_commit(v, c, err);
        v->bad_commit = result < 0;
    }
    gc_objects_done(&o);
    id_list_sort(&v->removed);
    for (size_t i = 0; i < v->n_commits; i++)
        if (v->commits[i].fate == GC_STAYS &&
            id_list_has(&v->removed, v->commits[i].sid))
            v->commits[i].fate = GC_PAST;
    return result;
}

static int
compare_sid(const void *a, const void *b)
{
    return strcmp(a, ((const struct gc_commit *)b)->sid);
}

const struct gc_commit *
gc_view_commit(const struct gc_view *v, const char *sid)
{
    return v->n_commits == 0 ? NULL
                             : bsearch(sid, v->commits, v->n_commits,
                                       sizeof *v->commits, compare_sid);
}

bool
gc_view_has_session(const struct gc_view *v, const char *sid)
{
    for (size_t i = 0; i < v->sessions.n; i++)
        if (strcmp(v->sessions.v[i].sid, sid) == 0)
            return true;
    return false;
}

bool
gc_view_ended(const struct gc_view *v, const char *sid)
{
    return gc_view_commit(v, sid) != NULL || id_list_has(&v->removed, sid);
}

/* -- packs ------------------------------------------------------------------*/

static int
list_packs(struct gc_view *v, struct err *err)
{
    static const char *const kinds[] = {"data", "meta"};

    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        struct gc_objects o = {0};
        int result = gc_objects_list(v->r, kinds[k], &o, err);

        for (size_t i = 0; result == 0 && i < o.n; i++) {
            struct pack_name name;
            uint32_t no;

            if (!pack_name_parse(o.v[i].key, &name))
                continue;
            result = gc_packs_add(&v->packs, &name, &no, err);
            if (result == 0)
                v->packs.v[no].len = o.v[i].len;
        }
        gc_objects_done(&o);
        if (result < 0)
            return -1;
    }
    gc_packs_sort(&v->packs);
    return 0;
}

static int
count_packs(struct gc_view *v, uint32_t commit, const struct jv *list,
            struct err *err)
{
    for (size_t i = 0; i < jv_size(list); i++) {
        const struct jv *entry = jv_at(list, i);
        const char *key = jv_get_str(entry, "key");
        struct pack_name name;
        struct gc_pack *p;
        uint32_t no;

        if (key == NULL || !pack_name_parse(key, &name))
            return err_set(err, ERR_CORRUPT, "'%.100s' is no pack",
                           key != NULL ? key : "");
        if (gc_packs_add(&v->packs, &name, &no, err) < 0)
            return -1;
        p = &v->packs.v[no];
        p->counted = true;
        p->entry = entry;
        p->commit = commit;
    }
    return 0;
}

static int
read_lists(struct gc_view *v, struct gc_commit *c, struct err *err)
{
    const struct jv *lists = jv_get(c->payload, "pack_lists");

    c->lists = jv_array();
    if (c->lists == NULL)
        return err_set_errno(err, ENOMEM, "list of packs");
    for (size_t i = 0; i < jv_size(lists); i++) {
        const char *key = jv_get_str(jv_at(lists, i), "key");
        struct jv *payload = NULL;

        if (key == NULL)
            return err_set(err, ERR_CORRUPT, "a list of packs without a key");
        if (record_read(v->r, key, COMMIT_PACKS, &payload, err) < 0)
            return -1;
        if (jv_add(c->lists, payload) < 0)
            return err_set_errno(err, ENOMEM, "list of packs");
    }
    return 0;
}

static int
count_commit(struct gc_view *v, uint32_t no, struct err *err)
{
    struct gc_commit *c = &v->commits[no];

    if (read_lists(v, c, err) < 0 ||
        count_packs(v, no, jv_get(c->payload, "packs"), err) < 0)
        return err_wrap(err, "%s", c->key);
    for (size_t i = 0; i < jv_size(c->lists); i++)
        if (count_packs(v, no, jv_get(jv_at(c->lists, i), "packs"), err) < 0)
            return err_wrap(err, "%s", c->key);
    return 0;
}

static int
note_sets(struct gc_view *v, struct err *err)
{
    uint32_t no;

    for (size_t i = 0; i < pack_set_n(v->gone); i++) {
        if (gc_packs_add(&v->packs, pack_set_at(v->gone, i), &no, err) < 0)
            return -1;
        v->packs.v[no].gone = true;
        v->packs.v[no].counted = false;
    }
    for (size_t c = 0; c < v->n_condemned; c++) {
        const struct pack_set *s = v->condemned[c].packs;

        for (size_t i = 0; i < pack_set_n(s); i++) {
            if (gc_packs_add(&v->packs, pack_set_at(s, i), &no, err) < 0)
                return -1;
            v->packs.v[no].condemned = true;
        }
    }
    return 0;
}

/* Packs of sessions that committed while this was read may be newer than the
 * listing of packs. */
static int
look_again(struct gc_view *v, struct err *err)
{
    for (size_t i = 0; i < v->packs.n; i++) {
        struct gc_pack *p = &v->packs.v[i];
        char key[REPO_KEY_MAX];

        if (!p->counted || p->gone || p->len > 0)
            continue;
        pack_key(&p->name, key);
        if (store_size(v->r->store, key, &p->len, err) < 0)
            return -1;
    }
    return 0;
}

/* -- all of it --------------------------------------------------------------*/

static int
list_store(struct gc_view *v, struct err *err)
{
    if (list_packs(v, err) < 0 ||
        gc_objects_list(v->r, "index", &v->index, err) < 0 ||
        gc_objects_list(v->r, "packs", &v->lists, err) < 0 ||
        gc_objects_list(v->r, "bad", &v->bads, err) < 0)
        return -1;
    return gc_objects_list(v->r, "beat", &v->beats, err);
}

static int
view_read(struct gc_view *v, struct err *err)
{
    v->gone = pack_set_new();
    v->gone_index = jv_object();
    if (v->gone == NULL || v->gone_index == NULL)
        return err_set_errno(err, ENOMEM, "collection");
    if (read_condemned(v, err) < 0 ||
        gc_objects_list(v->r, "forget", &v->forgets, err) < 0 ||
        list_store(v, err) < 0 ||
        session_list_read(v->r, &v->sessions, err) < 0 ||
        read_commits(v, err) < 0)
        return -1;
    for (size_t i = 0; i < v->n_commits; i++)
        if (v->commits[i].fate == GC_STAYS &&
            count_commit(v, (uint32_t)i, err) < 0)
            return -1;
    if (note_sets(v, err) < 0 || look_again(v, err) < 0)
        return -1;
    return read_bad(v, err);
}

int
gc_view_read(struct gc_view *v, struct repo *r, struct err *err)
{
    struct err why = ERR_INIT;
    bool bad_commit = false;

    for (unsigned i = 0; i < TRIES; i++) {
        err_clear(&why);
        *v = (struct gc_view){.r = r};
        if (view_read(v, &why) == 0)
            return 0;
        bad_commit = v->bad_commit;
        gc_view_done(v);
        if (why.code != ERR_NOT_FOUND)
            break; /* else something was removed since it was listed */
    }
    (void)err_copy(err, &why);
    if (why.code == ERR_CORRUPT && bad_commit)
        return err_wrap(err, "collection refused (" COMMIT_ADVICE ")");
    if (why.code == ERR_CORRUPT || why.code == ERR_NOT_FOUND)
        return err_wrap(err, "collection refused (" ADVICE ")");
    return -1;
}

static void
free_commits(struct gc_view *v)
{
    for (size_t i = 0; i < v->n_commits; i++) {
        jv_free(v->commits[i].payload);
        jv_free(v->commits[i].lists);
        point_free(v->commits[i].point);
    }
    free(v->commits);
}

void
gc_view_done(struct gc_view *v)
{
    for (size_t i = 0; i < v->n_segs; i++) {
        if (v->segs[i].map != NULL)
            store_unmap(v->r->store, v->segs[i].map, v->segs[i].map_len);
        free(v->segs[i].own);
        free(v->segs[i].packs);
    }
    free(v->segs);
    for (size_t i = 0; i < v->n_condemned; i++)
        pack_set_free(v->condemned[i].packs);
    free(v->condemned);
    free_commits(v);
    free(v->bad_frames);
    gc_packs_done(&v->packs);
    gc_objects_done(&v->index);
    gc_objects_done(&v->lists);
    gc_objects_done(&v->beats);
    gc_objects_done(&v->forgets);
    gc_objects_done(&v->bads);
    session_list_done(&v->sessions);
    id_list_done(&v->removed);
    pack_set_free(v->gone);
    jv_free(v->gone_index);
    *v = (struct gc_view){0};
}
