/* What is recorded comes back, whoever else writes; what is old goes. */
#include <signal.h>
#include <sys/wait.h>

#include "err.h"
#include "ground.h"
#include "internal.h"
#include "jv.h"
#include "tap.h"

#define WRITERS 8
#define RUNS_EACH 12
#define DAY_NS INT64_C(86400000000000)

static const char *
text(const struct jv *run, const char *key)
{
    const char *s = jv_get_str(run, key);

    return s != NULL ? s : "(null)";
}

/* -- one run ----------------------------------------------------------------*/

static struct jv *
parse(const char *json)
{
    struct jv *j = NULL;

    (void)jv_parse(json, strlen(json), 16, &j, ERR_ABORT);
    return j;
}

static void
record_backup(struct history *h)
{
    CLEANUP_JV struct jv *plan =
        parse("{\"event\":\"plan\",\"disks\":[{\"disk\":\"vda\",\"tracking\":"
              "\"full\",\"reason\":\"first backup\"}]}");
    CLEANUP_JV struct jv *result = parse(
        "{\"machine\":\"web1\",\"point\":\"1f3a9c\",\"repository\":\"abcd\","
        "\"disks\":[{\"disk\":\"vda\",\"tracking\":\"full\",\"reason\":"
        "\"first backup\",\"read_bytes\":100,\"new_bytes\":50,"
        "\"stored_bytes\":25},{\"disk\":\"vdb\",\"tracking\":\"incremental\","
        "\"read_bytes\":1,\"new_bytes\":1,\"stored_bytes\":1}]}");
    CLEANUP_JV struct jv *warnings = parse("[\"thaw\"]");
    const struct history_end e = {
        .state = "warning", .exit_status = 1, .warnings = warnings};

    history_plan(h, plan);
    history_log(h, "two\nlines");
    history_progress(h, "read", 5, 10);
    CHECK(history_flush(h, 0, ERR_ABORT) == 0);
    CHECK(history_result(h, result, ERR_ABORT) == 0);
    CHECK(history_end(h, &e, ERR_ABORT) == 0);
}

static void
test_a_run_comes_back_as_it_was(void)
{
    CLEANUP_HISTORY struct history *h = NULL;
    const struct history_start s = {.command = "backup",
                                    .target = "qmp:/web1",
                                    .repo = "/backup",
                                    .parent = "7"};
    CLEANUP_JV struct jv *run = NULL;
    uint64_t v = 0;

    ground_make();
    h = ground_open();
    CHECK(history_begin(h, &s, ERR_ABORT) == 0 && history_id(h) == 1);
    record_backup(h);
    run = ground_show(1);
    CHECK_STR(text(run, "state"), "warning");
    CHECK_STR(text(run, "machine"), "web1");
    CHECK_STR(text(run, "target"), "qmp:/web1");
    CHECK_STR(text(run, "repository"), "/backup");
    CHECK_STR(text(run, "repository_id"), "abcd");
    CHECK_STR(text(run, "point"), "1f3a9c");
    CHECK_STR(text(run, "parent"), "7");
    CHECK_STR(text(run, "tracking"), "mixed");
    CHECK_STR(text(run, "phase"), "read");
    CHECK(jv_get_uint(run, "read_bytes", &v) && v == 101);
    CHECK(jv_get_uint(run, "stored_bytes", &v) && v == 26);
    CHECK_STR(jv_str(jv_at(jv_get(run, "warnings"), 0)), "thaw");
    CHECK_STR(text(jv_at(jv_path(run, "result.disks"), 0), "reason"),
              "first backup");
    CHECK_STR(text(jv_at(jv_path(run, "plan.disks"), 0), "tracking"), "full");
    CHECK_STR(text(jv_at(jv_get(run, "log"), 0), "text"), "two lines");
    ground_remove();
}

