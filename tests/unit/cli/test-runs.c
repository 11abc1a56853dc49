/* Runs in the history: what is recorded, and how it is shown. */
#include "cleanup.h"
#include "jv.h"
#include "run.h"
#include "tap.h"

/* `history` of the arguments as JSON; owned by the caller. */
static struct jv *
history(const char *line)
{
    struct run r = RUN_INIT;
    struct jv *j = NULL;

    run_line(&r, line, NULL);
    CHECK(r.status == 0);
    CHECK(jv_parse(r.out, strlen(r.out), 32, &j, NULL) == 0);
    run_done(&r);
    return j;
}

static size_t
n_runs(void)
{
    CLEANUP_JV struct jv *j = history("history --json --last all");

    return jv_size(jv_get(j, "runs"));
}

static void
run_it(const char *line, const char *env, int status)
{
    struct run r = RUN_INIT;

    run_line(&r, line, env);
    if (r.status != status)
        printf("# %s: exit %d, want %d: %s\n", line, r.status, status, r.err);
    CHECK(r.status == status);
    run_done(&r);
}

/* The newest run. */
static void
check_newest(const char *state, const char *command, const char *machine,
             const char *error)
{
    CLEANUP_JV struct jv *j = history("history --json --last 1");
    const struct jv *run = jv_at(jv_get(j, "runs"), 0);

    CHECK_STR(jv_get_str(run, "state"), state);
    CHECK_STR(jv_get_str(run, "command"), command);
    if (machine != NULL)
        CHECK_STR(jv_get_str(run, "machine"), machine);
    if (error != NULL)
        CHECK(jv_get_str(run, "error") != NULL &&
              strstr(jv_get_str(run, "error"), error) != NULL);
    else
        CHECK(jv_get_str(run, "error") == NULL);
}

static void
test_what_changes_something_is_recorded(void)
{
    static const char *const recorded[] = {
        "backup qmp:/a --repo /r",
        "restore web1@latest --repo /r --to /tmp/x",
        "verify --repo /r",
        "check --repo /r",
        "prune --repo /r --keep-last 1",
        "gc --repo /r"};
    static const char *const others[] = {"points --repo /r",
                                         "show web1@latest --repo /r",
                                         "stats --repo /r",
                                         "doctor qmp:/a",
                                         "init /r",
                                         "history",
                                         "gc --repo /r --dry-run",
                                         "prune --repo /r --dry-run",
                                         "backup --help"};
    struct run r = RUN_INIT;

    for (size_t i = 0; i < ARRAY_SIZE(recorded); i++) {
        run_line(&r, recorded[i], NULL);
        run_done(&r);
        CHECK(n_runs() == i + 1);
    }
    for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
        run_line(&r, others[i], NULL);
        run_done(&r);
        CHECK(n_runs() == ARRAY_SIZE(recorded));
    }
}

static void
test_ends_and_reasons(void)
{
    run_it("backup qmp:/b --repo /r", NULL, 0);
    check_newest("done", "backup", "web1", NULL);
    run_it("backup qmp:/b --repo /r", "FAKE_ERROR=9 1 gone", 3);
    check_newest("failed", "backup", "web1", "gone");
    run_it("backup qmp:/b --repo /r", "FAKE_ERROR=13 0 stopped", 130);
    check_newest("canceled", "backup", "web1", "stopped");
    run_it("backup qmp:/c --repo /r",
           "FAKE_RESULT={\"machine\":\"x\",\"warnings\":[\"w\"]}", 1);
    check_newest("warning", "backup", "x", NULL);
    run_it("backup qmp:/d --name n --repo /r", "FAKE_ERROR=9 1 gone", 3);
    check_newest("failed", "backup", "n", "gone");
    run_it("restore m@latest --to /tmp/x --repo /r", "FAKE_ERROR=4 2 none", 4);
    check_newest("failed", "restore", "m", "none");
    run_it("verify --repo /r",
           "FAKE_RESULT={\"problems\":[{\"object\":\"o\",\"problem\":\"p\"}]}",
           5);
    check_newest("failed", "verify", NULL, "damage found: 1 problem");
    run_it("gc --repo /r", "FAKE_GC_BUSY=1", 6);
    check_newest("failed", "gc", NULL, "another collector");
}

/* The result is lost, the point is not: the record says both. */
static void
test_a_result_that_nobody_got_is_recorded(void)
{
    struct run r = RUN_INIT;

    r.out_file = "/dev/full";
    run_line(&r, "backup qmp:/b --repo /r", NULL);
    CHECK(r.status == 5);
    run_done(&r);
    check_newest("failed", "backup", "web1", "the point is committed");
}

static void
test_text_of_others_is_escaped(void)
{
    struct run r = RUN_INIT;

    run_it("backup qmp:/b --name evil --repo /r",
           "FAKE_ERROR=9 1 a\x1b]0;title\x07z", 3);
    run_line(&r, "history evil", NULL);
    CHECK(strstr(r.out, "a\\x1b]0;title\\x07z") != NULL);
    CHECK(strchr(r.out, '\x1b') == NULL);
    run_done(&r);
}

static void
test_one_run_for_people(void)
{
    CLEANUP_JV struct jv *j = NULL;
    struct run r = RUN_INIT;
    char line[64];
    uint64_t id = 0;

    run_it("backup qmp:/b --repo /r",
           "FAKE_EVENTS=[{\"event\":\"note\",\"message\":\"a small thing\"}]",
           0);
    j = history("history --json --last 1");
    CHECK(jv_get_uint(jv_at(jv_get(j, "runs"), 0), "id", &id));
    (void)snprintf(line, sizeof line, "history --run %llu",
                   (unsigned long long)id);
    run_line(&r, line, NULL);
    CHECK(r.status == 0);
    CHECK(strstr(r.out, "state                done\n") != NULL);
    CHECK(strstr(r.out, "log:\n") != NULL);
    CHECK(strstr(r.out, "a small thing") != NULL);
    run_done(&r);
}

static void
test_options_that_exclude_each_other(void)
{
    run_it("history --run 1 --failed", NULL, 2);
    run_it("history --run 1 web1", NULL, 2);
    run_it("history --run 0", NULL, 2);
    run_it("history --run x", NULL, 2);
    run_it("history --since 1y", NULL, 2);
    run_it("history --run 999999", NULL, 5);
}

static void
test_no_place_for_it_is_one_warning(void)
{
    struct run r = RUN_INIT;

    run_line(&r, "backup qmp:/b --repo /r", "TIDEMARK_STATE=/dev/null/x");
    CHECK(r.status == 1);
    CHECK(strstr(r.err, "warning: history could not be written: "
                        "'/dev/null/x'") != NULL);
    CHECK(strstr(r.out, "committed") != NULL);
    run_done(&r);
    run_line(&r, "history", "TIDEMARK_STATE=/dev/null/x");
    CHECK(r.status == 5);
    run_done(&r);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_what_changes_something_is_recorded),
        TEST(test_ends_and_reasons),
        TEST(test_a_result_that_nobody_got_is_recorded),
        TEST(test_text_of_others_is_escaped),
        TEST(test_one_run_for_people),
        TEST(test_options_that_exclude_each_other),
        TEST(test_no_place_for_it_is_one_warning),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
