/* Merging index segments, against an array that is sorted by hand. */
#include "tap.h"

#include "buf.h"
#include "cleanup.h"
#include "err.h"
#include "frame.h"
#include "index_merge.h"

#define N_PACKS 7
#define IN_MAX 12
#define OUT_MAX 64
#define RECORDS_MAX 6000

/* A record with the name of its pack: what merging must keep. */
struct entry {
    struct index_record rec; /* rec.pack is not used */
    struct pack_name pack;
};

struct world {
    struct buf in_bytes[IN_MAX];
    struct segment in[IN_MAX];
    size_t n_in;
    struct entry want[RECORDS_MAX];
    size_t n_want;
    struct buf out_bytes[OUT_MAX];
    struct segment out[OUT_MAX];
    size_t n_out;
    uint32_t last_k;
    size_t fail_at; /* emit fails then; 0: never */
};
static struct world w;

static uint64_t state;

static uint32_t
next(uint32_t below)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % below;
}

static struct pack_name
some_pack(uint32_t i)
{
    return (struct pack_name){.sid = {(uint8_t)(i % 3)},
                              .class = i % 2 == 0 ? PACK_DATA : PACK_META,
                              .seq = 1 + i};
}

/* Few different prefixes in some rounds, so that ids meet. */
static struct entry
some_entry(uint32_t crowd)
{
    uint32_t pack = next(N_PACKS);
    struct entry e = {.rec = {.offset = PACK_HEAD_LEN + next(4),
                              .frame_len = FRAME_HEAD_LEN + 1 + next(2),
                              .raw_len = 4096,
                              .kind = pack % 2 == 0 ? FRAME_DATA : FRAME_MAP},
                      .pack = some_pack(pack)};

    for (unsigned i = 0; i < SEGMENT_PREFIX; i++)
        e.rec.prefix[i] = (uint8_t)(i < 3 && crowd > 0 ? next(crowd)
                                    : crowd > 0        ? 0
                                                       : next(256));
    return e;
}

static void
world_done(void)
{
    for (size_t i = 0; i < IN_MAX; i++)
        buf_done(&w.in_bytes[i]);
    for (size_t i = 0; i < OUT_MAX; i++)
        buf_done(&w.out_bytes[i]);
    memset(&w, 0, sizeof w);
}

/* An input of `n` records; its pack table is shifted, so that the same pack has
 * another number in each. */
static void
add_input(uint32_t n, uint32_t crowd)
{
    struct index_record *recs = calloc(n + 1, sizeof *recs);
    struct segment_name name = {.sid = {9}, .k = (uint32_t)w.n_in + 1};
    struct pack_name packs[N_PACKS];
    uint32_t shift = next(N_PACKS);

    if (recs == NULL)
        abort();
    for (uint32_t p = 0; p < N_PACKS; p++)
        packs[(p + shift) % N_PACKS] = some_pack(p);
    for (uint32_t i = 0; i < n; i++) {
        struct entry e = some_entry(crowd);

        w.want[w.n_want++] = e;
        recs[i] = e.rec;
        recs[i].pack = (e.pack.seq - 1 + shift) % N_PACKS;
    }
    CHECK_OK(segment_build(&name, packs, N_PACKS, recs, n, &w.in_bytes[w.n_in],
                           ERR_ABORT),
             ERR_ABORT);
    CHECK_OK(segment_open(w.in_bytes[w.n_in].data, w.in_bytes[w.n_in].len,
                          &w.in[w.n_in], ERR_ABORT),
             ERR_ABORT);
    w.n_in++;
    free(recs);
}

static int
emit(void *arg, const struct segment_name *name, const uint8_t *bytes,
     size_t len, struct err *err)
{
    struct buf *b = &w.out_bytes[w.n_out];

    (void)arg;
    if (w.n_out + 1 == w.fail_at)
        return err_set(err, ERR_NO_SPACE, "full");
    if (w.n_out == OUT_MAX)
        abort();
    CHECK(name->k == w.n_out + 1 && name->k == w.last_k);
    CHECK_OK(buf_append(b, bytes, len, ERR_ABORT), ERR_ABORT);
    CHECK_OK(segment_open(b->data, b->len, &w.out[w.n_out], ERR_ABORT),
             ERR_ABORT);
    CHECK_OK(segment_check(&w.out[w.n_out], ERR_ABORT), ERR_ABORT);
    w.n_out++;
    return 0;
}

static int
merge(uint32_t records_max, merge_filter_fn filter, struct err *err)
{
    static const struct pack_name more = {.sid = {77}, PACK_DATA, .seq = 5};
    struct merge_opts opts = {.sid = {5},
                              .last_k = &w.last_k,
                              .records_max = records_max,
                              .more = &more,
                              .n_more = 1,
                              .filter = filter,
                              .emit = emit};

    return index_merge(w.in, w.n_in, &opts, err);
}

