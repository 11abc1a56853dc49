/* The database after kills, damage, full and read-only disks, failing system
 * calls: it opens again, and what cannot be recorded is an error with words. */
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "clock.h"
#include "err.h"
#include "ground.h"
#include "jv.h"
#include "tap.h"

#define KILLS 60
#define FAULTS_MAX 400

static void
break_file(uint64_t off, size_t len)
{
    uint8_t junk[4096];

    memset(junk, 0xa5, sizeof junk);
    tmpdir_poke(ground, "history.db", off, junk, len);
}

/* -- what is not ours, or newer ---------------------------------------------*/

static void
refused(const char *sql, enum err_code code, const char *words)
{
    struct history_opts o = ground_opts();
    struct history *h = NULL;
    struct err err = ERR_INIT;

    ground_make();
    ground_end(ground_run("backup", "a"), "done");
    ground_sql(sql);
    o.dir = ground;
    CHECK(history_open(&o, &h, &err) == -1 && err.code == code);
    CHECK(strstr(err.msg, words) != NULL);
    CHECK(strstr(err.msg, "left alone") != NULL);
    err_clear(&err);
    CHECK(history_open_read(ground, &h, &err) == -1 && err.code == code);
    CHECK(ground_number("SELECT count(*) FROM run") == 1);
    CHECK(tmpdir_count(ground, "history.db.damaged") == 0);
    ground_remove();
}

static void
test_a_newer_database_is_left_alone(void)
{
    refused("PRAGMA user_version = 2", ERR_UNSUPPORTED, "format 2");
}

static void
test_the_database_of_another_program_is_left_alone(void)
{
    refused("PRAGMA application_id = 42", ERR_EXISTS, "another program");
}

/* -- damage -----------------------------------------------------------------*/

static void
test_a_file_that_is_no_database_is_moved_aside(void)
{
    CLEANUP_JV struct jv *runs = NULL;
    struct history *h;

    ground_make();
    ground_end(ground_run("backup", "a"), "done");
    break_file(0, 100);
    h = ground_run("backup", "b");
    CHECK(history_moved(h) != NULL && access(history_moved(h), F_OK) == 0);
    ground_end(h, "done");
    runs = ground_list();
    CHECK(jv_size(runs) == 1);
    CHECK(tmpdir_count(ground, "history.damaged") == 0);
    ground_remove();
}

/* Damage that is met deep in the file costs that run its record; the next one
 * looks, and begins anew. */
static void
test_damage_that_somebody_met_is_looked_for(void)
{
    const struct history_filter all = {.last = 0};
    struct history *h = NULL;
    struct jv *runs = NULL;
    struct err err = ERR_INIT;

    ground_make();
    for (unsigned i = 0; i < 100; i++)
        ground_end(ground_run("backup", "a"), "done");
    for (uint64_t page = 1; page < 12; page++)
        break_file(page * 4096, 4096);
    CHECK(history_open_read(ground, &h, ERR_ABORT) == 0);
    CHECK(history_list(h, &all, &runs, &err) == -1);
    CHECK(err.code == ERR_CORRUPT);
    history_close(h);
    h = ground_run("backup", "b");
    CHECK(history_moved(h) != NULL);
    ground_end(h, "done");
    ground_remove();
}

/* A mark without damage, from whatever: nothing is lost. */
static void
test_a_healthy_database_stays(void)
{
    CLEANUP_JV struct jv *runs = NULL;
    char path[TMPDIR_MAX + 32];
    struct history *h;

    ground_make();
    ground_end(ground_run("backup", "a"), "done");
    (void)snprintf(path, sizeof path, "%s/history.damaged", ground);
    (void)close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    h = ground_run("backup", "b");
    CHECK(history_moved(h) == NULL && access(path, F_OK) < 0);
    ground_end(h, "done");
    runs = ground_list();
    CHECK(jv_size(runs) == 2);
    ground_remove();
}

/* A file that others write to keeps its name. */
static void
test_a_damaged_file_in_use_is_not_moved(void)
{
    struct history_opts o = ground_opts();
    struct history *h = NULL, *user;
    struct err err = ERR_INIT;

    ground_make();
    ground_end(ground_run("backup", "a"), "done");
    user = ground_run("gc", NULL);
    break_file(0, 100);
    o.dir = ground;
    o.wait_ms = 20;
    CHECK(history_open(&o, &h, &err) == -1);
    CHECK(tmpdir_count(ground, "history.db.damaged") == 0);
    history_close(user);
    h = ground_run("backup", "a");
    CHECK(history_moved(h) != NULL);
    ground_end(h, "done");
    ground_remove();
}

/* -- disks that are full or read-only: in a mount name space of its own ------*/

