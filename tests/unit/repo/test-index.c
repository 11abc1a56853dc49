/* Index segments and the table of new records, against a plain array. */
#include "tap.h"

#include <xxhash.h>

#include "buf.h"
#include "bytes.h"
#include "cleanup.h"
#include "err.h"
#include "frame.h"
#include "index.h"
#include "rand.h"
#include "table.h"

DEFINE_CLEANUP(struct record_table *, record_table_free)

static const struct segment_name name = {.sid = {1, 2}, .k = 3};
static const struct pack_name packs[3] = {
    {.sid = {1, 2}, .class = PACK_DATA, .seq = 1},
    {.sid = {1, 2}, .class = PACK_META, .seq = 2},
    {.sid = {1, 2}, .class = PACK_DATA, .seq = 3},
};

/* Some of the first ids fall on each other's first bytes, so that a slot gets
 * crowded. */
static void
make_id(uint32_t i, struct chunk_id *id)
{
    rand_bytes(id->b, sizeof id->b);
    if (i < 1000 && i % 3 == 0)
        id->b[0] = 0x42;
    if (i < 1000 && i % 6 == 0)
        id->b[1] = 0x17;
}

static struct index_record
record_of(const struct chunk_id *id, uint32_t i)
{
    struct index_record r = {.pack = i % 3,
                             .offset = PACK_HEAD_LEN + i * 100,
                             .frame_len = FRAME_HEAD_LEN + 1 + i % 1000,
                             .raw_len = 4096 + i,
                             .kind = FRAME_DATA + i % 3};

    memcpy(r.prefix, id->b, sizeof r.prefix);
    return r;
}

static bool
same_record(const struct index_record *a, const struct index_record *b)
{
    return memcmp(a->prefix, b->prefix, sizeof a->prefix) == 0 &&
           a->pack == b->pack && a->offset == b->offset &&
           a->frame_len == b->frame_len && a->raw_len == b->raw_len &&
           a->kind == b->kind;
}

static void
build(uint32_t n, struct chunk_id *ids, struct buf *b, struct segment *s)
{
    struct index_record *recs = calloc(n + 1, sizeof *recs);

    if (recs == NULL)
        abort();
    for (uint32_t i = 0; i < n; i++) {
        make_id(i, &ids[i]);
        recs[i] = record_of(&ids[i], i);
    }
    CHECK_OK(segment_build(&name, packs, 3, recs, n, b, ERR_ABORT), ERR_ABORT);
    CHECK_OK(segment_open(b->data, b->len, s, ERR_ABORT), ERR_ABORT);
    free(recs);
}

/* Each record is found with its values, others are not; small and large
 * fan-out. */
static void
test_oracle(void)
{
    static const uint32_t counts[] = {0,   1,    2,     127,   128,
                                      129, 5000, 65535, 65536, 70000};

    for (size_t c = 0; c < ARRAY_SIZE(counts); c++) {
        uint32_t n = counts[c], no;
        CLEANUP_FREE struct chunk_id *ids = calloc(n + 1, sizeof *ids);
        CLEANUP(buf_done) struct buf b = BUF_INIT;
        struct segment s = {0};
        unsigned bad = 0;

        if (ids == NULL)
            abort();
        build(n, ids, &b, &s);
        CHECK(s.n_records == n && s.fan_bits == (n < 65536 ? 8 : 16));
        for (uint32_t i = 0; i < n; i++) {
            struct index_record want = record_of(&ids[i], i), got;
            struct chunk_id other = ids[i];

            if (segment_find(&s, &ids[i], &no, ERR_ABORT) != 1 ||
                segment_record(&s, no, &got, ERR_ABORT) < 0 ||
                !same_record(&want, &got))
                bad++;
            other.b[SEGMENT_PREFIX - 1] ^= 1;
            bad += segment_find(&s, &other, &no, ERR_ABORT) != 0;
        }
        CHECK(bad == 0);
        CHECK_OK(segment_check(&s, ERR_ABORT), ERR_ABORT);
    }
}

/* Packs keep their names. */
static void
test_packs(void)
{
    struct chunk_id ids[10];
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    struct pack_name got;
    struct segment s;
    char key[REPO_KEY_MAX];

    build(10, ids, &b, &s);
    for (uint32_t i = 0; i < 3; i++) {
        segment_pack(&s, i, &got);
        CHECK(got.seq == packs[i].seq && got.class == packs[i].class);
        CHECK(memcmp(got.sid, packs[i].sid, sizeof got.sid) == 0);
    }
    segment_key(&name, key);
    CHECK_STR(key, "index/01020000000000000000000000000000-3");
}

static void
resum(uint8_t *p)
{
    put_le64(p + 56, XXH64(p, 56, 0));
}

struct damage {
    size_t at;
    uint8_t value;
    bool resummed;
    enum err_code code;
    const char *msg;
};

