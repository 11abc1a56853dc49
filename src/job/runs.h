/* job/runs.h - from extents of bytes to runs of chunks.
 *
 * Widening goes outward to chunk borders, always: a chunk with one dirty byte
 * is dirty, a chunk with one byte of data is data.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nbd_extents;

struct runs {
    const struct nbd_extents *extents; /* ascending */
    uint32_t chunk_size;
    bool flag; /* extents with this flag make the runs */
    size_t i;  /* next extent; start with 0 */
};

/* The next run of chunks touched by such extents; runs ascend and never touch
 * each other.  False: there is none. */
bool runs_next(struct runs *r, uint64_t *ret_index, uint64_t *ret_n);