static int
record_one(void)
{
    struct history_opts o = ground_opts();
    CLEANUP_HISTORY struct history *h = NULL;
    const struct history_start s = {.command = "backup", .machine = "a"};
    const struct history_end e = {.state = "done"};
    struct err err = ERR_INIT;
    char line[1000];

    memset(line, 'y', sizeof line - 1);
    line[sizeof line - 1] = '\0';
    o.wait_ms = 500;
    if (history_open(&o, &h, &err) < 0 || history_begin(h, &s, &err) < 0)
        return (int)err.code;
    for (unsigned i = 0; i < 100; i++)
        history_log(h, line);
    if (history_flush(h, 0, &err) < 0 || history_end(h, &e, &err) < 0)
        return (int)err.code;
    return 0;
}

static bool
mount_small(void)
{
    return unshare(CLONE_NEWNS) == 0 &&
           mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("tmpfs", ground, "tmpfs", 0, "size=512k") == 0;
}

/* Fill it up by recording; then it must still be read, and go on when there is
 * room again. */
static int
full_disk(void)
{
    CLEANUP_JV struct jv *runs = NULL;
    char path[TMPDIR_MAX + 16] = "";
    int got = 0, fd;

    if (!mount_small())
        return 77;
    if (record_one() != 0)
        return 1;
    (void)snprintf(path, sizeof path, "%s/ballast", ground);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    while (write(fd, path, sizeof path) > 0)
        ;
    (void)close(fd);
    for (unsigned i = 0; i < 5 && got == 0; i++)
        got = record_one();
    if (got != ERR_NO_SPACE)
        return 2;
    if (unlink(path) < 0 || record_one() != 0)
        return 3;
    runs = ground_list();
    return jv_size(runs) >= 2 ? 0 : 4;
}

static int
read_only_disk(void)
{
    CLEANUP_JV struct jv *runs = NULL;

    if (!mount_small())
        return 77;
    if (record_one() != 0)
        return 1;
    if (mount("none", ground, "none", MS_REMOUNT | MS_RDONLY, NULL) < 0)
        return 2;
    if (record_one() != ERR_SYSTEM)
        return 3;
    runs = ground_list();
    return jv_size(runs) == 1 ? 0 : 4;
}

static void
in_child(int (*fn)(void))
{
    pid_t pid;
    int status;

    ground_make();
    pid = fork();
    if (pid == 0)
        _exit(fn());
    status = ground_wait(pid);
    ground_remove();
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        SKIP("needs a mount of its own");
    if (status != 0)
        printf("# wait status 0x%x\n", status);
    CHECK(status == 0);
}

static void
test_a_full_disk_is_an_error_and_heals(void)
{
    in_child(full_disk);
}

static void
test_a_read_only_disk_can_be_read(void)
{
    in_child(read_only_disk);
}

/* -- killed -----------------------------------------------------------------*/

static void
write_for_ever(void)
{
    for (unsigned i = 0;; i++) {
        struct history *h = ground_run("backup", i % 2 ? "a" : "b");

        for (unsigned k = 0; k < 5; k++) {
            history_log(h, "something");
            (void)history_flush(h, 0, NULL);
        }
        ground_end(h, "done");
    }
}

static void
test_kills_leave_a_database_that_opens(void)
{
    uint64_t seed = clock_us();

    ground_make();
    printf("# seed %llu\n", (unsigned long long)seed);
    for (unsigned i = 0; i < KILLS; i++) {
        pid_t a = fork(), b;

        if (a == 0)
            write_for_ever();
        b = fork();
        if (b == 0)
            write_for_ever();
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        (void)poll(NULL, 0, (int)(seed >> 59));
        (void)kill(a, SIGKILL);
        (void)ground_wait(a);
        (void)kill(b, SIGKILL);
        (void)ground_wait(b);
    }
    ground_end(ground_run("verify", NULL), "done");
    CHECK(ground_number("SELECT count(*) FROM pragma_quick_check"
                        " WHERE quick_check = 'ok'") == 1);
    CHECK(ground_number("SELECT count(*) FROM run WHERE state = 'running'") ==
          0);
    CHECK(ground_number("SELECT count(*) FROM run WHERE state = 'done'") > 0);
    CHECK(tmpdir_count(ground, "history.db.damaged") == 0);
    ground_remove();
}

/* -- failing calls: a file layer below SQLite -------------------------------*/

static struct {
    bool no_shm;
    unsigned countdown; /* the call that fails; 0: none */
    unsigned calls;
} fault;

/* The database has other methods than what lies beside it. */
static struct layer {
    sqlite3_io_methods bad; /* first: a file's methods point here */
    const sqlite3_io_methods *real;
} layers[2];
static sqlite3_vfs *real_vfs, vfs;

