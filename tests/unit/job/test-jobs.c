/* Whole jobs over real NBD servers and a real repository: what was backed up is
 * what comes back, and what fails leaves nothing behind. */
#include "job.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "err.h"
#include "fake-source.h"
#include "jv.h"
#include "tap.h"
#include "world.h"

#define MIB (1ull << 20)
#define QCOW2_SIZE (40 * MIB + 1536) /* no multiple of a chunk */
#define RAW_SIZE (3 * MIB + 77)      /* no multiple of anything */

static atomic_bool cancel;
static bool cancel_at_progress;
static unsigned n_progress;

static void
count_progress(void *arg, const char *phase, uint64_t done, uint64_t total)
{
    n_progress++;
    CHECK(total == 0 || done <= total);
    if (cancel_at_progress)
        atomic_store(&cancel, true);
}

static const struct job_hooks hooks = {.progress = count_progress,
                                       .cancel = &cancel};

/* -- the machine ------------------------------------------------------------*/

static void
add_disk(const char *name, const char *format, uint64_t size)
{
    fake.disks[fake.n++] = (struct source_disk){.name = name,
                                                .node = "node",
                                                .format = format,
                                                .size = size,
                                                .persistent = true};
}

static void
set_export(size_t i, const char *socket, const char *context)
{
    static char sockets[FAKE_MAX][128];

    (void)snprintf(sockets[i], sizeof sockets[i], "%s", socket);
    fake.got[i] = (struct source_got){.socket = sockets[i],
                                      .export_name = "e",
                                      .dirty_context = context,
                                      .persistent = true,
                                      .tracked = true};
}

/* Disk "vda" is a qcow2 image, "vdb" a raw file of an odd size. */
static void
make_machine(struct world *w)
{
    char size[24];

    fake_reset();
    atomic_store(&cancel, false);
    n_progress = 0;
    add_disk("vda", "qcow2", QCOW2_SIZE);
    add_disk("vdb", "raw", RAW_SIZE);
    (void)snprintf(size, sizeof size, "%llu", QCOW2_SIZE);
    RUN("qemu-img", "create", "-q", "-f", "qcow2", world_path(w, "a.qcow2"),
        size);
    RUN("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 5M", "-c",
        "write -P 2 9000k 100k", "-c", "write -P 3 20M 12M", "-c",
        "write -P 4 40M 1536", world_path(w, "a.qcow2"));
    world_make_raw(world_path(w, "b.raw"), RAW_SIZE, 11);
}

static void
serve(struct world *w, const char *bitmap)
{
    const char *a = world_path(w, "a.sock"), *b = world_path(w, "b.sock");
    char context[64];
    static char kept[64];

    (void)unlink(a);
    (void)unlink(b);
    if (bitmap != NULL)
        SERVE(w, a, "qemu-nbd", "-r", "-t", "-e", "16", "-f", "qcow2", "-x",
              "e", "-B", bitmap, "-k", a, world_path(w, "a.qcow2"));
    else
        SERVE(w, a, "qemu-nbd", "-r", "-t", "-e", "16", "-f", "qcow2", "-x",
              "e", "-k", a, world_path(w, "a.qcow2"));
    SERVE(w, b, "nbdkit", "-f", "-r", "-e", "e", "-U", b, "file",
          world_path(w, "b.raw"));
    (void)snprintf(context, sizeof context, "qemu:dirty-bitmap:%s",
                   bitmap != NULL ? bitmap : "");
    memcpy(kept, context, sizeof kept);
    set_export(0, a, bitmap != NULL ? kept : NULL);
    set_export(1, b, NULL);
}

/* -- jobs -------------------------------------------------------------------*/

static int
backup(struct world *w, struct jv **ret, struct err *err)
{
    const struct job_backup_opts opts = {.machine = "fake:",
                                         .repo = world_path(w, "repo"),
                                         .zstd_level = 1,
                                         .threads = 2};

    return job_backup(&opts, &hooks, ret, err);
}

static const struct jv *
disk_of(const struct jv *result, const char *name)
{
    const struct jv *disks = jv_get(result, "disks");

    for (size_t i = 0; i < jv_size(disks); i++)
        if (strcmp(jv_get_str(jv_at(disks, i), "disk"), name) == 0)
            return jv_at(disks, i);
    return NULL;
}

