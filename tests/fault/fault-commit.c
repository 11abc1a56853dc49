/* Fail the Nth file operation of a commit, for every N, in four ways.
 *
 * After it, with a healthy file system: a listed point verifies; a commit that
 * said yes is listed; one that said no is not, unless it said that it may be.
 */
#include <errno.h>
#include <stdatomic.h>

#include "../unit/map/temp_repo.h"

DEFINE_CLEANUP(struct repo *, repo_close)

enum mode {
    FAIL_IO,    /* the operation is not done: EIO */
    FAIL_SPACE, /* not done: ENOSPC */
    FAIL_LATE,  /* done, but EIO all the same: the answer was lost */
    FAIL_DEAD,  /* this and all later operations: the process is gone */
};

static struct {
    enum mode mode;
    atomic_bool armed, fired;
    atomic_long left; /* operations until the failure */
} fault;

/* Should this operation be reported as failed? */
static bool
fires(void)
{
    long left;

    if (!atomic_load(&fault.armed))
        return false;
    left = atomic_fetch_sub(&fault.left, 1);
    if (left > 0 || (left < 0 && fault.mode != FAIL_DEAD))
        return false;
    atomic_store(&fault.fired, true);
    return true;
}

#define FAULTY(call)                                         \
    do {                                                     \
        if (fires()) {                                       \
            if (fault.mode == FAIL_LATE)                     \
                (void)(call);                                \
            errno = fault.mode == FAIL_SPACE ? ENOSPC : EIO; \
            return -1;                                       \
        }                                                    \
        return call;                                         \
    } while (0)

static int
f_open(const char *path, int flags, mode_t mode)
{
    if (fires()) { /* late makes no sense: nobody would close it */
        errno = fault.mode == FAIL_SPACE ? ENOSPC : EIO;
        return -1;
    }
    return file_ops_system.open(path, flags, mode);
}

static ssize_t
f_pread(int fd, void *buf, size_t len, off_t off)
{
    FAULTY(file_ops_system.pread(fd, buf, len, off));
}

static ssize_t
f_pwrite(int fd, const void *buf, size_t len, off_t off)
{
    FAULTY(file_ops_system.pwrite(fd, buf, len, off));
}

static int
f_fsync(int fd)
{
    FAULTY(temp_fsync(fd));
}

static int
f_close(int fd)
{
    int rc = file_ops_system.close(fd); /* always done, as in Linux */

    if (!fires())
        return rc;
    errno = EIO;
    return -1;
}

static int
f_link(const char *from, const char *to)
{
    FAULTY(file_ops_system.link(from, to));
}

static int
f_rename(const char *from, const char *to)
{
    FAULTY(file_ops_system.rename(from, to));
}

static int
f_unlink(const char *path)
{
    FAULTY(file_ops_system.unlink(path));
}

static int
f_mkdir(const char *path, mode_t mode)
{
    FAULTY(file_ops_system.mkdir(path, mode));
}

static int
f_rmdir(const char *path)
{
    FAULTY(file_ops_system.rmdir(path));
}

static int
f_stat(const char *path, struct stat *st)
{
    FAULTY(file_ops_system.stat(path, st));
}

