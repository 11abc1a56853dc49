/* Sets of packs: sorted on demand, written as ranges, because packs of one
 * session that go together mostly follow each other. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "internal.h"
#include "jv.h"
#include "pack.h"
#include "rand.h"

#define SET_MAX (1u << 24) /* packs: 512 TiB of 32 MiB */

/* Open addressing over the list, so that a set can be asked while it grows. */
struct pack_set {
    struct pack_name *v;
    size_t n, cap;
    uint32_t *slots; /* index + 1 into v; 0: free */
    size_t n_slots;  /* power of two, at least 2 * n */
};

struct pack_set *
pack_set_new(void)
{
    return calloc(1, sizeof(struct pack_set));
}

void
pack_set_free(struct pack_set *s)
{
    if (s == NULL)
        return;
    free(s->v);
    free(s->slots);
    free(s);
}

static bool
same(const struct pack_name *a, const struct pack_name *b)
{
    return a->seq == b->seq && a->class == b->class &&
           memcmp(a->sid, b->sid, sizeof a->sid) == 0;
}

/* Session ids are random: no hash of them is needed. */
static size_t
slot_of(const struct pack_set *s, const struct pack_name *n)
{
    uint64_t h;
    size_t i;

    memcpy(&h, n->sid, sizeof h);
    h = (h ^ ((uint64_t)n->seq << 2) ^ n->class) * 0x9E3779B97F4A7C15ull;
    i = (size_t)(h >> 20) & (s->n_slots - 1);
    while (s->slots[i] != 0 && !same(&s->v[s->slots[i] - 1], n))
        i = (i + 1) & (s->n_slots - 1);
    return i;
}

static int
grow(struct pack_set *s, struct err *err)
{
    size_t cap = s->cap == 0 ? 64 : 2 * s->cap;
    struct pack_name *v = realloc(s->v, cap * sizeof *v);
    uint32_t *slots = v != NULL ? calloc(2 * cap, sizeof *slots) : NULL;

    if (v != NULL)
        s->v = v;
    if (slots == NULL)
        return err_set_errno(err, ENOMEM, "set of %zu packs", cap);
    free(s->slots);
    s->slots = slots;
    s->n_slots = 2 * cap;
    s->cap = cap;
    for (size_t i = 0; i < s->n; i++)
        s->slots[slot_of(s, &s->v[i])] = (uint32_t)i + 1;
    return 0;
}

int
pack_set_add(struct pack_set *s, const struct pack_name *n, struct err *err)
{
    size_t i;

    if (pack_set_has(s, n))
        return 0;
    if (s->n >= SET_MAX)
        return err_set(err, ERR_UNSUPPORTED, "a set of more than %u packs",
                       SET_MAX);
    if (s->n == s->cap && grow(s, err) < 0)
        return -1;
    i = slot_of(s, n);
    s->v[s->n++] = *n;
    s->slots[i] = (uint32_t)s->n;
    return 0;
}

bool
pack_set_has(const struct pack_set *s, const struct pack_name *n)
{
    return s->n > 0 && s->slots[slot_of(s, n)] != 0;
}

size_t
pack_set_n(const struct pack_set *s)
{
    return s->n;
}

const struct pack_name *
pack_set_at(const struct pack_set *s, size_t i)
{
    return &s->v[i];
}

bool
pack_name_parse(const char *key, struct pack_name *ret)
{
    struct pack_name n = {.class = PACK_DATA};
    char back[REPO_KEY_MAX], sid[REPO_SID_TEXT];
    size_t len = strlen(key);
    uint8_t seq[4];

    if (len != 5 + 32 + 1 + 8)
        return false;
    if (strncmp(key, "meta/", 5) == 0)
        n.class = PACK_META;
    memcpy(sid, key + 5, 32);
    sid[32] = '\0';
    if (!hex_decode(sid, n.sid, sizeof n.sid) ||
        !hex_decode(key + 38, seq, sizeof seq))
        return false;
    n.seq = (uint32_t)seq[0] << 24 | (uint32_t)seq[1] << 16 |
            (uint32_t)seq[2] << 8 | seq[3];
    pack_key(&n, back);
    if (strcmp(back, key) != 0)
        return false;
    *ret = n;
    return true;
}

