/* codec/hash.h - keyed ids and plain digests over OpenSSL.
 *
 * HMAC-SHA-256 (RFC 2104) names chunks: always keyed, so that a guest can
 * neither craft collisions for other machines nor test what they hold.
 * SHA-256 is for whole objects.
 * Threads: a hasher belongs to one thread; make one per worker.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct err;
struct hasher;

#define HASH_LEN 32

/* A hasher for HMAC-SHA-256 under `key`. */
int hasher_new(const uint8_t key[HASH_LEN], struct hasher **ret,
               struct err *err);
void hasher_free(struct hasher *h); /* NULL is fine */

/* Hash one message. */
int hasher_id(struct hasher *h, const void *data, size_t len,
              uint8_t ret[HASH_LEN], struct err *err);

/* SHA-256 of one buffer. */
int hash_sha256(const void *data, size_t len, uint8_t ret[HASH_LEN],
                struct err *err);

/* SHA-256 piece by piece: _start, _add ..., _done. */
struct sha256;
int sha256_new(struct sha256 **ret, struct err *err);
void sha256_free(struct sha256 *h); /* NULL is fine */
int sha256_start(struct sha256 *h, struct err *err);
int sha256_add(struct sha256 *h, const void *data, size_t len, struct err *err);
int sha256_done(struct sha256 *h, uint8_t ret[HASH_LEN], struct err *err);

/* True when equal, in constant time. */
_Bool hash_equal(const uint8_t a[HASH_LEN], const uint8_t b[HASH_LEN]);