/* Each field of the header, with the words for it. */
static void
test_fields(void)
{
    static const struct damage d[] = {
        {0, 'X', true, ERR_CORRUPT, "this is no index segment"},
        {16, 0x99, false, ERR_CORRUPT, "index header fails its checksum"},
        {8, 2, true, ERR_UNSUPPORTED,
         "index version 2 is not known; use a newer tidemark"},
        {12, 9, true, ERR_CORRUPT,
         "index header claims 3 packs, 10 records and a fan-out of 9 bits"},
        {43, 0xff, true, ERR_CORRUPT,
         "index header claims 3 packs, 4278190090 records and a fan-out of 8 "
         "bits"},
        {40, 11, true, ERR_CORRUPT, NULL},
        {36, 4, true, ERR_CORRUPT, NULL},
        {64 + 20, 9, false, ERR_CORRUPT, "index tables fail their checksum"},
        {64 + 96 + 4, 9, false, ERR_CORRUPT,
         "index tables fail their checksum"},
    };
    struct chunk_id ids[10];

    for (size_t i = 0; i < ARRAY_SIZE(d); i++) {
        CLEANUP(buf_done) struct buf b = BUF_INIT;
        struct err err = ERR_INIT;
        struct segment s;

        build(10, ids, &b, &s);
        b.data[d[i].at] ^= 0x80;
        b.data[d[i].at] = d[i].value;
        if (d[i].resummed)
            resum(b.data);
        CHECK(segment_open(b.data, b.len, &s, &err) < 0);
        CHECK(err.code == d[i].code);
        if (d[i].msg != NULL)
            CHECK_STR(err.msg, d[i].msg);
    }
}

/* Whatever bit changes: the segment is refused, or the look-up that would be
 * misled is; never a wrong record, never a wrong "not there". */
static void
test_every_bit(void)
{
    enum { COUNT = 300 };
    struct chunk_id ids[COUNT];
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    unsigned wrong = 0, refused = 0, unnoticed = 0;
    struct segment s;

    build(COUNT, ids, &b, &s);
    for (size_t bit = 0; bit < 8 * b.len; bit += 11) {
        b.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (segment_open(b.data, b.len, &s, NULL) < 0) {
            refused++;
        } else {
            for (uint32_t i = 0; i < COUNT; i += 17) {
                struct index_record want = record_of(&ids[i], i), got;
                uint32_t no;
                int found = segment_find(&s, &ids[i], &no, NULL);

                if (found > 0 && segment_record(&s, no, &got, NULL) == 0)
                    wrong += !same_record(&want, &got);
                wrong += found == 0;
            }
            unnoticed += segment_check(&s, NULL) == 0;
        }
        b.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    CHECK(wrong == 0);
    CHECK(refused > 0);
    CHECK(unnoticed == 0);
    for (size_t cut = 0; cut < b.len; cut += 3) {
        CLEANUP_FREE uint8_t *copy = malloc(cut + 1);

        if (copy == NULL)
            abort();
        memcpy(copy, b.data, cut);
        CHECK(segment_open(copy, cut, &s, NULL) < 0);
    }
}

/* A record whose checksum fits but whose values cannot be is refused. */
static void
test_lying_record(void)
{
    static const struct {
        size_t at;
        uint32_t value;
    } lies[] = {{16, 3},        {20, 10}, {24, FRAME_HEAD_LEN},
                {24, 1u << 30}, {28, 0},  {28, 9u << 28 | 5}};
    struct chunk_id ids[10];

    for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
        CLEANUP(buf_done) struct buf b = BUF_INIT;
        struct index_record got;
        struct err err = ERR_INIT;
        struct segment s;
        size_t records;

        build(10, ids, &b, &s);
        records = (size_t)(s.records - b.data);
        put_le32(b.data + records + lies[i].at, lies[i].value);
        CHECK(segment_record(&s, 0, &got, &err) < 0);
        CHECK(err.code == ERR_CORRUPT);
        CHECK(strncmp(err.msg, "record 0 of the index segment is out of bounds",
                      46) == 0);
    }
}

/* The table finds what was added and nothing else, also after growing and after
 * being emptied. */
static void
test_table(void)
{
    enum { COUNT = 5000 };
    CLEANUP(record_table_freep) struct record_table *t = NULL;
    static struct chunk_id ids[COUNT];
    uint32_t n;

    CHECK_OK(record_table_new(COUNT, &t, ERR_ABORT), ERR_ABORT);
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < COUNT; i++) {
            struct index_record r;

            make_id(i, &ids[i]);
            r = record_of(&ids[i], i);
            CHECK(record_table_find(t, &ids[i]) == NULL);
            CHECK(!record_table_full(t));
            CHECK_OK(record_table_add(t, &r, ERR_ABORT), ERR_ABORT);
        }
        for (uint32_t i = 0; i < COUNT; i++) {
            struct index_record want = record_of(&ids[i], i);
            const struct index_record *got = record_table_find(t, &ids[i]);

            CHECK(got != NULL && same_record(&want, got));
        }
        CHECK(record_table_full(t));
        (void)record_table_all(t, &n);
        CHECK(n == COUNT);
        record_table_clear(t);
        CHECK(record_table_find(t, &ids[0]) == NULL);
    }
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_oracle),    TEST(test_packs),        TEST(test_fields),
        TEST(test_every_bit), TEST(test_lying_record), TEST(test_table),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
