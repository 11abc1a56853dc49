/* codec/kdf.h - from a passphrase to a key: Argon2id (RFC 9106, version 1.3, one
 * lane) over libsodium. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct err;

#define KDF_SALT_LEN 16
#define KDF_KEY_LEN 32

/* What one guess costs: passes over `mem` bytes. */
struct kdf_cost {
    uint64_t ops;
    uint64_t mem;
};

/* The second choice of RFC 9106: every command needs this memory, also on a host
 * that is full of guests. */
#define KDF_COST_DEFAULT                    \
    {                                       \
        .ops = 3, .mem = UINT64_C(64) << 20 \
    }

/* Outside of these nothing is computed: who can write to the store must not be
 * able to make us use all memory, or a minute. */
#define KDF_OPS_MIN 1
#define KDF_OPS_MAX 16
#define KDF_MEM_MIN (UINT64_C(8) << 10)
#define KDF_MEM_MAX (UINT64_C(1) << 30)

int kdf_check_cost(const struct kdf_cost *c, struct err *err);

/* The 32 byte key of a passphrase; ERR_SYSTEM when there is not that much
 * memory. */
int kdf_derive(const void *passphrase, size_t len,
               const uint8_t salt[KDF_SALT_LEN], const struct kdf_cost *cost,
               uint8_t ret[KDF_KEY_LEN], struct err *err);
