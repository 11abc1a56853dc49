/* What differs between two maps, against two plain arrays. */
#include "cleanup.h"
#include "mem_pages.h"
#include "tap.h"

#define CHUNK REPO_CHUNK_MIN
#define CHUNKS_MAX 9000 /* three levels, and a resize from two to three */

struct disk {
    uint64_t size, n;
    uint64_t value[CHUNKS_MAX]; /* 0: zeroes */
    struct point_disk d;
};

static struct disk older, newer;
static struct mem mem;

static void
make(struct disk *disk, uint64_t size)
{
    static struct change all[CHUNKS_MAX];
    struct chunk_id zero = {0};
    size_t n = 0;

    disk->size = size;
    disk->n = (size + CHUNK - 1) / CHUNK;
    for (uint64_t i = 0; i < disk->n; i++)
        if (disk->value[i] != 0)
            all[n++] = (struct change){i, disk->value[i]};
    disk->d = (struct point_disk){.size = size, .chunk_size = CHUNK};
    disk->d.root = apply(&mem, size, CHUNK, &zero, all, n);
}

static uint64_t
value_at(const struct disk *disk, uint64_t i)
{
    return i < disk->n ? disk->value[i] : 0;
}

/* The extents as they come; checked for order, joining and whole chunks. */
struct seen {
    bool changed[CHUNKS_MAX], zero[CHUNKS_MAX];
    uint64_t end, n;
    bool last_zero;
    uint64_t fail_at; /* 0: never */
};

static int
on_extent(void *arg, uint64_t off, uint64_t len, bool zero, struct err *err)
{
    struct seen *s = arg;

    CHECK(len > 0 && off % CHUNK == 0 && off >= s->end);
    CHECK(s->n == 0 || off > s->end || zero != s->last_zero);
    CHECK(off + len <= newer.size);
    CHECK(len % CHUNK == 0 || off + len == newer.size);
    for (uint64_t at = off; at < off + len; at += CHUNK) {
        s->changed[at / CHUNK] = true;
        s->zero[at / CHUNK] = zero;
    }
    s->end = off + len;
    s->last_zero = zero;
    if (++s->n == s->fail_at)
        return err_set(err, ERR_CANCELED, "enough");
    return 0;
}

static void
check_diff(void)
{
    struct map_pages pages = pages_of(&mem);
    static struct seen s;
    struct err err = ERR_INIT;

    s = (struct seen){0};
    CHECK_OK(map_diff_over(&pages, &older.d, &newer.d, on_extent, &s, &err),
             &err);
    for (uint64_t i = 0; i < newer.n; i++) {
        bool differs = value_at(&older, i) != newer.value[i];

        if (s.changed[i] != differs) {
            printf("# chunk %" PRIu64 " of %" PRIu64 " (before %" PRIu64 ")\n",
                   i, newer.n, older.n);
            CHECK(!"as the arrays say");
            return;
        }
        CHECK(!differs || s.zero[i] == (newer.value[i] == 0));
    }
}

/* -- cases ------------------------------------------------------------------*/

static uint64_t
any_size(void)
{
    static const uint64_t edges[] = {1, 63, 64, 65, 4095, 4096, 4097, 8500};
    uint64_t n = rng(3) == 0 ? 1 + rng(CHUNKS_MAX) : edges[rng(8)];

    return rng(2) == 0 ? n * CHUNK : n * CHUNK - rng(CHUNK);
}

