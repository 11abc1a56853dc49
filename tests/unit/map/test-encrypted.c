/* An encrypted repository as a whole: nothing of the content can be read from its
 * files, and objects that were exchanged are found and named. */
#include "tap.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "passphrase.h"
#include "temp_repo.h"

DEFINE_CLEANUP(struct repo *, repo_close)

#define SIZE (20 * TEMP_CHUNK + 512)
#define CHUNKS 21

struct world {
    struct temp_repo t;
    struct repo *r;
};

static void
reopen(struct world *w)
{
    repo_close(w->r);
    w->r = NULL;
    CHECK_OK(encrypted_open(w->t.path, "pass", &w->r, ERR_ABORT), ERR_ABORT);
}

/* Two sessions with a pack each of data and maps; chunk values from 1. */
static void
begin(struct world *w)
{
    uint64_t values[CHUNKS];
    const struct chunk_id none = {0};
    struct chunk_id root;

    memset(w, 0, sizeof *w);
    (void)snprintf(w->t.dir, sizeof w->t.dir, "/tmp/tidemark-test-XXXXXX");
    CHECK(mkdtemp(w->t.dir) != NULL);
    (void)snprintf(w->t.path, sizeof w->t.path, "%s/repo", w->t.dir);
    CHECK_OK(encrypted_init(w->t.path, TEMP_CHUNK, "pass", ERR_ABORT),
             ERR_ABORT);
    reopen(w);
    for (unsigned point = 0; point < 2; point++) {
        for (unsigned i = 0; i < CHUNKS; i++)
            values[i] = 1 + i + 100 * point;
        temp_backup(w->r, "webserver1", values, SIZE, &none, &root);
    }
    reopen(w);
}

static void
end(struct world *w)
{
    repo_close(w->r);
    temp_repo_done(&w->t);
}

/* -- files ------------------------------------------------------------------*/

struct found {
    char path[8][512]; /* of one kind of object */
    size_t n;
};

static struct found *listing;
static const char *listed;

static int
note_file(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)ftw;
    if (type == FTW_F && strstr(path, listed) != NULL && listing->n < 8)
        (void)snprintf(listing->path[listing->n++], 512, "%.500s", path);
    return 0;
}

static void
find(struct world *w, const char *part, struct found *ret)
{
    memset(ret, 0, sizeof *ret);
    listing = ret;
    listed = part;
    (void)nftw(w->t.path, note_file, 16, FTW_PHYS);
}

static void
swap_files(const char *a, const char *b)
{
    char tmp[600];

    (void)snprintf(tmp, sizeof tmp, "%s.swap", a);
    CHECK(rename(a, tmp) == 0 && rename(b, a) == 0 && rename(tmp, b) == 0);
}

/* -- what verifying says ----------------------------------------------------*/

static struct jv *
problems(struct world *w)
{
    struct repo_verify_report rep = {0};
    struct point_list l = {0};
    CLEANUP_JV struct jv *bad = NULL;
    CLEANUP_JV struct jv *all = jv_array();

    reopen(w);
    CHECK_OK(repo_points(w->r, NULL, &l, &bad, ERR_ABORT), ERR_ABORT);
    CHECK_OK(repo_verify(w->r, &l, 1, NULL, NULL, NULL, &rep, ERR_ABORT),
             ERR_ABORT);
    for (size_t i = 0; i < jv_size(rep.problems); i++)
        (void)jv_add(all, jv_ref(jv_at(rep.problems, i)));
    for (size_t i = 0; i < jv_size(bad); i++)
        (void)jv_add(all, jv_ref(jv_at(bad, i)));
    repo_verify_report_done(&rep);
    point_list_done(&l);
    return TAKE_PTR(all);
}

/* A problem is reported that has all the words; prints all otherwise. */
static void
named(const struct jv *all, const char *what, const char *words)
{
    CLEANUP_FREE char *text = jv_pretty(all);

    CHECK(text != NULL && strstr(text, what) != NULL &&
          strstr(text, words) != NULL);
    if (text == NULL || strstr(text, what) == NULL ||
        strstr(text, words) == NULL)
        printf("# no '%s', '%s' in %.2000s\n", what, words, text);
}

/* -- tests ------------------------------------------------------------------*/

static void
read_all(struct world *w, unsigned point)
{
    struct point_list l = {0};
    struct map_reader *m = NULL;
    static uint8_t data[TEMP_CHUNK], want[TEMP_CHUNK];
    uint8_t *config = NULL;
    const struct point *p;

    CHECK_OK(repo_points(w->r, "webserver1", &l, NULL, ERR_ABORT), ERR_ABORT);
    CHECK(l.n == 2);
    p = l.v[point];
    CHECK_OK(repo_get_blob(w->r, &p->config, p->config_len, &config, ERR_ABORT),
             ERR_ABORT);
    CHECK_STR((char *)config, "{\"memory\": 512}");
    free(config);
    CHECK_OK(map_reader_new(w->r, SIZE, TEMP_CHUNK, &p->disks[0].root, &m,
                            ERR_ABORT),
             ERR_ABORT);
    for (unsigned i = 0; i < CHUNKS; i++) {
        uint32_t len = temp_len(SIZE, i);
        struct chunk_id id;

        temp_fill(1 + i + 100 * point, want, len);
        CHECK_OK(map_reader_get(m, i, &id, ERR_ABORT), ERR_ABORT);
        CHECK_OK(page_get(w->r, &id, data, len, ERR_ABORT), ERR_ABORT);
        CHECK(memcmp(data, want, len) == 0);
    }
    map_reader_free(m);
    point_list_done(&l);
}

