/* Frames: round trip, every field damaged, never a wrong byte. */
#include "tap.h"

#include <xxhash.h>

#include "bytes.h"
#include "cleanup.h"
#include "err.h"
#include "frame.h"
#include "rand.h"

DEFINE_CLEANUP(struct frame_ctx *, frame_ctx_free)

static const struct repo_keys keys = {
    .id = {{0}, {1, 2, 3}, {4, 5, 6}, {7, 8, 9}}};

static struct frame_ctx *
new_ctx(int level)
{
    struct frame_ctx *c = NULL;

    CHECK_OK(frame_ctx_new(&keys, level, &c, ERR_ABORT), ERR_ABORT);
    return c;
}

/* A frame of `len` bytes of `fill`ed data; owned by the caller. */
static uint8_t *
make_frame(struct frame_ctx *c, enum frame_kind kind, const uint8_t *data,
           size_t len, size_t *ret_len, struct chunk_id *ret_id)
{
    const uint8_t *frame = NULL;
    uint8_t *copy;

    CHECK_OK(frame_id(c, kind, data, len, ret_id, ERR_ABORT), ERR_ABORT);
    CHECK_OK(
        frame_encode(c, kind, ret_id, data, len, &frame, ret_len, ERR_ABORT),
        ERR_ABORT);
    copy = malloc(*ret_len);
    if (copy == NULL)
        abort();
    memcpy(copy, frame, *ret_len);
    return copy;
}

/* What was framed comes back: every kind, text and noise, smallest to
 * largest. */
static void
test_round_trip(void)
{
    static const size_t lens[] = {1, 15, 16, 17, 2048, 65536, 4u << 20};
    static uint8_t data[4u << 20], back[4u << 20];
    CLEANUP(frame_ctx_freep) struct frame_ctx *c = new_ctx(1);

    for (int random = 0; random < 2; random++) {
        memset(data, 'x', sizeof data);
        if (random)
            rand_bytes(data, sizeof data);
        for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
            enum frame_kind kind = FRAME_DATA + i % 3;
            struct frame_head h;
            struct chunk_id id;
            size_t n;
            CLEANUP_FREE uint8_t *f =
                make_frame(c, kind, data, lens[i], &n, &id);

            CHECK_OK(frame_parse(f, n, &h, ERR_ABORT), ERR_ABORT);
            CHECK(h.kind == kind && h.raw_len == lens[i]);
            CHECK(chunk_id_equal(&h.id, &id));
            if (lens[i] >= 2048)
                CHECK(h.codec == (random ? FRAME_RAW : FRAME_ZSTD));
            memset(back, 0, lens[i]);
            CHECK_OK(
                frame_decode(c, f, n, &id, (uint32_t)lens[i], back, ERR_ABORT),
                ERR_ABORT);
            CHECK(memcmp(data, back, lens[i]) == 0);
        }
    }
}

/* Level 0 stores as it is. */
static void
test_no_compression(void)
{
    CLEANUP(frame_ctx_freep) struct frame_ctx *c = new_ctx(0);
    uint8_t data[4096];
    struct chunk_id id;
    size_t n;

    memset(data, 'x', sizeof data);
    free(make_frame(c, FRAME_DATA, data, sizeof data, &n, &id));
    CHECK(n == FRAME_HEAD_LEN + sizeof data);
}

/* Less than 1/32 gained is stored raw. */
static void
test_gain_rule(void)
{
    CLEANUP(frame_ctx_freep) struct frame_ctx *c = new_ctx(1);
    static uint8_t data[65536];
    struct frame_head h;
    struct chunk_id id;

    for (unsigned zeroes = 0; zeroes <= 8192; zeroes += 512) {
        CLEANUP_FREE uint8_t *f = NULL;
        size_t n;

        rand_bytes(data, sizeof data);
        memset(data, 0, zeroes);
        f = make_frame(c, FRAME_DATA, data, sizeof data, &n, &id);
        CHECK_OK(frame_parse(f, n, &h, ERR_ABORT), ERR_ABORT);
        if (h.codec == FRAME_ZSTD)
            CHECK(h.stored_len <= sizeof data - sizeof data / 32);
        else
            CHECK(h.stored_len == sizeof data);
    }
    CHECK(h.codec == FRAME_ZSTD);
}

/* The same bytes have another id in each kind. */
static void
test_kinds_do_not_mix(void)
{
    CLEANUP(frame_ctx_freep) struct frame_ctx *c = new_ctx(1);
    struct chunk_id a, b;

    CHECK_OK(frame_id(c, FRAME_DATA, "x", 1, &a, ERR_ABORT), ERR_ABORT);
    CHECK_OK(frame_id(c, FRAME_MAP, "x", 1, &b, ERR_ABORT), ERR_ABORT);
    CHECK(!chunk_id_equal(&a, &b));
}

static void
resum(uint8_t *f)
{
    put_le64(f + 64, XXH64(f, 64, 0));
}

struct damage {
    const char *what;
    size_t at;
    uint8_t value;
    bool resummed; /* the checksum is made to fit */
    enum err_code code;
    const char *msg;
};

