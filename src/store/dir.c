/* A store in a directory.
 *
 * What a power cut must not undo is synced in this order: the bytes of the
 * file, then the name in its directory; and before that, once per directory
 * and process, the name of the directory in its parent, also when somebody else
 * made it: he may not have come to his own fsync yet.
 *
 * A little over 600 lines on purpose: creating an object, undoing that, and
 * knowing which directories are synced share one state and one set of rules.
 */
#include "store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "backend.h"
#include "cleanup.h"
#include "dir.h"
#include "err.h"
#include "fileops.h"
#include "key.h"
#include "mapping.h"
#include "probe.h"
#include "rand.h"
#include "temps.h"

#define PUT_TRIES 3
#define WRITE_MAX (8u << 20)   /* bytes per call, so that errors come early */
#define EARLY_MIN (512u << 10) /* bytes worth a call of their own */

struct dir_store {
    /* never changed after store_dir_open() */
    const struct file_ops *ops;
    char *path;

    pthread_mutex_t lock;
    /* protected by lock: directories whose names are durable */
    char **dirs;
    size_t n_dirs;
};

static const struct store_ops dir_ops;

static void dir_close(struct dir_store *s);

DEFINE_CLEANUP(struct dir_store *, dir_close)

/* -- opening ----------------------------------------------------------------*/

static const struct file_ops *
ops_or_system(const struct file_ops *ops)
{
    return ops != NULL ? ops : &file_ops_system;
}

int
store_dir_open(const char *path, const struct file_ops *ops, struct store **ret,
               struct err *err)
{
    CLEANUP(dir_closep) struct dir_store *s = calloc(1, sizeof *s);
    struct stat st;

    if (s == NULL)
        return err_set_errno(err, ENOMEM, "store '%s'", path);
    (void)pthread_mutex_init(&s->lock, NULL);
    s->ops = ops_or_system(ops);
    s->path = strdup(path);
    if (s->path == NULL)
        return err_set_errno(err, ENOMEM, "store '%s'", path);
    if (s->ops->stat(path, &st) < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return err_set(err, ERR_NOT_FOUND, "'%s' does not exist", path);
        return err_set_errno(err, errno, "look at '%s'", path);
    }
    if (!S_ISDIR(st.st_mode))
        return err_set(err, ERR_NOT_FOUND, "'%s' is not a directory", path);
    if (store_wrap(&dir_ops, s, path, ret, err) < 0)
        return -1;
    (void)TAKE_PTR(s);
    return 0;
}

static void
dir_close(struct dir_store *s)
{
    for (size_t i = 0; i < s->n_dirs; i++)
        free(s->dirs[i]);
    free(s->dirs);
    (void)pthread_mutex_destroy(&s->lock);
    free(s->path);
    free(s);
}

static void
op_close(void *impl)
{
    dir_close(impl);
}

/* -- paths ------------------------------------------------------------------*/

static char *
path_of(const struct dir_store *s, const char *key, struct err *err)
{
    char *p;

    if (!store_key_valid(key)) {
        (void)err_set(err, ERR_USAGE, "'%.100s' is no key of a store", key);
        return NULL;
    }
    if (asprintf(&p, "%s/%s", s->path, key) < 0) {
        (void)err_set_errno(err, ENOMEM, "path of '%s'", key);
        return NULL;
    }
    return p;
}

static bool
dir_known_locked(struct dir_store *s, const char *dir)
{
    for (size_t i = 0; i < s->n_dirs; i++)
        if (strcmp(s->dirs[i], dir) == 0)
            return true;
    return false;
}

/* Forgetting that a directory is durable costs only an fsync: no memory for the
 * note is no error. */
static void
dir_note_locked(struct dir_store *s, const char *dir)
{
    char **v = realloc(s->dirs, (s->n_dirs + 1) * sizeof *v);
    char *copy = strdup(dir);

    if (v != NULL)
        s->dirs = v;
    if (v == NULL || copy == NULL) {
        free(copy);
        return;
    }
    s->dirs[s->n_dirs++] = copy;
}

