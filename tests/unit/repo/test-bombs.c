/* Small objects that ask for a lot: each is refused, or read, within a memory
 * cap.  What a parser takes is measured in a process of its own. */
#include "tap.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#include "buf.h"
#include "bytes.h"
#include "cleanup.h"
#include "compress.h"
#include "err.h"
#include "format.h"
#include "frame.h"
#include "hash.h"
#include "index.h"
#include "internal.h"
#include "jv.h"
#include "pack.h"
#include "point.h"

#define CAP_MB 768
#define TEXT_MAX COMMIT_JSON_MAX

static const struct commit_keys keys;

/* -- texts ------------------------------------------------------------------*/

/* `head`, `unit` as often as it fits into `len`, `tail`. */
static char *
repeat(const char *head, const char *unit, const char *tail, size_t len)
{
    char *text = malloc(len + 1), *p = text;
    size_t n = strlen(unit), end = len - strlen(tail);

    if (text == NULL)
        abort();
    p = stpcpy(p, head);
    while ((size_t)(p - text) + n <= end)
        p = stpcpy(p, unit);
    (void)stpcpy(p, tail);
    return text;
}

/* A commit object around any text, with the right MAC. */
static void
wrap(const char *text, struct buf *ret)
{
    size_t len = strlen(text), cap = codec_bound(len), n;
    struct codec *c = NULL;
    struct hasher *h = NULL;
    uint8_t head[24] = "TMCOMMIT", mac[HASH_LEN];

    (void)codec_new(1, &c, ERR_ABORT);
    (void)buf_append(ret, head, sizeof head, ERR_ABORT);
    (void)buf_reserve(ret, cap, ERR_ABORT);
    (void)codec_compress(c, text, len, ret->data + ret->len, cap, &n,
                         ERR_ABORT);
    ret->len += n;
    put_le32(ret->data + 8, 1);
    put_le32(ret->data + 12, COMMIT_COMMIT);
    put_le32(ret->data + 16, (uint32_t)n);
    (void)hasher_new(keys.mac, &h, ERR_ABORT);
    (void)hasher_id(h, ret->data, ret->len, mac, ERR_ABORT);
    (void)buf_append(ret, mac, sizeof mac, ERR_ABORT);
    hasher_free(h);
    codec_free(c);
}

/* -- what is measured -------------------------------------------------------*/

/* 0: it was read, -1: refused; *ret_kb: memory that was added for it. */
typedef int (*parse_fn)(const void *data, size_t len);

static long
peak_kb(void)
{
    struct rusage u;

    (void)getrusage(RUSAGE_SELF, &u);
    return u.ru_maxrss;
}

/* In a child, because a peak never goes down; the input is mapped from a file,
 * so that making it does not count. */
