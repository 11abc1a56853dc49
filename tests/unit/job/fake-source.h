/* A machine that exists only here: implements source/source.h for tests of what
 * stands above it.  State is global, for there is one machine per test. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "source.h"

#define FAKE_MAX 8
#define FAKE_CANARIES 8

struct fake_bitmap {
    char generation[33];
    enum tracking state;
};

struct fake {
    const char *name;
    enum rung rung;
    struct source_disk disks[FAKE_MAX];
    size_t n;
    struct fake_bitmap bitmaps[FAKE_MAX]; /* one per disk */
    bool foreign[FAKE_MAX]; /* the disk has another bitmap of the repository */
    /* exports that stand ready for source_begin(), by disk */
    struct source_got got[FAKE_MAX];
    struct source_instant instant;
    /* faults */
    int watch_fails_after; /* calls; 0: never */
    bool release_fails, settle_fails;
    /* what was called */
    unsigned n_begin, n_watch, n_release, n_settled, n_undone, n_close;
    unsigned n_kept;
    char base[FAKE_MAX][33], generation[FAKE_MAX][33];
    uint64_t canaries[FAKE_MAX][FAKE_CANARIES]; /* of the last source_begin() */
    size_t n_canaries[FAKE_MAX];
};
extern struct fake fake;

void fake_reset(void);
