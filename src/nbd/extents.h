/* nbd/extents.h - from block status answers to runs of bytes (this folder).
 *
 * Pure: numbers in, extents out, so that hostile answers are a unit test and a
 * fuzz target.  The server is free to answer less than it was asked and to let
 * the last entry run past the end of the request; everything else that is odd
 * (no entry, an empty one, entries behind the end) is an error, because a gap
 * in a dirty map is a lost write.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct err;
struct nbd_extents;

enum nbd_extent_kind {
    NBD_EXTENT_DIRTY, /* any flag: changed */
    NBD_EXTENT_ZERO,  /* "zero" and no unknown flag: reads as zeroes */
};

/* Bounds memory (24 bytes each): a server that answers with a million extents
 * for each MiB must not fill it.  From here on neighbours melt into extents of
 * the flag that is always safe: dirty, not zero. */
#define NBD_EXTENTS_MAX (16u << 20)

struct nbd_span {
    enum nbd_extent_kind kind;
    uint64_t off, end;  /* wanted; end is one byte beyond the end */
    uint64_t disk_size; /* an entry that reaches it may have any length */
    uint32_t align;     /* of entries otherwise, a power of two */
    size_t n_max;       /* >= 2; NBD_EXTENTS_MAX, less in tests */
    uint64_t pos;       /* the next byte to ask for */
};

/* Add the answer to a request for [s->pos, ask_end): `n` numbers, pairs of
 * length and flags.  0: s->pos is behind what was answered, at most ask_end.
 * -1: ERR_PROTOCOL, or no memory. */
int nbd_span_take(struct nbd_span *s, uint64_t ask_end, const uint32_t *entries,
                  size_t n, struct nbd_extents *ret, struct err *err);