static void
test_a_machine_that_does_not_answer_is_the_one_of_before(void)
{
    const struct history_start s = {.command = "backup", .target = "qmp:/x"};
    CLEANUP_JV struct jv *result = parse("{\"machine\":\"web1\"}");
    CLEANUP_JV struct jv *run = NULL;
    struct history *h;

    ground_make();
    h = ground_open();
    CHECK(history_begin(h, &s, ERR_ABORT) == 0);
    CHECK(history_result(h, result, ERR_ABORT) == 0);
    ground_end(h, "done");
    h = ground_open();
    CHECK(history_begin(h, &s, ERR_ABORT) == 0);
    ground_end(h, "failed");
    run = ground_show(2);
    CHECK_STR(text(run, "machine"), "web1");
    ground_remove();
}

static void
test_lists_are_filtered_and_newest_first(void)
{
    struct history_filter f = {.machine = "a", .failed = true};
    CLEANUP_HISTORY struct history *h = NULL;
    CLEANUP_JV struct jv *runs = NULL, *last = NULL, *few = NULL, *new = NULL;

    ground_make();
    ground_end(ground_run("backup", "a"), "done");
    ground_end(ground_run("backup", "b"), "failed");
    ground_end(ground_run("backup", "a"), "failed");
    ground_end(ground_run("verify", "a"), "done");
    (void)history_open_read(ground, &h, ERR_ABORT);
    (void)history_list(h, &f, &runs, ERR_ABORT);
    CHECK(jv_size(runs) == 1);
    CHECK_STR(text(jv_at(runs, 0), "machine"), "a");
    f = (struct history_filter){.last = 2};
    (void)history_list(h, &f, &few, ERR_ABORT);
    CHECK(jv_size(few) == 2);
    CHECK_STR(text(jv_at(few, 0), "command"), "verify");
    f = (struct history_filter){.since_ns = clock_wall_ns() + DAY_NS};
    (void)history_list(h, &f, &new, ERR_ABORT);
    CHECK(jv_size(new) == 0);
    (void)history_last(h, "a", "backup", &last, ERR_ABORT);
    CHECK_STR(jv_get_str(last, "last.state"), "failed");
    CHECK_STR(jv_get_str(last, "good.state"), "done");
    ground_remove();
}

static void
test_children_are_shown_with_their_parent(void)
{
    const struct history_start s = {.command = "backup", .parent = "1"};
    CLEANUP_JV struct jv *run = NULL;
    struct history *h;

    ground_make();
    ground_end(ground_run("run", NULL), "done");
    h = ground_open();
    CHECK(history_begin(h, &s, ERR_ABORT) == 0);
    ground_end(h, "failed");
    run = ground_show(1);
    CHECK(jv_size(jv_get(run, "children")) == 1);
    CHECK_STR(text(jv_at(jv_get(run, "children"), 0), "state"), "failed");
    ground_remove();
}

static void
test_nothing_recorded_is_no_error(void)
{
    struct history *h = NULL;
    struct err err = ERR_INIT;

    ground_make();
    CHECK(history_open_read(ground, &h, &err) == 1 && h == NULL);
    history_close(ground_open());
    CHECK(history_open_read(ground, &h, &err) == 0);
    CHECK(history_show(h, 5, NULL, &err) == -1 && err.code == ERR_NOT_FOUND);
    history_close(h);
    ground_remove();
}

/* -- several at once --------------------------------------------------------*/

static void
write_runs(unsigned who)
{
    char line[64];

    for (unsigned i = 0; i < RUNS_EACH; i++) {
        struct history *h = ground_run("backup", "web1");

        (void)snprintf(line, sizeof line, "writer %u run %u", who, i);
        history_log(h, line);
        if (history_flush(h, 0, NULL) != 0)
            _exit(2);
        ground_end(h, "done");
    }
    _exit(0);
}

