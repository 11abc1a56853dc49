/* Whether a point is known to be damaged: what its maps name is looked up in the
 * index, which knows of lost packs and of frames that failed a verification. */
#include <inttypes.h>

#include "catalog.h"
#include "err.h"
#include "internal.h"
#include "map_page.h"

struct look {
    struct repo *repo;
    const bool *cancel;
    struct map_shape shape;
    struct err *why; /* what is damaged */
    struct err *err; /* why that cannot be found out */
};

/* 1 damaged, 0 not known to be, here and below. */
static int
look_up(struct look *k, const struct chunk_id *id)
{
    struct locator l;
    int rc = index_find(k->repo, id, &l, k->why);

    if (rc < 0)
        return 1;
    if (rc == 0)
        (void)err_set(k->why, ERR_NOT_FOUND, "in no index segment");
    else if (l.bad)
        (void)err_set(k->why, ERR_CORRUPT, "failed a verification");
    else if (l.absent)
        (void)err_set(k->why, ERR_NOT_FOUND, "its pack is gone");
    else
        return 0;
    return 1;
}

static int
load(struct look *k, unsigned level, uint64_t page_no,
     const struct chunk_id *id, struct map_page *ret)
{
    uint8_t bytes[MAP_PAGE_LEN];

    return look_up(k, id) != 0 ||
           page_get(k->repo, id, bytes, sizeof bytes, k->why) < 0 ||
           map_page_decode(bytes, sizeof bytes, ret, k->why) < 0 ||
           map_page_check(&k->shape, level, page_no, ret, k->why) < 0;
}

static int
page(struct look *k, unsigned level, uint64_t page_no,
     const struct chunk_id *id)
{
    struct map_page p;

    if (k->cancel != NULL && __atomic_load_n(k->cancel, __ATOMIC_RELAXED))
        return err_set(k->err, ERR_CANCELED, "stopped on request");
    if (load(k, level, page_no, id, &p) != 0) {
        (void)err_wrap(k->why, "map page of level %u", level);
        return 1;
    }
    for (unsigned slot = 0; slot < MAP_PAGE_ENTRIES; slot++) {
        int rc;

        if (chunk_id_zero(&p.entry[slot]))
            continue;
        if (level > 0)
            rc = page(k, level - 1, (page_no << MAP_PAGE_BITS) + slot,
                      &p.entry[slot]);
        else
            rc = look_up(k, &p.entry[slot]);
        if (rc == 1 && level == 0)
            (void)err_wrap(k->why, "chunk %" PRIu64,
                           map_first_chunk(0, page_no, slot));
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int
disk(struct look *k, const struct point_disk *d)
{
    int rc;

    if (map_shape_init(&k->shape, d->size, d->chunk_size, k->why) < 0)
        return 1;
    rc =
        chunk_id_zero(&d->root) ? 0 : page(k, k->shape.height - 1, 0, &d->root);
    if (rc == 1)
        (void)err_wrap(k->why, "disk '%s'", d->name);
    return rc;
}

static int
point(struct look *k, const struct point *p)
{
    int rc = 0;

    if (!chunk_id_zero(&p->config))
        rc = look_up(k, &p->config);
    if (rc == 1)
        (void)err_wrap(k->why, "configuration");
    for (size_t i = 0; rc == 0 && i < p->n_disks; i++)
        rc = disk(k, &p->disks[i]);
    return rc;
}

int
repo_point_damaged(struct repo *r, const struct point *p, const bool *cancel,
                   struct err *why, struct err *err)
{
    struct err unused = ERR_INIT;
    struct look k = {.repo = r, .cancel = cancel, .why = &unused, .err = err};
    int rc;

    if (why != NULL)
        k.why = why;
    rc = point(&k, p);
    if (rc != 1)
        return rc;
    /* A collector may have moved what is missing. */
    if (index_reload(r, err) < 0)
        return -1;
    err_clear(k.why);
    return point(&k, p);
}

bool
repo_damage_known(struct repo *r)
{
    const struct catalog *c = r->catalog;
    bool known;

    (void)pthread_rwlock_rdlock(&r->index_lock);
    known = c->n_problems > 0 || c->n_bad_frames > 0 ||
            pack_set_n(c->bad) > 0 || c->bad_missing;
    (void)pthread_rwlock_unlock(&r->index_lock);
    return known || index_pack_missing(r);
}
