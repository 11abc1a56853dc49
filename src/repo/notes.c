/* What collectors and verifications have noted beside the commit objects: packs
 * and segments that do not count any more, packs that are going to be removed,
 * packs and frames that are bad.
 */
#include "catalog.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "jv.h"
#include "store.h"

/* -- names ------------------------------------------------------------------*/

int
names_add(struct names *l, const char *key, struct err *err)
{
    if (l->n == l->cap) {
        size_t cap = l->cap == 0 ? 16 : 2 * l->cap;
        struct name *v = realloc(l->v, cap * sizeof *v);

        if (v == NULL)
            return err_set_errno(err, ENOMEM, "%zu names of objects", cap);
        l->v = v;
        l->cap = cap;
    }
    memset(&l->v[l->n], 0, sizeof l->v[0]);
    memcpy(l->v[l->n].key, key, strnlen(key, REPO_KEY_MAX - 1));
    l->n++;
    return 0;
}

static int
compare_names(const void *a, const void *b)
{
    const struct name *x = a, *y = b;

    return strcmp(x->key, y->key);
}

void
names_sort(struct names *l)
{
    if (l->n > 0)
        qsort(l->v, l->n, sizeof *l->v, compare_names);
}

bool
names_has(const struct names *l, const char *key)
{
    struct name n = {""};

    if (l->n == 0 || strlen(key) >= sizeof n.key)
        return false;
    (void)strcpy(n.key, key);
    return bsearch(&n, l->v, l->n, sizeof n, compare_names) != NULL;
}

void
names_done(struct names *l)
{
    free(l->v);
    *l = (struct names){NULL, 0, 0};
}

/* -- gone -------------------------------------------------------------------*/

int
notes_gone(struct catalog *c, const struct jv *gone, struct err *err)
{
    const struct jv *index = jv_get(gone, "index");
    const struct jv *removed = jv_get(gone, "removed");

    if (gone == NULL)
        return 0;
    if (pack_set_from_json(c->gone, jv_get(gone, "packs"), err) < 0)
        return -1;
    for (size_t i = 0; i < jv_size(index); i++)
        if (jv_str(jv_at(index, i)) == NULL ||
            names_add(&c->gone_index, jv_str(jv_at(index, i)), err) < 0)
            return err_set(err, ERR_CORRUPT, "bad list of gone segments");
    for (size_t i = 0; i < jv_size(removed); i++)
        if (!id_text_valid(jv_str(jv_at(removed, i))) ||
            id_list_add(&c->removed, jv_str(jv_at(removed, i)), err) < 0)
            return err_set(err, ERR_CORRUPT, "bad list of removed points");
    return 0;
}

/* -- bad frames -------------------------------------------------------------*/

static int
compare_bad(const void *a, const void *b)
{
    const struct bad_frame *x = a, *y = b;
    int c = memcmp(x->pack.sid, y->pack.sid, sizeof x->pack.sid);

    if (c == 0)
        c = (x->pack.class > y->pack.class) - (x->pack.class < y->pack.class);
    if (c == 0)
        c = (x->pack.seq > y->pack.seq) - (x->pack.seq < y->pack.seq);
    return c != 0 ? c : (x->at > y->at) - (x->at < y->at);
}

bool
notes_frame_bad(const struct catalog *c, const struct pack_name *pack,
                uint32_t at)
{
    struct bad_frame f = {*pack, at, true};

    return c->n_bad_frames > 0 && bsearch(&f, c->bad_frames, c->n_bad_frames,
                                          sizeof f, compare_bad) != NULL;
}

bool
notes_frame_noted(const struct catalog *c, const struct pack_name *pack,
                  uint32_t at)
{
    struct bad_frame f = {*pack, at, true};
    const struct bad_frame *found =
        c->n_bad_frames > 0
            ? bsearch(&f, c->bad_frames, c->n_bad_frames, sizeof f, compare_bad)
            : NULL;

    return found != NULL && found->noted;
}

