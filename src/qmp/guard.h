/* qmp/guard.h - a process whose only task is that the guest gets thawed.
 *
 * A guest whose file systems stay frozen is the worst thing a backup program
 * can leave behind, so the freeze does not depend on the program that asks for
 * it: a small child process in a session of its own holds the agent's socket,
 * freezes, and thaws when it is told to, when its parent dies (end of file on
 * their socket pair), or when the hold time is over, whichever comes first.
 * It ignores SIGINT, SIGTERM, SIGHUP, SIGQUIT and SIGPIPE; it ends by itself
 * after the thaw was confirmed or GUARD_THAW_MS of trying.  If the guard itself
 * is killed while the guest is frozen, guard_thaw() thaws over a connection of
 * its own.
 *
 * guard_start() forks: call it before the process has threads.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct err;
struct guard;

#define GUARD_THAW_MS 60000u /* how long the guard goes on trying to thaw */

struct guard_report {
    bool held;            /* frozen from before guard_thaw() was called until it
                             was: what happened in between is one instant */
    unsigned filesystems; /* frozen by guard_freeze() */
    unsigned thawed;      /* the agent's answer to the thaw */
    uint64_t
        freeze_ms; /* from the freeze command's start to the thaw's reply */
    bool thaw_confirmed; /* false: the guest may still be frozen */
    char note[256];      /* why not held, or why not confirmed; else "" */
};

/* Fork the guard, let it connect to the agent and synchronise; fails when no
 * agent answers within `agent_timeout_ms`.  `hold_ms`: longest time from the
 * start of the freeze to the thaw (DESIGN: 10 s). */
int guard_start(const char *agent_path, unsigned agent_timeout_ms,
                unsigned hold_ms, struct guard **ret, struct err *err);

/* pid of the guard process, for the log and for tests. */
int guard_pid(const struct guard *g);

/* Is the guest frozen now (by somebody else, or by a run that died)? */
int guard_frozen(struct guard *g, bool *ret_frozen, struct err *err);

/* Freeze.  0: frozen, *ret_count file systems.  -1: not frozen (whatever the
 * agent did was undone or is being undone by the guard); ERR_TIMEOUT when the
 * agent went silent. */
int guard_freeze(struct guard *g, unsigned *ret_count, struct err *err);

/* Thaw and tell what happened.  Always safe to call, also when not frozen.
 * -1 only when it cannot be known whether the guest is thawed; *ret_report is
 * filled in both cases. */
int guard_thaw(struct guard *g, struct guard_report *ret_report,
               struct err *err);

/* guest-get-fsinfo and guest-get-osinfo through the guard's connection: one
 * object {"fsinfo": ..., "osinfo": ...}, members missing when the agent has no
 * answer. */
struct jv;
int guard_guest_info(struct guard *g, struct jv **ret, struct err *err);

/* Let the guard end (thawing first if needed), reap it, free. NULL is fine. */
void guard_stop(struct guard *g);
