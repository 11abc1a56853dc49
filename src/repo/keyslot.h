/* repo/keyslot.h - the master key, wrapped under one passphrase.
 *
 * Bytes: docs/format.md 4.1.  What the wrapping is bound to, so that no part can
 * be exchanged: the repository, the slot's own name, the cost of guessing, and
 * the format object's first line.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "aead.h"
#include "format.h"
#include "kdf.h"

struct secret;

#define KEY_SLOT_TEXT 17 /* 16 hex digits and a NUL */
#define KEY_LABEL_MAX 64 /* bytes of a label */
#define KEY_MASTER_LEN 32
#define KEY_WRAPPED_LEN (KEY_MASTER_LEN + AEAD_TAG_LEN)

struct key_slot {
    char repo[33];
    char name[KEY_SLOT_TEXT];
    char label[KEY_LABEL_MAX + 1];
    int64_t time_ns; /* wall clock when it was made: a label */
    struct kdf_cost cost;
    uint8_t salt[KDF_SALT_LEN];
    uint8_t nonce[AEAD_NONCE_LEN];
    uint8_t wrapped[KEY_WRAPPED_LEN];
    uint8_t format_sum[32]; /* of the format object it was made for */
};

int key_slot_encode(const struct key_slot *s, struct buf *ret, struct err *err);
/* Pure.  ERR_FORMAT: no key slot at all; ERR_CORRUPT; ERR_UNSUPPORTED. */
int key_slot_decode(const uint8_t *bytes, size_t len, struct key_slot *ret,
                    struct err *err);

/* A label is 0 to KEY_LABEL_MAX bytes of printable text. */
int key_label_check(const char *label, struct err *err);

/* Make a slot for the repository of `f`: random name, salt and nonce. */
int key_slot_wrap(const struct repo_format *f, const struct secret *passphrase,
                  const char *label, const struct kdf_cost *cost,
                  const uint8_t master[KEY_MASTER_LEN], struct key_slot *ret,
                  struct err *err);

/* ERR_KEY: this is not its passphrase (or something it is bound to was
 * changed).  Costs what the slot says. */
int key_slot_unwrap(const struct key_slot *s, const struct secret *passphrase,
                    uint8_t master[KEY_MASTER_LEN], struct err *err);
