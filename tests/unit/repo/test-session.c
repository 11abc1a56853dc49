/* A repository below the point layer: what sessions store is found, once, and
 * only after a commit. */
#include "tap.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>

#include "clock.h"
#include "fileops.h"
#include "index.h"
#include "repo_fixture.h"

#define LEN 4096

static void
put_seed(struct repo_session *s, uint64_t seed, struct chunk_id *id,
         struct put_stat *stat)
{
    uint8_t data[LEN];

    fixture_fill(data, sizeof data, seed, seed % 2 == 0);
    CHECK_OK(repo_put(s, 0, data, sizeof data, NULL, id, stat, ERR_ABORT),
             ERR_ABORT);
}

static bool
reads_back(struct repo *r, uint64_t seed, const struct chunk_id *id)
{
    uint8_t want[LEN], got[LEN];
    struct err err = ERR_INIT;

    fixture_fill(want, sizeof want, seed, seed % 2 == 0);
    if (fixture_read(r, id, got, sizeof got, &err) < 0)
        printf("# %s\n", err.msg);
    return err.code == ERR_NONE && memcmp(want, got, sizeof got) == 0;
}

/* A session that puts the seeds first .. first+n-1 and commits. */
static void
commit_seeds(struct repo *r, uint64_t first, unsigned n, struct chunk_id *ids)
{
    CLEANUP(repo_session_freep) struct repo_session *s = fixture_session(r, 1);

    session_set_limits(s, 64 * 1024, 40);
    for (unsigned i = 0; i < n; i++)
        put_seed(s, first + i, &ids[i], NULL);
    CHECK_OK(fixture_commit(s, ERR_ABORT), ERR_ABORT);
}

/* -- making and opening -----------------------------------------------------*/

static void
test_init_open(void)
{
    struct fixture f;
    char id[33];
    uint64_t space = 0;

    fixture_begin(&f);
    CHECK(repo_chunk_size(f.r) == REPO_CHUNK_DEFAULT);
    CHECK(strlen(repo_id(f.r)) == 32);
    CHECK_STR(repo_path(f.r), f.dir);
    CHECK_OK(repo_free_space(f.r, &space, ERR_ABORT), ERR_ABORT);
    CHECK(space > 0);
    memcpy(id, repo_id(f.r), sizeof id);
    fixture_reopen(&f);
    CHECK_STR(repo_id(f.r), id);
    CHECK(tmpdir_count(f.dir, "") == 1); /* the self-test left nothing */
    fixture_end(&f);
}

static int
uncounted_stat(const char *path, struct stat *st)
{
    int r = stat(path, st);

    st->st_nlink = 1;
    return r;
}

/* A collection, too, tries the store before it rests on it. */
static void
test_gc_tries_the_store(void)
{
    struct file_ops ops = file_ops_system;
    struct repo_gc_opts opts = {.dry_run = false};
    struct repo_gc_report rep;
    struct err err = ERR_INIT;
    struct repo *r = NULL;
    struct fixture f;

    fixture_begin(&f);
    ops.stat = uncounted_stat;
    CHECK_OK(repo_open(f.dir, &ops, &r, ERR_ABORT), ERR_ABORT);
    CHECK(repo_gc(r, &opts, &rep, &err) < 0);
    CHECK(err.code == ERR_UNSUPPORTED);
    CHECK(strstr(err.msg, "does not count the names of a file") != NULL);
    CHECK(tmpdir_count(f.dir, "") == 1); /* "format" */
    repo_close(r);
    CHECK_OK(repo_gc(f.r, &opts, &rep, ERR_ABORT), ERR_ABORT);
    fixture_end(&f);
}

/* A second init must not touch what is there. */
static void
test_init_refuses(void)
{
    struct err err = ERR_INIT;
    struct fixture f;

    fixture_begin(&f);
    CHECK(repo_init(f.dir, REPO_CHUNK_DEFAULT, NULL, &err) < 0);
    CHECK(err.code == ERR_EXISTS);
    CHECK(strstr(err.msg, "is a Tidemark repository already") != NULL);
    err_clear(&err);
    CHECK(repo_init(f.dir, 65537, NULL, &err) < 0);
    CHECK(err.code == ERR_USAGE);
    fixture_end(&f);
}

static void
check_no_repository(const char *path)
{
    struct repo *r = NULL;
    struct err err = ERR_INIT;
    char want[3 * TMPDIR_MAX];

    (void)snprintf(want, sizeof want,
                   "'%s' is not a Tidemark repository; make one with: "
                   "tidemark init '%s'",
                   path, path);
    CHECK(repo_open(path, NULL, &r, &err) < 0);
    CHECK(err.code == ERR_NOT_FOUND && r == NULL);
    CHECK_STR(err.msg, want);
}

/* Missing directory, empty mount point, a file, somebody's `format`: the same
 * words, and nothing is created. */
