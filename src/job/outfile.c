#include "outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "err.h"

int
outfile_make(int dir_fd, const char *name, bool overwrite, struct outfile *ret,
             struct err *err)
{
    struct outfile f = OUTFILE_INIT;

    f.dir_fd = dir_fd;
    f.overwrite = overwrite;
    f.name = strdup(name);
    if (f.name == NULL ||
        asprintf(&f.partial, ".%s.tidemark-partial", name) < 0) {
        free(f.name);
        return err_set_errno(err, ENOMEM, "file '%s'", name);
    }
    if (unlinkat(dir_fd, f.partial, 0) == 0 || errno == ENOENT)
        f.fd = openat(dir_fd, f.partial,
                      O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (f.fd < 0) {
        (void)err_set_errno(err, errno, "make file '%s'", f.partial);
        free(f.name);
        free(f.partial);
        return -1;
    }
    *ret = f;
    return 0;
}

/* File systems without RENAME_NOREPLACE get a look before the rename. */
static int
rename_new(const struct outfile *f)
{
    struct stat st;

    if (renameat2(f->dir_fd, f->partial, f->dir_fd, f->name,
                  RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL && errno != ENOSYS)
        return -1;
    if (fstatat(f->dir_fd, f->name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        errno = EEXIST;
        return -1;
    }
    return errno == ENOENT ? renameat(f->dir_fd, f->partial, f->dir_fd, f->name)
                           : -1;
}

/* Under the partial name there may be another program's half of a file. */
static bool
is_ours(const struct outfile *f)
{
    struct stat a, b;

    return fstat(f->fd, &a) == 0 &&
           fstatat(f->dir_fd, f->partial, &b, AT_SYMLINK_NOFOLLOW) == 0 &&
           a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

int
outfile_publish(struct outfile *f, struct err *err)
{
    int r;

    if (fsync(f->fd) != 0)
        return err_set_errno(err, errno, "make '%s' durable", f->partial);
    if (!is_ours(f))
        return err_set(err, ERR_EXISTS,
                       "'%s' was removed or replaced meanwhile: does another "
                       "restore write to this directory?",
                       f->partial);
    r = f->overwrite ? renameat(f->dir_fd, f->partial, f->dir_fd, f->name)
                     : rename_new(f);
    if (r != 0 && errno == EEXIST)
        return err_set(err, ERR_EXISTS,
                       "'%s' exists; remove it or use --overwrite", f->name);
    if (r != 0)
        return err_set_errno(err, errno, "rename '%s' to '%s'", f->partial,
                             f->name);
    if (close(TAKE_FD(f->fd)) != 0)
        return err_set_errno(err, errno, "close '%s'", f->name);
    if (fsync(f->dir_fd) != 0)
        return err_set_errno(err, errno, "make the name '%s' durable", f->name);
    return 0;
}

void
outfile_done(struct outfile *f)
{
    if (f->fd >= 0) {
        (void)unlinkat(f->dir_fd, f->partial, 0);
        (void)close(f->fd);
    }
    free(f->name);
    free(f->partial);
    *f = (struct outfile)OUTFILE_INIT;
}
