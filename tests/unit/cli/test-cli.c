/* The command line from outside: options, output for people, JSON. */
#include "cleanup.h"
#include "echo.h"
#include "err.h"
#include "jv.h"
#include "run.h"
#include "tap.h"

static void
test_backup_defaults(void)
{
    check_echo("backup qmp:/s --repo /r",
               "{\"machine\":\"qmp:/s\",\"name\":null,\"repo\":\"/r\","
               "\"full\":false,\"disks\":null,\"exclude\":null,\"tags\":null,"
               "\"quiesce\":0,"
               "\"scratch\":null,\"run_dir\":\"/run/test\","
               "\"zstd_level\":1,\"paranoid\":false,\"threads\":0}");
}

static void
test_backup_all_options(void)
{
    check_echo("backup --name web1 --repo=/r --full --disk a --disk b "
               "--exclude c --tag t --tag u qmp:/s,agent=/a --quiesce require "
               "--scratch /x "
               "--compress 7 --paranoid --threads 3 --offline file:/d.raw -q",
               "{\"machine\":\"qmp:/s,agent=/a\",\"name\":\"web1\","
               "\"repo\":\"/r\",\"full\":true,\"disks\":[\"a\",\"b\"],"
               "\"exclude\":[\"c\"],\"tags\":[\"t\",\"u\"],\"quiesce\":1,"
               "\"scratch\":\"/x\","
               "\"run_dir\":\"/run/test\",\"zstd_level\":7,"
               "\"paranoid\":true,\"threads\":3,"
               "\"offline\":\"file:/d.raw\"}");
}

static void
test_backup_impact_options(void)
{
    check_echo("backup qmp:/s --repo /r --limit-rate 10M --no-backoff "
               "--scratch-max 2G",
               "{\"machine\":\"qmp:/s\",\"name\":null,\"repo\":\"/r\","
               "\"full\":false,\"disks\":null,\"exclude\":null,\"tags\":null,"
               "\"quiesce\":0,\"scratch\":null,\"run_dir\":\"/run/test\","
               "\"zstd_level\":1,\"paranoid\":false,\"threads\":0,"
               "\"impact\":{\"limit_rate\":10485760,\"no_backoff\":true,"
               "\"scratch_max\":2147483648}}");
}

/* People are told only when it mattered. */
static void
test_waiting_for_the_guest_is_told(void)
{
    struct run r = RUN_INIT;

    run_line(&r, "backup qmp:/s --repo /r",
             "FAKE_RESULT={\"machine\":\"w\",\"point\":\"abcdef0123\","
             "\"backoff_ms\":12400,\"guest_write_p99_us\":"
             "{\"before\":4500,\"during\":8100}}");
    CHECK(strstr(r.out,
                 "reading waited 0:12 for the guest: 99 % of its writes took "
                 "less than 4.5 ms before, 8.1 ms during the backup\n") !=
          NULL);
    run_done(&r);
    run_line(&r, "backup qmp:/s --repo /r",
             "FAKE_RESULT={\"machine\":\"w\",\"point\":\"abcdef0123\","
             "\"backoff_ms\":999}");
    CHECK(strstr(r.out, "waited") == NULL);
    run_done(&r);
}

static void
test_restore_and_verify_options(void)
{
    check_echo("restore web1@latest --repo /r --to /t",
               "{\"repo\":\"/r\",\"point\":\"web1@latest\",\"to\":\"/t\","
               "\"format\":\"qcow2\",\"disks\":null,\"overwrite\":false,"
               "\"threads\":0}");
    check_echo("restore w@1f3a --repo /r --to /t --format raw --disk d "
               "--overwrite --threads 2",
               "{\"repo\":\"/r\",\"point\":\"w@1f3a\",\"to\":\"/t\","
               "\"format\":\"raw\",\"disks\":[\"d\"],\"overwrite\":true,"
               "\"threads\":2}");
    check_echo("verify --repo /r",
               "{\"repo\":\"/r\",\"what\":null,\"threads\":0,"
               "\"structure\":false,\"sample\":0,\"limit_rate\":0,"
               "\"resume\":false,\"read_only\":false}");
    check_echo("verify web1 --repo /r --threads 2 --sample 0.5% --limit-rate "
               "10M --read-only",
               "{\"repo\":\"/r\",\"what\":\"web1\",\"threads\":2,"
               "\"structure\":false,\"sample\":50,\"limit_rate\":10485760,"
               "\"resume\":false,\"read_only\":true}");
    check_echo("check --repo /r --repair --dry-run --threads 3",
               "{\"repo\":\"/r\",\"repair\":true,\"dry_run\":true,"
               "\"threads\":3}");
}

