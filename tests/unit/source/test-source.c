#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tap.h"

#include "address.h"
#include "cleanup.h"
#include "err.h"
#include "holder.h"
#include "identity.h"
#include "inventory.h"
#include "jv.h"
#include "rundir.h"
#include "source_internal.h"

/* -- addresses --------------------------------------------------------------*/

static void
test_address(void)
{
    struct address a = {0};
    struct err e = ERR_INIT;

    CHECK_OK(address_parse("qmp:/run/a.sock", &a, &e), &e);
    CHECK_STR(a.qmp, "/run/a.sock");
    CHECK(a.agent == NULL);
    address_done(&a);
    CHECK_OK(address_parse("qmp:/a,,b.sock,agent=/c,,,,d", &a, &e), &e);
    CHECK_STR(a.qmp, "/a,b.sock");
    CHECK_STR(a.agent, "/c,,d");
    address_done(&a);
}

static void
test_address_refuses(void)
{
    static const char *const bad[] = {
        "",
        "/run/a.sock",
        "qmp:",
        "qmp:a.sock",
        "qmp:/a,agent=",
        "qmp:/a,agent=b",
        "qmp:/a,agent=/b,agent=/c",
        "qmp:/a,color=red",
        "file:",
        "file:disk.qcow2",
        "file:format=raw,/a",
        "file:/a.raw,",
        "file:/a.raw,b.raw",
        "file:/a.raw,format=vmdk",
        "file:/a.raw,format=raw,format=raw",
        "file:/a.raw,disk=",
        "file:/a.raw,disk=a/b",
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct address a = {0};
        struct err e = ERR_INIT;

        CHECK(address_parse(bad[i], &a, &e) == -1 && e.code == ERR_USAGE);
        CHECK(strstr(e.msg, "qmp:/path.sock") != NULL);
    }
}

static void
test_address_of_images(void)
{
    struct address a = {0};
    struct err e = ERR_INIT;

    CHECK_OK(address_parse("file:/a,,b.qcow2,disk=vda,/dev/vg/x,format=raw,"
                           "/c.raw,format=qcow2",
                           &a, &e),
             &e);
    CHECK(a.qmp == NULL && a.n_images == 3);
    CHECK_STR(a.images[0].path, "/a,b.qcow2");
    CHECK_STR(a.images[0].format, "qcow2");
    CHECK_STR(a.images[0].name, "vda");
    CHECK_STR(a.images[1].path, "/dev/vg/x");
    CHECK_STR(a.images[1].format, "raw");
    CHECK(a.images[1].name == NULL);
    CHECK_STR(a.images[2].format, "qcow2"); /* what is stated counts */
    address_done(&a);
}

static void
test_address_wants_a_stated_format(void)
{
    static const struct {
        const char *text, *words;
    } bad[] = {
        {"file:/dev/vg/root", "must be stated"},
        {"file:/a.img", "format=raw"},
        {"file:/dir/.raw", "must be stated"},
        {"file:/raw", "must be stated"},
        {"file:/a.raw,/a.raw", "twice"},
        {"file:/a.raw,disk=x,/b.raw,disk=x", "twice"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct address a = {0};
        struct err e = ERR_INIT;

        CHECK(address_parse(bad[i].text, &a, &e) == -1 && e.code == ERR_USAGE);
        CHECK(strstr(e.msg, bad[i].words) != NULL);
        CHECK(a.images == NULL);
    }
}

/* -- who holds an image -----------------------------------------------------*/

static void
test_qmp_socket_on_a_command_line(void)
{
    static const struct {
        const char *words, *path;
        size_t len;
    } lines[] = {
#define LINE(words, path) {words, path, sizeof words}
        LINE("qemu\0-qmp\0unix:/a,,b.sock,server=on", "/a,b.sock"),
        LINE("qemu\0--qmp\0tcp:x:1\0-qmp-pretty\0unix:/c", "/c"),
        LINE("qemu\0-mon\0chardev=m,mode=control\0-chardev\0"
             "socket,id=x,path=/x\0-chardev\0socket,path=/m,id=m",
             "/m"),
        LINE("qemu\0-mon\0chardev=m,mode=readline\0-chardev\0"
             "socket,id=m,path=/m",
             NULL),
        LINE("qemu\0-chardev\0socket,id=m,fd=3\0-mon\0"
             "chardev=m,mode=control",
             NULL),
        LINE("qemu\0-qmp\0unix:relative", NULL),
        LINE("qemu\0-qmp", NULL),
        {"qemu\0-qmp\0unix:/cut", NULL, 18},
        {"", NULL, 0},
    };

    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        CLEANUP_FREE char *path = holder_qmp(lines[i].words, lines[i].len);

        CHECK((path == NULL) == (lines[i].path == NULL));
        if (path != NULL && lines[i].path != NULL)
            CHECK_STR(path, lines[i].path);
    }
}

