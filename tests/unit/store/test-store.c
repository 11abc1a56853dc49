/* The directory store: whole objects or none, written once, durable. */
#include "tap.h"

#include <errno.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "cleanup.h"
#include "err.h"
#include "fileops.h"
#include "key.h"
#include "store.h"
#include "tmpdir.h"

static char dir[TMPDIR_MAX]; /* of the running test */

static struct store *
open_store(const struct file_ops *ops)
{
    struct store *s = NULL;

    tmpdir_make(dir);
    CHECK_OK(store_dir_open(dir, ops, &s, ERR_ABORT), ERR_ABORT);
    return s;
}

static void
end(struct store *s)
{
    store_close(s);
    tmpdir_remove(dir);
}

static int
count_objects(void *arg, const char *key, uint64_t len)
{
    unsigned *n = arg;

    (void)key;
    (void)len;
    (*n)++;
    return 0;
}

static unsigned
n_objects(struct store *s, const char *kind)
{
    unsigned n = 0;

    CHECK_OK(store_list(s, kind, count_objects, &n, ERR_ABORT), ERR_ABORT);
    return n;
}

/* Only plain keys become paths. */
static void
test_keys(void)
{
    static const char *const good[] = {"format", "session/0a1b",
                                       "data/0123/00000001", "commit/ab.1"};
    static const char *const bad[] = {
        "",     "/",      "a/",       "/a",     "a//b",    "../a",
        "a/..", "a/../b", ".hid",     "a/.hid", "A",       "a b",
        "a\nb", "a\\b",   "\xc3\xa4", "a_b",    "a/.tmp-1"};
    char longest[STORE_KEY_MAX + 2];

    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        CHECK(store_key_valid(good[i]));
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        CHECK(!store_key_valid(bad[i]));
    memset(longest, 'a', sizeof longest);
    longest[STORE_KEY_MAX + 1] = '\0';
    CHECK(!store_key_valid(longest));
    longest[STORE_KEY_MAX] = '\0';
    CHECK(store_key_valid(longest));
}

/* No operation leaves the directory, whatever key it is given. */
static void
test_bad_key_is_refused(void)
{
    struct store *s = open_store(NULL);
    struct err err = ERR_INIT;
    uint64_t len;

    CHECK(store_put(s, "../evil", "x", 1, &err) < 0);
    CHECK(err.code == ERR_USAGE);
    CHECK_STR(err.msg, "'../evil' is no key of a store");
    CHECK(store_size(s, "../evil", &len, NULL) < 0);
    CHECK(store_delete(s, "../evil", NULL) < 0);
    end(s);
}

/* What is put is there: whole, in parts, mapped, listed. */
static void
test_put_get(void)
{
    struct store *s = open_store(NULL);
    const uint8_t *map = NULL;
    uint64_t size = 0;
    size_t len = 0;
    char part[5] = "";

    CHECK_OK(store_put(s, "data/s1/1", "hello world", 11, ERR_ABORT),
             ERR_ABORT);
    CHECK(store_size(s, "data/s1/1", &size, ERR_ABORT) == 1 && size == 11);
    CHECK_OK(store_get(s, "data/s1/1", 6, 5, part, ERR_ABORT), ERR_ABORT);
    CHECK(memcmp(part, "world", 5) == 0);
    CHECK_OK(store_map(s, "data/s1/1", &map, &len, ERR_ABORT), ERR_ABORT);
    CHECK(len == 11 && memcmp(map, "hello world", 11) == 0);
    store_unmap(s, map, len);
    CHECK(n_objects(s, "data") == 1);
    CHECK(n_objects(s, "meta") == 0);
    CHECK(tmpdir_count(dir, ".tmp-") == 0);
    CHECK_STR(store_path(s), dir);
    CHECK_OK(store_free_space(s, &size, ERR_ABORT), ERR_ABORT);
    CHECK(size > 0);
    end(s);
}

