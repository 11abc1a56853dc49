/* base/child.h - QEMU's programs as child processes.
 *
 * No shell; the program is looked up in PATH.  A child never outlives us: it is
 * ended on every path here, and the kernel ends it when the thread that started
 * it dies (so start children from the main thread).  What it says on stdout and
 * stderr goes to memory, and its last words into the error.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

struct err;

struct child {
    char name[32]; /* for errors */
    pid_t pid;     /* 0: none, or ended and reaped */
    int pid_fd;
    int log_fd; /* what it said */
};
#define CHILD_INIT                 \
    {                              \
        .pid_fd = -1, .log_fd = -1 \
    }

/* Start argv[0], found in PATH unless it has a '/'; `argv` ends with NULL.  It
 * has no descriptor of ours but its output. */
int child_start(const char *const *argv, struct child *ret, struct err *err);

/* The same; the kernel sends `death_signal` when we die, for a child that has
 * something to put in order first. */
int child_start_signal(const char *const *argv, int death_signal,
                       struct child *ret, struct err *err);

/* Wait up to `timeout_ms` for the end and exit status 0.  When it does not end
 * in time it is killed: ERR_TIMEOUT. */
int child_wait(struct child *c, unsigned timeout_ms, struct err *err);

/* SIGTERM, then child_wait(). */
int child_stop(struct child *c, unsigned timeout_ms, struct err *err);

/* Wait up to `timeout_ms`; true when it has ended (and is not yet reaped). */
bool child_ended(const struct child *c, unsigned timeout_ms);

/* Kill it if it still runs, reap it, forget it. */
void child_done(struct child *c);
