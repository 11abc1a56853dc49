/* Commit objects: the one thing that makes a point exist.
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
    AT_RESERVED = 20,
};

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
    if (*ret_len > COMMIT_LEN_MAX - COMMIT_HEAD_LEN - HASH_LEN)
        return err_set(err, ERR_USAGE,
                       "commit object of %zu bytes, allowed are %u; make "
                       "smaller points",
                       *ret_len, COMMIT_LEN_MAX);
    return 0;
}

int
commit_encode(const uint8_t key[32], enum commit_type type,
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
    if (buf_append(&b, head, sizeof head, err) < 0 ||
        append_payload(text, &b, &len, err) < 0)
        return -1;
    put_le32(b.data + AT_LEN, (uint32_t)len);
    if (sign(key, b.data, b.len, mac, err) < 0 ||
        buf_append(&b, mac, sizeof mac, err) < 0)
        return -1;
    return buf_append(ret, b.data, b.len, err);
}

/* -- decoding ---------------------------------------------------------------*/

static int
check_frame(const uint8_t key[32], const uint8_t *bytes, size_t len,
            struct err *err)
{
    uint8_t mac[HASH_LEN];

    if (len < COMMIT_HEAD_LEN + HASH_LEN || len > COMMIT_LEN_MAX)
        return err_set(err, ERR_CORRUPT,
                       "a commit object cannot have %zu bytes", len);
    if (memcmp(bytes, magic, sizeof magic) != 0)
        return err_set(err, ERR_CORRUPT, "this is no commit object");
    if (sign(key, bytes, len - HASH_LEN, mac, err) < 0)
        return -1;
    if (!hash_equal(mac, bytes + len - HASH_LEN))
        return err_set(err, ERR_CORRUPT,
                       "commit object fails its authentication: it is damaged "
                       "or was not made with this repository's key");
    if (get_le32(bytes + AT_VERSION) != COMMIT_VERSION)
        return err_set(err, ERR_UNSUPPORTED,
                       "commit version %u is not known; use a newer tidemark",
                       get_le32(bytes + AT_VERSION));
    if (get_le32(bytes + AT_RESERVED) != 0 ||
        get_le32(bytes + AT_LEN) != len - COMMIT_HEAD_LEN - HASH_LEN)
        return err_set(err, ERR_CORRUPT,
                       "commit object of %zu bytes claims a payload of %u", len,
                       get_le32(bytes + AT_LEN));
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
commit_decode(const uint8_t key[32], const uint8_t *bytes, size_t len,
              enum commit_type *ret_type, struct jv **ret_payload,
              struct err *err)
{
    uint32_t type;

    if (check_frame(key, bytes, len, err) < 0)
        return -1;
    type = get_le32(bytes + AT_TYPE);
    if (type != COMMIT_COMMIT && type != COMMIT_ABORT)
        return err_set(err, ERR_UNSUPPORTED,
                       "commit type %u is not known; use a newer tidemark",
                       type);
    if (decode_payload(bytes + COMMIT_HEAD_LEN,
                       len - COMMIT_HEAD_LEN - HASH_LEN, ret_payload, err) < 0)
        return -1;
    *ret_type = type;
    return 0;
}