static void
test_many_processes_write_at_once(void)
{
    CLEANUP_JV struct jv *runs = NULL;
    pid_t pid[WRITERS];

    ground_make();
    for (unsigned i = 0; i < WRITERS; i++)
        if ((pid[i] = fork()) == 0)
            write_runs(i);
    for (unsigned i = 0; i < WRITERS; i++)
        CHECK(ground_wait(pid[i]) == 0);
    runs = ground_list();
    CHECK(jv_size(runs) == WRITERS * RUNS_EACH);
    for (size_t i = 0; i < jv_size(runs); i++)
        CHECK_STR(text(jv_at(runs, i), "state"), "done");
    CHECK(ground_number("SELECT count(*) FROM log") == WRITERS * RUNS_EACH);
    ground_remove();
}

/* Waiting has an end: the caller must not hang behind a process that was
 * stopped in the middle. */
static void
test_a_lock_that_stays_ends_the_wait(void)
{
    struct history_opts o = ground_opts();
    const struct history_start s = {.command = "backup"};
    CLEANUP_HISTORY struct history *h = NULL;
    struct history *other;
    struct err err = ERR_INIT;

    ground_make();
    other = ground_run("gc", NULL);
    CHECK(db_begin(other, 1000, ERR_ABORT) == 0);
    o.wait_ms = 20;
    CHECK(history_open(&o, &h, ERR_ABORT) == 0);
    CHECK(history_begin(h, &s, &err) == -1 && err.code == ERR_TIMEOUT);
    CHECK(strstr(err.msg, "held by another process") != NULL);
    CHECK(db_end(other, 0, ERR_ABORT) == 0);
    CHECK(history_begin(h, &s, ERR_ABORT) == 0);
    /* and a flush in vain is repeated by the next one */
    history_log(h, "kept");
    CHECK(db_begin(other, 1000, ERR_ABORT) == 0);
    CHECK(history_flush(h, 0, ERR_ABORT) == 0);
    CHECK(db_end(other, 0, ERR_ABORT) == 0);
    CHECK(ground_number("SELECT count(*) FROM log") == 0);
    CHECK(history_flush(h, 0, ERR_ABORT) == 0);
    CHECK(ground_number("SELECT count(*) FROM log") == 1);
    history_close(other);
    ground_remove();
}

/* -- runs that died ---------------------------------------------------------*/

static void
die_in_a_run(void)
{
    int fd[2];
    char c;
    pid_t pid;

    CHECK(pipe2(fd, O_CLOEXEC) == 0);
    pid = fork();
    if (pid == 0) {
        struct history *h = ground_run("backup", "web1");

        history_log(h, "last words");
        if (history_flush(h, 0, NULL) != 0 || write(fd[1], "x", 1) != 1)
            _exit(2);
        for (;;)
            (void)pause();
    }
    (void)close(fd[1]); /* or a child that failed would be waited for */
    CHECK(read(fd[0], &c, 1) == 1);
    (void)close(fd[0]);
    (void)kill(pid, SIGKILL);
    CHECK(WIFSIGNALED(ground_wait(pid)));
}

static void
test_a_run_whose_process_is_gone_died(void)
{
    CLEANUP_JV struct jv *run = NULL, *after = NULL;

    ground_make();
    die_in_a_run();
    CHECK(ground_number("SELECT state = 'running' FROM run") == 1);
    run = ground_show(1);
    CHECK_STR(text(run, "state"), "died");
    CHECK(jv_get_str(run, "end") != NULL);
    CHECK_STR(text(jv_at(jv_get(run, "log"), 0), "text"), "last words");
    ground_end(ground_run("backup", "web1"), "done");
    CHECK(ground_number("SELECT state = 'died' FROM run WHERE id = 1") == 1);
    after = ground_show(1);
    CHECK_STR(text(after, "end"), text(run, "end"));
    ground_remove();
}

static void
test_a_run_that_goes_on_is_running(void)
{
    struct history *h;
    CLEANUP_JV struct jv *run = NULL;

    ground_make();
    h = ground_run("backup", "web1");
    ground_end(ground_run("verify", NULL), "done"); /* settles */
    run = ground_show(1);
    CHECK_STR(text(run, "state"), "running");
    ground_end(h, "done");
    ground_remove();
}

