/* repo/catalog.h - all index segments of an open repository; for catalog.c,
 * which loads them, and lookup.c, which asks them.
 *
 * Grows and never shrinks, so that locators stay valid.  Protected by the
 * repository's index lock.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "err.h"
#include "index.h"
#include "internal.h"

struct quick;
struct store;

struct loaded {
    struct segment seg;
    const uint8_t *map; /* of the store, or NULL */
    size_t map_len;
    struct buf own; /* copied, or made again from packs */
    bool quick;     /* found through the quick table */
    uint32_t pack_base;
    uint64_t record_base;
};

struct problem {
    char key[REPO_KEY_MAX];
    char text[ERR_MSG_MAX];
};

struct name {
    char key[REPO_KEY_MAX];
};

struct catalog {
    struct loaded *v; /* later ones are newer */
    size_t n, cap;
    size_t n_mapped;   /* segments */
    uint64_t n_copied; /* bytes */
    uint32_t n_packs;
    uint64_t n_records;
    /* By pack: bytes of the object + 1 as seen once, 1 when it is not there, 0:
     * not looked yet.  Readers of the index fill it in. */
    _Atomic uint64_t *pack_len;
    uint32_t packs_cap;
    struct quick *quick; /* of segments 0 .. n_quick - 1 */
    size_t n_quick;
    struct name *seen; /* commit objects, sorted by key */
    size_t n_seen;
    struct problem *problems;
    size_t n_problems;
};

int catalog_new(struct catalog **ret, struct err *err);
void catalog_free(struct catalog *c, struct store *st); /* NULL is fine */
