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
#include "pack.h"

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

/* A point, by its commit object's own word. */
struct tip {
    char sid[REPO_SID_TEXT];
    uint64_t seq;
    char *machine;
};

struct tips {
    struct tip *v;
    size_t n, cap;
};
/* Note the point of commit/<sid>.1; NULL, or one that is none: nothing. */
int tips_add(struct tips *t, const char *sid, const struct jv *point,
             struct err *err);
void tips_done(struct tips *t);

/* Sorted once filled. */
struct names {
    struct name *v;
    size_t n, cap;
};
int names_add(struct names *l, const char *key, struct err *err);
void names_sort(struct names *l);
bool names_has(const struct names *l, const char *key); /* sorted */
void names_done(struct names *l);

/* What a verification said of one frame. */
struct bad_frame {
    struct pack_name pack;
    uint32_t at; /* offset in the pack */
    bool noted;  /* by a bad list; else this process has seen it */
};

/* By pack, as the sets below say. */
enum {
    PACK_IS_GONE = 1,
    PACK_IS_CONDEMNED = 2,
    PACK_IS_BAD = 4,
    PACK_HAS_BAD_FRAMES = 8,
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
    uint8_t *pack_flags; /* by pack; packs_cap of them */
    struct quick *quick; /* of segments 0 .. n_quick - 1 */
    size_t n_quick;
    struct names seen; /* commit objects and records that were read */
    struct tips tips;  /* points among them, also those that are gone */

    /* What collectors and verifications said (notes.c). */
    struct pack_set *gone, *condemned, *bad;
    bool condemned_unknown; /* a condemned list cannot be read */
    struct names gone_index;
    struct id_list removed; /* sessions whose commit objects do not count */
    struct bad_frame *bad_frames; /* sorted */
    size_t n_bad_frames;
    bool bad_missing; /* a verification found chunks without any record */
    struct problem *problems;
    size_t n_problems;
};

int catalog_new(struct catalog **ret, struct err *err);
void catalog_free(struct catalog *c, struct store *st); /* NULL is fine */

/* -- catalog.c, for rebuild.c -------------------------------------------------*/

/* Takes over `l`, also its bytes. */
int catalog_add(struct catalog *c, struct loaded *l, struct err *err);
int catalog_problem(struct catalog *c, const char *key, const struct err *why,
                    struct err *err);

/* -- rebuild.c --------------------------------------------------------------*/

/* Make a segment again in memory from the tables of the packs that `payload`
 * names; with `all`, from those of all commit objects that count. */
int rebuild_segment(struct repo *r, const struct jv *payload, bool all,
                    struct err *err);

/* -- notes.c ----------------------------------------------------------------*/

/* Read the condemned lists and bad lists that were not read yet.  One that
 * cannot be read is a problem, not an error. */
int notes_read(struct repo *r, struct err *err);
/* Take in "gone" of a collector's COMMIT; NULL is fine. */
int notes_gone(struct catalog *c, const struct jv *gone, struct err *err);
/* Work out the flags of packs `from` and up. */
void notes_flag(struct catalog *c, uint32_t from);
bool notes_frame_bad(const struct catalog *c, const struct pack_name *pack,
                     uint32_t at);
/* The same, of what bad lists say only. */
bool notes_frame_noted(const struct catalog *c, const struct pack_name *pack,
                       uint32_t at);
