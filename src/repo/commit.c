/* Commit objects: the one thing that makes a point exist.  And records, which
 * have the same envelope.
 *
 * Authenticated before anything inside is believed, so that whoever may write
 * to the store but has not the key cannot make a point or change one.
 */
#include "internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "aead.h"
#include "buf.h"
#include "bytes.h"
#include "cleanup.h"
#include "compress.h"
#include "err.h"
#include "hash.h"
#include "jv.h"
#include "store.h"

#define COMMIT_VERSION 1
#define COMMIT_HEAD_LEN 24
#define COMMIT_LEVEL 3 /* of zstd: small text, written once */

static const uint8_t magic[8] = {'T', 'M', 'C', 'O', 'M', 'M', 'I', 'T'};

/* Offsets (docs/format.md, "Commit objects"). */
enum {
    AT_VERSION = 8,
    AT_TYPE = 12,
    AT_LEN = 16,
    AT_CIPHER = 20,
};

enum {
    CIPHER_NONE = 0,
    CIPHER_AES_256_GCM = 1,
};

/* A sealed payload: nonce, ciphertext, tag. */
#define SEAL_LEN (AEAD_NONCE_LEN + AEAD_TAG_LEN)
#define AAD_LEN (REPO_ID_LEN + COMMIT_HEAD_LEN)

DEFINE_CLEANUP(struct aead *, aead_free)

DEFINE_CLEANUP(struct codec *, codec_free)
DEFINE_CLEANUP(struct hasher *, hasher_free)

void
commit_key(const char *sid, unsigned k, char key[REPO_KEY_MAX])
{
    (void)snprintf(key, REPO_KEY_MAX, "commit/%.32s.%u", sid, k);
}

int
commit_load(struct repo *r, const char *key, struct buf *b, struct err *err)
{
    uint64_t len = 0;
    int found = store_size(r->store, key, &len, err);

    if (found < 0)
        return -1;
    if (found == 0)
        return err_set(err, ERR_NOT_FOUND, "no object '%s' in '%s'", key,
                       repo_path(r));
    if (len > COMMIT_LEN_MAX)
        return err_set(err, ERR_CORRUPT,
                       "a commit object cannot have %" PRIu64 " bytes", len);
    if (buf_reserve(b, (size_t)len + 1, err) < 0 ||
        store_get(r->store, key, 0, (size_t)len, b->data + b->len, err) < 0)
        return -1;
    b->len += (size_t)len;
    return 0;
}

static int
sign(const uint8_t key[32], const void *data, size_t len, uint8_t mac[HASH_LEN],
     struct err *err)
{
    CLEANUP(hasher_freep) struct hasher *h = NULL;

    if (hasher_new(key, &h, err) < 0)
        return -1;
    return hasher_id(h, data, len, mac, err);
}

/* -- encoding ---------------------------------------------------------------*/

static int
append_payload(const char *text, struct buf *b, size_t *ret_len,
               struct err *err)
{
    CLEANUP(codec_freep) struct codec *codec = NULL;
    size_t len = strlen(text), cap = codec_bound(len);

    if (len > COMMIT_JSON_MAX)
        return err_set(err, ERR_USAGE,
                       "commit text of %zu bytes, allowed are %u; make smaller "
                       "points",
                       len, COMMIT_JSON_MAX);
    if (codec_new(COMMIT_LEVEL, &codec, err) < 0 ||
        buf_reserve(b, cap, err) < 0 ||
        codec_compress(codec, text, len, b->data + b->len, cap, ret_len, err) <
            0)
        return -1;
    b->len += *ret_len;
    if (*ret_len > COMMIT_LEN_MAX - COMMIT_HEAD_LEN - SEAL_LEN - HASH_LEN)
        return err_set(err, ERR_USAGE,
                       "commit object of %zu bytes, allowed are %u; make "
                       "smaller points",
                       *ret_len, COMMIT_LEN_MAX);
    return 0;
}

static void
put_aad(const struct commit_keys *keys, const uint8_t *head,
        uint8_t aad[AAD_LEN])
{
    memcpy(aad, keys->repo, REPO_ID_LEN);
    memcpy(aad + REPO_ID_LEN, head, COMMIT_HEAD_LEN);
}

/* Turn the payload behind the head of `b` into its sealed form. */
static int
seal(const struct commit_keys *keys, struct buf *b, struct err *err)
{
    CLEANUP(aead_freep) struct aead *aead = NULL;
    size_t len = b->len - COMMIT_HEAD_LEN;
    uint8_t nonce[AEAD_NONCE_LEN], aad[AAD_LEN], *payload;
    struct aead_params p = {keys->seal, nonce, aad, sizeof aad};

    if (aead_new(&aead, err) < 0 || aead_nonce(nonce, err) < 0 ||
        buf_reserve(b, SEAL_LEN, err) < 0)
        return -1;
    payload = b->data + COMMIT_HEAD_LEN;
    memmove(payload + sizeof nonce, payload, len);
    memcpy(payload, nonce, sizeof nonce);
    b->len += SEAL_LEN;
    put_le32(b->data + AT_LEN, (uint32_t)(len + SEAL_LEN));
    put_aad(keys, b->data, aad);
    return aead_seal(aead, &p, payload + sizeof nonce, len,
                     payload + sizeof nonce, err);
}

