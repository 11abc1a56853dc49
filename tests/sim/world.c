#include "world.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "cleanup.h"
#include "err.h"
#include "key.h"

struct handle {
    struct world *world;
    struct actor *actor;
};

enum fault {
    FAULT_NONE,
    FAULT_IO,    /* nothing is done */
    FAULT_SPACE, /* nothing is done */
    FAULT_LOST,  /* it is done; the answer is an error */
};

/* -- objects ----------------------------------------------------------------*/

void
world_init(struct world *w, uint64_t seed)
{
    memset(w, 0, sizeof *w);
    w->rng = prng_seeded(seed + 1000003);
}

void
world_done(struct world *w)
{
    for (size_t i = 0; i < w->n; i++) {
        free(w->v[i].key);
        free(w->v[i].data);
    }
    free(w->v);
}

void
world_violation(struct world *w, const char *fmt, ...)
{
    va_list ap;

    if (w->violation[0] == '\0') {
        va_start(ap, fmt);
        (void)vsnprintf(w->violation, sizeof w->violation, fmt, ap);
        va_end(ap);
    }
    if (w->sched != NULL)
        sched_kill_all(w->sched);
}

static struct object *
find(const struct world *w, const char *key, bool also_gone)
{
    for (size_t i = w->n; i-- > 0;)
        if ((also_gone || w->v[i].state == OBJECT_THERE) &&
            strcmp(w->v[i].key, key) == 0)
            return &w->v[i];
    return NULL;
}

const struct object *
world_find(const struct world *w, const char *key)
{
    return find(w, key, false);
}

static struct object *
make_object(struct world *w, const char *key, const void *data, size_t len)
{
    struct object *o;

    if (w->n == w->cap) {
        w->cap = w->cap == 0 ? 256 : 2 * w->cap;
        w->v = realloc(w->v, w->cap * sizeof *w->v);
        if (w->v == NULL)
            abort();
    }
    o = &w->v[w->n++];
    o->key = strdup(key);
    o->data = malloc(len + 1);
    if (o->key == NULL || o->data == NULL)
        abort();
    memcpy(o->data, data, len);
    o->len = len;
    o->state = OBJECT_THERE;
    o->durable = true;
    return o;
}

void
world_power_cut(struct world *w)
{
    for (size_t i = 0; i < w->n; i++) {
        struct object *o = &w->v[i];

        if (o->state == OBJECT_REMOVED)
            o->state = prng_once_in(&w->rng, 2) ? OBJECT_THERE : OBJECT_GONE;
        if (!o->durable && prng_once_in(&w->rng, 2))
            o->state = OBJECT_GONE;
        o->durable = true;
    }
}

/* -- before each operation --------------------------------------------------*/

static void
trace(const struct handle *h, const char *op, const char *key, const char *how)
{
    const struct sched *s = h->world->sched;

    if (h->world->trace && h->actor != NULL && s != NULL)
        printf("# %8.1f %-10s %-6s %s%s%s\n", (double)s->now_ns / 1e9,
               h->actor->name, op, key, how[0] != '\0' ? ": " : "", how);
}

/* The heart of a session without a thread of its own. */
static void
beat(struct world *w, struct actor *a)
{
    struct object *old;
    char key[80];

    if (a->sid[0] == '\0' || w->sched->now_ns < a->beat_ns)
        return;
    (void)snprintf(key, sizeof key, "beat/%s.%u", a->sid, a->n_beats);
    old = find(w, key, false);
    if (old != NULL)
        old->state = OBJECT_GONE;
    (void)snprintf(key, sizeof key, "beat/%s.%u", a->sid, ++a->n_beats);
    (void)make_object(w, key, "\n", 1);
    a->beat_ns = w->sched->now_ns + BEAT_EVERY;
}

/* -1: the actor is dead. */
static int
enter(struct handle *h, const char *op, const char *key, struct err *err)
{
    if (h->actor == NULL)
        return 0;
    sched_point(h->actor);
    if (h->actor->dead)
        return err_set_errno(err, EIO, "%s '%s': this process is gone", op,
                             key);
    beat(h->world, h->actor);
    return 0;
}

void
world_pause(struct world *w, struct actor *a, uint64_t ns)
{
    while (ns > 0 && !a->dead) {
        uint64_t part = ns < BEAT_EVERY ? ns : BEAT_EVERY;

        sched_sleep(a, part);
        ns -= part;
        if (!a->dead)
            beat(w, a);
    }
}

static enum fault
choose_fault(struct handle *h, bool writes, const char *op, const char *key)
{
    static const char *const names[] = {"", "EIO", "ENOSPC", "answer lost"};
    struct sched *s = h->world->sched;
    enum fault f;

    if (h->actor == NULL || !prng_once_in(&s->rng, s->mood.fail)) {
        trace(h, op, key, "");
        return FAULT_NONE;
    }
    f = writes ? (enum fault)(FAULT_IO + prng_below(&s->rng, 3)) : FAULT_IO;
    h->actor->n_faults++;
    trace(h, op, key, names[f]);
    return f;
}

