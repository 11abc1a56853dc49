/* Any bytes as a map page, at the end of a disk of any size, read and written
 * through the map code: words or a page, and no endless walk. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "err.h"
#include "map_page.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *page;
    unsigned gets;
};

/* Every id names the one page. */
static int
get(void *arg, const struct chunk_id *id, void *data, struct err *err)
{
    struct input *in = arg;

    in->gets++;
    memcpy(data, in->page, MAP_PAGE_LEN);
    return 0;
}

static int
put(void *arg, const void *data, struct chunk_id *ret_id, struct err *err)
{
    memcpy(ret_id->b, data, sizeof ret_id->b);
    ret_id->b[0] |= 1;
    return 0;
}

static void
use_map(const uint8_t *page, uint64_t size, uint32_t chunk_size)
{
    struct input in = {page, 0};
    struct map_pages pages = {get, put, &in};
    struct chunk_id root = {{1}}, id;
    struct map_reader *r;
    struct map_writer *w;
    uint64_t at = 0;

    if (map_reader_over(&pages, size, chunk_size, &root, &r, NULL) < 0)
        return;
    for (unsigned i = 0; i < 8 && at != UINT64_MAX; i++, at++)
        if (map_reader_next(r, at, &at, &id, NULL) < 0 || at == UINT64_MAX)
            break;
    map_reader_free(r);
    if (map_writer_over(&pages, size, chunk_size, &root, &w, NULL) < 0)
        return;
    for (uint64_t i = 1; i < 8; i++)
        (void)map_writer_set(w, i * (size / chunk_size / 8), &root, NULL);
    (void)map_writer_finish(w, &id, NULL);
    map_writer_free(w);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct map_shape shape;
    struct map_page page;
    uint32_t chunk_size;
    uint64_t disk;

    if (size < 9)
        return 0;
    disk = get_le64(data);
    chunk_size = REPO_CHUNK_MIN << (data[8] % 9);
    if (map_page_decode(data + 9, size - 9, &page, NULL) < 0 ||
        map_shape_init(&shape, disk, chunk_size, NULL) < 0)
        return 0;
    for (unsigned level = 0; level < shape.height; level++)
        (void)map_page_check(&shape, level, 0, &page, NULL);
    use_map(data + 9, disk, chunk_size);
    return 0;
}