static void
test_open_refuses(void)
{
    char dir[TMPDIR_MAX], path[2 * TMPDIR_MAX];
    FILE *f;

    tmpdir_make(dir);
    check_no_repository(dir);
    CHECK(tmpdir_count(dir, "") == 0);
    (void)snprintf(path, sizeof path, "%s/missing", dir);
    check_no_repository(path);
    (void)snprintf(path, sizeof path, "%s/format", dir);
    f = fopen(path, "w");
    CHECK(f != NULL && fputs("hello\n", f) >= 0 && fclose(f) == 0);
    check_no_repository(path);
    check_no_repository(dir);
    tmpdir_remove(dir);
}

/* A damaged format object is not "no repository": init is no help there. */
static void
test_open_damaged(void)
{
    struct fixture f;
    struct repo *r = NULL;
    struct err err = ERR_INIT;

    fixture_begin(&f);
    tmpdir_poke(f.dir, "format", 100, "#", 1);
    CHECK(repo_open(f.dir, NULL, &r, &err) < 0);
    CHECK(err.code == ERR_CORRUPT);
    CHECK(strstr(err.msg, "fails its SHA-256; restore it from a copy") != NULL);
    fixture_end(&f);
}

/* A feature that forbids writing forbids sessions and nothing else. */
static void
test_read_only_feature(void)
{
    struct repo_session_opts opts = REPO_SESSION_OPTS;
    struct repo_session *s = NULL;
    struct err err = ERR_INIT;
    struct fixture f;
    struct repo *r = NULL;

    fixture_begin(&f);
    CHECK_OK(store_put(f.r->store, "feature/ro-compat.raid", "", 0, ERR_ABORT),
             ERR_ABORT);
    CHECK(repo_session_begin(f.r, &opts, &s, &err) < 0);
    CHECK(err.code == ERR_UNSUPPORTED && s == NULL);
    CHECK(strstr(err.msg, "'raid'") != NULL);
    CHECK(tmpdir_count(f.dir, "") == 2); /* format, feature: no session */
    fixture_reopen(&f);
    err_clear(&err);
    CHECK_OK(store_put(f.r->store, "feature/incompat.raid", "", 0, ERR_ABORT),
             ERR_ABORT);
    CHECK(repo_open(f.dir, NULL, &r, &err) < 0);
    CHECK(err.code == ERR_UNSUPPORTED);
    fixture_end(&f);
}

/* -- storing ----------------------------------------------------------------*/

/* Zeroes have the zero id and are stored nowhere. */
static void
test_zero(void)
{
    static const uint8_t zero[65536];
    uint8_t got[65536];
    struct fixture f;
    struct put_stat stat = {true, 1};
    struct chunk_id id = {{1}};
    struct repo_session *s;

    fixture_begin(&f);
    s = fixture_session(f.r, 1);
    CHECK_OK(repo_put(s, 0, zero, sizeof zero, NULL, &id, &stat, ERR_ABORT),
             ERR_ABORT);
    CHECK(chunk_id_zero(&id) && !stat.is_new && stat.stored_bytes == 0);
    CHECK_OK(page_put(s, zero, 2048, &id, ERR_ABORT), ERR_ABORT);
    CHECK(chunk_id_zero(&id));
    CHECK_OK(fixture_commit(s, ERR_ABORT), ERR_ABORT);
    CHECK(repo_session_stored(s) == 0);
    repo_session_free(s);
    memset(got, 1, sizeof got);
    CHECK_OK(fixture_read(f.r, &id, got, sizeof got, ERR_ABORT), ERR_ABORT);
    CHECK(memcmp(got, zero, sizeof got) == 0);
    fixture_end(&f);
}

/* Once in a session, once in the repository; equal to the base: not asked. */
static void
test_dedup(void)
{
    struct chunk_id a, b, base;
    struct put_stat stat;
    struct repo_session *s;
    uint8_t data[LEN];
    struct fixture f;

    fixture_begin(&f);
    s = fixture_session(f.r, 1);
    put_seed(s, 1, &a, &stat);
    CHECK(stat.is_new && stat.stored_bytes > 0);
    put_seed(s, 1, &b, &stat);
    CHECK(!stat.is_new && stat.stored_bytes == 0 && chunk_id_equal(&a, &b));
    CHECK_OK(fixture_commit(s, ERR_ABORT), ERR_ABORT);
    repo_session_free(s);
    s = fixture_session(f.r, 1);
    put_seed(s, 1, &b, &stat);
    CHECK(!stat.is_new && chunk_id_equal(&a, &b));
    put_seed(s, 2, &base, &stat);
    CHECK(stat.is_new);
    fixture_fill(data, sizeof data, 2, true);
    CHECK_OK(repo_put(s, 0, data, sizeof data, &base, &b, &stat, ERR_ABORT),
             ERR_ABORT);
    CHECK(!stat.is_new && chunk_id_equal(&b, &base));
    repo_session_free(s);
    fixture_end(&f);
}

