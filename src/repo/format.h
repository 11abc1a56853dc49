/* repo/format.h - the `format` object: what a repository is.
 *
 * One line of JSON and one line with its SHA-256, so that a person can read and
 * check it with cat and sha256sum.  Bytes: docs/format.md, "The format object".
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "internal.h"

#define FORMAT_KEY "format"
#define FORMAT_COLLECT "collect" /* the ro-compat feature of deletion */
#define FORMAT_LEN_MAX 65536
#define FORMAT_SECRET_LEN 32
#define FORMAT_CHECK_LEN 16

struct repo_format {
    char id[33]; /* of the repository */
    uint32_t chunk_size;
    bool encrypted;                    /* `secret` is not in here */
    uint8_t secret[FORMAT_SECRET_LEN]; /* all keys are derived from it */
    uint8_t check[FORMAT_CHECK_LEN];   /* encrypted: tells the master key */
    uint8_t sum[32];    /* SHA-256 of the first line; set by decoding only */
    bool collect;       /* lists the feature of deletion */
    char read_only[64]; /* name of a feature that forbids writing, or "" */
};

int format_encode(const struct repo_format *f, struct buf *ret,
                  struct err *err);
/* Pure.  ERR_FORMAT: this is no Tidemark repository; ERR_CORRUPT: it is, but
 * damaged; ERR_UNSUPPORTED: a newer one. */
int format_decode(const uint8_t *bytes, size_t len, struct repo_format *ret,
                  struct err *err);

/* Derive all keys; `master` is used instead of the secret when the repository is
 * encrypted. */
int format_keys(const struct repo_format *f,
                const uint8_t master[FORMAT_SECRET_LEN], struct repo_keys *ret,
                struct err *err);

/* What `check` is for this master key. */
int format_master_check(const uint8_t master[FORMAT_SECRET_LEN],
                        uint8_t ret[FORMAT_CHECK_LEN], struct err *err);

/* A feature object "feature/<class>.<name>": refuse (-1) or note in `read_only`
 * (room as in repo_format) what this program must not do. */
int format_feature(const char *key, char *read_only, size_t len,
                   struct err *err);
