/* Before anything rests on a store, it is tried; each broken promise is found and
 * named, and nothing is left behind. */
#include "tap.h"

#include <errno.h>

#include "backend.h"
#include "cleanup.h"
#include "err.h"
#include "fileops.h"
#include "probe.h"
#include "store.h"
#include "tmpdir.h"

DEFINE_CLEANUP(struct store *, store_close)

static char dir[TMPDIR_MAX]; /* of the running test */

/* -- a store that breaks its promises ---------------------------------------*/

enum lie {
    HONEST,
    PUT_TWICE,      /* a key that is taken is overwritten */
    PUT_OVERWRITES, /* it says "exists", and the bytes are others */
    STALE_ABSENT,   /* what was asked for once stays absent */
    WRONG_BYTES,
    NOT_LISTED,
    STALE_SIZE, /* what is removed is still there */
    STALE_LIST,
    N_LIES,
};

static const char *const says[N_LIES] = {
    [PUT_TWICE] = "it lets a file be created twice",
    [PUT_OVERWRITES] = "it does not give back what was written",
    [STALE_ABSENT] = "it does not give back what was written",
    [WRONG_BYTES] = "it does not give back what was written",
    [NOT_LISTED] = "it does not list what was written",
    [STALE_SIZE] = "it still shows what was removed",
    [STALE_LIST] = "it still shows what was removed",
};

/* Hands everything on to a real store. */
struct liar {
    struct store *real;
    enum lie lie;
    bool removed, asked;
    char last[64]; /* the key */
};

static void
liar_close(void *impl)
{
    struct liar *l = impl;

    store_close(l->real);
    free(l);
}

static int
liar_put(void *impl, const char *key, const void *data, size_t len,
         struct err *err)
{
    struct liar *l = impl;

    (void)snprintf(l->last, sizeof l->last, "%s", key);
    if (l->lie == PUT_TWICE)
        (void)store_delete(l->real, key, NULL);
    if (l->lie == PUT_OVERWRITES) {
        (void)store_delete(l->real, key, NULL);
        (void)store_put(l->real, key, data, len, NULL);
    }
    return store_put(l->real, key, data, len, err);
}

static int
liar_get(void *impl, const char *key, uint64_t off, size_t len, void *buf,
         struct err *err)
{
    struct liar *l = impl;
    int r = store_get(l->real, key, off, len, buf, err);

    if (l->lie == WRONG_BYTES && len > 0)
        ((uint8_t *)buf)[len - 1] ^= 1;
    return r;
}

static int
liar_size(void *impl, const char *key, uint64_t *ret_len, struct err *err)
{
    struct liar *l = impl;
    bool again = l->asked;

    l->asked = true;
    if (l->lie == STALE_ABSENT && again)
        return 0;
    if (l->lie == STALE_SIZE && l->removed) {
        *ret_len = 1;
        return 1;
    }
    return store_size(l->real, key, ret_len, err);
}

static int
liar_list(void *impl, const char *kind, store_list_fn fn, void *arg,
          struct err *err)
{
    struct liar *l = impl;

    if (l->lie == NOT_LISTED)
        return 0;
    if (l->lie == STALE_LIST && l->removed)
        return fn(arg, l->last, 1);
    return store_list(l->real, kind, fn, arg, err);
}

static int
liar_delete(void *impl, const char *key, struct err *err)
{
    struct liar *l = impl;

    l->removed = true;
    return store_delete(l->real, key, err);
}

static const struct store_ops liar_ops = {
    .close = liar_close,
    .put = liar_put,
    .get = liar_get,
    .size = liar_size,
    .list = liar_list,
    .delete = liar_delete,
};

static struct store *
open_liar(enum lie lie)
{
    struct liar *l = calloc(1, sizeof *l);
    struct store *s = NULL;

    if (l == NULL)
        abort();
    l->lie = lie;
    (void)store_dir_open(dir, NULL, &l->real, ERR_ABORT);
    (void)store_wrap(&liar_ops, l, dir, &s, ERR_ABORT);
    return s;
}

/* Whichever of the two handles lies. */
static void
test_each_lie_is_found(void)
{
    tmpdir_make(dir);
    for (enum lie lie = HONEST; lie < N_LIES; lie++) {
        CLEANUP(store_closep) struct store *good = open_liar(HONEST);
        CLEANUP(store_closep) struct store *bad = open_liar(lie);
        struct err err = ERR_INIT;

        if (lie == HONEST) {
            CHECK_OK(store_self_test(good, bad, &err), &err);
            continue;
        }
        CHECK(store_self_test(good, bad, &err) < 0);
        CHECK(err.code == ERR_UNSUPPORTED);
        CHECK(strstr(err.msg, says[lie]) != NULL);
        if (tap_failures > 0)
            printf("# lie %d: %s\n", (int)lie, err.msg);
        CHECK(tmpdir_count(dir, "") == 0);
    }
    tmpdir_remove(dir);
}

/* -- a file system that does not keep them ----------------------------------*/

static int
no_link(const char *from, const char *to)
{
    (void)from;
    (void)to;
    errno = EPERM;
    return -1;
}

static int
replacing_link(const char *from, const char *to)
{
    (void)unlink(to);
    return link(from, to);
}

static int
uncounted_stat(const char *path, struct stat *st)
{
    int r = stat(path, st);

    st->st_nlink = 1;
    return r;
}

static int
late_unlink(const char *path)
{
    return strstr(path, "/session/test-") != NULL ? 0 : unlink(path);
}

static int
full_open(const char *path, int flags, mode_t mode)
{
    if ((flags & O_CREAT) == 0)
        return open(path, flags, mode);
    errno = ENOSPC;
    return -1;
}

