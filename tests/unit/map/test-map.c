/* Maps over pages in memory, against a plain array. */
#include <inttypes.h>
#include <malloc.h>

#include "cleanup.h"
#include "err.h"
#include "map_page.h"
#include "mem_pages.h"
#include "tap.h"

#define K64 (64u << 10)

static bool
equals(struct mem *m, uint64_t size, uint32_t chunk_size,
       const struct chunk_id *root, const uint64_t *oracle, uint64_t n)
{
    struct map_pages pages = pages_of(m);
    struct map_reader *r;
    uint64_t next = 0, found;
    bool same = true;

    (void)map_reader_over(&pages, size, chunk_size, root, &r, ERR_ABORT);
    for (uint64_t i = 0; i < n; i++) {
        struct chunk_id id;

        (void)map_reader_get(r, i, &id, ERR_ABORT);
        same &= value_of(&id) == oracle[i];
    }
    for (;; next = found + 1) {
        struct chunk_id id;

        (void)map_reader_next(r, next, &found, &id, ERR_ABORT);
        while (next < n && next < found)
            same &= oracle[next++] == 0;
        if (found == UINT64_MAX)
            break;
        same &= found < n && value_of(&id) == oracle[found];
    }
    map_reader_free(r);
    return same;
}

/* -- tests ------------------------------------------------------------------*/

static void
test_shape(void)
{
    static const struct {
        uint64_t size, n_chunks;
        unsigned height;
    } t[] = {
        {0, 0, 1},
        {1, 1, 1},
        {K64 - 1, 1, 1},
        {K64, 1, 1},
        {K64 + 1, 2, 1},
        {UINT64_C(64) * K64, 64, 1},
        {UINT64_C(64) * K64 + 1, 65, 2},
        {UINT64_C(4096) * K64, 4096, 2},
        {UINT64_C(4096) * K64 + 1, 4097, 3},
        {UINT64_C(1) << 40, 1u << 24, 4},
        {UINT64_C(1) << 46, 1u << 30, 5},
        {UINT64_C(1) << 62, UINT64_C(1) << 46, 8},
    };
    struct map_shape s;
    struct err err = ERR_INIT;

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        CHECK_OK(map_shape_init(&s, t[i].size, K64, &err), &err);
        CHECK(s.n_chunks == t[i].n_chunks && s.height == t[i].height);
    }
    CHECK_OK(map_shape_init(&s, MAP_DISK_MAX, REPO_CHUNK_MIN, &err), &err);
    CHECK(s.height == MAP_HEIGHT_MAX);
    CHECK(map_shape_init(&s, MAP_DISK_MAX + 1, K64, NULL) < 0);
    CHECK(map_shape_init(&s, 1, K64 - 1, NULL) < 0);
    CHECK(map_shape_init(&s, 1, 0, NULL) < 0);
    CHECK(map_shape_init(&s, 1, REPO_CHUNK_MIN / 2, NULL) < 0);
    CHECK(map_shape_init(&s, 1, UINT64_C(1) << 32, NULL) < 0);
}

static void
test_chunk_len(void)
{
    struct map_shape s;

    (void)map_shape_init(&s, 3 * K64 + 5, K64, ERR_ABORT);
    CHECK(map_chunk_len(&s, 0) == K64);
    CHECK(map_chunk_len(&s, 2) == K64);
    CHECK(map_chunk_len(&s, 3) == 5);
    (void)map_shape_init(&s, 3 * K64, K64, ERR_ABORT);
    CHECK(map_chunk_len(&s, 2) == K64);
}

