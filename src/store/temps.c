/* Temporary files of writers that died: without removing them, each kill in the
 * middle of a pack would cost its size for ever. */
#include "temps.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "err.h"
#include "key.h"

#define DEPTH_MAX 3 /* "data/<sid>/.tmp-..." */

static bool
is_temp(const char *base)
{
    size_t prefix = strlen(DIR_TMP_PREFIX);

    return strncmp(base, DIR_TMP_PREFIX, prefix) == 0 &&
           strlen(base) == prefix + TMP_DIGITS &&
           strspn(base + prefix, "0123456789abcdef") == TMP_DIGITS;
}

bool
temp_name_valid(const char *name)
{
    const char *slash = strrchr(name, '/');
    CLEANUP_FREE char *dir = NULL;

    if (slash == NULL)
        return is_temp(name);
    dir = strndup(name, (size_t)(slash - name));
    return dir != NULL && store_key_valid(dir) && is_temp(slash + 1);
}

struct temps_walk {
    const char *root;
    store_list_fn fn;
    void *arg;
};

static int walk_dir(const struct temps_walk *w, const char *dir, unsigned depth,
                    struct err *err);

/* What vanishes meanwhile is nobody's concern, nor what is not ours. */
static int
walk_entry(const struct temps_walk *w, const char *dir, const char *base,
           unsigned depth, struct err *err)
{
    CLEANUP_FREE char *name = NULL;
    CLEANUP_FREE char *path = NULL;
    struct stat st;

    if (asprintf(&name, "%s%s%s", dir, dir[0] != '\0' ? "/" : "", base) < 0) {
        name = NULL;
        return err_set_errno(err, ENOMEM, "temporary files");
    }
    if (asprintf(&path, "%s/%s", w->root, name) < 0) {
        path = NULL;
        return err_set_errno(err, ENOMEM, "temporary files");
    }
    if (lstat(path, &st) < 0)
        return 0;
    if (S_ISREG(st.st_mode) && temp_name_valid(name))
        return w->fn(w->arg, name, (uint64_t)st.st_size);
    if (S_ISDIR(st.st_mode) && store_key_valid(name) && depth < DEPTH_MAX)
        return walk_dir(w, name, depth + 1, err);
    return 0;
}

static int
walk_dir(const struct temps_walk *w, const char *dir, unsigned depth,
         struct err *err)
{
    CLEANUP_FREE char *path = NULL;
    struct dirent *e;
    int r = 0;
    DIR *d;

    if (asprintf(&path, "%s/%s", w->root, dir) < 0) {
        path = NULL;
        return err_set_errno(err, ENOMEM, "temporary files");
    }
    d = opendir(path);
    if (d == NULL && errno == ENOENT)
        return 0;
    if (d == NULL)
        return err_set_errno(err, errno, "open directory '%s'", path);
    while (r == 0 && (e = readdir(d)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            r = walk_entry(w, dir, e->d_name, depth, err);
    (void)closedir(d);
    return r;
}

int
temps_list(const char *root, store_list_fn fn, void *arg, struct err *err)
{
    struct temps_walk w = {root, fn, arg};

    return walk_dir(&w, "", 1, err);
}
