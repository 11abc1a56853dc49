/* The proof of a repository: nothing bad is passed over, nothing good is
 * blamed, and what is read is never wrong. */
#include <fcntl.h>
#include <stdatomic.h>

#include "temp_repo.h"

DEFINE_CLEANUP(struct repo *, repo_close)
DEFINE_CLEANUP(struct repo_fetch *, repo_fetch_free)
DEFINE_CLEANUP(struct map_reader *, map_reader_free)

#define SMALL_CHUNKS 3
#define SMALL_SIZE (2 * TEMP_CHUNK + 100)

static const uint64_t small_old[SMALL_CHUNKS] = {1, 0, 2};
static const uint64_t small_new[SMALL_CHUNKS] = {1, 3, 2};

/* -- reading all, against what was written ----------------------------------*/

struct oracle {
    const uint64_t *values;
    atomic_uint good, damaged, wrong;
};

static int
compare(void *arg, unsigned worker, uint64_t tag, const struct chunk_id *id,
        const void *data, size_t len, const struct err *why, struct err *err)
{
    struct oracle *o = arg;
    static _Thread_local uint8_t want[TEMP_CHUNK];

    if (data == NULL) {
        atomic_fetch_add(&o->damaged, 1);
        return 0;
    }
    temp_fill(o->values[tag], want, len);
    atomic_fetch_add(memcmp(data, want, len) == 0 ? &o->good : &o->wrong, 1);
    return 0;
}

/* 0 all of the disk reads as written, -1 some of it reads not at all. */
static int
read_disk(struct repo *r, const struct point_disk *d, const uint64_t *values,
          unsigned *wrong)
{
    struct oracle o = {.values = values};
    struct repo_fetch_opts opts = {1, 0, compare, &o, false};
    CLEANUP(repo_fetch_freep) struct repo_fetch *f = NULL;
    CLEANUP(map_reader_freep) struct map_reader *m = NULL;
    struct chunk_id id;

    if (map_reader_new(r, d->size, d->chunk_size, &d->root, &m, NULL) < 0 ||
        repo_fetch_new(r, &opts, &f, NULL) < 0)
        return -1;
    for (uint64_t i = 0; i * TEMP_CHUNK < d->size; i++) {
        if (map_reader_get(m, i, &id, NULL) < 0)
            return -1;
        if (chunk_id_zero(&id) != (values[i] == 0))
            (*wrong)++;
        if (repo_fetch_add(f, i, &id, temp_len(d->size, i), NULL) < 0)
            return -1;
    }
    if (repo_fetch_finish(f, NULL) < 0)
        return -1;
    *wrong += o.wrong;
    return o.damaged > 0 ? -1 : 0;
}

/* Is every byte of both points there?  -1 when anything fails on the way. */
static int
read_all(struct repo *r, const struct point_list *l, unsigned *wrong)
{
    int rc = 0;

    for (size_t i = 0; i < l->n; i++) {
        const struct point *p = l->v[i];
        CLEANUP_FREE uint8_t *config = NULL;

        if (read_disk(r, &p->disks[0], p->seq == 1 ? small_old : small_new,
                      wrong) < 0)
            rc = -1;
        if (repo_get_blob(r, &p->config, p->config_len, &config, NULL) < 0)
            rc = -1;
        else if (strcmp((const char *)config, "{\"memory\": 512}") != 0)
            (*wrong)++;
    }
    return rc;
}

static size_t
problems(struct repo *r, const struct point_list *l)
{
    struct repo_verify_report rep;
    size_t n;

    if (repo_verify(r, l, 1, NULL, NULL, NULL, &rep, NULL) < 0)
        return 1;
    n = jv_size(rep.problems);
    jv_free(rep.problems);
    return n;
}

/* -- every byte -------------------------------------------------------------*/

struct sweep {
    const char *path; /* of the repository */
    bool deleting;
    unsigned long tried, harmless;
    unsigned wrong, missed;
};

