/* A collection that dies, or fails, at its Nth file operation, for every N, with
 * and without a power cut.
 *
 * Afterwards every point that was not forgotten reads back, and the next
 * collection leaves nothing behind.  The power cut brings back what was removed
 * and not synced: all of it, or only what should have been durable first. */
#define MODEL_CHUNKS 20
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>

#include "gc_model.h"
#include "tmpdir.h"

#define N_MAX 5000      /* far above what the scenario needs */
#define REMOVED_MAX 512 /* between two syncs */
#define PATH_LEN 512
#define FDS 256

enum mode {
    FAIL_ONCE,  /* EIO, and all is well afterwards */
    FAIL_LATE,  /* done, and EIO all the same */
    FAIL_SPACE, /* ENOSPC for everything that needs space, from here on */
    FAIL_DEAD,  /* this and all later ones */
};

/* What a power cut does to removals that were not synced. */
enum cut {
    CUT_NONE,
    CUT_ALL,     /* undoes all of them */
    CUT_EARLIER, /* undoes those of the kinds that must go first */
};

struct removed {
    char path[PATH_LEN], dir[PATH_LEN], kept[PATH_LEN];
};

static struct {
    enum mode mode;
    unsigned at, n;
    bool armed, hit;
    char trash[PATH_LEN];
    char dirs[FDS][PATH_LEN]; /* by descriptor, "" for files */
    struct removed removed[REMOVED_MAX];
    unsigned n_removed, n_kept;
} fault;

/* 0, or the errno it fails with. */
static int
fails(bool needs_space)
{
    bool hit;

    if (!fault.armed)
        return 0;
    fault.n++;
    hit = fault.mode == FAIL_SPACE
              ? fault.n >= fault.at && needs_space
              : fault.n == fault.at ||
                    (fault.mode == FAIL_DEAD && fault.n > fault.at);
    fault.hit |= hit;
    return !hit ? 0 : fault.mode == FAIL_SPACE ? ENOSPC : EIO;
}

#define FAULTY(needs_space, call)      \
    do {                               \
        int sys_ = fails(needs_space); \
                                       \
        if (sys_ == 0)                 \
            return call;               \
        if (fault.mode == FAIL_LATE)   \
            (void)!(call);             \
        errno = sys_;                  \
        return -1;                     \
    } while (0)

static int
f_open(const char *path, int flags, mode_t mode)
{
    int sys = fails((flags & O_CREAT) != 0), fd;

    if (sys != 0) { /* late makes no sense: nobody would close it */
        errno = sys;
        return -1;
    }
    fd = file_ops_system.open(path, flags, mode);
    if (fd >= FDS || strlen(path) >= PATH_LEN)
        abort();
    if (fd >= 0)
        (void)strcpy(fault.dirs[fd], (flags & O_DIRECTORY) != 0 ? path : "");
    return fd;
}

static ssize_t
f_pread(int fd, void *buf, size_t len, off_t off)
{
    FAULTY(false, file_ops_system.pread(fd, buf, len, off));
}

static ssize_t
f_pwrite(int fd, const void *buf, size_t len, off_t off)
{
    FAULTY(true, file_ops_system.pwrite(fd, buf, len, off));
}

/* What was removed from this directory is gone for good. */
static int
sync_removed(int fd)
{
    unsigned left = 0;

    for (unsigned i = 0; i < fault.n_removed; i++) {
        if (strcmp(fault.removed[i].dir, fault.dirs[fd]) == 0)
            (void)unlink(fault.removed[i].kept);
        else
            fault.removed[left++] = fault.removed[i];
    }
    fault.n_removed = left;
    return 0;
}

static int
f_fsync(int fd)
{
    FAULTY(true, sync_removed(fd));
}

static int
f_close(int fd)
{
    int rc = file_ops_system.close(fd); /* always done, as in Linux */
    int sys = fails(false);

    if (sys == 0)
        return rc;
    errno = sys;
    return -1;
}