/* The option wins over the environment, an empty variable is none. */
static void
test_repo_from_environment(void)
{
    struct run r = RUN_INIT;

    run_line(&r, "points", "TIDEMARK_REPO=/r");
    CHECK(r.status == 0);
    run_done(&r);
    run_line(&r, "points", "TIDEMARK_REPO=");
    CHECK(r.status == 2);
    CHECK_STR(r.err, "tidemark: error: points: no repository given: use "
                     "--repo DIR or set TIDEMARK_REPO\n");
    run_done(&r);
}

/* Every wrong command line: status 2, nothing on standard output, the text. */
static void
test_usage_errors(void)
{
    static const struct {
        const char *line, *text;
    } cases[] = {
        {"bakup x", "unknown command 'bakup'; did you mean 'backup'?"},
        {"xyzzy", "unknown command 'xyzzy'; see"},
        {"frob", "unknown command 'frob'; see"},
        {"--json points", "options go after the command"},
        {"init", "init: REPO is missing"},
        {"init ", "init: REPO is missing"},
        {"key", "key: ACTION [REPO] [SLOT] is missing"},
        {"key frob r", "'frob' is none of list, add, remove, passwd, export"},
        {"key list", "no repository given"},
        {"key list r s", "key list: one argument too many: 's'"},
        {"key list --repo r s", "key list: one argument too many: 's'"},
        {"key remove", "key remove: SLOT is missing"},
        {"key remove s", "no repository given"},
        {"key remove r s t", "key: one argument too many: 't'"},
        {"init a b", "one argument too many: 'b'"},
        {"init r --chunk-size 65k5", "'65k5' is no power of two"},
        {"init r --chunk-size 8K", "'8K' is no power of two"},
        {"init r --chunk-size 8M", "'8M' is no power of two"},
        {"init r --chunk-size 96K", "'96K' is no power of two"},
        {"backup", "backup: MACHINE is missing"},
        {"backup qmp:/s", "no repository given"},
        {"backup m --repo", "option '--repo' needs a value: DIR"},
        {"backup m --repo= ", "option '--repo': needs a value"},
        {"backup m --repo r --quiesce no", "'no' is none of auto, require"},
        {"backup m --repo r --compress 20", "'20' is no number from 0 to 19"},
        {"backup m --repo r --compress -1", "'-1' is no number from 0 to 19"},
        {"backup m --repo r --threads 0", "'0' is no number from 1 to 256"},
        {"backup m --repo r --threads 1x", "'1x' is no number from 1"},
        {"backup m --repo r --full=yes", "option '--full' takes no value"},
        {"backup m --repo r --nonsense", "option '--nonsense'"},
        {"backup m --repo r -z", "unknown option '-z'"},
        {"backup m --repo r --disk a --exclude a", "both wanted and excluded"},
        {"restore w@x --repo r", "restore: where to? use --to DIR"},
        {"restore w@x --repo r --to t --format vmdk", "'vmdk' is none of"},
        {"show --repo r", "show: NAME@REV is missing"},
        {"prune --repo r --keep-last 0", "'0' is no number from 1 to 1000000"},
        {"prune --repo r --keep-daily few", "'few' is no number"},
        {"prune --repo r --keep-last", "option '--keep-last' needs a value: N"},
        {"backup m --repo r --scratch-max 10K", "'10K' is no size from 1M on"},
        {"backup m --repo r --limit-rate 10", "'10' is no number of bytes"},
        {"gc x --repo r", "gc: takes no argument"},
        {"gc --repo r --rewrite 101", "'101' is no number from 1 to 100"},
        {"gc --repo r --fence-after 10", "'10' is no length of time"},
        {"gc --repo r --fence-after 0s", "'0s' is no length of time"},
        {"diff a@1 --repo r", "diff: the second point is missing"},
        {"diff a b c --repo r", "diff: one argument too many: 'c'"},
        {"stats a b --repo r", "stats: one argument too many: 'b'"},
        {"doctor", "doctor: MACHINE is missing"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct run r = RUN_INIT;

        run_line(&r, cases[i].line, NULL);
        CHECK(r.status == 2);
        if (strstr(cases[i].line, "--json") == NULL)
            CHECK_STR(r.out, "");
        CHECK(strncmp(r.err, "tidemark: error: ", 17) == 0);
        CHECK(strstr(r.err, cases[i].text) != NULL);
        CHECK(strchr(r.err, '\n') == strrchr(r.err, '\n'));
        if (r.status != 2 || strstr(r.err, cases[i].text) == NULL)
            printf("# %s: %d, %s", cases[i].line, r.status, r.err);
        run_done(&r);
    }
}

static void
test_help_and_version(void)
{
    struct run r = RUN_INIT;

    run_line(&r, "--version", NULL);
    CHECK(r.status == 0);
    CHECK_STR(r.out, "tidemark " TIDEMARK_VERSION "\n");
    run_done(&r);
    run_line(&r, "--help", NULL);
    CHECK(r.status == 0 && strstr(r.out, "  restore ") != NULL);
    run_done(&r);
    run_line(&r, "backup --help", NULL);
    CHECK(r.status == 0 && strstr(r.out, "--quiesce HOW") != NULL);
    CHECK(strstr(r.out, "-q, --quiet") != NULL);
    run_done(&r);
    run_line(&r, "", NULL);
    CHECK(r.status == 2);
    CHECK_STR(r.out, "");
    run_done(&r);
}

/* A person's view of a backup. */
static void
test_backup_table(void)
{
    struct run r = RUN_INIT;

    run_line(&r, "backup qmp:/s --repo /r", "FAKE_STEPS=3");
    CHECK(r.status == 0);
    CHECK_STR(
        r.out,
        "DISK  TRACKING            SIZE     READ      NEW     STORED\n"
        "vda   full: new disk  20.0 GiB  1.5 GiB  1.0 GiB  512.0 MiB\n"
        "point web1@1f3a9c committed, file system consistent, frozen 45 ms\n");
    CHECK_STR(r.err, "");
    run_done(&r);
    run_line(&r, "backup qmp:/s --repo /r --quiet", "FAKE_STEPS=3");
    CHECK(r.status == 0);
    CHECK_STR(r.out, "");
    CHECK_STR(r.err, "");
    run_done(&r);
}

/* A disk that is not in the point is named, with the reason. */
static void
test_backup_names_what_it_left_out(void)
{
    struct run r = RUN_INIT;

    run_line(&r, "backup qmp:/s --repo /r",
             "FAKE_EVENTS=[{\"event\":\"plan\",\"disks\":[],\"skipped\":["
             "{\"disk\":\"cd0\",\"why\":\"CD-ROM\"},{}]}]");
    CHECK(r.status == 0);
    CHECK(strstr(r.out, "\nnot taken: cd0 (CD-ROM)\n") != NULL);
    run_done(&r);
}

static void
test_other_tables(void)
{
    struct run r = RUN_INIT;

    run_line(&r, "points --repo /r", NULL);
    CHECK(strstr(r.out, "\nweb1@1f3a9c  2026-11-20T18:00:00Z  file system") !=
          NULL);
    run_done(&r);
    run_line(&r, "show web1@latest --repo /r", NULL);
    CHECK(strstr(r.out, "web1@1f3a9c00112233445566778899aabbcc\n") != NULL);
    CHECK(strstr(r.out, "full: new disk") != NULL);
    run_done(&r);
    run_line(&r, "restore web1@latest --repo /r --to /r", NULL);
    CHECK(strstr(r.out, "vda   20.0 GiB  1.0 GiB  /r/vda.qcow2\n") != NULL);
    CHECK(strstr(r.out, "point web1@1f3a9c restored to '/r'\n") != NULL);
    run_done(&r);
    run_line(&r, "verify --repo /r", NULL);
    CHECK_STR(r.out, "checked 3 points, 4096 chunks, 256.0 MiB: no damage "
                     "found\n");
    run_done(&r);
    run_line(&r, "init /r --chunk-size 128K", NULL);
    CHECK_STR(r.out, "repository 00ff made in '/r', chunks of 128.0 KiB\n");
    run_done(&r);
    run_line(&r, "doctor qmp:/s", NULL);
    CHECK(strstr(r.out, "machine              web1\n") != NULL);
    CHECK(strstr(r.out,
                 "  disk  size      iothread  bitmaps  skipped\n"
                 "  vda   64.0 KiB  false     2        -\n"
                 "  cd0   -         -         -        CD-ROM\n") != NULL);
    CHECK(strstr(r.out, "warnings") == NULL);
    run_done(&r);
}

/* Two points that begin alike get as many digits as tell them apart. */
static void
test_points_short_names_are_unique(void)
{
    struct run r = RUN_INIT;

    run_line(&r, "points --repo /r",
             "FAKE_RESULT={\"points\":["
             "{\"machine\":\"w\",\"point\":\"abcdef0123\"},"
             "{\"machine\":\"w\",\"point\":\"0000000000\"},"
             "{\"machine\":\"w\",\"point\":\"abcdef0199\"}]}");
    CHECK(strstr(r.out, "w@abcdef012 ") != NULL);
    CHECK(strstr(r.out, "w@abcdef019 ") != NULL);
    run_done(&r);
}

/* A machine's name has up to 255 bytes, and the id must follow it. */
static void
test_long_names_are_whole(void)
{
    static const char *const lines[] = {"backup qmp:/s --repo /r",
                                        "restore n@latest --repo /r --to /t",
                                        "points --repo /r"};
    char name[256], env[700];

    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        struct run r = RUN_INIT;

        (void)snprintf(env, sizeof env,
                       i == 2 ? "FAKE_RESULT={\"points\":[{\"machine\":"
                                "\"%s\",\"point\":\"abcdef0123\"}]}"
                              : "FAKE_RESULT={\"machine\":\"%s\","
                                "\"point\":\"abcdef0123\"}",
                       name);
        run_line(&r, lines[i], env);
        CHECK(strstr(r.out, "nnn@abcdef ") != NULL);
        run_done(&r);
    }
}