static void
test_who_is_dead(void)
{
    struct history_process self, p;

    process_self(&self);
    CHECK(self.scope[0] != '\0' && self.start > 0);
    p = self;
    CHECK(!process_is_dead(&p, &self, 0));
    p.start++; /* the number is used again */
    CHECK(process_is_dead(&p, &self, 0));
    p = self;
    p.scope[0] = p.scope[0] == '0' ? '1' : '0'; /* before a reboot */
    CHECK(process_is_dead(&p, &self, 0));
    p = self;
    p.scope[strlen(p.scope) - 2] ^= 1; /* another container */
    CHECK(!process_is_dead(&p, &self, 1000));
    CHECK(process_is_dead(&p, &self, 48 * 3600 * 1000LL));
    p = self;
    p.pid = -1;
    CHECK(process_is_dead(&p, &self, 0));
}

static void
test_the_start_of_a_process_is_field_22(void)
{
    static const char *const bad[] = {
        "", "1 (a", "1 (a) S 2", "1 (a) 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 x ",
        "1 (a) 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 -5 23"};
    int64_t v = 0;

    CHECK(process_parse_start("1 (a) b) 5) S 4 5 6 7 8 9 10 11 12 13 14 15 16 "
                              "17 18 19 20 21 2200 23",
                              &v));
    CHECK(v == 2200);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        CHECK(!process_parse_start(bad[i], &v));
}

/* -- what is old ------------------------------------------------------------*/

static void
test_old_runs_go_but_for_the_newest_of_each(void)
{
    struct history_opts o = ground_opts();
    const struct history_start s = {.command = "backup", .machine = "a"};

    ground_make();
    for (unsigned i = 0; i < 9; i++)
        ground_end(ground_run("backup", i < 6 ? "a" : "b"), "done");
    ground_sql("UPDATE run SET start_ns = 1000");
    o.dir = ground;
    o.keep_runs = 2;
    for (unsigned i = 0; i < 2; i++) {
        struct history *h = NULL;

        (void)history_open(&o, &h, ERR_ABORT);
        (void)history_begin(h, &s, ERR_ABORT);
        ground_end(h, "done");
    }
    CHECK(ground_number("SELECT count(*) FROM run WHERE machine = 'a'") == 2);
    CHECK(ground_number("SELECT count(*) FROM run WHERE machine = 'b'") == 2);
    CHECK(ground_number("SELECT count(*) FROM log WHERE run NOT IN"
                        " (SELECT id FROM run)") == 0);
    ground_remove();
}

static void
test_few_go_at_a_time_and_none_that_runs(void)
{
    struct history_opts o = ground_opts();
    struct history *h = NULL, *running;
    const struct history_start s = {.command = "backup", .machine = "a"};

    ground_make();
    running = ground_run("backup", "a");
    for (unsigned i = 0; i < 40; i++)
        ground_end(ground_run("backup", "a"), "done");
    ground_sql("UPDATE run SET start_ns = 1000");
    o.dir = ground;
    o.keep_runs = 1;
    (void)history_open(&o, &h, ERR_ABORT);
    (void)history_begin(h, &s, ERR_ABORT);
    CHECK(ground_number("SELECT count(*) FROM run") == 42 - 16);
    CHECK(ground_number("SELECT count(*) FROM run WHERE id = 1") == 1);
    ground_end(h, "done");
    ground_end(running, "done");
    ground_remove();
}

static void
test_logs_go_before_runs_when_it_grows(void)
{
    struct history_opts o = ground_opts();
    const struct history_start s = {.command = "backup", .machine = "a"};
    struct history *h;

    ground_make();
    o.dir = ground;
    for (unsigned i = 0; i < 3; i++) {
        h = ground_run("backup", "a");
        history_log(h, "a line");
        ground_end(h, "done");
    }
    o.max_bytes = 1;
    (void)history_open(&o, &h, ERR_ABORT);
    (void)history_begin(h, &s, ERR_ABORT);
    ground_end(h, "done");
    CHECK(ground_number("SELECT count(*) FROM run") == 4);
    CHECK(ground_number("SELECT count(*) FROM log") == 0);
    ground_remove();
}