static int
f_link(const char *from, const char *to)
{
    FAULTY(true, file_ops_system.link(from, to));
}

static int
f_rename(const char *from, const char *to)
{
    FAULTY(true, file_ops_system.rename(from, to));
}

static int
keep_and_unlink(const char *path)
{
    struct removed *r = &fault.removed[fault.n_removed];

    if (strstr(path, "/.tmp-") != NULL || !fault.armed)
        return file_ops_system.unlink(path);
    if (fault.n_removed == REMOVED_MAX)
        abort();
    (void)snprintf(r->path, sizeof r->path, "%s", path);
    (void)snprintf(r->dir, sizeof r->dir, "%.*s",
                   (int)(strrchr(path, '/') - path), path);
    (void)snprintf(r->kept, sizeof r->kept, "%.400s/%u", fault.trash,
                   fault.n_kept++);
    if (rename(path, r->kept) < 0)
        return -1;
    fault.n_removed++;
    return 0;
}

static int
f_unlink(const char *path)
{
    FAULTY(false, keep_and_unlink(path));
}

static int
f_mkdir(const char *path, mode_t mode)
{
    FAULTY(true, file_ops_system.mkdir(path, mode));
}

static int
f_rmdir(const char *path)
{
    FAULTY(false, file_ops_system.rmdir(path));
}

static int
f_stat(const char *path, struct stat *st)
{
    FAULTY(false, file_ops_system.stat(path, st));
}

static const struct file_ops gc_faulty_ops = {
    .open = f_open,
    .pread = f_pread,
    .pwrite = f_pwrite,
    .fsync = f_fsync,
    .close = f_close,
    .link = f_link,
    .rename = f_rename,
    .unlink = f_unlink,
    .mkdir = f_mkdir,
    .rmdir = f_rmdir,
    .stat = f_stat,
};

/* Commit objects before forgets, forgets before segments, ... */
static unsigned
order_of(const char *path)
{
    static const char *const kinds[] = {"/commit", "/forget", "/index",
                                        "/data/",  "/meta/",  "/gc"};

    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
        if (strstr(path, kinds[i]) != NULL)
            return i;
    return ARRAY_SIZE(kinds);
}

static void
power_cut(enum cut cut)
{
    unsigned last = 0;

    for (unsigned i = 0; i < fault.n_removed; i++)
        if (order_of(fault.removed[i].path) > last)
            last = order_of(fault.removed[i].path);
    for (unsigned i = 0; i < fault.n_removed; i++) {
        const struct removed *r = &fault.removed[i];

        if (cut == CUT_EARLIER && order_of(r->path) == last)
            continue;
        (void)mkdir(r->dir, 0700);
        if (rename(r->kept, r->path) < 0)
            abort();
    }
    fault.n_removed = 0;
}

/* -- the scenario -----------------------------------------------------------*/

/* An earlier collection, a session that died, points that are forgotten, packs
 * that must be rewritten. */
static void
prepare(struct model *m)
{
    struct repo_gc_report rep;
    struct repo_session *s;
    char key[REPO_KEY_MAX];
    uint8_t data[TEMP_CHUNK];
    struct chunk_id id;

    model_begin(m);
    model_backup(m, "vm", 0, 1, MODEL_CHUNKS);
    model_backup(m, "vm", 0, 3, 6);
    model_forget(m, 0);
    CHECK_OK(model_gc(m, NULL, false, &rep, ERR_ABORT), ERR_ABORT);
    model_backup(m, "vm", 0, 2, MODEL_CHUNKS / 2);
    model_backup(m, "other", 1, 5, 3);
    s = model_session(m);
    session_set_limits(s, 2048, 4);
    for (unsigned i = 0; i < MODEL_CHUNKS; i++) {
        temp_fill(9000 + i, data, sizeof data);
        CHECK_OK(repo_put(s, 0, data, sizeof data, NULL, &id, NULL, ERR_ABORT),
                 ERR_ABORT);
    }
    (void)snprintf(key, sizeof key, "session/%s", session_sid(s));
    CHECK_OK(store_delete(m->r->store, key, ERR_ABORT), ERR_ABORT);
    session_set_fate(s, SESSION_IN_DOUBT); /* dies */
    repo_session_free(s);
    model_forget(m, 1);
    model_forget(m, 2);
}

