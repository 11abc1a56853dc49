#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tap.h"

#include "buf.h"
#include "bytes.h"
#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "io.h"
#include "pool.h"
#include "rand.h"
#include "size.h"

static void
test_err_first_wins_and_wraps(void)
{
    struct err e = ERR_INIT;

    CHECK(err_set(&e, ERR_FORMAT, "no magic in %d bytes", 4) == -1);
    CHECK(err_set_errno(&e, EIO, "read") == -1);
    CHECK(e.code == ERR_FORMAT && e.sys == 0);
    CHECK(err_wrap(&e, "pack %06d", 17) == -1);
    CHECK_STR(e.msg, "pack 000017: no magic in 4 bytes");
    CHECK(err_set(NULL, ERR_FORMAT, "nobody listens") == -1);
}

static void
test_err_errno(void)
{
    struct err e = ERR_INIT;

    (void)err_set_errno(&e, ENOSPC, "write 'x'");
    CHECK(e.code == ERR_NO_SPACE && e.sys == ENOSPC);
    CHECK_STR(e.msg, "write 'x': No space left on device");
    err_clear(&e);
    CHECK(e.code == ERR_NONE && e.msg[0] == '\0');
}

static void
test_err_is_one_line_and_bounded(void)
{
    struct err e = ERR_INIT;
    char big[4 * ERR_MSG_MAX];

    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    (void)err_set(&e, ERR_REMOTE, "a\nb\r%s", big);
    CHECK(strchr(e.msg, '\n') == NULL && strchr(e.msg, '\r') == NULL);
    CHECK(strlen(e.msg) == ERR_MSG_MAX - 1);
    (void)err_wrap(&e, "%s", big);
    CHECK(strlen(e.msg) == ERR_MSG_MAX - 1);
}

static void
test_err_side_is_kept(void)
{
    struct err e = ERR_INIT, copy = ERR_INIT;

    (void)err_set(&e, ERR_REMOTE, "x");
    CHECK(err_side(&e, ERR_SIDE_REPO) == -1);
    (void)err_side(&e, ERR_SIDE_MACHINE);
    (void)err_wrap(&e, "y");
    (void)err_copy(&copy, &e);
    CHECK(copy.side == ERR_SIDE_REPO);
    CHECK_STR(copy.msg, "y: x");
}

static void
test_buf(void)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    struct err e = ERR_INIT;

    CHECK_OK(buf_append(&b, "hello ", 6, &e), &e);
    CHECK_OK(buf_printf(&b, "%s %d", &e, "world", 7), &e);
    CHECK_STR(buf_str(&b), "hello world 7");
    buf_consume(&b, 6);
    CHECK_STR(buf_str(&b), "world 7");
    CHECK(buf_reserve(&b, SIZE_MAX, &e) == -1 && e.sys == ENOMEM);
    CHECK(b.len == 7);
    buf_consume(&b, 100);
    CHECK(b.len == 0);
}

static void
test_hex(void)
{
    uint8_t in[3] = {0, 0x7f, 0xff}, out[3];
    char text[7];

    hex_encode(in, 3, text);
    CHECK_STR(text, "007fff");
    CHECK(hex_decode("007fFf", out, 3) && memcmp(in, out, 3) == 0);
    CHECK(!hex_decode("007ff", out, 3));
    CHECK(!hex_decode("007ffff", out, 3));
    CHECK(!hex_decode("00zzff", out, 3));
}

static void
test_size(void)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0},           {"4096", 4096},
                {"64K", 65536},     {"64k", 65536},
                {"64KiB", 65536},   {"64KB", 65536},
                {"1.5G", 3u << 29}, {"2T", UINT64_C(2) << 40},
                {"7B", 7}};
    static const char *const bad[] = {
        "", "K", "-1", "1X", "1KiBx", "1 K", "0x10g", "99999999P", "nan"};
    char text[SIZE_TEXT_MAX];
    uint64_t v;

    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        CHECK(size_parse(good[i].text, &v) == 0 && v == good[i].bytes);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        CHECK(size_parse(bad[i], &v) == -1);
    CHECK_STR(size_text(1023, text), "1023 B");
    CHECK_STR(size_text(65536, text), "64.0 KiB");
    CHECK_STR(size_text(UINT64_C(1) << 40, text), "1.0 TiB");
    CHECK_STR(size_text((1u << 20) - 1, text), "1.0 MiB");
}

