#include "fileops.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* open() is variadic, so it needs a function of the table's type. */
static int
system_open(const char *path, int flags, mode_t mode)
{
    return open(path, flags, mode);
}

/* stat() may be an inline function of the C library. */
static int
system_stat(const char *path, struct stat *st)
{
    return stat(path, st);
}

const struct file_ops file_ops_system = {
    .open = system_open,
    .pread = pread,
    .pwrite = pwrite,
    .fsync = fsync,
    .close = close,
    .link = link,
    .rename = rename,
    .unlink = unlink,
    .mkdir = mkdir,
    .rmdir = rmdir,
    .stat = system_stat,
};
