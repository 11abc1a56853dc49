/* Reading a map: the path to the entry that was read last stays in memory, so
 * that neighbours cost nothing and a walk reads each page once.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "map_page.h"

struct level {
    bool loaded;
    uint64_t page_no;
    struct map_page page;
};

struct map_reader {
    /* never changed after map_reader_over() */
    struct map_pages pages;
    struct map_shape shape;
    struct chunk_id root;

    struct level level[MAP_HEIGHT_MAX];
};

int
map_reader_over(const struct map_pages *pages, uint64_t size,
                uint32_t chunk_size, const struct chunk_id *root,
                struct map_reader **ret, struct err *err)
{
    struct map_shape shape;
    struct map_reader *m;

    if (map_shape_init(&shape, size, chunk_size, err) < 0)
        return -1;
    m = calloc(1, sizeof *m);
    if (m == NULL)
        return err_set_errno(err, ENOMEM, "map");
    m->pages = *pages;
    m->shape = shape;
    m->root = *root;
    *ret = m;
    return 0;
}

void
map_reader_free(struct map_reader *m)
{
    free(m);
}

static int
load(struct map_reader *m, unsigned level, uint64_t page_no,
     const struct chunk_id *id, struct err *err)
{
    struct level *l = &m->level[level];
    uint8_t data[MAP_PAGE_LEN];

    if (l->loaded && l->page_no == page_no)
        return 0;
    l->loaded = false;
    if (m->pages.get(m->pages.arg, id, data, err) < 0 ||
        map_page_decode(data, sizeof data, &l->page, err) < 0 ||
        map_page_check(&m->shape, level, page_no, &l->page, err) < 0)
        return err_wrap(err, "map page of level %u for chunk %" PRIu64, level,
                        map_first_chunk(level, page_no, 0));
    l->loaded = true;
    l->page_no = page_no;
    return 0;
}

/* Go down towards `index`.  *ret is the entry where the way ends: at level 0,
 * or higher up where a subtree is empty; *ret_level says which. */
static int
descend(struct map_reader *m, uint64_t index, struct chunk_id *ret,
        unsigned *ret_level, struct err *err)
{
    struct chunk_id id = m->root;
    unsigned level = m->shape.height;

    while (level > 0 && !chunk_id_zero(&id)) {
        level--;
        if (load(m, level, map_page_no(level, index), &id, err) < 0)
            return -1;
        id = m->level[level].page.entry[map_slot(level, index)];
    }
    *ret = id;
    *ret_level = level;
    return 0;
}

int
map_reader_get(struct map_reader *m, uint64_t index, struct chunk_id *ret_id,
               struct err *err)
{
    unsigned level;

    if (index >= m->shape.n_chunks)
        return err_set(err, ERR_USAGE,
                       "chunk %" PRIu64 " of a disk of %" PRIu64 " chunks",
                       index, m->shape.n_chunks);
    return descend(m, index, ret_id, &level, err);
}

/* The first chunk behind the entry of `level` that `index` lies below. */
static uint64_t
behind(unsigned level, uint64_t index)
{
    uint64_t span = UINT64_C(1) << (level * MAP_PAGE_BITS);

    return (index / span + 1) * span;
}

int
map_reader_next(struct map_reader *m, uint64_t index, uint64_t *ret_index,
                struct chunk_id *ret_id, struct err *err)
{
    while (index < m->shape.n_chunks) {
        struct chunk_id id;
        unsigned level;

        if (descend(m, index, &id, &level, err) < 0)
            return -1;
        if (!chunk_id_zero(&id)) {
            *ret_index = index;
            *ret_id = id;
            return 0;
        }
        index = behind(level, index);
    }
    *ret_index = UINT64_MAX;
    return 0;
}
