/* Make a repository, store chunks, commit, while the Nth file operation goes
 * wrong, for N = 1, 2, ... until nothing goes wrong any more.
 *
 * Whatever happens: success is said only when everything is there, a repository
 * that was made still opens, and the next session works. */
#include "tap.h"

#include <limits.h>

#include "faulty_ops.h"
#include "repo_fixture.h"

#define CHUNKS 200
#define LEN 1024
#define N_MAX 5000 /* far above what the scenario needs */

struct run {
    char path[2 * TMPDIR_MAX];
    struct chunk_id ids[CHUNKS];
    bool made, committed;
    struct err err;
};

static void
chunk(unsigned i, uint8_t data[LEN])
{
    fixture_fill(data, LEN, i, i % 2 == 0);
}

static int
put_all(struct repo_session *s, struct chunk_id *ids, struct err *err)
{
    for (unsigned i = 0; i < CHUNKS; i++) {
        uint8_t data[LEN];
        int r;

        chunk(i, data);
        r = i % 4 == 3
                ? page_put(s, data, sizeof data, &ids[i], err)
                : repo_put(s, 0, data, sizeof data, NULL, &ids[i], NULL, err);
        if (r < 0)
            return -1;
    }
    return 0;
}

/* A session that failed once gives the same error for ever. */
static void
check_dead(struct repo_session *s, const struct err *first)
{
    struct chunk_id id;
    struct jv *parts = NULL;
    struct err err = ERR_INIT;

    CHECK(repo_put(s, 0, "x", 1, NULL, &id, NULL, &err) < 0);
    CHECK(err.code == first->code);
    CHECK(session_seal(s, &parts, NULL) < 0);
}

static int
session(struct repo *r, struct run *run, struct err *err)
{
    struct repo_session_opts opts = REPO_SESSION_OPTS;
    CLEANUP(repo_session_freep) struct repo_session *s = NULL;

    if (repo_session_begin(r, &opts, &s, err) < 0)
        return -1;
    /* Small enough that index segments are merged, too. */
    session_set_limits(s, 16 * 1024, 20);
    if (put_all(s, run->ids, err) < 0) {
        check_dead(s, err);
        return -1;
    }
    return fixture_commit(s, err);
}

static void
scenario(struct run *run)
{
    CLEANUP(repo_closep) struct repo *r = NULL;

    if (repo_init(run->path, REPO_CHUNK_DEFAULT, &faulty_ops, &run->err) < 0)
        return;
    run->made = true;
    if (repo_open(run->path, &faulty_ops, &r, &run->err) < 0)
        return;
    run->committed = session(r, run, &run->err) == 0;
}

static unsigned
n_readable(struct repo *r, const struct chunk_id *ids)
{
    unsigned n = 0;

    for (unsigned i = 0; i < CHUNKS; i++) {
        uint8_t want[LEN], got[LEN];

        chunk(i, want);
        n += page_get(r, &ids[i], got, sizeof got, NULL) == 0 &&
             memcmp(want, got, sizeof got) == 0;
    }
    return n;
}

static int
count_one(void *arg, const char *key, uint64_t len)
{
    unsigned *n = arg;

    (void)key;
    (void)len;
    (*n)++;
    return 0;
}

/* A commit object is there, or not: everything is, or nothing counts. */
static void
check_repository(struct run *run)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP_JV struct jv *problems = NULL;
    struct run again = {.made = true};
    unsigned commits = 0;
    struct err err = ERR_INIT;

    CHECK_OK(repo_open(run->path, &faulty_ops, &r, &err), &err);
    if (r == NULL)
        return;
    CHECK_OK(store_list(r->store, "commit", count_one, &commits, ERR_ABORT),
             ERR_ABORT);
    CHECK(commits == 1 || (commits == 0 && !run->committed));
    problems = index_problems(r);
    CHECK(jv_size(problems) == 0);
    CHECK(index_n_records(r) == (commits > 0 ? CHUNKS : 0));
    if (commits > 0)
        CHECK(n_readable(r, run->ids) == CHUNKS);
    CHECK_OK(session(r, &again, &err), &err);
    CHECK_OK(index_reload(r, &err), &err);
    CHECK(n_readable(r, again.ids) == CHUNKS);
}

static void
check_not_made(const struct run *run)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    struct err err = ERR_INIT;

    /* The last step may have worked although it was reported as failed. */
    if (repo_open(run->path, &faulty_ops, &r, &err) == 0)
        return;
    CHECK(err.code == ERR_NOT_FOUND);
    CHECK(strstr(err.msg, "make one with: tidemark init") != NULL);
    /* What is left behind does not stop the next one. */
    err_clear(&err);
    CHECK_OK(repo_init(run->path, REPO_CHUNK_DEFAULT, &faulty_ops, &err), &err);
    CHECK_OK(repo_open(run->path, &faulty_ops, &r, &err), &err);
}

/* Whether a fault was met at all. */
static bool
one(enum faulty_mode mode, unsigned n, bool power_cut)
{
    struct run run = {.made = false};
    char dir[TMPDIR_MAX];
    int before = tap_failures;
    bool hit;

    tmpdir_make(dir);
    (void)snprintf(run.path, sizeof run.path, "%s/repo", dir);
    faulty_start(mode, n);
    scenario(&run);
    CHECK(run.committed == (run.err.code == ERR_NONE));
    if (mode == FAULTY_SHORT || !faulty.hit)
        CHECK(run.committed);
    if (mode == FAULTY_ENOSPC && !run.committed)
        CHECK(run.err.code == ERR_NO_SPACE);
    hit = faulty.hit;
    if (power_cut)
        faulty_power_cut();
    faulty_start(FAULTY_EIO, UINT_MAX); /* from here on all is well */
    if (run.made)
        check_repository(&run);
    else
        check_not_made(&run);
    if (tap_failures > before)
        printf("# operation %u, mode %d: %s\n", n, (int)mode, run.err.msg);
    tmpdir_remove(dir);
    return hit;
}

static void
sweep(enum faulty_mode mode, bool power_cut)
{
    unsigned n = 1;

    while (n < N_MAX && tap_failures == 0 && one(mode, n, power_cut))
        n++;
    printf("# %u operations\n", n);
    CHECK(n > 100 && n < N_MAX);
}

static void
test_eio(void)
{
    sweep(FAULTY_EIO, false);
}

static void
test_no_space(void)
{
    sweep(FAULTY_ENOSPC, false);
}

static void
test_short(void)
{
    sweep(FAULTY_SHORT, false);
}

static void
test_crash(void)
{
    sweep(FAULTY_CRASH, false);
}

static void
test_power_cut(void)
{
    sweep(FAULTY_CRASH, true);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_eio),   TEST(test_no_space),  TEST(test_short),
        TEST(test_crash), TEST(test_power_cut),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
