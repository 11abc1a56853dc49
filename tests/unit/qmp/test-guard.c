/* The guard: whatever happens to whom, the guest gets thawed. */
#include "guard.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "fake.h"
#include "guard_impl.h"
#include "jv.h"
#include "tap.h"

#define AWAIT_MS 20000u

static const struct guard_times patient = {.agent_ms = 20000,
                                           .hold_ms = 20000,
                                           .try_ms = 5000,
                                           .pause_ms = 10,
                                           .thaw_ms = 20000,
                                           .reply_ms = 20000};

static struct guard *
started(struct fake *f, const struct guard_times *times)
{
    struct guard *g = NULL;

    fake_start(f, fake_agent);
    CHECK(guard_start_times(f->path, times, &g, ERR_ABORT) == 0);
    return g;
}

/* Wait for the end of a process that need not be our child. */
static bool
await_end(int pid)
{
    struct deadline until = deadline_in(AWAIT_MS);

    while (kill(pid, 0) == 0) {
        (void)waitpid(pid, NULL, WNOHANG);
        if (deadline_left(until) == 0)
            return false;
        (void)poll(NULL, 0, 2);
    }
    return true;
}

/* -- the normal path --------------------------------------------------------*/

static void
test_freeze_and_thaw(void)
{
    struct guard_report r = {0};
    unsigned n = 0;
    bool frozen = true;
    struct fake f;
    struct guard *g = started(&f, &patient);
    int pid = guard_pid(g);

    CHECK(guard_frozen(g, &frozen, ERR_ABORT) == 0 && !frozen);
    CHECK(guard_freeze(g, &n, ERR_ABORT) == 0 && n == 2);
    CHECK(f.shared->frozen == 1);
    CHECK(guard_frozen(g, &frozen, ERR_ABORT) == 0 && frozen);
    CHECK(guard_thaw(g, &r, ERR_ABORT) == 0);
    CHECK(r.held && r.thaw_confirmed && r.filesystems == 2 && r.thawed == 2);
    CHECK_STR(r.note, "");
    CHECK(f.shared->frozen == 0);
    /* And once more with the same guard. */
    CHECK(guard_freeze(g, &n, ERR_ABORT) == 0 && n == 2);
    CHECK(guard_thaw(g, &r, ERR_ABORT) == 0 && r.held);
    guard_stop(g);
    CHECK(waitpid(pid, NULL, 0) == -1); /* reaped: no zombie */
    CHECK(kill(pid, 0) == -1);
    fake_stop(&f);
}

static void
test_no_file_systems_is_told(void)
{
    struct guard_report r = {0};
    unsigned n = 9;
    struct fake f;
    struct guard *g = started(&f, &patient);

    f.shared->n_filesystems = 0;
    CHECK(guard_freeze(g, &n, ERR_ABORT) == 0 && n == 0);
    CHECK(guard_thaw(g, &r, ERR_ABORT) == 0 && r.filesystems == 0);
    guard_stop(g);
    fake_stop(&f);
}

static void
test_guest_info(void)
{
    CLEANUP_JV struct jv *j = NULL;
    struct fake f;
    struct guard *g = started(&f, &patient);

    CHECK(guard_guest_info(g, &j, ERR_ABORT) == 0);
    CHECK(jv_size(jv_get(j, "fsinfo")) == 1);
    CHECK(jv_is_object(jv_get(j, "osinfo")));
    guard_stop(g);
    fake_stop(&f);
}

static void
test_thaw_is_safe_when_not_frozen(void)
{
    struct guard_report r = {.held = true};
    struct fake f;
    struct guard *g = started(&f, &patient);

    CHECK(guard_thaw(g, &r, ERR_ABORT) == 0);
    CHECK(!r.held && r.thaw_confirmed && r.filesystems == 0);
    CHECK(strstr(r.note, "not frozen by this run") != NULL);
    /* Frozen by somebody who died: the same call thaws. */
    f.shared->frozen = 1;
    CHECK(guard_thaw(g, &r, ERR_ABORT) == 0);
    CHECK(!r.held && r.thawed == 2 && f.shared->frozen == 0);
    guard_stop(g);
    fake_stop(&f);
}

/* -- the parent dies --------------------------------------------------------*/

/* A program that freezes and then is killed with SIGKILL. */
static void
freeze_and_die(struct fake *f, atomic_int *guard)
{
    struct guard *g = NULL;
    unsigned n;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (guard_start_times(f->path, &patient, &g, NULL) == 0 &&
        guard_freeze(g, &n, NULL) == 0)
        *guard = guard_pid(g);
    for (;;)
        (void)pause();
}

