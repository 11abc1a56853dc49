/* The exit status is a contract: every code from every side, for every
 * command that can fail so. */
#include "err.h"
#include "exitcode.h"
#include "run.h"
#include "tap.h"

#include "cleanup.h"
#include "jv.h"

static int
status(enum command_id command, enum err_code code, enum err_side side)
{
    struct err err = {.code = code, .side = side};

    return (int)exit_status_of(command, &err);
}

/* Whoever asks and wherever it comes from. */
static void
test_codes_that_say_all(void)
{
    for (int c = CMD_NONE; c <= CMD_DOCTOR; c++)
        for (int s = ERR_SIDE_NONE; s <= ERR_SIDE_TARGET; s++) {
            enum command_id cmd = (enum command_id)c;
            enum err_side side = (enum err_side)s;

            CHECK(status(cmd, ERR_CANCELED, side) == 130);
            CHECK(status(cmd, ERR_LOCKED, side) == 6);
            CHECK(status(cmd, ERR_USAGE, side) == 2);
        }
}

static void
test_machine_side(void)
{
    static const enum err_code unreachable[] = {ERR_SYSTEM,    ERR_FORMAT,
                                                ERR_NOT_FOUND, ERR_PROTOCOL,
                                                ERR_TIMEOUT,   ERR_CLOSED};
    static const enum err_code reached[] = {
        ERR_REMOTE, ERR_UNSUPPORTED, ERR_NO_SPACE, ERR_EXISTS, ERR_CORRUPT};

    for (size_t i = 0; i < ARRAY_SIZE(unreachable); i++) {
        CHECK(status(CMD_BACKUP, unreachable[i], ERR_SIDE_MACHINE) == 3);
        CHECK(status(CMD_DOCTOR, unreachable[i], ERR_SIDE_MACHINE) == 3);
    }
    for (size_t i = 0; i < ARRAY_SIZE(reached); i++)
        CHECK(status(CMD_BACKUP, reached[i], ERR_SIDE_MACHINE) == 5);
}

static const enum err_code failures[] = {
    ERR_SYSTEM, ERR_FORMAT,  ERR_CORRUPT, ERR_NOT_FOUND,   ERR_EXISTS,
    ERR_REMOTE, ERR_TIMEOUT, ERR_CLOSED,  ERR_UNSUPPORTED, ERR_NO_SPACE,
};

static void
test_repo_and_target_side(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(failures); i++) {
        CHECK(status(CMD_BACKUP, failures[i], ERR_SIDE_REPO) == 4);
        CHECK(status(CMD_VERIFY, failures[i], ERR_SIDE_REPO) == 4);
        CHECK(status(CMD_RESTORE, failures[i], ERR_SIDE_TARGET) == 5);
    }
}

/* No side: a backup that lost its machine half way is "nothing committed",
 * commands that know only a repository blame that. */
static void
test_no_side(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(failures); i++) {
        enum err_code code = failures[i];

        CHECK(status(CMD_BACKUP, code, ERR_SIDE_NONE) ==
              (code == ERR_CORRUPT ? 4 : 5));
        CHECK(status(CMD_INIT, code, ERR_SIDE_NONE) == 4);
        CHECK(status(CMD_POINTS, code, ERR_SIDE_NONE) == 4);
        CHECK(status(CMD_SHOW, code, ERR_SIDE_NONE) == 4);
        CHECK(status(CMD_VERIFY, code, ERR_SIDE_NONE) == 4);
        for (int c = CMD_PRUNE; c <= CMD_STATS; c++)
            CHECK(status((enum command_id)c, code, ERR_SIDE_NONE) == 4);
    }
    CHECK(status(CMD_DOCTOR, ERR_TIMEOUT, ERR_SIDE_NONE) == 3);
    CHECK(status(CMD_DOCTOR, ERR_REMOTE, ERR_SIDE_NONE) == 5);
    CHECK(status(CMD_RESTORE, ERR_NOT_FOUND, ERR_SIDE_NONE) == 4);
    CHECK(status(CMD_RESTORE, ERR_SYSTEM, ERR_SIDE_NONE) == 5);
}

/* The program really ends so, with one line for people and, asked for, one
 * object for programs. */
