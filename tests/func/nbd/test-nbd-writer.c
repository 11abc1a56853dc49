/* The writer against nbdkit and QEMU. */
#include <errno.h>
#include <signal.h>
#include <string.h>

#include "cleanup.h"
#include "reads.h"
#include "writer.h"

#define SIZE (3u << 20)

static uint8_t image[SIZE];

static void
fill(uint8_t *p, size_t len, uint32_t seed)
{
    for (size_t i = 0; i < len; i++) {
        seed = seed * 1664525 + 1013904223;
        p[i] = (uint8_t)(seed >> 24);
    }
}

static struct nbd_writer *
open_writer(const struct server *s, unsigned timeout_ms)
{
    struct nbd_writer *w = NULL;
    struct err err = ERR_INIT;

    CHECK_OK(nbd_writer_open(s->sock, "", 8, timeout_ms, &w, &err), &err);
    if (w == NULL) {
        printf("Bail out! no writer\n");
        exit(99);
    }
    return w;
}

/* Fill the export and `image` alike: data, zeroes over data, data over zeroes,
 * one odd write.  The buffer is reused at once. */
static void
write_image(struct nbd_writer *w)
{
    static uint8_t buf[100000];
    struct err err = ERR_INIT;

    CHECK(nbd_writer_size(w) == SIZE);
    for (uint64_t off = 0; off < SIZE; off += sizeof buf) {
        size_t len = SIZE - off < sizeof buf ? SIZE - off : sizeof buf;

        fill(buf, len, (uint32_t)off);
        memcpy(image + off, buf, len);
        CHECK_OK(nbd_writer_write(w, buf, off, len, &err), &err);
    }
    memset(image + 70001, 0, 2000000);
    CHECK_OK(nbd_writer_zero(w, 70001, 2000000, &err), &err);
    fill(buf, 5000, 7);
    memcpy(image + 90000, buf, 5000);
    CHECK_OK(nbd_writer_write(w, buf, 90000, 5000, &err), &err);
    CHECK_OK(nbd_writer_write(w, buf, SIZE, 0, &err), &err);
    CHECK_OK(nbd_writer_flush(w, &err), &err);
}

static void
check_image(const struct server *s)
{
    struct nbd_reader_opts o = opts_for(s);
    struct nbd_reader *r = open_reader(&o);
    CLEANUP_FREE uint8_t *buf = malloc(SIZE);

    CHECK(read_now(r, buf, 0, SIZE) == 0);
    CHECK(memcmp(buf, image, SIZE) == 0);
    nbd_reader_close(r);
}

static void
write_and_check(struct server *s)
{
    struct nbd_writer *w = open_writer(s, PATIENCE_MS);

    write_image(w);
    nbd_writer_close(w);
    check_image(s);
    server_stop(s);
}

static void
into(const char *nbdkit_words)
{
    struct server s = {0};

    server_nbdkit(&s, nbdkit_words);
    write_and_check(&s);
}

static void
test_memory_disk_holds_what_was_written(void)
{
    into("memory 3M");
}

static void
test_server_without_zero_gets_zeroes(void)
{
    into("--filter=nozero memory 3M");
}

static void
test_writes_are_split_to_the_servers_maximum(void)
{
    into("--filter=blocksize-policy memory 3M blocksize-minimum=1"
         " blocksize-preferred=512 blocksize-maximum=64K"
         " blocksize-error-policy=error");
}

static void
test_server_that_cannot_flush(void)
{
    const char *const argv[] = {
        "nbdkit",
        "-f",
        "-U",
        "@SOCK@",
        "eval",
        "get_size=echo 3M",
        "can_flush=exit 3",
        "pread=dd if=$TMPDIR/d skip=$4 count=$3 status=none"
        " iflag=skip_bytes,count_bytes,fullblock",
        "pwrite=dd of=$TMPDIR/d seek=$4 conv=notrunc status=none"
        " oflag=seek_bytes bs=64K",
        NULL};
    struct server s = {0};

    CHECK(run_in(&s, "truncate -s 3M d") == 0);
    server_start(&s, argv);
    write_and_check(&s);
}

