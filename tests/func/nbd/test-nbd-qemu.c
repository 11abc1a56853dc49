/* The reader against QEMU: dirty bitmaps, and above all ranges that were
 * zeroed or discarded, which other programs lose. */
#include <signal.h>
#include <string.h>

#include "cleanup.h"
#include "reader-int.h"
#include "reads.h"

#define K 1024u
#define M (1024u * 1024u)

/* A qcow2 of 64 MiB full of data, then a bitmap, then some changes.  The
 * bitmap is disabled because the export is read-only. */
static void
make_image(struct server *s)
{
    CHECK(run_in(s, "qemu-img create -q -f qcow2 d.qcow2 64M && "
                    "qemu-io -c 'write -q -P 0xaa 0 64M' d.qcow2 && "
                    "qemu-img bitmap --add -g 64K d.qcow2 b0 && "
                    "qemu-io -d unmap -c 'write -q -P 0x11 1M 64K'"
                    " -c 'write -q -z 4M 192K'"
                    " -c 'write -q -z -u 8M 64K'"
                    " -c 'discard -q 12M 128K'"
                    " -c 'write -q -P 0x22 67043328 512' d.qcow2 && "
                    "qemu-img bitmap --disable d.qcow2 b0") == 0);
}

static void
serve_image(struct server *s)
{
    const char *const argv[] = {
        "qemu-storage-daemon",
        "--blockdev",
        "driver=qcow2,node-name=n,file.driver=file,read-only=on,"
        "file.filename=@DIR@/d.qcow2,file.read-only=on",
        "--nbd-server",
        "addr.type=unix,addr.path=@SOCK@",
        "--export",
        "type=nbd,id=e0,node-name=n,name=disk,bitmaps.0=b0",
        "--export",
        "type=nbd,id=e1,node-name=n,name=plain",
        NULL};

    server_start(s, argv);
}

static struct nbd_reader_opts
disk_opts(const struct server *s)
{
    struct nbd_reader_opts o = opts_for(s);

    o.export_name = "disk";
    o.dirty_context = "qemu:dirty-bitmap:b0";
    return o;
}

static void
check_extents(const struct nbd_extents *e, const struct nbd_extent *want,
              size_t n)
{
    CHECK(e->n == n);
    for (size_t i = 0; i < e->n && i < n; i++) {
        CHECK(e->v[i].off == want[i].off);
        CHECK(e->v[i].len == want[i].len);
        CHECK(e->v[i].flag == want[i].flag);
    }
}

static const struct nbd_extent dirty[] = {
    {0, M, false},
    {M, 64 * K, true},
    {M + 64 * K, 3 * M - 64 * K, false},
    {4 * M, 192 * K, true},
    {4 * M + 192 * K, 4 * M - 192 * K, false},
    {8 * M, 64 * K, true},
    {8 * M + 64 * K, 4 * M - 64 * K, false},
    {12 * M, 128 * K, true},
    {12 * M + 128 * K, 67043328 - 12 * M - 128 * K, false},
    {67043328, 64 * K, true},
};
static const struct nbd_extent zero[] = {
    {4 * M, 192 * K, true},
    {4 * M + 192 * K, 4 * M - 192 * K, false},
    {8 * M, 64 * K, true},
};

/* A zeroed range is a changed range: whoever drops it restores old data. */
static void
test_zeroed_and_discarded_ranges_are_dirty(void)
{
    CLEANUP(nbd_extents_done) struct nbd_extents e = {0};
    struct server s = {0};
    struct nbd_reader_opts o;
    struct nbd_reader *r;
    uint8_t buf[64 * K];

    make_image(&s);
    serve_image(&s);
    o = disk_opts(&s);
    r = open_reader(&o);
    CHECK(r->cs.n == 5); /* four to read, one for the bitmap */
    CHECK_OK(nbd_reader_dirty(r, 0, 64 * M, &e, ERR_ABORT), ERR_ABORT);
    check_extents(&e, dirty, ARRAY_SIZE(dirty));
    CHECK_OK(nbd_reader_zero(r, 4 * M, 4 * M + 64 * K, &e, ERR_ABORT),
             ERR_ABORT);
    check_extents(&e, zero, ARRAY_SIZE(zero));
    CHECK_OK(nbd_reader_dirty(r, 4 * M + 1, 7, &e, ERR_ABORT), ERR_ABORT);
    CHECK(e.n == 1 && e.v[0].len == 7 && e.v[0].flag);
    CHECK(read_now(r, buf, M, sizeof buf) == 0);
    CHECK(buf[0] == 0x11 && buf[sizeof buf - 1] == 0x11);
    CHECK(read_now(r, buf, 67043328, sizeof buf) == 0);
    CHECK(buf[511] == 0x22 && buf[512] == 0xaa);
    nbd_reader_close(r);
    server_stop(&s);
}