/* -- the log ----------------------------------------------------------------*/

#define LINES 4000
#define LOG_BYTES 16384u

static struct history *
long_log(void)
{
    struct history_opts o = ground_opts();
    const struct history_start s = {.command = "backup"};
    struct history *h = NULL;
    char line[64];

    o.dir = ground;
    o.log_bytes = LOG_BYTES;
    (void)history_open(&o, &h, ERR_ABORT);
    (void)history_begin(h, &s, ERR_ABORT);
    for (unsigned i = 0; i < LINES; i++) {
        (void)snprintf(line, sizeof line, "line %u", i);
        history_log(h, line);
        if (i % 37 == 0)
            CHECK(history_flush(h, 0, ERR_ABORT) == 0);
    }
    return h;
}

static void
test_a_long_log_keeps_its_first_and_its_last_part(void)
{
    CLEANUP_JV struct jv *run = NULL;
    const struct jv *log;
    char last[64];
    uint64_t dropped = 0;
    unsigned gaps = 0;

    ground_make();
    ground_end(long_log(), "done");
    CHECK(ground_number("SELECT sum(length(text)) FROM log") <= LOG_BYTES);
    CHECK(ground_number("SELECT sum(length(text)) FROM log") > LOG_BYTES / 2);
    run = ground_show(1);
    log = jv_get(run, "log");
    (void)snprintf(last, sizeof last, "line %d", LINES - 1);
    CHECK_STR(text(jv_at(log, 0), "text"), "line 0");
    CHECK_STR(text(jv_at(log, jv_size(log) - 1), "text"), last);
    for (size_t i = 0; i < jv_size(log); i++)
        gaps += strstr(text(jv_at(log, i), "text"), "left out") != NULL;
    CHECK(gaps == 1);
    CHECK(jv_get_uint(run, "log_dropped", &dropped));
    CHECK(dropped + jv_size(log) - 1 == LINES);
    ground_remove();
}

static void
test_lines_that_find_no_room_are_counted(void)
{
    CLEANUP_JV struct jv *run = NULL;
    struct history *h;
    char *line = malloc(5000);

    ground_make();
    h = ground_run("backup", "a");
    memset(line, 'x', 4999);
    line[4999] = '\0';
    for (unsigned i = 0; i < 1000; i++)
        history_log(h, line);
    ground_end(h, "done");
    run = ground_show(1);
    CHECK(
        strstr(text(jv_at(jv_get(run, "log"), jv_size(jv_get(run, "log")) - 1),
                    "text"),
               "lines left out: too many at once") != NULL);
    CHECK(strlen(text(jv_at(jv_get(run, "log"), 0), "text")) <= 1024);
    free(line);
    ground_remove();
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_a_run_comes_back_as_it_was),
        TEST(test_a_machine_that_does_not_answer_is_the_one_of_before),
        TEST(test_lists_are_filtered_and_newest_first),
        TEST(test_children_are_shown_with_their_parent),
        TEST(test_nothing_recorded_is_no_error),
        TEST(test_many_processes_write_at_once),
        TEST(test_a_lock_that_stays_ends_the_wait),
        TEST(test_a_run_whose_process_is_gone_died),
        TEST(test_a_run_that_goes_on_is_running),
        TEST(test_who_is_dead),
        TEST(test_the_start_of_a_process_is_field_22),
        TEST(test_old_runs_go_but_for_the_newest_of_each),
        TEST(test_few_go_at_a_time_and_none_that_runs),
        TEST(test_logs_go_before_runs_when_it_grows),
        TEST(test_a_long_log_keeps_its_first_and_its_last_part),
        TEST(test_lines_that_find_no_room_are_counted),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