/* Each field of the header, one at a time, with the words for it. */
static void
test_fields(void)
{
    static const struct damage d[] = {
        {"magic", 0, 'X', true, ERR_CORRUPT, "no frame begins here"},
        {"sum", 64, 0x99, false, ERR_CORRUPT,
         "frame header fails its checksum"},
        {"any", 9, 0x99, false, ERR_CORRUPT, "frame header fails its checksum"},
        {"version", 4, 2, true, ERR_UNSUPPORTED,
         "frame version 2 is not known; use a newer tidemark"},
        {"kind 0", 5, 0, true, ERR_UNSUPPORTED,
         "frame kind 0 is not known; use a newer tidemark"},
        {"kind 4", 5, 4, true, ERR_UNSUPPORTED,
         "frame kind 4 is not known; use a newer tidemark"},
        {"codec", 6, 2, true, ERR_UNSUPPORTED,
         "frame codec 2 is not known; use a newer tidemark"},
        {"flags", 7, 1, true, ERR_UNSUPPORTED,
         "frame uses flags (0x01), a key slot (0), a nonce or reserved bytes "
         "that are not known; use a newer tidemark"},
        {"nonce", 48, 1, true, ERR_UNSUPPORTED,
         "frame uses flags (0x00), a key slot (0), a nonce or reserved bytes "
         "that are not known; use a newer tidemark"},
        {"slot", 60, 3, true, ERR_UNSUPPORTED,
         "frame uses flags (0x00), a key slot (3), a nonce or reserved bytes "
         "that are not known; use a newer tidemark"},
        {"raw_len", 11, 0x7f, true, ERR_CORRUPT,
         "frame claims 2130710528 plaintext bytes, allowed are 1 to 16777216"},
        {"stored_len", 15, 0x7f, true, ERR_CORRUPT, NULL},
        {"raw_len small", 9, 0x08, true, ERR_CORRUPT,
         "frame holds 2048 plaintext bytes, wanted are 4096"},
        {"codec raw", 6, 0, true, ERR_CORRUPT, NULL},
        {"kind map", 5, FRAME_MAP, true, ERR_CORRUPT,
         "frame payload does not match its id"},
        {"payload", 72, 0x99, false, ERR_CORRUPT, NULL},
    };
    CLEANUP(frame_ctx_freep) struct frame_ctx *c = new_ctx(1);
    uint8_t data[4096], back[4096];

    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i / 64);
    for (size_t i = 0; i < ARRAY_SIZE(d); i++) {
        struct err err = ERR_INIT;
        struct chunk_id id;
        size_t n;
        CLEANUP_FREE uint8_t *f =
            make_frame(c, FRAME_DATA, data, sizeof data, &n, &id);

        f[d[i].at] = d[i].value;
        if (d[i].resummed)
            resum(f);
        CHECK(frame_decode(c, f, n, &id, sizeof data, back, &err) < 0);
        CHECK(err.code == d[i].code);
        if (d[i].msg != NULL)
            CHECK_STR(err.msg, d[i].msg);
        if (tap_failures > 0)
            printf("# in case '%s': %s\n", d[i].what, err.msg);
    }
}

/* Another chunk than asked for is damage, with both names. */
static void
test_other_chunk(void)
{
    CLEANUP(frame_ctx_freep) struct frame_ctx *c = new_ctx(1);
    struct chunk_id id, other = {{0xab, 0xcd}};
    struct err err = ERR_INIT;
    uint8_t back[4];
    size_t n;
    CLEANUP_FREE uint8_t *f =
        make_frame(c, FRAME_DATA, (const uint8_t *)"abcd", 4, &n, &id);

    CHECK(frame_decode(c, f, n, &other, 4, back, &err) < 0);
    CHECK(err.code == ERR_CORRUPT);
    CHECK(strstr(err.msg, "wanted is abcd000000000000") != NULL);
    CHECK_OK(frame_decode(c, f, n, NULL, 4, back, ERR_ABORT), ERR_ABORT);
}

/* Every bit and every length: an error, or the right bytes; never others. */
static void
test_every_bit(void)
{
    CLEANUP(frame_ctx_freep) struct frame_ctx *c = new_ctx(1);
    uint8_t data[700], back[700];
    struct chunk_id id;
    size_t n;
    CLEANUP_FREE uint8_t *f = NULL;

    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i % 40 * (i / 90));
    f = make_frame(c, FRAME_DATA, data, sizeof data, &n, &id);
    for (size_t bit = 0; bit < 8 * n; bit++) {
        struct err err = ERR_INIT;

        f[bit / 8] ^= (uint8_t)(1u << bit % 8);
        /* zstd leaves some bits of its own without a meaning. */
        if (frame_decode(c, f, n, &id, sizeof data, back, &err) == 0)
            CHECK(memcmp(data, back, sizeof back) == 0);
        else
            CHECK(err.code == ERR_CORRUPT || err.code == ERR_UNSUPPORTED);
        f[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t cut = 0; cut < n; cut++) {
        CLEANUP_FREE uint8_t *copy = malloc(cut + 1);

        if (copy == NULL)
            abort();
        memcpy(copy, f, cut);
        CHECK(frame_decode(c, copy, cut, &id, sizeof data, back, NULL) < 0);
    }
}

/* Zero means every byte. */
static void
test_zero(void)
{
    static uint8_t data[70];

    for (size_t len = 1; len <= sizeof data; len++) {
        CHECK(chunk_data_zero(data, len));
        for (size_t i = 0; i < len; i++) {
            data[i] = 1;
            CHECK(!chunk_data_zero(data, len));
            data[i] = 0;
        }
    }
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_round_trip), TEST(test_no_compression),
        TEST(test_gain_rule),  TEST(test_kinds_do_not_mix),
        TEST(test_fields),     TEST(test_other_chunk),
        TEST(test_every_bit),  TEST(test_zero),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
