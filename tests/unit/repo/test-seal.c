/* Sealed frames: known answers, nothing can be exchanged, no (key, nonce) twice. */
#include "tap.h"

#include <pthread.h>
#include <xxhash.h>

#include "bytes.h"
#include "cleanup.h"
#include "err.h"
#include "format.h"
#include "frame.h"
#include "rand.h"

DEFINE_CLEANUP(struct frame_ctx *, frame_ctx_free)

static struct repo_keys keys; /* by make_keys(), then constant */

static void
make_keys(void)
{
    struct repo_format f = {.id = "00112233445566778899aabbccddeeff",
                            .encrypted = true};
    uint8_t master[32];

    for (size_t i = 0; i < sizeof master; i++)
        master[i] = (uint8_t)i;
    CHECK_OK(format_keys(&f, master, &keys, ERR_ABORT), ERR_ABORT);
}

static struct frame_ctx *
new_ctx(int level)
{
    struct frame_ctx *c = NULL;

    CHECK_OK(frame_ctx_new(&keys, level, &c, ERR_ABORT), ERR_ABORT);
    return c;
}

static size_t
make(struct frame_ctx *c, enum frame_kind kind, const void *data, size_t len,
     uint8_t *to, struct chunk_id *ret_id)
{
    const uint8_t *frame = NULL;
    size_t n = 0;

    CHECK_OK(frame_id(c, kind, data, len, ret_id, ERR_ABORT), ERR_ABORT);
    CHECK_OK(frame_encode(c, kind, ret_id, data, len, &frame, &n, ERR_ABORT),
             ERR_ABORT);
    memcpy(to, frame, n);
    return n;
}

static int
counting_nonce(void *arg, uint8_t nonce[FRAME_NONCE_LEN], struct err *err)
{
    (void)arg;
    (void)err;
    for (unsigned i = 0; i < FRAME_NONCE_LEN; i++)
        nonce[i] = (uint8_t)i;
    return 0;
}

static void
expect_hex(const uint8_t *data, const char *hex)
{
    CLEANUP_FREE char *text = malloc(strlen(hex) + 1);

    hex_encode(data, strlen(hex) / 2, text);
    CHECK_STR(text, hex);
}

/* One whole frame.  Keys by Python's hmac, AES-256-GCM by tests/lib/aesgcm.py,
 * which knows nothing of the libraries that are used here. */
static void
test_known_frame(void)
{
    CLEANUP(frame_ctx_freep) struct frame_ctx *c = new_ctx(0);
    uint8_t data[100], f[256], back[100];
    struct chunk_id id;
    size_t n;

    expect_hex(
        keys.seal[FRAME_DATA],
        "ea8535093d9149511b884a2d7763ec62f455cb745aa43a4d2d8cb458d489a381");
    expect_hex(
        keys.seal[FRAME_MAP],
        "bfc170f599d5715fc26b44a0cd70b5c1f0c5c59f7ee8f74de0b917b1b7038148");
    expect_hex(
        keys.seal[FRAME_BLOB],
        "b1392592230fad79579b3b2aeba2b3b6371eda68f8c3fec83409a5143d8ef758");
    expect_hex(
        keys.commit.seal,
        "ad991e21fb4d1a45e9a693277355cc476ef53a58ef10917270b86234ce33c3b0");
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)((i * 7 + 3) % 251);
    frame_ctx_set_nonces(c, counting_nonce, NULL);
    n = make(c, FRAME_DATA, data, sizeof data, f, &id);
    CHECK(n == FRAME_HEAD_LEN + sizeof data + FRAME_TAG_LEN);
    expect_hex(f, "544d465201010000" /* magic, version, kind, codec, flags */
                  "6400000074000000" /* lengths */
                  "c251fd62856b3dc73270b9670111bf74"
                  "8b171c4f5f24c5c5311f77fbae7d9d26"
                  "000102030405060708090a0b"
                  "01000000");
    expect_hex(f + FRAME_HEAD_LEN,
               "6f64bb421600650e5fea305b052a329af0676d123a92c27fca03dcb66d410a"
               "433b9023ec8b6e16aaf306f263d53eafcf29975d955b4557b7dd251c8ae21d"
               "1c45bcf965824d9f05176df5077254ccda8460a474a5890f12794201d38f78"
               "cabb3b79f9000e9b6b37dc9831c3304f226eb05b27574c");
    CHECK_OK(frame_decode(c, f, n, &id, sizeof data, back, ERR_ABORT),
             ERR_ABORT);
    CHECK(memcmp(data, back, sizeof data) == 0);
}