static uint64_t
number(const struct jv *o, const char *key)
{
    uint64_t v = 0;

    CHECK(jv_get_uint(o, key, &v));
    return v;
}

static void
make_repo(struct world *w)
{
    CLEANUP_JV struct jv *result = NULL;
    struct err err = ERR_INIT;
    const struct job_init_opts init = {.repo = world_path(w, "repo")};

    CHECK_OK(job_init(&init, &result, &err), &err);
    CHECK(number(result, "chunk_size") == 65536);
}

static int
restore(struct world *w, const char *point, const char *to, const char *format,
        struct jv **ret, struct err *err)
{
    const struct job_restore_opts opts = {.repo = world_path(w, "repo"),
                                          .point = point,
                                          .to = world_path(w, to),
                                          .format = format,
                                          .threads = 2};

    return job_restore(&opts, &hooks, ret, err);
}

/* The current images, and nothing else, come out of `point`. */
static void
check_restores(struct world *w, const char *point, const char *to)
{
    CLEANUP_JV struct jv *result = NULL;
    char raw[32], name[64];
    struct err err = ERR_INIT;

    (void)snprintf(raw, sizeof raw, "%s-raw", to);
    CHECK_OK(restore(w, point, to, "qcow2", &result, &err), &err);
    jv_free(result);
    result = NULL;
    CHECK_OK(restore(w, point, raw, "raw", &result, &err), &err);
    (void)snprintf(name, sizeof name, "%s/vda.raw", raw);
    CHECK(world_size_is(world_path(w, name), QCOW2_SIZE));
    RUN("qemu-img", "compare", "-f", "qcow2", "-F", "raw",
        world_path(w, "a.qcow2"), world_path(w, name));
    (void)snprintf(name, sizeof name, "%s/vda.qcow2", to);
    RUN("qemu-img", "compare", "-f", "qcow2", "-F", "qcow2",
        world_path(w, "a.qcow2"), world_path(w, name));
    RUN("qemu-img", "check", "-q", "-f", "qcow2", world_path(w, name));
    (void)snprintf(name, sizeof name, "%s/vdb.raw", raw);
    RUN("cmp", world_path(w, "b.raw"), world_path(w, name));
    (void)snprintf(name, sizeof name, "%s/vdb.qcow2", to);
    RUN("qemu-img", "compare", "-f", "raw", "-F", "qcow2",
        world_path(w, "b.raw"), world_path(w, name));
    (void)snprintf(name, sizeof name, "%s/machine.json", raw);
    CHECK(world_exists(world_path(w, name)));
}

static void
first_backup(struct world *w)
{
    CLEANUP_JV struct jv *result = NULL;
    struct err err = ERR_INIT;

    CHECK_OK(backup(w, &result, &err), &err);
    CHECK_STR(jv_get_str(result, "event"), "committed");
    CHECK_STR(jv_get_str(result, "consistency"), "crash");
    CHECK_STR(jv_get_str(disk_of(result, "vda"), "reason"), "first backup");
    CHECK(jv_size(jv_get(result, "warnings")) == 0);
    CHECK(number(result, "seq") == 1);
    /* Holes are not read: 17 MiB and a few chunks of 40 MiB are data. */
    CHECK(number(disk_of(result, "vda"), "read_bytes") < 18 * MIB);
    CHECK(fake.n_settled == 1 && fake.n_undone == 0 && fake.n_release == 1);
}

/* Bitmap `name` begins on vda, with the bits that the last backup asked for:
 * here a write makes them. */
static void
begin_bitmap(struct world *w, const char *name)
{
    RUN("qemu-img", "bitmap", "--add", "-f", "qcow2", world_path(w, "a.qcow2"),
        name);
    CHECK(fake.n_canaries[0] > 0);
    for (size_t i = 0; i < fake.n_canaries[0]; i++) {
        uint64_t off = fake.canaries[0][i] << 16;
        uint64_t len = QCOW2_SIZE - off < 65536 ? QCOW2_SIZE - off : 65536;
        char command[64];

        (void)snprintf(command, sizeof command, "write -z %llu %llu",
                       (unsigned long long)off, (unsigned long long)len);
        RUN("qemu-io", "-f", "qcow2", "-c", command, world_path(w, "a.qcow2"));
    }
}