int
commit_encode(const struct commit_keys *keys, enum commit_type type,
              const struct jv *payload, struct buf *ret, struct err *err)
{
    CLEANUP_FREE char *text = jv_text(payload, true);
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    uint8_t head[COMMIT_HEAD_LEN] = {0};
    uint8_t mac[HASH_LEN];
    size_t len;

    if (text == NULL)
        return err_set_errno(err, ENOMEM, "text of a commit object");
    memcpy(head, magic, sizeof magic);
    put_le32(head + AT_VERSION, COMMIT_VERSION);
    put_le32(head + AT_TYPE, type);
    put_le32(head + AT_CIPHER, keys->sealed ? CIPHER_AES_256_GCM : CIPHER_NONE);
    if (buf_append(&b, head, sizeof head, err) < 0 ||
        append_payload(text, &b, &len, err) < 0)
        return -1;
    put_le32(b.data + AT_LEN, (uint32_t)len);
    if ((keys->sealed && seal(keys, &b, err) < 0) ||
        sign(keys->mac, b.data, b.len, mac, err) < 0 ||
        buf_append(&b, mac, sizeof mac, err) < 0)
        return -1;
    return buf_append(ret, b.data, b.len, err);
}

/* -- decoding ---------------------------------------------------------------*/

static int
check_frame(const struct commit_keys *keys, const uint8_t *bytes, size_t len,
            struct err *err)
{
    uint8_t mac[HASH_LEN];

    if (len < COMMIT_HEAD_LEN + HASH_LEN || len > COMMIT_LEN_MAX)
        return err_set(err, ERR_CORRUPT,
                       "a commit object cannot have %zu bytes", len);
    if (memcmp(bytes, magic, sizeof magic) != 0)
        return err_set(err, ERR_CORRUPT, "this is no commit object");
    if (sign(keys->mac, bytes, len - HASH_LEN, mac, err) < 0)
        return -1;
    if (!hash_equal(mac, bytes + len - HASH_LEN))
        return err_set(err, ERR_CORRUPT,
                       "commit object fails its authentication: it is damaged "
                       "or was not made with this repository's key");
    if (get_le32(bytes + AT_VERSION) != COMMIT_VERSION)
        return err_set(err, ERR_UNSUPPORTED,
                       "commit version %u is not known; use a newer tidemark",
                       get_le32(bytes + AT_VERSION));
    if (get_le32(bytes + AT_CIPHER) !=
        (keys->sealed ? CIPHER_AES_256_GCM : CIPHER_NONE))
        return err_set(err, ERR_UNSUPPORTED,
                       "commit object uses the cipher %u, which is not that "
                       "of the repository; use a newer tidemark",
                       get_le32(bytes + AT_CIPHER));
    if (get_le32(bytes + AT_LEN) != len - COMMIT_HEAD_LEN - HASH_LEN)
        return err_set(err, ERR_CORRUPT,
                       "commit object of %zu bytes claims a payload of %u", len,
                       get_le32(bytes + AT_LEN));
    return 0;
}

/* Open the sealed payload of the object at `bytes` into `ret`. */
static int
open_sealed(const struct commit_keys *keys, const uint8_t *bytes, size_t n,
            struct buf *ret, struct err *err)
{
    CLEANUP(aead_freep) struct aead *aead = NULL;
    const uint8_t *nonce = bytes + COMMIT_HEAD_LEN;
    uint8_t aad[AAD_LEN];
    struct aead_params p = {keys->seal, nonce, aad, sizeof aad};

    if (n <= SEAL_LEN)
        return err_set(err, ERR_CORRUPT,
                       "commit object with a sealed payload of %zu bytes", n);
    put_aad(keys, bytes, aad);
    if (aead_new(&aead, err) < 0 || buf_reserve(ret, n, err) < 0 ||
        aead_open(aead, &p, nonce + AEAD_NONCE_LEN, n - AEAD_NONCE_LEN,
                  ret->data, err) < 0)
        return -1;
    ret->len = n - SEAL_LEN;
    return 0;
}

static int
decode_payload(const uint8_t *p, size_t len, struct jv **ret, struct err *err)
{
    CLEANUP(codec_freep) struct codec *codec = NULL;
    CLEANUP_FREE char *text = NULL;
    CLEANUP_JV struct jv *j = NULL;
    size_t text_len;

    if (codec_content_len(p, len, COMMIT_JSON_MAX, &text_len, err) < 0)
        return -1;
    text = malloc(text_len + 1);
    if (text == NULL)
        return err_set_errno(err, ENOMEM, "text of a commit object");
    if (codec_new(COMMIT_LEVEL, &codec, err) < 0 ||
        codec_decompress(codec, p, len, text, text_len, err) < 0)
        return -1;
    if (jv_parse(text, text_len, JV_DEPTH_MAX, &j, err) < 0)
        return -1;
    if (!jv_is_object(j))
        return err_set(err, ERR_CORRUPT, "commit object holds no JSON object");
    *ret = TAKE_PTR(j);
    return 0;
}

int
commit_decode(const struct commit_keys *keys, const uint8_t *bytes, size_t len,
              enum commit_type *ret_type, struct jv **ret_payload,
              struct err *err)
{
    CLEANUP(buf_done) struct buf opened = BUF_INIT;
    const uint8_t *payload = bytes + COMMIT_HEAD_LEN;
    uint32_t type;
    size_t n;

    if (check_frame(keys, bytes, len, err) < 0)
        return -1;
    n = len - COMMIT_HEAD_LEN - HASH_LEN;
    type = get_le32(bytes + AT_TYPE);
    if (type < COMMIT_COMMIT || type > COMMIT_VERIFIED)
        return err_set(err, ERR_UNSUPPORTED,
                       "commit type %u is not known; use a newer tidemark",
                       type);
    if (keys->sealed) {
        if (open_sealed(keys, bytes, n, &opened, err) < 0)
            return -1;
        payload = opened.data;
        n = opened.len;
    }
    if (decode_payload(payload, n, ret_payload, err) < 0)
        return -1;
    *ret_type = type;
    return 0;
}