/* Only one form of a page is valid. */
static void
test_page_decode(void)
{
    uint8_t data[MAP_PAGE_LEN + 1] = {0};
    struct map_page page;
    struct map_shape s;
    struct err err = ERR_INIT;

    CHECK(map_page_decode(data, MAP_PAGE_LEN, &page, &err) < 0);
    CHECK(err.code == ERR_FORMAT);
    data[MAP_PAGE_LEN - 1] = 1;
    CHECK(map_page_decode(data, MAP_PAGE_LEN, &page, NULL) == 0);
    CHECK(!map_page_empty(&page));
    CHECK(map_page_decode(data, MAP_PAGE_LEN - 1, &page, NULL) < 0);
    CHECK(map_page_decode(data, MAP_PAGE_LEN + 1, &page, NULL) < 0);

    /* the last entry is set: right for 64 chunks, behind the end of 63 */
    (void)map_shape_init(&s, 64 * K64, K64, ERR_ABORT);
    CHECK(map_page_check(&s, 0, 0, &page, NULL) == 0);
    (void)map_shape_init(&s, 63 * K64, K64, ERR_ABORT);
    CHECK(map_page_check(&s, 0, 0, &page, NULL) < 0);
    /* as entry of the second level it covers chunks 4032 .. 4095 */
    (void)map_shape_init(&s, UINT64_C(4033) * K64, K64, ERR_ABORT);
    CHECK(map_page_check(&s, 1, 0, &page, NULL) == 0);
    (void)map_shape_init(&s, UINT64_C(4032) * K64, K64, ERR_ABORT);
    CHECK(map_page_check(&s, 1, 0, &page, NULL) < 0);
}

/* Random updates over many generations read back as the array says, and give
 * the same root as a map built at once: one disk, one name. */
static void
updates(uint64_t size, uint32_t chunk_size, unsigned rounds)
{
    CLEANUP(mem_done) struct mem m = {0};
    uint64_t n = (size + chunk_size - 1) / chunk_size;
    CLEANUP_FREE uint64_t *oracle = calloc(n + 1, sizeof *oracle);
    CLEANUP_FREE struct change *ch = calloc(n + 1, sizeof *ch);
    struct chunk_id root = {0}, zero = {0};

    if (oracle == NULL || ch == NULL)
        abort();
    for (unsigned round = 0; round < rounds; round++) {
        uint64_t density = 1 + rng(1 + n / 2);
        struct chunk_id again;
        size_t k = 0;

        for (uint64_t i = 0; i < n; i++) {
            if (rng(density) != 0)
                continue;
            oracle[i] = rng(4) == 0 ? 0 : 1 + rng(1000);
            ch[k++] = (struct change){i, oracle[i]};
        }
        root = apply(&m, size, chunk_size, &root, ch, k);
        CHECK(equals(&m, size, chunk_size, &root, oracle, n));
        for (k = 0; k < n; k++)
            ch[k] = (struct change){k, oracle[k]};
        again = apply(&m, size, chunk_size, &zero, ch, n);
        CHECK(chunk_id_equal(&root, &again));
    }
    for (uint64_t i = 0; i < n; i++)
        ch[i] = (struct change){i, 0};
    root = apply(&m, size, chunk_size, &root, ch, n);
    CHECK(chunk_id_zero(&root)); /* wiped: nothing is left */
}

static void
test_updates(void)
{
    static const uint64_t sizes[] = {1,
                                     K64 - 1,
                                     K64,
                                     K64 + 1,
                                     63 * K64,
                                     63 * K64 + 1,
                                     64 * K64,
                                     64 * K64 + 1,
                                     65 * K64,
                                     UINT64_C(4096) * K64,
                                     UINT64_C(4097) * K64 - 7};

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
        updates(sizes[i], K64, sizes[i] > 100 * K64 ? 4 : 12);
    updates((UINT64_C(300) << 14) + 3, REPO_CHUNK_MIN, 8);
    updates((UINT64_C(70) << 22) + 3, REPO_CHUNK_MAX, 8);
}

static void
test_empty_disk(void)
{
    CLEANUP(mem_done) struct mem m = {0};
    struct chunk_id zero = {0}, id;
    struct map_pages pages = pages_of(&m);
    struct map_reader *r;
    uint64_t found;

    id = apply(&m, 0, K64, &zero, NULL, 0);
    CHECK(chunk_id_zero(&id));
    (void)map_reader_over(&pages, MAP_DISK_MAX, K64, &zero, &r, ERR_ABORT);
    CHECK(map_reader_next(r, 0, &found, &id, NULL) == 0);
    CHECK(found == UINT64_MAX);
    CHECK(map_reader_get(r, 12345, &id, NULL) == 0 && chunk_id_zero(&id));
    CHECK(m.gets == 0);
    map_reader_free(r);
}

/* An incremental of k chunks puts at most k * height pages, and setting what is
 * there already puts none. */
