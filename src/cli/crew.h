/* cli/crew.h - several tidemarks at once, as child processes.
 *
 * A backup forks its guard and wants a process without threads for that, so `run`
 * does not take points itself: each machine is a `tidemark backup NAME --json` of
 * its own, which also means that nothing that happens to one can touch another.
 *
 * A child is in a session of its own: Ctrl-C reaches us alone, we pass it on, and
 * a child can ask nobody's terminal for a passphrase.  Should we be killed, the
 * kernel tells the children to stop.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct jv;

#define TASK_ARGS_MAX 16

enum task_state {
    TASK_WAITS,
    TASK_RUNS,
    TASK_ENDED,  /* with `status` */
    TASK_SKIPPED /* we were asked to stop before it began */
};

struct task {
    const char *kind;                    /* "backup", "prune", "gc", "verify" */
    const char *label;                   /* machine or repository */
    const char *argv[TASK_ARGS_MAX + 1]; /* behind the program's name */
    uint64_t timeout_ms;                 /* for all of it; then it is stopped */
    /* What became of it. */
    enum task_state state;
    int status;  /* exit status; 128 + signal */
    bool killed; /* `status` is of a signal */
    bool late;   /* it was stopped because its time was over */
    uint64_t ms;
    struct jv *result; /* its last JSON object; owned, or NULL */
    char *error;       /* words of its error event; owned, or NULL */
    uint64_t shown_ms; /* when its progress was told */
};

void task_done(struct task *t);

/* What is told while they run. */
struct crew_hooks {
    void *arg;
    /* An object that a task printed. */
    void (*object)(void *arg, struct task *t, struct jv *object);
    /* A line on its standard error. */
    void (*line)(void *arg, struct task *t, const char *line);
    void (*began)(void *arg, struct task *t);
    void (*ended)(void *arg, struct task *t);
};

/* Run all of them in their order, at most `parallel` at once.  When `cancel` is
 * raised, no other begins and the running ones get SIGTERM;
 * whoever still runs `stop_ms` later gets SIGKILL; so it is for one whose own
 * time is over.  -1: they could not be
 * watched; none runs any more. */
int crew_run(struct task *tasks, size_t n, unsigned parallel, uint64_t stop_ms,
             const atomic_bool *cancel, const struct crew_hooks *hooks,
             struct err *err);
