/* Writing a map: one page per level is in memory, the path to the entry that
 * was set last.  When the walk leaves a page, it is put and its id goes into the
 * page above; a page in which nothing differs from the base keeps the base's
 * id, so the subtree stays shared without a look-up.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "map_page.h"

struct level {
    bool loaded;
    bool changed; /* some entry differs from the base's */
    struct map_page page;
};

struct map_writer {
    /* never changed after map_writer_over() */
    struct map_pages pages;
    struct map_shape shape;
    struct chunk_id base_root;

    uint64_t next; /* the smallest index that may be set now */
    uint64_t last; /* set last; meaningful once next > 0 */
    bool failed;   /* a page is lost: no root can be given any more */
    struct level level[MAP_HEIGHT_MAX];
};

int
map_writer_over(const struct map_pages *pages, uint64_t size,
                uint32_t chunk_size, const struct chunk_id *base_root,
                struct map_writer **ret, struct err *err)
{
    struct map_shape shape;
    struct map_writer *w;

    if (map_shape_init(&shape, size, chunk_size, err) < 0)
        return -1;
    w = calloc(1, sizeof *w);
    if (w == NULL)
        return err_set_errno(err, ENOMEM, "map");
    w->pages = *pages;
    w->shape = shape;
    w->base_root = *base_root;
    *ret = w;
    return 0;
}

void
map_writer_free(struct map_writer *w)
{
    free(w);
}

/* The id that the base has for the page of `level` on the way to `index`.  The
 * page above still holds it: its entry changes only when this page is left. */
static const struct chunk_id *
base_id(const struct map_writer *w, unsigned level, uint64_t index)
{
    if (level + 1 == w->shape.height)
        return &w->base_root;
    return &w->level[level + 1].page.entry[map_slot(level + 1, index)];
}

static int
load(struct map_writer *w, unsigned level, uint64_t index, struct err *err)
{
    const struct chunk_id *id = base_id(w, level, index);
    struct level *l = &w->level[level];
    uint8_t data[MAP_PAGE_LEN];

    l->changed = false;
    if (chunk_id_zero(id)) {
        memset(&l->page, 0, sizeof l->page);
    } else if (w->pages.get(w->pages.arg, id, data, err) < 0 ||
               map_page_decode(data, sizeof data, &l->page, err) < 0 ||
               map_page_check(&w->shape, level, map_page_no(level, index),
                              &l->page, err) < 0) {
        return err_wrap(err, "base map, page of level %u for chunk %" PRIu64,
                        level, index);
    }
    l->loaded = true;
    return 0;
}

static void
set_entry(struct level *l, unsigned slot, const struct chunk_id *id)
{
    if (chunk_id_equal(&l->page.entry[slot], id))
        return;
    l->page.entry[slot] = *id;
    l->changed = true;
}

/* Leave the page of `level` on the path to `index`; *ret is its id. */
static int
leave(struct map_writer *w, unsigned level, uint64_t index,
      struct chunk_id *ret, struct err *err)
{
    struct level *l = &w->level[level];
    struct chunk_id id = {0};

    if (!l->changed)
        id = *base_id(w, level, index);
    else if (!map_page_empty(&l->page) &&
             w->pages.put(w->pages.arg, &l->page, &id, err) < 0)
        return err_wrap(err, "map page of level %u for chunk %" PRIu64, level,
                        index);
    l->loaded = false;
    *ret = id;
    return 0;
}

/* Leave every loaded page that does not lie on the path to `index`; with
 * `all`, every page but the root's. */
static int
leave_path(struct map_writer *w, uint64_t index, bool all, struct err *err)
{
    for (unsigned level = 0; level + 1 < w->shape.height; level++) {
        struct chunk_id id;

        if (!w->level[level].loaded)
            continue;
        if (!all && map_page_no(level, w->last) == map_page_no(level, index))
            break; /* and so are all pages above */
        if (leave(w, level, w->last, &id, err) < 0)
            return -1;
        set_entry(&w->level[level + 1], map_slot(level + 1, w->last), &id);
    }
    return 0;
}

static int
enter_path(struct map_writer *w, uint64_t index, struct err *err)
{
    for (unsigned level = w->shape.height; level-- > 0;)
        if (!w->level[level].loaded && load(w, level, index, err) < 0)
            return -1;
    return 0;
}

static int
check_set(const struct map_writer *w, uint64_t index, struct err *err)
{
    if (w->failed)
        return err_set(err, ERR_USAGE,
                       "the map is incomplete after an earlier error");
    if (index >= w->shape.n_chunks)
        return err_set(err, ERR_USAGE,
                       "chunk %" PRIu64 " of a disk of %" PRIu64 " chunks",
                       index, w->shape.n_chunks);
    if (index < w->next)
        return err_set(err, ERR_USAGE,
                       "map entry %" PRIu64 " set after entry %" PRIu64, index,
                       w->last);
    return 0;
}

int
map_writer_set(struct map_writer *w, uint64_t index, const struct chunk_id *id,
               struct err *err)
{
    if (check_set(w, index, err) < 0)
        return -1;
    if (leave_path(w, index, false, err) < 0 || enter_path(w, index, err) < 0) {
        w->failed = true;
        return -1;
    }
    set_entry(&w->level[0], map_slot(0, index), id);
    w->last = index;
    w->next = index + 1;
    return 0;
}

int
map_writer_finish(struct map_writer *w, struct chunk_id *ret_root,
                  struct err *err)
{
    struct chunk_id root = w->base_root;

    if (w->failed)
        return err_set(err, ERR_USAGE,
                       "the map is incomplete after an earlier error");
    if (w->next > 0) {
        w->failed = true; /* until every page is put, and then it is over */
        if (leave_path(w, 0, true, err) < 0 ||
            leave(w, w->shape.height - 1, w->last, &root, err) < 0)
            return -1;
    }
    w->failed = true;
    *ret_root = root;
    return 0;
}
