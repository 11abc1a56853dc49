/* repo/salvage.h - what is good in a pack that is damaged; inside of repo. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "frame.h"
#include "internal.h"
#include "pack.h"

/* A frame that proved good.  -1 ends the search. */
typedef int (*salvage_fn)(void *arg, const struct frame_head *h,
                          const uint8_t *frame, size_t len, uint32_t offset,
                          struct err *err);

/* Find frames by their headers alone, as when the table is lost: behind each
 * other, and behind damage at the next place that looks like one (docs/format.md
 * 6).  Pure. */
int salvage_scan(struct frame_ctx *ctx, const uint8_t *data, size_t len,
                 salvage_fn fn, void *arg, struct err *err);

/* The entries of a pack: its table, or else all frames whose headers are whole:
 * of a damaged one it is worth knowing that it was there.  Appended to `entries`
 * (struct pack_entry). */
int salvage_entries(struct repo *r, const struct pack_name *name,
                    struct buf *entries, struct err *err);