/* What was stored comes back, after opening again. */
static void
test_round_trip(void)
{
    CLEANUP_JV struct jv *all = NULL;
    struct world w;

    begin(&w);
    read_all(&w, 0);
    read_all(&w, 1);
    all = problems(&w);
    CHECK(jv_size(all) == 0);
    end(&w);
}

static void
holds_none(const char *path)
{
    static const char *const words[] = {"webserver1", "memory", "vda",
                                        "pull",       "pass",   "new disk"};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    char *p;

    CHECK(fd >= 0 && fstat(fd, &st) == 0);
    p = st.st_size > 0
            ? mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0)
            : NULL;
    for (size_t i = 0; p != NULL && i < ARRAY_SIZE(words); i++)
        if (memmem(p, (size_t)st.st_size, words[i], strlen(words[i])) != NULL) {
            printf("# '%s' is in %s\n", words[i], path);
            CHECK(!"content is readable");
        }
    (void)munmap(p, (size_t)st.st_size);
    (void)close(fd);
}

/* Names, configuration, disks: not in any file.  (Chunks are compressed before
 * they are sealed; that none is readable is what test-seal.c shows.) */
static void
test_nothing_is_readable(void)
{
    static const char *const kinds[] = {"/commit/", "/data/", "/meta/",
                                        "/index/"};
    struct found f;
    struct world w;

    begin(&w);
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        find(&w, kinds[i], &f);
        CHECK(f.n == 2);
        for (size_t k = 0; k < f.n; k++)
            holds_none(f.path[k]);
    }
    end(&w);
}

/* Packs of equal kind under each other's names. */
static void
test_packs_exchanged(void)
{
    static const char *const kinds[] = {"/data/", "/meta/"};

    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        CLEANUP_JV struct jv *all = NULL;
        struct found f;
        struct world w;

        begin(&w);
        find(&w, kinds[i], &f);
        CHECK(f.n == 2);
        swap_files(f.path[0], f.path[1]);
        all = problems(&w);
        CHECK(jv_size(all) > 0);
        named(all, strstr(f.path[0], kinds[i]) + 1, "");
        named(all, strstr(f.path[1], kinds[i]) + 1, "");
        end(&w);
    }
}

/* The sealed bytes of two chunks of one pack exchanged, headers left. */
static void
test_payloads_exchanged(void)
{
    CLEANUP_JV struct jv *all = NULL;
    uint8_t head[2][72], payload[2][4096];
    uint64_t at[2] = {64, 0};
    struct found f;
    struct world w;
    int fd;

    begin(&w);
    find(&w, "/data/", &f);
    fd = open(f.path[0], O_RDWR | O_CLOEXEC);
    CHECK(pread(fd, head[0], 72, 64) == 72);
    at[1] = 64 + 72 + (head[0][12] | (uint64_t)head[0][13] << 8);
    CHECK(pread(fd, head[1], 72, (off_t)at[1]) == 72);
    CHECK(memcmp(head[0], "TMFR", 4) == 0 && memcmp(head[1], "TMFR", 4) == 0);
    for (unsigned i = 0; i < 2; i++)
        CHECK(pread(fd, payload[i], 32, (off_t)at[i] + 72) == 32);
    for (unsigned i = 0; i < 2; i++)
        CHECK(pwrite(fd, payload[1 - i], 32, (off_t)at[i] + 72) == 32);
    (void)close(fd);
    all = problems(&w);
    named(all, strstr(f.path[0], "/data/") + 1,
          "frame fails its authentication");
    named(all, "webserver1", "vda");
    end(&w);
}

/* An older commit object under the name of the newer one, and under a new
 * name: it says whose it is. */
static void
test_commit_replayed(void)
{
    for (int fresh = 0; fresh < 2; fresh++) {
        CLEANUP_JV struct jv *all = NULL;
        char path[600];
        struct found f;
        struct world w;

        begin(&w);
        find(&w, "/commit/", &f);
        (void)snprintf(path, sizeof path,
                       "%s/commit/0123456789abcdef0123456789abcdef.1",
                       w.t.path);
        if (fresh) {
            CHECK(link(f.path[0], path) == 0);
        } else {
            CHECK(unlink(f.path[1]) == 0);
            CHECK(link(f.path[0], f.path[1]) == 0);
            (void)snprintf(path, sizeof path, "%s", f.path[1]);
        }
        all = problems(&w);
        named(all, strstr(path, "/commit/") + 1, "belongs to session");
        end(&w);
    }
}

