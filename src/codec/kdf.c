#include "kdf.h"

#include <errno.h>
#include <inttypes.h>
#include <sodium.h>

#include "err.h"

_Static_assert(crypto_pwhash_argon2id_SALTBYTES == KDF_SALT_LEN, "salt");

int
kdf_check_cost(const struct kdf_cost *c, struct err *err)
{
    if (c->ops < KDF_OPS_MIN || c->ops > KDF_OPS_MAX || c->mem < KDF_MEM_MIN ||
        c->mem > KDF_MEM_MAX || c->mem % 1024 != 0)
        return err_set(err, ERR_FORMAT,
                       "key derivation with %" PRIu64 " passes over %" PRIu64
                       " bytes; allowed are 1 to %d passes over 8 KiB to 1 GiB",
                       c->ops, c->mem, KDF_OPS_MAX);
    return 0;
}

int
kdf_derive(const void *passphrase, size_t len, const uint8_t salt[KDF_SALT_LEN],
           const struct kdf_cost *cost, uint8_t ret[KDF_KEY_LEN],
           struct err *err)
{
    if (kdf_check_cost(cost, err) < 0)
        return -1;
    if (sodium_init() < 0)
        return err_set(err, ERR_UNSUPPORTED, "libsodium cannot be used here");
    if (crypto_pwhash_argon2id(ret, KDF_KEY_LEN, passphrase, len, salt,
                               cost->ops, (size_t)cost->mem,
                               crypto_pwhash_argon2id_ALG_ARGON2ID13) != 0)
        return err_set_errno(err, ENOMEM, "key derivation with %" PRIu64 " MiB",
                             cost->mem >> 20);
    return 0;
}