/* An object of no bytes is an object. */
static void
test_empty_object(void)
{
    struct store *s = open_store(NULL);
    const uint8_t *map = NULL;
    uint64_t size = 1;
    size_t len = 1;

    CHECK_OK(store_put(s, "x/e", "", 0, ERR_ABORT), ERR_ABORT);
    CHECK(store_size(s, "x/e", &size, ERR_ABORT) == 1 && size == 0);
    CHECK_OK(store_map(s, "x/e", &map, &len, ERR_ABORT), ERR_ABORT);
    CHECK(map != NULL && len == 0);
    store_unmap(s, map, len);
    end(s);
}

/* A key is never written twice, and the first bytes stay. */
static void
test_exclusive(void)
{
    struct store *s = open_store(NULL);
    struct err err = ERR_INIT;
    char c = 0;

    CHECK_OK(store_put(s, "commit/a.1", "1", 1, ERR_ABORT), ERR_ABORT);
    CHECK(store_put(s, "commit/a.1", "2", 1, &err) < 0);
    CHECK(err.code == ERR_EXISTS);
    CHECK_OK(store_get(s, "commit/a.1", 0, 1, &c, ERR_ABORT), ERR_ABORT);
    CHECK(c == '1');
    CHECK(tmpdir_count(dir, ".tmp-") == 0);
    end(s);
}

/* Missing and short are different answers. */
static void
test_missing_and_short(void)
{
    struct store *s = open_store(NULL);
    struct err err = ERR_INIT;
    const uint8_t *map;
    uint64_t size;
    size_t len;
    char b[4];

    CHECK(store_size(s, "data/none", &size, ERR_ABORT) == 0);
    CHECK(store_get(s, "data/none", 0, 1, b, &err) < 0);
    CHECK(err.code == ERR_NOT_FOUND);
    err_clear(&err);
    CHECK(store_map(s, "data/none", &map, &len, &err) < 0);
    CHECK(err.code == ERR_NOT_FOUND);
    err_clear(&err);
    CHECK_OK(store_put(s, "data/short", "abc", 3, ERR_ABORT), ERR_ABORT);
    CHECK(store_get(s, "data/short", 1, 3, b, &err) < 0);
    CHECK(err.code == ERR_CORRUPT);
    CHECK(strstr(err.msg, "'data/short'") != NULL);
    end(s);
}

/* Removing what is not there is no error; the directory of a session goes
 * with its last object and can come back. */
static void
test_delete(void)
{
    struct store *s = open_store(NULL);
    char path[2 * TMPDIR_MAX];

    (void)snprintf(path, sizeof path, "%s/data/s1", dir);
    CHECK_OK(store_delete(s, "data/s1/1", ERR_ABORT), ERR_ABORT);
    CHECK_OK(store_put(s, "data/s1/1", "a", 1, ERR_ABORT), ERR_ABORT);
    CHECK_OK(store_put(s, "data/s1/2", "b", 1, ERR_ABORT), ERR_ABORT);
    CHECK_OK(store_delete(s, "data/s1/1", ERR_ABORT), ERR_ABORT);
    CHECK(access(path, F_OK) == 0);
    CHECK_OK(store_delete(s, "data/s1/2", ERR_ABORT), ERR_ABORT);
    CHECK(access(path, F_OK) < 0);
    CHECK_OK(store_put(s, "data/s1/3", "c", 1, ERR_ABORT), ERR_ABORT);
    CHECK(n_objects(s, "data") == 1);
    end(s);
}

static int
stop_at_two(void *arg, const char *key, uint64_t len)
{
    unsigned *n = arg;

    (void)key;
    (void)len;
    return ++*n == 2 ? 7 : 0;
}

/* The walk ends with what the callback returned. Foreign and temporary files
 * are not objects. */