/* QEMU's own comparison of a qcow2 that it filled with a raw file. */
static void
test_qcow2_equals_a_raw_file(void)
{
    const char *const argv[] = {
        "qemu-nbd",      "-f", "qcow2", "-k", "@SOCK@", "--discard=unmap",
        "@DIR@/d.qcow2", NULL};
    struct server s = {0};
    struct nbd_writer *w;
    char path[128];
    FILE *f;

    CHECK(run_in(&s, "qemu-img create -q -f qcow2 d.qcow2 3M") == 0);
    server_start(&s, argv);
    w = open_writer(&s, PATIENCE_MS);
    write_image(w);
    nbd_writer_close(w);
    server_wait_end(&s); /* one client, then it ends */
    (void)snprintf(path, sizeof path, "%s/d.raw", s.dir);
    f = fopen(path, "wb");
    CHECK(f != NULL && fwrite(image, 1, SIZE, f) == SIZE);
    CHECK(f != NULL && fclose(f) == 0);
    CHECK(run_in(&s, "qemu-img compare -f qcow2 -F raw d.qcow2 d.raw") == 0);
    CHECK(run_in(&s, "qemu-img check -q d.qcow2") == 0);
    server_stop(&s);
}

/* 1 TiB of zeroes is a matter of moments. */
static void
test_zero_a_huge_disk(void)
{
    CLEANUP(nbd_extents_done) struct nbd_extents e = {0};
    struct server s = {0};
    struct nbd_reader_opts o;
    struct nbd_reader *r;
    struct nbd_writer *w;

    server_nbdkit(&s, "memory 1T");
    w = open_writer(&s, PATIENCE_MS);
    CHECK_OK(nbd_writer_write(w, "x", 5, 1, ERR_ABORT), ERR_ABORT);
    CHECK_OK(nbd_writer_zero(w, 0, UINT64_C(1) << 40, ERR_ABORT), ERR_ABORT);
    CHECK_OK(nbd_writer_flush(w, ERR_ABORT), ERR_ABORT);
    nbd_writer_close(w);
    o = opts_for(&s);
    r = open_reader(&o);
    CHECK_OK(nbd_reader_zero(r, 0, UINT64_C(1) << 40, &e, ERR_ABORT),
             ERR_ABORT);
    CHECK(e.n == 1 && e.v[0].flag);
    nbd_reader_close(r);
    server_stop(&s);
}

/* After one failure nothing is well again, whatever is asked. */
static void
check_sticks(struct nbd_writer *w, enum err_code code)
{
    struct err err = ERR_INIT;

    CHECK(nbd_writer_flush(w, &err) == -1 && err.code == code);
    err_clear(&err);
    CHECK(nbd_writer_write(w, "x", 0, 1, &err) == -1 && err.code == code);
    err_clear(&err);
    CHECK(nbd_writer_zero(w, 0, 1, &err) == -1 && err.code == code);
    err_clear(&err);
    CHECK(nbd_writer_flush(w, &err) == -1 && err.code == code);
}

static void
fails_with(const char *nbdkit_words, enum err_code code, bool zero)
{
    static const uint8_t buf[4096];
    struct server s = {0};
    struct nbd_writer *w;

    server_nbdkit(&s, nbdkit_words);
    w = open_writer(&s, PATIENCE_MS);
    if (zero)
        CHECK_OK(nbd_writer_zero(w, 0, 4096, ERR_ABORT), ERR_ABORT);
    else
        CHECK_OK(nbd_writer_write(w, buf, 0, 4096, ERR_ABORT), ERR_ABORT);
    check_sticks(w, code);
    nbd_writer_close(w);
    server_stop(&s);
}

static void
test_failed_write_sticks(void)
{
    fails_with("--filter=error memory 3M error-pwrite=EIO"
               " error-pwrite-rate=100%",
               ERR_REMOTE, false);
    fails_with("--filter=error memory 3M error-pwrite=ENOSPC"
               " error-pwrite-rate=100%",
               ERR_NO_SPACE, false);
    fails_with("--filter=error memory 3M error-zero=EIO"
               " error-zero-rate=100%",
               ERR_REMOTE, true);
}

static void
test_failed_flush_sticks(void)
{
    const char *const argv[] = {"nbdkit",
                                "-f",
                                "-U",
                                "@SOCK@",
                                "eval",
                                "get_size=echo 3M",
                                "pwrite=cat >/dev/null",
                                "can_write=exit 0",
                                "can_flush=exit 0",
                                "flush=echo EIO broken >&2; exit 1",
                                NULL};
    struct server s = {0};
    struct nbd_writer *w;
    struct err err = ERR_INIT;

    server_start(&s, argv);
    w = open_writer(&s, PATIENCE_MS);
    CHECK_OK(nbd_writer_write(w, "x", 0, 1, &err), &err);
    check_sticks(w, ERR_REMOTE);
    nbd_writer_close(w);
    server_stop(&s);
}

