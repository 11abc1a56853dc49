/* Block status answers against a byte map that is painted the slow way. */
#include <stdint.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "extents.h"
#include "reader.h"
#include "tap.h"

#define DISK 2000

static uint32_t seed = 1;

/* The same numbers in each run. */
static uint32_t
rnd(uint32_t below)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % below;
}

static struct nbd_span
span(enum nbd_extent_kind kind, uint64_t off, uint64_t end)
{
    return (struct nbd_span){.kind = kind,
                             .off = off,
                             .end = end,
                             .disk_size = DISK,
                             .align = 1,
                             .n_max = NBD_EXTENTS_MAX,
                             .pos = off};
}

/* The runs cover [off, end) exactly, and neighbours differ. */
static void
check_shape(const struct nbd_extents *e, uint64_t off, uint64_t end)
{
    for (size_t i = 0; i < e->n; i++) {
        CHECK(e->v[i].off == off);
        CHECK(e->v[i].len > 0);
        CHECK(i == 0 || e->v[i].flag != e->v[i - 1].flag);
        off += e->v[i].len;
    }
    CHECK(off == end);
}

static bool
oracle_flag(enum nbd_extent_kind kind, uint32_t flags)
{
    if (kind == NBD_EXTENT_DIRTY)
        return flags != 0;
    return flags == 2 || flags == 3;
}

/* One disk of random flags, answered in random portions. */
static void
one_random_disk(enum nbd_extent_kind kind)
{
    CLEANUP(nbd_extents_done) struct nbd_extents e = {0};
    uint8_t map[DISK], got[DISK] = {0};
    uint64_t off = rnd(DISK), end = off + rnd((uint32_t)(DISK - off) + 1);
    struct nbd_span s = span(kind, off, end);

    for (unsigned i = 0, n = 0; i < DISK; i++, n--) {
        if (n == 0)
            n = 1 + rnd(60);
        map[i] = i > 0 && n > 1 ? map[i - 1] : (uint8_t)rnd(6);
    }
    while (s.pos < end) {
        uint64_t ask_end = s.pos + 1 + rnd((uint32_t)(end - s.pos));
        uint32_t entries[2 * DISK];
        size_t n = 0, max = 2 * (1 + rnd(8));
        uint64_t p = s.pos;

        while (p < ask_end && n < max) {
            uint32_t len = 1;

            while (p + len < DISK && map[p + len] == map[p] && rnd(50) > 0)
                len++;
            entries[n++] = len;
            entries[n++] = map[p];
            p += len;
        }
        CHECK_OK(nbd_span_take(&s, ask_end, entries, n, &e, ERR_ABORT),
                 ERR_ABORT);
        CHECK(s.pos == (p < ask_end ? p : ask_end));
    }
    check_shape(&e, off, end);
    for (size_t i = 0; i < e.n; i++)
        memset(got + e.v[i].off, e.v[i].flag, e.v[i].len);
    for (uint64_t i = off; i < end; i++)
        CHECK(got[i] == oracle_flag(kind, map[i]));
}

static void
test_random_answers_equal_a_byte_map(void)
{
    for (int i = 0; i < 500; i++) {
        one_random_disk(NBD_EXTENT_DIRTY);
        one_random_disk(NBD_EXTENT_ZERO);
    }
}

static void
test_unknown_flags_are_dirty_and_not_zero(void)
{
    const uint32_t entries[] = {10, 0, 10, 2, 10, 3,
                                10, 1, 10, 6, 10, 1u << 31};
    const bool dirty[] = {false, true, true, true, true, true};
    const bool zero[] = {false, true, true, false, false, false};

    for (size_t i = 0; i < ARRAY_SIZE(dirty); i++) {
        CLEANUP(nbd_extents_done) struct nbd_extents d = {0}, z = {0};
        struct nbd_span sd = span(NBD_EXTENT_DIRTY, 0, 10);
        struct nbd_span sz = span(NBD_EXTENT_ZERO, 0, 10);

        CHECK_OK(nbd_span_take(&sd, 10, &entries[2 * i], 2, &d, ERR_ABORT),
                 ERR_ABORT);
        CHECK_OK(nbd_span_take(&sz, 10, &entries[2 * i], 2, &z, ERR_ABORT),
                 ERR_ABORT);
        CHECK(d.n == 1 && d.v[0].flag == dirty[i]);
        CHECK(z.n == 1 && z.v[0].flag == zero[i]);
    }
}

