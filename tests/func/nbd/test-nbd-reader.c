/* The reader against nbdkit. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"
#include "cleanup.h"
#include "reader-int.h"
#include "reads.h"

/* What nbdkit's pattern plugin has at a byte: offsets, big-endian. */
static uint8_t
pattern_byte(uint64_t off)
{
    return (uint8_t)(((off & ~UINT64_C(7)) >> (8 * (7 - off % 8))) & 0xff);
}

static bool
is_pattern(const uint8_t *p, uint64_t off, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (p[i] != pattern_byte(off + i)) {
            printf("# differs at %" PRIu64 "\n", off + i);
            return false;
        }
    return true;
}

/* Read the whole disk in pieces of odd sizes, many at once. */
static void
read_all(struct nbd_reader *r, size_t step)
{
    uint64_t size = nbd_reader_size(r);
    size_t n = (size_t)(size / step) + 1;
    CLEANUP_FREE struct one_read *reads = calloc(n, sizeof *reads);
    struct err err = ERR_INIT;
    size_t i = 0;

    for (uint64_t off = 0; off < size; off += step, i++) {
        size_t len = size - off < step ? (size_t)(size - off) : step;

        CHECK_OK(start_read(r, &reads[i], off, len, &err), &err);
    }
    CHECK_OK(nbd_reader_wait(r, 0, &err), &err);
    while (i-- > 0) {
        CHECK(reads[i].n_done == 1);
        CHECK(reads[i].error == 0);
        CHECK(is_pattern(reads[i].buf, reads[i].off, reads[i].len));
        free(reads[i].buf);
    }
}

static void
test_many_connections_read_every_byte(void)
{
    struct server s = {0};
    struct nbd_reader *r;

    server_nbdkit(&s, "pattern 10000001");
    r = open_reader(&(struct nbd_reader_opts){.socket = s.sock,
                                              .export_name = "",
                                              .connections = 4,
                                              .in_flight = 16,
                                              .timeout_ms = PATIENCE_MS});
    CHECK(r->cs.n == 4);
    CHECK(nbd_reader_size(r) == 10000001);
    read_all(r, 100003);
    read_all(r, 262144);
    read_all(r, 10000001);
    nbd_reader_close(r);
    server_stop(&s);
}

/* Opening more connections than a server can keep coherent would be wrong. */
static void
test_no_multi_conn_means_one_connection(void)
{
    struct server s = {0};
    struct nbd_reader_opts o;
    struct nbd_reader *r;

    server_nbdkit(&s, "--filter=multi-conn pattern 1M multi-conn-mode=disable");
    o = opts_for(&s);
    r = open_reader(&o);
    CHECK(r->cs.n == 1);
    read_all(r, 65536);
    nbd_reader_close(r);
    server_stop(&s);
}

static void
test_odd_sizes(void)
{
    const unsigned sizes[] = {0, 1, 511, 513, 65537};

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        CLEANUP(nbd_extents_done) struct nbd_extents e = {0};
        struct server s = {0};
        struct nbd_reader_opts o;
        struct nbd_reader *r;
        char words[64];

        (void)snprintf(words, sizeof words, "pattern %u", sizes[i]);
        server_nbdkit(&s, words);
        o = opts_for(&s);
        r = open_reader(&o);
        CHECK(nbd_reader_size(r) == sizes[i]);
        CHECK_OK(nbd_reader_zero(r, 0, sizes[i], &e, ERR_ABORT), ERR_ABORT);
        CHECK(e.n == (sizes[i] > 0 ? 1 : 0));
        CHECK(e.n == 0 || e.v[0].len == sizes[i]);
        read_all(r, 512);
        nbd_reader_close(r);
        server_stop(&s);
    }
}

/* The filter refuses whatever is not whole blocks of at most 64 KiB, so that
 * only a reader that rounds outward and splits gets an answer. */
static void
test_block_sizes_of_the_server_are_kept(void)
{
    struct server s = {0};
    struct nbd_reader_opts o;
    struct nbd_reader *r;

    server_nbdkit(&s, "--filter=blocksize-policy pattern 1M"
                      " blocksize-minimum=4096 blocksize-preferred=4096"
                      " blocksize-maximum=64K blocksize-error-policy=error");
    o = opts_for(&s);
    r = open_reader(&o);
    read_all(r, 1000);
    read_all(r, 100001);
    read_all(r, 1 << 20);
    nbd_reader_close(r);
    server_stop(&s);
}