static void
test_list(void)
{
    struct store *s = open_store(NULL);
    unsigned n = 0;
    char path[2 * TMPDIR_MAX];
    FILE *f;

    CHECK_OK(store_put(s, "k/1", "a", 1, ERR_ABORT), ERR_ABORT);
    CHECK_OK(store_put(s, "k/2", "a", 1, ERR_ABORT), ERR_ABORT);
    CHECK_OK(store_put(s, "k/sub/3", "a", 1, ERR_ABORT), ERR_ABORT);
    (void)snprintf(path, sizeof path, "%s/k/.tmp-0011", dir);
    f = fopen(path, "w");
    CHECK(f != NULL && fclose(f) == 0);
    (void)snprintf(path, sizeof path, "%s/k/README", dir);
    f = fopen(path, "w");
    CHECK(f != NULL && fclose(f) == 0);
    CHECK(n_objects(s, "k") == 3);
    CHECK(store_list(s, "k", stop_at_two, &n, ERR_ABORT) == 7 && n == 2);
    end(s);
}

/* Nobody else may read a backup, whatever the umask says. */
static void
test_modes(void)
{
    mode_t old = umask(0);
    struct store *s = open_store(NULL);
    struct stat st;
    char path[2 * TMPDIR_MAX];

    CHECK_OK(store_put(s, "data/s1/1", "a", 1, ERR_ABORT), ERR_ABORT);
    (void)snprintf(path, sizeof path, "%s/data/s1/1", dir);
    CHECK(stat(path, &st) == 0 && (st.st_mode & 07777) == 0600);
    CHECK(st.st_nlink == 1);
    (void)snprintf(path, sizeof path, "%s/data/s1", dir);
    CHECK(stat(path, &st) == 0 && (st.st_mode & 07777) == 0700);
    (void)snprintf(path, sizeof path, "%s/new", dir);
    CHECK_OK(store_dir_create(path, NULL, ERR_ABORT), ERR_ABORT);
    CHECK(stat(path, &st) == 0 && (st.st_mode & 07777) == 0700);
    (void)umask(old);
    end(s);
}

/* A new or empty directory, or a fresh file system; nothing else. */
static void
test_create(void)
{
    struct err err = ERR_INIT;
    char path[2 * TMPDIR_MAX], inner[2 * TMPDIR_MAX + 16];

    tmpdir_make(dir);
    CHECK_OK(store_dir_create(dir, NULL, ERR_ABORT), ERR_ABORT);
    (void)snprintf(path, sizeof path, "%s/a", dir);
    CHECK_OK(store_dir_create(path, NULL, ERR_ABORT), ERR_ABORT);
    (void)snprintf(inner, sizeof inner, "%s/lost+found", path);
    CHECK(mkdir(inner, 0700) == 0);
    CHECK_OK(store_dir_create(path, NULL, ERR_ABORT), ERR_ABORT);
    CHECK(store_dir_create(dir, NULL, &err) < 0);
    CHECK(err.code == ERR_EXISTS);
    err_clear(&err);
    (void)snprintf(path, sizeof path, "%s/no/such", dir);
    CHECK(store_dir_create(path, NULL, &err) < 0);
    CHECK(err.code == ERR_SYSTEM && err.sys == ENOENT);
    tmpdir_remove(dir);
}

/* Opening says what is not there. */
static void
test_open_missing(void)
{
    struct store *s = NULL;
    struct err err = ERR_INIT;

    CHECK(store_dir_open("/nonexistent/repo", NULL, &s, &err) < 0);
    CHECK(err.code == ERR_NOT_FOUND && s == NULL);
    err_clear(&err);
    CHECK(store_dir_open("/dev/null", NULL, &s, &err) < 0);
    CHECK(err.code == ERR_NOT_FOUND);
}

/* -- an operating system that misbehaves ------------------------------------*/

static int fail_errno, fail_fsyncs, links, fsyncs;

static ssize_t
short_pwrite(int fd, const void *buf, size_t len, off_t off)
{
    static int turn;

    if (turn++ % 3 == 0) {
        errno = EINTR;
        return -1;
    }
    return pwrite(fd, buf, len > 7 ? 7 : len, off);
}