/* A commit object of another repository with the same passphrase. */
static void
test_commit_of_another(void)
{
    CLEANUP_JV struct jv *all = NULL;
    struct found f, g;
    struct world a, b;
    char path[600];

    begin(&a);
    begin(&b);
    find(&a, "/commit/", &f);
    find(&b, "/commit/", &g);
    (void)snprintf(path, sizeof path, "%s/commit/%s", a.t.path,
                   strrchr(g.path[0], '/') + 1);
    CHECK(link(g.path[0], path) == 0);
    all = problems(&a);
    named(all, strstr(path, "/commit/") + 1, "fails its authentication");
    end(&a);
    end(&b);
}

/* A pack or an index segment that is gone is missed; an older point that is gone
 * is missed by its successor.  (The newest point of a machine, alone or with all
 * its objects, can be taken away without a trace: docs/security.md.) */
static void
test_removed(void)
{
    static const char *const kinds[] = {"/data/", "/meta/", "/index/"};

    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        CLEANUP_JV struct jv *all = NULL;
        struct found f;
        struct world w;

        begin(&w);
        find(&w, kinds[i], &f);
        CHECK(unlink(f.path[0]) == 0);
        all = problems(&w);
        named(all, strstr(f.path[0], kinds[i]) + 1, "");
        end(&w);
    }
}

/* A format object that says "not encrypted" in the place of ours, so that the
 * next backup stores in the clear: seen by the key slots, and where these were
 * removed by the passphrase that is given.  Without one our points are not to
 * be read, and not mistaken for good. */
static void
test_format_replaced(void)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    CLEANUP_JV struct jv *bad = NULL;
    struct answers answers = {.first = "pass"};
    const struct repo_open_opts opts = {
        .unlock = answer_with, .arg = &answers, .encrypted = true};
    struct err err = ERR_INIT, second = ERR_INIT;
    struct point_list l = {0};
    struct found f;
    struct world a;
    struct temp_repo t;
    char from[400], to[400];

    begin(&a);
    temp_repo_init(&t);
    (void)snprintf(from, sizeof from, "%s/format", t.path);
    (void)snprintf(to, sizeof to, "%s/format", a.t.path);
    CHECK(unlink(to) == 0 && link(from, to) == 0);
    CHECK(encrypted_open(a.t.path, "pass", &r, &err) < 0);
    CHECK(strstr(err.msg, "but it has key slots") != NULL);
    find(&a, "/key/", &f);
    CHECK(f.n == 1 && unlink(f.path[0]) == 0);
    CHECK(repo_open_with(a.t.path, &opts, &r, &second) < 0);
    CHECK(second.code == ERR_KEY);
    CHECK(strstr(second.msg, "the repository is not encrypted") != NULL);
    CHECK_OK(repo_open(a.t.path, NULL, &r, ERR_ABORT), ERR_ABORT);
    CHECK_OK(repo_points(r, NULL, &l, &bad, ERR_ABORT), ERR_ABORT);
    CHECK(l.n == 0 && jv_size(bad) == 2);
    named(bad, "commit/", "was not made with this repository's key");
    point_list_done(&l);
    temp_repo_done(&t);
    end(&a);
}

/* A slot that opens nothing any more is found before its passphrase is needed. */
static void
test_damaged_slot(void)
{
    const struct repo_verify_opts opts = {.level = REPO_VERIFY_STRUCTURE,
                                          .whole = true,
                                          .read_only = true,
                                          .n_workers = 1};
    struct repo_verify_report rep = {0};
    struct point_list l = {0};
    struct found f;
    struct world w;
    int fd;

    begin(&w);
    find(&w, "/key/", &f);
    CHECK(f.n == 1);
    CHECK_OK(repo_points(w.r, NULL, &l, NULL, ERR_ABORT), ERR_ABORT);
    CHECK_OK(repo_verify_run(w.r, &l, &opts, &rep, ERR_ABORT), ERR_ABORT);
    CHECK(jv_size(rep.problems) == 0);
    repo_verify_report_done(&rep);
    fd = open(f.path[0], O_WRONLY | O_CLOEXEC);
    CHECK(fd >= 0 && pwrite(fd, "#", 1, 100) == 1);
    (void)close(fd);
    CHECK_OK(repo_verify_run(w.r, &l, &opts, &rep, ERR_ABORT), ERR_ABORT);
    CHECK(jv_size(rep.problems) == 1);
    named(rep.problems, strstr(f.path[0], "/key/") + 1, "");
    repo_verify_report_done(&rep);
    point_list_done(&l);
    end(&w);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_round_trip),      TEST(test_nothing_is_readable),
        TEST(test_packs_exchanged), TEST(test_payloads_exchanged),
        TEST(test_commit_replayed), TEST(test_commit_of_another),
        TEST(test_removed),         TEST(test_format_replaced),
        TEST(test_damaged_slot),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
