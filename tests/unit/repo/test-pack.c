/* Packs: what was added is found through the table; damage is noticed. */
#include "tap.h"

#include <xxhash.h>

#include "bytes.h"
#include "cleanup.h"
#include "err.h"
#include "frame.h"
#include "hash.h"
#include "pack.h"
#include "rand.h"

DEFINE_CLEANUP(struct frame_ctx *, frame_ctx_free)
DEFINE_CLEANUP(struct pack *, pack_free)

#define N 50

static const struct repo_keys keys = {.id = {{0}, {1}, {2}, {3}}};

static struct pack *
make_pack(enum pack_class class, unsigned n, struct chunk_id *ids)
{
    CLEANUP(frame_ctx_freep) struct frame_ctx *c = NULL;
    struct pack_name name = {.sid = {0xaa, 0xbb}, .class = class, .seq = 7};
    struct pack *p = NULL;

    CHECK_OK(frame_ctx_new(&keys, 1, &c, ERR_ABORT), ERR_ABORT);
    CHECK_OK(pack_new(&name, &p, ERR_ABORT), ERR_ABORT);
    for (unsigned i = 0; i < n; i++) {
        uint8_t data[300] = {(uint8_t)i, 1, 2};
        enum frame_kind kind = class == PACK_DATA ? FRAME_DATA : FRAME_MAP;
        struct frame_head h;
        const uint8_t *f;
        uint32_t off;
        size_t len;

        CHECK_OK(frame_id(c, kind, data, sizeof data, &ids[i], ERR_ABORT),
                 ERR_ABORT);
        CHECK_OK(frame_encode(c, kind, &ids[i], data, sizeof data, &f, &len,
                              ERR_ABORT),
                 ERR_ABORT);
        CHECK_OK(frame_parse(f, len, &h, ERR_ABORT), ERR_ABORT);
        CHECK_OK(pack_add(p, &h, f, len, &off, ERR_ABORT), ERR_ABORT);
    }
    CHECK(pack_n_frames(p) == n);
    CHECK_OK(pack_finish(p, ERR_ABORT), ERR_ABORT);
    return p;
}

/* The key holds class, session and number. */
static void
test_key(void)
{
    struct pack_name n = {.sid = {0x01, 0xff}, .class = PACK_META, .seq = 300};
    char key[REPO_KEY_MAX];

    pack_key(&n, key);
    CHECK_STR(key, "meta/01ff0000000000000000000000000000/0000012c");
}

/* Each frame is where the table says, and the table is in order of ids. */
static void
test_table(void)
{
    struct chunk_id ids[N];
    CLEANUP(pack_freep) struct pack *p = make_pack(PACK_DATA, N, ids);
    struct pack_view v;
    unsigned found = 0;

    CHECK_OK(pack_parse(pack_bytes(p), pack_len(p), &v, ERR_ABORT), ERR_ABORT);
    CHECK(v.n_entries == N && v.name.seq == 7 && v.name.class == PACK_DATA);
    for (uint32_t i = 0; i < v.n_entries; i++) {
        struct pack_entry e, before;
        struct frame_head h;

        pack_entry_at(&v, i, &e);
        CHECK_OK(
            frame_parse(pack_bytes(p) + e.offset, e.frame_len, &h, ERR_ABORT),
            ERR_ABORT);
        CHECK(chunk_id_equal(&h.id, &e.id) && h.raw_len == e.raw_len);
        for (unsigned k = 0; k < N; k++)
            found += chunk_id_equal(&ids[k], &e.id);
        if (i == 0)
            continue;
        pack_entry_at(&v, i - 1, &before);
        CHECK(memcmp(before.id.b, e.id.b, sizeof e.id.b) < 0);
    }
    CHECK(found == N);
}

/* A pack of no frames is a pack. */
static void
test_empty(void)
{
    CLEANUP(pack_freep) struct pack *p = make_pack(PACK_META, 0, NULL);
    struct pack_view v;

    CHECK(pack_len(p) == PACK_HEAD_LEN + PACK_FOOT_LEN);
    CHECK_OK(pack_parse(pack_bytes(p), pack_len(p), &v, ERR_ABORT), ERR_ABORT);
    CHECK(v.n_entries == 0);
}

/* -- damage -----------------------------------------------------------------*/

struct copy {
    uint8_t *p;
    size_t len;
};

static void
copy_done(struct copy *c)
{
    free(c->p);
}

static struct copy
make_copy(void)
{
    struct chunk_id ids[5];
    CLEANUP(pack_freep) struct pack *p = make_pack(PACK_DATA, 5, ids);
    struct copy c = {malloc(pack_len(p)), pack_len(p)};

    if (c.p == NULL)
        abort();
    memcpy(c.p, pack_bytes(p), c.len);
    return c;
}

