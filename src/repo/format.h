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
#define FORMAT_LEN_MAX 65536
#define FORMAT_SECRET_LEN 32

struct repo_format {
    char id[33]; /* of the repository */
    uint32_t chunk_size;
    uint8_t secret[FORMAT_SECRET_LEN]; /* all keys are derived from it */
    char read_only[64]; /* name of a feature that forbids writing, or "" */
};

int format_encode(const struct repo_format *f, struct buf *ret,
                  struct err *err);
/* Pure.  ERR_FORMAT: this is no Tidemark repository; ERR_CORRUPT: it is, but
 * damaged; ERR_UNSUPPORTED: a newer one. */
int format_decode(const uint8_t *bytes, size_t len, struct repo_format *ret,
                  struct err *err);

/* Derive all keys. */
int format_keys(const struct repo_format *f, struct repo_keys *ret,
                struct err *err);

/* A feature object "feature/<class>.<name>": refuse (-1) or note in `read_only`
 * (room as in repo_format) what this program must not do. */
int format_feature(const char *key, char *read_only, size_t len,
                   struct err *err);
