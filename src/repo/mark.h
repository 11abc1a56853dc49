/* repo/mark.h - what the points of a view need.
 *
 * One bit per index record says that the frame is needed; of several copies of
 * one id, the best has the bit.  Maps that share pages cost each page once.
 * Memory: two bits per record, and batches of fixed size.
 */
#pragma once

#include "gc.h"

struct point;

/* `v` has its segments open, outlives the mark, and does not change meanwhile.
 * The packs' live_bytes, n_live and bad_live begin at zero. */
int mark_new(struct gc_view *v, struct mark **ret, struct err *err);
void mark_free(struct mark *m); /* NULL is fine */

/* The point is a root. */
int mark_add(struct mark *m, const struct point *p, struct err *err);

/* Walk the maps of all roots.  Any page that cannot be read, and any page or
 * chunk that no pack holds, is an error. */
int mark_run(struct mark *m, const struct gc *g, struct err *err);

bool mark_is_live(const struct mark *m, uint64_t record);
/* It is, and a copy of it is in a pack that goes: the last one, or one that must
 * not go before another one was proved. */
bool mark_needs_copy(const struct mark *m, uint64_t record);
uint64_t mark_n_chunks(const struct mark *m);
