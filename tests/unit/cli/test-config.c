/* What a configuration makes of a command line, and all machines in one run. */
#include <sys/stat.h>

#include "cleanup.h"
#include "echo.h"
#include "jv.h"
#include "run.h"
#include "tap.h"

static const char *
path_of(const char *name)
{
    static char path[4][128];
    static unsigned next;
    char *p = path[next++ % 4];

    (void)snprintf(p, sizeof path[0], "%s/%s", run_dir(), name);
    return p;
}

static void
write_conf(const char *text)
{
    const char *file = path_of("conf");
    FILE *f = fopen(file, "we");

    CHECK(f != NULL && fputs(text, f) >= 0 && fclose(f) == 0);
    CHECK(chmod(file, 0600) == 0);
}

static const char *
with_conf(const char *line)
{
    static char text[1024];

    (void)snprintf(text, sizeof text, "%s --config %s", line, path_of("conf"));
    return text;
}

/* One member of the options as the job got them. */
static void
check_member(const char *line, const char *key, const char *want)
{
    CLEANUP_JV struct jv *v = NULL;
    CLEANUP_FREE char *text = NULL;
    int status;

    v = echo_of(with_conf(line), &status);
    text = jv_get(v, key) != NULL ? jv_text(jv_get(v, key), true) : NULL;
    if (text == NULL || strcmp(text, want) != 0)
        printf("# %s: %s, status %d\n", line, key, status);
    CHECK_STR(text, want);
}

static void
test_every_key_reaches_the_job(void)
{
    write_conf("[repository r]\npath = /r\n[machine m]\nsource = qmp:/s\n"
               "disks = file:/d.qcow2\nname = n\ndisk = a\ndisk = b\n"
               "exclude = c\ntag = t\ntag = u\nquiesce = require\n"
               "scratch = /x\ncompress = 7\nparanoid = yes\nthreads = 3\n");
    check_echo(with_conf("backup m"),
               "{\"machine\":\"qmp:/s\",\"offline\":\"file:/d.qcow2\","
               "\"name\":\"n\",\"repo\":\"/r\",\"full\":false,"
               "\"disks\":[\"a\",\"b\"],\"exclude\":[\"c\"],"
               "\"tags\":[\"t\",\"u\"],\"quiesce\":1,\"scratch\":\"/x\","
               "\"run_dir\":\"/run/test\",\"zstd_level\":7,"
               "\"paranoid\":true,\"threads\":3}");
}

static void
test_command_line_wins(void)
{
    write_conf("[defaults]\ncompress = 3\nexclude = z\nrepository = r\n"
               "[repository r]\npath = /r\n[repository q]\npath = /q\n"
               "[machine m]\nsource = qmp:/s\ndisk = a\nparanoid = no\n"
               "[machine off]\ndisks = file:/d\ncompress = 4\n");
    check_member("backup m", "zstd_level", "3");
    check_member("backup m", "name", "\"m\"");
    check_member("backup m", "paranoid", "false");
    check_member("backup m", "exclude", "[\"z\"]");
    check_member("backup m --compress 9", "zstd_level", "9");
    check_member("backup m --name x", "name", "\"x\"");
    check_member("backup m --disk b", "disks", "[\"b\"]");
    check_member("backup m --repo q", "repo", "\"/q\"");
    check_member("backup m --repo /p", "repo", "\"/p\"");
    check_member("backup off", "zstd_level", "4");
    check_member("backup off", "machine", "\"file:/d\"");
    check_member("backup qmp:/t", "repo", "\"/r\"");
    check_member("backup qmp:/t", "name", "null");
}

static void
test_repository_of_a_name(void)
{
    write_conf("[repository r]\npath = /r\n[repository q]\npath = /q\n"
               "[machine m]\nname = n\nsource = qmp:/s\nrepository = q\n");
    check_member("verify n", "repo", "\"/q\"");
    check_member("verify m", "repo", "\"/q\"");
    check_member("verify --repo r", "repo", "\"/r\"");
    check_member("restore n@latest --to /t", "repo", "\"/q\"");
    check_member("gc --repo q", "repo", "\"/q\"");
}

