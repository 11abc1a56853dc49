/* Extents widen outward to chunk borders: a chunk that an extent touches with
 * one byte is in a run, no other is. */
#include "runs.h"

#include "err.h"
#include "heal.h"
#include "reader.h"
#include "tap.h"

#define CHUNK 16
#define CHUNKS 64
#define BYTES (CHUNK * CHUNKS)

static uint32_t
next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Random extents that cover all bytes; `touched` is told by each byte. */
static size_t
make_extents(struct nbd_extent *v, bool *touched, uint32_t *state)
{
    uint64_t off = 0;
    size_t n = 0;
    bool flag = next_random(state) % 2;

    memset(touched, 0, CHUNKS);
    while (off < BYTES) {
        uint64_t len = 1 + next_random(state) % (flag ? 20 : 90);

        len = len < BYTES - off ? len : BYTES - off;
        v[n++] = (struct nbd_extent){.off = off, .len = len, .flag = flag};
        for (uint64_t i = off; flag && i < off + len; i++)
            touched[i / CHUNK] = true;
        off += len;
        flag = !flag;
    }
    return n;
}

static void
check_runs(const struct nbd_extents *e, const bool *touched)
{
    struct runs runs = {.extents = e, .chunk_size = CHUNK, .flag = true};
    bool got[CHUNKS] = {false};
    uint64_t index, n, end = 0;
    bool first = true;

    while (runs_next(&runs, &index, &n)) {
        CHECK(n > 0 && index + n <= CHUNKS);
        CHECK(first || index > end); /* ascending, never touching */
        end = index + n;
        first = false;
        for (uint64_t i = index; i < end && i < CHUNKS; i++)
            got[i] = true;
    }
    CHECK(memcmp(got, touched, sizeof got) == 0);
}

static void
test_runs_are_the_touched_chunks(void)
{
    uint32_t state = 7;

    for (int i = 0; i < 2000; i++) {
        struct nbd_extent v[BYTES];
        bool touched[CHUNKS];
        struct nbd_extents e = {.v = v};

        e.n = make_extents(v, touched, &state);
        check_runs(&e, touched);
    }
}

static void
test_a_short_last_chunk_counts(void)
{
    struct nbd_extent v[] = {{.off = 0, .len = 32, .flag = false},
                             {.off = 32, .len = 1, .flag = true}};
    const struct nbd_extents e = {.v = v, .n = 2};
    struct runs runs = {.extents = &e, .chunk_size = CHUNK, .flag = true};
    uint64_t index, n;

    CHECK(runs_next(&runs, &index, &n) && index == 2 && n == 1);
    CHECK(!runs_next(&runs, &index, &n));
}

/* What is to be healed in the window is touched as well. */
static void
make_heal(struct heal *h, bool *touched, bool *wanted, uint32_t *state)
{
    memset(wanted, 0, CHUNKS);
    for (uint64_t i = next_random(state) % 8; i < CHUNKS;
         i += 1 + next_random(state) % 30) {
        uint64_t n = 1 + next_random(state) % 6;

        n = n < CHUNKS - i ? n : CHUNKS - i;
        CHECK(heal_add(h, i, n, NULL) == 0);
        for (; n > 0; n--, i++)
            touched[i] = wanted[i] = true;
    }
}

static void
test_heal_joins_what_changed(void)
{
    uint32_t state = 11;

    for (int i = 0; i < 2000; i++) {
        struct nbd_extents e = {.v = calloc(BYTES, sizeof *e.v)};
        bool touched[CHUNKS], wanted[CHUNKS];
        struct heal h = {0};

        e.n = make_extents(e.v, touched, &state);
        make_heal(&h, touched, wanted, &state);
        for (uint64_t k = 0; k < CHUNKS; k++)
            CHECK(heal_has(&h, k) == wanted[k]);
        CHECK(heal_extents(&h, CHUNK, 0, BYTES, &e, NULL) == 0);
        check_runs(&e, touched);
        nbd_extents_done(&e);
        heal_done(&h);
    }
}

static void
test_heal_stays_in_its_window(void)
{
    struct nbd_extents e = {0};
    struct heal h = {0};

    CHECK(heal_add(&h, 2, 10, NULL) == 0);
    CHECK(heal_extents(&h, CHUNK, 0, 2 * CHUNK, &e, NULL) == 0 && e.n == 0);
    CHECK(heal_extents(&h, CHUNK, 4 * CHUNK, 3 * CHUNK, &e, NULL) == 0);
    CHECK(e.n == 1 && e.v[0].off == 4 * CHUNK && e.v[0].len == 3 * CHUNK &&
          e.v[0].flag);
    nbd_extents_done(&e);
    heal_done(&h);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_runs_are_the_touched_chunks),
        TEST(test_a_short_last_chunk_counts),
        TEST(test_heal_joins_what_changed),
        TEST(test_heal_stays_in_its_window),
    };

    return tap_run(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
