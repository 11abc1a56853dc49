#include "aead.h"

#include <errno.h>
#include <limits.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"

/* Fetched once: EVP_CIPHER_fetch() costs more than sealing a small page. */
struct aead {
    EVP_CIPHER *cipher;
    EVP_CIPHER_CTX *seal, *open;
};

DEFINE_CLEANUP(struct aead *, aead_free)

static int
set_up(struct aead *a)
{
    a->cipher = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    a->seal = EVP_CIPHER_CTX_new();
    a->open = EVP_CIPHER_CTX_new();
    if (a->cipher == NULL || a->seal == NULL || a->open == NULL ||
        EVP_EncryptInit_ex2(a->seal, a->cipher, NULL, NULL, NULL) != 1 ||
        EVP_DecryptInit_ex2(a->open, a->cipher, NULL, NULL, NULL) != 1)
        return -1;
    return 0;
}

int
aead_new(struct aead **ret, struct err *err)
{
    CLEANUP(aead_freep) struct aead *a = calloc(1, sizeof *a);

    if (a == NULL)
        return err_set_errno(err, ENOMEM, "cipher");
    if (set_up(a) < 0)
        return err_set(err, ERR_UNSUPPORTED,
                       "libcrypto refuses AES-256-GCM; check its "
                       "configuration");
    *ret = TAKE_PTR(a);
    return 0;
}

void
aead_free(struct aead *a)
{
    if (a == NULL)
        return;
    EVP_CIPHER_CTX_free(a->seal); /* wipes its key */
    EVP_CIPHER_CTX_free(a->open);
    EVP_CIPHER_free(a->cipher);
    free(a);
}

int
aead_seal(struct aead *a, const struct aead_params *p, const void *in,
          size_t len, void *out, struct err *err)
{
    uint8_t *to = out;
    int n = 0, rest = 0;

    if (len > INT_MAX || p->aad_len > INT_MAX)
        return err_set(err, ERR_USAGE, "seal %zu bytes", len);
    if (EVP_EncryptInit_ex2(a->seal, NULL, p->key, p->nonce, NULL) != 1 ||
        EVP_EncryptUpdate(a->seal, NULL, &n, p->aad, (int)p->aad_len) != 1 ||
        EVP_EncryptUpdate(a->seal, to, &n, in, (int)len) != 1 ||
        EVP_EncryptFinal_ex(a->seal, to + n, &rest) != 1 ||
        (size_t)n + (size_t)rest != len ||
        EVP_CIPHER_CTX_ctrl(a->seal, EVP_CTRL_AEAD_GET_TAG, AEAD_TAG_LEN,
                            to + len) != 1)
        return err_set(err, ERR_SYSTEM, "AES-256-GCM of %zu bytes", len);
    return 0;
}

int
aead_open(struct aead *a, const struct aead_params *p, const void *in,
          size_t len, void *out, struct err *err)
{
    const uint8_t *from = in;
    uint8_t tag[AEAD_TAG_LEN], *to = out;
    int n = 0, rest = 0;
    size_t plain;

    if (len < AEAD_TAG_LEN || len > INT_MAX || p->aad_len > INT_MAX)
        return err_set(err, ERR_CORRUPT, "%zu sealed bytes", len);
    plain = len - AEAD_TAG_LEN;
    memcpy(tag, from + plain, sizeof tag);
    if (EVP_DecryptInit_ex2(a->open, NULL, p->key, p->nonce, NULL) != 1 ||
        EVP_CIPHER_CTX_ctrl(a->open, EVP_CTRL_AEAD_SET_TAG, AEAD_TAG_LEN,
                            tag) != 1 ||
        EVP_DecryptUpdate(a->open, NULL, &n, p->aad, (int)p->aad_len) != 1 ||
        EVP_DecryptUpdate(a->open, to, &n, from, (int)plain) != 1)
        return err_set(err, ERR_SYSTEM, "AES-256-GCM of %zu bytes", plain);
    if (EVP_DecryptFinal_ex(a->open, to + n, &rest) != 1) {
        memset(out, 0, plain); /* nobody may use what nobody vouches for */
        return err_set(err, ERR_CORRUPT,
                       "%zu sealed bytes fail their authentication", len);
    }
    return 0;
}

int
aead_nonce(uint8_t nonce[AEAD_NONCE_LEN], struct err *err)
{
    if (RAND_bytes(nonce, AEAD_NONCE_LEN) != 1)
        return err_set(err, ERR_SYSTEM, "libcrypto has no random numbers");
    return 0;
}