/* Open, list, read and verify the repository as it is now. */
static void
judge(struct sweep *s, const char *path, size_t at)
{
    CLEANUP(point_list_done) struct point_list l = {0};
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP_JV struct jv *bad = NULL;
    unsigned wrong = 0;

    s->tried++;
    if (repo_open(s->path, temp_ops(), &r, NULL) < 0 ||
        repo_points(r, NULL, &l, &bad, NULL) < 0)
        return; /* said so already */
    /* A commit object that is gone is a point that was deleted. */
    if ((l.n == 2 || s->deleting) && read_all(r, &l, &wrong) == 0) {
        s->harmless++;
    } else if (jv_size(bad) == 0 && problems(r, &l) == 0) {
        printf("# missed: %s at %zu\n", path, at);
        s->missed++;
    }
    if (wrong > 0)
        printf("# wrong bytes: %s at %zu\n", path, at);
    s->wrong += wrong;
}

static struct sweep sweep;

static int
flip_each(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    int fd;

    if (type != FTW_F)
        return 0;
    fd = open(path, O_RDWR | O_CLOEXEC);
    for (off_t at = 0; fd >= 0 && at < st->st_size; at++) {
        uint8_t old, flipped;

        if (pread(fd, &old, 1, at) != 1)
            abort();
        flipped = old ^ (uint8_t)(1u << (at % 8));
        if (pwrite(fd, &flipped, 1, at) != 1)
            abort();
        judge(&sweep, path, (size_t)at);
        if (pwrite(fd, &old, 1, at) != 1)
            abort();
    }
    (void)close(fd);
    return 0;
}

static int
lose_each(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    char aside[512];

    if (type != FTW_F)
        return 0;
    (void)snprintf(aside, sizeof aside, "%s.aside", sweep.path);
    if (rename(path, aside) != 0)
        abort();
    judge(&sweep, path, 0);
    if (rename(aside, path) != 0)
        abort();
    return 0;
}

static void
small_repo(struct temp_repo *t)
{
    struct chunk_id root = {0}, zero = {0};
    CLEANUP(repo_closep) struct repo *r = NULL;

    temp_repo_init(t);
    (void)repo_open(t->path, temp_ops(), &r, ERR_ABORT);
    temp_backup(r, "m", small_old, SMALL_SIZE, &zero, &root);
    temp_backup(r, "m", small_new, SMALL_SIZE, &root, &root);
}

static void
run_sweep(int (*each)(const char *, const struct stat *, int, struct FTW *),
          bool deleting)
{
    CLEANUP(temp_repo_done) struct temp_repo t;

    small_repo(&t);
    sweep = (struct sweep){.path = t.path, .deleting = deleting};
    judge(&sweep, "nothing", 0);
    CHECK(sweep.harmless == 1);
    CHECK(nftw(t.path, each, 16, FTW_PHYS) == 0);
    printf("# %lu tried, %lu changed nothing that is read\n", sweep.tried,
           sweep.harmless);
    CHECK(sweep.tried > 5);
    CHECK(sweep.wrong == 0);
    CHECK(sweep.missed == 0);
}

/* Flip one bit of each byte of each file: no read is ever wrong, and what
 * cannot be read is found by the check. */
static void
slow_flip_each_byte(void)
{
    run_sweep(flip_each, false);
}

static void
test_lose_each_file(void)
{
    run_sweep(lose_each, true);
}

/* -- exact places -----------------------------------------------------------*/

#define BIG_CHUNKS 300
#define BIG_SIZE (BIG_CHUNKS * (uint64_t)TEMP_CHUNK - 1000)

/* Chunk i of the first point holds value i + 1.  The second point shares all
 * of it but chunk 0.  Machine "n" has the same disk as the first. */
static void
big_repo(struct temp_repo *t, struct repo **ret)
{
    struct chunk_id root = {0}, zero = {0};
    uint64_t values[BIG_CHUNKS];
    struct repo *r;

    temp_repo_init(t);
    (void)repo_open(t->path, temp_ops(), &r, ERR_ABORT);
    for (unsigned i = 0; i < BIG_CHUNKS; i++)
        values[i] = i + 1;
    temp_backup(r, "m", values, BIG_SIZE, &zero, &root);
    temp_backup(r, "n", values, BIG_SIZE, &zero, &root);
    values[0] = 5000;
    temp_backup(r, "m", values, BIG_SIZE, &root, &root);
    *ret = r;
}

/* Break the stored frame of a chunk or page. */
static void
break_frame(const struct temp_repo *t, struct repo *r,
            const struct chunk_id *id)
{
    char key[REPO_KEY_MAX], path[512];
    struct locator l;
    int fd;

    CHECK(index_find(r, id, &l, NULL) == 1);
    CHECK(locator_pack_key(r, &l, key) == 0);
    (void)snprintf(path, sizeof path, "%s/%s", t->path, key);
    fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(pwrite(fd, "\x5a\xa5\x5a\xa5", 4, l.offset + l.frame_len - 4) == 4);
    (void)close(fd);
}