/* What a session that never commits has stored is used by nobody, and gone when
 * it ends. */
static void
test_uncommitted(void)
{
    struct repo_session *s, *other;
    struct put_stat stat;
    struct chunk_id id;
    struct fixture f;

    fixture_begin(&f);
    s = fixture_session(f.r, 1);
    session_set_limits(s, 64 * 1024, 40);
    for (unsigned i = 0; i < 200; i++)
        put_seed(s, i, &id, &stat);
    other = fixture_session(f.r, 1);
    put_seed(other, 1, &id, &stat);
    CHECK(stat.is_new);
    CHECK(tmpdir_count(f.dir, "") > 5);
    repo_session_free(s);
    repo_session_free(other);
    CHECK(tmpdir_count(f.dir, "") == 1);
    CHECK_OK(index_reload(f.r, ERR_ABORT), ERR_ABORT);
    CHECK(index_n_records(f.r) == 0);
    fixture_end(&f);
}

/* An end in doubt removes nothing: the point may exist. */
static void
test_in_doubt(void)
{
    struct repo_session *s;
    CLEANUP_JV struct jv *parts = NULL;
    struct chunk_id id;
    struct fixture f;

    fixture_begin(&f);
    s = fixture_session(f.r, 1);
    put_seed(s, 1, &id, NULL);
    CHECK_OK(session_seal(s, &parts, ERR_ABORT), ERR_ABORT);
    session_set_fate(s, SESSION_IN_DOUBT);
    repo_session_free(s);
    CHECK(tmpdir_count(f.dir, "") == 4); /* format session data index */
    fixture_end(&f);
}

/* The parts of a commit name each object with its length and SHA-256. */
static void
test_seal_parts(void)
{
    CLEANUP_JV struct jv *parts = NULL;
    struct repo_session *s;
    struct chunk_id id;
    struct fixture f;
    struct err err = ERR_INIT;
    uint64_t total = 0;

    fixture_begin(&f);
    s = fixture_session(f.r, 1);
    session_set_limits(s, 64 * 1024, 40);
    for (unsigned i = 0; i < 100; i++)
        put_seed(s, i, &id, NULL);
    CHECK_OK(page_put(s, "page", 4, &id, ERR_ABORT), ERR_ABORT);
    CHECK_OK(session_seal(s, &parts, ERR_ABORT), ERR_ABORT);
    CHECK(jv_size(jv_get(parts, "packs")) >= 4);
    CHECK(jv_size(jv_get(parts, "index")) == 3);
    for (int kind = 0; kind < 2; kind++) {
        const struct jv *list = jv_get(parts, kind == 0 ? "packs" : "index");

        for (size_t i = 0; i < jv_size(list); i++) {
            uint64_t len = 0, real = 0;
            const char *key = jv_get_str(jv_at(list, i), "key");

            CHECK(jv_get_uint(jv_at(list, i), "len", &len));
            CHECK(strlen(jv_get_str(jv_at(list, i), "sha256")) == 64);
            CHECK(store_size(f.r->store, key, &real, ERR_ABORT) == 1);
            CHECK(real == len);
            total += len;
        }
    }
    CHECK(repo_session_stored(s) == total);
    CHECK(repo_put(s, 0, "x", 1, NULL, &id, NULL, &err) < 0);
    CHECK_STR(err.msg, "the session is sealed");
    repo_session_free(s);
    fixture_end(&f);
}

/* Pages and blobs of the running session can be read in every state of their
 * pack: being filled, waiting, written, and after their records were written
 * out. */
static void
test_read_own(void)
{
    enum { COUNT = 300 };
    static struct chunk_id ids[COUNT];
    struct repo_session *s;
    uint8_t data[LEN], got[LEN];
    struct err err = ERR_INIT;
    struct fixture f;

    fixture_begin(&f);
    s = fixture_session(f.r, 1);
    session_set_limits(s, 16 * 1024, 64);
    for (unsigned i = 0; i < COUNT; i++) {
        fixture_fill(data, sizeof data, i, false);
        CHECK_OK(i % 2
                     ? page_put(s, data, sizeof data, &ids[i], ERR_ABORT)
                     : repo_put_blob(s, data, sizeof data, &ids[i], ERR_ABORT),
                 ERR_ABORT);
        for (unsigned k = i > 20 ? i - 20 : 0; k <= i; k++) {
            fixture_fill(data, sizeof data, k, false);
            CHECK_OK(page_get_session(s, &ids[k], got, sizeof got, ERR_ABORT),
                     ERR_ABORT);
            CHECK(memcmp(data, got, sizeof got) == 0);
        }
    }
    CHECK(page_get(f.r, &ids[0], got, sizeof got, &err) < 0);
    CHECK(err.code == ERR_NOT_FOUND);
    CHECK_OK(fixture_commit(s, ERR_ABORT), ERR_ABORT);
    repo_session_free(s);
    CHECK_OK(index_reload(f.r, ERR_ABORT), ERR_ABORT);
    CHECK_OK(page_get(f.r, &ids[0], got, sizeof got, ERR_ABORT), ERR_ABORT);
    err_clear(&err);
    CHECK(page_get(f.r, &ids[0], got, sizeof got - 1, &err) < 0);
    CHECK(err.code == ERR_CORRUPT);
    fixture_end(&f);
}