/* Of one machine without rules: those of its section, under its own name. */
static void
test_prune_by_section(void)
{
    write_conf("[repository r]\npath = /r\n[defaults]\nkeep-daily = 7\n"
               "[machine m]\nname = n\nsource = qmp:/s\nkeep-last = all\n"
               "keep-tag = t\nkeep-within = 1y6m\n");
    check_echo(with_conf("prune m"),
               "{\"repo\":\"/r\",\"last\":4294967295,\"hourly\":0,\"daily\":7,"
               "\"weekly\":0,\"monthly\":0,\"yearly\":0,\"within\":\"1y6m\","
               "\"tags\":[\"t\"],\"ignore_clock\":false,"
               "\"remove_last\":false,\"remove\":false,\"dry_run\":false,"
               "\"names\":[\"n\"]}");
    check_member("prune m --keep-last 1", "daily", "0");
    check_member("prune m --keep-last 1", "names", "[\"m\"]");
    check_member("prune --remove m", "last", "0");
    check_member("prune m m --keep-last 1", "tags", "null");
}

static void
check_fails(const char *line, int status, const char *words)
{
    struct run r = RUN_INIT;

    run_line(&r, line, NULL);
    if (r.status != status || strstr(r.err, words) == NULL)
        printf("# %s: %d, %s", line, r.status, r.err);
    CHECK(r.status == status && strstr(r.err, words) != NULL);
    run_done(&r);
}

static void
test_wrong_names_are_usage_errors(void)
{
    write_conf("[repository main]\npath = /r\n[machine web1]\n"
               "source = qmp:/s\nexclude = a\n");
    check_fails(with_conf("backup web2"), 2, "did you mean 'web1'?");
    check_fails(with_conf("backup xyz"), 2, "there is: web1");
    check_fails(with_conf("doctor xyz"), 2, "there is: web1");
    check_fails(with_conf("points --repo mian"), 2, "did you mean 'main'?");
    check_fails(with_conf("backup web1 --disk a"), 2,
                "disk 'a' is both wanted and excluded");
    check_fails(with_conf("run nobody"), 2, "no machine 'nobody'");
    check_fails(with_conf("run --passphrase-command x"), 2,
                "each repository has its passphrase-command");
    check_fails("backup web1 --repo /r", 2, "no configuration");
    check_fails("run --config /nonexistent/t.conf", 2,
                "there is no configuration '/nonexistent/t.conf'");
    write_conf("[repository main]\npath = relative\n");
    check_fails(with_conf("run"), 2, "'relative' is no absolute path");
    write_conf("[machine m]\nsource = tcp:1\n");
    check_fails(with_conf("run"), 2, "'tcp:1' does not begin with 'qmp:/'");
    write_conf("[repository main]\npath = /r\n");
    check_fails(with_conf("run"), 2, "has no [machine NAME]");
    /* What is not needed is not read. */
    write_conf("nonsense\n");
    check_fails(with_conf("run"), 2, ":1: 'nonsense' is no 'key = value'");
    check_member("backup qmp:/s --repo /r", "repo", "\"/r\"");
}

/* -- run --------------------------------------------------------------------*/

static struct jv *
summary_of(const char *line, const char *env, int *ret_status)
{
    char run_env[160], state[160];
    const char *const list[] = {run_env, state, env, NULL};
    struct run r = {.env = list};
    struct jv *v = NULL;
    struct err err = ERR_INIT;
    char *last;

    (void)snprintf(run_env, sizeof run_env, "TIDEMARK_RUN_DIR=%s", run_dir());
    (void)snprintf(state, sizeof state, "TIDEMARK_STATE=%s", run_dir());
    run_start(&r, line);
    run_wait(&r);
    *ret_status = r.status;
    last = strrchr(r.out, '{');
    for (char *p = r.out; p != NULL && *p != '\0'; p = strchr(p, '\n')) {
        p += *p == '\n';
        if (strncmp(p, "{\"event\":\"summary\"", 18) == 0)
            last = p;
    }
    if (last != NULL)
        CHECK_OK(jv_parse(last, strlen(last) - 1, 16, &v, &err), &err);
    else
        printf("# no summary: %s", r.err);
    r.env = NULL;
    run_done(&r);
    return v;
}

