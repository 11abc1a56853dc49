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
#include <sys/mman.h>
#include <sys/statvfs.h>

#include "cleanup.h"
#include "err.h"
#include "fileops.h"
#include "key.h"
#include "rand.h"

#define TMP_PREFIX ".tmp-"
#define WRITE_MAX (8u << 20) /* bytes per call, so that errors come early */

struct store {
    /* never changed after store_dir_open() */
    const struct file_ops *ops;
    char *path;

    pthread_mutex_t lock;
    /* protected by lock: directories whose names are durable */
    char **dirs;
    size_t n_dirs;
};

DEFINE_CLEANUP(struct store *, store_close)

/* -- opening ----------------------------------------------------------------*/

static const struct file_ops *
ops_or_system(const struct file_ops *ops)
{
    return ops != NULL ? ops : &file_ops_system;
}

static int
sync_dir(const struct file_ops *ops, const char *path, struct err *err)
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

/* "a/b" -> "a", "a" -> ".", "/a" -> "/" */
static char *
parent_of(const char *path)
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

/* The root of a file system has a "lost+found" from the start. */
static int
dir_is_empty(const char *path, struct err *err)
{
    DIR *d = opendir(path);
    struct dirent *e;
    int empty = 1;

    if (d == NULL)
        return err_set_errno(err, errno, "open directory '%s'", path);
    while (empty && (e = readdir(d)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
            strcmp(e->d_name, "lost+found") != 0)
            empty = 0;
    (void)closedir(d);
    return empty;
}

int
store_dir_create(const char *path, const struct file_ops *ops, struct err *err)
{
    CLEANUP_FREE char *parent = parent_of(path);
    int empty;

    ops = ops_or_system(ops);
    if (parent == NULL)
        return err_set_errno(err, ENOMEM, "directory '%s'", path);
    if (ops->mkdir(path, 0700) == 0)
        return sync_dir(ops, parent, err);
    if (errno != EEXIST)
        return err_set_errno(err, errno, "make directory '%s'", path);
    empty = dir_is_empty(path, err);
    if (empty < 0)
        return -1;
    if (!empty)
        return err_set(err, ERR_EXISTS,
                       "'%s' is not empty; choose a new or an empty directory",
                       path);
    return 0;
}

int
store_dir_open(const char *path, const struct file_ops *ops, struct store **ret,
               struct err *err)
{
    CLEANUP(store_closep) struct store *s = calloc(1, sizeof *s);
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
    *ret = TAKE_PTR(s);
    return 0;
}

void
store_close(struct store *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->n_dirs; i++)
        free(s->dirs[i]);
    free(s->dirs);
    (void)pthread_mutex_destroy(&s->lock);
    free(s->path);
    free(s);
}

const char *
store_path(const struct store *s)
{
    return s->path;
}

/* -- paths ------------------------------------------------------------------*/

static char *
path_of(const struct store *s, const char *key, struct err *err)
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
dir_known_locked(struct store *s, const char *dir)
{
    for (size_t i = 0; i < s->n_dirs; i++)
        if (strcmp(s->dirs[i], dir) == 0)
            return true;
    return false;
}

/* Forgetting that a directory is durable costs only an fsync: no memory for the
 * note is no error. */
static void
dir_note_locked(struct store *s, const char *dir)
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
make_dirs_locked(struct store *s, const char *dir, struct err *err)
{
    size_t root = strlen(s->path);

    for (const char *end = dir + root; *end != '\0';) {
        CLEANUP_FREE char *level = NULL;
        CLEANUP_FREE char *parent = NULL;

        end++;
        end += strcspn(end, "/");
        level = strndup(dir, (size_t)(end - dir));
        parent = level != NULL ? parent_of(level) : NULL;
        if (parent == NULL)
            return err_set_errno(err, ENOMEM, "make directory '%s'", dir);
        if (dir_known_locked(s, level))
            continue;
        if (s->ops->mkdir(level, 0700) < 0 && errno != EEXIST)
            return err_set_errno(err, errno, "make directory '%s'", level);
        if (sync_dir(s->ops, parent, err) < 0)
            return -1;
        dir_note_locked(s, level);
    }
    return 0;
}

static int
make_dirs(struct store *s, const char *dir, struct err *err)
{
    int r;

    (void)pthread_mutex_lock(&s->lock);
    r = make_dirs_locked(s, dir, err);
    (void)pthread_mutex_unlock(&s->lock);
    return r;
}

/* -- writing ----------------------------------------------------------------*/

