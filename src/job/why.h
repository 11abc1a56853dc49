/* job/why.h - may a bitmap be believed, and why is a disk read in full?
 *
 * A bitmap in an image knows what was written to that image.  It does not know
 * what happened below: to the backing files through which the rest is read.  So
 *  1. it is believed only while everything below its image is what it was when
 *     it began: same files, same drivers, not changed since;
 *  2. within one process of QEMU its image must be the same file as well: a
 *     bitmap that was carried to another image (mirror), or an image that was
 *     exchanged below it (reopen), says nothing.  After a restart it came out of
 *     the image itself, so another name or place of that image does no harm.
 * What is put on top and committed back, an older copy of the image with the
 * bitmap of that time, a new place: all harmless, by these two.
 *
 * Pure: records in, words out.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "source.h"

struct jv;
struct point;
struct point_disk;

/* All the reasons there are. */
enum why {
    WHY_INCREMENTAL,
    WHY_FIRST,
    WHY_NEW_DISK,
    WHY_ASKED,
    WHY_RESIZED,
    WHY_CHUNK_SIZE,
    WHY_NOT_BEGUN,
    WHY_INCONSISTENT,
    WHY_RAW_RESTART,
    WHY_RESTART,
    WHY_MISSING,
    WHY_NOT_RECORDING,
    WHY_BUSY,
    WHY_GRANULARITY,
    WHY_FOREIGN,
    WHY_BASE_DAMAGED,
    WHY_CLEARED,
    WHY_MOVED,
    WHY_REPLACED,
    WHY_CHAIN,
    WHY_PIVOT,
    WHY_REMOVED,
    WHY_RAW_OFF,
    WHY_OLD_OFF,
};

const char *why_text(enum why why);
/* No loss of tracking: nothing to warn of. */
bool why_expected(enum why why);

/* WHY_INCREMENTAL, or why the bitmap that began where `then` says must not be
 * believed where `now` says that the disk is (source_disk.info).  What is not
 * known is not held against it. */
enum why why_distrust(const struct jv *then, const struct jv *now);

struct why_facts {
    const struct point_disk *newest; /* newest record of the disk, or NULL */
    size_t n_points;                 /* of the machine */
    const struct source_disk *disk;  /* as it is now */
    uint32_t chunk_size;
    bool asked;          /* for a full read */
    enum tracking state; /* of the newest record's bitmap */
    bool has_bitmaps;    /* the disk has some bitmap of this repository */
    bool was_other;      /* one of them began on another disk */
    bool offline;        /* the machine is off */
};

/* Why there is no base. */
enum why why_full(const struct why_facts *f);

/* What is remarkable about believing the bitmap of `base`; "" when nothing is.
 * It may be an older record than `newest`. */
const char *why_note(const struct why_facts *f, const struct point_disk *base);

/* The UUID of the machine at that point if it is known and not `uuid`, which may
 * be NULL: perhaps two machines share one name.  Else NULL. */
const char *why_other_uuid(const struct point *p, const char *uuid);
