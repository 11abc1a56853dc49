/* cli/exitcode.h - the exit status: what a script may rely on.
 *
 * The one place that decides it; docs/man/tidemark.pod lists the same table.
 */
#pragma once

struct err;

enum exit_status {
    EXIT_DONE = 0,        /* committed, restored, nothing wrong */
    EXIT_WARNING = 1,     /* done, but read the warnings */
    EXIT_USAGE = 2,       /* the command line is wrong; nothing was tried */
    EXIT_MACHINE = 3,     /* the machine cannot be reached; nothing was taken */
    EXIT_REPO = 4,        /* repository missing, full, damaged, not readable */
    EXIT_FAILED = 5,      /* nothing committed, job failed, damage found */
    EXIT_BUSY = 6,        /* another run holds the machine, or collects */
    EXIT_KEY = 7,         /* encrypted; the passphrase is wrong or missing */
    EXIT_SOME_FAILED = 8, /* of several machines some failed, some committed */
    EXIT_INTERRUPTED = 130 /* stopped by a signal, cleaned up */
};

/* Who asks: an error without a side (base/err.h) is the repository's for
 * commands that touch nothing else. */
enum command_id {
    CMD_NONE, /* before a command is known */
    CMD_INIT,
    CMD_BACKUP,
    CMD_POINTS,
    CMD_SHOW,
    CMD_RESTORE,
    CMD_VERIFY,
    CMD_CHECK,
    CMD_PRUNE,
    CMD_GC,
    CMD_DIFF,
    CMD_STATS,
    CMD_DOCTOR,
    CMD_KEY,
    CMD_HISTORY,
    CMD_RUN,
    CMD_STATUS,
};

/* The status for a command that failed with `err`. */
enum exit_status exit_status_of(enum command_id command, const struct err *err);
