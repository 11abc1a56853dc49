/* Each chunk is chosen exactly once in any `period` rounds that follow each
 * other, on disks of all sizes; and what is chosen is scattered. */
#include "audit.h"

#include <string.h>

#include "cleanup.h"
#include "tap.h"

#define MAX 40000

static const unsigned shares[] = {1, 7, 100, 333, 500, 2500, 5000, 9999, 10000};
static const uint32_t sizes[] = {16u << 10, 64u << 10, 1u << 20, 4u << 20};
static const uint64_t disks[] = {1, 2, 15, 16, 17, 1600, 1601, 25599, MAX};

/* One round, each chunk that is chosen; false when they do not ascend. */
static bool
one_round(const struct audit *a, uint64_t n_chunks, uint8_t *seen)
{
    uint64_t at = 0, index, n;

    while (audit_next(a, n_chunks, at, &index, &n)) {
        if (index < at || n == 0 || index + n > n_chunks || n > a->granule)
            return false;
        for (uint64_t i = 0; i < n; i++)
            seen[index + i]++;
        at = index + n;
    }
    return true;
}

static void
test_each_once(void)
{
    static uint8_t seen[MAX], once[MAX];

    memset(once, 1, sizeof once);
    for (size_t s = 0; s < ARRAY_SIZE(shares); s++)
        for (size_t c = 0; c < ARRAY_SIZE(sizes); c++)
            for (size_t d = 0; d < ARRAY_SIZE(disks); d++) {
                struct audit a = audit_choose(shares[s], 12345, sizes[c]);

                memset(seen, 0, sizeof seen);
                CHECK(a.period == (10000 + shares[s] - 1) / shares[s]);
                for (uint64_t i = 0; i < a.period; i++) {
                    CHECK(one_round(&a, disks[d], seen));
                    a.round++;
                }
                CHECK(memcmp(seen, once, disks[d]) == 0);
            }
}

/* From the middle of a granule on, its rest is given: the caller clips. */
static void
test_within(void)
{
    struct audit a = audit_choose(10000, 0, 64u << 10);
    uint64_t index, n;

    CHECK(a.period == 1 && a.granule == 16);
    CHECK(audit_next(&a, 100, 7, &index, &n) && index == 0 && n == 16);
    CHECK(audit_next(&a, 100, 16, &index, &n) && index == 16 && n == 16);
    CHECK(audit_next(&a, 100, 97, &index, &n) && index == 96 && n == 4);
    CHECK(!audit_next(&a, 100, 100, &index, &n));
}

static void
test_off(void)
{
    struct audit a = audit_choose(0, 3, 64u << 10);
    uint64_t index, n;

    CHECK(!audit_next(&a, 100, 0, &index, &n));
}

/* Neighbouring blocks do not give the same place: what is missed at equal
 * distances is met in the first round. */
static void
test_scattered(void)
{
    struct audit a = audit_choose(100, 0, 1u << 20);
    unsigned counts[100] = {0}, most = 0;
    uint64_t at = 0, index, n;

    while (audit_next(&a, 100000, at, &index, &n)) {
        counts[index % 100]++;
        at = index + n;
    }
    for (size_t i = 0; i < 100; i++)
        most = counts[i] > most ? counts[i] : most;
    CHECK(most < 40); /* 1000 over 100 places */
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_each_once),
        TEST(test_within),
        TEST(test_off),
        TEST(test_scattered),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
