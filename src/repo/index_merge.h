/* repo/index_merge.h - many index segments become few.
 *
 * Why: a look-up asks each segment that covers the id, so that hundreds of them
 * make every new chunk slow; and a collector has to leave out the records of
 * packs that it removes.  The outputs cover disjoint ranges of prefixes: of all
 * of them one look-up reads records in one only, the others answer from
 * their fan-out.
 *
 * Memory: one output (32 bytes per record and the tables), and 28 bytes per pack
 * that the inputs name; the inputs are read once, in order.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "index.h"

#define MERGE_RECORDS_MAX (2u << 20) /* of one output, by default */

/* 1: keep the record, 0: drop it, -1.  It may be moved: `pack` (as the input
 * names it; rec->pack says nothing) to one of the inputs' packs or of `more`,
 * and all of `rec` but its prefix may be changed.  Of records that are equal
 * then one is kept. */
typedef int (*merge_filter_fn)(void *arg, size_t input,
                               struct index_record *rec, struct pack_name *pack,
                               struct err *err);

/* A finished segment, with its SHA-256; the bytes are borrowed.  0, -1. */
typedef int (*merge_emit_fn)(void *arg, const struct segment_name *name,
                             const uint8_t *bytes, size_t len, struct err *err);

struct merge_opts {
    uint8_t sid[REPO_SID_LEN]; /* whose segments the outputs are */
    uint32_t *last_k;          /* raised by one for each output */
    uint32_t records_max;      /* 0: default; all records of one id stay
                                * together, however many they are */
    const struct pack_name *more;
    size_t n_more;
    merge_filter_fn filter; /* NULL: keep all */
    merge_emit_fn emit;
    void *arg; /* of both */
};

/* Merge `n` opened segments.  Every block is checked before its records are
 * used: ERR_CORRUPT names the damaged segment, and what was emitted before must
 * not be used then.  No record kept: nothing is emitted. */
int index_merge(const struct segment *in, size_t n,
                const struct merge_opts *opts, struct err *err);
