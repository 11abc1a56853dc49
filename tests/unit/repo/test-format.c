/* The format object and commit objects: what is accepted, what is refused and
 * with which words. */
#include "tap.h"

#include "buf.h"
#include "bytes.h"
#include "cleanup.h"
#include "err.h"
#include "format.h"
#include "hash.h"
#include "jv.h"
#include "rand.h"

DEFINE_CLEANUP(struct frame_ctx *, frame_ctx_free)
DEFINE_CLEANUP(struct hasher *, hasher_free)

static const struct repo_format sample = {
    .id = "00112233445566778899aabbccddeeff",
    .chunk_size = 65536,
    .secret = {1, 2, 3},
};

/* What was encoded comes back. */
static void
test_round_trip(void)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    struct repo_format f;

    CHECK_OK(format_encode(&sample, &b, ERR_ABORT), ERR_ABORT);
    CHECK_OK(format_decode(b.data, b.len, &f, ERR_ABORT), ERR_ABORT);
    CHECK_STR(f.id, sample.id);
    CHECK(f.chunk_size == 65536 && f.read_only[0] == '\0');
    CHECK(memcmp(f.secret, sample.secret, sizeof f.secret) == 0);
}

/* A format object around `json`, with a checksum that fits. */
static int
decode(const char *json, struct repo_format *f, struct err *err)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    char hex[2 * HASH_LEN + 1];
    uint8_t sum[HASH_LEN];

    CHECK_OK(buf_printf(&b, "%s\n", ERR_ABORT, json), ERR_ABORT);
    CHECK_OK(hash_sha256(b.data, b.len, sum, ERR_ABORT), ERR_ABORT);
    hex_encode(sum, sizeof sum, hex);
    CHECK_OK(buf_printf(&b, "sha256 %s\n", ERR_ABORT, hex), ERR_ABORT);
    return format_decode(b.data, b.len, f, err);
}

#define HEAD "{\"magic\":\"tidemark repository\",\"major\":"
#define LISTS ",\"compat\":[],\"ro_compat\":[],\"incompat\":[]"
#define SECRET                                                           \
    ",\"secret\":"                                                       \
    "\"00000000000000000000000000000000000000000000000000000000000000ff" \
    "\"}"
#define ID ",\"id\":\"00112233445566778899aabbccddeeff\""
#define ALGS ",\"hash\":\"hmac-sha256\",\"cipher\":\"none\""

struct text {
    const char *json;
    enum err_code code;
    const char *msg;
};