/* Make `dir` (below the root of the store) and all above it, durably. */
static int
make_dirs_locked(struct dir_store *s, const char *dir, struct err *err)
{
    size_t root = strlen(s->path);

    for (const char *end = dir + root; *end != '\0';) {
        CLEANUP_FREE char *level = NULL;
        CLEANUP_FREE char *parent = NULL;

        end++;
        end += strcspn(end, "/");
        level = strndup(dir, (size_t)(end - dir));
        parent = level != NULL ? dir_parent(level) : NULL;
        if (parent == NULL)
            return err_set_errno(err, ENOMEM, "make directory '%s'", dir);
        if (dir_known_locked(s, level))
            continue;
        if (s->ops->mkdir(level, 0700) < 0 && errno != EEXIST)
            return err_set_errno(err, errno, "make directory '%s'", level);
        if (dir_sync(s->ops, parent, err) < 0)
            return -1;
        dir_note_locked(s, level);
    }
    return 0;
}

static int
make_dirs(struct dir_store *s, const char *dir, struct err *err)
{
    int r;

    (void)pthread_mutex_lock(&s->lock);
    r = make_dirs_locked(s, dir, err);
    (void)pthread_mutex_unlock(&s->lock);
    return r;
}

/* -- writing ----------------------------------------------------------------*/

/* An object that is being made. */
struct dir_writer {
    struct dir_store *s;
    char *key, *final, *dir;
    char *tmp; /* NULL: there is no temporary file */
    int fd;    /* of it, or -1 */
    uint64_t len;
    bool lost; /* the temporary file was gone before it had its name */
};

static void
op_end(void *impl)
{
    struct dir_writer *w = impl;

    if (w->fd >= 0)
        (void)w->s->ops->close(w->fd);
    if (w->tmp != NULL)
        (void)w->s->ops->unlink(w->tmp);
    free(w->key);
    free(w->final);
    free(w->dir);
    free(w->tmp);
    free(w);
}

static void
end_writer(struct dir_writer *w)
{
    op_end(w);
}
DEFINE_CLEANUP(struct dir_writer *, end_writer)

static int
create_temp(struct dir_writer *w, struct err *err)
{
    uint8_t random[8];
    char hex[2 * sizeof random + 1];
    CLEANUP_FREE char *tmp = NULL;

    rand_bytes(random, sizeof random);
    hex_encode(random, sizeof random, hex);
    if (asprintf(&tmp, "%s/" DIR_TMP_PREFIX "%s", w->dir, hex) < 0) {
        tmp = NULL;
        return err_set_errno(err, ENOMEM, "path of '%s'", w->key);
    }
    w->fd = w->s->ops->open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (w->fd < 0)
        return err_set_errno(err, errno, "create '%s'", tmp);
    w->tmp = TAKE_PTR(tmp);
    return 0;
}

static int
op_begin(void *impl, const char *key, void **ret, struct err *err)
{
    struct dir_store *s = impl;
    CLEANUP(end_writerp) struct dir_writer *w = calloc(1, sizeof *w);

    if (w == NULL)
        return err_set_errno(err, ENOMEM, "path of '%s'", key);
    w->s = s;
    w->fd = -1;
    w->final = path_of(s, key, err);
    if (w->final == NULL)
        return -1;
    w->key = strdup(key);
    w->dir = dir_parent(w->final);
    if (w->key == NULL || w->dir == NULL)
        return err_set_errno(err, ENOMEM, "path of '%s'", key);
    if (strlen(w->dir) > strlen(s->path) && make_dirs(s, w->dir, err) < 0)
        return -1;
    if (create_temp(w, err) < 0)
        return -1;
    *ret = TAKE_PTR(w);
    return 0;
}

