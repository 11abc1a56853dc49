#include "why.h"

#include <string.h>

#include "jv.h"
#include "repo.h"

static const struct {
    const char *text;
    bool expected;
} reasons[] = {
    [WHY_INCREMENTAL] = {"", true},
    [WHY_FIRST] = {"first backup", true},
    [WHY_NEW_DISK] = {"new disk", true},
    [WHY_ASKED] = {"asked for", true},
    [WHY_RESIZED] = {"resized", false},
    [WHY_CHUNK_SIZE] = {"chunk size changed", false},
    [WHY_NOT_BEGUN] = {"tracking had not begun at the previous point", true},
    [WHY_INCONSISTENT] = {"bitmap inconsistent after crash", false},
    [WHY_RAW_RESTART] = {"raw disk after restart", false},
    [WHY_RESTART] = {"machine restarted; its bitmap was not persistent", false},
    /* QEMU writes it at a clean end only, and ends cleanly without it. */
    [WHY_MISSING] = {"bitmap missing after restart: the machine crashed, its "
                     "image had no room at the shutdown, or an older or other "
                     "image took its place",
                     false},
    [WHY_NOT_RECORDING] = {"bitmap is not recording", false},
    [WHY_BUSY] = {"bitmap is in use by another job", false},
    [WHY_GRANULARITY] = {"bitmap granularity cannot be used", false},
    [WHY_FOREIGN] = {"point not in this repository", false},
    [WHY_BASE_DAMAGED] = {"map of the base point is damaged", false},
    [WHY_CLEARED] = {"bitmap was cleared, cut by a resize or replaced", false},
    [WHY_MOVED] = {"machine moved to another host", false},
    [WHY_REPLACED] = {"disk replaced by another image", false},
    [WHY_CHAIN] = {"backing chain changed", false},
    [WHY_PIVOT] = {"disk moved to another image while the machine ran", false},
    [WHY_REMOVED] = {"bitmap was removed by another program", false},
    [WHY_RAW_OFF] = {"raw disk of a machine that is off", true},
    [WHY_OLD_OFF] = {"image of a machine that is off cannot keep a bitmap",
                     true},
};

const char *
why_text(enum why why)
{
    return reasons[why].text;
}

bool
why_expected(enum why why)
{
    return reasons[why].expected;
}

/* -- where a disk is --------------------------------------------------------*/

enum place {
    PLACE_UNKNOWN,
    PLACE_SAME, /* the same process */
    PLACE_RESTARTED,
    PLACE_MOVED, /* another host */
};

static bool
differs(const struct jv *a, const struct jv *b, const char *key)
{
    const struct jv *va = jv_get(a, key), *vb = jv_get(b, key);

    return va != NULL && vb != NULL && !jv_equal(va, vb);
}

static enum place
place(const struct jv *then, const struct jv *now)
{
    const struct jv *a = jv_get(then, "instance");
    const struct jv *b = jv_get(now, "instance");

    if (differs(a, b, "host"))
        return PLACE_MOVED;
    if (differs(a, b, "boot") || differs(a, b, "pid") || differs(a, b, "start"))
        return PLACE_RESTARTED;
    if (jv_get(a, "start") == NULL || jv_get(b, "start") == NULL)
        return PLACE_UNKNOWN;
    return PLACE_SAME;
}

/* The `n`th image from the top, filters not counted; NULL: no more, or a record
 * that does not know. */
static const struct jv *
image(const struct jv *info, size_t n)
{
    const struct jv *chain = jv_get(info, "chain");

    for (size_t i = 0; i < jv_size(chain); i++) {
        const struct jv *e = jv_at(chain, i);

        if (jv_get(e, "image") != NULL && n-- == 0)
            return e;
    }
    return NULL;
}

static bool
known(const struct jv *then, const struct jv *now)
{
    return image(then, 0) != NULL && image(now, 0) != NULL;
}

/* Files by name; a data file of qcow2 is a part of its image. */
static bool
same_file(const struct jv *a, const struct jv *b)
{
    const struct jv *da = jv_get(a, "data"), *db = jv_get(b, "data");

    return jv_equal(jv_get(a, "image"), jv_get(b, "image")) &&
           (da == NULL) == (db == NULL) && (da == NULL || jv_equal(da, db));
}

/* What lies below is only read, so its time stands still. */
static bool
same_below(const struct jv *then, const struct jv *now)
{
    const struct jv *a = then, *b = now;

    for (size_t i = 1; a != NULL && b != NULL; i++) {
        a = image(then, i);
        b = image(now, i);
        if ((a == NULL) != (b == NULL))
            return false;
        if (a != NULL && (!same_file(a, b) || differs(a, b, "driver") ||
                          differs(a, b, "bytes") || differs(a, b, "mtime_ns")))
            return false;
    }
    return true;
}

/* Is the image at the top of one chain a lower one of the other?  Then something
 * was put over it, or taken away. */
static bool
lies_below(const struct jv *top, const struct jv *info)
{
    for (size_t i = 1; image(info, i) != NULL; i++)
        if (same_file(top, image(info, i)))
            return true;
    return false;
}

