/* The QMP client against a real QEMU and a real qemu-storage-daemon. */
#include "qmp.h"

#include <endian.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "block.h"
#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "jv.h"
#include "tap.h"

#define START_MS 30000u
#define LONG_MS 30000u
#define SHORT_MS 500u

struct machine {
    char dir[32], qmp[48], nbd[48];
    pid_t pid;
    struct qmp *q;
};

/* -- a machine --------------------------------------------------------------*/

static void
spawn(struct machine *m, char **argv)
{
    (void)fflush(NULL);
    m->pid = fork();
    if (m->pid < 0)
        abort();
    if (m->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        execvp(argv[0], argv);
        _exit(127);
    }
}

static void
make_dir(struct machine *m)
{
    memset(m, 0, sizeof *m);
    strcpy(m->dir, "/tmp/tidemark-XXXXXX");
    if (mkdtemp(m->dir) == NULL)
        abort();
    (void)snprintf(m->qmp, sizeof m->qmp, "%s/qmp", m->dir);
    (void)snprintf(m->nbd, sizeof m->nbd, "%s/nbd", m->dir);
}

/* Connect as soon as the program listens. */
static bool
up(struct machine *m)
{
    struct deadline until = deadline_in(START_MS);
    struct err err = ERR_INIT;

    while (qmp_connect(m->qmp, LONG_MS, &m->q, &err) < 0) {
        if (deadline_left(until) == 0 || waitpid(m->pid, NULL, WNOHANG) != 0) {
            printf("# %s\n", err.msg);
            return false;
        }
        err_clear(&err);
        (void)poll(NULL, 0, 10);
    }
    return true;
}

#define DISK "driver=null-co,size=67108864,read-zeroes=on,node-name="

static bool
start_qemu(struct machine *m)
{
    char qmp[80];
    char *argv[] = {"qemu-system-x86_64",
                    "-S",
                    "-nodefaults",
                    "-display",
                    "none",
                    "-accel",
                    "tcg",
                    "-machine",
                    "q35",
                    "-m",
                    "16",
                    "-qmp",
                    qmp,
                    "-blockdev",
                    DISK "d0",
                    "-blockdev",
                    DISK "d1",
                    NULL};

    make_dir(m);
    (void)snprintf(qmp, sizeof qmp, "unix:%s,server=on,wait=off", m->qmp);
    spawn(m, argv);
    return up(m);
}

static bool
start_qsd(struct machine *m)
{
    char chardev[100];
    char *argv[] = {"qemu-storage-daemon", "--chardev", chardev,
                    "--monitor",           "chardev=c", NULL};

    make_dir(m);
    (void)snprintf(chardev, sizeof chardev,
                   "socket,id=c,path=%s,server=on,wait=off", m->qmp);
    spawn(m, argv);
    return up(m);
}

static void
stop(struct machine *m)
{
    qmp_close(m->q);
    (void)kill(m->pid, SIGKILL);
    (void)waitpid(m->pid, NULL, 0);
    (void)unlink(m->qmp);
    (void)unlink(m->nbd);
    (void)rmdir(m->dir);
}

/* Run a command whose arguments are written as JSON. */
static int
run(struct machine *m, const char *command, const char *args, struct err *err)
{
    struct jv *j = NULL;

    if (jv_parse(args, strlen(args), 16, &j, err) < 0)
        return -1;
    return qmp_call(m->q, command, j, LONG_MS, NULL, err);
}

#define START(m)                   \
    do {                           \
        if (!start_qemu(m)) {      \
            CHECK(!"QEMU starts"); \
            stop(m);               \
            return;                \
        }                          \
    } while (0)
#define MUST(m, command, args) CHECK(run(m, command, args, ERR_ABORT) == 0)

static bool
has_job(struct machine *m, const char *status)
{
    CLEANUP_JV struct jv *j = NULL;

    CHECK(qmp_call(m->q, "query-jobs", NULL, LONG_MS, &j, ERR_ABORT) == 0);
    if (status == NULL)
        return jv_size(j) > 0;
    for (size_t i = 0; i < jv_size(j); i++)
        if (strcmp(jv_get_str(jv_at(j, i), "status"), status) == 0)
            return true;
    return false;
}

static void
await_job(struct machine *m, const char *status)
{
    struct deadline until = deadline_in(LONG_MS);

    while (!has_job(m, status) && deadline_left(until) > 0)
        (void)qmp_pump(m->q, 20, ERR_ABORT);
    CHECK(has_job(m, status));
}

