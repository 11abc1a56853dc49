/* job/heal.h - chunks that the repository has lost and the machine may still
 * have: an incremental reads them as if they were dirty, and no chunk of the
 * base stands in for them, so that they are stored again.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct nbd_extents;

struct heal_run {
    uint64_t index, n; /* chunks */
};

struct heal {
    struct heal_run *v; /* ascending */
    size_t n, cap;
    uint64_t n_chunks;
};

/* A repo_damaged_fn; `arg` is the struct heal. */
int heal_add(void *arg, uint64_t index, uint64_t n, struct err *err);
void heal_done(struct heal *h);
bool heal_has(const struct heal *h, uint64_t index);

/* Add what lies in off .. off + len - 1 to the extents with a flag.  Those
 * without one are dropped; what is left ascends and does not overlap. */
int heal_extents(const struct heal *h, uint32_t chunk_size, uint64_t off,
                 uint64_t len, struct nbd_extents *e, struct err *err);
