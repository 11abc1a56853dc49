/* Hashes against published vectors; zstd against itself and against lies. */
#include "tap.h"

#include <stdint.h>

#include "cleanup.h"
#include "compress.h"
#include "err.h"
#include "hash.h"
#include "rand.h"

DEFINE_CLEANUP(struct hasher *, hasher_free)
DEFINE_CLEANUP(struct codec *, codec_free)

static void
check_hmac(const char *key_hex, size_t key_len, const void *data, size_t len,
           const char *want)
{
    CLEANUP(hasher_freep) struct hasher *h = NULL;
    uint8_t key[HASH_LEN] = {0}, mac[HASH_LEN];
    char hex[2 * HASH_LEN + 1];

    /* HMAC pads its key with zeroes, so a short key may be padded before. */
    CHECK(hex_decode(key_hex, key, key_len));
    CHECK_OK(hasher_new(key, &h, ERR_ABORT), ERR_ABORT);
    for (int twice = 0; twice < 2; twice++) {
        CHECK_OK(hasher_id(h, data, len, mac, ERR_ABORT), ERR_ABORT);
        hex_encode(mac, sizeof mac, hex);
        CHECK_STR(hex, want);
    }
}

/* HMAC-SHA-256 gives the results of RFC 4231, each time it is used. */
static void
test_hmac_rfc4231(void)
{
    uint8_t dd[50], cd[50];

    memset(dd, 0xdd, sizeof dd);
    memset(cd, 0xcd, sizeof cd);
    check_hmac("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b", 20, "Hi There", 8,
               "b0344c61d8db38535ca8afceaf0bf12b"
               "881dc200c9833da726e9376c2e32cff7");
    check_hmac("4a656665", 4, "what do ya want for nothing?", 28,
               "5bdcc146bf60754e6a042426089575c7"
               "5a003f089d2739839dec58b964ec3843");
    check_hmac("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 20, dd, sizeof dd,
               "773ea91e36800e46854db8ebd09181a7"
               "2959098b3ef8c122d9635514ced565fe");
    check_hmac("0102030405060708090a0b0c0d0e0f10111213141516171819", 25, cd,
               sizeof cd,
               "82558a389a443c0ea4cc819899f2083a"
               "85f0faa3e578f8077a2e3ff46729665b");
}

/* SHA-256 gives the results of FIPS 180-4. */
static void
test_sha256(void)
{
    uint8_t sum[HASH_LEN];
    char hex[2 * HASH_LEN + 1];

    CHECK_OK(hash_sha256("abc", 3, sum, ERR_ABORT), ERR_ABORT);
    hex_encode(sum, sizeof sum, hex);
    CHECK_STR(hex, "ba7816bf8f01cfea414140de5dae2223"
                   "b00361a396177a9cb410ff61f20015ad");
    CHECK_OK(hash_sha256(NULL, 0, sum, ERR_ABORT), ERR_ABORT);
    hex_encode(sum, sizeof sum, hex);
    CHECK_STR(hex, "e3b0c44298fc1c149afbf4c8996fb924"
                   "27ae41e4649b934ca495991b7852b855");
}

/* Equal only when all bytes are. */
static void
test_equal(void)
{
    uint8_t a[HASH_LEN] = {1, 2, 3}, b[HASH_LEN] = {1, 2, 3};

    CHECK(hash_equal(a, b));
    for (size_t i = 0; i < sizeof a; i++) {
        b[i] ^= 0x80;
        CHECK(!hash_equal(a, b));
        b[i] ^= 0x80;
    }
}