/* Blocks of 512 bytes on a disk that does not end with one. */
static void
test_odd_end_of_a_disk_with_blocks(void)
{
    CLEANUP(nbd_extents_done) struct nbd_extents e = {0};
    struct server s = {0};
    struct nbd_reader_opts o;
    struct nbd_reader *r;

    server_nbdkit(&s, "--filter=blocksize-policy pattern 65637"
                      " blocksize-minimum=512 blocksize-preferred=4096"
                      " blocksize-maximum=64K");
    o = opts_for(&s);
    r = open_reader(&o);
    read_all(r, 700);
    read_all(r, 65637);
    CHECK_OK(nbd_reader_zero(r, 65600, 37, &e, ERR_ABORT), ERR_ABORT);
    CHECK(e.n == 1 && e.v[0].off == 65600 && e.v[0].len == 37);
    nbd_reader_close(r);
    server_stop(&s);
}

/* A bad spot fails its own read and no other. */
static void
test_read_error_is_told_and_the_rest_reads(void)
{
    struct server s = {0};
    const char *const argv[] = {
        "nbdkit",
        "-f",
        "-U",
        "@SOCK@",
        "eval",
        "get_size=echo 1M",
        "can_multi_conn=exit 0",
        "pread=if [ $4 -ge 524288 ] && [ $4 -lt 589824 ]; then"
        " echo EIO bad spot >&2; exit 1; fi;"
        " dd if=/dev/zero count=$3 iflag=count_bytes status=none",
        NULL};
    struct nbd_reader_opts o;
    struct nbd_reader *r;
    struct one_read reads[16];
    struct err err = ERR_INIT;

    server_start(&s, argv);
    o = opts_for(&s);
    r = open_reader(&o);
    for (int i = 0; i < 16; i++)
        CHECK_OK(start_read(r, &reads[i], (uint64_t)i * 65536, 65536, &err),
                 &err);
    CHECK_OK(nbd_reader_wait(r, 0, &err), &err);
    for (int i = 0; i < 16; i++) {
        CHECK(reads[i].n_done == 1);
        CHECK(reads[i].error == (i == 8 ? EIO : 0));
        CHECK(i == 8 || (reads[i].buf[0] == 0 && reads[i].buf[65535] == 0));
        free(reads[i].buf);
    }
    nbd_reader_close(r);
    server_stop(&s);
}

static void
test_error_filter_fails_every_read(void)
{
    struct server s = {0};
    struct nbd_reader_opts o;
    struct nbd_reader *r;
    uint8_t buf[512];

    server_nbdkit(&s, "--filter=error pattern 1M error-pread=ENOSPC"
                      " error-pread-rate=100%");
    o = opts_for(&s);
    r = open_reader(&o);
    CHECK(read_now(r, buf, 0, sizeof buf) == ENOSPC);
    CHECK(read_now(r, buf, 512, sizeof buf) == ENOSPC);
    nbd_reader_close(r);
    server_stop(&s);
}

/* Extents fail: an error, and never "nothing there". */
static void
test_extents_error_is_remote(void)
{
    CLEANUP(nbd_extents_done) struct nbd_extents e = {0};
    struct server s = {0};
    struct nbd_reader_opts o;
    struct nbd_reader *r;
    struct err err = ERR_INIT;
    uint8_t buf[512];

    server_nbdkit(&s, "--filter=error memory 1M error-extents=EIO"
                      " error-extents-rate=100%");
    o = opts_for(&s);
    r = open_reader(&o);
    CHECK(nbd_reader_zero(r, 0, 1 << 20, &e, &err) == -1);
    CHECK(err.code == ERR_REMOTE);
    CHECK(e.n == 0);
    CHECK(read_now(r, buf, 0, sizeof buf) == 0);
    nbd_reader_close(r);
    server_stop(&s);
}

/* The deadline is for silence, not for the whole job. */
static void
test_slow_progress_renews_the_deadline(void)
{
    struct server s = {0};
    struct nbd_reader_opts o;
    struct nbd_reader *r;

    server_nbdkit(&s, "--filter=delay pattern 32K delay-read=50ms");
    o = opts_for(&s);
    o.timeout_ms = 1000;
    o.connections = 1;
    o.in_flight = 1;
    r = open_reader(&o);
    read_all(r, 1024); /* 32 reads of 50 ms */
    nbd_reader_close(r);
    server_stop(&s);
}