/* Text and noise, every kind, smallest to largest; the same chunk twice is two
 * different frames. */
static void
test_round_trip(void)
{
    static const size_t lens[] = {1, 15, 16, 17, 2048, 65536, 4u << 20};
    static uint8_t data[4u << 20], back[4u << 20], f[(4u << 20) + 1024],
        g[(4u << 20) + 1024];
    CLEANUP(frame_ctx_freep) struct frame_ctx *c = new_ctx(1);

    for (int random = 0; random < 2; random++) {
        memset(data, 'x', sizeof data);
        if (random)
            rand_bytes(data, sizeof data);
        for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
            enum frame_kind kind = FRAME_DATA + i % 3;
            struct frame_head h;
            struct chunk_id id;
            size_t n = make(c, kind, data, lens[i], f, &id);

            CHECK_OK(frame_parse(f, n, &h, ERR_ABORT), ERR_ABORT);
            CHECK(h.slot == FRAME_SEALED && h.raw_len == lens[i]);
            CHECK(h.stored_len <= lens[i] + FRAME_TAG_LEN);
            if (lens[i] >= 2048)
                CHECK(h.codec == (random ? FRAME_RAW : FRAME_ZSTD));
            memset(back, 0, lens[i]);
            CHECK_OK(
                frame_decode(c, f, n, &id, (uint32_t)lens[i], back, ERR_ABORT),
                ERR_ABORT);
            CHECK(memcmp(data, back, lens[i]) == 0);
            CHECK(make(c, kind, data, lens[i], g, &id) == n);
            CHECK(memcmp(f + 48, g + 48, 12) != 0);
            if (lens[i] > 16)
                CHECK(memcmp(f + 72, g + 72, lens[i] > 64 ? 32 : 8) != 0);
        }
    }
}

static void
resum(uint8_t *f)
{
    put_le64(f + 64, XXH64(f, 64, 0));
}

/* Every bit, also where the header's checksum is made to fit: an error, never
 * bytes. */
static void
test_every_bit(void)
{
    uint8_t data[300], back[300], f[512];
    struct chunk_id id;

    for (int level = 0; level < 2; level++) {
        CLEANUP(frame_ctx_freep) struct frame_ctx *c = new_ctx(level);
        size_t n;

        memset(data, 'x', sizeof data);
        data[7] = 'y';
        n = make(c, FRAME_DATA, data, sizeof data, f, &id);
        for (size_t bit = 0; bit < 8 * n; bit++) {
            uint8_t copy[512];
            struct err err = ERR_INIT;

            memcpy(copy, f, n);
            copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
            CHECK(frame_decode(c, copy, n, &id, sizeof data, back, NULL) < 0);
            if (bit / 8 >= 64)
                continue;
            resum(copy);
            CHECK(frame_decode(c, copy, n, NULL, sizeof data, back, &err) < 0);
            CHECK(err.code == ERR_CORRUPT || err.code == ERR_UNSUPPORTED);
        }
        for (size_t cut = 0; cut < n; cut++)
            CHECK(frame_decode(c, f, cut, &id, sizeof data, back, NULL) < 0);
    }
}

static void
refused(struct frame_ctx *c, const uint8_t *f, size_t n,
        const struct chunk_id *want, const char *msg)
{
    struct err err = ERR_INIT;
    uint8_t back[64];

    CHECK(frame_decode(c, f, n, want, 64, back, &err) < 0);
    CHECK(err.code == ERR_CORRUPT && strstr(err.msg, msg) != NULL);
    if (strstr(err.msg, msg) == NULL)
        printf("# %s\n", err.msg);
}

/* Payloads of two frames, whole frames, kinds, repositories, and plain frames
 * in the place of sealed ones. */