/* Each line of standard output is one object; returns the last, owned. */
static struct jv *
json_lines(const char *out, size_t *ret_n)
{
    struct jv *last = NULL;
    struct err err = ERR_INIT;

    *ret_n = 0;
    for (const char *p = out; *p != '\0'; (*ret_n)++) {
        const char *end = strchrnul(p, '\n');

        jv_free(last);
        last = NULL;
        CHECK_OK(jv_parse(p, (size_t)(end - p), 16, &last, &err), &err);
        CHECK(jv_is_object(last));
        CHECK(*end == '\n');
        p = *end == '\0' ? end : end + 1;
    }
    return last;
}

static void
test_json_of_every_command(void)
{
    static const struct {
        const char *line, *key, *event;
    } cases[] = {
        {"init /r --json", "chunk_size", NULL},
        {"backup qmp:/s --repo /r --json", "disks", "committed"},
        {"points --repo /r --json", "points", NULL},
        {"show w@x --repo /r --json", "config", NULL},
        {"restore w@x --repo /r --to /t --json", "disks", "restored"},
        {"verify --repo /r --json", "problems", NULL},
        {"doctor qmp:/s --json", "disks", NULL},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_JV struct jv *v = NULL;
        struct run r = RUN_INIT;
        size_t n;

        run_line(&r, cases[i].line, NULL);
        CHECK(r.status == 0);
        CHECK_STR(r.err, "");
        v = json_lines(r.out, &n);
        CHECK(n == 1);
        CHECK(jv_get(v, cases[i].key) != NULL);
        if (cases[i].event != NULL)
            CHECK_STR(jv_get_str(v, "event"), cases[i].event);
        run_done(&r);
    }
}