static int
write_all(struct dir_writer *w, const uint8_t *p, size_t len)
{
    size_t done = 0;

    while (done < len) {
        size_t part = len - done < WRITE_MAX ? len - done : WRITE_MAX;
        ssize_t n =
            w->s->ops->pwrite(w->fd, p + done, part, (off_t)(w->len + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            errno = EIO;
        if (n <= 0)
            return -1;
        done += (size_t)n;
    }
    return 0;
}

static int
op_add(void *impl, const void *data, size_t len, struct err *err)
{
    struct dir_writer *w = impl;

    if (write_all(w, data, len) < 0)
        return err_set_errno(err, errno, "write %zu bytes to '%s'", len,
                             w->tmp);
    /* Let the disk begin; no result of this counts, the fsync's does. */
    if (len >= EARLY_MIN)
        (void)sync_file_range(w->fd, (off_t)w->len, (off_t)len,
                              SYNC_FILE_RANGE_WRITE);
    w->len += len;
    return 0;
}

/* The bytes are durable, only the name is missing. */
static int
finish_temp(struct dir_writer *w, struct err *err)
{
    int fd = w->fd;

    /* Never again on this descriptor: the kernel reports a lost page once. */
    if (w->s->ops->fsync(fd) < 0)
        return err_set_errno(err, errno, "fsync '%s'", w->tmp);
    w->fd = -1;
    if (w->s->ops->close(fd) < 0)
        return err_set_errno(err, errno, "close '%s'", w->tmp);
    return 0;
}

/* Give the file its name, unless the name is taken.  A network file system may
 * repeat a request whose answer was lost and then say "exists" of our own link:
 * the link count knows better.  Where it cannot be asked, nobody knows whose
 * link it is, and that is not ERR_EXISTS: the caller would take back what may
 * have become visible. */
static int
link_final(struct dir_writer *w, struct err *err)
{
    const struct file_ops *ops = w->s->ops;
    struct stat st;
    bool known;
    int sys;

    if (ops->link(w->tmp, w->final) == 0)
        return 0;
    sys = errno;
    known = ops->stat(w->tmp, &st) == 0;
    w->lost = sys == ENOENT && !known && errno == ENOENT;
    if (known && st.st_nlink == 2)
        return 0;
    if (sys == EEXIST && known)
        return err_set(err, ERR_EXISTS, "object '%s' exists already in '%s'",
                       w->key, w->s->path);
    if (sys == EPERM || sys == EOPNOTSUPP || sys == ENOSYS)
        return err_set(err, ERR_UNSUPPORTED,
                       "the file system of '%s' has no hard links, which are "
                       "needed to create objects exclusively; use another one",
                       w->s->path);
    return err_set_errno(err, sys, "link '%s' to '%s'", w->tmp, w->final);
}

static int
op_commit(void *impl, struct err *err)
{
    struct dir_writer *w = impl;

    if (finish_temp(w, err) < 0 || link_final(w, err) < 0)
        return -1;
    /* A temporary name that stays behind is shown by nobody. */
    (void)w->s->ops->unlink(w->tmp);
    free(w->tmp);
    w->tmp = NULL;
    return dir_sync(w->s->ops, w->dir, err);
}

/* -- reading ----------------------------------------------------------------*/

static int
open_object(struct dir_store *s, const char *key, int *ret_fd, struct err *err)
{
    CLEANUP_FREE char *path = path_of(s, key, err);

    if (path == NULL)
        return -1;
    *ret_fd = s->ops->open(path, O_RDONLY | O_CLOEXEC, 0);
    if (*ret_fd >= 0)
        return 0;
    if (errno == ENOENT || errno == ENOTDIR)
        return err_set(err, ERR_NOT_FOUND, "no object '%s' in '%s'", key,
                       s->path);
    return err_set_errno(err, errno, "open '%s'", path);
}

static int
read_range(struct dir_store *s, int fd, const char *key, uint64_t off,
           uint8_t *p, size_t len, struct err *err)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n =
            s->ops->pread(fd, p + done, len - done, (off_t)(off + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set_errno(err, errno, "read '%s/%s'", s->path, key);
        if (n == 0)
            return err_set(err, ERR_CORRUPT,
                           "object '%s' in '%s' ends at %llu, needed are %zu "
                           "bytes at %llu",
                           key, s->path, (unsigned long long)(off + done), len,
                           (unsigned long long)off);
        done += (size_t)n;
    }
    return 0;
}

static int
op_get(void *impl, const char *key, uint64_t off, size_t len, void *buf,
       struct err *err)
{
    struct dir_store *s = impl;
    int fd, r;

    if (open_object(s, key, &fd, err) < 0)
        return -1;
    r = read_range(s, fd, key, off, buf, len, err);
    (void)s->ops->close(fd);
    return r;
}

static int
op_size(void *impl, const char *key, uint64_t *ret_len, struct err *err)
{
    struct dir_store *s = impl;
    CLEANUP_FREE char *path = path_of(s, key, err);
    struct stat st;

    if (path == NULL)
        return -1;
    if (s->ops->stat(path, &st) < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return 0;
        return err_set_errno(err, errno, "look at '%s'", path);
    }
    *ret_len = (uint64_t)st.st_size;
    return 1;
}

/* -- writing a whole object -------------------------------------------------*/

/* An earlier try of ours may have given the name after all, its answer lost: 1, 0,
 * -1 when that cannot be found out. */
static int
is_ours(struct dir_store *s, const char *key, const void *data, size_t len,
        struct err *err)
{
    CLEANUP_FREE uint8_t *there = malloc(len + 1);
    uint64_t size = 0;

    if (there == NULL)
        return err_set_errno(err, ENOMEM, "look at '%s'", key);
    if (op_size(s, key, &size, err) < 0)
        return -1;
    if (size != len)
        return 0;
    if (op_get(s, key, 0, len, there, err) < 0)
        return -1;
    return memcmp(there, data, len) == 0;
}

/* 1: the temporary file was removed by somebody who tidied up. */
static int
try_put(struct dir_store *s, const char *key, const void *data, size_t len,
        struct err *err)
{
    struct dir_writer *w;
    void *impl;
    int r;

    if (op_begin(s, key, &impl, err) < 0)
        return -1;
    w = impl;
    r = op_add(w, data, len, err);
    if (r == 0)
        r = op_commit(w, err);
    if (r < 0 && w->lost)
        r = 1;
    op_end(w);
    return r;
}

static int
sync_name(const struct dir_store *s, const char *key, struct err *err)
{
    CLEANUP_FREE char *path = path_of(s, key, err);
    CLEANUP_FREE char *dir = path != NULL ? dir_parent(path) : NULL;

    if (dir == NULL)
        return err_set_errno(err, ENOMEM, "path of '%s'", key);
    return dir_sync(s->ops, dir, err);
}

static int
op_put(void *impl, const char *key, const void *data, size_t len,
       struct err *err)
{
    struct dir_store *s = impl;
    struct err why = ERR_INIT;
    int r = 1, ours;

    for (unsigned i = 0; i < PUT_TRIES && r > 0; i++) {
        err_clear(&why);
        r = try_put(s, key, data, len, &why);
        if (r == 0 || i == 0 || why.code != ERR_EXISTS)
            continue;
        ours = is_ours(s, key, data, len, err);
        if (ours != 0)
            return ours < 0 ? -1 : sync_name(s, key, err);
    }
    return r == 0 ? 0 : err_copy(err, &why);
}

/* mmap() refuses an empty file. */
static const uint8_t empty_object[1];

static int
op_map(void *impl, const char *key, const uint8_t **ret, size_t *ret_len,
       struct err *err)
{
    struct dir_store *s = impl;
    CLEANUP_FREE char *path = path_of(s, key, err);
    struct stat st;
    int fd, r;

    if (path == NULL || open_object(s, key, &fd, err) < 0)
        return -1;
    *ret = empty_object;
    r = fstat(fd, &st);
    if (r < 0)
        (void)err_set_errno(err, errno, "look at '%s'", path);
    else if (st.st_size > 0)
        r = mapping_new(fd, (size_t)st.st_size, path, ret, err);
    (void)s->ops->close(fd);
    if (r == 0)
        *ret_len = (size_t)st.st_size;
    return r;
}

static void
op_unmap(void *impl, const uint8_t *data, size_t len)
{
    (void)impl;
    if (len > 0)
        mapping_free(data, len);
}

static int
op_check_map(void *impl, const uint8_t *data, struct err *err)
{
    (void)impl;
    return mapping_check(data, err);
}

/* -- listing and removing ---------------------------------------------------*/

struct walk {
    struct dir_store *s;
    store_list_fn fn;
    void *arg;
};

static int list_dir(const struct walk *w, const char *prefix, unsigned depth,
                    struct err *err);

static int
list_entry(const struct walk *w, const char *prefix, const char *name,
           unsigned depth, struct err *err)
{
    CLEANUP_FREE char *key = NULL;
    CLEANUP_FREE char *path = NULL;
    struct stat st;

    if (asprintf(&key, "%s/%s", prefix, name) < 0) {
        key = NULL;
        return err_set_errno(err, ENOMEM, "list '%s'", prefix);
    }
    if (!store_key_valid(key))
        return 0; /* not ours: temporary files, an editor's, a trash can's */
    path = path_of(w->s, key, err);
    if (path == NULL)
        return -1;
    if (w->s->ops->stat(path, &st) < 0) {
        if (errno == ENOENT)
            return 0; /* removed since it was listed */
        return err_set_errno(err, errno, "look at '%s'", path);
    }
    if (S_ISDIR(st.st_mode))
        return depth < 3 ? list_dir(w, key, depth + 1, err) : 0;
    return w->fn(w->arg, key, (uint64_t)st.st_size);
}

static int
list_dir(const struct walk *w, const char *prefix, unsigned depth,
         struct err *err)
{
    CLEANUP_FREE char *path = path_of(w->s, prefix, err);
    struct dirent *e;
    DIR *d;
    int r = 0, sys;

    if (path == NULL)
        return -1;
    d = opendir(path);
    if (d == NULL && (errno == ENOENT || errno == ENOTDIR))
        return 0;
    if (d == NULL)
        return err_set_errno(err, errno, "open directory '%s'", path);
    for (;;) {
        errno = 0;
        e = readdir(d);
        sys = errno;
        if (e == NULL)
            break;
        if (e->d_name[0] != '.')
            r = list_entry(w, prefix, e->d_name, depth, err);
        if (r != 0)
            break;
    }
    (void)closedir(d);
    /* An error in the middle must not look like a short list. */
    if (r == 0 && sys != 0)
        return err_set_errno(err, sys, "read directory '%s'", path);
    return r;
}

static int
op_list(void *impl, const char *kind, store_list_fn fn, void *arg,
        struct err *err)
{
    struct dir_store *s = impl;
    struct walk w = {s, fn, arg};

    return list_dir(&w, kind, 0, err);
}

static void
forget_dir(struct dir_store *s, const char *dir)
{
    (void)pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->n_dirs; i++) {
        if (strcmp(s->dirs[i], dir) != 0)
            continue;
        free(s->dirs[i]);
        s->dirs[i] = s->dirs[--s->n_dirs];
        break;
    }
    (void)pthread_mutex_unlock(&s->lock);
}

/* The directory of a "kind/session/name" goes with its last object. */
static void
remove_empty_dir(struct dir_store *s, const char *key, const char *path)
{
    const char *slash = strchr(key, '/');
    CLEANUP_FREE char *dir = NULL;

    if (slash == NULL || strchr(slash + 1, '/') == NULL)
        return;
    dir = dir_parent(path);
    if (dir != NULL && s->ops->rmdir(dir) == 0)
        forget_dir(s, dir);
}

static int
op_delete(void *impl, const char *key, struct err *err)
{
    struct dir_store *s = impl;
    CLEANUP_FREE char *path = path_of(s, key, err);

    if (path == NULL)
        return -1;
    if (s->ops->unlink(path) < 0 && errno != ENOENT && errno != ENOTDIR)
        return err_set_errno(err, errno, "remove '%s'", path);
    remove_empty_dir(s, key, path);
    return 0;
}

static int
sync_subdirs(struct dir_store *s, const char *path, struct err *err)
{
    DIR *d = opendir(path);
    struct dirent *e;
    int r = 0, sys = 0;

    if (d == NULL)
        return err_set_errno(err, errno, "open directory '%s'", path);
    for (;;) {
        CLEANUP_FREE char *sub = NULL;
        struct stat st;

        errno = 0;
        e = readdir(d);
        sys = errno;
        if (e == NULL || r < 0)
            break;
        if (e->d_name[0] == '.')
            continue;
        if (asprintf(&sub, "%s/%s", path, e->d_name) < 0) {
            sub = NULL;
            r = err_set_errno(err, ENOMEM, "sync '%s'", path);
        } else if (s->ops->stat(sub, &st) == 0 && S_ISDIR(st.st_mode)) {
            r = dir_sync(s->ops, sub, err);
            if (r < 0 && s->ops->stat(sub, &st) < 0 && errno == ENOENT) {
                err_clear(err); /* removed meanwhile, with what was in it */
                r = 0;
            }
        }
    }
    (void)closedir(d);
    if (r == 0 && sys != 0)
        return err_set_errno(err, sys, "read directory '%s'", path);
    return r;
}

static int
op_sync(void *impl, const char *kind, struct err *err)
{
    struct dir_store *s = impl;
    CLEANUP_FREE char *path = path_of(s, kind, err);
    struct stat st;

    if (path == NULL)
        return -1;
    if (s->ops->stat(path, &st) < 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return 0; /* nothing was ever there */
        return err_set_errno(err, errno, "look at '%s'", path);
    }
    if (sync_subdirs(s, path, err) < 0)
        return -1;
    return dir_sync(s->ops, path, err);
}

static int
op_list_temps(void *impl, store_list_fn fn, void *arg, struct err *err)
{
    struct dir_store *s = impl;

    return temps_list(s->path, fn, arg, err);
}

static int
op_delete_temp(void *impl, const char *name, struct err *err)
{
    struct dir_store *s = impl;
    CLEANUP_FREE char *path = NULL;

    if (!temp_name_valid(name))
        return err_set(err, ERR_USAGE, "'%.100s' is no temporary file", name);
    if (asprintf(&path, "%s/%s", s->path, name) < 0) {
        path = NULL;
        return err_set_errno(err, ENOMEM, "path of '%s'", name);
    }
    if (s->ops->unlink(path) < 0 && errno != ENOENT && errno != ENOTDIR)
        return err_set_errno(err, errno, "remove '%s'", path);
    remove_empty_dir(s, name, path);
    return 0;
}

static int
op_free_space(void *impl, uint64_t *ret, struct err *err)
{
    struct dir_store *s = impl;
    struct statvfs v;

    if (statvfs(s->path, &v) < 0)
        return err_set_errno(err, errno, "free space of '%s'", s->path);
    *ret = (uint64_t)v.f_bavail * v.f_frsize;
    return 0;
}

static int
op_probe(void *impl, struct err *err)
{
    struct dir_store *s = impl;

    return probe_dir(s->path, s->ops, err);
}

static int
op_reopen(void *impl, struct store **ret, struct err *err)
{
    struct dir_store *s = impl;

    return store_dir_open(s->path, s->ops, ret, err);
}

static const struct store_ops dir_ops = {
    .close = op_close,
    .put = op_put,
    .get = op_get,
    .size = op_size,
    .map = op_map,
    .unmap = op_unmap,
    .check_map = op_check_map,
    .list = op_list,
    .delete = op_delete,
    .sync = op_sync,
    .list_temps = op_list_temps,
    .delete_temp = op_delete_temp,
    .free_space = op_free_space,
    .begin = op_begin,
    .add = op_add,
    .commit = op_commit,
    .end = op_end,
    .probe = op_probe,
    .reopen = op_reopen,
};
