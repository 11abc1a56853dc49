/* Reading chunks in pack order, whole and damaged. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "temp_repo.h"

DEFINE_CLEANUP(struct repo *, repo_close)
DEFINE_CLEANUP(struct repo_fetch *, repo_fetch_free)

#define N_CHUNKS 60
#define N_REQUESTS 200
#define LEN(v) (1000u + 10 * (uint32_t)(v))

struct delivered {
    pthread_mutex_t lock;
    unsigned n[N_REQUESTS]; /* times that the tag was delivered */
    unsigned good, damaged, wrong;
    uint64_t value[N_REQUESTS]; /* what the tag asks for */
    char why[ERR_MSG_MAX];
    unsigned stop_after; /* 0: never */
};

static int
deliver(void *arg, unsigned worker, uint64_t tag, const struct chunk_id *id,
        const void *data, size_t len, const struct err *why, struct err *err)
{
    struct delivered *d = arg;
    uint8_t want[LEN(N_CHUNKS)];
    int rc = 0;

    (void)pthread_mutex_lock(&d->lock);
    d->n[tag]++;
    if (data == NULL) {
        d->damaged++;
        (void)snprintf(d->why, sizeof d->why, "%s", why->msg);
    } else {
        temp_fill(d->value[tag], want, len);
        if (why == NULL && memcmp(data, want, len) == 0)
            d->good++;
        else
            d->wrong++;
    }
    if (d->stop_after > 0 && d->good + d->damaged >= d->stop_after)
        rc = err_set(err, ERR_NO_SPACE, "the target is full");
    (void)pthread_mutex_unlock(&d->lock);
    return rc;
}

/* Chunks 1 .. N_CHUNKS in two sessions with small packs; ids by value. */
static void
fill_repo(struct repo *r, struct chunk_id *ids)
{
    struct repo_session_opts opts = REPO_SESSION_OPTS;
    uint8_t data[LEN(N_CHUNKS)];

    memset(&ids[0], 0, sizeof ids[0]);
    for (unsigned part = 0; part < 2; part++) {
        struct point *p = temp_point("m", TEMP_CHUNK, 1);
        struct repo_session *s;

        (void)repo_session_begin(r, &opts, &s, ERR_ABORT);
        session_set_limits(s, 2048, 1000);
        for (uint64_t v = 1 + part; v <= N_CHUNKS; v += 2) {
            struct put_stat stat;

            temp_fill(v, data, LEN(v));
            (void)repo_put(s, 0, data, LEN(v), NULL, &ids[v], &stat, ERR_ABORT);
        }
        (void)repo_commit(s, p, ERR_ABORT);
        repo_session_free(s);
        point_free(p);
    }
}

/* Ask for every chunk about three times, in an order that is not theirs, some
 * zero chunks among them. */
static int
fetch_all(struct repo *r, const struct chunk_id *ids, size_t batch,
          unsigned n_workers, struct delivered *d, struct err *err)
{
    struct repo_fetch_opts opts = {n_workers, batch, deliver, d, false};
    CLEANUP(repo_fetch_freep) struct repo_fetch *f = NULL;

    (void)pthread_mutex_init(&d->lock, NULL);
    (void)repo_fetch_new(r, &opts, &f, ERR_ABORT);
    for (uint64_t tag = 0; tag < N_REQUESTS; tag++) {
        uint64_t v = tag * 37 % (N_CHUNKS + 1);

        d->value[tag] = v;
        if (repo_fetch_add(f, tag, &ids[v], LEN(v), err) < 0)
            return -1;
    }
    return repo_fetch_finish(f, err);
}

static bool
each_once(const struct delivered *d)
{
    for (unsigned i = 0; i < N_REQUESTS; i++)
        if (d->n[i] != 1)
            return false;
    return true;
}