static int
measure(parse_fn fn, const void *data, size_t len, long *ret_mb)
{
    int fds[2], status = -1;
    long result[2] = {0, 0};
    pid_t pid;

    if (pipe(fds) != 0)
        abort();
    (void)fflush(stdout);
    pid = fork();
    if (pid == 0) {
        long before = peak_kb();

        (void)alarm(120);
        result[0] = fn(data, len);
        result[1] = (peak_kb() - before) / 1024;
        _exit(write(fds[1], result, sizeof result) != sizeof result);
    }
    (void)close(fds[1]);
    CHECK(read(fds[0], result, sizeof result) == sizeof result);
    (void)close(fds[0]);
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    *ret_mb = result[1];
    return (int)result[0];
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MEASURES false
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define MEASURES false
#endif
#endif
#ifndef MEASURES
#define MEASURES true
#endif

static void
check(const char *name, parse_fn fn, const void *data, size_t len, int want)
{
    long mb = 0;
    int r = measure(fn, data, len, &mb);

    printf("# %s: %zu bytes, %s with %ld MiB\n", name, len,
           r < 0 ? "refused" : "read", mb);
    CHECK(r == want);
    if (MEASURES)
        CHECK(mb <= CAP_MB);
}

/* -- commit objects and records ---------------------------------------------*/

static int
parse_commit(const void *data, size_t len)
{
    enum commit_type type;
    struct jv *j = NULL;
    int r = commit_decode(&keys, data, len, &type, &j, NULL);

    jv_free(j);
    return r;
}

static void
test_commit_objects(void)
{
    static const struct {
        const char *name, *head, *unit, *tail;
        size_t len;
        int want;
    } bombs[] = {
        {"spaces", "{", " ", "}", TEXT_MAX, 0},
        {"more than the most", "{", " ", "}", TEXT_MAX + 1, -1},
        {"empty lists", "{\"a\":[[]", ",[]", "]}", TEXT_MAX, -1},
        {"empty objects", "{\"a\":[{}", ",{}", "]}", TEXT_MAX, -1},
        {"lists, as many as may be", "{\"a\":[[]", ",[]", "]}", 6291400, 0},
        {"objects, as many as may be", "{\"a\":[{}", ",{}", "]}", 6291400, 0},
        {"numbers", "{\"a\":[1", ",1", "]}", TEXT_MAX, -1},
        {"numbers, as many as may be", "{\"a\":[1", ",1", "]}", 16777200, 0},
        {"one string", "{\"a\":\"", "a", "\"}", TEXT_MAX, -1},
        {"long strings", "{\"a\":[\"",
         "0123456789012345678901234567890123456789"
         "0123456789012345678901234567890123456789\",\"",
         "\"]}", 100u << 20, 0},
        {"escapes", "{\"a\":\"", "\\u0061", "\"}", TEXT_MAX, -1},
        {"recursion", "{\"a\":", "[", "", 100000, -1},
        {"a long number", "{\"a\":", "9", "}", 1u << 20, -1},
        {"a large exponent", "{\"a\":1e", "9", "}", 1000, -1},
        {"one name", "{\"a\":1", ",\"a\":1", "}", 1u << 20, -1},
    };

    for (size_t i = 0; i < ARRAY_SIZE(bombs); i++) {
        CLEANUP_FREE char *text =
            repeat(bombs[i].head, bombs[i].unit, bombs[i].tail, bombs[i].len);
        CLEANUP(buf_done) struct buf b = BUF_INIT;

        wrap(text, &b);
        check(bombs[i].name, parse_commit, b.data, b.len, bombs[i].want);
    }
}

/* -- sets of packs ----------------------------------------------------------*/

static int
parse_set(const void *data, size_t len)
{
    struct pack_set *s = pack_set_new();
    struct jv *j = NULL;
    int r = jv_parse(data, len, JV_DEPTH_MAX, &j, NULL);

    if (r == 0)
        r = pack_set_from_json(s, j, NULL);
    pack_set_free(s);
    jv_free(j);
    return r;
}

#define SID "00112233445566778899aabbccddeeff"

static void
test_sets_of_packs(void)
{
    static const char all[] = "{\"" SID "\":{\"data\":[[0,4294967295]]}}";
    static const char most[] = "{\"" SID "\":{\"data\":[[1,16777215]]}}";
    static const char twice[] = "{\"" SID "\":{\"data\":[[1,16777215]],"
                                "\"meta\":[[1,16777215]]}}";

    check("all packs", parse_set, all, sizeof all - 1, -1);
    check("as many as may be", parse_set, most, sizeof most - 1, 0);
    check("and once more", parse_set, twice, sizeof twice - 1, -1);
}

/* -- sessions and points ----------------------------------------------------*/

static int
parse_session(const void *data, size_t len)
{
    struct session_info s;
    int r = session_info_parse(SID, data, len, &s, NULL);

    if (r == 0)
        id_list_done(&s.pins);
    return r;
}

static void
test_sessions(void)
{
    CLEANUP_FREE char *pins =
        repeat("{\"what\":\"pin\",\"points\":[\"" SID "\"", ",\"" SID "\"",
               "]}", 4u << 20);
    CLEANUP_FREE char *deep = repeat("{\"a\":", "[", "", 1u << 20);

    check("pins", parse_session, pins, strlen(pins), 0);
    check("recursion", parse_session, deep, strlen(deep), 0); /* a writer */
}

static int
parse_point(const void *data, size_t len)
{
    struct jv *j = NULL;
    struct point *p = NULL;
    int r = jv_parse(data, len, JV_DEPTH_MAX, &j, NULL);

    if (r == 0)
        r = point_from_json(j, &p, NULL, NULL, NULL);
    point_free(p);
    jv_free(j);
    return r;
}

static void
test_points(void)
{
    CLEANUP_FREE char *disks =
        repeat("{\"disks\":[{}", ",{\"name\":\"a\"}", "]}", 16u << 20);
    CLEANUP_FREE char *tags = repeat("{\"id\":\"" SID "\",\"tags\":[\"a\"",
                                     ",\"a\"", "],\"disks\":[]}", 4u << 20);

    check("disks", parse_point, disks, strlen(disks), -1);
    check("tags", parse_point, tags, strlen(tags), -1);
}

/* -- binary objects ---------------------------------------------------------*/

static int
parse_index(const void *data, size_t len)
{
    struct segment s;

    return segment_open(data, len, &s, NULL);
}

static int
parse_pack(const void *data, size_t len)
{
    struct pack_view v;

    return pack_parse(data, len, &v, NULL);
}

/* Counts that no object of this size can have. */
static void
test_counts(void)
{
    uint8_t seg[2048] = "TMINDEX", pack[128] = "TMPACK";

    put_le32(seg + 8, 1);
    put_le32(seg + 12, 16);
    put_le32(seg + 36, 1u << 24);
    put_le32(seg + 40, 1u << 28);
    put_le64(seg + 56, XXH64(seg, 56, 0));
    check("records", parse_index, seg, sizeof seg, -1);
    put_le32(seg + 36, UINT32_MAX);
    put_le32(seg + 40, UINT32_MAX);
    put_le64(seg + 56, XXH64(seg, 56, 0));
    check("more records", parse_index, seg, sizeof seg, -1);
    put_le32(pack + 8, 1);
    put_le32(pack + 12, 1);
    put_le64(pack + 56, XXH64(pack, 56, 0));
    memcpy(pack + 64, "TMPACKE", 8);
    put_le32(pack + 64 + 8, 1);
    put_le32(pack + 64 + 12, UINT32_MAX);
    put_le64(pack + 64 + 16, 64);
    put_le64(pack + 120, XXH64(pack + 64, 56, 0));
    check("entries", parse_pack, pack, sizeof pack, -1);
    put_le64(pack + 64 + 16, UINT64_MAX - 47);
    put_le32(pack + 64 + 12, 1);
    put_le64(pack + 120, XXH64(pack + 64, 56, 0));
    check("a table before the begin", parse_pack, pack, sizeof pack, -1);
}

#define RAW 65536u

/* The reader asks for RAW bytes; the frame has what it was made with. */
static int
parse_frame(const void *data, size_t len)
{
    static const struct repo_keys frame_keys;
    static uint8_t out[RAW];
    struct frame_ctx *c = NULL;
    int r;

    (void)frame_ctx_new(&frame_keys, 1, &c, ERR_ABORT);
    r = frame_decode(c, data, len, NULL, RAW, out, NULL);
    frame_ctx_free(c);
    return r;
}

/* A payload that becomes 256 MiB, in a frame that says RAW. */
static void
test_frame(void)
{
    CLEANUP_FREE char *text = repeat("", "a", "", 256u << 20);
    size_t cap = codec_bound(256u << 20), n;
    CLEANUP_FREE uint8_t *frame = calloc(1, FRAME_HEAD_LEN + cap);
    struct codec *c = NULL;

    if (frame == NULL)
        abort();
    (void)codec_new(1, &c, ERR_ABORT);
    (void)codec_compress(c, text, 256u << 20, frame + FRAME_HEAD_LEN, cap, &n,
                         ERR_ABORT);
    codec_free(c);
    CHECK(n < RAW);
    memcpy(frame, "TMFR", 4);
    frame[4] = 1;
    frame[5] = FRAME_DATA;
    frame[6] = 1;
    put_le32(frame + 8, RAW);
    put_le32(frame + 12, (uint32_t)n);
    put_le64(frame + 64, XXH64(frame, 64, 0));
    check("a frame of 256 MiB", parse_frame, frame, FRAME_HEAD_LEN + n, -1);
}

/* The parser itself: what is as large as it may be fits into the cap, too. */
static int
parse_text(const void *data, size_t len)
{
    struct jv *j = NULL;
    int r = jv_parse(data, len, JV_DEPTH_MAX, &j, NULL);

    jv_free(j);
    return r;
}

static void
test_texts(void)
{
    CLEANUP_FREE char *deep = repeat("", "[", "", 1u << 20);
    CLEANUP_FREE char *open = repeat("[\"", "a", "", 32u << 20);
    CLEANUP_FREE char *slash = repeat("[\"a", "\\", "", 1u << 20);

    check("recursion", parse_text, deep, strlen(deep), -1);
    check("a string without end", parse_text, open, strlen(open), -1);
    check("an escape without end", parse_text, slash, strlen(slash), -1);
    check("nothing", parse_text, "", 0, -1);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_commit_objects), TEST(test_sets_of_packs),
        TEST(test_sessions),       TEST(test_points),
        TEST(test_counts),         TEST(test_frame),
        TEST(test_texts),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