/* -- connection and schema --------------------------------------------------*/

static void
ask_schema(struct qmp *q)
{
    struct qmp_schema *s = NULL;

    CHECK(qmp_schema_load(q, &s, ERR_ABORT) == 0);
    CHECK(qmp_schema_command(s, "blockdev-add"));
    CHECK(qmp_schema_command(s, "JOB_STATUS_CHANGE"));
    CHECK(!qmp_schema_command(s, "str") && !qmp_schema_command(s, "0"));
    CHECK(!qmp_schema_command(s, "no-such-command"));
    CHECK(qmp_schema_has(s, "query-named-block-nodes", "flat"));
    CHECK(!qmp_schema_has(s, "query-named-block-nodes", "curved"));
    CHECK(qmp_schema_has(s, "blockdev-backup", "filter-node-name"));
    CHECK(qmp_schema_has(s, "blockdev-add", ""));
    CHECK(qmp_schema_has(s, "blockdev-add", "driver=qcow2"));
    CHECK(!qmp_schema_has(s, "blockdev-add", "driver=qcow9"));
    CHECK(!qmp_schema_has(s, "blockdev-add", "node-name=qcow2"));
    /* Members of the base after a variant was selected, and of the variant. */
    CHECK(qmp_schema_has(s, "blockdev-add", "driver=nbd/node-name"));
    CHECK(
        qmp_schema_has(s, "blockdev-add", "driver=nbd/server/type=unix/path"));
    CHECK(
        !qmp_schema_has(s, "blockdev-add", "driver=nbd/server/type=unix/port"));
    CHECK(!qmp_schema_has(s, "blockdev-add", "server"));
    /* Through an alternate: a reference or a definition. */
    CHECK(qmp_schema_has(s, "blockdev-add",
                         "driver=qcow2/file/driver=file/filename"));
    CHECK_STR(qmp_schema_meta(s, "blockdev-add", "driver=qcow2/file"),
              "alternate");
    CHECK_STR(qmp_schema_meta(s, "blockdev-add", "driver"), "enum");
    CHECK_STR(qmp_schema_meta(s, "blockdev-add", "node-name"), "builtin");
    CHECK_STR(qmp_schema_meta(s, "transaction", "actions"), "array");
    CHECK_STR(qmp_schema_meta(s, "transaction", "actions/[]"), "object");
    CHECK(qmp_schema_has(
        s, "transaction",
        "actions/[]/type=blockdev-backup/data/filter-node-name"));
    CHECK(qmp_schema_has(s, "block-export-add", "type=nbd/id"));
    CHECK(!qmp_schema_has(s, "JOB_STATUS_CHANGE", "id"));
    qmp_schema_free(s);
}

/* What is known of 7.2 and of nothing else. */
static void
ask_schema_7_2(struct qmp *q)
{
    struct qmp_schema *s = NULL;

    CHECK(qmp_schema_load(q, &s, ERR_ABORT) == 0);
    CHECK(qmp_schema_has(s, "blockdev-add", "driver=snapshot-access"));
    CHECK(qmp_schema_has(s, "blockdev-add", "driver=copy-before-write/bitmap"));
    CHECK(qmp_schema_has(s, "blockdev-add",
                         "driver=copy-before-write/on-cbw-error"));
    CHECK(!qmp_schema_has(s, "blockdev-add",
                          "driver=copy-before-write/min-cluster-size"));
    CHECK(!qmp_schema_has(s, "blockdev-backup", "on-cbw-error"));
    CHECK(!qmp_schema_has(s, "blockdev-backup", "discard-source"));
    CHECK_STR(qmp_schema_meta(s, "block-export-add", "type=nbd/bitmaps/[]"),
              "alternate");
    CHECK(qmp_schema_has(s, "block-export-add", "type=nbd/bitmaps/[]/node"));
    qmp_schema_free(s);
}

static void
test_schema_of_qemu(void)
{
    struct machine m;

    START(&m);
    ask_schema(m.q);
    if (!qmp_older(m.q, 7, 2, 0) && qmp_older(m.q, 7, 3, 0))
        ask_schema_7_2(m.q);
    stop(&m);
}

