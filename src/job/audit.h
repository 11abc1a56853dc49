/* job/audit.h - which clean chunks an incremental reads again, to prove that
 * they are.
 *
 * A bitmap can look healthy and lie: disabled, written and enabled again by
 * another program, it has its canaries and lacks blocks.  So each incremental
 * re-reads some of what it takes to be unchanged.  The disk is cut into granules
 * of 1 MiB (or one chunk, when that is more) and these into blocks of `period`
 * granules; of each block one is read per run.  Which one depends on the round, which counts
 * the runs: in `period` successive runs each granule comes up exactly once, so a single missed
 * chunk is found within that many, and many of them most likely at once.
 *
 * Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define AUDIT_GRANULE (1u << 20)

struct audit {
    uint64_t period;  /* runs until everything was read; 0: no audit */
    uint64_t round;   /* any number; each run adds one */
    uint64_t granule; /* chunks; 1 or more */
};

/* For a share of 1 to 10000 of 10000 granules per run; 0: no audit. */
struct audit audit_choose(unsigned share, uint64_t round, uint32_t chunk_size);

/* The first chosen run of chunks that ends behind chunk `index` of a disk with
 * `n_chunks`.  False: there is none. */
bool audit_next(const struct audit *a, uint64_t n_chunks, uint64_t index,
                uint64_t *ret_index, uint64_t *ret_n);