/* Wrong requests are refused before anything is stored. */
static void
test_bad_requests(void)
{
    static uint8_t big[REPO_CHUNK_MAX + 1];
    struct repo_session *s;
    struct chunk_id id;
    struct err err = ERR_INIT;
    struct fixture f;

    fixture_begin(&f);
    s = fixture_session(f.r, 2);
    CHECK(repo_put(s, 2, big, 1, NULL, &id, NULL, &err) < 0);
    CHECK_STR(err.msg, "worker 2 of 2");
    CHECK(repo_put(s, 0, big, sizeof big, NULL, &id, NULL, NULL) < 0);
    CHECK(repo_put(s, 0, big, 0, NULL, &id, NULL, NULL) < 0);
    CHECK(page_put(s, big, 0, &id, NULL) < 0);
    put_seed(s, 1, &id, NULL); /* still alive */
    repo_session_free(s);
    fixture_end(&f);
}

/* -- against a plain list ---------------------------------------------------*/

/* Many sessions with overlapping chunks: all readable, each stored once, record
 * numbers dense, packs named. */
static void
test_oracle(void)
{
    enum { SESSIONS = 5, EACH = 150, STEP = 100 };
    static struct chunk_id ids[SESSIONS][EACH];
    static bool seen[SESSIONS * EACH];
    struct fixture f;
    unsigned unique = (SESSIONS - 1) * STEP + EACH;

    fixture_begin(&f);
    for (unsigned s = 0; s < SESSIONS; s++)
        commit_seeds(f.r, s * STEP, EACH, ids[s]);
    fixture_reopen(&f);
    CHECK(index_n_records(f.r) == unique);
    for (unsigned s = 0; s < SESSIONS; s++) {
        for (unsigned i = 0; i < EACH; i++) {
            struct locator l;
            char key[REPO_KEY_MAX];

            CHECK(reads_back(f.r, s * STEP + i, &ids[s][i]));
            CHECK(index_find(f.r, &ids[s][i], &l, ERR_ABORT) == 1);
            CHECK(l.record < unique && l.raw_len == LEN);
            CHECK(l.pack < index_n_packs(f.r) && l.kind == FRAME_DATA);
            CHECK(locator_pack_key(f.r, &l, key) == 0);
            CHECK(strncmp(key, "data/", 5) == 0);
            seen[l.record] = true;
        }
    }
    for (unsigned i = 0; i < unique; i++)
        CHECK(seen[i]);
    CHECK(index_n_packs(f.r) > SESSIONS);
    fixture_end(&f);
}

/* A segment that is too large for the quick table is searched by itself, beside
 * small ones. */
static void
test_large_segment(void)
{
    enum { COUNT = 70000 };
    struct chunk_id small[10], id;
    struct repo_session *s;
    struct put_stat stat;
    struct locator l;
    struct fixture f;
    unsigned bad = 0;

    fixture_begin(&f);
    commit_seeds(f.r, 0, 10, small);
    for (int round = 0; round < 2; round++) {
        s = fixture_session(f.r, 1);
        for (uint64_t i = 1; i <= COUNT; i++) {
            CHECK_OK(repo_put(s, 0, &i, sizeof i, NULL, &id, &stat, ERR_ABORT),
                     ERR_ABORT);
            bad += stat.is_new != (round == 0);
            bad += round > 0 && index_find(f.r, &id, &l, ERR_ABORT) != 1;
        }
        CHECK_OK(fixture_commit(s, ERR_ABORT), ERR_ABORT);
        repo_session_free(s);
    }
    CHECK(bad == 0);
    CHECK(index_n_records(f.r) == COUNT + 10);
    for (unsigned i = 0; i < 10; i++)
        CHECK(reads_back(f.r, i, &small[i]));
    id.b[SEGMENT_PREFIX - 1] ^= 1;
    CHECK(index_find(f.r, &id, &l, ERR_ABORT) == 0);
    fixture_end(&f);
}