static void
test_schema_of_the_storage_daemon(void)
{
    struct machine m;

    if (!start_qsd(&m)) {
        CHECK(!"qemu-storage-daemon starts");
    } else {
        ask_schema(m.q);
        if (!qmp_older(m.q, 7, 2, 0) && qmp_older(m.q, 7, 3, 0))
            ask_schema_7_2(m.q);
    }
    stop(&m);
}

static void
test_second_client_gets_no_greeting(void)
{
    struct err err = ERR_INIT;
    struct qmp *second = NULL;
    struct machine m;
    unsigned uid, gid;
    int pid;

    START(&m);
    qmp_peer(m.q, &uid, &gid, &pid);
    CHECK(uid == getuid() && pid == m.pid);
    CHECK(qmp_connect(m.qmp, SHORT_MS, &second, &err) == -1);
    CHECK(err.code == ERR_TIMEOUT && second == NULL);
    /* When the first is gone, the next is served. */
    qmp_close(m.q);
    m.q = NULL;
    CHECK(qmp_connect(m.qmp, LONG_MS, &m.q, ERR_ABORT) == 0);
    stop(&m);
}

static void
test_stopped_and_killed_qemu(void)
{
    struct err err = ERR_INIT;
    struct machine m;

    START(&m);
    CHECK(kill(m.pid, SIGSTOP) == 0);
    CHECK(qmp_call(m.q, "query-status", NULL, SHORT_MS, NULL, &err) == -1);
    CHECK(err.code == ERR_TIMEOUT);
    CHECK(kill(m.pid, SIGCONT) == 0);
    qmp_close(m.q);
    m.q = NULL;
    CHECK(qmp_connect(m.qmp, LONG_MS, &m.q, ERR_ABORT) == 0);
    CHECK(kill(m.pid, SIGKILL) == 0);
    err_clear(&err);
    CHECK(qmp_call(m.q, "query-status", NULL, LONG_MS, NULL, &err) == -1);
    CHECK(err.code == ERR_CLOSED);
    stop(&m);
}

/* -- block.h ----------------------------------------------------------------*/

static void
end_job(struct machine *m)
{
    CHECK(qmp_job_end(m->q, "j", LONG_MS, ERR_ABORT) == 0);
    CHECK(!has_job(m, NULL));
    CHECK(qmp_job_end(m->q, "j", LONG_MS, ERR_ABORT) == 0);
}

#define BACKUP                                                     \
    "{\"job-id\": \"j\", \"device\": \"d0\", \"target\": \"d1\", " \
    "\"auto-dismiss\": false, \"sync\": "

static void
test_job_end_in_each_state(void)
{
    struct machine m;

    START(&m);
    MUST(&m, "blockdev-backup", BACKUP "\"none\"}");
    end_job(&m);
    MUST(&m, "blockdev-backup", BACKUP "\"full\", \"speed\": 65536}");
    await_job(&m, "running");
    end_job(&m);
    MUST(&m, "blockdev-backup", BACKUP "\"full\", \"speed\": 65536}");
    MUST(&m, "job-pause", "{\"id\": \"j\"}");
    await_job(&m, "paused");
    end_job(&m);
    MUST(&m, "blockdev-backup", BACKUP "\"full\", \"auto-finalize\": false}");
    await_job(&m, "pending");
    end_job(&m);
    MUST(&m, "blockdev-backup", BACKUP "\"full\"}");
    await_job(&m, "concluded");
    end_job(&m);
    MUST(&m, "blockdev-mirror", BACKUP "\"full\"}");
    await_job(&m, "ready");
    end_job(&m);
    MUST(&m, "blockdev-mirror", BACKUP "\"full\"}");
    await_job(&m, "ready");
    MUST(&m, "job-pause", "{\"id\": \"j\"}");
    await_job(&m, "standby");
    end_job(&m);
    stop(&m);
}

/* A client that has negotiated the export `e`, so that it is in use. */
static int
nbd_client(const char *path)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char in[18], out[4 + 16 + 1];
    uint32_t flags = htobe32(3), option = htobe32(1), len = htobe32(1);

    strcpy(sa.sun_path, path);
    memcpy(out, &flags, 4);
    memcpy(out + 4, "IHAVEOPT", 8);
    memcpy(out + 12, &option, 4);
    memcpy(out + 16, &len, 4);
    out[20] = 'e';
    CHECK(connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0);
    CHECK(recv(fd, in, 18, MSG_WAITALL) == 18);
    CHECK(send(fd, out, sizeof out, MSG_NOSIGNAL) == (ssize_t)sizeof out);
    CHECK(recv(fd, in, 10, MSG_WAITALL) == 10);
    return fd;
}