/* Each thing that can be wrong, with the words for it. */
static void
test_refused(void)
{
    static const struct text t[] = {
        {"{}", ERR_FORMAT, "this is no Tidemark repository"},
        {"{\"magic\":\"restic\",\"x\":\"tidemark repository\"}", ERR_FORMAT,
         "this is no Tidemark repository"},
        {HEAD "2}", ERR_UNSUPPORTED,
         "the repository has format 2, this program knows 1; use a newer "
         "tidemark"},
        {HEAD "\"1\"}", ERR_CORRUPT, "the format object has no 'major'"},
        {HEAD "1}", ERR_CORRUPT, "the format object has no lists of features"},
        {HEAD "1,\"compat\":[],\"ro_compat\":[],\"incompat\":[\"raid\"]}",
         ERR_UNSUPPORTED,
         "the repository uses the feature 'raid', which is not known; use a "
         "newer tidemark"},
        {HEAD "1" LISTS ",\"hash\":\"blake3\"}", ERR_UNSUPPORTED,
         "the repository uses hash 'blake3', which is not known; use a newer "
         "tidemark"},
        {HEAD "1" LISTS ",\"hash\":\"hmac-sha256\",\"cipher\":\"rot13\"" ID
              ",\"chunk_size\":65536}",
         ERR_UNSUPPORTED,
         "the repository uses cipher 'rot13', which is not known; use a newer "
         "tidemark"},
        {HEAD "1" LISTS
              ",\"hash\":\"hmac-sha256\",\"cipher\":\"aes-256-gcm\"" ID
              ",\"chunk_size\":65536,\"check\":\"00\"}",
         ERR_CORRUPT, "the format object has no valid check"},
        {HEAD "1" LISTS ALGS ",\"id\":\"xyz\"}", ERR_CORRUPT,
         "the format object has no valid id"},
        {HEAD "1" LISTS ALGS ID ",\"chunk_size\":65537}", ERR_CORRUPT,
         "the format object has no valid chunk_size: a power of two from "
         "16384 to 4194304"},
        {HEAD "1" LISTS ALGS ID ",\"chunk_size\":65536}", ERR_CORRUPT,
         "the format object has no valid secret"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        struct repo_format f;
        struct err err = ERR_INIT;

        CHECK(decode(t[i].json, &f, &err) < 0);
        CHECK(err.code == t[i].code);
        CHECK_STR(err.msg, t[i].msg);
    }
}

/* Unknown compatible features and members are nothing to stop at; unknown
 * read-only ones are noted. */
static void
test_future(void)
{
    struct repo_format f;

    CHECK_OK(decode(HEAD "1,\"compat\":[\"x\"],\"ro_compat\":[],\"incompat\":[]"
                         ",\"news\":{}" ALGS ID ",\"chunk_size\":65536" SECRET,
                    &f, ERR_ABORT),
             ERR_ABORT);
    CHECK_STR(f.read_only, "");
    CHECK_OK(decode(HEAD "1,\"compat\":[],\"ro_compat\":[\"raid\"],"
                         "\"incompat\":[]" ALGS ID
                         ",\"chunk_size\":65536" SECRET,
                    &f, ERR_ABORT),
             ERR_ABORT);
    CHECK_STR(f.read_only, "raid");
}

/* Features added later, as objects. */
static void
test_feature_objects(void)
{
    char ro[64] = "";
    struct err err = ERR_INIT;

    CHECK_OK(format_feature("feature/compat.x", ro, sizeof ro, ERR_ABORT),
             ERR_ABORT);
    CHECK_STR(ro, "");
    CHECK_OK(format_feature("feature/ro-compat.gc", ro, sizeof ro, ERR_ABORT),
             ERR_ABORT);
    CHECK_STR(ro, "gc");
    CHECK(format_feature("feature/incompat.raid", ro, sizeof ro, &err) < 0);
    CHECK_STR(err.msg, "the repository uses the feature 'incompat.raid', which "
                       "is not known; use a newer tidemark");
    CHECK(format_feature("feature/other", ro, sizeof ro, NULL) < 0);
}

/* Every bit of the object is covered, and every truncation is noticed. */
static void
test_every_bit(void)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    struct repo_format f;

    CHECK_OK(format_encode(&sample, &b, ERR_ABORT), ERR_ABORT);
    for (size_t bit = 0; bit < 8 * b.len; bit++) {
        b.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        /* Hexadecimal digits may change their case. */
        if (format_decode(b.data, b.len, &f, NULL) == 0)
            CHECK(bit % 8 == 5 &&
                  memcmp(f.secret, sample.secret, sizeof f.secret) == 0);
        b.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t cut = 0; cut < b.len; cut++)
        CHECK(format_decode(b.data, cut, &f, NULL) < 0);
}

/* The keys are HKDF-Expand of the secret, each with its own label: a fixed
 * point of the format. */