/* Every request is answered once, with its bytes, whatever the batch. */
static void
test_all(void)
{
    static const size_t batches[] = {0, 1, 7, N_REQUESTS};
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    struct chunk_id ids[N_CHUNKS + 1];

    temp_repo_init(&t);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    fill_repo(r, ids);
    for (size_t i = 0; i < ARRAY_SIZE(batches); i++) {
        struct delivered d = {0};
        struct err err = ERR_INIT;

        CHECK_OK(fetch_all(r, ids, batches[i], 1 + i, &d, &err), &err);
        CHECK(each_once(&d) && d.good == N_REQUESTS && d.wrong == 0);
    }
}

/* A chunk that nobody stored, or of another length, is that request's problem
 * alone. */
static void
test_missing(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(repo_fetch_freep) struct repo_fetch *f = NULL;
    struct chunk_id ids[N_CHUNKS + 1], none = {{1, 2, 3}};
    struct delivered d = {.value = {[2] = 5}};
    struct repo_fetch_opts opts = {2, 0, deliver, &d, false};

    (void)pthread_mutex_init(&d.lock, NULL);
    temp_repo_init(&t);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    fill_repo(r, ids);
    (void)repo_fetch_new(r, &opts, &f, ERR_ABORT);
    CHECK(repo_fetch_add(f, 0, &none, 100, NULL) == 0);
    CHECK(repo_fetch_finish(f, NULL) == 0 && d.damaged == 1);
    CHECK(strstr(d.why, "no index segment") != NULL);
    CHECK(repo_fetch_add(f, 1, &ids[5], LEN(5) + 1, NULL) == 0);
    CHECK(repo_fetch_add(f, 2, &ids[5], LEN(5), NULL) == 0);
    CHECK(repo_fetch_finish(f, NULL) == 0); /* again, after a finish */
    CHECK(d.damaged == 2 && d.good == 1 && d.wrong == 0);
    CHECK(repo_fetch_add(f, 3, &ids[5], 0, NULL) < 0);
    CHECK(repo_fetch_add(f, 3, &ids[5], REPO_CHUNK_MAX + 1, NULL) < 0);
}

/* -- damage -----------------------------------------------------------------*/

static unsigned n_packs;
static char first_pack[512];

static int
visit_pack(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    if (type != FTW_F || strstr(path, "/data/") == NULL)
        return 0;
    if (n_packs++ == 0)
        (void)snprintf(first_pack, sizeof first_pack, "%s", path);
    return 0;
}

static void
find_packs(const struct temp_repo *t)
{
    n_packs = 0;
    (void)nftw(t->path, visit_pack, 16, FTW_PHYS);
}

enum damage { GONE, CUT, FLIPPED };

static void
damaged(enum damage how)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    struct chunk_id ids[N_CHUNKS + 1];
    struct delivered d = {0};
    struct err err = ERR_INIT;
    int fd;

    temp_repo_init(&t);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    fill_repo(r, ids);
    find_packs(&t);
    CHECK(n_packs > 4);
    fd = open(first_pack, O_RDWR | O_CLOEXEC);
    if (how == GONE)
        CHECK(unlink(first_pack) == 0);
    if (how == CUT) /* in the middle of a range of several frames */
        CHECK(ftruncate(fd, 400) == 0);
    if (how == FLIPPED)
        CHECK(pwrite(fd, "\xaa\x55\xaa\x55", 4, 300) == 4);
    (void)close(fd);
    CHECK_OK(fetch_all(r, ids, 0, 2, &d, &err), &err);
    CHECK(each_once(&d) && d.wrong == 0 && d.damaged > 0);
    CHECK(d.good + d.damaged == N_REQUESTS);
    CHECK(d.damaged * 4 < N_REQUESTS); /* the other packs are not hit */
    CHECK(strstr(d.why, "data/") != NULL);
    if (how == FLIPPED)
        CHECK(d.damaged <= 4); /* one chunk */
}

static void
test_pack_gone(void)
{
    damaged(GONE);
}

static void
test_pack_cut(void)
{
    damaged(CUT);
}

static void
test_pack_flipped(void)
{
    damaged(FLIPPED);
}