static void
test_parent_killed(void)
{
    atomic_int *guard = mmap(NULL, sizeof *guard, PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct deadline until = deadline_in(AWAIT_MS);
    struct fake f;
    pid_t pid;

    fake_start(&f, fake_agent);
    (void)fflush(NULL);
    pid = fork();
    if (pid == 0)
        freeze_and_die(&f, guard);
    while (*guard == 0 && deadline_left(until) > 0)
        (void)poll(NULL, 0, 2);
    CHECK(*guard != 0 && f.shared->frozen == 1);
    /* What a terminal or a service manager sends does not end the guard. */
    for (size_t i = 0; *guard != 0 && i < 4; i++)
        CHECK(kill(*guard, (int[]){SIGINT, SIGTERM, SIGHUP, SIGQUIT}[i]) == 0);
    CHECK(fake_count(&f, "guest-fsfreeze-thaw") == 0);
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    CHECK(fake_await(&f, "guest-fsfreeze-thaw", 1));
    CHECK(f.shared->frozen == 0);
    CHECK(await_end(*guard));
    (void)munmap(guard, sizeof *guard);
    fake_stop(&f);
}

static void
test_stop_without_thaw_thaws(void)
{
    unsigned n;
    struct fake f;
    struct guard *g = started(&f, &patient);

    CHECK(guard_freeze(g, &n, ERR_ABORT) == 0);
    guard_stop(g);
    CHECK(f.shared->frozen == 0);
    fake_stop(&f);
}

/* The guard must not hold the parent's descriptors: somebody may wait for the
 * end of file on a pipe. */
static void
test_guard_keeps_no_descriptors(void)
{
    struct pollfd p;
    struct fake f;
    struct guard *g;
    int fds[2];
    char c;

    CHECK(pipe(fds) == 0);
    g = started(&f, &patient);
    (void)kill(f.pid, SIGKILL); /* the fake has it too */
    (void)close(fds[1]);
    p.fd = fds[0];
    p.events = POLLIN;
    CHECK(poll(&p, 1, (int)AWAIT_MS) == 1 && read(fds[0], &c, 1) == 0);
    CHECK(kill(guard_pid(g), 0) == 0);
    (void)close(fds[0]);
    guard_stop(g);
    fake_stop(&f);
}

/* -- the hold time ----------------------------------------------------------*/

static void
test_hold_time_over(void)
{
    struct guard_times t = patient;
    struct guard_report r = {.held = true};
    unsigned n;
    struct fake f;
    struct guard *g;

    t.hold_ms = 500;
    g = started(&f, &t);
    CHECK(guard_freeze(g, &n, ERR_ABORT) == 0);
    CHECK(fake_await(&f, "guest-fsfreeze-thaw", 1));
    CHECK(f.shared->frozen == 0);
    CHECK(guard_thaw(g, &r, ERR_ABORT) == 0);
    CHECK(!r.held && r.thaw_confirmed && r.thawed == 2 && r.filesystems == 2);
    CHECK(strstr(r.note, "hold time of 500 ms") != NULL);
    guard_stop(g);
    CHECK(fake_count(&f, "guest-fsfreeze-thaw") == 1);
    fake_stop(&f);
}

/* -- the guard is killed ----------------------------------------------------*/

static void
test_guard_killed_while_frozen(void)
{
    struct guard_report r = {0};
    struct err err = ERR_INIT;
    unsigned n;
    struct fake f;
    struct guard *g = started(&f, &patient);

    CHECK(guard_freeze(g, &n, ERR_ABORT) == 0);
    CHECK(kill(guard_pid(g), SIGKILL) == 0);
    CHECK(guard_thaw(g, &r, ERR_ABORT) == 0);
    CHECK(r.thaw_confirmed && r.filesystems == 2 && r.thawed == 2);
    /* All were still frozen when we thawed: nobody did it before. */
    CHECK(r.held);
    CHECK(f.shared->frozen == 0 && f.shared->n_clients == 2);
    CHECK(guard_freeze(g, &n, &err) == -1 && err.code == ERR_CLOSED);
    guard_stop(g);
    fake_stop(&f);
}

static void
test_guard_killed_and_thawed_by_others(void)
{
    struct guard_report r = {.held = true};
    unsigned n;
    struct fake f;
    struct guard *g = started(&f, &patient);

    CHECK(guard_freeze(g, &n, ERR_ABORT) == 0);
    CHECK(kill(guard_pid(g), SIGKILL) == 0);
    f.shared->frozen = 0;
    CHECK(guard_thaw(g, &r, ERR_ABORT) == 0);
    CHECK(!r.held && r.thaw_confirmed && r.note[0] != '\0');
    guard_stop(g);
    fake_stop(&f);
}

static void
test_guard_killed_and_stop_thaws(void)
{
    unsigned n;
    struct fake f;
    struct guard *g = started(&f, &patient);

    CHECK(guard_freeze(g, &n, ERR_ABORT) == 0);
    CHECK(kill(guard_pid(g), SIGKILL) == 0);
    guard_stop(g);
    CHECK(f.shared->frozen == 0);
    fake_stop(&f);
}

/* -- the agent misbehaves ---------------------------------------------------*/

static void
test_silent_after_freeze(void)
{
    struct guard_times t = patient;
    struct guard_report r = {.held = true};
    struct err err = ERR_INIT;
    unsigned n = 9;
    struct fake f;
    struct guard *g;

    t.hold_ms = 500;
    g = started(&f, &t);
    f.shared->silent_freeze = 1;
    CHECK(guard_freeze(g, &n, &err) == -1 && n == 9);
    CHECK(err.code == ERR_TIMEOUT);
    CHECK(fake_await(&f, "guest-fsfreeze-thaw", 1));
    CHECK(f.shared->frozen == 0);
    CHECK(guard_thaw(g, &r, ERR_ABORT) == 0);
    CHECK(!r.held && r.thaw_confirmed && r.thawed == 2);
    guard_stop(g);
    fake_stop(&f);
}

static void
test_refused_freeze_is_undone_and_can_be_repeated(void)
{
    struct guard_report r = {0};
    struct err err = ERR_INIT;
    unsigned n = 0;
    struct fake f;
    struct guard *g = started(&f, &patient);

    f.shared->refuse_freeze = 1;
    CHECK(guard_freeze(g, &n, &err) == -1);
    CHECK(err.code == ERR_REMOTE && strstr(err.msg, "hook failed") != NULL);
    CHECK(guard_thaw(g, &r, ERR_ABORT) == 0 && !r.held);
    f.shared->refuse_freeze = 0;
    CHECK(guard_freeze(g, &n, ERR_ABORT) == 0 && n == 2);
    CHECK(guard_thaw(g, &r, ERR_ABORT) == 0 && r.held);
    guard_stop(g);
    fake_stop(&f);
}

static void
test_agent_without_freeze(void)
{
    struct guard_report r = {0};
    struct err err = ERR_INIT;
    unsigned n = 0;
    struct fake f;
    struct guard *g = started(&f, &patient);

    f.shared->no_fsfreeze = 1;
    CHECK(guard_freeze(g, &n, &err) == -1 && err.code == ERR_REMOTE);
    /* Nothing can be frozen there: the guard does not try for a minute. */
    CHECK(guard_thaw(g, &r, ERR_ABORT) == 0 && r.thaw_confirmed);
    guard_stop(g);
    fake_stop(&f);
}

static void
test_thaw_refused_at_first(void)
{
    struct guard_report r = {0};
    unsigned n;
    struct fake f;
    struct guard *g = started(&f, &patient);

    CHECK(guard_freeze(g, &n, ERR_ABORT) == 0);
    f.shared->refuse_thaw = 3;
    CHECK(guard_thaw(g, &r, ERR_ABORT) == 0);
    CHECK(r.thaw_confirmed && r.held && r.thawed == 2);
    CHECK(fake_count(&f, "guest-fsfreeze-thaw") == 4);
    guard_stop(g);
    fake_stop(&f);
}

/* As VSS after ten seconds: thawed already, and the thaw is an error. */
static void
test_thaw_refused_because_thawed(void)
{
    struct guard_report r = {.held = true};
    unsigned n;
    struct fake f;
    struct guard *g = started(&f, &patient);

    CHECK(guard_freeze(g, &n, ERR_ABORT) == 0);
    f.shared->frozen = 0;
    f.shared->refuse_thaw = 1;
    CHECK(guard_thaw(g, &r, ERR_ABORT) == 0);
    CHECK(r.thaw_confirmed && !r.held);
    CHECK(strstr(r.note, "cannot thaw") != NULL);
    guard_stop(g);
    fake_stop(&f);
}

static void
test_thawed_by_somebody_else(void)
{
    struct guard_report r = {.held = true};
    unsigned n;
    struct fake f;
    struct guard *g = started(&f, &patient);

    CHECK(guard_freeze(g, &n, ERR_ABORT) == 0);
    f.shared->frozen = 0;
    CHECK(guard_thaw(g, &r, ERR_ABORT) == 0);
    CHECK(r.thaw_confirmed && !r.held);
    CHECK(strstr(r.note, "only 0 of 2") != NULL);
    guard_stop(g);
    fake_stop(&f);
}

/* guard_thaw() gives up, the guard does not, and it outlives guard_stop(). */
static void
test_silent_thaw(void)
{
    struct guard_times t = patient;
    struct guard_report r = {.held = true};
    struct err err = ERR_INIT;
    unsigned n;
    struct fake f;
    struct guard *g;
    int pid;

    t.try_ms = 100;
    t.reply_ms = 300;
    g = started(&f, &t);
    pid = guard_pid(g);
    CHECK(guard_freeze(g, &n, ERR_ABORT) == 0);
    f.shared->silent = 1;
    CHECK(guard_thaw(g, &r, &err) == -1);
    CHECK(err.code == ERR_TIMEOUT && !r.thaw_confirmed && !r.held);
    CHECK(strstr(r.note, "may still be frozen") != NULL);
    guard_stop(g);
    CHECK(kill(pid, 0) == 0 && f.shared->frozen == 1);
    f.shared->silent = 0;
    CHECK(fake_await_value(&f.shared->frozen, 0));
    CHECK(await_end(pid));
    fake_stop(&f);
}

static void
test_guard_gives_up_in_the_end(void)
{
    struct guard_times t = patient;
    struct guard_report r = {.held = true};
    struct err err = ERR_INIT;
    unsigned n;
    struct fake f;
    struct guard *g;

    t.try_ms = 100;
    t.thaw_ms = 300;
    g = started(&f, &t);
    CHECK(guard_freeze(g, &n, ERR_ABORT) == 0);
    f.shared->silent = 1;
    CHECK(guard_thaw(g, &r, &err) == -1);
    CHECK(!r.thaw_confirmed && strstr(r.note, "may still be frozen") != NULL);
    /* Asked again, it tries again. */
    f.shared->silent = 0;
    CHECK(guard_thaw(g, &r, ERR_ABORT) == 0);
    CHECK(r.thaw_confirmed && !r.held && r.thawed == 2);
    guard_stop(g);
    fake_stop(&f);
}

/* -- starting ---------------------------------------------------------------*/

static void
test_no_agent(void)
{
    struct guard_times t = patient;
    struct err err = ERR_INIT;
    struct guard *g = NULL;
    struct fake f;

    t.agent_ms = 200;
    fake_start(&f, fake_agent);
    f.shared->silent = 1;
    CHECK(guard_start_times(f.path, &t, &g, &err) == -1 && g == NULL);
    CHECK(err.code == ERR_TIMEOUT);
    CHECK(waitpid(-1, NULL, WNOHANG) == 0); /* the fake only */
    fake_stop(&f);
    err_clear(&err);
    CHECK(guard_start(f.path, 200, 1000, &g, &err) == -1);
    CHECK(err.code == ERR_SYSTEM && strstr(err.msg, f.path) != NULL);
    CHECK(waitpid(-1, NULL, WNOHANG) == -1); /* no child is left */
}

/* An agent that went away after the start is noticed before a freeze command
 * waits in its queue. */
static void
test_gone_before_the_freeze(void)
{
    struct guard_times t = patient;
    struct err err = ERR_INIT;
    unsigned n = 0;
    struct fake f;
    struct guard *g;

    t.agent_ms = 300;
    g = started(&f, &t);
    f.shared->silent = 1;
    CHECK(guard_freeze(g, &n, &err) == -1 && err.code == ERR_TIMEOUT);
    guard_stop(g);
    CHECK(fake_count(&f, "guest-fsfreeze-freeze") == 0);
    CHECK(fake_count(&f, "guest-fsfreeze-thaw") == 0);
    fake_stop(&f);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_freeze_and_thaw),
        TEST(test_no_file_systems_is_told),
        TEST(test_guest_info),
        TEST(test_thaw_is_safe_when_not_frozen),
        TEST(test_parent_killed),
        TEST(test_stop_without_thaw_thaws),
        TEST(test_guard_keeps_no_descriptors),
        TEST(test_hold_time_over),
        TEST(test_guard_killed_while_frozen),
        TEST(test_guard_killed_and_thawed_by_others),
        TEST(test_guard_killed_and_stop_thaws),
        TEST(test_silent_after_freeze),
        TEST(test_refused_freeze_is_undone_and_can_be_repeated),
        TEST(test_agent_without_freeze),
        TEST(test_thaw_refused_at_first),
        TEST(test_thaw_refused_because_thawed),
        TEST(test_thawed_by_somebody_else),
        TEST(test_silent_thaw),
        TEST(test_guard_gives_up_in_the_end),
        TEST(test_no_agent),
        TEST(test_gone_before_the_freeze),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