static const struct file_ops faulty_ops = {
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

#define N_CHUNKS 3
#define SIZE (N_CHUNKS * (uint64_t)TEMP_CHUNK)
#define N_MAX 500 /* a commit has fewer operations */

static bool checkpoints; /* instead of commits */

/* The fault comes in a checkpoint; what was durable before stays. */
static int
try_checkpoint(struct repo_session *s, struct point *p, struct err *err)
{
    uint64_t values[N_CHUNKS] = {3, 4, 5};
    struct chunk_id root;
    int rc;

    p->partial = true;
    rc = repo_session_checkpoint(s, p, err);
    /* then it must be of use */
    if (rc == 0)
        (void)temp_put_disk(s, values, SIZE, &p->disks[0].root, &root, NULL);
    return rc;
}

/* A backup whose commit meets the fault; the end of the session as well. */
static int
try_commit(const struct temp_repo *t, long n, struct err *err)
{
    uint64_t values[N_CHUNKS] = {1, 100 + (uint64_t)n, 2};
    struct repo_session_opts opts = REPO_SESSION_OPTS;
    struct point *p = temp_point("m", SIZE, 1);
    struct chunk_id zero = {0};
    struct repo_session *s;
    struct repo *r;
    int rc;

    (void)repo_open(t->path, &faulty_ops, &r, ERR_ABORT);
    (void)repo_session_begin(r, &opts, &s, ERR_ABORT);
    (void)temp_put_disk(s, values, SIZE, &zero, &p->disks[0].root, ERR_ABORT);
    atomic_store(&fault.left, n);
    atomic_store(&fault.fired, false);
    atomic_store(&fault.armed, true);
    rc = (checkpoints ? try_checkpoint : repo_commit)(s, p, err);
    repo_session_free(s);
    atomic_store(&fault.armed, false);
    repo_close(r);
    point_free(p);
    return rc;
}

/* How many points there are; every one of them must verify. */
static size_t
sound_points(const struct temp_repo *t)
{
    CLEANUP(point_list_done) struct point_list l = {0};
    CLEANUP(repo_closep) struct repo *r = NULL;
    struct repo_verify_report rep = {0};
    struct err err = ERR_INIT;

    CHECK_OK(repo_open(t->path, temp_ops(), &r, &err), &err);
    CHECK_OK(repo_points_all(r, NULL, &l, NULL, &err), &err);
    CHECK_OK(repo_verify(r, &l, 1, NULL, NULL, NULL, &rep, &err), &err);
    for (size_t i = 0; i < jv_size(rep.problems); i++) {
        const struct jv *j = jv_at(rep.problems, i);

        printf("# %s: %s\n", jv_get_str(j, "object"), jv_get_str(j, "problem"));
    }
    CHECK(jv_size(rep.problems) == 0);
    jv_free(rep.problems);
    return l.n;
}

/* One commit on top of a good point, with the fault at operation `n`.  True
 * when the fault came. */
static bool
step(long n, size_t *in_doubt)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    uint64_t values[N_CHUNKS] = {1, 2, 3};
    struct chunk_id zero = {0}, root;
    struct err err = ERR_INIT;
    int rc, failures = tap_failures;
    size_t now;

    temp_repo_init(&t);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    temp_backup(r, "m", values, SIZE, &zero, &root);
    rc = try_commit(&t, n, &err);
    now = sound_points(&t);
    if (rc == 0)
        CHECK(now == 2);
    else if (!checkpoints || now == 1) /* else the reading after it failed */
        CHECK(now == 1 || (now == 2 && strstr(err.msg, "may exist") != NULL));
    if (tap_failures > failures)
        printf("# at operation %ld: %s\n", n, err.msg);
    *in_doubt += rc < 0 && now == 2;
    return atomic_load(&fault.fired);
}

static void
sweep(enum mode mode)
{
    size_t in_doubt = 0;
    long n = 0;

    fault.mode = mode;
    while (n < N_MAX && step(n, &in_doubt))
        n++;
    printf("# %ld operations, %zu commits in doubt\n", n, in_doubt);
    CHECK(n > 20 && n < N_MAX);
}

static void
test_io(void)
{
    sweep(FAIL_IO);
}

static void
test_space(void)
{
    sweep(FAIL_SPACE);
}

static void
test_late(void)
{
    sweep(FAIL_LATE);
}

static void
test_dead(void)
{
    sweep(FAIL_DEAD);
}

/* The same for each operation of a checkpoint. */
static void
test_checkpoint(void)
{
    static const enum mode modes[] = {FAIL_IO, FAIL_SPACE, FAIL_LATE,
                                      FAIL_DEAD};

    checkpoints = true;
    for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
        sweep(modes[i]);
    checkpoints = false;
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_io),   TEST(test_space),      TEST(test_late),
        TEST(test_dead), TEST(test_checkpoint),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