static void
test_killed_server_sticks(void)
{
    static const uint8_t buf[65536];
    struct server s = {0};
    struct nbd_writer *w;
    struct err err = ERR_INIT;

    server_nbdkit(&s, "--filter=delay memory 3M wdelay=1000");
    w = open_writer(&s, PATIENCE_MS);
    for (unsigned i = 0; i < 8; i++)
        CHECK_OK(nbd_writer_write(w, buf, i * sizeof buf, sizeof buf, &err),
                 &err);
    server_signal(&s, SIGKILL);
    CHECK(nbd_writer_write(w, buf, 0, sizeof buf, &err) == -1);
    CHECK(err.code == ERR_CLOSED);
    check_sticks(w, ERR_CLOSED);
    nbd_writer_close(w);
    server_stop(&s);
}

static void
test_stopped_server_meets_the_deadline(void)
{
    static const uint8_t buf[65536];
    struct server s = {0};
    struct nbd_writer *w, *w2 = NULL;
    struct err err = ERR_INIT;

    server_nbdkit(&s, "memory 3M");
    w = open_writer(&s, 300);
    server_signal(&s, SIGSTOP);
    for (unsigned i = 0; i < 8; i++)
        CHECK_OK(nbd_writer_write(w, buf, i * sizeof buf, sizeof buf, &err),
                 &err);
    CHECK(nbd_writer_flush(w, &err) == -1);
    CHECK(err.code == ERR_TIMEOUT);
    check_sticks(w, ERR_TIMEOUT);
    nbd_writer_close(w);
    err_clear(&err);
    CHECK(nbd_writer_open(s.sock, "", 8, 300, &w2, &err) == -1);
    CHECK(err.code == ERR_TIMEOUT);
    server_stop(&s);
}

static void
test_close_with_writes_under_way(void)
{
    static const uint8_t buf[65536];
    struct server s = {0};
    struct nbd_writer *w;

    server_nbdkit(&s, "--filter=delay memory 3M wdelay=1000");
    w = open_writer(&s, PATIENCE_MS);
    CHECK_OK(nbd_writer_write(w, buf, 0, sizeof buf, ERR_ABORT), ERR_ABORT);
    CHECK_OK(nbd_writer_zero(w, sizeof buf, 512, ERR_ABORT), ERR_ABORT);
    nbd_writer_close(w);
    server_stop(&s);
}

static void
test_what_cannot_be_written_is_refused(void)
{
    struct server s = {0};
    struct nbd_writer *w = NULL;
    struct err err = ERR_INIT;

    server_nbdkit(&s, "-r memory 3M");
    CHECK(nbd_writer_open(s.sock, "", 8, PATIENCE_MS, &w, &err) == -1);
    CHECK(err.code == ERR_UNSUPPORTED);
    server_stop(&s);
    server_nbdkit(&s, "--filter=blocksize-policy memory 1049600"
                      " blocksize-minimum=512 blocksize-preferred=4096"
                      " blocksize-maximum=1M");
    w = open_writer(&s, PATIENCE_MS);
    err_clear(&err);
    CHECK(nbd_writer_write(w, "x", 1, 1, &err) == -1);
    CHECK(err.code == ERR_UNSUPPORTED);
    err_clear(&err);
    CHECK(nbd_writer_write(w, "x", 1049600, 1, &err) == -1);
    CHECK(err.code == ERR_USAGE);
    err_clear(&err);
    CHECK(nbd_writer_zero(w, 1, UINT64_MAX, &err) == -1);
    CHECK(err.code == ERR_USAGE);
    CHECK_OK(nbd_writer_zero(w, 512, 512, ERR_ABORT), ERR_ABORT);
    CHECK_OK(nbd_writer_flush(w, ERR_ABORT), ERR_ABORT);
    nbd_writer_close(w);
    server_stop(&s);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_memory_disk_holds_what_was_written),
        TEST(test_server_without_zero_gets_zeroes),
        TEST(test_writes_are_split_to_the_servers_maximum),
        TEST(test_server_that_cannot_flush),
        TEST(test_qcow2_equals_a_raw_file),
        TEST(test_zero_a_huge_disk),
        TEST(test_failed_write_sticks),
        TEST(test_failed_flush_sticks),
        TEST(test_killed_server_sticks),
        TEST(test_stopped_server_meets_the_deadline),
        TEST(test_close_with_writes_under_way),
        TEST(test_what_cannot_be_written_is_refused),
    };

    if (!have_program("nbdkit") || !have_program("qemu-nbd")) {
        printf("1..0 # SKIP nbdkit or QEMU is not installed\n");
        return 0;
    }
    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