/* As QEMU does: byte 100 + n, a permission in use; 200 + n, one shut. */
static void
lock_byte(int fd, int byte)
{
    struct flock l = {
        .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

    CHECK(fcntl(fd, F_OFD_SETLK, &l) == 0);
}

static bool
byte_free(int fd, int byte)
{
    struct flock l = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};

    CHECK(fcntl(fd, F_OFD_GETLK, &l) == 0);
    return l.l_type == F_UNLCK;
}

static bool
in_use(const char *path, bool write)
{
    CLEANUP_CLOSE int fd = -1;
    struct err e = ERR_INIT;

    if (holder_check(path, write, NULL, &fd, &e) == 0)
        return false;
    CHECK(e.code == ERR_LOCKED && strstr(e.msg, path) != NULL);
    return true;
}

static void
test_image_locks_are_respected(void)
{
    char path[] = "/tmp/tidemark-image-XXXXXX";
    CLEANUP_CLOSE int other = mkstemp(path);
    CLEANUP_CLOSE int reader = open(path, O_RDONLY | O_CLOEXEC);
    CLEANUP_CLOSE int writer = open(path, O_RDONLY | O_CLOEXEC);

    CHECK(other >= 0 && reader >= 0 && writer >= 0);
    CHECK(!in_use(path, false) && !in_use(path, true));
    lock_byte(reader, 203); /* relies on the size */
    CHECK(!in_use(path, false) && in_use(path, true));
    lock_byte(writer, 101); /* writes */
    CHECK(in_use(path, false) && in_use(path, true));
    (void)unlink(path);
}

static void
test_an_image_that_is_read_is_locked(void)
{
    char path[] = "/tmp/tidemark-image-XXXXXX";
    CLEANUP_CLOSE int other = mkstemp(path);
    struct err e = ERR_INIT;
    int fd = -1;

    CHECK(other >= 0);
    CHECK_OK(holder_check(path, false, NULL, &fd, &e), &e);
    CHECK(!byte_free(other, 201) && !byte_free(other, 203));
    CHECK(byte_free(other, 101));
    CHECK(!in_use(path, false)); /* others may read, too */
    (void)close(fd);
    CHECK(byte_free(other, 201) && byte_free(other, 203));
    CHECK_OK(holder_check(path, true, NULL, &fd, &e), &e);
    CHECK(byte_free(other, 201));
    (void)close(fd);
    (void)unlink(path);
}

/* -- inventory --------------------------------------------------------------*/

static struct jv *
json(const char *text)
{
    struct jv *j = NULL;
    struct err e = ERR_INIT;

    CHECK_OK(jv_parse(text, strlen(text), 32, &j, &e), &e);
    return j;
}

static int
parse(const char *blocks, const char *nodes, const char *graph,
      struct inventory *inv, struct err *err)
{
    CLEANUP_JV struct jv *b = json(blocks);
    CLEANUP_JV struct jv *n = json(nodes);
    CLEANUP_JV struct jv *g = graph != NULL ? json(graph) : NULL;

    return inventory_parse(b, n, g, inv, err);
}

#define QCOW2(compat)                                                        \
    "\"format-specific\":{\"type\":\"qcow2\",\"data\":{\"compat\":\"" compat \
    "\"}}"