static void
test_keys(void)
{
    struct repo_format f = sample;
    CLEANUP(hasher_freep) struct hasher *h = NULL;
    uint8_t want[HASH_LEN];
    struct repo_keys k;

    CHECK_OK(format_keys(&f, NULL, &k, ERR_ABORT), ERR_ABORT);
    CHECK_OK(hasher_new(f.secret, &h, ERR_ABORT), ERR_ABORT);
    CHECK_OK(hasher_id(h, "tidemark map id\001", 16, want, ERR_ABORT),
             ERR_ABORT);
    CHECK(memcmp(want, k.id[FRAME_MAP], sizeof want) == 0);
    CHECK(memcmp(k.id[FRAME_DATA], k.id[FRAME_MAP], HASH_LEN) != 0);
    CHECK(memcmp(k.id[FRAME_DATA], k.id[FRAME_BLOB], HASH_LEN) != 0);
    CHECK(memcmp(k.commit.mac, k.id[FRAME_BLOB], HASH_LEN) != 0);
}

/* The ids that docs/format.md gives as examples. */
static void
test_known_ids(void)
{
    static const char *const want[] = {
        "51c5a93e22c7659b37e0e9f2c421e5a7c7c1ad54323437e07aeef8de36af7592",
        "7c5a3bc0df4e3d44db719f0f622d4404e5a8ce692f342f987978889335438ef8",
        "b286418dc3d0dd7662048907689c1c8a26af69b7215f9f82d48d477edb1b12fd",
    };
    CLEANUP(frame_ctx_freep) struct frame_ctx *c = NULL;
    struct repo_format f = sample;
    struct repo_keys k;

    for (unsigned i = 0; i < sizeof f.secret; i++)
        f.secret[i] = (uint8_t)i;
    CHECK_OK(format_keys(&f, NULL, &k, ERR_ABORT), ERR_ABORT);
    CHECK_OK(frame_ctx_new(&k, 1, &c, ERR_ABORT), ERR_ABORT);
    for (unsigned i = 0; i < ARRAY_SIZE(want); i++) {
        struct chunk_id id;
        char hex[65];

        CHECK_OK(frame_id(c, FRAME_DATA + i, "x", 1, &id, ERR_ABORT),
                 ERR_ABORT);
        hex_encode(id.b, sizeof id.b, hex);
        CHECK_STR(hex, want[i]);
    }
}

/* -- commit objects ---------------------------------------------------------*/

static const struct commit_keys plain = {.mac = {9, 8, 7}};
static const struct commit_keys sealed = {
    .mac = {9, 8, 7}, .seal = {6, 5, 4}, .repo = {3, 2, 1}, .sealed = true};

static void
make_commit(const struct commit_keys *key, struct buf *b)
{
    CLEANUP_JV struct jv *j =
        jv_build("{s:s, s:[i, i, i]}", "name", "web1", "list", 1, 2, 3);

    CHECK_OK(commit_encode(key, COMMIT_COMMIT, j, b, ERR_ABORT), ERR_ABORT);
}

/* The payload comes back under the right key only. */
static void
round_trip(const struct commit_keys *key)
{
    static const struct commit_keys other = {.mac = {1}};
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    CLEANUP_JV struct jv *j = NULL;
    enum commit_type type;
    struct err err = ERR_INIT;
    char text[REPO_KEY_MAX];

    make_commit(key, &b);
    CHECK_OK(commit_decode(key, b.data, b.len, &type, &j, ERR_ABORT),
             ERR_ABORT);
    CHECK(type == COMMIT_COMMIT);
    CHECK_STR(jv_get_str(j, "name"), "web1");
    CHECK(jv_size(jv_get(j, "list")) == 3);
    jv_free(TAKE_PTR(j));
    CHECK(commit_decode(&other, b.data, b.len, &type, &j, &err) < 0);
    CHECK_STR(err.msg,
              "commit object fails its authentication: it is damaged or was "
              "not made with this repository's key");
    CHECK(j == NULL);
    commit_key("00112233445566778899aabbccddeeff", 1, text);
    CHECK_STR(text, "commit/00112233445566778899aabbccddeeff.1");
}

static void
test_commit_round_trip(void)
{
    round_trip(&plain);
    round_trip(&sealed);
}