static ssize_t
full_pwrite(int fd, const void *buf, size_t len, off_t off)
{
    (void)fd;
    (void)buf;
    (void)len;
    (void)off;
    errno = fail_errno;
    return -1;
}

static ssize_t
zero_pwrite(int fd, const void *buf, size_t len, off_t off)
{
    (void)fd;
    (void)buf;
    (void)len;
    (void)off;
    return 0;
}

static int
failing_fsync(int fd)
{
    fsyncs++;
    if (fsyncs == fail_fsyncs) {
        errno = EIO;
        return -1;
    }
    return fsync(fd);
}

/* A server that repeats link() after its answer was lost. */
static int
repeated_link(const char *from, const char *to)
{
    links++;
    (void)link(from, to);
    errno = EEXIST;
    return -1;
}

static int
blind_stat(const char *path, struct stat *st)
{
    if (strstr(path, ".tmp-") != NULL) {
        errno = EIO;
        return -1;
    }
    return stat(path, st);
}

/* The first answer is lost, and before it is asked again somebody has removed the
 * temporary file. */
static int
tidied_link(const char *from, const char *to)
{
    if (links++ > 0)
        return link(from, to);
    (void)link(from, to);
    (void)unlink(from);
    errno = ENOENT;
    return -1;
}

static int
no_link(const char *from, const char *to)
{
    (void)from;
    (void)to;
    errno = EPERM;
    return -1;
}

static ssize_t
no_pread(int fd, void *buf, size_t len, off_t off)
{
    errno = EIO;
    return -1;
}

static ssize_t
short_pread(int fd, void *buf, size_t len, off_t off)
{
    return pread(fd, buf, len > 3 ? 3 : len, off);
}

/* Short writes, short reads and interruptions are carried on. */
static void
test_short_io(void)
{
    struct file_ops ops = file_ops_system;
    struct store *s;
    char back[100];
    char text[100];

    ops.pwrite = short_pwrite;
    ops.pread = short_pread;
    s = open_store(&ops);
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)i;
    CHECK_OK(store_put(s, "x/a", text, sizeof text, ERR_ABORT), ERR_ABORT);
    CHECK_OK(store_get(s, "x/a", 0, sizeof back, back, ERR_ABORT), ERR_ABORT);
    CHECK(memcmp(text, back, sizeof back) == 0);
    end(s);
}

/* A full disk has its own code, and leaves nothing behind. */
static void
test_no_space(void)
{
    static const int codes[] = {ENOSPC, EDQUOT, EIO};
    struct file_ops ops = file_ops_system;
    struct store *s;

    ops.pwrite = full_pwrite;
    s = open_store(&ops);
    for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
        struct err err = ERR_INIT;

        fail_errno = codes[i];
        CHECK(store_put(s, "x/a", "abc", 3, &err) < 0);
        CHECK(err.code == (codes[i] == EIO ? ERR_SYSTEM : ERR_NO_SPACE));
        CHECK(tmpdir_count(dir, "") == 0);
    }
    end(s);
}

/* A write that writes nothing ends instead of going round for ever. */
static void
test_write_of_nothing(void)
{
    struct file_ops ops = file_ops_system;
    struct err err = ERR_INIT;
    struct store *s;

    ops.pwrite = zero_pwrite;
    s = open_store(&ops);
    CHECK(store_put(s, "x/a", "abc", 3, &err) < 0);
    CHECK(err.sys == EIO);
    end(s);
}

/* A failed fsync is an error at once and is not asked again: of the file,
 * of the new directory's parent, of the directory. */
static void
test_fsync_fails(void)
{
    struct file_ops ops = file_ops_system;

    ops.fsync = failing_fsync;
    for (fail_fsyncs = 1; fail_fsyncs <= 3; fail_fsyncs++) {
        struct store *s = open_store(&ops);
        struct err err = ERR_INIT;

        fsyncs = 0;
        CHECK(store_put(s, "x/a", "abc", 3, &err) < 0);
        CHECK(err.sys == EIO);
        CHECK(fsyncs == fail_fsyncs);
        CHECK(tmpdir_count(dir, ".tmp-") == 0);
        end(s);
    }
}