static void
test_names_are_stable(void)
{
    static const struct {
        const char *qdev, *device, *node, *want;
    } t[] = {
        {"/machine/peripheral/vda/virtio-backend", "", "n", "vda"},
        {"sd0", "drive0", "n", "sd0"},
        {"/machine/peripheral-anon/device[1]/virtio-backend", "virtio1", "n",
         "virtio1"},
        {"/machine/unattached/device[18]", "", "disk0", "disk0"},
        {NULL, "pflash1", "#block1", "pflash1"},
        {NULL, "", "a/b c\x1b", "a_b_c_"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        CLEANUP_FREE char *name =
            inventory_name(t[i].qdev, t[i].device, t[i].node);

        CHECK_STR(name, t[i].want);
    }
}

/* The format node below a throttle filter, found through the graph where nodes
 * do not tell their children (below 10.1), with its qcow2 backing file. */
static void
test_filter_and_chain_by_graph(void)
{
    struct inventory inv = {0};
    struct err e = ERR_INIT;

    CHECK_OK(
        parse("[{\"device\":\"\",\"qdev\":\"/machine/peripheral/vda/"
              "virtio-backend\",\"inserted\":{\"node-name\":\"thr\",\"ro\":"
              "false}}]",
              "[{\"node-name\":\"thr\",\"drv\":\"throttle\",\"file\":\"t\","
              "\"ro\":false,\"image\":{\"virtual-size\":100}},"
              "{\"node-name\":\"fmt\",\"drv\":\"qcow2\",\"file\":\"c.qcow2\","
              "\"ro\":false,\"image\":{\"virtual-size\":65536," QCOW2(
                  "1.1") "}},"
                         "{\"node-name\":\"base\",\"drv\":\"raw\",\"file\":"
                         "\"b.raw\",\"ro\":true,\"image\":{\"virtual-size\":"
                         "65536}}]",
              "{\"nodes\":[{\"id\":1,\"name\":\"thr\",\"type\":\"block-"
              "driver\"},{\"id\":2,\"name\":\"fmt\",\"type\":\"block-driver\"}"
              ",{\"id\":3,\"name\":\"base\",\"type\":\"block-driver\"}],"
              "\"edges\":[{\"parent\":1,\"child\":2,\"name\":\"file\"},"
              "{\"parent\":2,\"child\":3,\"name\":\"backing\"}]}",
              &inv, &e),
        &e);
    CHECK(inv.n == 1);
    CHECK_STR(inv.disks[0].node, "fmt");
    CHECK_STR(inv.disks[0].root, "thr");
    CHECK_STR(inv.disks[0].format, "qcow2");
    CHECK(inv.disks[0].size == 65536 && inv.disks[0].persistent);
    CHECK(inv.disks[0].skip == NULL);
    CHECK(jv_size(jv_get(inv.disks[0].info, "chain")) == 3);
    inventory_done(&inv);
}

static void
test_filter_by_children(void)
{
    struct inventory inv = {0};
    struct err e = ERR_INIT;

    CHECK_OK(parse("[{\"device\":\"d0\",\"inserted\":{\"node-name\":\"cor\","
                   "\"ro\":false}}]",
                   "[{\"node-name\":\"cor\",\"drv\":\"copy-on-read\","
                   "\"children\":[{\"child\":\"file\",\"node-name\":\"nbd0\"}]"
                   "},{\"node-name\":\"nbd0\",\"drv\":\"nbd\",\"file\":"
                   "\"nbd://x\",\"ro\":false,\"image\":{\"virtual-size\":512}}"
                   "]",
                   NULL, &inv, &e),
             &e);
    CHECK_STR(inv.disks[0].node, "nbd0");
    CHECK_STR(inv.disks[0].format, "raw");
    CHECK(!inv.disks[0].persistent);
    inventory_done(&inv);
}

static void
test_what_is_left_out_says_why(void)
{
    struct inventory inv = {0};
    struct err e = ERR_INIT;

    CHECK_OK(parse("[{\"device\":\"\",\"qdev\":\"cd0\",\"removable\":true},"
                   "{\"device\":\"iso\",\"inserted\":{\"node-name\":\"a\","
                   "\"ro\":true}},{\"device\":\"old\",\"inserted\":{\"node-"
                   "name\":\"b\",\"ro\":false}}]",
                   "[{\"node-name\":\"a\",\"drv\":\"raw\",\"ro\":true,"
                   "\"image\":{\"virtual-size\":5}},{\"node-name\":\"b\","
                   "\"drv\":\"qcow2\",\"ro\":false,\"image\":{\"virtual-"
                   "size\":5," QCOW2("0.10") "}}]",
                   NULL, &inv, &e),
             &e);
    CHECK_STR(inv.disks[0].skip, "no medium");
    CHECK_STR(inv.disks[1].skip, "read-only");
    CHECK(inv.disks[2].skip == NULL && !inv.disks[2].persistent);
    inventory_done(&inv);
}

static void
test_two_disks_of_one_name_are_refused(void)
{
    struct inventory inv = {0};
    struct err e = ERR_INIT;

    CHECK(parse("[{\"device\":\"x\",\"inserted\":{\"node-name\":\"a\",\"ro\":"
                "false}},{\"device\":\"x\",\"inserted\":{\"node-name\":\"a\","
                "\"ro\":false}}]",
                "[{\"node-name\":\"a\",\"drv\":\"raw\",\"image\":{\"virtual-"
                "size\":5}}]",
                NULL, &inv, &e) == -1);
    CHECK(strstr(e.msg, "'x'") != NULL && inv.n == 0);
}

static void
test_a_loop_of_filters_ends(void)
{
    struct inventory inv = {0};
    struct err e = ERR_INIT;

    CHECK(parse("[{\"device\":\"x\",\"inserted\":{\"node-name\":\"a\"}}]",
                "[{\"node-name\":\"a\",\"drv\":\"throttle\",\"children\":[{"
                "\"child\":\"file\",\"node-name\":\"a\"}]}]",
                NULL, &inv, &e) == -1 &&
          e.code == ERR_PROTOCOL);
}

/* -- the ladder -------------------------------------------------------------*/

static void
test_rungs(void)
{
    struct features f72 = {.snapshot_access = true,
                           .export_node_bitmap = true,
                           .filter_name = true,
                           .export_add = true,
                           .blockdev_create = true,
                           .nodes_flat = true};
    struct features f62 = f72, f42 = f72, f90 = f72, f70 = f72;
    char why[512];

    f62.snapshot_access = f62.export_node_bitmap = false;
    f70.export_node_bitmap = false;
    f42.export_add = false;
    f90.iothread_nbd_safe = true;
    CHECK(rung_choose(&f72, NULL, false, why, sizeof why) == RUNG_SNAPSHOT);
    CHECK_STR(why, "");
    CHECK(rung_choose(&f72, NULL, true, why, sizeof why) == RUNG_OVERLAY);
    CHECK(rung_choose(&f70, NULL, false, why, sizeof why) == RUNG_OVERLAY);
    CHECK(rung_choose(&f62, NULL, false, why, sizeof why) == RUNG_OVERLAY);
    CHECK(rung_choose(&f42, NULL, false, why, sizeof why) == RUNG_NONE);
    CHECK(strstr(why, "block-export-add") != NULL);
    CHECK(rung_choose(&f72, "vda", false, why, sizeof why) == RUNG_NONE);
    CHECK(strstr(why, "'vda'") != NULL && strstr(why, "--exclude vda"));
    CHECK(rung_choose(&f90, "vda", false, why, sizeof why) == RUNG_SNAPSHOT);
}

static void
test_only_names_of_runs_are_ours(void)
{
    CHECK(is_run_object("tidemark-0a1b2c3d-cbw0"));
    CHECK(is_run_object("tidemark-0a1b2c3d-dirty"));
    CHECK(!is_run_object("tidemark-0a1b2c3d"));
    CHECK(!is_run_object("tidemark-0a1b2c3x-cbw0"));
    CHECK(!is_run_object("tidemark-0123456789abcdef-0123"));
    CHECK(!is_run_object("backup-0a1b2c3d-cbw0"));
    CHECK(!is_run_object(NULL));
}

/* -- run directory ----------------------------------------------------------*/

static char area[] = "/tmp/tidemark-test-XXXXXX";

/* Is there "<area>/<prefix><run id><rest>"? */
static bool
exists(const char *prefix, const char *id, const char *rest)
{
    char path[256];
    struct stat st;

    (void)snprintf(path, sizeof path, "%s/%s%s%s", area, prefix, id, rest);
    return lstat(path, &st) == 0;
}

static void
test_one_run_per_machine(void)
{
    struct rundir *a = NULL, *b = NULL;
    struct err e = ERR_INIT;
    char pid[32];

    CHECK_OK(rundir_open(area, "/qmp/one", &a, &e), &e);
    CHECK_OK(rundir_note(a, "phase", "x", &e), &e);
    CHECK(rundir_open(area, "/qmp/one", &b, &e) == -1);
    CHECK(e.code == ERR_LOCKED);
    (void)snprintf(pid, sizeof pid, "(pid %d)", getpid());
    CHECK(strstr(e.msg, pid) != NULL);
    err_clear(&e);
    CHECK_OK(rundir_open(area, "/qmp/two", &b, &e), &e);
    rundir_close(b, true);
    rundir_close(a, true);
    CHECK_OK(rundir_open(area, "/qmp/one", &a, &e), &e);
    CHECK(rundir_dead(a) == NULL);
    rundir_close(a, true);
}

/* A run that is killed leaves its journal and its directories; the next one
 * reads the former and removes the latter. */
static void
test_a_dead_run_is_found_and_swept(void)
{
    CLEANUP_JV struct jv *done = jv_array();
    struct rundir *r = NULL;
    struct err e = ERR_INIT;
    char id[RUN_ID_LEN + 1] = "";
    const char *dir = NULL;
    pid_t child;
    int status, fds[2];

    CHECK(pipe(fds) == 0);
    child = fork();
    if (child == 0) {
        const char *d = NULL, *file = "x";
        int fd;

        if (rundir_open(area, "/qmp/dead", &r, NULL) < 0 ||
            rundir_note(r, "frozen", "perhaps", NULL) < 0 ||
            rundir_sockets(r, geteuid(), getegid(), &d, NULL) < 0 ||
            rundir_scratch(r, area, geteuid(), &d, NULL) < 0)
            _exit(1);
        fd = open(d, O_DIRECTORY);
        (void)openat(fd, file, O_CREAT | O_WRONLY, 0600);
        (void)!write(fds[1], rundir_id(r), RUN_ID_LEN);
        (void)raise(SIGKILL);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    CHECK(read(fds[0], id, RUN_ID_LEN) == RUN_ID_LEN);
    (void)close(fds[0]);
    (void)close(fds[1]);
    CHECK(exists("", id, "") && exists("tidemark-", id, "/x"));

    /* Whoever looks and goes away again leaves the knowledge in place. */
    CHECK_OK(rundir_open(area, "/qmp/dead", &r, &e), &e);
    CHECK_STR(jv_get_str(rundir_dead(r), "frozen"), "perhaps");
    rundir_close(r, true);

    CHECK_OK(rundir_open(area, "/qmp/dead", &r, &e), &e);
    CHECK_STR(jv_get_str(rundir_dead(r), "frozen"), "perhaps");
    rundir_sweep(r, area, done);
    rundir_recovered(r);
    CHECK(!exists("", id, "") && !exists("tidemark-", id, ""));
    CHECK(jv_size(done) == 1);

    /* What belongs to a run that lives, ourselves, is not swept. */
    CHECK_OK(rundir_scratch(r, area, geteuid(), &dir, &e), &e);
    rundir_sweep(r, area, done);
    CHECK(exists("tidemark-", rundir_id(r), ""));
    rundir_close(r, true);
    CHECK_OK(rundir_open(area, "/qmp/dead", &r, &e), &e);
    CHECK(rundir_dead(r) == NULL);
    rundir_close(r, true);
}

/* Held, or killed: the next run can be that run, with all that it has. */
static void
test_a_held_run_is_adopted(void)
{
    struct rundir *r = NULL;
    struct err e = ERR_INIT;
    char id[RUN_ID_LEN + 1];
    const char *dir;

    CHECK_OK(rundir_open(area, "/qmp/held", &r, &e), &e);
    CHECK_OK(rundir_note(r, "instant", "now", &e), &e);
    CHECK_OK(rundir_sockets(r, geteuid(), getegid(), &dir, &e), &e);
    CHECK_OK(rundir_scratch(r, area, geteuid(), &dir, &e), &e);
    (void)snprintf(id, sizeof id, "%s", rundir_id(r));
    rundir_hold(r);
    rundir_close(r, false);
    CHECK(exists("tidemark-", id, ""));
    CHECK_OK(rundir_open(area, "/qmp/held", &r, &e), &e);
    CHECK(strcmp(rundir_id(r), id) != 0);
    CHECK_OK(rundir_adopt(r, &dir, &e), &e);
    CHECK_STR(rundir_id(r), id);
    CHECK(rundir_dead(r) == NULL && strstr(dir, id) != NULL);
    rundir_hold(r);
    rundir_close(r, false);
    CHECK_OK(rundir_open(area, "/qmp/held", &r, &e), &e);
    CHECK_STR(jv_get_str(rundir_dead(r), "instant"), "now");
    CHECK_OK(rundir_adopt(r, &dir, &e), &e);
    rundir_close(r, true);
    CHECK(!exists("tidemark-", id, ""));
    CHECK_OK(rundir_open(area, "/qmp/held", &r, &e), &e);
    CHECK(rundir_dead(r) == NULL);
    CHECK(rundir_adopt(r, &dir, &e) < 0);
    rundir_close(r, true);
}

static void
test_a_torn_journal_is_a_dead_run(void)
{
    struct rundir *r = NULL;
    struct err e = ERR_INIT;
    char cmd[256];

    CHECK_OK(rundir_open(area, "/qmp/torn", &r, &e), &e);
    CHECK_OK(rundir_note(r, "nbd", "/x", &e), &e);
    rundir_close(r, false);
    (void)snprintf(cmd, sizeof cmd,
                   "for f in %s/*.lock; do test -s $f && truncate -s 5 $f; "
                   "done; true",
                   area);
    CHECK(system(cmd) == 0);
    CHECK_OK(rundir_open(area, "/qmp/torn", &r, &e), &e);
    CHECK(rundir_dead(r) != NULL);
    CHECK(jv_get_str(rundir_dead(r), "nbd") == NULL);
    rundir_close(r, true);
}

static void
test_a_run_directory_of_others_is_refused(void)
{
    struct rundir *r = NULL;
    struct err e = ERR_INIT;
    char path[256];

    (void)snprintf(path, sizeof path, "%s/open", area);
    CHECK(mkdir(path, 0777) == 0 && chmod(path, 0777) == 0);
    CHECK(rundir_open(path, "/qmp/x", &r, &e) == -1);
    CHECK(strstr(e.msg, "TIDEMARK_RUN_DIR") != NULL);
}

/* -- identity ---------------------------------------------------------------*/

static int
start_of(const char *stat, uint64_t *ret)
{
    return identity_start(stat, strlen(stat), ret);
}

#define STAT_REST " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 "

/* Whatever a process calls itself. */
static void
test_start_time_is_found_behind_any_name(void)
{
    uint64_t t = 0;

    CHECK(start_of("7 (qemu)" STAT_REST "4711 22", &t) == 0 && t == 4711);
    CHECK(start_of("7 (a) 1 (b) c)" STAT_REST "12", &t) == 0 && t == 12);
    CHECK(start_of("7 (qemu)" STAT_REST, &t) < 0);
    CHECK(start_of("7 (qemu)" STAT_REST "x", &t) < 0);
    CHECK(start_of("7 (qemu)" STAT_REST "99999999999999999999", &t) < 0);
    CHECK(start_of("7 (qemu", &t) < 0);
    CHECK(start_of("", &t) < 0);
}

static void
test_a_host_is_known_and_not_given_away(void)
{
    char a[17], b[17];

    identity_host("0123456789abcdef0123456789abcdef\n", 33, a);
    identity_host("0123456789abcdef0123456789abcdef", 32, b);
    CHECK_STR(a, b);
    CHECK(strlen(a) == 16 && strstr(a, "0123") == NULL);
    identity_host("0123456789abcdef0123456789abcdee", 32, b);
    CHECK(strcmp(a, b) != 0);
    identity_host("\n", 1, b);
    CHECK_STR(b, "");
}

/* The file at the bottom, through a throttle below the format, and the data file
 * of a qcow2 image: they identify an image, whatever its nodes are called. */
static void
test_an_image_is_the_file_at_its_bottom(void)
{
    struct inventory inv = {0};
    struct err e = ERR_INIT;
    const struct jv *chain;

    CHECK_OK(
        parse("[{\"device\":\"d0\",\"inserted\":{\"node-name\":\"fmt\","
              "\"ro\":false}}]",
              "[{\"node-name\":\"fmt\",\"drv\":\"qcow2\",\"file\":\"json:{}\","
              "\"ro\":false,\"image\":{\"virtual-size\":512},\"children\":["
              "{\"child\":\"file\",\"node-name\":\"thr\"},"
              "{\"child\":\"data-file\",\"node-name\":\"dat\"},"
              "{\"child\":\"backing\",\"node-name\":\"bak\"}]},"
              "{\"node-name\":\"thr\",\"drv\":\"throttle\",\"file\":"
              "\"json:{}\",\"children\":[{\"child\":\"file\",\"node-name\":"
              "\"low\"}]},"
              "{\"node-name\":\"low\",\"drv\":\"file\",\"file\":\"/a\"},"
              "{\"node-name\":\"dat\",\"drv\":\"file\",\"file\":\"/d\"},"
              "{\"node-name\":\"bak\",\"drv\":\"nbd\",\"file\":\"nbd://x\"}"
              "]",
              NULL, &inv, &e),
        &e);
    chain = jv_get(inv.disks[0].info, "chain");
    CHECK(jv_size(chain) == 2);
    CHECK_STR(jv_get_str(jv_at(chain, 0), "image"), "/a");
    CHECK_STR(jv_get_str(jv_at(chain, 0), "data"), "/d");
    CHECK_STR(jv_get_str(jv_at(chain, 1), "image"), "nbd://x");
    CHECK(jv_get(jv_at(chain, 1), "data") == NULL);
    inventory_done(&inv);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_address),
        TEST(test_address_refuses),
        TEST(test_address_of_images),
        TEST(test_address_wants_a_stated_format),
        TEST(test_qmp_socket_on_a_command_line),
        TEST(test_image_locks_are_respected),
        TEST(test_an_image_that_is_read_is_locked),
        TEST(test_names_are_stable),
        TEST(test_filter_and_chain_by_graph),
        TEST(test_filter_by_children),
        TEST(test_what_is_left_out_says_why),
        TEST(test_two_disks_of_one_name_are_refused),
        TEST(test_a_loop_of_filters_ends),
        TEST(test_rungs),
        TEST(test_only_names_of_runs_are_ours),
        TEST(test_one_run_per_machine),
        TEST(test_a_dead_run_is_found_and_swept),
        TEST(test_a_held_run_is_adopted),
        TEST(test_a_torn_journal_is_a_dead_run),
        TEST(test_a_run_directory_of_others_is_refused),
        TEST(test_start_time_is_found_behind_any_name),
        TEST(test_a_host_is_known_and_not_given_away),
        TEST(test_an_image_is_the_file_at_its_bottom),
    };
    char cmd[256];
    int r;

    if (mkdtemp(area) == NULL)
        return 2;
    r = tap_run(argc, argv, tests, ARRAY_SIZE(tests));
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", area);
    return system(cmd) != 0 ? 2 : r;
}
