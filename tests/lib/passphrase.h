/* tests/lib/passphrase.h - encrypted repositories for tests, with a cheap key
 * derivation. */
#pragma once

#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "repo.h"
#include "secret.h"

#define CHEAP_OPS 1
#define CHEAP_MEM 8192

struct answers {
    const char *first;  /* NULL: there is none */
    const char *second; /* after a wrong first one; NULL: no more */
    const char *fresh;
    enum secret_kind kind;
    size_t len; /* of first; 0: it is text */
    unsigned asked;
};

static inline int
answer_with(void *arg, const struct secret_ask *ask, struct secret *ret,
            struct err *err)
{
    struct answers *a = arg;
    const char *text = ask->fresh          ? a->fresh
                       : ask->attempt == 0 ? a->first
                       : ask->attempt == 1 ? a->second
                                           : NULL;

    (void)err;
    a->asked++;
    if (text == NULL)
        return 1;
    ret->kind = ask->fresh ? SECRET_PASSPHRASE : a->kind;
    ret->len = a->len != 0 && !ask->fresh ? a->len : strlen(text);
    memcpy(ret->text, text, ret->len);
    return 0;
}

static inline int
encrypted_init(const char *path, uint32_t chunk_size, const char *passphrase,
               struct err *err)
{
    struct answers a = {.fresh = passphrase};
    const struct repo_init_opts opts = {.chunk_size = chunk_size,
                                        .encrypt = true,
                                        .passphrase = answer_with,
                                        .arg = &a,
                                        .label = "first",
                                        .kdf_ops = CHEAP_OPS,
                                        .kdf_mem = CHEAP_MEM};
    char id[33];

    return repo_init_with(path, &opts, id, err);
}

static inline int
encrypted_open(const char *path, const char *passphrase, struct repo **ret,
               struct err *err)
{
    struct answers a = {.first = passphrase};
    const struct repo_open_opts opts = {.unlock = answer_with, .arg = &a};

    return repo_open_with(path, &opts, ret, err);
}
