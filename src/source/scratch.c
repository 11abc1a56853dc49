#include "scratch.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "cleanup.h"
#include "err.h"
#include "inventory.h"

#define ROOM_MIN ((uint64_t)1 << 30)
#define RESERVE_MAX ((uint64_t)64 << 20)
#define RESERVE_IMAGES_MAX ((uint64_t)16 << 30)

uint64_t
scratch_room(uint64_t disks_bytes)
{
    return disks_bytes / 10 > ROOM_MIN ? disks_bytes / 10 : ROOM_MIN;
}

static bool
better(const struct scratch_place *a, const struct scratch_place *b)
{
    if (a->memory != b->memory)
        return !a->memory;
    return a->avail > b->avail;
}

size_t
scratch_choose(const struct scratch_place *v, size_t n, uint64_t room)
{
    size_t best = n;

    for (size_t i = 0; i < n; i++) {
        if (!v[i].usable)
            continue;
        if (!v[i].memory && v[i].avail >= room)
            return i;
        if (best == n || better(&v[i], &v[best]))
            best = i;
    }
    return best;
}

uint64_t
scratch_reserve(uint64_t avail, bool images)
{
    uint64_t share = images ? avail / 4 : avail / 8;
    uint64_t max = images ? RESERVE_IMAGES_MAX : RESERVE_MAX;

    return share < max ? share : max;
}

/* -- looking ----------------------------------------------------------------*/

static void
look_at(struct scratch_place *p)
{
    struct statvfs vfs;
    struct statfs fs;
    struct stat st;

    if (stat(p->dir, &st) < 0 || !S_ISDIR(st.st_mode) ||
        access(p->dir, W_OK | X_OK) < 0 || statvfs(p->dir, &vfs) < 0 ||
        statfs(p->dir, &fs) < 0)
        return;
    p->usable = true;
    p->avail = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    p->memory = fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC;
}

static int
add_place(struct scratch_places *p, char *dir)
{
    for (size_t i = 0; dir != NULL && i < p->n; i++)
        if (strcmp(p->v[i].dir, dir) == 0) {
            free(dir);
            return 0;
        }
    if (dir == NULL)
        return -1;
    p->v[p->n] = (struct scratch_place){.dir = dir};
    look_at(&p->v[p->n++]);
    return 0;
}

/* Directory of an image that is a file of this host; "" for all else. */
static char *
folder_of(const char *file)
{
    const char *slash = file != NULL ? strrchr(file, '/') : NULL;
    struct stat st;

    if (slash == NULL || file[0] != '/' || stat(file, &st) < 0 ||
        !S_ISREG(st.st_mode))
        return strdup("");
    return slash == file ? strdup("/") : strndup(file, (size_t)(slash - file));
}

bool
scratch_with_images(const struct inventory *inv, const char *dir)
{
    struct stat place, st;

    if (stat(dir, &place) < 0)
        return false;
    for (size_t i = 0; i < inv->n; i++) {
        const struct disk *d = &inv->disks[i];

        if (d->skip == NULL && d->file != NULL && stat(d->file, &st) == 0 &&
            S_ISREG(st.st_mode) && st.st_dev == place.st_dev)
            return true;
    }
    return false;
}

int
scratch_look(const struct inventory *inv, struct scratch_places *ret,
             struct err *err)
{
    struct scratch_places p = {.v = calloc(inv->n + 1, sizeof *p.v)};
    int r = p.v != NULL ? add_place(&p, strdup(SCRATCH_SYSTEM)) : -1;

    for (size_t i = 0; r == 0 && i < inv->n; i++) {
        char *dir;

        if (inv->disks[i].skip != NULL)
            continue;
        dir = folder_of(inv->disks[i].file);
        if (dir != NULL && dir[0] == '\0')
            free(dir);
        else
            r = add_place(&p, dir);
    }
    if (r < 0) {
        scratch_places_done(&p);
        return err_set_errno(err, ENOMEM, "places for scratch files");
    }
    *ret = p;
    return 0;
}

void
scratch_places_done(struct scratch_places *p)
{
    for (size_t i = 0; i < p->n; i++)
        free(p->v[i].dir);
    free(p->v);
    *p = (struct scratch_places){0};
}