static int
compare_entries(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    int r = memcmp(x->rec.prefix, y->rec.prefix, SEGMENT_PREFIX);

    if (r == 0)
        r = memcmp(x->pack.sid, y->pack.sid, sizeof x->pack.sid);
    if (r == 0)
        r = (int)x->pack.seq - (int)y->pack.seq;
    if (r == 0)
        r = (int)x->rec.offset - (int)y->rec.offset;
    return r != 0 ? r : (int)x->rec.frame_len - (int)y->rec.frame_len;
}

static bool
same(const struct entry *a, const struct entry *b)
{
    return compare_entries(a, b) == 0 && a->rec.raw_len == b->rec.raw_len &&
           a->rec.kind == b->rec.kind && a->pack.class == b->pack.class;
}

/* What the outputs hold, in their order. */
static size_t
read_outputs(struct entry *got)
{
    size_t n = 0;

    for (size_t i = 0; i < w.n_out; i++)
        for (uint32_t k = 0; k < w.out[i].n_records; k++, n++) {
            CHECK_OK(segment_record(&w.out[i], k, &got[n].rec, ERR_ABORT),
                     ERR_ABORT);
            segment_pack(&w.out[i], got[n].rec.pack, &got[n].pack);
        }
    return n;
}

static void
check_outputs(uint32_t records_max)
{
    static struct entry got[RECORDS_MAX];
    size_t n = read_outputs(got), n_want = 0;
    unsigned wrong = 0;

    qsort(w.want, w.n_want, sizeof w.want[0], compare_entries);
    for (size_t i = 0; i < w.n_want; i++)
        if (n_want == 0 || !same(&w.want[n_want - 1], &w.want[i]))
            w.want[n_want++] = w.want[i];
    CHECK(n == n_want);
    /* Where frame_len alone differs, any order will do. */
    qsort(got, n, sizeof got[0], compare_entries);
    for (size_t i = 0; i < n && i < n_want; i++)
        wrong += !same(&got[i], &w.want[i]);
    CHECK(wrong == 0);
    for (size_t i = 0; i < w.n_out; i++) {
        const struct segment *s = &w.out[i];

        CHECK(s->n_records >= 1 && s->n_packs >= 1);
        CHECK(i + 1 == w.n_out || s->n_records >= records_max);
        /* disjoint */
        CHECK(i == 0 || memcmp(w.out[i - 1].records +
                                   (size_t)(w.out[i - 1].n_records - 1) *
                                       SEGMENT_RECORD_LEN,
                               s->records, SEGMENT_PREFIX) < 0);
    }
}

/* All records come out once, in order, in disjoint ranges. */
static void
test_oracle(void)
{
    static const uint32_t limits[] = {1000000, 500, 100, 128};

    for (unsigned round = 0; round < 40; round++) {
        uint32_t limit = limits[round % 4], crowd = round % 3 == 0 ? 3 : 0;
        unsigned n_in = round % IN_MAX;

        state = round;
        for (unsigned i = 0; i < n_in; i++)
            add_input(next(round % 5 == 0 ? 2 : 400), crowd);
        CHECK_OK(merge(limit, NULL, ERR_ABORT), ERR_ABORT);
        check_outputs(limit);
        world_done();
    }
}

/* A look-up finds in the outputs what it finds in the inputs; more records than
 * an output may hold stay together when they are of one id. */
static void
test_one_id(void)
{
    struct chunk_id id = {{1, 1, 1}};
    unsigned n_found = 0;

    state = 1;
    for (unsigned i = 0; i < 6; i++)
        add_input(200, 2);
    CHECK_OK(merge(4, NULL, ERR_ABORT), ERR_ABORT);
    check_outputs(4);
    for (size_t i = 0; i < w.n_out; i++) {
        uint32_t no;
        int found = segment_find(&w.out[i], &id, &no, ERR_ABORT);

        n_found += found == 1;
        CHECK(found == 0 || no == 0 ||
              memcmp(w.out[i].records + (size_t)(no - 1) * SEGMENT_RECORD_LEN,
                     id.b, SEGMENT_PREFIX) < 0);
    }
    CHECK(n_found == 1 && w.n_out == 8);
    world_done();
}

/* Drops what is in some packs, moves what is in another. */
static int
filter(void *arg, size_t input, struct index_record *rec,
       struct pack_name *pack, struct err *err)
{
    (void)arg;
    (void)err;
    CHECK(input < w.n_in);
    if (pack->seq % 3 == 0)
        return 0;
    if (pack->seq == 1) {
        *pack = (struct pack_name){.sid = {77}, PACK_DATA, .seq = 5};
        rec->offset += 1000;
    }
    return 1;
}