static int
failed(enum fault f, const char *op, const char *key, struct err *err)
{
    return err_set_errno(err, f == FAULT_SPACE ? ENOSPC : EIO, "%s '%s'", op,
                         key);
}

static int
not_there(const char *key, struct err *err)
{
    return err_set(err, ERR_NOT_FOUND, "no object '%s'", key);
}

/* -- operations -------------------------------------------------------------*/

static void
op_close(void *impl)
{
    free(impl);
}

static void
note_session(struct handle *h, const char *key)
{
    struct actor *a = h->actor;

    if (a == NULL || strncmp(key, "session/", 8) != 0 || strlen(key) != 40)
        return;
    if (a->sid[0] != '\0') { /* a checkpoint registers before it commits */
        (void)strcpy(a->old_sid, a->sid);
        a->old_beats = a->n_beats;
    }
    (void)strcpy(a->sid, key + 8);
    a->n_beats = 0;
    a->beat_ns = h->world->sched->now_ns + BEAT_EVERY;
}

/* A directory is synced as a whole: what somebody else's failed put left in it
 * stays, too (store.h). */
static void
sync_neighbours(struct world *w, const char *key)
{
    size_t n = (size_t)(strrchr(key, '/') - key) + 1;

    for (size_t i = 0; i < w->n; i++)
        if (w->v[i].state == OBJECT_THERE && strncmp(w->v[i].key, key, n) == 0)
            w->v[i].durable = true;
}

static int
op_put(void *impl, const char *key, const void *data, size_t len,
       struct err *err)
{
    struct handle *h = impl;
    struct world *w = h->world;
    struct object *o;
    enum fault f;

    if (!store_key_valid(key))
        return err_set(err, ERR_USAGE, "'%s' is no key", key);
    if (enter(h, "put", key, err) < 0)
        return -1;
    f = choose_fault(h, true, "put", key);
    if (f == FAULT_IO || f == FAULT_SPACE)
        return failed(f, "put", key, err);
    if (find(w, key, false) != NULL)
        return f == FAULT_LOST
                   ? failed(f, "put", key, err)
                   : err_set(err, ERR_EXISTS, "object '%s' exists", key);
#ifndef TIDEMARK_MUTANTS /* there, this would be seen before the loss is */
    /* A point may be forgotten twice, the second time while a collector has just
     * removed it: the object says the same again. */
    if (find(w, key, true) != NULL && strncmp(key, "forget/", 7) != 0)
        world_violation(w, "the key '%s' is used again", key);
#endif
    o = make_object(w, key, data, len);
    o->durable = f != FAULT_LOST;
    if (o->durable && strchr(key, '/') != NULL)
        sync_neighbours(w, key);
    note_session(h, key);
    if (w->put_hook != NULL)
        w->put_hook(w->arg, h->actor, o);
    return f == FAULT_LOST ? failed(f, "put", key, err) : 0;
}

static int
op_get(void *impl, const char *key, uint64_t off, size_t len, void *buf,
       struct err *err)
{
    struct handle *h = impl;
    const struct object *o;
    enum fault f;

    if (enter(h, "get", key, err) < 0)
        return -1;
    f = choose_fault(h, false, "get", key);
    if (f != FAULT_NONE)
        return failed(f, "get", key, err);
    o = find(h->world, key, false);
    if (o == NULL)
        return not_there(key, err);
    if (off > o->len || len > o->len - off)
        return err_set(err, ERR_CORRUPT, "object '%s' is too short", key);
    memcpy(buf, o->data + off, len);
    return 0;
}

static int
op_size(void *impl, const char *key, uint64_t *ret_len, struct err *err)
{
    struct handle *h = impl;
    const struct object *o;
    enum fault f;

    if (enter(h, "size", key, err) < 0)
        return -1;
    f = choose_fault(h, false, "size", key);
    if (f != FAULT_NONE)
        return failed(f, "size", key, err);
    o = find(h->world, key, false);
    if (o == NULL)
        return 0;
    *ret_len = o->len;
    return 1;
}

static int
op_map(void *impl, const char *key, const uint8_t **ret, size_t *ret_len,
       struct err *err)
{
    struct handle *h = impl;
    const struct object *o;
    enum fault f;
    uint8_t *copy;

    if (enter(h, "map", key, err) < 0)
        return -1;
    f = choose_fault(h, false, "map", key);
    if (f != FAULT_NONE)
        return failed(f, "map", key, err);
    o = find(h->world, key, false);
    if (o == NULL)
        return not_there(key, err);
    copy = malloc(o->len + 1);
    if (copy == NULL)
        abort();
    memcpy(copy, o->data, o->len);
    *ret = copy;
    *ret_len = o->len;
    return 0;
}

static void
op_unmap(void *impl, const uint8_t *data, size_t len)
{
    (void)impl;
    (void)len;
    free((void *)(uintptr_t)data);
}

static void
forget_beat(struct world *w, char sid[33], unsigned n)
{
    struct object *o;
    char last[80];

    (void)snprintf(last, sizeof last, "beat/%s.%u", sid, n);
    o = find(w, last, false);
    if (o != NULL)
        o->state = OBJECT_GONE;
    sid[0] = '\0';
}

