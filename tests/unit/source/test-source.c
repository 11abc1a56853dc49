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
        "file:/disk.qcow2",
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct address a = {0};
        struct err e = ERR_INIT;

        CHECK(address_parse(bad[i], &a, &e) == -1 && e.code == ERR_USAGE);
        CHECK(strstr(e.msg, "qmp:/path.sock") != NULL);
    }
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

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_address),
        TEST(test_address_refuses),
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
    };
    char cmd[256];
    int r;

    if (mkdtemp(area) == NULL)
        return 2;
    r = tap_run(argc, argv, tests, ARRAY_SIZE(tests));
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", area);
    return system(cmd) != 0 ? 2 : r;
}