static const char *copy_from, *copy_to;

static int
copy_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    char to[PATH_LEN];

    (void)st;
    (void)ftw;
    (void)snprintf(to, sizeof to, "%s%s", copy_to, path + strlen(copy_from));
    if (type == FTW_D)
        return mkdir(to, 0700) < 0 && errno != EEXIST ? -1 : 0;
    return link(path, to); /* objects are never modified */
}

static void
copy_tree(const char *from, const char *to)
{
    copy_from = from;
    copy_to = to;
    if (nftw(from, copy_one, 16, FTW_PHYS) != 0)
        abort();
}

static void
check_after(struct model *m, int rc, const struct err *why)
{
    struct err err = ERR_INIT;
    struct repo_gc_report rep;

    CHECK((rc == 0) == (why->code == ERR_NONE));
    CHECK(model_check(m));
    m->ops = NULL;
    model_reopen(m);
    CHECK_OK(model_gc(m, NULL, false, &rep, &err), &err);
    CHECK(model_check(m) && model_clean(m));
    CHECK(rep.points_live == 1);
    if (fault.at % 8 != 0)
        return;
    /* And nothing is left to do. */
    CHECK_OK(model_gc(m, NULL, false, &rep, &err), &err);
    CHECK(rep.packs_removed == 0 && rep.leftovers == 0 && rep.resumed == 0);
}

static bool
one(const struct model *start, enum mode mode, unsigned n, enum cut cut)
{
    struct model m = *start;
    struct repo_gc_report rep;
    struct err err = ERR_INIT;
    int rc, before = tap_failures;

    temp_repo_init(&m.t);
    tmpdir_remove(m.t.path);
    copy_tree(start->t.path, m.t.path);
    m.r = NULL;
    m.ops = &gc_faulty_ops;
    fault.n = fault.n_removed = 0;
    fault.hit = false;
    fault.mode = mode;
    fault.at = n;
    (void)snprintf(fault.trash, sizeof fault.trash, "%s/trash", m.t.dir);
    (void)mkdir(fault.trash, 0700);
    model_reopen(&m);
    fault.armed = true;
    rc = model_gc(&m, NULL, false, &rep, &err);
    fault.armed = false;
    if (cut != CUT_NONE)
        power_cut(cut);
    check_after(&m, rc, &err);
    if (tap_failures > before)
        printf("# operation %u, mode %d, cut %d: %s\n", n, (int)mode, (int)cut,
               err.msg);
    model_end(&m);
    return fault.hit;
}

static void
sweep(enum mode mode, enum cut cut)
{
    struct model start;
    unsigned n = 1;

    prepare(&start);
    while (n < N_MAX && tap_failures == 0 && one(&start, mode, n, cut))
        n++;
    printf("# %u operations\n", n);
    CHECK(n > 100 && n < N_MAX);
    model_end(&start);
}

static void
test_error(void)
{
    sweep(FAIL_ONCE, CUT_NONE);
}

static void
test_lost_answer(void)
{
    sweep(FAIL_LATE, CUT_NONE);
}

static void
test_no_space(void)
{
    sweep(FAIL_SPACE, CUT_NONE);
}

static void
test_crash(void)
{
    sweep(FAIL_DEAD, CUT_NONE);
}

static void
test_power_cut(void)
{
    sweep(FAIL_DEAD, CUT_ALL);
}

static void
test_power_cut_in_the_worst_order(void)
{
    sweep(FAIL_DEAD, CUT_EARLIER);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_error),     TEST(test_lost_answer),
        TEST(test_no_space),  TEST(test_crash),
        TEST(test_power_cut), TEST(test_power_cut_in_the_worst_order),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