/* File, parent of the new directory, directory: three fsyncs the first time,
 * two in a directory whose name is durable. */
static void
test_fsync_order(void)
{
    struct file_ops ops = file_ops_system;
    struct store *s;

    ops.fsync = failing_fsync;
    fail_fsyncs = -1;
    s = open_store(&ops);
    fsyncs = 0;
    CHECK_OK(store_put(s, "x/a", "abc", 3, ERR_ABORT), ERR_ABORT);
    CHECK(fsyncs == 3);
    fsyncs = 0;
    CHECK_OK(store_put(s, "x/b", "abc", 3, ERR_ABORT), ERR_ABORT);
    CHECK(fsyncs == 2);
    fsyncs = 0;
    CHECK_OK(store_put(s, "c", "abc", 3, ERR_ABORT), ERR_ABORT);
    CHECK(fsyncs == 2);
    end(s);
}

/* Removals are synced where the names were, and a failure is told. */
static void
test_sync(void)
{
    struct file_ops ops = file_ops_system;
    struct store *s;

    ops.fsync = failing_fsync;
    fail_fsyncs = -1;
    s = open_store(&ops);
    fsyncs = 0;
    CHECK_OK(store_sync(s, "data", ERR_ABORT), ERR_ABORT);
    CHECK(fsyncs == 0); /* there is nothing */
    CHECK_OK(store_put(s, "data/s1/1", "a", 1, ERR_ABORT), ERR_ABORT);
    CHECK_OK(store_put(s, "data/s1/2", "a", 1, ERR_ABORT), ERR_ABORT);
    CHECK_OK(store_delete(s, "data/s1/1", ERR_ABORT), ERR_ABORT);
    for (fail_fsyncs = 1; fail_fsyncs <= 2; fail_fsyncs++) {
        fsyncs = 0;
        CHECK(store_sync(s, "data", NULL) < 0);
    }
    fsyncs = 0;
    CHECK_OK(store_sync(s, "data", ERR_ABORT), ERR_ABORT);
    CHECK(fsyncs == 2);
    end(s);
}

/* "Exists" after our own link succeeded is success. */
static void
test_lost_link_reply(void)
{
    struct file_ops ops = file_ops_system;
    struct err err = ERR_INIT;
    struct store *s;
    char c = 0;

    ops.link = repeated_link;
    s = open_store(&ops);
    CHECK_OK(store_put(s, "x/a", "1", 1, ERR_ABORT), ERR_ABORT);
    CHECK(store_put(s, "x/a", "2", 1, &err) < 0);
    CHECK(err.code == ERR_EXISTS);
    CHECK_OK(store_get(s, "x/a", 0, 1, &c, ERR_ABORT), ERR_ABORT);
    CHECK(c == '1');
    end(s);
}

/* "Exists", and whose it is cannot be found out: anything but ERR_EXISTS, which
 * would mean that the object is not ours. */
static void
test_lost_link_reply_in_doubt(void)
{
    struct file_ops ops = file_ops_system;
    struct err err = ERR_INIT;
    struct store *s;

    ops.link = repeated_link;
    ops.stat = blind_stat;
    s = open_store(&ops);
    CHECK(store_put(s, "x/a", "1", 1, &err) < 0);
    CHECK(err.code != ERR_EXISTS);
    end(s);
}

/* Of a name that an earlier try may have given, "exists" is said only when its
 * bytes were read and are others. */
static void
test_lost_temporary_file(void)
{
    struct file_ops ops = file_ops_system;
    struct err err = ERR_INIT;
    struct store *s;

    ops.link = tidied_link;
    s = open_store(&ops);
    links = 0;
    CHECK_OK(store_put(s, "x/a", "1", 1, ERR_ABORT), ERR_ABORT);
    end(s);
    ops.pread = no_pread;
    s = open_store(&ops);
    links = 0;
    CHECK(store_put(s, "x/a", "1", 1, &err) < 0);
    CHECK(err.code != ERR_EXISTS && err.sys == EIO);
    end(s);
}