/* -- JSON -------------------------------------------------------------------*/

static const char *class_text(enum pack_class class)
{
    return class == PACK_DATA ? "data" : "meta";
}

static int
compare_packs(const void *a, const void *b)
{
    const struct pack_name *x = a, *y = b;
    int c = memcmp(x->sid, y->sid, sizeof x->sid);

    if (c == 0)
        c = (x->class > y->class) - (x->class < y->class);
    return c != 0 ? c : (x->seq > y->seq) - (x->seq < y->seq);
}

static int
add_range(struct jv *set, const struct pack_name *first, uint32_t last)
{
    char sid[REPO_SID_TEXT];
    struct jv *session, *list;

    hex_encode(first->sid, sizeof first->sid, sid);
    if (jv_get(set, sid) == NULL && jv_set(set, sid, jv_object()) < 0)
        return -1;
    session = (struct jv *)(uintptr_t)jv_get(set, sid);
    if (jv_get(session, class_text(first->class)) == NULL &&
        jv_set(session, class_text(first->class), jv_array()) < 0)
        return -1;
    list = (struct jv *)(uintptr_t)jv_get(session, class_text(first->class));
    return jv_add(list, jv_build("[I, I]", (int64_t)first->seq, (int64_t)last));
}

struct jv *
pack_set_to_json(const struct pack_set *s)
{
    CLEANUP_FREE struct pack_name *v = malloc((s->n + 1) * sizeof *v);
    CLEANUP_JV struct jv *set = jv_object();
    size_t from = 0;

    if (v == NULL || set == NULL)
        return NULL;
    if (s->n > 0) {
        memcpy(v, s->v, s->n * sizeof *v);
        qsort(v, s->n, sizeof *v, compare_packs);
    }
    for (size_t i = 1; i <= s->n; i++) {
        struct pack_name next = v[i - 1];

        next.seq++;
        if (i < s->n && same(&next, &v[i]))
            continue;
        if (add_range(set, &v[from], v[i - 1].seq) < 0)
            return NULL;
        from = i;
    }
    return TAKE_PTR(set);
}

static int
bad_set(struct err *err)
{
    return err_set(err, ERR_CORRUPT, "this is no set of packs");
}

static int
read_ranges(struct pack_set *s, const struct jv *list, struct pack_name n,
            struct err *err)
{
    uint64_t next = 0;

    if (list == NULL)
        return 0;
    if (!jv_is_array(list))
        return bad_set(err);
    for (size_t i = 0; i < jv_size(list); i++) {
        const struct jv *pair = jv_at(list, i);
        uint64_t first, last;

        if (!jv_is_array(pair) || jv_size(pair) != 2 ||
            !jv_uint(jv_at(pair, 0), &first) ||
            !jv_uint(jv_at(pair, 1), &last) || first < next || last < first ||
            last > UINT32_MAX)
            return bad_set(err);
        if (last - first >= SET_MAX)
            return err_set(err, ERR_CORRUPT,
                           "a set cannot have %" PRIu64 " packs", last - first);
        for (uint64_t seq = first; seq <= last; seq++) {
            n.seq = (uint32_t)seq;
            if (pack_set_add(s, &n, err) < 0)
                return -1;
        }
        next = last + 1;
    }
    return 0;
}

static int
read_session(struct pack_set *s, const char *sid, const struct jv *j,
             struct err *err)
{
    struct pack_name n = {.class = PACK_DATA};

    if (!hex_decode(sid, n.sid, sizeof n.sid) || !jv_is_object(j))
        return bad_set(err);
    if (read_ranges(s, jv_get(j, "data"), n, err) < 0)
        return -1;
    n.class = PACK_META;
    return read_ranges(s, jv_get(j, "meta"), n, err);
}

int
pack_set_from_json(struct pack_set *s, const struct jv *j, struct err *err)
{
    if (!jv_is_object(j))
        return bad_set(err);
    for (void *it = jv_first(j); it != NULL; it = jv_next(j, it))
        if (read_session(s, jv_key(it), jv_value(it), err) < 0)
            return -1;
    return 0;
}