#define THREE                                                        \
    "[repository r]\npath = /r\n[machine a]\nsource = qmp:/a\n"      \
    "[machine b]\nsource = qmp:/b\nbefore = exit 1\nkeep-last = 1\n" \
    "[machine c]\nsource = qmp:/c\nkeep-last = 2\n"

static void
test_run_sums_up(void)
{
    CLEANUP_JV struct jv *v = NULL;
    const struct jv *chores;
    int status;

    write_conf(THREE "[defaults]\ngc = after-run\n");
    v = summary_of(with_conf("run --json"), NULL, &status);
    chores = jv_get(v, "chores");
    CHECK(status == 8);
    CHECK_STR(jv_get_str(jv_at(jv_get(v, "machines"), 0), "result"), "ok");
    CHECK_STR(jv_get_str(jv_at(jv_get(v, "machines"), 0), "tracking"), "full");
    CHECK_STR(jv_get_str(jv_at(jv_get(v, "machines"), 1), "result"), "failed");
    CHECK(jv_size(chores) == 2);
    CHECK_STR(jv_get_str(jv_at(chores, 0), "job"), "prune");
    CHECK_STR(jv_get_str(jv_at(chores, 0), "for"), "c");
    CHECK_STR(jv_get_str(jv_at(chores, 1), "job"), "gc");
    jv_free(TAKE_PTR(v));
    v = summary_of(with_conf("run a c --json"), NULL, &status);
    CHECK(status == 0 && jv_size(jv_get(v, "machines")) == 2);
    jv_free(TAKE_PTR(v));
    v = summary_of(with_conf("run --json"), "FAKE_ERROR=13 1 canceled",
                   &status);
    CHECK(status == 5);
}

/* What the child's exit status means for its machine. */
static void
test_outcome_by_exit_status(void)
{
    static const struct {
        const char *env, *result;
        int status;
    } cases[] = {
        {NULL, "ok", 0},
        {"FAKE_ERROR=6 1 locked", "busy", 1},
        {"FAKE_ERROR=9 1 timeout", "failed", 5},
        {"FAKE_ERROR=15 2 key", "failed", 5},
        {"FAKE_ERROR=13 1 stopped", "stopped", 5}, /* but not by us */
        {"FAKE_RESULT={\"machine\":\"a\",\"point\":\"1f3a9c\",\"disks\":[],"
         "\"warnings\":[\"look\"]}",
         "warning", 1},
    };

    write_conf("[repository r]\npath = /r\n[machine a]\nsource = qmp:/a\n");
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_JV struct jv *v = NULL;
        int status;

        v = summary_of(with_conf("run --json"), cases[i].env, &status);
        CHECK_STR(jv_get_str(jv_at(jv_get(v, "machines"), 0), "result"),
                  cases[i].result);
        CHECK(status == cases[i].status);
    }
}

/* The file decides when a week has passed; a collection that failed is none. */
static void
test_weekly_collection(void)
{
    int status;
    CLEANUP_JV struct jv *v = NULL;

    write_conf("[repository r]\npath = /r\ngc = weekly\n"
               "[machine a]\nsource = qmp:/a\n");
    (void)remove(path_of("gc-r"));
    v = summary_of(with_conf("run --json"), "FAKE_GC_ERROR=1", &status);
    CHECK(status == 8 && jv_size(jv_get(v, "chores")) == 1);
    CHECK(access(path_of("gc-r"), F_OK) != 0);
    jv_free(TAKE_PTR(v));
    v = summary_of(with_conf("run --json"), NULL, &status);
    CHECK(status == 0 && jv_size(jv_get(v, "chores")) == 1);
    CHECK(access(path_of("gc-r"), F_OK) == 0);
    jv_free(TAKE_PTR(v));
    v = summary_of(with_conf("run --json"), NULL, &status);
    CHECK(status == 0 && jv_size(jv_get(v, "chores")) == 0);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_every_key_reaches_the_job),    TEST(test_command_line_wins),
        TEST(test_repository_of_a_name),         TEST(test_prune_by_section),
        TEST(test_wrong_names_are_usage_errors), TEST(test_run_sums_up),
        TEST(test_outcome_by_exit_status),       TEST(test_weekly_collection),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
