/* source/scratch.h - where old data goes while a point is read.
 *
 * What is given is taken.  Otherwise the first place with room: /var/tmp, then
 * the directories of the images, whose file systems are the ones that were made
 * large.  Never memory (a tmpfs) if anything else is there: a guest's old data
 * would push the host into swapping.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct inventory;

#define SCRATCH_SYSTEM "/var/tmp"

struct scratch_place {
    char *dir;
    uint64_t avail; /* bytes */
    bool usable;    /* a directory that we may write */
    bool memory;    /* tmpfs, ramfs */
};

/* What should be free: a tenth of the disks, and 1 GiB in any case. */
uint64_t scratch_room(uint64_t disks_bytes);

/* Pure: the first usable place with `room`; else the one with most; memory only
 * when nothing else is usable.  n when there is no usable one. */
size_t scratch_choose(const struct scratch_place *v, size_t n, uint64_t room);

/* Free bytes below which a place is left alone: enough for what a guest can write
 * until we have looked again; where images lie, so much that their thin disks can
 * grow, too. */
uint64_t scratch_reserve(uint64_t avail, bool images);

/* Does an image of the machine lie in the same file system? */
bool scratch_with_images(const struct inventory *inv, const char *dir);

struct scratch_places {
    struct scratch_place *v;
    size_t n;
};
/* Look at the places that come into question without a given one. */
int scratch_look(const struct inventory *inv, struct scratch_places *ret,
                 struct err *err);
void scratch_places_done(struct scratch_places *p);