/* Overlapping requests abort QEMU 7.0 to 9.1: the second waits. */
static void
test_overlapping_reads_follow_each_other(void)
{
    CLEANUP(nbd_extents_done) struct nbd_extents e = {0};
    struct server s = {0};
    struct nbd_reader_opts o;
    struct nbd_reader *r;
    struct one_read a, b, c;
    struct err err = ERR_INIT;

    server_nbdkit(&s, "--filter=delay pattern 1M delay-read=50ms");
    o = opts_for(&s);
    r = open_reader(&o);
    CHECK_OK(start_read(r, &a, 0, 65536, &err), &err);
    CHECK_OK(start_read(r, &b, 65536, 65536, &err), &err);
    CHECK(a.n_done == 0 && b.n_done == 0);
    CHECK_OK(start_read(r, &c, 131071, 10, &err), &err);
    CHECK(b.n_done == 1 && c.n_done == 0);
    /* Nor does an allocation request meet a read, and `done` waits for its
     * proper place. */
    CHECK_OK(nbd_reader_zero(r, 0, 1 << 20, &e, &err), &err);
    CHECK(c.n_done == 0);
    CHECK(r->n_finished == r->n_busy);
    CHECK_OK(nbd_reader_wait(r, 0, &err), &err);
    CHECK(a.n_done == 1 && c.n_done == 1);
    CHECK(is_pattern(c.buf, 131071, 10));
    free(a.buf);
    free(b.buf);
    free(c.buf);
    nbd_reader_close(r);
    server_stop(&s);
}

static void
test_extents_of_a_sparse_disk(void)
{
    CLEANUP(nbd_extents_done) struct nbd_extents e = {0};
    struct server s = {0};
    const char *const argv[] = {
        "nbdkit",  "-f",   "-U",
        "@SOCK@",  "data", "data=@0x8000 1 @0x80000000 1 @0x100000000 1",
        "size=1T", NULL};
    struct nbd_reader_opts o;
    struct nbd_reader *r;
    uint64_t zero = 0;

    server_start(&s, argv);
    o = opts_for(&s);
    r = open_reader(&o);
    CHECK_OK(nbd_reader_zero(r, 0, UINT64_C(1) << 40, &e, ERR_ABORT),
             ERR_ABORT);
    for (size_t i = 0; i < e.n; i++)
        zero += e.v[i].flag ? e.v[i].len : 0;
    CHECK(e.n == 7);
    CHECK(e.n == 7 && e.v[1].off == 0x8000 && !e.v[1].flag);
    CHECK(e.n == 7 && e.v[5].off == UINT64_C(1) << 32 && !e.v[5].flag);
    CHECK(zero == (UINT64_C(1) << 40) - 3 * 32768);
    /* Any part of it, also inside one extent. */
    CHECK_OK(nbd_reader_zero(r, 0x8001, 100, &e, ERR_ABORT), ERR_ABORT);
    CHECK(e.n == 1 && e.v[0].off == 0x8001 && e.v[0].len == 100);
    nbd_reader_close(r);
    server_stop(&s);
}

/* The log of nbdkit shows what it was asked. */
static void
test_with_a_grain_no_request_crosses_it(void)
{
    struct server s = {0};
    struct nbd_reader_opts o;
    struct nbd_reader *r;
    char words[256], log[128], line[512];
    unsigned n = 0;
    FILE *f;

    (void)snprintf(log, sizeof log, "/tmp/tm-nbd-log-%d", (int)getpid());
    (void)snprintf(words, sizeof words,
                   "--filter=log pattern 1000001 logfile=%s", log);
    server_nbdkit(&s, words);
    o = opts_for(&s);
    o.grain = 65536;
    r = open_reader(&o);
    read_all(r, 100003);
    read_all(r, 1 << 20);
    nbd_reader_close(r);
    server_stop(&s);
    f = fopen(log, "re");
    CHECK(f != NULL);
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        const char *p = strstr(line, " Read id=");
        uint64_t off, len;

        if (p == NULL ||
            sscanf(p, " Read id=%*u offset=0x%" SCNx64 " count=0x%" SCNx64,
                   &off, &len) != 2)
            continue;
        n++;
        CHECK(len > 0 && off / 65536 == (off + len - 1) / 65536);
    }
    CHECK(n >= 2 * 16);
    if (f != NULL)
        (void)fclose(f);
    (void)unlink(log);
}