/* Without hard links there is no exclusive create, and the error says so. */
static void
test_no_hard_links(void)
{
    struct file_ops ops = file_ops_system;
    struct err err = ERR_INIT;
    struct store *s;

    ops.link = no_link;
    s = open_store(&ops);
    CHECK(store_put(s, "x/a", "1", 1, &err) < 0);
    CHECK(err.code == ERR_UNSUPPORTED);
    CHECK(strstr(err.msg, "hard links") != NULL);
    CHECK(tmpdir_count(dir, "") == 0);
    end(s);
}

/* -- pages that cannot be read ----------------------------------------------*/

#define PAGES 5
#define PAGE 4096

/* Reads of a page that the disk does not give any more are zeroes and then an
 * error that names the object; the rest of it, and other objects, are not
 * touched by that. */
static void
test_page_that_cannot_be_read(void)
{
    struct store *s = open_store(NULL);
    static uint8_t data[PAGES * PAGE];
    struct err err = ERR_INIT;
    const uint8_t *a, *b;
    size_t len;
    char path[2 * TMPDIR_MAX];

    memset(data, 'd', sizeof data);
    CHECK_OK(store_put(s, "index/a", data, sizeof data, ERR_ABORT), ERR_ABORT);
    CHECK_OK(store_put(s, "index/b", data, sizeof data, ERR_ABORT), ERR_ABORT);
    CHECK_OK(store_map(s, "index/a", &a, &len, ERR_ABORT), ERR_ABORT);
    CHECK_OK(store_map(s, "index/b", &b, &len, ERR_ABORT), ERR_ABORT);
    (void)snprintf(path, sizeof path, "%s/index/a", dir);
    CHECK(truncate(path, PAGE) == 0);
    CHECK_OK(store_check_map(s, a, ERR_ABORT), ERR_ABORT);
    CHECK(a[PAGE - 1] == 'd' && a[PAGE] == 0 && a[3 * PAGE + 7] == 0);
    CHECK(memcmp(b, data, sizeof data) == 0);
    (void)err_set(&err, ERR_CORRUPT, "a checksum fails");
    CHECK(store_check_map(s, a, &err) < 0);
    CHECK(err.code == ERR_SYSTEM && err.sys == EIO);
    CHECK(strstr(err.msg, path) != NULL);
    CHECK_OK(store_check_map(s, b, ERR_ABORT), ERR_ABORT);
    store_unmap(s, a, len);
    /* the same address again is another mapping */
    CHECK_OK(store_map(s, "index/b", &a, &len, ERR_ABORT), ERR_ABORT);
    CHECK_OK(store_check_map(s, a, ERR_ABORT), ERR_ABORT);
    store_unmap(s, a, len);
    store_unmap(s, b, len);
    end(s);
}

static void
touch_lost_page(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    volatile uint8_t *p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);

    (void)truncate(path, 0);
    _exit(p[0]);
}

/* What is not a mapping of the store dies as it always did. */
static void
test_other_sigbus(void)
{
    struct store *s = open_store(NULL);
    const uint8_t *map;
    char path[2 * TMPDIR_MAX];
    size_t len;

    CHECK_OK(store_put(s, "x/a", "abc", 3, ERR_ABORT), ERR_ABORT);
    CHECK_OK(store_map(s, "x/a", &map, &len, ERR_ABORT), ERR_ABORT);
    (void)snprintf(path, sizeof path, "%s/x/a", dir);
    for (int turn = 0; turn < 2; turn++) {
        int status = 0;
        pid_t pid = fork();

        if (pid == 0) {
            static const struct rlimit none = {0, 0};

            (void)setrlimit(RLIMIT_CORE, &none);
            (void)signal(SIGALRM, SIG_DFL);
            (void)alarm(20);
            if (turn == 0)
                touch_lost_page(path);
            (void)raise(SIGBUS);
            _exit(0);
        }
        CHECK(waitpid(pid, &status, 0) == pid);
        /* a sanitizer turns it into an exit of its own */
        CHECK(WIFSIGNALED(status) ? WTERMSIG(status) == SIGBUS
                                  : WEXITSTATUS(status) != 0);
    }
    store_unmap(s, map, len);
    end(s);
}

