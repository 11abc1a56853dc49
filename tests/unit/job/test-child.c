/* A child ends in time or is ended; what it said is in the error. */
#include "child.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "err.h"
#include "tap.h"

static void
test_success_is_success(void)
{
    const char *argv[] = {"true", NULL};
    struct child c = CHILD_INIT;
    struct err err = ERR_INIT;

    CHECK_OK(child_start(argv, &c, &err), &err);
    CHECK_OK(child_wait(&c, 10000, &err), &err);
    child_done(&c);
}

static void
test_failure_has_status_and_last_words(void)
{
    const char *argv[] = {"sh", "-c",
                          "echo one; echo 'no such disk' >&2; exit 3", NULL};
    struct child c = CHILD_INIT;
    struct err err = ERR_INIT;

    CHECK_OK(child_start(argv, &c, &err), &err);
    CHECK(child_wait(&c, 10000, &err) < 0);
    CHECK_STR(err.msg, "'sh' failed with status 3: one no such disk");
    child_done(&c);
}

static void
test_missing_program_is_named(void)
{
    const char *argv[] = {"no-such-program-here", NULL};
    struct child c = CHILD_INIT;
    struct err err = ERR_INIT;

    CHECK(child_start(argv, &c, &err) < 0);
    CHECK(err.code == ERR_NOT_FOUND);
    CHECK(strstr(err.msg, "no-such-program-here") != NULL);
}

static void
test_deadline_kills(void)
{
    const char *argv[] = {"sleep", "1000", NULL};
    struct child c = CHILD_INIT;
    struct err err = ERR_INIT;
    pid_t pid;

    CHECK_OK(child_start(argv, &c, &err), &err);
    pid = c.pid;
    CHECK(child_wait(&c, 50, &err) < 0);
    CHECK(err.code == ERR_TIMEOUT);
    CHECK(kill(pid, 0) < 0 && errno == ESRCH); /* dead and reaped */
    child_done(&c);
}

static void
test_stop_of_a_deaf_child_kills(void)
{
    const char *argv[] = {"sh", "-c",
                          "trap '' TERM; while :; do sleep 1000; done", NULL};
    struct child c = CHILD_INIT;
    struct err err = ERR_INIT;
    pid_t pid;

    CHECK_OK(child_start(argv, &c, &err), &err);
    pid = c.pid;
    CHECK(child_stop(&c, 200, &err) < 0);
    CHECK(kill(pid, 0) < 0 && errno == ESRCH);
    child_done(&c);
}

static void
test_done_leaves_nothing(void)
{
    const char *argv[] = {"sleep", "1000", NULL};
    struct child c = CHILD_INIT;
    pid_t pid;

    CHECK_OK(child_start(argv, &c, ERR_ABORT), ERR_ABORT);
    pid = c.pid;
    CHECK(!child_ended(&c, 0));
    child_done(&c);
    child_done(&c); /* twice is fine */
    CHECK(kill(pid, 0) < 0 && errno == ESRCH);
}

/* A parent that is killed takes its child along. */
static void
test_child_does_not_outlive_us(void)
{
    int fds[2];
    char byte;
    pid_t parent;

    CHECK(pipe(fds) == 0);
    parent = fork();
    if (parent == 0) {
        const char *argv[] = {"sleep", "1000", NULL};
        struct child c = CHILD_INIT;

        /* The write end is open in us and in the child: at its end the reader
         * sees the end of the pipe. */
        (void)close(fds[0]);
        CHECK_OK(child_start(argv, &c, ERR_ABORT), ERR_ABORT);
        (void)!write(fds[1], "x", 1);
        (void)raise(SIGKILL);
    }
    (void)close(fds[1]);
    CHECK(read(fds[0], &byte, 1) == 1);
    CHECK(waitpid(parent, NULL, 0) == parent);
    (void)alarm(30); /* the deadline of the next read */
    CHECK(read(fds[0], &byte, 1) == 0);
    (void)alarm(0);
    (void)close(fds[0]);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_success_is_success),
        TEST(test_failure_has_status_and_last_words),
        TEST(test_missing_program_is_named),
        TEST(test_deadline_kills),
        TEST(test_stop_of_a_deaf_child_kills),
        TEST(test_done_leaves_nothing),
        TEST(test_child_does_not_outlive_us),
    };

    return tap_run(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
