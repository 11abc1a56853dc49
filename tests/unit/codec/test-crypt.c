/* Ciphers and key derivation: known answers, and what is refused.
 *
 * The answers come from elsewhere: the GCM specification (McGrew and Viega, test
 * cases 13 to 16), RFC 5869, and for Argon2id the reference implementation's
 * command (argon2 -id, version 1.3). */
#include "tap.h"

#include "aead.h"
#include "bytes.h"
#include "cleanup.h"
#include "err.h"
#include "guarded.h"
#include "hash.h"
#include "kdf.h"
#include "rand.h"

DEFINE_CLEANUP(struct aead *, aead_free)
DEFINE_CLEANUP(struct hasher *, hasher_free)

struct gcm_case {
    const char *key, *nonce, *aad, *plain, *sealed;
};

#define ZERO32 \
    "0000000000000000000000000000000000000000000000000000000000000000"
#define FEFF "feffe9928665731c6d6a8f9467308308"
#define PLAIN60                                                        \
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72" \
    "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
#define CIPHER60                                                       \
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa" \
    "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"

static const struct gcm_case gcm[] = {
    {ZERO32, "000000000000000000000000", "", "",
     "530f8afbc74536b9a963b4f1c4cb738b"},
    {ZERO32, "000000000000000000000000", "", "00000000000000000000000000000000",
     "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"},
    {FEFF FEFF, "cafebabefacedbaddecaf888", "", PLAIN60 "1aafd255",
     CIPHER60 "898015adb094dac5d93471bdec1a502270e3cc6c"},
    {FEFF FEFF, "cafebabefacedbaddecaf888",
     "feedfacedeadbeeffeedfacedeadbeefabaddad2", PLAIN60,
     CIPHER60 "76fc6ece0f4e1768cddf8853bb2d551b"},
};

static size_t
unhex(const char *text, uint8_t *to)
{
    size_t len = strlen(text) / 2;

    if (len > 0)
        CHECK(hex_decode(text, to, len));
    return len;
}

static void
test_aead_known_answers(void)
{
    CLEANUP(aead_freep) struct aead *a = NULL;

    CHECK_OK(aead_new(&a, ERR_ABORT), ERR_ABORT);
    for (size_t i = 0; i < ARRAY_SIZE(gcm); i++) {
        uint8_t key[32], nonce[12], aad[32], plain[64], want[80], out[80];
        struct aead_params p = {key, nonce, aad, unhex(gcm[i].aad, aad)};
        size_t len = unhex(gcm[i].plain, plain);

        (void)unhex(gcm[i].key, key);
        (void)unhex(gcm[i].nonce, nonce);
        CHECK(unhex(gcm[i].sealed, want) == len + AEAD_TAG_LEN);
        CHECK_OK(aead_seal(a, &p, plain, len, out, ERR_ABORT), ERR_ABORT);
        CHECK(memcmp(out, want, len + AEAD_TAG_LEN) == 0);
        CHECK_OK(aead_open(a, &p, want, len + AEAD_TAG_LEN, out, ERR_ABORT),
                 ERR_ABORT);
        CHECK(memcmp(out, plain, len) == 0);
    }
}

/* In place, and then every bit of key, nonce, additional data and message
 * counts; what fails leaves zeroes. */
static void
test_aead_every_bit(void)
{
    static const uint8_t zero[40];
    CLEANUP(aead_freep) struct aead *a = NULL;
    uint8_t all[32 + 12 + 20 + 40 + 16] = {0}, out[40], *msg = all + 64;
    struct aead_params p = {all, all + 32, all + 44, 20};

    CHECK_OK(aead_new(&a, ERR_ABORT), ERR_ABORT);
    memset(msg, 'x', 40);
    CHECK_OK(aead_seal(a, &p, msg, 40, msg, ERR_ABORT), ERR_ABORT);
    CHECK_OK(aead_open(a, &p, msg, 56, out, ERR_ABORT), ERR_ABORT);
    CHECK(out[0] == 'x' && out[39] == 'x');
    for (size_t bit = 0; bit < 8 * sizeof all; bit++) {
        struct err err = ERR_INIT;

        all[bit / 8] ^= (uint8_t)(1u << bit % 8);
        memset(out, 'y', sizeof out);
        CHECK(aead_open(a, &p, msg, 56, out, &err) < 0);
        CHECK(err.code == ERR_CORRUPT);
        CHECK(memcmp(out, zero, sizeof out) == 0);
        all[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    CHECK(aead_open(a, &p, msg, 15, out, NULL) < 0);
}

/* RFC 5869, test case 1: the first block of HKDF-Expand is what keys are. */
static void
test_hkdf_known_answer(void)
{
    CLEANUP(hasher_freep) struct hasher *h = NULL;
    uint8_t prk[32], want[32], out[32];
    static const uint8_t info[] = {0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5,
                                   0xf6, 0xf7, 0xf8, 0xf9, 0x01};

    (void)unhex(
        "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
        prk);
    (void)unhex(
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf",
        want);
    CHECK_OK(hasher_new(prk, &h, ERR_ABORT), ERR_ABORT);
    CHECK_OK(hasher_id(h, info, sizeof info, out, ERR_ABORT), ERR_ABORT);
    CHECK(memcmp(out, want, sizeof want) == 0);
}

static void
test_kdf_known_answers(void)
{
    static const struct {
        const char *passphrase, *salt;
        struct kdf_cost cost;
        const char *key;
    } t[] = {
        {"correct horse",
         "saltsaltsaltsalt",
         {3, 1 << 20},
         "954a1c5d06fe554720f1a79e529d0268e978618c7e215ac49466cc8d5c4e0a80"},
        {"x",
         "0123456789abcdef",
         {1, 64 << 10},
         "9c4c6ce85e5a4b215d081156b033c4452bba2a7e7ca6f24dacf115cb56067c69"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        uint8_t want[32], out[32];

        (void)unhex(t[i].key, want);
        CHECK_OK(kdf_derive(t[i].passphrase, strlen(t[i].passphrase),
                            (const uint8_t *)t[i].salt, &t[i].cost, out,
                            ERR_ABORT),
                 ERR_ABORT);
        CHECK(memcmp(out, want, sizeof want) == 0);
    }
}

/* Who can write to the store can make us neither use all memory nor compute
 * for minutes. */
static void
test_kdf_bounds(void)
{
    static const struct kdf_cost bad[] = {
        {0, 1 << 20},
        {17, 1 << 20},
        {UINT64_MAX, 1 << 20},
        {3, 0},
        {3, 4096},
        {3, (UINT64_C(1) << 30) + 1024},
        {3, UINT64_MAX - 1023},
        {3, (1 << 20) + 1},
    };
    uint8_t salt[KDF_SALT_LEN] = {0}, out[32];

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct err err = ERR_INIT;

        CHECK(kdf_derive("x", 1, salt, &bad[i], out, &err) < 0);
        CHECK(err.code == ERR_FORMAT);
    }
}

/* Zeroed, aligned, of any size. */
static void
test_guarded(void)
{
    for (size_t len = 1; len < 9000; len = len * 3 + 1) {
        CLEANUP_GUARDED uint8_t *p = guarded_alloc(len);

        CHECK(p != NULL && (uintptr_t)p % 64 == 0);
        for (size_t i = 0; p != NULL && i < len; i++)
            CHECK(p[i] == 0);
        if (p != NULL)
            memset(p, 1, len);
    }
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_aead_known_answers), TEST(test_aead_every_bit),
        TEST(test_hkdf_known_answer),  TEST(test_kdf_known_answers),
        TEST(test_kdf_bounds),         TEST(test_guarded),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