/* -- tests ------------------------------------------------------------------*/

static void
test_full_and_incremental_come_back(void)
{
    struct world w;
    struct jv *result = NULL;
    struct err err = ERR_INIT;

    if (!world_init(&w))
        SKIP("qemu-nbd, nbdkit or qemu-io is missing");
    make_machine(&w);
    make_repo(&w);
    serve(&w, NULL);
    first_backup(&w);
    world_stop_servers(&w);
    check_restores(&w, "fake@latest", "one");

    /* Data, zeroes over data, the last short chunk, and the same again. */
    begin_bitmap(&w, "b0");
    RUN("qemu-io", "-f", "qcow2", "-c", "write -P 9 100k 10k", "-c",
        "write -z 20M 6M", "-c", "write -z 1M 64k", "-c",
        "write -P 7 41943552 512", "-c", "write -P 3 30M 64k",
        world_path(&w, "a.qcow2"));
    world_make_raw(world_path(&w, "b.raw"), RAW_SIZE, 12);
    serve(&w, "b0");
    fake.bitmaps[1].state = TRACKING_INCONSISTENT;
    CHECK_OK(backup(&w, &result, &err), &err);
    CHECK_STR(jv_get_str(disk_of(result, "vda"), "tracking"), "incremental");
    CHECK(number(disk_of(result, "vda"), "read_bytes") < MIB);
    CHECK(number(disk_of(result, "vda"), "dirty_bytes") > 6 * MIB);
    CHECK(number(disk_of(result, "vda"), "new_bytes") < MIB);
    CHECK_STR(jv_get_str(disk_of(result, "vdb"), "reason"),
              "bitmap inconsistent after crash");
    CHECK(jv_size(jv_get(result, "warnings")) == 1);
    jv_free(result);
    world_stop_servers(&w);
    check_restores(&w, "fake@latest", "two");
    CHECK(n_progress > 0);
    world_done(&w);
}

/* A bitmap without the bits it was born with has forgotten others, too. */
static void
test_lost_canaries_mean_a_full_read(void)
{
    struct world w;
    struct jv *result = NULL;
    struct err err = ERR_INIT;

    if (!world_init(&w))
        SKIP("qemu-nbd, nbdkit or qemu-io is missing");
    make_machine(&w);
    make_repo(&w);
    serve(&w, NULL);
    first_backup(&w);
    world_stop_servers(&w);
    RUN("qemu-io", "-f", "qcow2", "-c", "write -P 8 7M 1M",
        world_path(&w, "a.qcow2"));
    RUN("qemu-img", "bitmap", "--add", "-f", "qcow2", world_path(&w, "a.qcow2"),
        "b0");
    serve(&w, "b0");
    fake.bitmaps[1].state = TRACKING_INCONSISTENT;
    CHECK_OK(backup(&w, &result, &err), &err);
    CHECK_STR(jv_get_str(disk_of(result, "vda"), "tracking"), "full");
    CHECK_STR(jv_get_str(disk_of(result, "vda"), "reason"),
              "bitmap was cleared, cut by a resize or replaced");
    CHECK(jv_size(jv_get(result, "warnings")) == 2);
    jv_free(result);
    world_stop_servers(&w);
    check_restores(&w, "fake@latest", "two");
    world_done(&w);
}