/* Numbers do not change when a reload adds more. */
static void
test_reload_only_adds(void)
{
    static struct chunk_id a[60], b[60];
    struct locator before, after;
    struct fixture f;

    fixture_begin(&f);
    commit_seeds(f.r, 0, 60, a);
    CHECK_OK(index_reload(f.r, ERR_ABORT), ERR_ABORT);
    CHECK(index_find(f.r, &a[7], &before, ERR_ABORT) == 1);
    commit_seeds(f.r, 1000, 60, b);
    CHECK_OK(index_reload(f.r, ERR_ABORT), ERR_ABORT);
    CHECK_OK(index_reload(f.r, ERR_ABORT), ERR_ABORT);
    CHECK(index_n_records(f.r) == 120);
    CHECK(index_find(f.r, &a[7], &after, ERR_ABORT) == 1);
    CHECK(locator_compare(&before, &after) == 0);
    CHECK(before.record == after.record);
    CHECK(index_find(f.r, &b[7], &after, ERR_ABORT) == 1);
    CHECK(locator_compare(&before, &after) < 0);
    fixture_end(&f);
}

/* -- threads ----------------------------------------------------------------*/

enum { THREADS = 4, PER_THREAD = 400, SHARED = 250 };

struct putter {
    struct repo_session *s;
    unsigned worker;
    unsigned n_new;
    struct chunk_id ids[PER_THREAD];
};

/* Every thread puts the same SHARED chunks and some of its own. */
static uint64_t
seed_of(unsigned worker, unsigned i)
{
    return i < SHARED ? i : 10000 + worker * PER_THREAD + i;
}

static void *
put_many(void *arg)
{
    struct putter *p = arg;

    for (unsigned i = 0; i < PER_THREAD; i++) {
        uint64_t seed = seed_of(p->worker, i);
        uint8_t data[LEN];
        struct put_stat stat;

        fixture_fill(data, sizeof data, seed, seed % 2 == 0);
        CHECK_OK(repo_put(p->s, p->worker, data, sizeof data, NULL, &p->ids[i],
                          &stat, ERR_ABORT),
                 ERR_ABORT);
        p->n_new += stat.is_new;
    }
    return NULL;
}

static int
check_whole(void *arg, const char *key, uint64_t len)
{
    struct repo *r = arg;
    struct pack_view v;
    const uint8_t *map;
    size_t map_len;
    char own[REPO_KEY_MAX];

    CHECK_OK(store_map(r->store, key, &map, &map_len, ERR_ABORT), ERR_ABORT);
    CHECK_OK(pack_parse(map, map_len, &v, ERR_ABORT), ERR_ABORT);
    pack_key(&v.name, own);
    CHECK_STR(own, key);
    store_unmap(r->store, map, map_len);
    return 0;
}

/* Packs that reach the store in parts are whole, with and without a thread, and
 * an abandoned one leaves no temporary file. */
static void
test_packs_in_parts(void)
{
    for (int synchronous = 0; synchronous < 2; synchronous++) {
        struct repo_session_opts opts = REPO_SESSION_OPTS;
        struct repo_session *s = NULL;
        static struct chunk_id ids[100];
        struct fixture f;

        fixture_begin(&f);
        opts.synchronous = synchronous;
        for (int turn = 0; turn < 2; turn++) {
            CHECK_OK(repo_session_begin(f.r, &opts, &s, ERR_ABORT), ERR_ABORT);
            session_set_limits(s, 64 * 1024, 1000);
            for (unsigned i = 0; i < 90 + 7 * (unsigned)turn; i++)
                put_seed(s, 2 * i + 1, &ids[i], NULL);
            if (turn == 1)
                CHECK_OK(fixture_commit(s, ERR_ABORT), ERR_ABORT);
            repo_session_free(s);
            CHECK(tmpdir_count(f.dir, ".tmp-") == 0);
        }
        CHECK_OK(store_list(f.r->store, "data", check_whole, f.r, ERR_ABORT),
                 ERR_ABORT);
        CHECK(tmpdir_count(f.dir, "0000") == 7);
        fixture_reopen(&f);
        for (unsigned i = 0; i < 97; i++)
            CHECK(reads_back(f.r, 2 * i + 1, &ids[i]));
        fixture_end(&f);
    }
}

static int
count_segments(void *arg, const char *key, uint64_t len)
{
    (void)key;
    (void)len;
    ++*(unsigned *)arg;
    return 0;
}

static unsigned
n_segments(struct repo *r)
{
    unsigned n = 0;

    CHECK_OK(store_list(r->store, "index", count_segments, &n, ERR_ABORT),
             ERR_ABORT);
    return n;
}

/* Of a session that stores much, the index segments are merged in two levels, and
 * the merged ones only are there and committed; everything is found once while
 * it runs and afterwards. */