static void
test_filter(void)
{
    size_t kept = 0;

    state = 3;
    for (unsigned i = 0; i < 5; i++)
        add_input(300, i % 2 == 0 ? 0 : 4);
    for (size_t i = 0; i < w.n_want; i++) {
        struct entry e = w.want[i];

        if (filter(NULL, 0, &e.rec, &e.pack, NULL) == 1)
            w.want[kept++] = e;
    }
    w.n_want = kept;
    CHECK_OK(merge(100, filter, ERR_ABORT), ERR_ABORT);
    check_outputs(100);
    world_done();
}

static int
drop_all(void *arg, size_t input, struct index_record *rec,
         struct pack_name *pack, struct err *err)
{
    return 0;
}

static int
move_to_nowhere(void *arg, size_t input, struct index_record *rec,
                struct pack_name *pack, struct err *err)
{
    pack->seq = 12345;
    return 1;
}

static int
fail(void *arg, size_t input, struct index_record *rec, struct pack_name *pack,
     struct err *err)
{
    return err_set(err, ERR_CANCELED, "enough");
}

/* Nothing left is nothing emitted; failures of the callbacks end it. */
static void
test_callbacks(void)
{
    struct err err = ERR_INIT;

    state = 4;
    add_input(300, 0);
    add_input(300, 0);
    CHECK_OK(merge(100, drop_all, ERR_ABORT), ERR_ABORT);
    CHECK(w.n_out == 0 && w.last_k == 0);
    CHECK(merge(100, move_to_nowhere, &err) < 0);
    CHECK_STR(err.msg, "a record was moved to a pack that nobody named");
    err_clear(&err);
    CHECK(merge(100, fail, &err) < 0);
    CHECK(err.code == ERR_CANCELED);
    err_clear(&err);
    w.fail_at = 3;
    CHECK(merge(100, NULL, &err) < 0);
    CHECK(err.code == ERR_NO_SPACE && w.n_out == 2);
    world_done();
}

/* Any bit among an input's records or sums: the merge is refused, with the name
 * of the segment; also when the sums fit. */
static void
test_damage(void)
{
    struct err err = ERR_INIT;
    size_t from, n;

    state = 5;
    add_input(300, 0);
    add_input(290, 0);
    from = (size_t)(w.in[1].records - w.in_bytes[1].data);
    n = 290 * SEGMENT_RECORD_LEN;
    for (size_t bit = 0; bit < 8 * n; bit += 101) {
        uint8_t *p = &w.in_bytes[1].data[from + bit / 8];

        *p ^= (uint8_t)(1u << bit % 8);
        err_clear(&err);
        CHECK(merge(100, NULL, &err) < 0);
        CHECK(err.code == ERR_CORRUPT);
        CHECK(strncmp(err.msg,
                      "index segment 'index/09000000000000000000000000000000-2'"
                      ": block ",
                      63) == 0);
        *p ^= (uint8_t)(1u << bit % 8);
        for (size_t i = 0; i < w.n_out; i++)
            buf_done(&w.out_bytes[i]);
        w.n_out = w.last_k = 0;
    }
    world_done();
}

/* Records that are not in order, under checksums that fit. */
static void
test_disorder(void)
{
    struct index_record recs[2] = {{.prefix = {2}}, {.prefix = {1}}};
    struct pack_name pack = some_pack(0);
    struct segment_name name = {.sid = {9}, .k = 1};
    uint64_t tables = segment_tables_len(1, 2);
    struct err err = ERR_INIT;
    struct buf *b = &w.in_bytes[0];

    CHECK_OK(buf_reserve(b, 10000, ERR_ABORT), ERR_ABORT);
    segment_put_pack(b->data + SEGMENT_HEAD_LEN, &pack);
    for (unsigned i = 0; i < 2; i++) {
        recs[i].offset = PACK_HEAD_LEN;
        recs[i].frame_len = FRAME_HEAD_LEN + 1;
        recs[i].raw_len = 1;
        recs[i].kind = FRAME_DATA;
        segment_put_record(b->data + tables + (size_t)i * SEGMENT_RECORD_LEN,
                           &recs[i]);
    }
    /* The fan-out ends at the records it could place; mend it. */
    CHECK_OK(segment_seal(&name, b->data, 1, 2, ERR_ABORT), ERR_ABORT);
    w.in[0] = (struct segment){.bytes = b->data,
                               .n_packs = 1,
                               .n_records = 2,
                               .packs = b->data + SEGMENT_HEAD_LEN,
                               .sums = b->data + tables - 8,
                               .records = b->data + tables};
    w.n_in = 1;
    CHECK(merge(100, NULL, &err) < 0);
    CHECK(err.code == ERR_CORRUPT);
    CHECK(strstr(err.msg, "record 1 is not in order") != NULL);
    world_done();
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_oracle),    TEST(test_one_id), TEST(test_filter),
        TEST(test_callbacks), TEST(test_damage), TEST(test_disorder),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
