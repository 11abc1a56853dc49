/* Signals ask a job to stop; they never kill it in the middle. */
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "run.h"
#include "tap.h"

#define WAIT_MS 20000u

static char ready[128], env_wait[160];

/* Start a job that waits, and return when it does. */
static void
start(struct run *r, const char *line)
{
    static const char *const env[] = {env_wait, NULL};
    struct deadline d = deadline_in(WAIT_MS);

    (void)snprintf(ready, sizeof ready, "%s/ready", run_dir());
    (void)snprintf(env_wait, sizeof env_wait, "FAKE_WAIT=%s", ready);
    (void)unlink(ready);
    r->env = env;
    run_start(r, line);
    while (access(ready, F_OK) != 0 && deadline_left(d) > 0)
        (void)poll(NULL, 0, 1);
}

static void
test_signals_interrupt(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    static const char *const lines[] = {"backup qmp:/s --repo /r",
                                        "restore w@x --repo /r --to /t",
                                        "verify --repo /r"};
    static const char *const go_on[] = {
        "", "", "; go on with: tidemark verify --resume"};

    for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
        struct run r = RUN_INIT;
        char said[128];

        (void)snprintf(said, sizeof said,
                       "tidemark: error: stopped on request%s\n", go_on[i]);
        start(&r, lines[i]);
        CHECK(kill(r.pid, signals[i]) == 0);
        (void)unlink(ready);
        run_wait(&r);
        CHECK(r.status == 130);
        CHECK_STR(r.out, "");
        CHECK_STR(r.err, said);
        run_done(&r);
    }
}

/* The second one only says that the clean-up is under way. */
static void
test_second_signal_does_not_kill(void)
{
    struct deadline d = deadline_in(WAIT_MS);
    struct run r = RUN_INIT;
    char text[256] = "";

    start(&r, "backup qmp:/s --repo /r");
    CHECK(kill(r.pid, SIGINT) == 0);
    /* Two pending signals of one kind are one: send until it is told. */
    while (strstr(text, "cleaning up") == NULL && deadline_left(d) > 0) {
        (void)kill(r.pid, SIGINT);
        (void)poll(NULL, 0, 1);
        (void)!pread(r.err_fd, text, sizeof text - 1, 0);
    }
    CHECK(strstr(text, "tidemark: already stopping: cleaning up") != NULL);
    (void)unlink(ready);
    run_wait(&r);
    CHECK(r.status == 130);
    run_done(&r);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_signals_interrupt),
        TEST(test_second_signal_does_not_kill),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
