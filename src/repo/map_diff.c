/* What differs between two maps: both are walked together, and a pair of
 * subtrees with one name is left alone, so that the work is that of the change
 * and not that of the disks.
 *
 * A disk that was resized may have a map of another height.  The lower map then
 * passes for the leftmost subtree of a tree as high as the other: the pages
 * above its root exist here only, with the root as their first entry.
 */
#include <inttypes.h>

#include "err.h"
#include "map_page.h"

struct side {
    const char *name; /* for errors */
    struct map_shape shape;
    struct chunk_id root;
};

struct differ {
    const struct map_pages *pages;
    struct side older, newer;
    map_diff_fn fn;
    void *arg;
    /* The extent that may still grow; bytes; none when empty. */
    uint64_t start, end;
    bool zero;
};

/* -- extents ----------------------------------------------------------------*/

static int
extent_end(struct differ *d, struct err *err)
{
    uint64_t start = d->start, len = d->end - d->start;

    d->start = d->end;
    return len == 0 ? 0 : d->fn(d->arg, start, len, d->zero, err);
}

static int
extent_add(struct differ *d, uint64_t index, bool zero, struct err *err)
{
    const struct map_shape *shape = &d->newer.shape;
    uint64_t off = index * shape->chunk_size;

    if (d->end != off || d->zero != zero) {
        if (extent_end(d, err) < 0)
            return -1;
        d->start = off;
        d->zero = zero;
    }
    d->end = off + map_chunk_len(shape, index);
    return 0;
}

/* -- the walk ---------------------------------------------------------------*/

/* The page of `level` that `id` stands for on one side. */
static int
load(const struct differ *d, const struct side *s, unsigned level,
     uint64_t page_no, const struct chunk_id *id, struct map_page *ret,
     struct err *err)
{
    uint8_t data[MAP_PAGE_LEN];

    *ret = (struct map_page){0};
    if (chunk_id_zero(id))
        return 0;
    if (level >= s->shape.height) {
        ret->entry[0] = *id; /* on the way down to the root */
        return 0;
    }
    if (d->pages->get(d->pages->arg, id, data, err) < 0 ||
        map_page_decode(data, sizeof data, ret, err) < 0 ||
        map_page_check(&s->shape, level, page_no, ret, err) < 0)
        return err_wrap(err,
                        "map of the %s disk, page of level %u for chunk "
                        "%" PRIu64,
                        s->name, level, map_first_chunk(level, page_no, 0));
    return 0;
}

/* Above the lower map's root a name on one side means another level than the
 * same name on the other. */
static bool
same(const struct differ *d, unsigned level, const struct chunk_id *a,
     const struct chunk_id *b)
{
    return chunk_id_equal(a, b) &&
           (chunk_id_zero(a) ||
            (level < d->older.shape.height && level < d->newer.shape.height));
}

/* A pair of pages with different names.  The depth is that of the higher map. */
static int
walk(struct differ *d, unsigned level, uint64_t page_no,
     const struct chunk_id *a, const struct chunk_id *b, struct err *err)
{
    struct map_page older, newer;

    if (load(d, &d->older, level, page_no, a, &older, err) < 0 ||
        load(d, &d->newer, level, page_no, b, &newer, err) < 0)
        return -1;
    for (unsigned slot = 0; slot < MAP_PAGE_ENTRIES; slot++) {
        uint64_t first = map_first_chunk(level, page_no, slot);
        const struct chunk_id *x = &older.entry[slot], *y = &newer.entry[slot];
        int rc = 0;

        if (first >= d->newer.shape.n_chunks)
            return 0; /* behind its end */
        if (level == 0 && !chunk_id_equal(x, y))
            rc = extent_add(d, first, chunk_id_zero(y), err);
        else if (level > 0 && !same(d, level - 1, x, y))
            rc = walk(d, level - 1, (page_no << MAP_PAGE_BITS) + slot, x, y,
                      err);
        if (rc != 0)
            return -1;
    }
    return 0;
}

static int
side_init(struct side *s, const char *name, const struct point_disk *disk,
          struct err *err)
{
    s->name = name;
    s->root = disk->root;
    return map_shape_init(&s->shape, disk->size, disk->chunk_size, err);
}

int
map_diff_over(const struct map_pages *pages, const struct point_disk *older,
              const struct point_disk *newer, map_diff_fn fn, void *arg,
              struct err *err)
{
    struct differ d = {.pages = pages, .fn = fn, .arg = arg};
    unsigned top;

    if (side_init(&d.older, "older", older, err) < 0 ||
        side_init(&d.newer, "newer", newer, err) < 0)
        return -1;
    if (older->chunk_size != newer->chunk_size)
        return err_set(err, ERR_UNSUPPORTED,
                       "chunks of %" PRIu32 " bytes cannot be compared with "
                       "chunks of %" PRIu32,
                       older->chunk_size, newer->chunk_size);
    top = d.older.shape.height > d.newer.shape.height ? d.older.shape.height
                                                      : d.newer.shape.height;
    if (same(&d, top - 1, &d.older.root, &d.newer.root))
        return 0;
    if (walk(&d, top - 1, 0, &d.older.root, &d.newer.root, err) < 0)
        return -1;
    return extent_end(&d, err);
}