static void
test_points_show_verify(void)
{
    struct world w;
    struct jv *result = NULL;
    struct err err = ERR_INIT;
    const struct job_verify_opts verify = {.threads = 2};
    struct job_verify_opts v = verify;

    if (!world_init(&w))
        SKIP("qemu-nbd, nbdkit or qemu-io is missing");
    make_machine(&w);
    make_repo(&w);
    serve(&w, NULL);
    first_backup(&w);
    CHECK_OK(job_points(world_path(&w, "repo"), NULL, &result, &err), &err);
    CHECK(jv_size(jv_get(result, "points")) == 1);
    CHECK(jv_size(jv_get(result, "problems")) == 0);
    jv_free(result);
    CHECK_OK(job_show(world_path(&w, "repo"), "fake", &result, &err), &err);
    CHECK_STR(jv_get_str(result, "config.command_line"), "fake -m 1");
    CHECK_STR(jv_get_str(disk_of(result, "vda"), "generation"),
              fake.generation[0]);
    jv_free(result);
    for (int i = 0; i < 3; i++) {
        v.repo = world_path(&w, "repo");
        v.what = i == 0 ? NULL : i == 1 ? "fake" : "fake@latest";
        CHECK_OK(job_verify(&v, &hooks, &result, &err), &err);
        CHECK(number(result, "points") == 1 && number(result, "chunks") > 0);
        CHECK(jv_size(jv_get(result, "problems")) == 0);
        jv_free(result);
    }
    v.what = "nobody";
    CHECK(job_verify(&v, &hooks, &result, &err) < 0);
    CHECK(err.code == ERR_NOT_FOUND);
    CHECK_STR(err.msg,
              "no machine 'nobody'; there is 'fake'; see: tidemark points");
    err_clear(&err);
    CHECK(job_show(v.repo, "nobody@latest", &result, &err) < 0);
    CHECK_STR(err.msg,
              "no machine 'nobody'; there is 'fake'; see: tidemark points");
    world_done(&w);
}

static size_t
count_points(struct world *w)
{
    CLEANUP_JV struct jv *result = NULL;
    struct err err = ERR_INIT;

    CHECK_OK(job_points(world_path(w, "repo"), NULL, &result, &err), &err);
    return jv_size(jv_get(result, "points"));
}

/* Each failure: nothing committed, QEMU has what it had, and the first error is
 * the one that is told. */
static void
test_failures_commit_nothing(void)
{
    struct world w;
    struct jv *result = NULL;
    struct err err = ERR_INIT;

    if (!world_init(&w))
        SKIP("qemu-nbd, nbdkit or qemu-io is missing");
    make_machine(&w);
    make_repo(&w);
    serve(&w, NULL);

    fake.watch_fails_after = 1;
    CHECK(backup(&w, &result, &err) < 0);
    CHECK_STR(err.msg, "scratch is full");
    CHECK(err.side == ERR_SIDE_NONE); /* the machine was reached */
    CHECK(fake.n_release == 1 && fake.n_undone == 1 && fake.n_settled == 0);
    fake.watch_fails_after = 0;

    err_clear(&err);
    atomic_store(&cancel, true);
    CHECK(backup(&w, &result, &err) < 0 && err.code == ERR_CANCELED);
    CHECK(fake.n_begin == 1); /* canceled before the instant */
    atomic_store(&cancel, false);

    err_clear(&err);
    fake.rung = RUNG_NONE;
    CHECK(backup(&w, &result, &err) < 0);
    CHECK_STR(err.msg, "QEMU is too old: refused");
    fake.rung = RUNG_SNAPSHOT;

    err_clear(&err);
    fake.disks[1].size++;
    CHECK(backup(&w, &result, &err) < 0);
    CHECK(strstr(err.msg, "vdb") != NULL);
    fake.disks[1].size--;

    CHECK(fake.n_settled == 0 && fake.n_begin == fake.n_undone);
    CHECK(count_points(&w) == 0);
    err_clear(&err);
    CHECK_OK(backup(&w, &result, &err), &err);
    jv_free(result);
    CHECK(count_points(&w) == 1);
    world_done(&w);
}

static void
serve_faulty(struct world *w, const char *arg1, const char *arg2)
{
    const char *b = world_path(w, "faulty.sock");

    (void)unlink(b);
    SERVE(w, b, "nbdkit", "-f", "-r", "-e", "e", "-U", b, "--filter=error",
          "file", world_path(w, "b.raw"), arg1, arg2);
    set_export(1, b, NULL);
}

static void
serve_slow(struct world *w)
{
    const char *b = world_path(w, "slow.sock");

    SERVE(w, b, "nbdkit", "-f", "-r", "-e", "e", "-U", b, "--filter=delay",
          "file", world_path(w, "b.raw"), "rdelay=3");
    set_export(1, b, NULL);
}

