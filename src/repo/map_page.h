/* repo/map_page.h - the pages of a map, and a map over any page store.
 *
 * A map names the chunks of one disk at one point.  It is a radix tree of pages
 * with 64 ids each: a leaf holds chunk ids, a page above holds page ids.  A
 * page is named by the keyed id of its 2048 bytes, so equal subtrees are one
 * subtree and an incremental writes only the paths that changed.  A subtree
 * without data is the zero id and no page: an empty disk of any size costs
 * nothing.  The height follows from size and chunk size alone; levels count
 * from 0 at the leaves.
 *
 * The functions up to map_page_check() are pure: bytes in, answers out.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "repo.h"

#define MAP_PAGE_BITS 6
#define MAP_PAGE_ENTRIES (1u << MAP_PAGE_BITS)
#define MAP_PAGE_LEN (MAP_PAGE_ENTRIES * 32)
#define MAP_DISK_MAX (UINT64_C(1) << 62) /* bytes */
#define MAP_HEIGHT_MAX 8                 /* of MAP_DISK_MAX in 16 KiB chunks */

struct map_page {
    struct chunk_id entry[MAP_PAGE_ENTRIES];
};

struct map_shape {
    uint64_t size; /* bytes */
    uint32_t chunk_size;
    uint64_t n_chunks; /* 0 for a disk of size 0 */
    unsigned height;   /* 1 .. MAP_HEIGHT_MAX */
};

bool map_chunk_size_ok(uint64_t chunk_size);
int map_shape_init(struct map_shape *ret, uint64_t size, uint64_t chunk_size,
                   struct err *err);

/* Bytes of chunk `index` (less than chunk_size only for the last one). */
uint32_t map_chunk_len(const struct map_shape *shape, uint64_t index);

/* Number of the page of `level` in which chunk `index` lies, its entry in that
 * page, and the first chunk below entry `slot` of page `page_no`. */
uint64_t map_page_no(unsigned level, uint64_t index);
unsigned map_slot(unsigned level, uint64_t index);
uint64_t map_first_chunk(unsigned level, uint64_t page_no, unsigned slot);

bool map_page_empty(const struct map_page *page);

/* Bytes to page.  Only the one valid form passes: right length, not empty. */
int map_page_decode(const void *data, size_t len, struct map_page *ret,
                    struct err *err);

/* Entries that lie wholly behind the end of the disk must be zero. */
int map_page_check(const struct map_shape *shape, unsigned level,
                   uint64_t page_no, const struct map_page *page,
                   struct err *err);

/* -- a map over two functions ---------------------------------------------- */

/* `get` fills MAP_PAGE_LEN bytes that are verified against `id`, which is never
 * zero; `put` stores that many and gives their id.  `put` is NULL for readers.
 * Calls come from the thread that uses the map. */
struct map_pages {
    int (*get)(void *arg, const struct chunk_id *id, void *data,
               struct err *err);
    int (*put)(void *arg, const void *data, struct chunk_id *ret_id,
               struct err *err);
    void *arg;
};

int map_writer_over(const struct map_pages *pages, uint64_t size,
                    uint32_t chunk_size, const struct chunk_id *base_root,
                    struct map_writer **ret, struct err *err);
int map_reader_over(const struct map_pages *pages, uint64_t size,
                    uint32_t chunk_size, const struct chunk_id *root,
                    struct map_reader **ret, struct err *err);

/* map_diff() over pages.  The heights of the maps may differ. */
int map_diff_over(const struct map_pages *pages, const struct point_disk *older,
                  const struct point_disk *newer, map_diff_fn fn, void *arg,
                  struct err *err);