static void
test_merged_segments(void)
{
    enum { SEEDS = 64 * 10 + 30 };
    static struct chunk_id ids[SEEDS];
    struct repo_session *s;
    struct put_stat stat;
    struct fixture f;

    fixture_begin(&f);
    s = fixture_session(f.r, 1);
    session_set_limits(s, 64 * 1024, 10);
    for (unsigned i = 0; i < SEEDS; i++) {
        put_seed(s, i, &ids[i], &stat);
        CHECK(stat.is_new);
        put_seed(s, i * 7 % (i + 1), &ids[i * 7 % (i + 1)], &stat);
        CHECK(!stat.is_new);
        /* 7 of the first level, 7 runs of the second in 4 segments each, 32 of
         * the third */
        if (i % 50 == 0)
            CHECK(n_segments(f.r) <= 7 + 7 * 4 + 32);
    }
    CHECK_OK(fixture_commit(s, ERR_ABORT), ERR_ABORT);
    repo_session_free(s);
    CHECK(n_segments(f.r) == 32 + 3);
    fixture_reopen(&f);
    CHECK(index_n_records(f.r) == SEEDS);
    for (unsigned i = 0; i < SEEDS; i++)
        CHECK(reads_back(f.r, i, &ids[i]));
    s = fixture_session(f.r, 1);
    for (unsigned i = 0; i < SEEDS; i++) {
        put_seed(s, i, &ids[i], &stat);
        CHECK(!stat.is_new);
    }
    repo_session_free(s);
    fixture_end(&f);
}

/* A session that ends without a point leaves no segment, merged or not. */
static void
test_merged_segments_removed(void)
{
    struct chunk_id id;
    struct put_stat stat;
    struct repo_session *s;
    struct fixture f;

    fixture_begin(&f);
    s = fixture_session(f.r, 1);
    session_set_limits(s, 64 * 1024, 10);
    for (unsigned i = 0; i < 100; i++)
        put_seed(s, i, &id, &stat);
    CHECK(n_segments(f.r) == 5);
    repo_session_free(s);
    CHECK(n_segments(f.r) == 0);
    fixture_end(&f);
}