static void
test_read_error_is_never_data(void)
{
    unsigned n_failed = 0;
    struct world w;
    struct jv *result = NULL;
    struct err err = ERR_INIT;

    if (!world_init(&w))
        SKIP("qemu-nbd, nbdkit or qemu-io is missing");
    make_machine(&w);
    make_repo(&w);
    serve(&w, NULL);
    serve_faulty(&w, "error-pread-rate=40%", "error-pread=EIO");
    for (int i = 0; i < 8; i++) {
        err_clear(&err);
        result = NULL;
        if (backup(&w, &result, &err) == 0) {
            jv_free(result); /* by luck no read failed */
            continue;
        }
        n_failed++;
        CHECK(strstr(err.msg, "disk 'vdb': read at offset") != NULL);
    }
    CHECK(n_failed > 0);
    serve_faulty(&w, "error-extents-rate=100%", "error-extents=EIO");
    err_clear(&err);
    CHECK(backup(&w, &result, &err) < 0);
    CHECK(strstr(err.msg, "disk 'vdb'") != NULL);
    world_done(&w);
}

/* Reads are under way when the user asks to stop. */
static void
test_cancel_in_the_middle(void)
{
    struct world w;
    struct jv *result = NULL;
    struct err err = ERR_INIT;

    if (!world_init(&w))
        SKIP("qemu-nbd, nbdkit or qemu-io is missing");
    make_machine(&w);
    make_repo(&w);
    serve(&w, NULL);
    serve_slow(&w);
    cancel_at_progress = true;
    CHECK(backup(&w, &result, &err) < 0 && err.code == ERR_CANCELED);
    cancel_at_progress = false;
    atomic_store(&cancel, false);
    CHECK(fake.n_begin == 1 && fake.n_undone == 1 && fake.n_release == 1);
    CHECK(count_points(&w) == 0);
    world_done(&w);
}

/* More disks than are read at once, of awkward sizes, in chunks of all sizes. */
static void
many_disks(struct world *w, uint64_t chunk_size)
{
    const struct job_init_opts init = {.repo = world_path(w, "repo"),
                                       .chunk_size = chunk_size};
    static const uint64_t sizes[] = {1,   65536,         5 * MIB, 4 * MIB + 1,
                                     511, 9 * MIB - 512, 65537};
    static const char *const names[] = {"d0", "d1", "d2", "d3",
                                        "d4", "d5", "d6"};
    CLEANUP_JV struct jv *made = NULL, *saved = NULL, *restored = NULL;
    struct err err = ERR_INIT;

    fake_reset();
    CHECK_OK(job_init(&init, &made, &err), &err);
    for (size_t i = 0; i < 7; i++) {
        const char *sock;
        char name[32];

        (void)snprintf(name, sizeof name, "%s.sock", names[i]);
        sock = world_path(w, name);
        world_make_raw(world_path(w, names[i]), sizes[i], (uint32_t)i + 40);
        SERVE(w, sock, "nbdkit", "-f", "-r", "-e", "e", "-U", sock, "file",
              world_path(w, names[i]));
        add_disk(names[i], "raw", sizes[i]);
        set_export(i, sock, NULL);
    }
    CHECK_OK(backup(w, &saved, &err), &err);
    CHECK_OK(restore(w, "fake", "out", "raw", &restored, &err), &err);
    for (size_t i = 0; i < 7; i++) {
        char name[32];

        (void)snprintf(name, sizeof name, "out/%s.raw", names[i]);
        RUN("cmp", world_path(w, names[i]), world_path(w, name));
    }
}

static void
test_many_disks_and_chunk_sizes(void)
{
    static const uint64_t chunk_sizes[] = {16384, 65536, 1 * MIB, 4 * MIB};

    for (size_t i = 0; i < 4; i++) {
        struct world w;

        if (!world_init(&w))
            SKIP("qemu-nbd, nbdkit or qemu-io is missing");
        many_disks(&w, chunk_sizes[i]);
        world_done(&w);
    }
}

static void
test_committed_with_warnings(void)
{
    struct world w;
    struct jv *result = NULL;
    struct err err = ERR_INIT;

    if (!world_init(&w))
        SKIP("qemu-nbd, nbdkit or qemu-io is missing");
    make_machine(&w);
    make_repo(&w);
    serve(&w, NULL);
    fake.release_fails = true;
    fake.settle_fails = true;
    fake.instant.thaw_confirmed = false;
    fake.got[1].tracked = false;
    CHECK_OK(backup(&w, &result, &err), &err);
    CHECK(jv_size(jv_get(result, "warnings")) == 4);
    CHECK(count_points(&w) == 1);
    jv_free(result);
    world_done(&w);
}