static void
test_sharing(void)
{
    CLEANUP(mem_done) struct mem m = {0};
    uint64_t n = 70000, size = n * K64; /* three levels */
    CLEANUP_FREE struct change *ch = calloc(n, sizeof *ch);
    struct change few[40];
    struct chunk_id zero = {0}, root, next;

    if (ch == NULL)
        abort();
    for (uint64_t i = 0; i < n; i++)
        ch[i] = (struct change){i, i + 1};
    root = apply(&m, size, K64, &zero, ch, n);
    CHECK(m.puts == 1094 + 18 + 1 && m.gets == 0);
    next = apply(&m, size, K64, &root, NULL, 0);
    CHECK(chunk_id_equal(&root, &next) && m.puts == 0 && m.gets == 0);
    next = apply(&m, size, K64, &root, ch + 100, 500);
    CHECK(chunk_id_equal(&root, &next) && m.puts == 0);
    for (unsigned i = 0; i < ARRAY_SIZE(few); i++)
        few[i] = (struct change){i * 1700 + rng(1000), 1000000 + i};
    next = apply(&m, size, K64, &root, few, ARRAY_SIZE(few));
    CHECK(!chunk_id_equal(&root, &next));
    CHECK(m.puts <= ARRAY_SIZE(few) * 3 && m.gets <= ARRAY_SIZE(few) * 3);
    /* and back: nothing new to store, and the same name */
    for (unsigned i = 0; i < ARRAY_SIZE(few); i++)
        few[i].value = few[i].index + 1;
    next = apply(&m, size, K64, &next, few, ARRAY_SIZE(few));
    CHECK(chunk_id_equal(&root, &next));
}

/* 1 TiB with 64 dirty chunks costs their paths, and memory for one path. */
static void
test_big_sparse(void)
{
    CLEANUP(mem_done) struct mem m = {0};
    struct map_pages pages = pages_of(&m);
    struct chunk_id zero = {0}, root;
    struct map_writer *w;
    struct map_reader *r;
    uint64_t size = UINT64_C(1) << 40, found, n = 0;

    (void)map_writer_over(&pages, size, K64, &zero, &w, ERR_ABORT);
    CHECK(malloc_usable_size(w) < 20 * MAP_PAGE_LEN);
    for (uint64_t i = 0; i < 64; i++) {
        struct chunk_id id = id_of(i + 1);

        (void)map_writer_set(w, i * 262144 + 77, &id, ERR_ABORT);
    }
    (void)map_writer_finish(w, &root, ERR_ABORT);
    map_writer_free(w);
    CHECK(m.puts == 64 * 3 + 1);
    m.gets = 0;
    (void)map_reader_over(&pages, size, K64, &root, &r, ERR_ABORT);
    for (uint64_t i = 0;; i = found + 1) {
        struct chunk_id id;

        (void)map_reader_next(r, i, &found, &id, ERR_ABORT);
        if (found == UINT64_MAX)
            break;
        CHECK(found == n * 262144 + 77 && value_of(&id) == n + 1);
        n++;
    }
    CHECK(n == 64 && m.gets == 64 * 3 + 1);
    map_reader_free(r);
}

/* The largest disk that can be described has a last chunk, too. */
static void
test_biggest(void)
{
    CLEANUP(mem_done) struct mem m = {0};
    struct change ch[] = {{0, 1}, {(UINT64_C(1) << 48) - 1, 2}};
    struct chunk_id zero = {0}, id, root;
    struct map_pages pages;
    struct map_reader *r;
    uint64_t found;

    root = apply(&m, MAP_DISK_MAX, REPO_CHUNK_MIN, &zero, ch, 2);
    pages = pages_of(&m);
    (void)map_reader_over(&pages, MAP_DISK_MAX, REPO_CHUNK_MIN, &root, &r,
                          ERR_ABORT);
    CHECK(map_reader_next(r, 1, &found, &id, NULL) == 0);
    CHECK(found == (UINT64_C(1) << 48) - 1 && value_of(&id) == 2);
    CHECK(map_reader_get(r, UINT64_C(1) << 48, &id, NULL) < 0);
    CHECK(m.gets == 15); /* two paths of eight, one root */
    map_reader_free(r);
}