/* -- objects in pieces ------------------------------------------------------*/

/* Nothing is there before the end, and everything afterwards. */
static void
test_pieces(void)
{
    struct store *s = open_store(NULL);
    struct store_writer *w = NULL;
    char got[12] = "";

    CHECK_OK(store_writer_new(s, "data/0a/00000001", &w, ERR_ABORT), ERR_ABORT);
    CHECK_OK(store_writer_add(w, "hello ", 6, ERR_ABORT), ERR_ABORT);
    CHECK_OK(store_writer_add(w, "", 0, ERR_ABORT), ERR_ABORT);
    CHECK_OK(store_writer_add(w, "world", 5, ERR_ABORT), ERR_ABORT);
    CHECK(n_objects(s, "data") == 0);
    CHECK_OK(store_writer_commit(w, ERR_ABORT), ERR_ABORT);
    CHECK(n_objects(s, "data") == 1);
    store_writer_free(w);
    CHECK_OK(store_get(s, "data/0a/00000001", 0, 11, got, ERR_ABORT),
             ERR_ABORT);
    CHECK_STR(got, "hello world");
    CHECK(tmpdir_count(dir, ".tmp-") == 0);
    end(s);
}

/* One that is given up leaves nothing, also when its key is taken meanwhile. */
static void
test_pieces_given_up(void)
{
    struct store *s = open_store(NULL);
    struct store_writer *w = NULL;
    struct err err = ERR_INIT;
    char got[2] = "";

    CHECK_OK(store_writer_new(s, "data/0a/00000001", &w, ERR_ABORT), ERR_ABORT);
    CHECK_OK(store_writer_add(w, "half", 4, ERR_ABORT), ERR_ABORT);
    CHECK(tmpdir_count(dir, ".tmp-") == 1);
    store_writer_free(w);
    CHECK(tmpdir_count(dir, "") == 0);
    CHECK_OK(store_writer_new(s, "data/0a/00000001", &w, ERR_ABORT), ERR_ABORT);
    CHECK_OK(store_writer_add(w, "2", 1, ERR_ABORT), ERR_ABORT);
    CHECK_OK(store_put(s, "data/0a/00000001", "1", 1, ERR_ABORT), ERR_ABORT);
    CHECK(store_writer_commit(w, &err) < 0);
    CHECK(err.code == ERR_EXISTS);
    store_writer_free(w);
    CHECK_OK(store_get(s, "data/0a/00000001", 0, 1, got, ERR_ABORT), ERR_ABORT);
    CHECK_STR(got, "1");
    CHECK(tmpdir_count(dir, "") == 1);
    err_clear(&err);
    w = NULL;
    CHECK(store_writer_new(s, "../x", &w, &err) < 0);
    CHECK(err.code == ERR_USAGE && w == NULL);
    end(s);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_keys),
        TEST(test_bad_key_is_refused),
        TEST(test_put_get),
        TEST(test_empty_object),
        TEST(test_exclusive),
        TEST(test_missing_and_short),
        TEST(test_delete),
        TEST(test_list),
        TEST(test_modes),
        TEST(test_create),
        TEST(test_open_missing),
        TEST(test_short_io),
        TEST(test_no_space),
        TEST(test_write_of_nothing),
        TEST(test_fsync_fails),
        TEST(test_fsync_order),
        TEST(test_sync),
        TEST(test_lost_link_reply),
        TEST(test_lost_link_reply_in_doubt),
        TEST(test_lost_temporary_file),
        TEST(test_no_hard_links),
        TEST(test_page_that_cannot_be_read),
        TEST(test_other_sigbus),
        TEST(test_pieces),
        TEST(test_pieces_given_up),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
