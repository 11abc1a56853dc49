/* base/secret.h - how a passphrase gets from whoever knows it to whoever needs
 * it.
 *
 * The asker owns the memory (guarded, see codec/guarded.h) and wipes it; the
 * one who answers writes into it and keeps no copy.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct err;

#define SECRET_MAX 4096
#define SECRET_PASSPHRASE_MAX 1024 /* bytes */

enum secret_kind {
    SECRET_PASSPHRASE,
    SECRET_PAPER_KEY, /* the text that `key export` printed */
};

struct secret {
    enum secret_kind kind;
    size_t len;
    char text[SECRET_MAX]; /* no NUL behind it */
};

struct secret_ask {
    const char *what;   /* path of the repository, for the prompt */
    unsigned attempt;   /* 0, 1, ...: the earlier ones were wrong */
    bool fresh;         /* a new passphrase is to be set */
    bool no_passphrase; /* no passphrase can open it; a paper key might */
};

/* 0: *ret is filled.  1: there is no (other) answer.  -1: *err. */
typedef int (*secret_fn)(void *arg, const struct secret_ask *ask,
                         struct secret *ret, struct err *err);
