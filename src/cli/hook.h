/* cli/hook.h - commands of the configuration around a backup.
 *
 * `before` runs first, and a backup whose `before` failed is not taken: it was
 * asked to stop a database, or to mount the repository.  `after` runs always,
 * also when `before` or the backup failed, because it undoes what `before` did;
 * that it failed is a warning.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

struct cli;
struct err;
struct job_backup_opts;
struct jv;

struct hook {
    const char *what;       /* "before", "after": for errors */
    const char *command;    /* for /bin/sh -c */
    const char *const *env; /* "NAME=VALUE" besides our own, NULL-terminated */
    uint64_t timeout_ms;
    const atomic_bool *cancel; /* NULL: not to be stopped */
};

/* Run it and wait: in a process group of its own, with standard input from
 * /dev/null and its output on our standard error.  0 when it ended with status
 * 0.  At the deadline, or when asked to stop, the whole group is ended (SIGTERM,
 * and 5 seconds later SIGKILL): ERR_TIMEOUT, ERR_CANCELED. */
int hook_run(const struct hook *h, struct err *err);

/* job_backup() between the hooks of the machine that the operand names. */
int hooked_backup(struct cli *c, const struct job_backup_opts *o,
                  struct jv **ret_result, struct err *err);