static void
note_session_end(struct handle *h, const char *key)
{
    struct actor *a = h->actor;

    if (a == NULL || strncmp(key, "session/", 8) != 0)
        return;
    if (strcmp(key + 8, a->sid) == 0)
        forget_beat(h->world, a->sid, a->n_beats);
    else if (strcmp(key + 8, a->old_sid) == 0)
        forget_beat(h->world, a->old_sid, a->old_beats);
}

static int
op_delete(void *impl, const char *key, struct err *err)
{
    struct handle *h = impl;
    struct object *o;
    enum fault f;

    if (enter(h, "delete", key, err) < 0)
        return -1;
    f = choose_fault(h, true, "delete", key);
    if (f == FAULT_IO || f == FAULT_SPACE)
        return failed(FAULT_IO, "delete", key, err);
    o = find(h->world, key, false);
    if (o != NULL)
        o->state = OBJECT_REMOVED;
    note_session_end(h, key);
    return f == FAULT_LOST ? failed(f, "delete", key, err) : 0;
}

static bool
is_below(const char *key, const char *kind)
{
    size_t n = strlen(kind);

    return strncmp(key, kind, n) == 0 && key[n] == '/';
}

static int
op_sync(void *impl, const char *kind, struct err *err)
{
    struct handle *h = impl;
    enum fault f;

    if (enter(h, "sync", kind, err) < 0)
        return -1;
    f = choose_fault(h, false, "sync", kind);
    if (f != FAULT_NONE)
        return failed(f, "sync", kind, err);
    for (size_t i = 0; i < h->world->n; i++) {
        struct object *o = &h->world->v[i];

        if (o->state == OBJECT_REMOVED && is_below(o->key, kind))
            o->state = OBJECT_GONE;
    }
    return 0;
}

static int
op_free_space(void *impl, uint64_t *ret, struct err *err)
{
    (void)impl;
    (void)err;
    *ret = 1ull << 40;
    return 0;
}

/* -- listing ----------------------------------------------------------------*/

struct entry {
    char *key;
    uint64_t len;
};

struct listing {
    struct entry *v;
    size_t n;
};

static void
listing_done(struct listing *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->v[i].key);
    free(l->v);
}

/* What is there when the listing begins is remembered; what came or went until
 * it ends is shown or not. */
static void
look(struct handle *h, const char *kind, const bool *was, size_t n_was,
     struct listing *l)
{
    struct world *w = h->world;

    l->v = calloc(w->n + 1, sizeof *l->v);
    if (l->v == NULL)
        abort();
    for (size_t i = 0; i < w->n; i++) {
        const struct object *o = &w->v[i];
        bool before = i < n_was && was[i], now = o->state == OBJECT_THERE;

        if (!is_below(o->key, kind) || (!before && !now) ||
            (before != now && prng_once_in(&w->rng, 2)))
            continue;
        l->v[l->n].key = strdup(o->key);
        l->v[l->n++].len = o->len;
    }
}

/* No order: any will do, as long as it is not always the same one. */
static void
shuffle(struct world *w, struct listing *l)
{
    for (size_t i = l->n; i > 1; i--) {
        size_t k = prng_below(&w->rng, (unsigned)i);
        struct entry e = l->v[i - 1];

        l->v[i - 1] = l->v[k];
        l->v[k] = e;
    }
}

static int
op_list(void *impl, const char *kind, store_list_fn fn, void *arg,
        struct err *err)
{
    struct handle *h = impl;
    struct world *w = h->world;
    CLEANUP(listing_done) struct listing l = {NULL, 0};
    CLEANUP_FREE bool *was = NULL;
    size_t n_was;
    enum fault f;
    int r = 0;

    if (enter(h, "list", kind, err) < 0)
        return -1;
    n_was = w->n;
    was = calloc(n_was + 1, sizeof *was);
    if (was == NULL)
        abort();
    for (size_t i = 0; i < n_was; i++)
        was[i] = w->v[i].state == OBJECT_THERE;
    if (enter(h, "listed", kind, err) < 0)
        return -1;
    f = choose_fault(h, false, "list", kind);
    if (f != FAULT_NONE)
        return failed(f, "list", kind, err);
    look(h, kind, was, n_was, &l);
    shuffle(w, &l);
    for (size_t i = 0; r == 0 && i < l.n; i++)
        r = fn(arg, l.v[i].key, l.v[i].len);
    return r;
}

static const struct store_ops world_ops = {
    .close = op_close,
    .put = op_put,
    .get = op_get,
    .size = op_size,
    .map = op_map,
    .unmap = op_unmap,
    .list = op_list,
    .delete = op_delete,
    .sync = op_sync,
    .free_space = op_free_space,
};

struct store *
world_store(struct world *w, struct actor *a)
{
    struct handle *h = calloc(1, sizeof *h);
    struct store *s;

    if (h == NULL)
        abort();
    h->world = w;
    h->actor = a;
    if (store_wrap(&world_ops, h, "simulated", &s, ERR_ABORT) < 0)
        abort();
    return s;
}