/* What was compressed comes back, at every level that may be chosen. */
static void
test_round_trip(void)
{
    static uint8_t text[65536], out[65536 + 1024], back[65536];

    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (uint8_t)(i % 251 * (i % 7));
    for (int level = 1; level <= 19; level += 3) {
        CLEANUP(codec_freep) struct codec *c = NULL;
        size_t n = 0;

        CHECK(codec_bound(sizeof text) <= sizeof out);
        CHECK_OK(codec_new(level, &c, ERR_ABORT), ERR_ABORT);
        CHECK_OK(codec_compress(c, text, sizeof text, out, sizeof out, &n,
                                ERR_ABORT),
                 ERR_ABORT);
        CHECK(n > 0 && n < sizeof text);
        CHECK_OK(codec_decompress(c, out, n, back, sizeof back, ERR_ABORT),
                 ERR_ABORT);
        CHECK(memcmp(text, back, sizeof text) == 0);
    }
}

/* A level that zstd does not have is refused. */
static void
test_bad_level(void)
{
    struct codec *c = NULL;
    struct err err = ERR_INIT;

    CHECK(codec_new(99, &c, &err) < 0);
    CHECK(err.code == ERR_USAGE && c == NULL);
}

/* Another length than expected, longer or shorter, is damage, and nothing is
 * written behind the room that was given. */
static void
test_wrong_length(void)
{
    CLEANUP(codec_freep) struct codec *c = NULL;
    uint8_t text[1000], out[2000], back[1001 + 1];
    size_t n = 0;

    memset(text, 'x', sizeof text);
    CHECK_OK(codec_new(1, &c, ERR_ABORT), ERR_ABORT);
    CHECK_OK(
        codec_compress(c, text, sizeof text, out, sizeof out, &n, ERR_ABORT),
        ERR_ABORT);
    for (size_t want = 990; want <= 1001; want++) {
        struct err err = ERR_INIT;

        if (want == sizeof text)
            continue;
        memset(back, 0x55, sizeof back);
        CHECK(codec_decompress(c, out, n, back, want, &err) < 0);
        CHECK(err.code == ERR_CORRUPT);
        CHECK(back[want] == 0x55);
    }
}

/* Every truncation is noticed; no bit flip reads or writes out of bounds. */
static void
test_damage(void)
{
    CLEANUP(codec_freep) struct codec *c = NULL;
    uint8_t text[600], out[1000], back[600];
    size_t n = 0;

    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (uint8_t)(i / 3);
    CHECK_OK(codec_new(1, &c, ERR_ABORT), ERR_ABORT);
    CHECK_OK(
        codec_compress(c, text, sizeof text, out, sizeof out, &n, ERR_ABORT),
        ERR_ABORT);
    for (size_t cut = 0; cut < n; cut++) {
        struct err err = ERR_INIT;

        CHECK(codec_decompress(c, out, cut, back, sizeof back, &err) < 0);
        CHECK(err.code == ERR_CORRUPT);
    }
    for (size_t bit = 0; bit < 8 * n; bit++) {
        out[bit / 8] ^= (uint8_t)(1u << bit % 8);
        (void)codec_decompress(c, out, n, back, sizeof back, NULL);
        out[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

/* The length a piece claims is believed only up to a limit. */
static void
test_content_len(void)
{
    CLEANUP(codec_freep) struct codec *c = NULL;
    static uint8_t text[5000], out[6000];
    struct err err = ERR_INIT;
    size_t n = 0, len = 0;

    CHECK_OK(codec_new(1, &c, ERR_ABORT), ERR_ABORT);
    CHECK_OK(
        codec_compress(c, text, sizeof text, out, sizeof out, &n, ERR_ABORT),
        ERR_ABORT);
    CHECK_OK(codec_content_len(out, n, 5000, &len, ERR_ABORT), ERR_ABORT);
    CHECK(len == 5000);
    CHECK(codec_content_len(out, n, 4999, &len, &err) < 0);
    CHECK_STR(err.msg, "compressed text claims 5000 bytes, more than 4999");
    err_clear(&err);
    CHECK(codec_content_len("garbage!", 8, 5000, &len, &err) < 0);
    CHECK(err.code == ERR_CORRUPT);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_hmac_rfc4231), TEST(test_sha256),     TEST(test_equal),
        TEST(test_round_trip),   TEST(test_bad_level),  TEST(test_wrong_length),
        TEST(test_damage),       TEST(test_content_len)};

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