static void
test_json_events(void)
{
    static const char events[] =
        "FAKE_EVENTS=[{\"event\":\"frozen\"},"
        "{\"event\":\"warning\",\"message\":\"watch out\"}]";
    static const char *const env[] = {events, "FAKE_STEPS=5", NULL};
    CLEANUP_JV struct jv *v = NULL;
    struct run r = {.env = env};
    size_t n;

    run_line(&r, "backup qmp:/s --repo /r --json", NULL);
    CHECK(r.status == 1);
    CHECK_STR(r.err, "tidemark: warning: watch out\n");
    v = json_lines(r.out, &n);
    CHECK(n == 4); /* two events, the first progress, the result */
    CHECK(strstr(r.out, "\"event\":\"progress\",\"phase\":\"read\"") != NULL);
    CHECK_STR(jv_get_str(v, "event"), "committed");
    run_done(&r);
}

static void
test_json_usage_error(void)
{
    CLEANUP_JV struct jv *v = NULL;
    struct run r = RUN_INIT;
    size_t n;

    run_line(&r, "backup --json", NULL);
    CHECK(r.status == 2);
    v = json_lines(r.out, &n);
    CHECK_STR(jv_get_str(v, "code"), "usage");
    run_done(&r);
}

/* Nothing that a guest or a repository can name reaches a terminal raw. */
static void
test_hostile_names(void)
{
    static const struct {
        const char *line, *env;
    } cases[] = {
        {"backup qmp:/s --repo /r",
         "FAKE_RESULT={\"machine\":\"w\\u001b[2J\",\"point\":\"a\\u001bb\","
         "\"consistency\":\"\\u0007\",\"note\":\"\\u009b31m\","
         "\"warnings\":[\"\\u001b]0;t\\u0007\",\"line\\ntidemark: fake\"],"
         "\"disks\":[{\"disk\":\"\\u001b[1m\\r\",\"tracking\":\"\\b\","
         "\"reason\":\"\\u202edesrever\"}]}"},
        {"backup qmp:/s --repo /r",
         "FAKE_EVENTS=[{\"event\":\"warning\",\"message\":\"\\u001b[2J\"}]"},
        {"backup qmp:/s --repo /r --debug", NULL},
        {"backup qmp:/s --repo /r", "FAKE_ERROR=8 1 \033[2J\007\177"},
        {"points --repo /r",
         "FAKE_RESULT={\"points\":[{\"machine\":\"\\u001b[2J\",\"time\":"
         "\"\\u001b\",\"point\":\"1\",\"consistency\":\"\\u001b\"}],"
         "\"problems\":[\"\\u001b[2J\"]}"},
        {"show w@x --repo /r",
         "FAKE_RESULT={\"machine\":\"\\u001b[2J\",\"parent\":\"\\u001b\","
         "\"capture\":\"\\u001b\",\"time\":\"\\u001b\"}"},
        {"restore w@x --repo /r --to /t",
         "FAKE_RESULT={\"disks\":[{\"disk\":\"\\u001b\",\"file\":\"\\u009b"
         "\"}]}"},
        {"verify --repo /r",
         "FAKE_RESULT={\"problems\":[{\"object\":\"\\u001b\",\"disk\":"
         "\"\\u001b\",\"problem\":\"\\u001b[2J\"}]}"},
        {"doctor qmp:/s",
         "FAKE_RESULT={\"\\u001b[2J\":\"\\u001b\",\"o\":{\"\\u001b\":"
         "\"\\u0007\"},\"t\":[{\"\\u001b\":\"\\u001b\"}],\"l\":"
         "[\"\\u001b\"],\"e\":[],\"warnings\":[\"\\u001b\"],"
         "\"capture\":\"none\"}"},
        {"\033[2J", NULL},
        {"points \033[2J --repo /r", "FAKE_RESULT={}"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct run r = RUN_INIT;

        run_line(&r, cases[i].line, cases[i].env);
        CHECK(r.status < 128);
        CHECK(strpbrk(r.out, "\033\007\177\r\b") == NULL);
        CHECK(strpbrk(r.err, "\033\007\177\r\b") == NULL);
        CHECK(strstr(r.out, "\xc2\x9b") == NULL);
        CHECK(strstr(r.out, "\xe2\x80\xae") == NULL);
        CHECK(strstr(r.err, "\ntidemark: fake") == NULL);
        run_done(&r);
    }
}

/* Shapes that are not as promised are shown as well as can be, never a crash:
 * a newer job library or a damaged record may send them. */
static void
test_strange_results(void)
{
    static const char *const lines[] = {"backup qmp:/s --repo /r",
                                        "points --repo /r",
                                        "show w@x --repo /r",
                                        "restore w@x --repo /r --to /t",
                                        "verify --repo /r",
                                        "doctor qmp:/s",
                                        "backup qmp:/s --repo /r --json"};
    static const char *const results[] = {
        "FAKE_RESULT={}",
        "FAKE_RESULT={\"disks\":5,\"points\":{},"
        "\"problems\":\"x\",\"warnings\":7}",
        "FAKE_RESULT={\"disks\":[1,null,{}],\"points\":[1,null,[]],"
        "\"problems\":[1,{}],\"warnings\":[1,{}]}",
        "FAKE_RESULT={\"disks\":[{\"size\":-1,\"disk\":{}}]}",
        "FAKE_RESULT={\"a\":[[[[[[[[[[[[1]]]]]]]]]]]]}",
        "FAKE_RESULT={\"a\":[{\"b\":1},{\"c\":2}],\"d\":[{\"e\":{}}]}"};

    for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
        for (size_t j = 0; j < ARRAY_SIZE(results); j++) {
            struct run r = RUN_INIT;

            run_line(&r, lines[i], results[j]);
            CHECK(r.status <= 5);
            run_done(&r);
        }
}

static void
test_bar_on_terminal(void)
{
    struct run r = {.terminal = true};
    const char *clear;

    run_line(&r, "backup qmp:/s --repo /r", "FAKE_STEPS=2");
    CHECK(r.status == 0);
    CHECK(strstr(r.err, "\r\033[Kread  [") != NULL);
    CHECK(strstr(r.err, "1.0 MiB of 2.0 MiB") != NULL);
    clear = strrchr(r.err, '\r');
    CHECK(clear != NULL && strcmp(clear, "\r\033[K") == 0);
    run_done(&r);
    r.terminal = true;
    run_line(&r, "backup qmp:/s --repo /r --quiet", "FAKE_STEPS=2");
    CHECK_STR(r.err, "");
    run_done(&r);
}

/* The trace goes to standard error, one line per line. */
static void
test_debug(void)
{
    struct run r = RUN_INIT;

    run_line(&r, "backup qmp:/s --repo /r --debug", NULL);
    CHECK(r.status == 0);
    CHECK_STR(r.err, "tidemark: debug: backup of qmp:/s\\n\\x1b[2J\n");
    run_done(&r);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_backup_defaults),
        TEST(test_backup_all_options),
        TEST(test_backup_impact_options),
        TEST(test_waiting_for_the_guest_is_told),
        TEST(test_restore_and_verify_options),
        TEST(test_repo_from_environment),
        TEST(test_usage_errors),
        TEST(test_help_and_version),
        TEST(test_backup_table),
        TEST(test_backup_names_what_it_left_out),
        TEST(test_other_tables),
        TEST(test_points_short_names_are_unique),
        TEST(test_long_names_are_whole),
        TEST(test_json_of_every_command),
        TEST(test_json_events),
        TEST(test_json_usage_error),
        TEST(test_hostile_names),
        TEST(test_strange_results),
        TEST(test_bar_on_terminal),
        TEST(test_debug),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