static bool
chain_changed(const struct jv *then, const struct jv *now)
{
    return !same_below(then, now) || lies_below(image(then, 0), now) ||
           lies_below(image(now, 0), then);
}

/* -- judgement --------------------------------------------------------------*/

enum why
why_distrust(const struct jv *then, const struct jv *now)
{
    enum place p = place(then, now);

    if (!known(then, now))
        return WHY_INCREMENTAL;
    if (!same_below(then, now))
        return WHY_CHAIN;
    if ((p == PLACE_SAME || p == PLACE_UNKNOWN) &&
        !same_file(image(then, 0), image(now, 0)))
        return WHY_PIVOT;
    return WHY_INCREMENTAL;
}

static enum why
why_restarted(const struct why_facts *f)
{
    if (f->newest->persistent)
        return WHY_MISSING;
    if (f->offline && !f->disk->persistent)
        return strcmp(f->disk->format, "raw") == 0 ? WHY_RAW_OFF : WHY_OLD_OFF;
    return strcmp(f->disk->format, "raw") == 0 ? WHY_RAW_RESTART : WHY_RESTART;
}

static enum why
why_missing(const struct why_facts *f)
{
    const struct jv *then = f->newest->source, *now = f->disk->info;
    const enum place p = place(then, now);
    const struct jv *was = image(then, 0), *is = image(now, 0);

    if (f->was_other)
        return WHY_REPLACED;
    if (f->has_bitmaps)
        return WHY_FOREIGN;
    if (p == PLACE_MOVED)
        return WHY_MOVED;
    if (known(then, now)) {
        if (chain_changed(then, now))
            return WHY_CHAIN;
        if (!same_file(was, is))
            return p == PLACE_SAME ? WHY_PIVOT : WHY_REPLACED;
        if (p == PLACE_RESTARTED && differs(was, is, "inode"))
            return WHY_REPLACED;
    }
    return p == PLACE_SAME ? WHY_REMOVED : why_restarted(f);
}

static enum why
why_tracking(const struct why_facts *f)
{
    switch (f->state) {
    case TRACKING_INCONSISTENT:
        return WHY_INCONSISTENT;
    case TRACKING_NOT_RECORDING:
        return WHY_NOT_RECORDING;
    case TRACKING_BUSY:
        return WHY_BUSY;
    case TRACKING_GRANULARITY:
        return WHY_GRANULARITY;
    case TRACKING_OK:
        return why_distrust(f->newest->source, f->disk->info);
    case TRACKING_MISSING:
    default:
        return why_missing(f);
    }
}

enum why
why_full(const struct why_facts *f)
{
    const struct point_disk *d = f->newest;

    if (f->asked)
        return WHY_ASKED;
    if (d == NULL && f->was_other)
        return WHY_REPLACED;
    if (d == NULL && f->has_bitmaps)
        return WHY_FOREIGN;
    if (d == NULL)
        return f->n_points == 0 ? WHY_FIRST : WHY_NEW_DISK;
    if (d->size != f->disk->size)
        return WHY_RESIZED;
    if (d->chunk_size != f->chunk_size)
        return WHY_CHUNK_SIZE;
    if (d->generation == NULL)
        return WHY_NOT_BEGUN;
    return why_tracking(f);
}

/* -- incremental, but -------------------------------------------------------*/

static const char *
note_older(const struct why_facts *f)
{
    const struct jv *then = f->newest->source, *now = f->disk->info;

    if (f->newest->generation == NULL)
        return "tracking had not begun at the previous point; what changed "
               "since an earlier one is read";
    if (f->newest->size != f->disk->size)
        return "the disk has the size of an earlier point again; what changed "
               "since that one is read";
    if (f->state != TRACKING_MISSING)
        return "the bitmap of the previous point cannot be used; what changed "
               "since an earlier one is read";
    if (known(then, now) &&
        (chain_changed(then, now) || !same_file(image(then, 0), image(now, 0))))
        return "the disk is on the image of an earlier point again; what "
               "changed since that one is read";
    if (place(then, now) == PLACE_SAME)
        return "the bitmap of the previous point was removed by another "
               "program; what changed since an earlier one is read";
    return "the image is an older copy or lost its newest bitmap; what changed "
           "since an earlier point is read";
}

const char *
why_note(const struct why_facts *f, const struct point_disk *base)
{
    const struct jv *then = base->source, *now = f->disk->info;

    if (base != f->newest)
        return note_older(f);
    if (place(then, now) == PLACE_MOVED)
        return "machine moved to another host, and its bitmap with it";
    if (known(then, now) && !same_file(image(then, 0), image(now, 0)))
        return "the image has another name than at the previous point";
    return "";
}

const char *
why_other_uuid(const struct point *p, const char *uuid)
{
    for (size_t i = 0; uuid != NULL && i < p->n_disks; i++) {
        const char *was = jv_get_str(p->disks[i].source, "instance.uuid");

        if (was != NULL)
            return strcmp(was, uuid) != 0 ? was : NULL;
    }
    return NULL;
}