static enum err_code
refused(struct nbd_span s, uint64_t ask_end, const uint32_t *entries, size_t n)
{
    CLEANUP(nbd_extents_done) struct nbd_extents e = {0};
    struct err err = ERR_INIT;

    CHECK(nbd_span_take(&s, ask_end, entries, n, &e, &err) == -1);
    return err.code;
}

static void
test_nonsense_is_a_protocol_error(void)
{
    const uint32_t empty[] = {10, 0, 0, 1};
    const uint32_t behind[] = {10, 0, 10, 1};
    const uint32_t unaligned[] = {512, 0, 100, 1};
    struct nbd_span s = span(NBD_EXTENT_DIRTY, 0, 10);

    CHECK(refused(s, 10, empty, 0) == ERR_PROTOCOL);
    CHECK(refused(s, 10, empty, 1) == ERR_PROTOCOL);
    CHECK(refused(s, 10, empty, 3) == ERR_PROTOCOL);
    CHECK(refused(s, 20, empty, 4) == ERR_PROTOCOL);
    CHECK(refused(s, 10, behind, 4) == ERR_PROTOCOL);
    s.end = 1024;
    s.align = 512;
    CHECK(refused(s, 1024, unaligned, 4) == ERR_PROTOCOL);
}

/* The last entry may be longer than the request, also past the odd end of the
 * disk, and up to the largest number there is. */
static void
test_long_last_entry_is_clipped(void)
{
    const uint32_t lens[] = {10, 11, DISK, UINT32_MAX};

    for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
        CLEANUP(nbd_extents_done) struct nbd_extents e = {0};
        struct nbd_span s = span(NBD_EXTENT_ZERO, DISK - 10, DISK);
        const uint32_t entry[] = {lens[i], 2};

        s.align = 512;
        CHECK_OK(nbd_span_take(&s, DISK, entry, 2, &e, ERR_ABORT), ERR_ABORT);
        CHECK(s.pos == DISK);
        CHECK(e.n == 1 && e.v[0].off == DISK - 10 && e.v[0].len == 10);
    }
}

/* A request rounded outward to blocks yields only what was wanted. */
static void
test_outward_rounding_is_cut_off(void)
{
    CLEANUP(nbd_extents_done) struct nbd_extents e = {0};
    struct nbd_span s = span(NBD_EXTENT_DIRTY, 700, 800);
    const uint32_t entries[] = {512, 1};

    s.align = 512;
    s.pos = 512;
    CHECK_OK(nbd_span_take(&s, 1024, entries, 2, &e, ERR_ABORT), ERR_ABORT);
    CHECK(e.n == 1 && e.v[0].off == 700 && e.v[0].len == 100);
}

/* Bytes that are wrongly called dirty cost a read; the other way round they
 * cost data. */
static void
check_melted(enum nbd_extent_kind kind)
{
    CLEANUP(nbd_extents_done) struct nbd_extents e = {0};
    struct nbd_span s = span(kind, 0, 200);
    bool safe = kind == NBD_EXTENT_DIRTY;
    uint32_t entries[400];

    for (uint32_t i = 0; i < 200; i++) {
        entries[2 * i] = 1;
        entries[2 * i + 1] = i % 2 == 0 ? 0 : 2;
    }
    s.n_max = 9;
    CHECK_OK(nbd_span_take(&s, 200, entries, 400, &e, ERR_ABORT), ERR_ABORT);
    CHECK(e.n <= 9);
    check_shape(&e, 0, 200);
    for (size_t i = 0; i < e.n; i++)
        for (uint64_t j = e.v[i].off; j < e.v[i].off + e.v[i].len; j++)
            CHECK(e.v[i].flag == safe || e.v[i].flag == (j % 2 != 0));
}

static void
test_too_many_extents_melt_into_safe_ones(void)
{
    check_melted(NBD_EXTENT_DIRTY);
    check_melted(NBD_EXTENT_ZERO);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_random_answers_equal_a_byte_map),
        TEST(test_unknown_flags_are_dirty_and_not_zero),
        TEST(test_nonsense_is_a_protocol_error),
        TEST(test_long_last_entry_is_clipped),
        TEST(test_outward_rounding_is_cut_off),
        TEST(test_too_many_extents_melt_into_safe_ones),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