static void
break_chunk(const struct temp_repo *t, struct repo *r,
            const struct point_disk *d, uint64_t index)
{
    CLEANUP(map_reader_freep) struct map_reader *m = NULL;
    struct chunk_id id;

    (void)map_reader_new(r, d->size, d->chunk_size, &d->root, &m, ERR_ABORT);
    (void)map_reader_get(m, index, &id, ERR_ABORT);
    break_frame(t, r, &id);
}

static bool
has_problem(const struct jv *list, const char *machine, uint64_t seq,
            uint64_t offset, uint64_t length, const struct point_list *l)
{
    for (size_t i = 0; i < jv_size(list); i++) {
        const struct jv *j = jv_at(list, i);
        const char *m = jv_get_str(j, "machine");
        const struct point *p = NULL;
        uint64_t off, len;

        if (m == NULL || strcmp(m, machine) != 0 ||
            !jv_get_uint(j, "offset", &off) ||
            !jv_get_uint(j, "length", &len) || off != offset || len != length)
            continue;
        /* the label is one that point_find() takes */
        if (point_find(l, jv_get_str(j, "point"), &p, NULL) == 0 &&
            p->seq == seq && strcmp(jv_get_str(j, "disk"), "vda") == 0)
            return true;
    }
    return false;
}

static void
count_progress(void *arg, uint64_t done, uint64_t total)
{
    uint64_t *last = arg; /* calls come one at a time */

    CHECK(done >= last[0] && done <= total);
    last[0] = done;
    last[1] = total;
}

/* Nothing is wrong: each page and chunk is counted once. */
static void
test_clean(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(point_list_done) struct point_list l = {0};
    struct repo_verify_report rep = {0};
    struct err err = ERR_INIT;
    uint64_t last[2] = {0};

    big_repo(&t, &r);
    CHECK_OK(repo_points(r, NULL, &l, NULL, &err), &err);
    CHECK_OK(repo_verify(r, &l, 2, count_progress, last, NULL, &rep, &err),
             &err);
    CHECK(rep.points == 3 && rep.chunks == BIG_CHUNKS + 1);
    CHECK(rep.pages == 6 + 2); /* 5 leaves, a root; one path of the second */
    CHECK(rep.bytes == BIG_SIZE + TEMP_CHUNK);
    CHECK(rep.bad_chunks == 0 && rep.bad_pages == 0);
    CHECK(jv_size(rep.problems) == 0);
    CHECK(last[0] == rep.packs_bytes && last[1] == rep.packs_bytes);
    CHECK(rep.packs == rep.packs_read && rep.packs == 2 + 2);
    jv_free(rep.problems);
}

/* A damaged chunk hits every point that shares it, at its place; neighbours
 * are one range; others are not named. */
static void
test_bad_chunks(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(point_list_done) struct point_list l = {0};
    struct repo_verify_report rep = {0};
    const struct point_disk *d;
    struct err err = ERR_INIT;

    big_repo(&t, &r);
    CHECK_OK(repo_points(r, NULL, &l, NULL, &err), &err);
    CHECK(l.n == 3);
    d = &l.v[0]->disks[0];
    break_chunk(&t, r, d, 0); /* of m's first point and n's only */
    break_chunk(&t, r, d, 130);
    break_chunk(&t, r, d, 131);
    break_chunk(&t, r, d, BIG_CHUNKS - 1); /* the short one */
    CHECK_OK(repo_verify(r, &l, 2, NULL, NULL, NULL, &rep, &err), &err);
    CHECK(rep.bad_chunks == 4 && rep.bad_pages == 0);
    CHECK(jv_size(rep.problems) == 1 + 3 + 2 + 3); /* with the pack */
    for (uint64_t k = 0; k < 3; k++) {
        const char *m = k < 2 ? "m" : "n";
        uint64_t seq = k == 1 ? 2 : 1;

        CHECK(has_problem(rep.problems, m, seq, 0, TEMP_CHUNK, &l) == (k != 1));
        CHECK(has_problem(rep.problems, m, seq, 130 * (uint64_t)TEMP_CHUNK,
                          2 * TEMP_CHUNK, &l));
        CHECK(has_problem(rep.problems, m, seq,
                          (BIG_CHUNKS - 1) * (uint64_t)TEMP_CHUNK,
                          TEMP_CHUNK - 1000, &l));
    }
    jv_free(rep.problems);
}

