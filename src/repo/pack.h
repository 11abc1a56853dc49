/* repo/pack.h - many frames in one object, and a table to find them.
 *
 * Why packs: a 1 TiB disk has millions of chunks; one object each would make
 * listing slower than reading.  A pack is built in memory, in parts or
 * whole, written once and never changed.  Its table makes it possible to rebuild an index from packs
 * alone.  Bytes: docs/format.md, "Packs".
 *
 * Threads: a pack belongs to one thread at a time.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "internal.h"

#define PACK_HEAD_LEN 64
#define PACK_ENTRY_LEN 48
#define PACK_FOOT_LEN 64
#define PACK_LEN_MAX (1u << 30) /* bytes, of a whole pack */

struct frame_head;
struct pack;

/* Data and what describes it go to separate packs, so that reading all maps
 * does not mean reading all data. */
enum pack_class {
    PACK_DATA = 1,
    PACK_META = 2,
};

struct pack_name {
    uint8_t sid[REPO_SID_LEN];
    enum pack_class class;
    uint32_t seq;
};

/* "data/<sid>/<seq>" or "meta/<sid>/<seq>" */
void pack_key(const struct pack_name *n, char key[REPO_KEY_MAX]);

/* -- building ---------------------------------------------------------------*/

int pack_new(const struct pack_name *name, struct pack **ret, struct err *err);
/* Move out what it holds so far, so that it can be written while the pack grows;
 * `mem` (empty, its memory is used again) becomes it.  *ret_off is where in the
 * pack that begins. */
void pack_hand_over(struct pack *p, struct buf *mem, uint64_t *ret_off);

void pack_free(struct pack *p); /* NULL is fine */

/* Append a frame; *ret_off is where it begins. */
int pack_add(struct pack *p, const struct frame_head *head,
             const uint8_t *frame, size_t len, uint32_t *ret_off,
             struct err *err);
/* Append table and footer: nothing can be added afterwards. */
int pack_finish(struct pack *p, struct err *err);

const struct pack_name *pack_name(const struct pack *p);
/* What it holds: all of it, or what follows the last hand-over. */
const uint8_t *pack_bytes(const struct pack *p);
size_t pack_held(const struct pack *p);
size_t pack_len(const struct pack *p); /* bytes so far */
uint32_t pack_n_frames(const struct pack *p);

/* -- reading ----------------------------------------------------------------*/

struct pack_view {
    struct pack_name name;
    uint32_t n_entries;
    uint64_t table_off;   /* end of the frames */
    const uint8_t *table; /* borrowed */
};

struct pack_entry {
    struct chunk_id id;
    enum frame_kind kind;
    uint32_t offset, frame_len, raw_len;
};

/* Check header, footer and table of a whole pack; entries lie in it.  The
 * frames themselves are not looked at. */
int pack_parse(const uint8_t *bytes, size_t len, struct pack_view *ret,
               struct err *err);
void pack_entry_at(const struct pack_view *v, uint32_t i,
                   struct pack_entry *ret);