static void
add_export(struct machine *m)
{
    MUST(m, "block-export-add",
         "{\"type\": \"nbd\", \"id\": \"x\", \"node-name\": \"d0\", "
         "\"name\": \"e\"}");
}

static void
start_nbd(struct machine *m)
{
    char args[160];

    (void)snprintf(args, sizeof args,
                   "{\"addr\": {\"type\": \"unix\", \"data\": {\"path\": "
                   "\"%s\"}}}",
                   m->nbd);
    MUST(m, "nbd-server-start", args);
}

static void
test_export_end(void)
{
    struct machine m;
    char c;
    int fd;

    START(&m);
    start_nbd(&m);
    add_export(&m);
    CHECK(qmp_export_end(m.q, "x", LONG_MS, ERR_ABORT) == 0);
    CHECK(qmp_export_end(m.q, "x", LONG_MS, ERR_ABORT) == 0);
    add_export(&m);
    fd = nbd_client(m.nbd);
    CHECK(qmp_export_end(m.q, "x", LONG_MS, ERR_ABORT) == 0);
    CHECK(recv(fd, &c, 1, 0) <= 0); /* the client was cut off */
    (void)close(fd);
    stop(&m);
}

static void
test_node_end(void)
{
    struct err err = ERR_INIT;
    CLEANUP_JV struct jv *nodes = NULL;
    struct machine m;

    START(&m);
    start_nbd(&m);
    CHECK(qmp_block_nodes(m.q, &nodes, ERR_ABORT) == 0);
    CHECK(qmp_block_find(nodes, "d0") != NULL);
    CHECK(qmp_block_find(nodes, "d9") == NULL);
    add_export(&m);
    CHECK(qmp_node_end(m.q, "d0", SHORT_MS, &err) == -1);
    CHECK(err.code == ERR_REMOTE && strstr(err.msg, "in use") != NULL);
    CHECK(qmp_export_end(m.q, "x", LONG_MS, ERR_ABORT) == 0);
    CHECK(qmp_node_end(m.q, "d0", LONG_MS, ERR_ABORT) == 0);
    CHECK(qmp_node_end(m.q, "d0", LONG_MS, ERR_ABORT) == 0);
    stop(&m);
}

static void
test_bitmap_end(void)
{
    struct err err = ERR_INIT;
    CLEANUP_JV struct jv *nodes = NULL;
    const struct jv *node;
    struct machine m;

    START(&m);
    start_nbd(&m);
    MUST(&m, "block-dirty-bitmap-add", "{\"node\": \"d0\", \"name\": \"b\"}");
    CHECK(qmp_block_nodes(m.q, &nodes, ERR_ABORT) == 0);
    node = qmp_block_find(nodes, "d0");
    CHECK(qmp_block_bitmap(node, "b") != NULL);
    CHECK(qmp_block_bitmap(node, "c") == NULL);
    CHECK(qmp_block_bitmap(NULL, "b") == NULL);
    MUST(&m, "block-export-add",
         "{\"type\": \"nbd\", \"id\": \"x\", \"node-name\": \"d0\", "
         "\"writable\": true, \"bitmaps\": [\"b\"]}");
    CHECK(qmp_bitmap_end(m.q, "d0", "b", SHORT_MS, &err) == -1);
    CHECK(err.code == ERR_REMOTE);
    CHECK(qmp_export_end(m.q, "x", LONG_MS, ERR_ABORT) == 0);
    CHECK(qmp_bitmap_end(m.q, "d0", "b", LONG_MS, ERR_ABORT) == 0);
    CHECK(qmp_bitmap_end(m.q, "d0", "b", LONG_MS, ERR_ABORT) == 0);
    CHECK(qmp_bitmap_end(m.q, "d9", "b", LONG_MS, ERR_ABORT) == 0);
    stop(&m);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_schema_of_qemu),
        TEST(test_schema_of_the_storage_daemon),
        TEST(test_second_client_gets_no_greeting),
        TEST(test_stopped_and_killed_qemu),
        TEST(test_job_end_in_each_state),
        TEST(test_export_end),
        TEST(test_node_end),
        TEST(test_bitmap_end),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