static void
check_ops(const struct file_ops *ops, enum err_code code, const char *text)
{
    CLEANUP(store_closep) struct store *s = NULL;
    struct err err = ERR_INIT;
    int r;

    tmpdir_make(dir);
    CHECK_OK(store_dir_open(dir, ops, &s, ERR_ABORT), ERR_ABORT);
    r = store_self_test(s, NULL, &err);
    CHECK(r == (code == ERR_NONE ? 0 : -1));
    CHECK(err.code == code);
    CHECK(text == NULL || strstr(err.msg, text) != NULL);
    if (tap_failures > 0)
        printf("# said: %s\n", err.msg);
    if (ops->unlink != late_unlink)
        CHECK(tmpdir_count(dir, "") == 0);
    tmpdir_remove(dir);
}

static void
test_file_system(void)
{
    struct file_ops ops = file_ops_system;

    check_ops(&ops, ERR_NONE, NULL);
    ops.link = no_link;
    check_ops(&ops, ERR_UNSUPPORTED, "it has no hard links");
    ops.link = replacing_link;
    check_ops(&ops, ERR_UNSUPPORTED, "gives a name that is taken away twice");
    ops = file_ops_system;
    ops.stat = uncounted_stat;
    check_ops(&ops, ERR_UNSUPPORTED, "does not count the names of a file");
    ops = file_ops_system;
    ops.unlink = late_unlink;
    check_ops(&ops, ERR_UNSUPPORTED, "it still shows what was removed");
    ops = file_ops_system;
    ops.open = full_open; /* not the file system's fault */
    check_ops(&ops, ERR_NO_SPACE, NULL);
}

/* -- NFS --------------------------------------------------------------------*/

static const char mountinfo[] =
    "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
    "91 22 0:47 / /backup\\040nfs rw,relatime shared:2 - nfs4 nas:/a rw,"
    "vers=4.2,rsize=1048576,acregmin=0,acregmax=0,acdirmin=0,acdirmax=0,hard,"
    "proto=tcp,lookupcache=none,local_lock=none,addr=10.0.0.1\n"
    "92 22 0:48 / /nfs master:3 propagate_from:1 - nfs nas:/b rw,vers=3,"
    "acregmin=0,lookupcache=pos,mountaddr=10.0.0.1\n"
    "93 22 0:49 / /plain - nfs4 nas:/c rw,vers=4.2,hard";

static void
check_mount(unsigned minor_no, const char *missing)
{
    CLEANUP_FREE char *options = probe_mount_options(mountinfo, 0, minor_no);

    CHECK(options != NULL && strncmp(options, "rw,vers=", 8) == 0);
    if (options != NULL)
        CHECK_STR(probe_nfs_options(options), missing);
}

/* The options are found by device, and what is missing is said. */
static void
test_nfs_options(void)
{
    check_mount(47, "");
    check_mount(48, "lookupcache=none,actimeo=0");
    check_mount(49, "lookupcache=none,actimeo=0");
    CHECK(probe_mount_options(mountinfo, 254, 0) == NULL); /* no NFS */
    CHECK(probe_mount_options(mountinfo, 0, 50) == NULL);
    CHECK(probe_mount_options("", 0, 47) == NULL);
    CHECK(probe_mount_options("1 2 0:47 - nfs\n1 2 0:47 - nfs4 a", 0, 47) ==
          NULL);
    CHECK_STR(probe_nfs_options("rw,noac,lookupcache=none"), "");
    CHECK_STR(probe_nfs_options("lookupcache=none,actimeo=0"), "");
    CHECK_STR(probe_nfs_options("rw,lookupcache=none,actimeo=01"), "actimeo=0");
    CHECK_STR(probe_nfs_options("noac,xlookupcache=none"), "lookupcache=none");
}

/* -- what a killed test or put leaves behind --------------------------------*/

static void
make_file(const char *name)
{
    char path[2 * TMPDIR_MAX];
    FILE *f;

    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "w");
    CHECK(f != NULL && fclose(f) == 0);
}

static void
make_dir(const char *name)
{
    char path[2 * TMPDIR_MAX];

    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    CHECK(mkdir(path, 0700) == 0);
}

/* A directory with leftovers is as good as an empty one; with anything else it
 * is somebody's. */
static void
test_leftovers(void)
{
    static const char *const others[] = {"a",         "format", "session/0123",
                                         "session/x", "data",   "sessions"};

    tmpdir_make(dir);
    make_dir("session");
    make_dir("lost+found");
    make_dir("key");
    make_file("key/0123456789abcdef");
    make_file(".tmp-0011223344556677");
    make_file("session/.tmp-0011223344556677");
    make_file("session/test-00112233445566770011223344556677");
    CHECK_OK(store_dir_create(dir, NULL, ERR_ABORT), ERR_ABORT);
    for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
        struct err err = ERR_INIT;
        char path[2 * TMPDIR_MAX];

        make_file(others[i]);
        CHECK(store_dir_create(dir, NULL, &err) < 0);
        CHECK(err.code == ERR_EXISTS);
        (void)snprintf(path, sizeof path, "%s/%s", dir, others[i]);
        CHECK(unlink(path) == 0);
    }
    CHECK_OK(store_dir_create(dir, NULL, ERR_ABORT), ERR_ABORT);
    tmpdir_remove(dir);
    tmpdir_make(dir);
    make_file("session"); /* no directory */
    CHECK(store_dir_create(dir, NULL, NULL) < 0);
    tmpdir_remove(dir);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_each_lie_is_found),
        TEST(test_file_system),
        TEST(test_nfs_options),
        TEST(test_leftovers),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
