/* codec/aead.h - AES-256-GCM (NIST SP 800-38D) over OpenSSL.
 *
 * A (key, nonce) pair must never be used twice: two messages under one pair
 * give away both of them and the means to forge.  Nonces here are random, and
 * no key but that of records is used for more than a handful of messages.
 * Threads: an aead belongs to one thread; make one per worker.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct aead;
struct err;

#define AEAD_KEY_LEN 32
#define AEAD_NONCE_LEN 12
#define AEAD_TAG_LEN 16

/* What a message is sealed with; `aad` is authenticated and not stored. */
struct aead_params {
    const uint8_t *key;   /* AEAD_KEY_LEN */
    const uint8_t *nonce; /* AEAD_NONCE_LEN */
    const uint8_t *aad;
    size_t aad_len;
};

int aead_new(struct aead **ret, struct err *err);
void aead_free(struct aead *a); /* NULL is fine */

/* `len` bytes to `len` + AEAD_TAG_LEN bytes, the tag last.  `out` may be `in`
 * but may not overlap it in another way. */
int aead_seal(struct aead *a, const struct aead_params *p, const void *in,
              size_t len, void *out, struct err *err);

/* `len` bytes, tag included, to `len` - AEAD_TAG_LEN bytes.  ERR_CORRUPT when
 * the tag does not fit; `out` then holds zeroes. */
int aead_open(struct aead *a, const struct aead_params *p, const void *in,
              size_t len, void *out, struct err *err);

/* A random nonce, from OpenSSL's generator of this thread. */
int aead_nonce(uint8_t nonce[AEAD_NONCE_LEN], struct err *err);