static void
test_bytes(void)
{
    uint8_t b[8];

    put_le64(b, UINT64_C(0x0102030405060708));
    CHECK(b[0] == 8 && b[7] == 1);
    CHECK(get_le64(b) == UINT64_C(0x0102030405060708));
    CHECK(get_le32(b) == 0x05060708 && get_le16(b) == 0x0708);
    put_le32(b, 5);
    put_le16(b + 4, 6);
    CHECK(get_le32(b) == 5 && get_le16(b + 4) == 6);
}

static void
test_clock(void)
{
    struct deadline past = deadline_in(0), far = deadline_in(UINT64_C(1) << 40);
    char text[CLOCK_TEXT_MAX];

    CHECK(deadline_left(past) == 0);
    CHECK(deadline_left(far) == INT32_MAX);
    clock_text(INT64_C(1795197600) * 1000000000, text, sizeof text);
    CHECK_STR(text, "2026-11-20T18:00:00Z");
}

static atomic_uint sum;

static void
add(void *arg, unsigned worker)
{
    CHECK(worker < 3);
    (void)atomic_fetch_add(&sum, *(unsigned *)arg);
}

static void
test_pool_runs_every_job_once(void)
{
    struct err e = ERR_INIT;
    struct pool *p = NULL;
    unsigned v[1000];

    atomic_store(&sum, 0);
    CHECK_OK(pool_new(3, 2, &p, &e), &e);
    for (unsigned i = 0; i < 1000; i++) {
        v[i] = i;
        pool_submit(p, add, &v[i]);
        if (i == 500) {
            pool_drain(p);
            CHECK(atomic_load(&sum) == 500 * 501 / 2);
        }
    }
    pool_free(p);
    CHECK(atomic_load(&sum) == 999 * 1000 / 2);
    CHECK(pool_cpus() >= 1);
}

static void
test_connect_errors_name_the_path(void)
{
    struct err e = ERR_INIT;
    char path[200];

    CHECK(io_connect_unix("/nonexistent/q.sock", 100, &e) == -1);
    CHECK_STR(e.msg,
              "connect to '/nonexistent/q.sock': No such file or directory");
    err_clear(&e);
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    CHECK(io_connect_unix(path, 100, &e) == -1 && e.code == ERR_USAGE);
}

/* A Unix socket with a full backlog answers EAGAIN for ever: the deadline must
 * end the wait. */
static void
test_connect_has_a_deadline(void)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    char dir[] = "/tmp/tidemark-test-XXXXXX";
    int fds[64], n = 0;
    struct err e = ERR_INIT;
    CLEANUP_CLOSE int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(mkdtemp(dir) != NULL);
    (void)snprintf(sa.sun_path, sizeof sa.sun_path, "%s/s", dir);
    CHECK(bind(s, (struct sockaddr *)&sa, sizeof sa) == 0);
    CHECK(listen(s, 0) == 0);
    while (n < 64 && (fds[n] = io_connect_unix(sa.sun_path, 50, &e)) >= 0)
        n++;
    CHECK(n < 64 && e.code == ERR_TIMEOUT);
    while (n > 0)
        (void)close(fds[--n]);
    (void)unlink(sa.sun_path);
    (void)rmdir(dir);
}

static void
test_read_file_is_bounded(void)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    struct err e = ERR_INIT;

    CHECK(io_read_file("/dev/zero", 100000, &b, &e) == -1);
    CHECK_STR(e.msg, "'/dev/zero' is larger than 100000 bytes");
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_err_first_wins_and_wraps),
        TEST(test_err_errno),
        TEST(test_err_is_one_line_and_bounded),
        TEST(test_err_side_is_kept),
        TEST(test_buf),
        TEST(test_hex),
        TEST(test_size),
        TEST(test_bytes),
        TEST(test_clock),
        TEST(test_pool_runs_every_job_once),
        TEST(test_connect_errors_name_the_path),
        TEST(test_connect_has_a_deadline),
        TEST(test_read_file_is_bounded),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