static void
test_program_ends_so(void)
{
    for (int code = ERR_SYSTEM; code <= ERR_USAGE; code++) {
        struct run r = RUN_INIT;
        CLEANUP_JV struct jv *v = NULL;
        struct err err = ERR_INIT;
        char env[64];
        int64_t n = -1;
        int want = status(CMD_BACKUP, (enum err_code)code, ERR_SIDE_MACHINE);

        (void)snprintf(env, sizeof env, "FAKE_ERROR=%d %d it broke", code,
                       ERR_SIDE_MACHINE);
        run_line(&r, "backup qmp:/s --repo /r --json", env);
        CHECK(r.status == want);
        CHECK_STR(r.err, "tidemark: error: job: it broke\n");
        CHECK_OK(jv_parse(r.out, strlen(r.out), 8, &v, &err), &err);
        CHECK_STR(jv_get_str(v, "event"), "error");
        CHECK_STR(jv_get_str(v, "code"), err_code_name((enum err_code)code));
        CHECK_STR(jv_get_str(v, "message"), "job: it broke");
        CHECK(jv_get_int(v, "exit_status", &n) && n == want);
        run_done(&r);
        run_line(&r, "backup qmp:/s --repo /r", env);
        CHECK(r.status == want);
        CHECK_STR(r.out, "");
        run_done(&r);
    }
}

/* Success that nobody was told of is no success. */
static void
test_full_standard_output(void)
{
    static const char *const lines[] = {
        "backup qmp:/s --repo /r", "points --repo /r --json",
        "backup qmp:/s --repo /r --json", "doctor qmp:/s"};

    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        struct run r = {.out_file = "/dev/full"};

        run_line(&r, lines[i], NULL);
        CHECK(r.status == 5);
        CHECK(strstr(r.err, "standard output: No space left") != NULL);
        CHECK((strstr(r.err, "the point is committed") != NULL) ==
              (strncmp(lines[i], "backup", 6) == 0));
        run_done(&r);
    }
}

static void
test_warning_status(void)
{
    struct run r = RUN_INIT;

    run_line(&r, "backup qmp:/s --repo /r",
             "FAKE_RESULT={\"machine\":\"w\",\"point\":\"abcdef01\","
             "\"consistency\":\"crash\",\"note\":\"no agent\","
             "\"warnings\":[\"a\",\"b\",\"a\"],\"disks\":[]}");
    CHECK(r.status == 1);
    CHECK_STR(r.err, "tidemark: warning: a\ntidemark: warning: b\n");
    CHECK(strstr(r.out, "point w@abcdef committed, crash consistent "
                        "(no agent)\n") != NULL);
    run_done(&r);
    run_line(&r, "points --repo /r",
             "FAKE_RESULT={\"points\":[],\"problems\":[\"bad commit\"]}");
    CHECK(r.status == 1);
    CHECK_STR(r.err, "tidemark: warning: bad commit\n");
    run_done(&r);
    run_line(&r, "doctor qmp:/s", "FAKE_RESULT={\"warnings\":[\"old QEMU\"]}");
    CHECK(r.status == 1);
    run_done(&r);
    run_line(&r, "doctor qmp:/s",
             "FAKE_RESULT={\"capture\":\"none\","
             "\"warnings\":[\"needs QEMU 5.2\"]}");
    CHECK(r.status == 5);
    CHECK_STR(r.err, "tidemark: warning: needs QEMU 5.2\n"
                     "tidemark: error: this machine cannot be backed up as it "
                     "is\n");
    run_done(&r);
    run_line(&r, "doctor qmp:/s",
             "FAKE_RESULT={\"capture\":\"pull\",\"disks\":["
             "{\"disk\":\"cd0\",\"skipped\":\"no medium\"}]}");
    CHECK(r.status == 5);
    run_done(&r);
    run_line(&r, "doctor qmp:/s",
             "FAKE_RESULT={\"capture\":\"pull\",\"disks\":[]}");
    CHECK(r.status == 5);
    run_done(&r);
}

static void
test_damage(void)
{
    static const char damage[] =
        "FAKE_RESULT={\"points\":1,\"chunks\":2,\"bytes\":3,\"problems\":[{"
        "\"machine\":\"w\",\"point\":\"w@abcdef\",\"disk\":\"vda\","
        "\"offset\":65536,\"length\":65536,\"problem\":\"chunk is damaged\"},"
        "{\"object\":\"packs/1\",\"problem\":\"missing\"}]}";
    struct run r = RUN_INIT;

    run_line(&r, "verify --repo /r", damage);
    CHECK(r.status == 5);
    CHECK(strstr(r.out, "w@abcdef  vda    65536  65536  chunk is damaged\n") !=
          NULL);
    CHECK(strstr(r.out, "packs/1   -          -      -  missing\n") != NULL);
    CHECK(strstr(r.err, "damage found: 2 problems") != NULL);
    run_done(&r);
    run_line(&r, "verify --repo /r --json", damage);
    CHECK(r.status == 5);
    CHECK(strchr(r.out, '\n') == strrchr(r.out, '\n'));
    run_done(&r);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_codes_that_say_all),   TEST(test_machine_side),
        TEST(test_repo_and_target_side), TEST(test_no_side),
        TEST(test_program_ends_so),      TEST(test_full_standard_output),
        TEST(test_warning_status),       TEST(test_damage),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