static void
test_no_extents_means_all_is_data(void)
{
    CLEANUP(nbd_extents_done) struct nbd_extents e = {0};
    struct server s = {0};
    struct nbd_reader_opts o;
    struct nbd_reader *r;

    server_nbdkit(&s, "--filter=noextents memory 8G");
    o = opts_for(&s);
    r = open_reader(&o);
    CHECK_OK(nbd_reader_zero(r, 0, UINT64_C(8) << 30, &e, ERR_ABORT),
             ERR_ABORT);
    CHECK(e.n == 1 && !e.v[0].flag && e.v[0].len == UINT64_C(8) << 30);
    nbd_reader_close(r);
    server_stop(&s);
}

static void
test_contexts_must_be_granted(void)
{
    struct server s = {0};
    struct nbd_reader_opts o;
    struct err err = ERR_INIT;

    server_nbdkit(&s, "memory 1M");
    o = opts_for(&s);
    o.dirty_context = "qemu:dirty-bitmap:b0";
    CHECK(open_fails(&o, &err) == ERR_UNSUPPORTED);
    CHECK(strstr(err.msg, "not granted") != NULL);
    server_stop(&s);
    server_nbdkit(&s, "--no-sr memory 1M");
    o = opts_for(&s);
    CHECK(open_fails(&o, &err) == ERR_UNSUPPORTED);
    server_stop(&s);
}

static void
test_requests_off_the_disk_are_refused(void)
{
    struct nbd_extents e = {0};
    struct server s = {0};
    struct nbd_reader_opts o;
    struct nbd_reader *r;
    struct one_read x = {0};
    struct err err = ERR_INIT;
    uint8_t buf[16];
    const struct {
        uint64_t off, len;
    } bad[] = {{0, 0}, {1 << 20, 1}, {(1 << 20) - 1, 2}, {UINT64_MAX, 2}};

    server_nbdkit(&s, "memory 1M");
    o = opts_for(&s);
    r = open_reader(&o);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        err_clear(&err);
        CHECK(nbd_reader_read(r, buf, bad[i].off, bad[i].len, on_read, &x,
                              &err) == -1);
        CHECK(err.code == ERR_USAGE);
    }
    err_clear(&err);
    CHECK(nbd_reader_zero(r, 1, 1 << 20, &e, &err) == -1);
    CHECK(err.code == ERR_USAGE);
    err_clear(&err);
    CHECK(nbd_reader_dirty(r, 0, 512, &e, &err) == -1);
    CHECK(err.code == ERR_USAGE);
    CHECK(read_now(r, buf, 0, 16) == 0);
    nbd_reader_close(r);
    server_stop(&s);
}

static void
test_nobody_listens(void)
{
    struct nbd_reader_opts o = {.socket = "/nonexistent/sock",
                                .export_name = "",
                                .connections = 1,
                                .in_flight = 1,
                                .timeout_ms = 1000};
    struct err err = ERR_INIT;

    CHECK(open_fails(&o, &err) == ERR_SYSTEM);
    CHECK(strstr(err.msg, "/nonexistent/sock") != NULL);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_many_connections_read_every_byte),
        TEST(test_no_multi_conn_means_one_connection),
        TEST(test_odd_sizes),
        TEST(test_block_sizes_of_the_server_are_kept),
        TEST(test_odd_end_of_a_disk_with_blocks),
        TEST(test_read_error_is_told_and_the_rest_reads),
        TEST(test_error_filter_fails_every_read),
        TEST(test_extents_error_is_remote),
        TEST(test_slow_progress_renews_the_deadline),
        TEST(test_overlapping_reads_follow_each_other),
        TEST(test_extents_of_a_sparse_disk),
        TEST(test_with_a_grain_no_request_crosses_it),
        TEST(test_no_extents_means_all_is_data),
        TEST(test_contexts_must_be_granted),
        TEST(test_requests_off_the_disk_are_refused),
        TEST(test_nobody_listens),
    };

    if (!have_program("nbdkit")) {
        printf("1..0 # SKIP nbdkit is not installed\n");
        return 0;
    }
    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