/* Two workers with the same new chunk store it once. */
static void
test_threads(void)
{
    static struct putter p[THREADS];
    pthread_t threads[THREADS];
    unsigned n_new = 0;
    struct repo_session *s;
    struct fixture f;

    fixture_begin(&f);
    s = fixture_session(f.r, THREADS);
    session_set_limits(s, 128 * 1024, 200);
    for (unsigned i = 0; i < THREADS; i++) {
        p[i] = (struct putter){.s = s, .worker = i};
        CHECK(pthread_create(&threads[i], NULL, put_many, &p[i]) == 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        n_new += p[i].n_new;
    }
    CHECK(n_new == SHARED + THREADS * (PER_THREAD - SHARED));
    CHECK_OK(fixture_commit(s, ERR_ABORT), ERR_ABORT);
    repo_session_free(s);
    CHECK_OK(index_reload(f.r, ERR_ABORT), ERR_ABORT);
    CHECK(index_n_records(f.r) == n_new);
    for (unsigned i = 0; i < THREADS; i++)
        for (unsigned k = 0; k < PER_THREAD; k++)
            CHECK(reads_back(f.r, seed_of(i, k), &p[i].ids[k]));
    fixture_end(&f);
}

/* -- damage -----------------------------------------------------------------*/

static int
take_first(void *arg, const char *key, uint64_t len)
{
    char *to = arg;

    (void)len;
    memcpy(to, key, strlen(key) + 1);
    return 1;
}

static void
first_key(struct repo *r, const char *kind, char key[REPO_KEY_MAX])
{
    CHECK(store_list(r->store, kind, take_first, key, ERR_ABORT) == 1);
}

static void
check_problem(struct repo *r, const char *key)
{
    CLEANUP_JV struct jv *list = index_problems(r);

    CHECK(jv_size(list) == 1);
    CHECK_STR(jv_get_str(jv_at(list, 0), "object"), key);
}

/* An index segment that is lost or damaged is made again from the packs, and
 * reported. */
static void
test_index_lost(void)
{
    static struct chunk_id ids[100];

    for (int what = 0; what < 4; what++) {
        char key[REPO_KEY_MAX];
        struct fixture f;

        fixture_begin(&f);
        commit_seeds(f.r, 0, 30, ids);
        first_key(f.r, "index", key);
        if (what == 3) { /* among the records */
            uint64_t len;

            CHECK(store_size(f.r->store, key, &len, ERR_ABORT) == 1);
            tmpdir_poke(f.dir, key, len - 32 - 20, "damage", 6);
        }
        if (what == 0)
            tmpdir_poke(f.dir, key, 20, "damage", 6);
        if (what == 1)
            CHECK_OK(store_delete(f.r->store, key, ERR_ABORT), ERR_ABORT);
        if (what == 2) {
            char path[2 * TMPDIR_MAX];

            (void)snprintf(path, sizeof path, "%s/%s", f.dir, key);
            CHECK(truncate(path, 500) == 0);
        }
        fixture_reopen(&f);
        check_problem(f.r, key);
        CHECK(index_n_records(f.r) == 30);
        for (unsigned i = 0; i < 30; i++)
            CHECK(reads_back(f.r, i, &ids[i]));
        fixture_end(&f);
    }
}

/* A pack that is gone or was cut: nothing in it is reused, so that the next
 * session heals it. */
static void
test_pack_lost(void)
{
    static struct chunk_id ids[30], again[30];

    for (int what = 0; what < 3; what++) {
        unsigned n_absent = 0;
        struct locator l;
        char key[REPO_KEY_MAX], path[2 * TMPDIR_MAX];
        struct fixture f;

        fixture_begin(&f);
        commit_seeds(f.r, 0, 30, ids);
        first_key(f.r, "data", key);
        (void)snprintf(path, sizeof path, "%s/%s", f.dir, key);
        if (what == 0)
            CHECK_OK(store_delete(f.r->store, key, ERR_ABORT), ERR_ABORT);
        else
            CHECK(truncate(path, what == 1 ? 0 : 6000) == 0);
        fixture_reopen(&f);
        for (unsigned i = 0; i < 30; i++) {
            CHECK(index_find(f.r, &ids[i], &l, ERR_ABORT) == 1);
            n_absent += l.absent;
        }
        CHECK(n_absent > 0 && n_absent < 30);
        commit_seeds(f.r, 0, 30, again);
        fixture_reopen(&f);
        CHECK(index_n_records(f.r) == 30 + n_absent);
        for (unsigned i = 0; i < 30; i++)
            CHECK(reads_back(f.r, i, &ids[i]));
        fixture_end(&f);
    }
}

#define MANY 9000 /* records: a segment that is not read whole when opened */

static void
commit_many(struct repo *r, struct chunk_id *ids)
{
    CLEANUP(repo_session_freep) struct repo_session *s = fixture_session(r, 1);

    for (uint32_t i = 0; i < MANY; i++) {
        uint8_t data[16] = "many chunks";

        memcpy(data + 12, &i, sizeof i);
        CHECK_OK(
            repo_put(s, 0, data, sizeof data, NULL, &ids[i], NULL, ERR_ABORT),
            ERR_ABORT);
    }
    CHECK_OK(fixture_commit(s, ERR_ABORT), ERR_ABORT);
}

/* What two collections have removed, and noted and forgotten to note since, is not
 * in the index of a session any more, however long the repository is open. */
static void
test_session_after_collections(void)
{
    struct repo_gc_opts opts = {.dry_run = false};
    struct repo_gc_report rep;
    struct repo_session *s;
    struct put_stat stat = {false, 0};
    struct chunk_id ids[10];
    struct repo *other = NULL;
    struct fixture f;

    fixture_begin(&f);
    commit_seeds(f.r, 0, 10, ids);
    s = fixture_session(f.r, 1); /* its packs were looked at */
    put_seed(s, 3, &ids[3], &stat);
    CHECK(!stat.is_new);
    repo_session_free(s);
    for (unsigned i = 1; i <= 3; i++) {
        CHECK_OK(repo_open(f.dir, NULL, &other, ERR_ABORT), ERR_ABORT);
        CHECK_OK(repo_gc(other, &opts, &rep, ERR_ABORT), ERR_ABORT);
        commit_seeds(other, 100 * i, 10, ids);
        repo_close(other);
    }
    s = fixture_session(f.r, 1);
    put_seed(s, 3, &ids[3], &stat);
    CHECK(stat.is_new);
    repo_session_free(s);
    fixture_end(&f);
}

/* A damaged block of records is an error for the ids in it, and a reason to
 * store them again, after which they are found. */
static void
test_index_block_damaged(void)
{
    static struct chunk_id ids[MANY], again[MANY];
    unsigned n_damaged = 0;
    struct locator l;
    struct err err = ERR_INIT;
    char key[REPO_KEY_MAX];
    uint64_t len;
    struct fixture f;

    fixture_begin(&f);
    commit_many(f.r, ids);
    first_key(f.r, "index", key);
    CHECK(store_size(f.r->store, key, &len, ERR_ABORT) == 1);
    tmpdir_poke(f.dir, key, len - 32 - 20, "damage", 6);
    fixture_reopen(&f);
    for (unsigned i = 0; i < MANY; i++)
        n_damaged += index_find(f.r, &ids[i], &l, &err) < 0;
    CHECK(n_damaged > 0 && n_damaged < MANY / 10);
    CHECK(err.code == ERR_CORRUPT);
    CHECK(strstr(err.msg, key) != NULL);
    commit_many(f.r, again);
    fixture_reopen(&f);
    for (unsigned i = 0; i < MANY; i++)
        CHECK(index_find(f.r, &ids[i], &l, ERR_ABORT) == 1);
    fixture_end(&f);
}

/* The storage does not give a part of a mapped segment any more (SIGBUS): an
 * error that names it where the answer was there, and no crash. */
static void
test_index_unreadable(void)
{
    static struct chunk_id ids[MANY];
    unsigned n_found = 0, n_lost = 0;
    struct locator l[INDEX_COPIES_MAX];
    struct err err = ERR_INIT;
    char key[REPO_KEY_MAX], path[2 * TMPDIR_MAX];
    struct fixture f;

    fixture_begin(&f);
    commit_many(f.r, ids);
    fixture_reopen(&f);
    first_key(f.r, "index", key);
    (void)snprintf(path, sizeof path, "%s/%s", f.dir, key);
    CHECK(truncate(path, 128 << 10) == 0);
    for (unsigned i = 0; i < MANY; i++) {
        size_t n = 0;

        if (index_find_all(f.r, &ids[i], l, INDEX_COPIES_MAX, &n, &err) < 0)
            n_lost++;
        else
            n_found += n > 0;
    }
    CHECK(n_found + n_lost == MANY && n_found > MANY / 4 && n_lost > MANY / 4);
    CHECK(err.code == ERR_SYSTEM && err.sys == EIO);
    CHECK(strstr(err.msg, key) != NULL);
    fixture_end(&f);
}

/* A damaged frame is an error that names pack and place; its neighbours are
 * fine. */
static void
test_frame_damaged(void)
{
    static struct chunk_id ids[10];
    struct locator l;
    struct err err = ERR_INIT;
    char key[REPO_KEY_MAX];
    uint8_t got[LEN];
    struct fixture f;

    fixture_begin(&f);
    commit_seeds(f.r, 0, 10, ids);
    fixture_reopen(&f);
    CHECK(index_find(f.r, &ids[3], &l, ERR_ABORT) == 1);
    CHECK(locator_pack_key(f.r, &l, key) == 0);
    tmpdir_poke(f.dir, key, l.offset + 100, "damage", 6);
    CHECK(fixture_read(f.r, &ids[3], got, sizeof got, &err) < 0);
    CHECK(err.code == ERR_CORRUPT);
    CHECK(strstr(err.msg, key) != NULL);
    for (unsigned i = 0; i < 10; i++)
        if (i != 3)
            CHECK(reads_back(f.r, i, &ids[i]));
    fixture_end(&f);
}

/* A commit object that is damaged is reported; what others committed is
 * found. */
static void
test_commit_damaged(void)
{
    static struct chunk_id a[10], b[10];
    char key[REPO_KEY_MAX];
    struct fixture f;

    fixture_begin(&f);
    commit_seeds(f.r, 0, 10, a);
    first_key(f.r, "commit", key);
    commit_seeds(f.r, 100, 10, b);
    tmpdir_poke(f.dir, key, 30, "damage", 6);
    fixture_reopen(&f);
    check_problem(f.r, key);
    CHECK(index_n_records(f.r) == 10);
    for (unsigned i = 0; i < 10; i++)
        CHECK(reads_back(f.r, 100 + i, &b[i]));
    fixture_end(&f);
}

/* A pack that disappears before the commit makes no point. */
static void
test_pack_gone_before_commit(void)
{
    struct repo_session *s;
    struct chunk_id id;
    struct err err = ERR_INIT;
    char key[REPO_KEY_MAX];
    struct deadline until = deadline_in(10000);
    struct fixture f;

    fixture_begin(&f);
    s = fixture_session(f.r, 1);
    session_set_limits(s, 16 * 1024, 1000);
    for (unsigned i = 0; i < 50; i++)
        put_seed(s, i, &id, NULL);
    while (tmpdir_count(f.dir, "0000") == 0 && deadline_left(until) > 0)
        (void)poll(NULL, 0, 1); /* until the first pack is written */
    first_key(f.r, "data", key);
    CHECK_OK(store_delete(f.r->store, key, ERR_ABORT), ERR_ABORT);
    CHECK(fixture_commit(s, &err) < 0);
    CHECK(err.code == ERR_NOT_FOUND);
    CHECK(strstr(err.msg, key) != NULL);
    err_clear(&err);
    CHECK(fixture_commit(s, &err) < 0); /* dead is dead */
    CHECK(err.code == ERR_NOT_FOUND);
    repo_session_free(s);
    CHECK(tmpdir_count(f.dir, "") == 1);
    fixture_end(&f);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_init_open),
        TEST(test_init_refuses),
        TEST(test_gc_tries_the_store),
        TEST(test_open_refuses),
        TEST(test_open_damaged),
        TEST(test_read_only_feature),
        TEST(test_zero),
        TEST(test_dedup),
        TEST(test_uncommitted),
        TEST(test_in_doubt),
        TEST(test_seal_parts),
        TEST(test_read_own),
        TEST(test_bad_requests),
        TEST(test_oracle),
        TEST(test_large_segment),
        TEST(test_reload_only_adds),
        TEST(test_packs_in_parts),
        TEST(test_merged_segments),
        TEST(test_merged_segments_removed),
        TEST(test_threads),
        TEST(test_index_lost),
        TEST(test_pack_lost),
        TEST(test_session_after_collections),
        TEST(test_index_block_damaged),
        TEST(test_index_unreadable),
        TEST(test_frame_damaged),
        TEST(test_commit_damaged),
        TEST(test_pack_gone_before_commit),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