/* A disk error in one pack does not stop the reading of the others. */
static ino_t sick_inode;

static ssize_t
sick_pread(int fd, void *buf, size_t len, off_t off)
{
    struct stat st;

    if (fstat(fd, &st) == 0 && st.st_ino == sick_inode && off < 300 &&
        off + (off_t)len > 200) {
        errno = EIO;
        return -1;
    }
    return file_ops_system.pread(fd, buf, len, off);
}

static void
test_io_error(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    struct file_ops ops = *temp_ops();
    struct chunk_id ids[N_CHUNKS + 1];
    struct delivered d = {0};
    struct err err = ERR_INIT;
    struct stat st;

    temp_repo_init(&t);
    ops.pread = sick_pread;
    (void)repo_open(t.path, &ops, &r, ERR_ABORT);
    fill_repo(r, ids);
    find_packs(&t);
    CHECK(stat(first_pack, &st) == 0);
    sick_inode = st.st_ino;
    CHECK_OK(fetch_all(r, ids, 0, 2, &d, &err), &err);
    sick_inode = 0;
    CHECK(each_once(&d) && d.wrong == 0 && d.damaged > 0);
    CHECK(d.damaged <= 8); /* the frames on the bad sector */
    CHECK(strstr(d.why, "Input/output error") != NULL);
}

/* -- stopping ---------------------------------------------------------------*/

/* The callback's error is the fetch's error, and ends it. */
static void
test_stop(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    struct chunk_id ids[N_CHUNKS + 1];
    struct delivered d = {.stop_after = 20};
    struct err err = ERR_INIT;

    temp_repo_init(&t);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    fill_repo(r, ids);
    CHECK(fetch_all(r, ids, 0, 3, &d, &err) < 0);
    CHECK(err.code == ERR_NO_SPACE && strstr(err.msg, "target is full"));
    CHECK(d.good < N_REQUESTS);
}

struct canceling {
    struct repo_fetch *fetch;
    atomic_bool begun, canceled;
};

static int
wait_for_cancel(void *arg, unsigned worker, uint64_t tag,
                const struct chunk_id *id, const void *data, size_t len,
                const struct err *why, struct err *err)
{
    struct canceling *c = arg;

    atomic_store(&c->begun, true);
    while (!atomic_load(&c->canceled))
        (void)sched_yield();
    return 0;
}

static void *
cancel_thread(void *arg)
{
    struct canceling *c = arg;

    while (!atomic_load(&c->begun))
        (void)sched_yield();
    repo_fetch_cancel(c->fetch);
    atomic_store(&c->canceled, true);
    return NULL;
}

/* Cancel from another thread while workers are busy. */
static void
test_cancel(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    struct chunk_id ids[N_CHUNKS + 1];
    struct canceling c = {0};
    struct repo_fetch_opts opts = {2, 0, wait_for_cancel, &c, false};
    struct err err = ERR_INIT;
    pthread_t thread;

    temp_repo_init(&t);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    fill_repo(r, ids);
    (void)repo_fetch_new(r, &opts, &c.fetch, ERR_ABORT);
    (void)pthread_create(&thread, NULL, cancel_thread, &c);
    for (uint64_t tag = 0; tag < N_REQUESTS; tag++)
        (void)repo_fetch_add(c.fetch, tag, &ids[tag % 60 + 1],
                             LEN(tag % 60 + 1), ERR_ABORT);
    CHECK(repo_fetch_finish(c.fetch, &err) < 0 && err.code == ERR_CANCELED);
    (void)pthread_join(thread, NULL);
    err_clear(&err);
    CHECK(repo_fetch_add(c.fetch, 0, &ids[1], LEN(1), &err) < 0);
    CHECK(err.code == ERR_CANCELED);
    repo_fetch_free(c.fetch);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_all),      TEST(test_missing),      TEST(test_pack_gone),
        TEST(test_pack_cut), TEST(test_pack_flipped), TEST(test_io_error),
        TEST(test_stop),     TEST(test_cancel),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