static void
test_exchanged(void)
{
    static const char foreign[] = "frame fails its authentication: it is "
                                  "damaged or was exchanged";
    CLEANUP(frame_ctx_freep) struct frame_ctx *c = new_ctx(0);
    CLEANUP(frame_ctx_freep) struct frame_ctx *other = NULL;
    CLEANUP(frame_ctx_freep) struct frame_ctx *plain = NULL;
    struct repo_keys k = keys;
    uint8_t a[64], b[64], fa[256], fb[256], mixed[256];
    struct chunk_id ia, ib;
    size_t n;

    memset(a, 'a', sizeof a);
    memset(b, 'b', sizeof b);
    n = make(c, FRAME_DATA, a, sizeof a, fa, &ia);
    CHECK(make(c, FRAME_DATA, b, sizeof b, fb, &ib) == n);
    memcpy(mixed, fa, n);
    memcpy(mixed + FRAME_HEAD_LEN, fb + FRAME_HEAD_LEN, n - FRAME_HEAD_LEN);
    refused(c, mixed, n, &ia, foreign);
    memcpy(mixed + 48, fb + 48, 12); /* with its nonce */
    resum(mixed);
    refused(c, mixed, n, &ia, foreign);
    refused(c, fb, n, &ia, "frame holds chunk");
    k.repo[3] ^= 1;
    CHECK_OK(frame_ctx_new(&k, 0, &other, ERR_ABORT), ERR_ABORT);
    refused(other, fa, n, &ia, foreign);
    k.sealed = false;
    CHECK_OK(frame_ctx_new(&k, 0, &plain, ERR_ABORT), ERR_ABORT);
    refused(plain, fa, n, &ia, "frame is encrypted, its repository is not");
    CHECK(make(plain, FRAME_DATA, a, sizeof a, fb, &ib) == n - FRAME_TAG_LEN);
    CHECK(chunk_id_equal(&ia, &ib));
    refused(c, fb, n - FRAME_TAG_LEN, &ia,
            "frame is not encrypted, its repository is encrypted");
}

/* -- nonces -----------------------------------------------------------------*/

#define THREADS 2
#define FRAMES (1u << 19) /* of each thread */

struct nonce {
    uint8_t b[FRAME_NONCE_LEN];
};

static struct nonce *nonces;

/* The same chunk again and again, at other levels: as when a collector or a
 * second backup stores it again.  All have one key. */
static void *
seal_many(void *arg)
{
    struct nonce *to = arg;
    struct frame_ctx *c[3] = {new_ctx(0), new_ctx(1), new_ctx(3)};
    static const uint8_t data[96] = "the same chunk";
    uint8_t f[256];
    struct chunk_id id;

    for (unsigned i = 0; i < FRAMES; i++) {
        const uint8_t *frame = f;
        size_t n = 0;

        if (i == 0)
            (void)make(c[0], FRAME_DATA, data, sizeof data, f, &id);
        else if (frame_encode(c[i % 3], FRAME_DATA, &id, data, sizeof data,
                              &frame, &n, ERR_ABORT) < 0)
            abort();
        memcpy(to[i].b, frame + 48, FRAME_NONCE_LEN);
    }
    for (unsigned i = 0; i < 3; i++)
        frame_ctx_free(c[i]);
    return NULL;
}

static int
compare(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct nonce));
}

static void
test_nonces_differ(void)
{
    pthread_t t[THREADS];
    size_t equal = 0;

    nonces = calloc(THREADS * FRAMES, sizeof *nonces);
    for (unsigned i = 0; i < THREADS; i++)
        (void)pthread_create(&t[i], NULL, seal_many, nonces + i * FRAMES);
    for (unsigned i = 0; i < THREADS; i++)
        (void)pthread_join(t[i], NULL);
    qsort(nonces, THREADS * FRAMES, sizeof *nonces, compare);
    for (size_t i = 1; i < THREADS * FRAMES; i++)
        equal += compare(&nonces[i - 1], &nonces[i]) == 0;
    CHECK(equal == 0);
    free(nonces);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_known_frame), TEST(test_round_trip),    TEST(test_every_bit),
        TEST(test_exchanged),   TEST(test_nonces_differ),
    };

    make_keys();
    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