static int
write_all(struct store *s, int fd, const uint8_t *p, size_t len)
{
    size_t done = 0;

    while (done < len) {
        size_t part = len - done < WRITE_MAX ? len - done : WRITE_MAX;
        ssize_t n = s->ops->pwrite(fd, p + done, part, (off_t)done);

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

/* The bytes under a temporary name, durable except for the name. */
static int
write_temp(struct store *s, const char *tmp, const void *data, size_t len,
           struct err *err)
{
    int fd = s->ops->open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0)
        return err_set_errno(err, errno, "create '%s'", tmp);
    if (write_all(s, fd, data, len) < 0) {
        (void)err_set_errno(err, errno, "write %zu bytes to '%s'", len, tmp);
        (void)s->ops->close(fd);
        return -1;
    }
    /* Never again on this descriptor: the kernel reports a lost page once. */
    if (s->ops->fsync(fd) < 0) {
        (void)err_set_errno(err, errno, "fsync '%s'", tmp);
        (void)s->ops->close(fd);
        return -1;
    }
    if (s->ops->close(fd) < 0)
        return err_set_errno(err, errno, "close '%s'", tmp);
    return 0;
}

/* Give the file its name, unless the name is taken.  A network file system may
 * repeat a request whose answer was lost and then say "exists" of our own link:
 * the link count knows better.  Where it cannot be asked, nobody knows whose
 * link it is, and that is not ERR_EXISTS: the caller would take back what may
 * have become visible. */
static int
link_final(struct store *s, const char *tmp, const char *final, const char *key,
           struct err *err)
{
    struct stat st;
    bool known;
    int sys;

    if (s->ops->link(tmp, final) == 0)
        return 0;
    sys = errno;
    known = s->ops->stat(tmp, &st) == 0;
    if (known && st.st_nlink == 2)
        return 0;
    if (sys == EEXIST && known)
        return err_set(err, ERR_EXISTS, "object '%s' exists already in '%s'",
                       key, s->path);
    if (sys == EPERM || sys == EOPNOTSUPP || sys == ENOSYS)
        return err_set(err, ERR_UNSUPPORTED,
                       "the file system of '%s' has no hard links, which are "
                       "needed to create objects exclusively; use another one",
                       s->path);
    return err_set_errno(err, sys, "link '%s' to '%s'", tmp, final);
}

static int
put_in_dir(struct store *s, const char *key, const char *final, const char *dir,
           const void *data, size_t len, struct err *err)
{
    CLEANUP_FREE char *tmp = NULL;
    uint8_t random[8];
    char hex[2 * sizeof random + 1];
    int r;

    rand_bytes(random, sizeof random);
    hex_encode(random, sizeof random, hex);
    if (asprintf(&tmp, "%s/" TMP_PREFIX "%s", dir, hex) < 0) {
        tmp = NULL;
        return err_set_errno(err, ENOMEM, "path of '%s'", key);
    }
    r = write_temp(s, tmp, data, len, err);
    if (r == 0)
        r = link_final(s, tmp, final, key, err);
    /* A temporary name that stays behind is shown by nobody. */
    (void)s->ops->unlink(tmp);
    if (r < 0)
        return -1;
    return sync_dir(s->ops, dir, err);
}

int
store_put(struct store *s, const char *key, const void *data, size_t len,
          struct err *err)
{
    CLEANUP_FREE char *final = path_of(s, key, err);
    CLEANUP_FREE char *dir = NULL;

    if (final == NULL)
        return -1;
    dir = parent_of(final);
    if (dir == NULL)
        return err_set_errno(err, ENOMEM, "path of '%s'", key);
    if (strlen(dir) > strlen(s->path) && make_dirs(s, dir, err) < 0)
        return -1;
    return put_in_dir(s, key, final, dir, data, len, err);
}

/* -- reading ----------------------------------------------------------------*/

static int
open_object(struct store *s, const char *key, int *ret_fd, struct err *err)
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
read_range(struct store *s, int fd, const char *key, uint64_t off, uint8_t *p,
           size_t len, struct err *err)
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

int
store_get(struct store *s, const char *key, uint64_t off, size_t len, void *buf,
          struct err *err)
{
    int fd, r;

    if (open_object(s, key, &fd, err) < 0)
        return -1;
    r = read_range(s, fd, key, off, buf, len, err);
    (void)s->ops->close(fd);
    return r;
}

int
store_size(struct store *s, const char *key, uint64_t *ret_len, struct err *err)
{
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

/* mmap() refuses an empty file. */
static const uint8_t empty_object[1];

int
store_map(struct store *s, const char *key, const uint8_t **ret,
          size_t *ret_len, struct err *err)
{
    struct stat st;
    void *p = NULL;
    int fd, sys = 0;

    if (open_object(s, key, &fd, err) < 0)
        return -1;
    if (fstat(fd, &st) < 0)
        sys = errno;
    if (sys == 0 && st.st_size > 0) {
        p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
            sys = errno;
    }
    (void)s->ops->close(fd);
    if (sys != 0)
        return err_set_errno(err, sys, "map '%s/%s'", s->path, key);
    *ret = p != NULL ? p : empty_object;
    *ret_len = (size_t)st.st_size;
    return 0;
}

void
store_unmap(struct store *s, const uint8_t *data, size_t len)
{
    (void)s;
    if (len > 0)
        (void)munmap((void *)(uintptr_t)data, len);
}

/* -- listing and removing ---------------------------------------------------*/

struct walk {
    struct store *s;
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

int
store_list(struct store *s, const char *kind, store_list_fn fn, void *arg,
           struct err *err)
{
    struct walk w = {s, fn, arg};

    return list_dir(&w, kind, 0, err);
}

static void
forget_dir(struct store *s, const char *dir)
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
remove_empty_dir(struct store *s, const char *key, const char *path)
{
    const char *slash = strchr(key, '/');
    CLEANUP_FREE char *dir = NULL;

    if (slash == NULL || strchr(slash + 1, '/') == NULL)
        return;
    dir = parent_of(path);
    if (dir != NULL && s->ops->rmdir(dir) == 0)
        forget_dir(s, dir);
}

int
store_delete(struct store *s, const char *key, struct err *err)
{
    CLEANUP_FREE char *path = path_of(s, key, err);

    if (path == NULL)
        return -1;
    if (s->ops->unlink(path) < 0 && errno != ENOENT && errno != ENOTDIR)
        return err_set_errno(err, errno, "remove '%s'", path);
    remove_empty_dir(s, key, path);
    return 0;
}

int
store_free_space(struct store *s, uint64_t *ret, struct err *err)
{
    struct statvfs v;

    if (statvfs(s->path, &v) < 0)
        return err_set_errno(err, errno, "free space of '%s'", s->path);
    *ret = (uint64_t)v.f_bavail * v.f_frsize;
    return 0;
}
