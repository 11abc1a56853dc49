#include "shadow.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "cleanup.h"
#include "err.h"
#include "internal.h"
#include "jv.h"
#include "store.h"

#define COMMIT_AT_TYPE 12 /* docs/format.md 9 */

DEFINE_CLEANUP(struct repo *, repo_close)
DEFINE_CLEANUP(struct map_reader *, map_reader_free)

/* -- contents ---------------------------------------------------------------*/

const char *
machine_name(unsigned machine)
{
    static const char *const names[MACHINES] = {"ada", "bob", "eve"};

    return names[machine];
}

void
chunk_fill(unsigned value, uint8_t *p)
{
    memset(p, (int)value, CHUNK_SIZE);
    if (value != 0)
        (void)snprintf((char *)p, 32, "chunk with the value %u", value);
}

/* -- following the store ----------------------------------------------------*/

struct shadow_point *
shadow_find(struct shadow *s, const char *id)
{
    for (size_t i = 0; i < s->n; i++)
        if (strncmp(s->v[i].id, id, 32) == 0)
            return &s->v[i];
    return NULL;
}

static void
add_point(struct shadow *s, const char *id, struct pending *p)
{
    struct shadow_point *sp;

    s->v = realloc(s->v, (s->n + 1) * sizeof *s->v);
    if (s->v == NULL)
        abort();
    sp = &s->v[s->n++];
    memset(sp, 0, sizeof *sp);
    memcpy(sp->id, id, 32);
    sp->machine = p->machine;
    sp->content = p->content;
    sp->there = true;
    p->created = true;
    s->n_commits++;
}

static void
note_put(void *arg, struct actor *a, const struct object *o)
{
    struct shadow *s = arg;
    struct shadow_point *sp;

    const struct pending *pending = a != NULL ? a->pending : NULL;

    if (strncmp(o->key, "commit/", 7) == 0 && pending != NULL &&
        strncmp(o->key + 7, pending->sid, 32) == 0 &&
        o->len > COMMIT_AT_TYPE + 4 &&
        get_le32(o->data + COMMIT_AT_TYPE) == COMMIT_COMMIT)
        add_point(s, o->key + 7, a->pending);
    if (strncmp(o->key, "forget/", 7) == 0) {
        sp = shadow_find(s, o->key + 7);
        if (sp != NULL && !sp->forgotten)
            s->n_forgets++;
        if (sp != NULL) {
            sp->forgotten = true;
            sp->unsure = false;
        }
    }
}

void
shadow_init(struct shadow *s, struct world *w)
{
    memset(s, 0, sizeof *s);
    s->world = w;
    w->put_hook = note_put;
    w->arg = s;
}

void
shadow_done(struct shadow *s)
{
    free(s->v);
}

void
shadow_resync(struct shadow *s)
{
    for (size_t i = 0; i < s->n; i++) {
        char key[REPO_KEY_MAX];

        commit_key(s->v[i].id, 1, key);
        if (world_find(s->world, key) == NULL)
            s->v[i].there = false;
        (void)snprintf(key, sizeof key, "forget/%s", s->v[i].id);
        if (s->v[i].forgotten && world_find(s->world, key) == NULL)
            s->v[i].unsure = true;
    }
}

/* -- reading back -----------------------------------------------------------*/

static int
read_chunk(struct repo *r, struct map_reader *m, unsigned i, unsigned value,
           struct err *err)
{
    uint8_t got[CHUNK_SIZE], want[CHUNK_SIZE];
    struct chunk_id id;

    if (map_reader_get(m, i, &id, err) < 0)
        return 1;
    if (chunk_id_zero(&id))
        return value == 0 ? 0 : 2;
    if (page_get(r, &id, got, sizeof got, err) < 0)
        return 1;
    chunk_fill(value, want);
    return memcmp(got, want, sizeof got) == 0 ? 0 : 2;
}

