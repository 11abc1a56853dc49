/* Maps of a repository: the tree of map_writer.c and map_reader.c over its
 * page store. */
#include "err.h"
#include "internal.h"
#include "map_page.h"

static int
get_of_repo(void *arg, const struct chunk_id *id, void *data, struct err *err)
{
    return page_get(arg, id, data, MAP_PAGE_LEN, err);
}

static int
get_of_session(void *arg, const struct chunk_id *id, void *data,
               struct err *err)
{
    return page_get_session(arg, id, data, MAP_PAGE_LEN, err);
}

static int
put_in_session(void *arg, const void *data, struct chunk_id *ret_id,
               struct err *err)
{
    return page_put(arg, data, MAP_PAGE_LEN, ret_id, err);
}

int
map_writer_new(struct repo_session *s, uint64_t size, uint32_t chunk_size,
               const struct chunk_id *base_root, struct map_writer **ret,
               struct err *err)
{
    struct map_pages pages = {get_of_session, put_in_session, s};

    return map_writer_over(&pages, size, chunk_size, base_root, ret, err);
}

int
map_reader_new(struct repo *r, uint64_t size, uint32_t chunk_size,
               const struct chunk_id *root, struct map_reader **ret,
               struct err *err)
{
    struct map_pages pages = {get_of_repo, NULL, r};

    return map_reader_over(&pages, size, chunk_size, root, ret, err);
}

int
map_diff(struct repo *r, const struct point_disk *older,
         const struct point_disk *newer, map_diff_fn fn, void *arg,
         struct err *err)
{
    struct map_pages pages = {get_of_repo, NULL, r};

    return map_diff_over(&pages, older, newer, fn, arg, err);
}