/* Checksums that fit again, as a forger or a bug would leave them. */
static void
resum(struct copy *c)
{
    uint8_t *foot = c->p + c->len - PACK_FOOT_LEN;

    put_le64(c->p + 56, XXH64(c->p, 56, 0));
    (void)hash_sha256(foot - 5 * PACK_ENTRY_LEN, 5 * PACK_ENTRY_LEN, foot + 24,
                      ERR_ABORT);
    put_le64(foot + 56, XXH64(foot, 56, 0));
}

struct damage {
    bool from_end;
    size_t at;
    uint8_t value;
    bool resummed;
    enum err_code code;
    const char *msg;
};

/* Each field, one at a time, with the words for it. */
static void
test_fields(void)
{
    static const struct damage d[] = {
        {false, 0, 'X', true, ERR_CORRUPT, "this is no pack"},
        {false, 16, 0x99, false, ERR_CORRUPT, "pack header fails its checksum"},
        {false, 8, 9, true, ERR_UNSUPPORTED,
         "pack version 9 is not known; use a newer tidemark"},
        {false, 12, 3, true, ERR_UNSUPPORTED,
         "pack class 3 is not known; use a newer tidemark"},
        {false, 12, PACK_META, true, ERR_CORRUPT,
         "entry 0 of the pack's table has kind 1 and 300 plaintext bytes"},
        {true, 64, 'X', true, ERR_CORRUPT, "pack has no footer at its end"},
        {true, 40, 0x99, false, ERR_CORRUPT, "pack footer fails its checksum"},
        {true, 56, 2, true, ERR_UNSUPPORTED,
         "pack version 2 is not known; use a newer tidemark"},
        {true, 52, 6, true, ERR_CORRUPT, NULL},
        {true, 49, 0xff, true, ERR_CORRUPT, NULL},
        {true, 65 + 8, 0x99, false, ERR_CORRUPT,
         "pack table fails its SHA-256"},
        {true, 64 + 48, 0xff, true, ERR_CORRUPT, NULL},
        {true, 64 + 48 - 35, 0x7f, true, ERR_CORRUPT, NULL},
        {true, 64 + 48 - 44, 9, true, ERR_CORRUPT, NULL},
    };

    for (size_t i = 0; i < ARRAY_SIZE(d); i++) {
        CLEANUP(copy_done) struct copy c = make_copy();
        struct err err = ERR_INIT;
        struct pack_view v;

        c.p[d[i].from_end ? c.len - d[i].at : d[i].at] = d[i].value;
        if (d[i].resummed)
            resum(&c);
        CHECK(pack_parse(c.p, c.len, &v, &err) < 0 || d[i].msg == NULL);
        CHECK(err.code == d[i].code || d[i].msg == NULL);
        if (d[i].msg != NULL)
            CHECK_STR(err.msg, d[i].msg);
    }
}

/* A table out of order, or pointing outside, is refused although its checksums
 * fit. */
static void
test_lying_table(void)
{
    for (int what = 0; what < 4; what++) {
        CLEANUP(copy_done) struct copy c = make_copy();
        uint8_t *e = c.p + c.len - PACK_FOOT_LEN - 5 * PACK_ENTRY_LEN;
        struct err err = ERR_INIT;
        struct pack_view v;

        if (what == 0)
            memset(e, 0xff, 32);
        if (what == 1)
            put_le32(e + 32, 10);
        if (what == 2)
            put_le32(e + 36, 1u << 20);
        if (what == 3)
            put_le32(e + 40, 0);
        resum(&c);
        CHECK(pack_parse(c.p, c.len, &v, &err) < 0);
        CHECK(err.code == ERR_CORRUPT);
    }
}

/* Every bit of what is not a frame is covered; no length is read beyond. */
static void
test_every_bit(void)
{
    CLEANUP(copy_done) struct copy c = make_copy();
    struct pack_view v;

    CHECK_OK(pack_parse(c.p, c.len, &v, ERR_ABORT), ERR_ABORT);
    for (size_t bit = 0; bit < 8 * c.len; bit++) {
        bool frame = bit / 8 >= PACK_HEAD_LEN && bit / 8 < v.table_off;
        struct pack_view w;

        c.p[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK((pack_parse(c.p, c.len, &w, NULL) == 0) == frame);
        c.p[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t cut = 0; cut < c.len; cut++) {
        CLEANUP_FREE uint8_t *copy = malloc(cut + 1);
        struct pack_view w;

        if (copy == NULL)
            abort();
        memcpy(copy, c.p, cut);
        CHECK(pack_parse(copy, cut, &w, NULL) < 0);
    }
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_key),    TEST(test_table),       TEST(test_empty),
        TEST(test_fields), TEST(test_lying_table), TEST(test_every_bit),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
