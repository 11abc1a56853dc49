#include "hash.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <stdlib.h>

#include "cleanup.h"
#include "err.h"

/* Fetching an algorithm is slow in OpenSSL 3.0, so it is done once per hasher
 * and the context, which keeps the key, is started again for each message. */
struct hasher {
    EVP_MAC *mac;
    EVP_MAC_CTX *ctx;
};

DEFINE_CLEANUP(struct hasher *, hasher_free)

int
hasher_new(const uint8_t key[HASH_LEN], struct hasher **ret, struct err *err)
{
    CLEANUP(hasher_freep) struct hasher *h = calloc(1, sizeof *h);
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };

    if (h == NULL)
        return err_set(err, ERR_SYSTEM, "no memory for a hasher");
    h->mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    if (h->mac == NULL)
        return err_set(err, ERR_UNSUPPORTED,
                       "libcrypto has no HMAC; check its configuration");
    h->ctx = EVP_MAC_CTX_new(h->mac);
    if (h->ctx == NULL || EVP_MAC_init(h->ctx, key, HASH_LEN, params) != 1)
        return err_set(err, ERR_UNSUPPORTED,
                       "libcrypto refuses HMAC-SHA-256; check its "
                       "configuration");
    *ret = TAKE_PTR(h);
    return 0;
}

void
hasher_free(struct hasher *h)
{
    if (h == NULL)
        return;
    EVP_MAC_CTX_free(h->ctx);
    EVP_MAC_free(h->mac);
    free(h);
}

int
hasher_id(struct hasher *h, const void *data, size_t len, uint8_t ret[HASH_LEN],
          struct err *err)
{
    size_t n = 0;

    if (EVP_MAC_init(h->ctx, NULL, 0, NULL) != 1 ||
        EVP_MAC_update(h->ctx, data, len) != 1 ||
        EVP_MAC_final(h->ctx, ret, &n, HASH_LEN) != 1 || n != HASH_LEN)
        return err_set(err, ERR_SYSTEM, "HMAC-SHA-256 of %zu bytes", len);
    return 0;
}

int
hash_sha256(const void *data, size_t len, uint8_t ret[HASH_LEN],
            struct err *err)
{
    unsigned n = 0;

    if (EVP_Digest(data, len, ret, &n, EVP_sha256(), NULL) != 1 ||
        n != HASH_LEN)
        return err_set(err, ERR_SYSTEM, "SHA-256 of %zu bytes", len);
    return 0;
}

/* The EVP context, which can be started again and again. */
struct sha256 {
    EVP_MD_CTX *ctx;
};

int
sha256_new(struct sha256 **ret, struct err *err)
{
    struct sha256 *h = calloc(1, sizeof *h);

    if (h != NULL)
        h->ctx = EVP_MD_CTX_new();
    if (h == NULL || h->ctx == NULL) {
        free(h);
        return err_set(err, ERR_SYSTEM, "no memory for SHA-256");
    }
    *ret = h;
    return 0;
}

void
sha256_free(struct sha256 *h)
{
    if (h == NULL)
        return;
    EVP_MD_CTX_free(h->ctx);
    free(h);
}

int
sha256_start(struct sha256 *h, struct err *err)
{
    if (EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL) != 1)
        return err_set(err, ERR_SYSTEM, "begin a SHA-256");
    return 0;
}

int
sha256_add(struct sha256 *h, const void *data, size_t len, struct err *err)
{
    if (EVP_DigestUpdate(h->ctx, data, len) != 1)
        return err_set(err, ERR_SYSTEM, "SHA-256 of %zu bytes", len);
    return 0;
}

int
sha256_done(struct sha256 *h, uint8_t ret[HASH_LEN], struct err *err)
{
    unsigned n = 0;

    if (EVP_DigestFinal_ex(h->ctx, ret, &n) != 1 || n != HASH_LEN)
        return err_set(err, ERR_SYSTEM, "end a SHA-256");
    return 0;
}

_Bool
hash_equal(const uint8_t a[HASH_LEN], const uint8_t b[HASH_LEN])
{
    return CRYPTO_memcmp(a, b, HASH_LEN) == 0;
}