static void
test_restore_replaces_nothing_unasked(void)
{
    struct world w;
    struct jv *result = NULL;
    struct err err = ERR_INIT;
    struct job_restore_opts opts = {.point = "fake", .format = "raw"};
    const char *vdb[] = {"vdb", NULL}, *typo[] = {"vdz", NULL};
    int fd;

    if (!world_init(&w))
        SKIP("qemu-nbd, nbdkit or qemu-io is missing");
    make_machine(&w);
    make_repo(&w);
    serve(&w, NULL);
    first_backup(&w);
    CHECK_OK(restore(&w, "fake", "out", "raw", &result, &err), &err);
    jv_free(result);
    CHECK(restore(&w, "fake", "out", "raw", &result, &err) < 0);
    CHECK(err.code == ERR_EXISTS && err.side == ERR_SIDE_TARGET);
    err_clear(&err);
    opts.repo = world_path(&w, "repo");
    opts.to = world_path(&w, "out");
    opts.overwrite = true;
    opts.disks = typo;
    CHECK(job_restore(&opts, &hooks, &result, &err) < 0);
    CHECK(err.code == ERR_USAGE && strstr(err.msg, "vda, vdb") != NULL);
    err_clear(&err);
    opts.disks = vdb;
    world_flip(world_path(&w, "out/vdb.raw"), 5);
    CHECK_OK(job_restore(&opts, &hooks, &result, &err), &err);
    CHECK(jv_size(jv_get(result, "disks")) == 1);
    jv_free(result);
    RUN("cmp", world_path(&w, "b.raw"), world_path(&w, "out/vdb.raw"));
    RUN("sh", "-c", "! ls -A \"$0\" | grep partial", world_path(&w, "out"));
    /* nor what another restore is about to make */
    fd = open(world_path(&w, "out"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(fd >= 0 && flock(fd, LOCK_EX) == 0);
    CHECK(job_restore(&opts, &hooks, &result, &err) < 0);
    CHECK(strstr(err.msg, "another restore") != NULL);
    (void)close(fd);
    world_done(&w);
}

/* Damage every data pack in turn at one place: what is restored is right, what
 * is not has no name, and the error says where. */
static void
test_damage_stops_its_disk(void)
{
    struct world w;
    struct jv *result = NULL;
    struct err err = ERR_INIT;

    if (!world_init(&w))
        SKIP("qemu-nbd, nbdkit or qemu-io is missing");
    make_machine(&w);
    make_repo(&w);
    serve(&w, NULL);
    first_backup(&w);
    /* The biggest file is the data pack; its middle is a chunk of vdb, the only
     * disk with data that do not compress. */
    RUN("sh", "-c",
        "f=$(find \"$0\" -type f -printf '%s %p\\n' | sort -n | tail -1 | "
        "cut -d' ' -f2); chmod u+w \"$f\"; s=$(stat -c %s \"$f\"); "
        "printf XXXXXXXX | dd of=\"$f\" bs=1 seek=$((s/2)) conv=notrunc "
        "status=none",
        world_path(&w, "repo"));
    CHECK(restore(&w, "fake", "out", "raw", &result, &err) < 0);
    CHECK(strstr(err.msg, "1 of 2 disks") != NULL);
    CHECK(strstr(err.msg, "disk 'vdb': bytes ") != NULL);
    CHECK(err.side == ERR_SIDE_REPO);
    CHECK(!world_exists(world_path(&w, "out/vdb.raw")));
    RUN("qemu-img", "compare", "-f", "qcow2", "-F", "raw",
        world_path(&w, "a.qcow2"), world_path(&w, "out/vda.raw"));
    RUN("sh", "-c", "! ls -A \"$0\" | grep partial", world_path(&w, "out"));
    world_done(&w);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_full_and_incremental_come_back),
        TEST(test_lost_canaries_mean_a_full_read),
        TEST(test_points_show_verify),
        TEST(test_failures_commit_nothing),
        TEST(test_read_error_is_never_data),
        TEST(test_cancel_in_the_middle),
        TEST(test_many_disks_and_chunk_sizes),
        TEST(test_committed_with_warnings),
        TEST(test_restore_replaces_nothing_unasked),
        TEST(test_damage_stops_its_disk),
    };

    return tap_run(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
