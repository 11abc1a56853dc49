/* The packs that there should be: those that commit objects name, those that the
 * index names; which of them to read, and what to say of them in the end. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "catalog.h"
#include "cleanup.h"
#include "err.h"
#include "store.h"
#include "verify.h"

static int
compare_names(const struct pack_name *x, const struct pack_name *y)
{
    int c = memcmp(x->sid, y->sid, sizeof x->sid);

    if (c == 0)
        c = (x->class > y->class) - (x->class < y->class);
    return c != 0 ? c : (x->seq > y->seq) - (x->seq < y->seq);
}

/* By name; of two with one name the listed one first. */
static int
compare_packs(const void *a, const void *b)
{
    const struct vpack *x = a, *y = b;
    int c = compare_names(&x->name, &y->name);

    return c != 0 ? c : (int)y->listed - (int)x->listed;
}

static struct vpack *
find_among(const struct verify *v, size_t n, const struct pack_name *name)
{
    size_t lo = 0, hi = n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = compare_names(&v->packs[mid].name, name);

        if (c == 0)
            return &v->packs[mid];
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

static struct vpack *
find(const struct verify *v, const struct pack_name *name)
{
    return find_among(v, v->n_packs, name);
}

struct vpack *
verify_pack_named(const struct verify *v, const struct pack_name *name)
{
    return find(v, name);
}

int
verify_pack_add(struct verify *v, const struct vpack *p, struct err *err)
{
    if (v->n_packs == v->cap_packs) {
        size_t cap = v->cap_packs == 0 ? 64 : 2 * v->cap_packs;
        struct vpack *packs = realloc(v->packs, cap * sizeof *packs);

        if (packs == NULL)
            return err_set_errno(err, ENOMEM, "list of %zu packs", cap);
        v->packs = packs;
        v->cap_packs = cap;
    }
    v->packs[v->n_packs++] = *p;
    return 0;
}

/* Each name once; a collector's COMMIT lists again what it takes over. */
static void
unify(struct verify *v)
{
    size_t n = 0;

    if (v->n_packs > 0)
        qsort(v->packs, v->n_packs, sizeof *v->packs, compare_packs);
    for (size_t i = 0; i < v->n_packs; i++) {
        struct vpack *last = n > 0 ? &v->packs[n - 1] : NULL;

        if (last != NULL &&
            compare_names(&last->name, &v->packs[i].name) == 0) {
            last->scope |= v->packs[i].scope;
            last->need += v->packs[i].need;
            continue;
        }
        v->packs[n++] = v->packs[i];
    }
    v->n_packs = n;
}

/* -- by number --------------------------------------------------------------*/

static int
look_up(const struct verify *v, struct vpack *p, struct err *err)
{
    char key[REPO_KEY_MAX];

    pack_key(&p->name, key);
    return store_size(v->repo->store, key, &p->found, err);
}

/* Those that only the index names.  One that was written since the listing, by a
 * collector that moves what we look at, must not count as missing. */
static int
add_unlisted(const struct catalog *c, struct verify *v, struct err *err)
{
    const size_t sorted = v->n_packs;

    for (size_t i = 0; i < c->n; i++)
        for (uint32_t k = 0; k < c->v[i].seg.n_packs; k++) {
            struct vpack p = {.scope = false};

            segment_pack(&c->v[i].seg, k, &p.name);
            if (find_among(v, sorted, &p.name) != NULL ||
                pack_set_has(c->gone, &p.name))
                continue;
            if ((v->listed && look_up(v, &p, err) < 0) ||
                verify_pack_add(v, &p, err) < 0)
                return -1;
        }
    unify(v);
    return 0;
}

static void
number_all(const struct catalog *c, struct verify *v)
{
    for (size_t i = 0; i < c->n; i++)
        for (uint32_t k = 0; k < c->v[i].seg.n_packs; k++) {
            uint32_t no = c->v[i].pack_base + k;
            struct pack_name name;
            struct vpack *p;

            segment_pack(&c->v[i].seg, k, &name);
            p = find(v, &name);
            v->of_pack[no] = p != NULL ? (uint32_t)(p - v->packs) : UINT32_MAX;
            if (p != NULL)
                p->known_bad |= (c->pack_flags[no] &
                                 (PACK_IS_BAD | PACK_HAS_BAD_FRAMES)) != 0;
        }
}

static int
number_locked(struct verify *v, struct err *err)
{
    const struct catalog *c = v->repo->catalog;
    uint32_t *of_pack;

    if (add_unlisted(c, v, err) < 0)
        return -1;
    of_pack = realloc(v->of_pack, ((size_t)c->n_packs + 1) * sizeof *of_pack);
    if (of_pack == NULL)
        return err_set_errno(err, ENOMEM, "list of %u packs", c->n_packs);
    v->of_pack = of_pack;
    v->n_of_pack = c->n_packs;
    number_all(c, v);
    return 0;
}

static int
number_packs(struct verify *v, struct err *err)
{
    int rc;

    (void)pthread_rwlock_rdlock(&v->repo->index_lock);
    rc = number_locked(v, err);
    (void)pthread_rwlock_unlock(&v->repo->index_lock);
    return rc;
}

struct vpack *
verify_pack(struct verify *v, uint32_t no, struct err *err)
{
    static struct vpack none; /* of a pack that is gone: nothing is read */

    if (no >= v->n_of_pack && number_packs(v, err) < 0)
        return NULL;
    return v->of_pack[no] == UINT32_MAX ? &none : &v->packs[v->of_pack[no]];
}

void
verify_packs_free(struct verify *v)
{
    for (size_t i = 0; i < v->n_packs; i++)
        free(v->packs[i].why);
    free(v->packs);
    free(v->of_pack);
}

/* -- what is there ----------------------------------------------------------*/

struct listing {
    struct verify *v;
    uint64_t strangers;
};

static int
note_found(void *arg, const char *key, uint64_t len)
{
    struct listing *l = arg;
    struct pack_name name;
    struct vpack *p;

    if (!pack_name_parse(key, &name))
        return 0;
    p = find(l->v, &name);
    if (p != NULL)
        p->found = len;
    else
        l->strangers++;
    return 0;
}

int
verify_packs_settle(struct verify *v, struct err *err)
{
    struct listing l = {v, 0};

    unify(v);
    if (number_packs(v, err) < 0)
        return -1;
    if (store_list(v->repo->store, "data", note_found, &l, err) != 0 ||
        store_list(v->repo->store, "meta", note_found, &l, err) != 0)
        return err_wrap(err, "list the packs");
    v->listed = true;
    if (v->opts.whole && l.strangers > 0 &&
        verify_note(v, err,
                    "%" PRIu64 " packs belong to no commit object: a backup "
                    "that runs now, or the rest of one; a collection removes "
                    "such rests",
                    l.strangers) < 0)
        return -1;
    v->rep.packs = 0;
    return 0;
}

/* -- choosing ---------------------------------------------------------------*/

/* Longest ago first; what is known to be bad last, or a sample would read it
 * for ever. */
static int
compare_age(const void *a, const void *b, void *arg)
{
    const struct vpack *packs = arg;
    const struct vpack *x = &packs[*(const size_t *)a];
    const struct vpack *y = &packs[*(const size_t *)b];

    if (x->known_bad != y->known_bad)
        return x->known_bad ? 1 : -1;
    if (x->run != y->run)
        return x->run < y->run ? -1 : 1;
    return (*(const size_t *)a > *(const size_t *)b) -
           (*(const size_t *)a < *(const size_t *)b);
}

static bool
in_scope(const struct vpack *p)
{
    return p->scope || p->need > 0;
}

static void
choose(struct verify *v, struct vpack *p)
{
    if (v->opts.resume && v->since > 0 && p->run >= v->since) {
        v->rep.packs_skipped++;
        return;
    }
    p->chosen = true;
    v->total += p->found;
}

int
verify_packs_choose(struct verify *v, struct err *err)
{
    CLEANUP_FREE size_t *list = calloc(v->n_packs + 1, sizeof *list);
    uint64_t n = 0, want;

    if (list == NULL)
        return err_set_errno(err, ENOMEM, "list of %zu packs", v->n_packs);
    for (size_t i = 0; i < v->n_packs; i++)
        if (in_scope(&v->packs[i])) {
            v->rep.packs++;
            if (v->packs[i].found > 0)
                list[n++] = i;
        }
    if (v->opts.level == REPO_VERIFY_STRUCTURE)
        return 0;
    want = n;
    if (v->opts.sample > 0) {
        if (n > 0)
            qsort_r(list, n, sizeof *list, compare_age, v->packs);
        want = (n * v->opts.sample + 9999) / 10000;
    }
    for (uint64_t i = 0; i < n && i < want; i++)
        choose(v, &v->packs[list[i]]);
    return 0;
}

/* -- reporting --------------------------------------------------------------*/

static int
say(struct verify *v, const struct vpack *p, const char *what, struct err *err)
{
    char key[REPO_KEY_MAX];

    pack_key(&p->name, key);
    if (p->need > 0)
        return verify_problem_object(v, key, NULL, what, err);
    return verify_note(v, err, "%s: %s; no point needs anything of it", key,
                       what);
}

/* A collector may have removed it while we looked. */
static int
still_counts(struct verify *v, const struct vpack *p, struct err *err)
{
    struct pack_set *gone = pack_set_new();
    int rc;

    if (gone == NULL)
        return err_set_errno(err, ENOMEM, "list of what is gone");
    rc = index_reload(v->repo, err);
    if (rc == 0)
        rc = index_gone(v->repo, gone, NULL, NULL, err);
    if (rc == 0)
        rc = !pack_set_has(gone, &p->name);
    pack_set_free(gone);
    return rc;
}

static int
note_spoiled(struct verify *v, const struct vpack *p, struct err *err)
{
    char key[REPO_KEY_MAX];

    pack_key(&p->name, key);
    return verify_note(v, err, "%s: %s; but all that points need of it is good",
                       key, p->why != NULL ? p->why : "damaged");
}

static int
report_pack(struct verify *v, struct vpack *p, struct err *err)
{
    char text[ERR_MSG_MAX + 64];
    int counts = 1;

    if (p->found == 0) {
        counts = still_counts(v, p, err);
        if (counts > 0)
            p->failed = p->whole_bad = p->need > 0;
        return counts <= 0 ? counts : say(v, p, "the object is missing", err);
    }
    if (p->failed)
        return say(v, p, p->why != NULL ? p->why : "damaged", err);
    if (p->spoiled)
        return note_spoiled(v, p, err);
    if (p->listed && p->found != p->len) {
        (void)snprintf(text, sizeof text,
                       "%" PRIu64 " bytes long, written were %" PRIu64,
                       p->found, p->len);
        p->failed = p->whole_bad = true;
        return say(v, p, text, err);
    }
    if (p->done && p->known_bad) {
        char key[REPO_KEY_MAX];

        pack_key(&p->name, key);
        return verify_note(v, err, "%s: was bad once, and reads well now", key);
    }
    return 0;
}

int
verify_packs_report(struct verify *v, struct err *err)
{
    for (size_t i = 0; i < v->n_packs; i++)
        if (in_scope(&v->packs[i]) && report_pack(v, &v->packs[i], err) < 0)
            return -1;
    return 0;
}
