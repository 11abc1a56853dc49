#include "map_page.h"

#include <inttypes.h>
#include <string.h>

#include "err.h"

_Static_assert(sizeof(struct map_page) == MAP_PAGE_LEN,
               "a page in memory is its bytes on disk");

bool
map_chunk_size_ok(uint64_t chunk_size)
{
    return chunk_size >= REPO_CHUNK_MIN && chunk_size <= REPO_CHUNK_MAX &&
           (chunk_size & (chunk_size - 1)) == 0;
}

int
map_shape_init(struct map_shape *ret, uint64_t size, uint64_t chunk_size,
               struct err *err)
{
    struct map_shape shape = {.size = size, .height = 1};

    if (!map_chunk_size_ok(chunk_size))
        return err_set(err, ERR_FORMAT,
                       "chunk size %" PRIu64 " is not a power of two from %u "
                       "to %u",
                       chunk_size, REPO_CHUNK_MIN, REPO_CHUNK_MAX);
    if (size > MAP_DISK_MAX)
        return err_set(err, ERR_FORMAT,
                       "disk size %" PRIu64 " is more than the %" PRIu64
                       " bytes that a map can describe",
                       size, MAP_DISK_MAX);
    shape.chunk_size = (uint32_t)chunk_size;
    shape.n_chunks = (size + chunk_size - 1) / chunk_size;
    while (shape.n_chunks > 0 &&
           map_page_no(shape.height - 1, shape.n_chunks - 1) > 0)
        shape.height++;
    *ret = shape;
    return 0;
}

uint32_t
map_chunk_len(const struct map_shape *shape, uint64_t index)
{
    uint64_t rest = shape->size - index * shape->chunk_size;

    return rest < shape->chunk_size ? (uint32_t)rest : shape->chunk_size;
}

uint64_t
map_page_no(unsigned level, uint64_t index)
{
    return index >> ((level + 1) * MAP_PAGE_BITS);
}

unsigned
map_slot(unsigned level, uint64_t index)
{
    return (unsigned)(index >> (level * MAP_PAGE_BITS)) % MAP_PAGE_ENTRIES;
}

uint64_t
map_first_chunk(unsigned level, uint64_t page_no, unsigned slot)
{
    return ((page_no << MAP_PAGE_BITS) + slot) << (level * MAP_PAGE_BITS);
}

bool
map_page_empty(const struct map_page *page)
{
    const uint8_t *b = (const uint8_t *)page;

    return b[0] == 0 && memcmp(b, b + 1, MAP_PAGE_LEN - 1) == 0;
}

int
map_page_decode(const void *data, size_t len, struct map_page *ret,
                struct err *err)
{
    struct map_page page;

    if (len != MAP_PAGE_LEN)
        return err_set(err, ERR_FORMAT, "map page of %zu bytes instead of %u",
                       len, MAP_PAGE_LEN);
    memcpy(&page, data, sizeof page);
    if (map_page_empty(&page))
        return err_set(err, ERR_FORMAT,
                       "map page without entries, which is never stored");
    *ret = page;
    return 0;
}

int
map_page_check(const struct map_shape *shape, unsigned level, uint64_t page_no,
               const struct map_page *page, struct err *err)
{
    for (unsigned slot = MAP_PAGE_ENTRIES; slot-- > 0;) {
        uint64_t first = map_first_chunk(level, page_no, slot);

        if (first < shape->n_chunks)
            break; /* so are all slots before it */
        if (!chunk_id_zero(&page->entry[slot]))
            return err_set(err, ERR_FORMAT,
                           "map page %" PRIu64 " of level %u has an entry for "
                           "chunk %" PRIu64 ", but the disk has %" PRIu64,
                           page_no, level, first, shape->n_chunks);
    }
    return 0;
}