int
shadow_read(struct repo *r, const struct shadow_point *sp,
            const struct point *p, struct err *err)
{
    CLEANUP(map_reader_freep) struct map_reader *m = NULL;
    bool checked[CHUNK_VALUES] = {false};
    struct chunk_id seen[CHUNK_VALUES], id;
    int result = 0;

    if (p->n_disks != 1 || p->disks[0].size != DISK_SIZE)
        return 2;
    if (map_reader_new(r, DISK_SIZE, CHUNK_SIZE, &p->disks[0].root, &m, err) <
        0)
        return 1;
    for (unsigned i = 0; result == 0 && i < DISK_CHUNKS; i++) {
        unsigned value = sp->content.value[i];

        /* Equal ids are equal chunks: one reading proves all of them. */
        if (value != 0 && checked[value]) {
            if (map_reader_get(m, i, &id, err) < 0)
                return 1;
            if (!chunk_id_equal(&id, &seen[value]))
                return 2;
            continue;
        }
        result = read_chunk(r, m, i, value, err);
        checked[value] = true;
        if (result == 0 && map_reader_get(m, i, &seen[value], err) < 0)
            return 1;
    }
    return result;
}

static bool
listed(const struct point_list *l, const char *id)
{
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->v[i]->id, id) == 0)
            return true;
    return false;
}

static void
prove_list(struct shadow *s, struct repo *r, const struct point_list *l,
           const char *when)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->v[i].there && !s->v[i].forgotten && !listed(l, s->v[i].id))
            world_violation(s->world, "%s: point %.8s is not listed", when,
                            s->v[i].id);
    for (size_t i = 0; i < l->n; i++) {
        struct shadow_point *sp = shadow_find(s, l->v[i]->id);
        struct err why = ERR_INIT;
        int result;

        if (sp == NULL || !sp->there || (sp->forgotten && !sp->unsure)) {
            world_violation(
                s->world, "%s: point %.8s is listed, but %s", when, l->v[i]->id,
                sp != NULL && sp->forgotten ? "forgotten"
                                            : "was never committed");
            continue;
        }
        result = shadow_read(r, sp, l->v[i], &why);
        if (result != 0)
            world_violation(s->world, "%s: point %.8s of '%s' %s: %s", when,
                            sp->id, machine_name(sp->machine),
                            result == 1 ? "cannot be read" : "reads wrong",
                            why.msg);
    }
}

void
shadow_prove(struct shadow *s, const char *when)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(point_list_done) struct point_list l = {NULL, 0};
    struct err why = ERR_INIT;

    if (s->world->violation[0] != '\0')
        return;
    if (repo_open_store(world_store(s->world, NULL), &r, &why) < 0 ||
        repo_points_all(r, NULL, &l, NULL, &why) < 0) {
        world_violation(s->world, "%s: %s", when, why.msg);
        return;
    }
    prove_list(s, r, &l, when);
}

/* -- what is left -----------------------------------------------------------*/

/* A dead reader that holds a living point costs nothing; nobody waits for it. */
static bool
belongs_to_pin(const struct world *w, const char *key)
{
    char session[41];
    const struct object *o;

    (void)snprintf(session, sizeof session, "session/%.32s",
                   strchr(key, '/') + 1);
    o = world_find(w, session);
    return o != NULL && memmem(o->data, o->len, "\"pin\"", 5) != NULL;
}

static void
left_over(struct world *w, const char *key)
{
    if (w->violation[0] == '\0')
        w->only_left = true;
    world_violation(w, "left after the last collection: %s", key);
}

void
shadow_prove_clean(struct shadow *s)
{
    static const char *const none[] = {"session/", "beat/", "gc/", "forget/"};

    for (size_t i = 0; i < s->world->n; i++) {
        const struct object *o = &s->world->v[i];

        /* what a killed self-test of the store left is no session */
        if (o->state != OBJECT_THERE ||
            strncmp(o->key, "session/test-", 13) == 0)
            continue;
        for (size_t k = 0; k < ARRAY_SIZE(none); k++)
            if (strncmp(o->key, none[k], strlen(none[k])) == 0 &&
                (k > 1 || !belongs_to_pin(s->world, o->key)))
                left_over(s->world, o->key);
    }
}