/* A damaged page hits the range that it covers. */
static void
test_bad_page(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(point_list_done) struct point_list l = {0};
    struct repo_verify_report rep = {0};
    struct chunk_id page[64];
    struct err err = ERR_INIT;

    big_repo(&t, &r);
    CHECK_OK(repo_points(r, NULL, &l, NULL, &err), &err);
    (void)page_get(r, &l.v[0]->disks[0].root, page, sizeof page, ERR_ABORT);
    break_frame(&t, r, &page[0]); /* not of m's second point */
    break_frame(&t, r, &page[4]); /* of all, with the end of the disk */
    CHECK_OK(repo_verify(r, &l, 1, NULL, NULL, NULL, &rep, &err), &err);
    CHECK(rep.bad_pages == 2 && rep.bad_chunks == 0);
    CHECK(jv_size(rep.problems) == 1 + 5);
    CHECK(has_problem(rep.problems, "m", 1, 0, 64 * TEMP_CHUNK, &l));
    CHECK(has_problem(rep.problems, "n", 1, 0, 64 * TEMP_CHUNK, &l));
    CHECK(!has_problem(rep.problems, "m", 2, 0, 64 * TEMP_CHUNK, &l));
    CHECK(has_problem(rep.problems, "m", 2, 256 * (uint64_t)TEMP_CHUNK,
                      BIG_SIZE - 256 * (uint64_t)TEMP_CHUNK, &l));
    jv_free(rep.problems);
}

/* More problems than anybody reads are cut off, and that is said. */
static void
test_many_problems(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(point_list_done) struct point_list l = {0};
    struct repo_session_opts opts = REPO_SESSION_OPTS;
    struct repo_verify_report rep = {0};
    uint64_t size = UINT64_C(20480) * TEMP_CHUNK;
    struct point *p = temp_point("m", size, 1);
    struct chunk_id zero = {0}, none = {{0}};
    struct err err = ERR_INIT;
    struct map_writer *w;
    struct repo_session *s;

    temp_repo_init(&t);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    (void)repo_session_begin(r, &opts, &s, ERR_ABORT);
    (void)map_writer_new(s, size, TEMP_CHUNK, &zero, &w, ERR_ABORT);
    for (uint32_t i = 0; i < 20480; i += 2) { /* chunks that nobody put */
        memcpy(none.b + 1, &i, sizeof i);
        none.b[0] = 1;
        (void)map_writer_set(w, i, &none, ERR_ABORT);
    }
    (void)map_writer_finish(w, &p->disks[0].root, ERR_ABORT);
    map_writer_free(w);
    CHECK_OK(repo_commit(s, p, &err), &err);
    repo_session_free(s);
    point_free(p);
    CHECK_OK(repo_points(r, NULL, &l, NULL, &err), &err);
    CHECK_OK(repo_verify(r, &l, 1, NULL, NULL, NULL, &rep, &err), &err);
    CHECK(rep.bad_chunks == 10240 && jv_size(rep.problems) == 10001);
    CHECK(strstr(jv_get_str(jv_at(rep.problems, 10000), "problem"),
                 "more problems") != NULL);
    jv_free(rep.problems);
}

static void
test_cancel(void)
{
    CLEANUP(temp_repo_done) struct temp_repo t;
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP(point_list_done) struct point_list l = {0};
    struct repo_verify_report rep = {0};
    struct err err = ERR_INIT;
    bool cancel = true;

    small_repo(&t);
    (void)repo_open(t.path, temp_ops(), &r, ERR_ABORT);
    (void)repo_points(r, NULL, &l, NULL, ERR_ABORT);
    CHECK(repo_verify(r, &l, 1, NULL, NULL, &cancel, &rep, &err) < 0);
    CHECK(err.code == ERR_CANCELED && rep.problems == NULL);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_clean),          TEST(test_bad_chunks),
        TEST(test_bad_page),       TEST(test_many_problems),
        TEST(test_cancel),         TEST(test_lose_each_file),
        TEST(slow_flip_each_byte),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
