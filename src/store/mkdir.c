/* Making the directory for a repository, and what that shares with dir.c. */
#include "dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "fileops.h"
#include "store.h"

int
dir_sync(const struct file_ops *ops, const char *path, struct err *err)
{
    int fd = ops->open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    int sys = 0;

    if (fd < 0)
        return err_set_errno(err, errno, "open directory '%s'", path);
    if (ops->fsync(fd) < 0)
        sys = errno;
    (void)ops->close(fd);
    if (sys != 0)
        return err_set_errno(err, sys, "fsync directory '%s'", path);
    return 0;
}

char *
dir_parent(const char *path)
{
    size_t len = strlen(path);

    while (len > 1 && path[len - 1] == '/')
        len--;
    while (len > 0 && path[len - 1] != '/')
        len--;
    while (len > 1 && path[len - 1] == '/')
        len--;
    return len == 0 ? strdup(".") : strndup(path, len);
}

/* -- making -----------------------------------------------------------------*/

typedef bool (*name_fn)(const char *path, const char *name);

/* 1 when `ignore` ignores all names in the directory, 0 when not. */
static int
has_only(const char *path, name_fn ignore, struct err *err)
{
    DIR *d = opendir(path);
    struct dirent *e;
    int empty = 1;

    if (d == NULL)
        return err_set_errno(err, errno, "open directory '%s'", path);
    while (empty && (e = readdir(d)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
            !ignore(path, e->d_name))
            empty = 0;
    (void)closedir(d);
    return empty;
}

static bool
is_temporary(const char *name)
{
    return strncmp(name, DIR_TMP_PREFIX, strlen(DIR_TMP_PREFIX)) == 0;
}

static bool
is_of_a_test(const char *path, const char *name)
{
    (void)path;
    return is_temporary(name) ||
           strncmp(name, STORE_TEST_PREFIX, strlen(STORE_TEST_PREFIX)) == 0;
}

/* Of a repository whose format object was never made: no key that is in there
 * opens anything. */
static bool
is_key_slot(const char *path, const char *name)
{
    (void)path;
    return is_temporary(name) ||
           (strlen(name) == 16 && strspn(name, "0123456789abcdef") == 16);
}

/* The "lost+found" that the root of a file system has from the start, and what
 * somebody left behind who was killed while he made a repository here. */
static bool
is_nothing(const char *path, const char *name)
{
    CLEANUP_FREE char *sub = NULL;
    name_fn ignore = NULL;

    if (is_temporary(name) || strcmp(name, "lost+found") == 0)
        return true;
    if (strcmp(name, "session") == 0)
        ignore = is_of_a_test;
    else if (strcmp(name, "key") == 0)
        ignore = is_key_slot;
    if (ignore == NULL || asprintf(&sub, "%s/%s", path, name) < 0) {
        sub = NULL;
        return false;
    }
    return has_only(sub, ignore, NULL) > 0;
}

int
store_dir_create(const char *path, const struct file_ops *ops, struct err *err)
{
    CLEANUP_FREE char *parent = dir_parent(path);
    int empty;

    if (ops == NULL)
        ops = &file_ops_system;
    if (parent == NULL)
        return err_set_errno(err, ENOMEM, "directory '%s'", path);
    if (ops->mkdir(path, 0700) == 0)
        return dir_sync(ops, parent, err);
    if (errno != EEXIST)
        return err_set_errno(err, errno, "make directory '%s'", path);
    empty = has_only(path, is_nothing, err);
    if (empty < 0)
        return -1;
    if (!empty)
        return err_set(err, ERR_EXISTS,
                       "'%s' is not empty; choose a new or an empty directory",
                       path);
    return 0;
}