static void
test_random_maps(void)
{
    for (int turn = 0; turn < 250; turn++) {
        unsigned density = 1 + (unsigned)rng(100);
        uint64_t n_changes;

        memset(&older, 0, sizeof older);
        memset(&newer, 0, sizeof newer);
        mem.n = 0;
        older.n = CHUNKS_MAX;
        for (uint64_t i = 0; i < CHUNKS_MAX; i++)
            older.value[i] = rng(100) < density ? 1 + rng(50) : 0;
        make(&older, any_size());
        memcpy(newer.value, older.value, sizeof newer.value);
        n_changes = rng(4) == 0 ? 0 : rng(200);
        for (uint64_t i = 0; i < n_changes; i++) {
            uint64_t at = rng(CHUNKS_MAX);

            for (uint64_t k = at; k < CHUNKS_MAX && k < at + rng(20); k++)
                newer.value[k] = rng(2) == 0 ? 0 : 100 + rng(50);
        }
        make(&newer, turn % 2 == 0 ? older.size : any_size());
        check_diff();
    }
}

/* One chunk of many: only the paths to it are read. */
static void
test_only_what_differs_is_read(void)
{
    memset(&older, 0, sizeof older);
    for (uint64_t i = 0; i < CHUNKS_MAX; i++)
        older.value[i] = 1 + i;
    make(&older, (uint64_t)CHUNKS_MAX * CHUNK);
    newer = older;
    newer.value[5000] = 7;
    make(&newer, older.size);
    check_diff();
    CHECK(mem.gets == 2 * 3);
    newer.value[5000] = older.value[5000];
    make(&newer, older.size);
    check_diff();
    CHECK(mem.gets == 0);
}

static void
test_empty_and_huge_disks(void)
{
    struct point_disk none = {.chunk_size = CHUNK};
    struct point_disk huge = {.size = MAP_DISK_MAX, .chunk_size = CHUNK};
    struct map_pages pages = pages_of(&mem);
    struct seen s = {.n = 0};

    CHECK(map_diff_over(&pages, &none, &none, on_extent, &s, ERR_ABORT) == 0);
    CHECK(map_diff_over(&pages, &huge, &none, on_extent, &s, ERR_ABORT) == 0);
    CHECK(map_diff_over(&pages, &none, &huge, on_extent, &s, ERR_ABORT) == 0);
    CHECK(s.n == 0);
    memset(&newer, 0, sizeof newer);
    newer.value[3] = 9;
    make(&newer, 5 * CHUNK);
    CHECK(map_diff_over(&pages, &huge, &newer.d, on_extent, &s, ERR_ABORT) ==
          0);
    CHECK(s.n == 1 && s.changed[3] && s.end == 4 * CHUNK);
    /* A map of one level is the left edge of one of eight. */
    CHECK(map_diff_over(&pages, &newer.d, &huge, on_extent,
                        &(struct seen){.n = 0}, ERR_ABORT) == 0);
}

static void
test_errors(void)
{
    struct map_pages pages = pages_of(&mem);
    struct seen s = {.fail_at = 2};
    struct err err = ERR_INIT;
    struct point_disk other;

    memset(&older, 0, sizeof older);
    memset(&newer, 0, sizeof newer);
    newer.value[3] = newer.value[70] = newer.value[90] = 9;
    make(&older, 100 * CHUNK);
    make(&newer, 100 * CHUNK);
    CHECK(map_diff_over(&pages, &older.d, &newer.d, on_extent, &s, &err) < 0);
    CHECK(err.code == ERR_CANCELED && s.n == 2);
    err_clear(&err);
    other = newer.d;
    other.chunk_size = 2 * CHUNK;
    CHECK(map_diff_over(&pages, &older.d, &other, on_extent, &s, &err) < 0);
    CHECK(err.code == ERR_UNSUPPORTED);
    err_clear(&err);
    mem.n = 0; /* all pages are lost */
    CHECK(map_diff_over(&pages, &older.d, &newer.d, on_extent, &s, &err) < 0);
    CHECK(err.code == ERR_NOT_FOUND && strstr(err.msg, "newer disk") != NULL);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_random_maps),
        TEST(test_only_what_differs_is_read),
        TEST(test_empty_and_huge_disks),
        TEST(test_errors),
    };
    int rc = tap_run(argc, argv, tests, ARRAY_SIZE(tests));

    mem_done(&mem);
    return rc;
}
