/* Which chunks of a map are known to be bad or missing, so that a backup stores
 * those again that the machine still has. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "catalog.h"
#include "cleanup.h"
#include "err.h"
#include "internal.h"
#include "map_page.h"
#include "repair.h"

DEFINE_CLEANUP(struct map_reader *, map_reader_free)

/* -- is there anything? -----------------------------------------------------*/

/* Prefixes of ids whose records are bad, to be looked up without the lock. */
struct suspects {
    struct chunk_id *v; /* the upper half is zero: a look-up takes the lower */
    size_t n, cap;
};

static int
suspects_add(struct suspects *s, const uint8_t prefix[SEGMENT_PREFIX],
             struct err *err)
{
    if (s->n == s->cap) {
        size_t cap = s->cap == 0 ? 256 : 2 * s->cap;
        struct chunk_id *v = realloc(s->v, cap * sizeof *v);

        if (v == NULL)
            return err_set_errno(err, ENOMEM, "list of bad chunks");
        s->v = v;
        s->cap = cap;
    }
    memset(&s->v[s->n], 0, sizeof s->v[0]);
    memcpy(s->v[s->n++].b, prefix, SEGMENT_PREFIX);
    return 0;
}

static bool
bad_record(const struct catalog *c, const struct loaded *l,
           const struct index_record *rec)
{
    uint8_t flags = c->pack_flags[l->pack_base + rec->pack];
    struct pack_name name;

    if ((flags & PACK_IS_GONE) != 0)
        return false;
    if ((flags & PACK_IS_BAD) != 0)
        return true;
    if ((flags & PACK_HAS_BAD_FRAMES) == 0)
        return false;
    segment_pack(&l->seg, rec->pack, &name);
    return notes_frame_bad(c, &name, rec->offset);
}

static bool
has_bad_pack(const struct catalog *c, const struct loaded *l)
{
    for (uint32_t k = 0; k < l->seg.n_packs; k++)
        if ((c->pack_flags[l->pack_base + k] &
             (PACK_IS_BAD | PACK_HAS_BAD_FRAMES)) != 0)
            return true;
    return false;
}

static int
collect(const struct catalog *c, struct suspects *s, struct err *err)
{
    for (size_t i = 0; i < c->n; i++) {
        const struct loaded *l = &c->v[i];

        for (uint32_t k = 0; has_bad_pack(c, l) && k < l->seg.n_records; k++) {
            struct index_record rec;

            if (segment_record(&l->seg, k, &rec, NULL) == 0 &&
                bad_record(c, l, &rec) && suspects_add(s, rec.prefix, err) < 0)
                return -1;
        }
    }
    return 0;
}

static bool
is_lost(struct repo *r, const struct chunk_id *id)
{
    struct locator l;

    return index_find(r, id, &l, NULL) != 1 || l.absent || l.bad;
}

int
repo_has_damage(struct repo *r, struct err *err)
{
    struct suspects s = {NULL, 0, 0};
    int rc;

    (void)pthread_rwlock_rdlock(&r->index_lock);
    rc = collect(r->catalog, &s, err);
    if (rc == 0 && (r->catalog->n_problems > 0 || r->catalog->bad_missing))
        rc = 1; /* a record may be missing that nobody has noted */
    (void)pthread_rwlock_unlock(&r->index_lock);
    for (size_t i = 0; rc == 0 && i < s.n; i++)
        if (is_lost(r, &s.v[i]))
            rc = 1;
    free(s.v);
    return rc;
}

int
damage_count(struct repo *r, uint64_t *ret, struct err *err)
{
    struct suspects s = {NULL, 0, 0};
    int rc;

    *ret = 0;
    (void)pthread_rwlock_rdlock(&r->index_lock);
    rc = collect(r->catalog, &s, err);
    (void)pthread_rwlock_unlock(&r->index_lock);
    for (size_t i = 0; rc == 0 && i < s.n; i++)
        *ret += is_lost(r, &s.v[i]);
    free(s.v);
    return rc;
}

/* -- where ------------------------------------------------------------------*/

/* Runs of neighbours. */
struct run {
    repo_damaged_fn fn;
    void *arg;
    uint64_t index, n;
};

static int
run_end(struct run *run, struct err *err)
{
    int rc = run->n > 0 ? run->fn(run->arg, run->index, run->n, err) : 0;

    run->n = 0;
    return rc;
}

static int
run_add(struct run *run, uint64_t index, struct err *err)
{
    if (run->n > 0 && run->index + run->n == index) {
        run->n++;
        return 0;
    }
    if (run_end(run, err) < 0)
        return -1;
    run->index = index;
    run->n = 1;
    return 0;
}

int
repo_damaged(struct repo *r, const struct point_disk *d, repo_damaged_fn fn,
             void *arg, struct err *err)
{
    int rc = repo_has_damage(r, err);

    return rc <= 0 ? rc : repo_lost_chunks(r, d, fn, arg, err);
}

int
repo_lost_chunks(struct repo *r, const struct point_disk *d, repo_damaged_fn fn,
                 void *arg, struct err *err)
{
    CLEANUP(map_reader_freep) struct map_reader *m = NULL;
    struct run run = {fn, arg, 0, 0};
    struct chunk_id id;
    uint64_t index = 0;

    if (d->size == 0)
        return 0;
    if (map_reader_new(r, d->size, d->chunk_size, &d->root, &m, err) < 0)
        return -1;
    for (;; index++) {
        if (map_reader_next(m, index, &index, &id, err) < 0)
            return -1;
        if (index == UINT64_MAX)
            return run_end(&run, err);
        if (is_lost(r, &id) && run_add(&run, index, err) < 0)
            return -1;
    }
}

/* -- probing ----------------------------------------------------------------*/

/* Read every page below; what fails is remembered by the index.  The depth is
 * bounded by the level. */
static void
probe(struct repo *r, unsigned level, const struct chunk_id *id)
{
    uint8_t data[MAP_PAGE_LEN];
    struct map_page page;

    if (chunk_id_zero(id) || page_get(r, id, data, sizeof data, NULL) < 0 ||
        map_page_decode(data, sizeof data, &page, NULL) < 0)
        return;
    for (unsigned i = 0; level > 0 && i < MAP_PAGE_ENTRIES; i++)
        probe(r, level - 1, &page.entry[i]);
}

void
repo_probe_map(struct repo *r, const struct point_disk *d)
{
    struct map_shape shape;

    if (map_shape_init(&shape, d->size, d->chunk_size, NULL) == 0)
        probe(r, shape.height - 1, &d->root);
}
