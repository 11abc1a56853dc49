/* Tables of what lies in the store, for a collection. */
#include "gc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "store.h"

#define PACKS_MAX (1u << 26)
#define OBJECTS_MAX (1u << 26)

/* -- packs ------------------------------------------------------------------*/

static int
compare_names(const struct pack_name *a, const struct pack_name *b)
{
    int c = memcmp(a->sid, b->sid, sizeof a->sid);

    if (c == 0)
        c = (a->class > b->class) - (a->class < b->class);
    return c != 0 ? c : (a->seq > b->seq) - (a->seq < b->seq);
}

/* Session ids are random: no hash of them is needed. */
static size_t
slot_of(const struct gc_packs *p, const struct pack_name *n)
{
    uint64_t h;
    size_t i;

    memcpy(&h, n->sid, sizeof h);
    h = (h ^ ((uint64_t)n->seq << 2) ^ n->class) * 0x9E3779B97F4A7C15u;
    i = (size_t)(h >> 20) & (p->n_slots - 1);
    while (p->slots[i] != 0 &&
           compare_names(&p->v[p->slots[i] - 1].name, n) != 0)
        i = (i + 1) & (p->n_slots - 1);
    return i;
}

static void
enter_all(struct gc_packs *p)
{
    memset(p->slots, 0, p->n_slots * sizeof *p->slots);
    for (size_t i = 0; i < p->n; i++)
        p->slots[slot_of(p, &p->v[i].name)] = (uint32_t)i + 1;
}

static int
grow(struct gc_packs *p, struct err *err)
{
    size_t cap = p->cap == 0 ? 256 : 2 * p->cap;
    struct gc_pack *v = realloc(p->v, cap * sizeof *v);
    uint32_t *slots = v != NULL ? malloc(2 * cap * sizeof *slots) : NULL;

    if (v != NULL)
        p->v = v;
    if (slots == NULL)
        return err_set_errno(err, ENOMEM, "table of %zu packs", cap);
    free(p->slots);
    p->slots = slots;
    p->n_slots = 2 * cap;
    p->cap = cap;
    enter_all(p);
    return 0;
}

uint32_t
gc_packs_find(const struct gc_packs *p, const struct pack_name *n)
{
    uint32_t slot = p->n == 0 ? 0 : p->slots[slot_of(p, n)];

    return slot == 0 ? GC_NONE : slot - 1;
}

int
gc_packs_add(struct gc_packs *p, const struct pack_name *n, uint32_t *ret,
             struct err *err)
{
    uint32_t no = gc_packs_find(p, n);

    if (no == GC_NONE) {
        if (p->n >= PACKS_MAX)
            return err_set(err, ERR_UNSUPPORTED, "more than %u packs",
                           PACKS_MAX);
        if (p->n == p->cap && grow(p, err) < 0)
            return -1;
        no = (uint32_t)p->n;
        p->slots[slot_of(p, n)] = no + 1;
        p->v[p->n++] = (struct gc_pack){.name = *n, .commit = GC_NONE};
    }
    *ret = no;
    return 0;
}

static int
compare_packs(const void *a, const void *b)
{
    return compare_names(&((const struct gc_pack *)a)->name,
                         &((const struct gc_pack *)b)->name);
}

/* A store lists in no order; what is done must not depend on that. */
void
gc_packs_sort(struct gc_packs *p)
{
    if (p->n == 0)
        return;
    qsort(p->v, p->n, sizeof *p->v, compare_packs);
    enter_all(p);
}

void
gc_packs_done(struct gc_packs *p)
{
    free(p->v);
    free(p->slots);
    *p = (struct gc_packs){0};
}

/* -- other objects ----------------------------------------------------------*/

struct objects_walk {
    struct gc_objects *o;
    struct err *err;
};

static int
take_object(void *arg, const char *key, uint64_t len)
{
    struct objects_walk *w = arg;
    struct gc_objects *o = w->o;
    const char *name = strchr(key, '/') + 1;
    struct gc_object *v;

    if (strlen(key) >= REPO_KEY_MAX)
        return 0; /* no object of ours has such a name */
    if (o->n >= OBJECTS_MAX)
        return err_set(w->err, ERR_UNSUPPORTED, "more than %u objects",
                       OBJECTS_MAX);
    if (o->n == o->cap) {
        size_t cap = o->cap == 0 ? 64 : 2 * o->cap;

        v = realloc(o->v, cap * sizeof *v);
        if (v == NULL)
            return err_set_errno(w->err, ENOMEM, "list of %zu objects", cap);
        o->v = v;
        o->cap = cap;
    }
    v = &o->v[o->n++];
    *v = (struct gc_object){.len = len};
    memcpy(v->key, key, strlen(key) + 1);
    if (strspn(name, "0123456789abcdef") == 2 * (size_t)REPO_SID_LEN)
        memcpy(v->sid, name, 2 * (size_t)REPO_SID_LEN);
    return 0;
}

static int
compare_objects(const void *a, const void *b)
{
    return strcmp(((const struct gc_object *)a)->key,
                  ((const struct gc_object *)b)->key);
}

int
gc_objects_list(struct repo *r, const char *kind, struct gc_objects *ret,
                struct err *err)
{
    struct objects_walk w = {ret, err};

    if (store_list(r->store, kind, take_object, &w, err) != 0)
        return err_wrap(err, "list '%s/'", kind);
    if (ret->n > 0)
        qsort(ret->v, ret->n, sizeof *ret->v, compare_objects);
    return 0;
}

void
gc_objects_done(struct gc_objects *o)
{
    free(o->v);
    *o = (struct gc_objects){0};
}