static void
test_missing_bitmap_or_export_is_refused(void)
{
    struct server s = {0};
    struct nbd_reader_opts o;
    struct err err = ERR_INIT;

    make_image(&s);
    serve_image(&s);
    o = disk_opts(&s);
    o.export_name = "plain"; /* has no bitmap */
    CHECK(open_fails(&o, &err) == ERR_UNSUPPORTED);
    CHECK(strstr(err.msg, "not granted") != NULL);
    o = disk_opts(&s);
    o.dirty_context = "qemu:dirty-bitmap:b1";
    CHECK(open_fails(&o, &err) == ERR_UNSUPPORTED);
    o.export_name = "nothing";
    CHECK(open_fails(&o, &err) == ERR_NOT_FOUND);
    CHECK(strstr(err.msg, "nothing") != NULL);
    server_stop(&s);
}

/* Many small extents in several answers: every other 64 KiB of 1 GiB. */
static void
test_fragmented_bitmap_is_complete(void)
{
    CLEANUP(nbd_extents_done) struct nbd_extents e = {0};
    struct server s = {0};
    struct nbd_reader_opts o;
    struct nbd_reader *r;

    CHECK(run_in(&s, "qemu-img create -q -f qcow2 d.qcow2 3T && "
                     "qemu-img bitmap --add -g 64K d.qcow2 b0 && "
                     "i=0; while [ $i -lt 1000 ]; do"
                     " echo write -q -z $((i * 131072)) 64K;"
                     " i=$((i + 1)); done | qemu-io d.qcow2 >/dev/null && "
                     "qemu-io -c 'write -q -z 3298534817792 64K' d.qcow2 && "
                     "qemu-img bitmap --disable d.qcow2 b0") == 0);
    serve_image(&s);
    o = disk_opts(&s);
    r = open_reader(&o);
    CHECK(nbd_reader_size(r) == UINT64_C(3) << 40);
    CHECK_OK(nbd_reader_dirty(r, 0, UINT64_C(3) << 40, &e, ERR_ABORT),
             ERR_ABORT);
    CHECK(e.n == 2001);
    for (size_t i = 0; i < e.n && i < 1999; i++)
        CHECK(e.v[i].flag == (i % 2 == 0) && e.v[i].off == i * 65536);
    CHECK(e.n == 2001 && e.v[2000].flag &&
          e.v[2000].off == UINT64_C(3298534817792));
    CHECK_OK(nbd_reader_zero(r, 0, UINT64_C(3) << 40, &e, ERR_ABORT),
             ERR_ABORT);
    CHECK(e.n == 1 && e.v[0].flag);
    nbd_reader_close(r);
    server_stop(&s);
}

static void
test_killed_daemon_is_closed(void)
{
    CLEANUP(nbd_extents_done) struct nbd_extents e = {0};
    struct server s = {0};
    struct nbd_reader_opts o;
    struct nbd_reader *r;
    struct err err = ERR_INIT;

    make_image(&s);
    serve_image(&s);
    o = disk_opts(&s);
    r = open_reader(&o);
    server_signal(&s, SIGKILL);
    server_wait_end(&s);
    CHECK(nbd_reader_dirty(r, 0, 64 * M, &e, &err) == -1);
    CHECK(err.code == ERR_CLOSED);
    nbd_reader_close(r);
    server_stop(&s);
}

/* A healthy close is a clean disconnect: qemu-nbd for one client ends by
 * itself. */
static void
test_close_lets_the_server_go(void)
{
    const char *const argv[] = {"qemu-nbd", "-f",     "raw",         "-r",
                                "-k",       "@SOCK@", "@DIR@/d.raw", NULL};
    struct server s = {0};
    struct nbd_reader_opts o;
    struct nbd_reader *r;

    CHECK(run_in(&s, "truncate -s 1M d.raw") == 0);
    server_start(&s, argv);
    o = opts_for(&s);
    r = open_reader(&o);
    nbd_reader_close(r);
    server_wait_end(&s);
    server_stop(&s);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_zeroed_and_discarded_ranges_are_dirty),
        TEST(test_missing_bitmap_or_export_is_refused),
        TEST(test_fragmented_bitmap_is_complete),
        TEST(test_killed_daemon_is_closed),
        TEST(test_close_lets_the_server_go),
    };

    if (!have_program("qemu-storage-daemon") || !have_program("qemu-io")) {
        printf("1..0 # SKIP QEMU is not installed\n");
        return 0;
    }
    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