/* Wrong use is an error, and the map goes on where it can. */
static void
test_order(void)
{
    CLEANUP(mem_done) struct mem m = {0};
    struct map_pages pages = pages_of(&m);
    struct chunk_id zero = {0}, one = id_of(1), root;
    struct err err = ERR_INIT;
    struct map_writer *w;

    (void)map_writer_over(&pages, 100 * K64, K64, &zero, &w, ERR_ABORT);
    CHECK(map_writer_set(w, 100, &one, &err) < 0 && err.code == ERR_USAGE);
    CHECK(map_writer_set(w, 5, &one, NULL) == 0);
    CHECK(map_writer_set(w, 5, &one, NULL) < 0);
    CHECK(map_writer_set(w, 4, &one, NULL) < 0);
    CHECK(map_writer_set(w, 99, &one, NULL) == 0);
    CHECK(map_writer_finish(w, &root, NULL) == 0);
    CHECK(map_writer_finish(w, &root, NULL) < 0);
    CHECK(map_writer_set(w, 99, &one, NULL) < 0);
    map_writer_free(w);
    map_writer_free(NULL);
    map_reader_free(NULL);
}

static int
put_fails(void *arg, const void *data, struct chunk_id *ret_id, struct err *err)
{
    return err_set(err, ERR_NO_SPACE, "full");
}

/* A page that was lost never becomes a root without it. */
static void
test_put_fails(void)
{
    CLEANUP(mem_done) struct mem m = {0};
    struct map_pages pages = {mem_get, put_fails, &m};
    struct chunk_id zero = {0}, one = id_of(1), root;
    struct err err = ERR_INIT;
    struct map_writer *w;

    (void)map_writer_over(&pages, 1000 * K64, K64, &zero, &w, ERR_ABORT);
    CHECK(map_writer_set(w, 0, &one, NULL) == 0);
    CHECK(map_writer_set(w, 500, &one, &err) < 0 && err.code == ERR_NO_SPACE);
    CHECK(map_writer_set(w, 501, &one, NULL) < 0);
    CHECK(map_writer_finish(w, &root, NULL) < 0);
    map_writer_free(w);
}

/* Pages that a stranger made: words, not crashes, and no endless descent. */
static void
test_hostile_pages(void)
{
    CLEANUP(mem_done) struct mem m = {0};
    struct map_pages pages = pages_of(&m);
    struct chunk_id self = id_of(42), empty = id_of(43), id;
    uint8_t data[MAP_PAGE_LEN] = {0};
    struct err err = ERR_INIT;
    struct map_reader *r;
    struct map_writer *w;

    mem_add(&m, &empty, data);
    for (unsigned i = 0; i < MAP_PAGE_ENTRIES; i++)
        memcpy(data + 32 * i, self.b, 32);
    mem_add(&m, &self, data); /* every entry is the page itself */

    (void)map_reader_over(&pages, UINT64_C(1) << 40, K64, &self, &r, ERR_ABORT);
    CHECK(map_reader_get(r, 0, &id, NULL) == 0 && m.gets == 4);
    map_reader_free(r);

    (void)map_reader_over(&pages, (UINT64_C(1) << 40) - K64, K64, &self, &r,
                          ERR_ABORT);
    CHECK(map_reader_get(r, (1u << 24) - 2, &id, &err) < 0);
    CHECK(err.code == ERR_FORMAT && strstr(err.msg, "the disk has 16777215"));
    map_reader_free(r);

    err_clear(&err);
    (void)map_reader_over(&pages, K64, K64, &empty, &r, ERR_ABORT);
    CHECK(map_reader_get(r, 0, &id, &err) < 0 && err.code == ERR_FORMAT);
    map_reader_free(r);

    err_clear(&err);
    id = id_of(44);
    (void)map_writer_over(&pages, K64, K64, &id, &w, ERR_ABORT);
    CHECK(map_writer_set(w, 0, &self, &err) < 0 && err.code == ERR_NOT_FOUND);
    map_writer_free(w);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_shape),      TEST(test_chunk_len),     TEST(test_page_decode),
        TEST(test_updates),    TEST(test_empty_disk),    TEST(test_sharing),
        TEST(test_big_sparse), TEST(test_biggest),       TEST(test_order),
        TEST(test_put_fails),  TEST(test_hostile_pages),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
