/* base/err.h - an error with words.
 *
 * A function that can fail for more than one reason returns 0 or -1 (or a
 * pointer or NULL) and takes `struct err *err` last.  The error is set once,
 * where the cause is known, and wrapped on the way up with what only that layer
 * knows (file, offset, disk, QMP command).  No allocation anywhere, so that
 * "out of memory" can be reported too.
 *
 * `code` is for decisions and for the exit status; `msg` is for people and is
 * never parsed.  Wording: lower case, no full stop, the object named and quoted
 * with '', what to do next last.  NULL for `err` means "do not care".
 *
 * Threads: an err belongs to one thread.
 */
#pragma once

enum err_code {
    ERR_NONE = 0,    /* nothing happened yet */
    ERR_SYSTEM,      /* a system call failed; `sys` holds errno */
    ERR_FORMAT,      /* bytes from disk, wire or user do not parse */
    ERR_CORRUPT,     /* stored data does not match its hash */
    ERR_NOT_FOUND,   /* no such object */
    ERR_EXISTS,      /* the object exists and must not be touched */
    ERR_LOCKED,      /* another run holds it */
    ERR_PROTOCOL,    /* a peer (QEMU, agent, NBD server) broke its protocol */
    ERR_REMOTE,      /* a peer answered with an error */
    ERR_TIMEOUT,     /* a deadline passed */
    ERR_CLOSED,      /* the peer went away */
    ERR_UNSUPPORTED, /* the peer or this build cannot do that */
    ERR_NO_SPACE,    /* scratch or repository is full */
    ERR_CANCELED,    /* the user or a signal asked to stop */
    ERR_USAGE,       /* the request itself is wrong */
    ERR_KEY,         /* encrypted, and the passphrase is wrong or missing */
};

#define ERR_MSG_MAX 768

/* Whose trouble it is, for the exit status; orthogonal to the code, because
 * "no space" or "timeout" can come from either end. */
enum err_side {
    ERR_SIDE_NONE = 0,
    ERR_SIDE_MACHINE, /* QEMU, the agent, NBD, scratch */
    ERR_SIDE_REPO,
    ERR_SIDE_TARGET, /* where a restore writes */
};

struct err {
    enum err_code code;
    enum err_side side;    /* ERR_SIDE_NONE unless err_side() was called */
    int sys;               /* errno at the point of failure, or 0 */
    char msg[ERR_MSG_MAX]; /* one line, no newline, outermost context first */
};

#define ERR_INIT \
    {            \
        0        \
    }

/* Tests only: print the error and abort(). */
extern struct err err_abort_;
#define ERR_ABORT (&err_abort_)

/* Set the error; the first one wins.  Always returns -1. */
int err_set(struct err *e, enum err_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4), cold));

/* As err_set() with ERR_SYSTEM (ERR_NO_SPACE for ENOSPC and EDQUOT), and
 * ": No space left on device" appended.  `sys` is an errno value. */
int err_set_errno(struct err *e, int sys, const char *fmt, ...)
    __attribute__((format(printf, 3, 4), cold));

/* Put "context: " before the text.  Returns -1. */
int err_wrap(struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), cold));

/* Say whose trouble a set error is; the first one said wins, an `e` without an
 * error is left alone.  Returns -1. */
int err_side(struct err *e, enum err_side side);

/* Forget the error so that `e` can be used again. */
void err_clear(struct err *e);

/* Copy `from` into `to` unless `to` already holds an error; used to carry the
 * error of a worker thread to its owner.  Returns -1. */
int err_copy(struct err *to, const struct err *from);

/* The stable name of a code for JSON output ("timeout", "no-space", ...). */
const char *err_code_name(enum err_code code);