static const sqlite3_io_methods *
real_of(const sqlite3_file *f)
{
    return f->pMethods == &layers[0].bad ? layers[0].real : layers[1].real;
}

static bool
fails(void)
{
    fault.calls++;
    return fault.countdown > 0 && fault.calls == fault.countdown;
}

static int
bad_write(sqlite3_file *f, const void *data, int n, sqlite3_int64 off)
{
    return fails() ? SQLITE_IOERR_WRITE : real_of(f)->xWrite(f, data, n, off);
}

static int
bad_sync(sqlite3_file *f, int flags)
{
    return fails() ? SQLITE_IOERR_FSYNC : real_of(f)->xSync(f, flags);
}

static int
bad_read(sqlite3_file *f, void *data, int n, sqlite3_int64 off)
{
    return fails() ? SQLITE_IOERR_READ : real_of(f)->xRead(f, data, n, off);
}

static int
bad_shm(sqlite3_file *f, int i, int n, int extend, void volatile **p)
{
    if (fault.no_shm || fails())
        return SQLITE_IOERR_SHMMAP;
    return real_of(f)->xShmMap(f, i, n, extend, p);
}

static int
bad_open(sqlite3_vfs *v, const char *name, sqlite3_file *f, int flags, int *out)
{
    struct layer *l = &layers[(flags & SQLITE_OPEN_MAIN_DB) == 0];
    int rc = real_vfs->xOpen(real_vfs, name, f, flags, out);

    if (rc != SQLITE_OK || f->pMethods == NULL)
        return rc;
    l->real = f->pMethods;
    l->bad = *l->real;
    l->bad.xWrite = bad_write;
    l->bad.xSync = bad_sync;
    l->bad.xRead = bad_read;
    l->bad.xShmMap = bad_shm;
    f->pMethods = &l->bad;
    return rc;
}

static void
faults_begin(void)
{
    fault.no_shm = false;
    fault.countdown = fault.calls = 0;
    real_vfs = sqlite3_vfs_find(NULL);
    vfs = *real_vfs;
    vfs.zName = "faulty";
    vfs.xOpen = bad_open;
    (void)sqlite3_vfs_register(&vfs, 1);
}

static void
faults_end(void)
{
    (void)sqlite3_vfs_unregister(&vfs);
    (void)sqlite3_vfs_register(real_vfs, 1);
}

static void
test_without_shared_memory_a_journal_does_it(void)
{
    CLEANUP_JV struct jv *runs = NULL;

    ground_make();
    ground_end(ground_run("backup", "a"), "done"); /* with it */
    faults_begin();
    fault.no_shm = true;
    ground_end(ground_run("backup", "b"), "done");
    ground_end(ground_run("backup", "c"), "done");
    CHECK(ground_number("SELECT count(*) FROM run") == 3);
    faults_end();
    runs = ground_list();
    CHECK(jv_size(runs) == 3);
    ground_end(ground_run("backup", "d"), "done");
    ground_remove();
}

/* Whichever call fails: a run is recorded or an error says why, and what was
 * recorded before is still there. */
static void
test_every_call_may_fail_once(void)
{
    unsigned n = 1, failed = 0;

    ground_make();
    ground_end(ground_run("backup", "a"), "done");
    for (; n < FAULTS_MAX; n++) {
        int r;

        faults_begin();
        fault.countdown = n;
        r = record_one();
        failed += r != 0;
        faults_end();
        if (fault.calls < n)
            break;
        CHECK(ground_number("SELECT count(*) FROM run WHERE id = 1 AND"
                            " state = 'done'") == 1);
    }
    printf("# %u calls failed, %u times nothing was recorded\n", n - 1, failed);
    CHECK(n > 10 && n < FAULTS_MAX && failed > 0);
    CHECK(record_one() == 0);
    CHECK(ground_number("SELECT count(*) FROM pragma_quick_check"
                        " WHERE quick_check = 'ok'") == 1);
    ground_remove();
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_a_newer_database_is_left_alone),
        TEST(test_the_database_of_another_program_is_left_alone),
        TEST(test_a_file_that_is_no_database_is_moved_aside),
        TEST(test_damage_that_somebody_met_is_looked_for),
        TEST(test_a_healthy_database_stays),
        TEST(test_a_damaged_file_in_use_is_not_moved),
        TEST(test_a_full_disk_is_an_error_and_heals),
        TEST(test_a_read_only_disk_can_be_read),
        TEST(test_kills_leave_a_database_that_opens),
        TEST(test_without_shared_memory_a_journal_does_it),
        TEST(test_every_call_may_fail_once),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