/* In an encrypted repository nothing of the payload can be read, each object is
 * sealed under a nonce of its own, and the key, the repository and the cipher
 * must be the right ones even where the HMAC is. */
static void
test_commit_sealed(void)
{
    struct commit_keys wrong[3] = {sealed, sealed, sealed};
    CLEANUP(buf_done) struct buf a = BUF_INIT;
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    enum commit_type type;
    struct jv *j = NULL;

    make_commit(&sealed, &a);
    make_commit(&sealed, &b);
    CHECK(memmem(a.data, a.len, "web1", 4) == NULL);
    CHECK(a.len == b.len && memcmp(a.data + 24, b.data + 24, 12) != 0);
    CHECK(memcmp(a.data + 36, b.data + 36, a.len - 36 - 32) != 0);
    wrong[0].seal[31] ^= 1;
    wrong[1].repo[0] ^= 1;
    wrong[2].sealed = false;
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct err err = ERR_INIT;

        CHECK(commit_decode(&wrong[i], a.data, a.len, &type, &j, &err) < 0);
        CHECK(err.code == (i == 2 ? ERR_UNSUPPORTED : ERR_CORRUPT));
    }
}

/* Every bit and every length is authenticated. */
static void
every_bit(const struct commit_keys *key)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    enum commit_type type;
    struct jv *j = NULL;

    make_commit(key, &b);
    for (size_t bit = 0; bit < 8 * b.len; bit++) {
        b.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK(commit_decode(key, b.data, b.len, &type, &j, NULL) < 0);
        b.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t cut = 0; cut < b.len; cut++)
        CHECK(commit_decode(key, b.data, cut, &type, &j, NULL) < 0);
}

static void
test_commit_every_bit(void)
{
    every_bit(&plain);
    every_bit(&sealed);
}

struct damage {
    size_t at;
    uint8_t value;
    enum err_code code;
    const char *msg;
};

/* Also what is authentic is checked. */
static void
test_commit_fields(void)
{
    static const struct damage d[] = {
        {0, 'X', ERR_CORRUPT, "this is no commit object"},
        {8, 2, ERR_UNSUPPORTED,
         "commit version 2 is not known; use a newer tidemark"},
        {12, 8, ERR_UNSUPPORTED,
         "commit type 8 is not known; use a newer tidemark"},
        {17, 9, ERR_CORRUPT, NULL},
        {20, 1, ERR_UNSUPPORTED,
         "commit object uses the cipher 1, which is not that of the "
         "repository; use a newer tidemark"},
        {24, 0, ERR_CORRUPT, NULL},
    };

    const struct commit_keys *key = &plain;

    for (size_t i = 0; i < ARRAY_SIZE(d); i++) {
        CLEANUP(buf_done) struct buf b = BUF_INIT;
        CLEANUP(hasher_freep) struct hasher *h = NULL;
        struct err err = ERR_INIT;
        enum commit_type type;
        struct jv *j = NULL;

        make_commit(key, &b);
        b.data[d[i].at] = d[i].value;
        CHECK_OK(hasher_new(key->mac, &h, ERR_ABORT), ERR_ABORT);
        CHECK_OK(hasher_id(h, b.data, b.len - HASH_LEN,
                           b.data + b.len - HASH_LEN, ERR_ABORT),
                 ERR_ABORT);
        CHECK(commit_decode(key, b.data, b.len, &type, &j, &err) < 0);
        CHECK(err.code == d[i].code);
        if (d[i].msg != NULL)
            CHECK_STR(err.msg, d[i].msg);
    }
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_round_trip),       TEST(test_refused),
        TEST(test_future),           TEST(test_feature_objects),
        TEST(test_every_bit),        TEST(test_keys),
        TEST(test_known_ids),        TEST(test_commit_round_trip),
        TEST(test_commit_every_bit), TEST(test_commit_sealed),
        TEST(test_commit_fields),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
