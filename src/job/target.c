/* job/target.c - before a restore: which disks, into which files. */
#include "restore.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common.h"
#include "image.h"
#include "io.h"
#include "job.h"

/* -- choice -----------------------------------------------------------------*/

static int
check_disk(const struct point *p, size_t i, struct err *err)
{
    const struct point_disk *d = &p->disks[i];

    if (name_check_disk(d->name, err) < 0)
        return -1;
    if (d->chunk_size < REPO_CHUNK_MIN || d->chunk_size > REPO_CHUNK_MAX ||
        (d->chunk_size & (d->chunk_size - 1)) != 0 || d->size > INT64_MAX / 2)
        return err_set(err, ERR_FORMAT, "disk '%s' has an impossible size",
                       d->name);
    if (point_disk(p, d->name) != d)
        return err_set(err, ERR_FORMAT, "there are two disks '%s'", d->name);
    return 0;
}

static int
check_asked(const struct restore *r, struct err *err)
{
    char known[ERR_MSG_MAX / 2] = "";
    size_t len = 0;

    for (size_t i = 0; i < r->point->n_disks && len < sizeof known; i++)
        len += (size_t)snprintf(known + len, sizeof known - len, "%s%s",
                                i > 0 ? ", " : "", r->point->disks[i].name);
    for (const char *const *d = r->opts->disks; d != NULL && *d != NULL; d++)
        if (point_disk(r->point, *d) == NULL)
            return err_set(err, ERR_USAGE,
                           "point '%s' has no disk '%s'; it has: %s",
                           r->opts->point, *d, known);
    return 0;
}

static int
choose_disks(struct restore *r, struct err *err)
{
    if (check_asked(r, err) < 0)
        return -1;
    r->targets = calloc(r->point->n_disks + 1, sizeof *r->targets);
    if (r->targets == NULL || r->point->n_disks >= DISKS_MAX)
        return err_set_errno(err, ENOMEM, "restore of %zu disks",
                             r->point->n_disks);
    for (size_t i = 0; i < r->point->n_disks; i++) {
        const struct point_disk *d = &r->point->disks[i];
        struct target *t = &r->targets[r->n];

        if (r->opts->disks != NULL && !name_in(r->opts->disks, d->name))
            continue;
        if (check_disk(r->point, i, err) < 0) {
            (void)err_side(err, ERR_SIDE_REPO);
            return err_wrap(err, "point '%s'", r->opts->point);
        }
        t->disk = d;
        if (asprintf(&t->file, "%s.%s", d->name, r->opts->format) < 0) {
            t->file = NULL;
            return err_set_errno(err, ENOMEM, "disk '%s'", d->name);
        }
        r->total += d->size;
        r->n++;
    }
    return 0;
}

int
restore_choose(struct restore *r, struct err *err)
{
    r->qcow2 = strcmp(r->opts->format, "qcow2") == 0;
    if (!r->qcow2 && strcmp(r->opts->format, "raw") != 0)
        return err_set(err, ERR_USAGE, "format '%s' is neither qcow2 nor raw",
                       r->opts->format);
    if (open_repo(r->opts->repo, &r->repo, err) < 0 ||
        point_pick(r->repo, r->opts->point, &r->list, &r->point, err) < 0)
        return err_side(err, ERR_SIDE_REPO);
    return choose_disks(r, err);
}

/* -- destination ------------------------------------------------------------*/

/* The directory, made if missing; r->dir becomes its absolute path, because a
 * relative one with a ':' would be a protocol to QEMU. */
static int
open_dir(struct restore *r, struct err *err)
{
    const char *to = r->opts->to;
    bool made = mkdir(to, 0700) == 0;

    if (!made && errno != EEXIST)
        return err_set_errno(err, errno, "make directory '%s'", to);
    r->dir = realpath(to, NULL);
    if (r->dir == NULL)
        return err_set_errno(err, errno, "directory '%s'", to);
    r->dir_fd = open(r->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (r->dir_fd < 0)
        return err_set_errno(err, errno, "open directory '%s'", to);
    if (made) {
        CLEANUP_FREE char *parent = NULL;

        if (asprintf(&parent, "%s/..", r->dir) < 0 || io_sync_dir(parent) < 0)
            return err_set_errno(err, errno, "make directory '%s' durable", to);
    }
    return 0;
}

/* Two restores into one directory would take each other's partial files.  The
 * kernel drops the lock with the process; a file system that has none for
 * directories is no reason not to restore. */
static int
lock_dir(const struct restore *r, struct err *err)
{
    if (flock(r->dir_fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK)
        return 0;
    return err_set(err, ERR_EXISTS,
                   "another restore writes to '%s': wait for it or choose "
                   "another directory",
                   r->opts->to);
}

static int
check_free_name(const struct restore *r, const char *name, struct err *err)
{
    struct stat st;

    if (fstatat(r->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? 0
                               : err_set_errno(err, errno, "look at '%s/%s'",
                                               r->opts->to, name);
    if (r->opts->overwrite && S_ISREG(st.st_mode))
        return 0;
    return err_set(err, ERR_EXISTS,
                   r->opts->overwrite
                       ? "'%s/%s' exists and is no regular file: choose "
                         "another directory"
                       : "'%s/%s' exists: choose another directory or use "
                         "--overwrite",
                   r->opts->to, name);
}

/* Nothing is written before every name is known to be free. */
static int
check_names(const struct restore *r, struct err *err)
{
    for (size_t i = 0; i < r->n; i++)
        if (check_free_name(r, r->targets[i].file, err) < 0)
            return -1;
    return check_free_name(r, CONFIG_FILE, err);
}

static int
make_sock_dir(struct restore *r, struct err *err)
{
    const char *base = secure_getenv("XDG_RUNTIME_DIR");

    /* Socket paths have about 100 bytes. */
    if (base == NULL || base[0] != '/' || strlen(base) > 60)
        base = "/tmp";
    (void)snprintf(r->sock_dir, sizeof r->sock_dir, "%s/tidemark-XXXXXX", base);
    if (mkdtemp(r->sock_dir) != NULL)
        return 0;
    r->sock_dir[0] = '\0';
    return err_set_errno(err, errno, "make a directory in '%s'", base);
}

static int
make_images(struct restore *r, struct err *err)
{
    if (r->qcow2 && make_sock_dir(r, err) < 0)
        return -1;
    for (size_t i = 0; i < r->n; i++) {
        const struct image_opts opts = {.dir_fd = r->dir_fd,
                                        .dir = r->dir,
                                        .name = r->targets[i].file,
                                        .qcow2 = r->qcow2,
                                        .size = r->targets[i].disk->size,
                                        .overwrite = r->opts->overwrite,
                                        .n_workers = r->threads,
                                        .sock_dir = r->sock_dir,
                                        .number = (unsigned)i};

        if (hooks_canceled(r->hooks))
            return err_set(err, ERR_CANCELED, "canceled");
        if (image_make(&opts, &r->targets[i].image, err) < 0)
            return err_wrap(err, "restore to '%s'", r->opts->to);
    }
    return 0;
}

int
restore_prepare(struct restore *r, struct err *err)
{
    if (open_dir(r, err) < 0 || lock_dir(r, err) < 0 ||
        check_names(r, err) < 0 || make_images(r, err) < 0)
        return err_side(err, ERR_SIDE_TARGET);
    return 0;
}