static bool
has_bad_frames(const struct catalog *c, const struct pack_name *pack)
{
    size_t lo = 0, hi = c->n_bad_frames;
    struct bad_frame f = {*pack, 0, true};

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (compare_bad(&c->bad_frames[mid], &f) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    f.at = UINT32_MAX;
    return lo < c->n_bad_frames && compare_bad(&c->bad_frames[lo], &f) <= 0;
}

#define FAILED_MAX (1u << 20) /* frames that one process remembers */

/* Another number of the same pack gets the flag, too. */
static void
flag_pack(struct catalog *c, const struct pack_name *pack)
{
    for (size_t i = 0; i < c->n; i++)
        for (uint32_t k = 0; k < c->v[i].seg.n_packs; k++) {
            struct pack_name name;

            segment_pack(&c->v[i].seg, k, &name);
            if (name.seq == pack->seq && name.class == pack->class &&
                memcmp(name.sid, pack->sid, sizeof name.sid) == 0)
                c->pack_flags[c->v[i].pack_base + k] |= PACK_HAS_BAD_FRAMES;
        }
}

static void
add_failed(struct catalog *c, const struct pack_name *pack, uint32_t at)
{
    struct bad_frame f = {*pack, at, false}, *v;
    size_t i = c->n_bad_frames;
    bool flagged;

    if (i >= FAILED_MAX || notes_frame_bad(c, pack, at))
        return;
    flagged = has_bad_frames(c, pack);
    v = realloc(c->bad_frames, (i + 1) * sizeof *v);
    if (v == NULL)
        return; /* found again when it is read again */
    c->bad_frames = v;
    for (; i > 0 && compare_bad(&v[i - 1], &f) > 0; i--)
        v[i] = v[i - 1];
    v[i] = f;
    c->n_bad_frames++;
    if (!flagged)
        flag_pack(c, pack);
}

void
index_frame_failed(struct repo *r, const struct locator *l)
{
    char key[REPO_KEY_MAX];
    struct pack_name name;

    if (locator_pack_key(r, l, key) < 0 || !pack_name_parse(key, &name))
        return;
    (void)pthread_rwlock_wrlock(&r->index_lock);
    add_failed(r->catalog, &name, l->offset);
    (void)pthread_rwlock_unlock(&r->index_lock);
}

static int
add_bad_frames(struct catalog *c, const struct jv *entry, struct err *err)
{
    const char *key = jv_get_str(entry, "pack");
    const struct jv *at = jv_get(entry, "at");
    struct bad_frame f, *v;
    uint64_t off;

    if (key == NULL || !pack_name_parse(key, &f.pack) || !jv_is_array(at))
        return err_set(err, ERR_CORRUPT, "this is no list of bad frames");
    v = realloc(c->bad_frames, (c->n_bad_frames + jv_size(at)) * sizeof *v + 1);
    if (v == NULL)
        return err_set_errno(err, ENOMEM, "list of bad frames");
    c->bad_frames = v;
    for (size_t i = 0; i < jv_size(at); i++) {
        if (!jv_uint(jv_at(at, i), &off) || off > UINT32_MAX)
            return err_set(err, ERR_CORRUPT, "this is no list of bad frames");
        f.at = (uint32_t)off;
        f.noted = true;
        c->bad_frames[c->n_bad_frames++] = f;
    }
    return 0;
}

static int
add_bad(struct catalog *c, const struct jv *payload, struct err *err)
{
    const struct jv *frames = jv_get(payload, "frames");

    c->bad_missing |= jv_get(payload, "missing") != NULL;
    if (jv_get(payload, "packs") != NULL &&
        pack_set_from_json(c->bad, jv_get(payload, "packs"), err) < 0)
        return -1;
    for (size_t i = 0; i < jv_size(frames); i++)
        if (add_bad_frames(c, jv_at(frames, i), err) < 0)
            return -1;
    return 0;
}

/* -- reading ----------------------------------------------------------------*/

struct notes_walk {
    const struct catalog *c;
    struct names fresh;
    struct err *err;
};

static int
collect_note(void *arg, const char *key, uint64_t len)
{
    struct notes_walk *w = arg;

    (void)len;
    if (strlen(key) >= REPO_KEY_MAX || names_has(&w->c->seen, key))
        return 0;
    return names_add(&w->fresh, key, w->err);
}

/* Which packs a condemned list names is not known then: nothing may be reused. */
static int
unreadable(struct catalog *c, const char *key, const struct err *why,
           struct err *err)
{
    if (why->code == ERR_NOT_FOUND)
        return 0; /* retired since it was listed */
    if (strncmp(key, "gc/", 3) == 0)
        c->condemned_unknown = true;
    return catalog_problem(c, key, why, err);
}

static int
take_note(struct repo *r, const char *key, struct err *err)
{
    const bool is_bad = strncmp(key, "bad/", 4) == 0;
    CLEANUP_JV struct jv *payload = NULL;
    struct catalog *c = r->catalog;
    struct err why = ERR_INIT;
    int result;

    if (record_read(r, key, is_bad ? COMMIT_BAD : COMMIT_CONDEMNED, &payload,
                    &why) < 0)
        return unreadable(c, key, &why, err);
    result = is_bad ? add_bad(c, payload, &why)
                    : pack_set_from_json(c->condemned, jv_get(payload, "packs"),
                                         &why);
    if (result < 0)
        return unreadable(c, key, &why, err);
    return names_add(&c->seen, key, err);
}

int
notes_read(struct repo *r, struct err *err)
{
    struct catalog *c = r->catalog;
    struct notes_walk w = {c, {NULL, 0, 0}, err};
    int result = 0;

    if (store_list(r->store, "gc", collect_note, &w, err) != 0 ||
        store_list(r->store, "bad", collect_note, &w, err) != 0)
        result = -1;
    for (size_t i = 0; result == 0 && i < w.fresh.n; i++)
        result = take_note(r, w.fresh.v[i].key, err);
    if (w.fresh.n > 0) {
        names_sort(&c->seen);
        if (c->n_bad_frames > 0)
            qsort(c->bad_frames, c->n_bad_frames, sizeof *c->bad_frames,
                  compare_bad);
        notes_flag(c, 0);
    }
    names_done(&w.fresh);
    return result;
}

/* -- by pack ----------------------------------------------------------------*/

static uint8_t
flags_of(const struct catalog *c, const struct pack_name *n)
{
    uint8_t flags = 0;

    if (pack_set_has(c->gone, n))
        flags |= PACK_IS_GONE;
    if (pack_set_has(c->condemned, n))
        flags |= PACK_IS_CONDEMNED;
    if (pack_set_has(c->bad, n))
        flags |= PACK_IS_BAD;
    if (has_bad_frames(c, n))
        flags |= PACK_HAS_BAD_FRAMES;
    return flags;
}

void
notes_flag(struct catalog *c, uint32_t from)
{
    for (size_t i = c->n; i-- > 0;) {
        const struct loaded *l = &c->v[i];

        if (l->pack_base + l->seg.n_packs <= from)
            break;
        for (uint32_t k = 0; k < l->seg.n_packs; k++) {
            struct pack_name name;

            segment_pack(&l->seg, k, &name);
            c->pack_flags[l->pack_base + k] = flags_of(c, &name);
        }
    }
}
