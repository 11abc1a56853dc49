/* tests/crash/driver.h - parts of the driver.
 *
 * Every command prints what it achieved, one line each and only after it is
 * durable, so that whoever kills it knows what must be there afterwards.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct err;
struct file_ops;
struct repo;

enum driver_exit {
    DRIVER_OK = 0,
    DRIVER_FAILED = 1,  /* an error */
    DRIVER_DAMAGE = 2,  /* what must be there is not, or is wrong */
    DRIVER_REFUSED = 3, /* fenced, another writer runs, parent gone */
};

struct driver_opts {
    const char *repo;
    bool full;         /* put: read everything */
    unsigned slow_ms;  /* put: wait after each chunk */
    long stop_at;      /* SIGSTOP before this file operation; 0: never */
    bool no_fsync;     /* kills need none */
    bool synchronous;  /* put: no threads, and no look at rivals */
    bool pin;          /* check: hold a pin while reading */
    uint64_t fence_ms; /* gc: real time; 0: a clock that jumps */
    const struct file_ops *ops;
};

/* Print one line, at once and in one write. */
void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same on stderr, and the exit status for this error. */
int driver_error(const struct err *err);

int driver_put(const struct driver_opts *o, const char *machine, uint64_t seed);
int driver_check(const struct driver_opts *o);
int driver_forget(const struct driver_opts *o, char **ids, int n);
int driver_gc(const struct driver_opts *o);
/* After a collection with nobody else there: every object is one that a commit
 * object names, and nothing waits to be removed. */
int driver_leftovers(const struct driver_opts *o);

/* The file operations of the options; counts them. */
const struct file_ops *driver_ops(const struct driver_opts *o);
long driver_n_ops(void);
