/* Frames: compress, then seal; open, decompress, compare with the id.
 *
 * The key of a sealed frame is made from its id, so that a collector can move
 * the frame between packs as it is.  The nonce is random and not made from the
 * id: the same chunk compressed again gives other bytes under the same key.
 */
#include "frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "aead.h"
#include "bytes.h"
#include "cleanup.h"
#include "compress.h"
#include "err.h"
#include "guarded.h"
#include "hash.h"
#include "rand.h"

#define FRAME_VERSION 1

/* Offsets in the header (docs/format.md, "Frames"). */
enum {
    AT_VERSION = 4,
    AT_KIND = 5,
    AT_CODEC = 6,
    AT_FLAGS = 7,
    AT_RAW_LEN = 8,
    AT_STORED_LEN = 12,
    AT_ID = 16,
    AT_NONCE = 48,
    AT_KEY_SLOT = 60,
    AT_RESERVED = 61,
    AT_SUM = 64,
};

static const uint8_t magic[4] = {'T', 'M', 'F', 'R'};

/* Lengths in what a sealed payload is bound to. */
enum {
    AAD_KIND = REPO_ID_LEN,
    AAD_CODEC,
    AAD_RAW_LEN,
    AAD_STORED_LEN = AAD_RAW_LEN + 4,
    AAD_ID = AAD_STORED_LEN + 4,
    AAD_SLOT = AAD_ID + 32,
    AAD_LEN,
};

_Static_assert(FRAME_NONCE_LEN == AEAD_NONCE_LEN, "nonce");
_Static_assert(FRAME_TAG_LEN == AEAD_TAG_LEN, "tag");

struct frame_ctx {
    struct hasher *hasher[4]; /* by enum frame_kind */
    struct hasher *keys[4];   /* the same: makes the key of a frame */
    struct aead *aead;        /* NULL: plain */
    uint8_t repo[REPO_ID_LEN];
    frame_nonce_fn nonces; /* NULL: random */
    void *nonces_arg;
    uint8_t *opened; /* a payload that is still compressed */
    size_t opened_cap;
    struct codec *codec;
    bool compresses;
    uint8_t *out; /* the last frame made */
    size_t out_cap;
};

DEFINE_CLEANUP(struct frame_ctx *, frame_ctx_free)

static int
set_up_sealing(struct frame_ctx *c, const struct repo_keys *keys,
               struct err *err)
{
    memcpy(c->repo, keys->repo, sizeof c->repo);
    for (unsigned kind = FRAME_DATA; kind <= FRAME_BLOB; kind++)
        if (hasher_new(keys->seal[kind], &c->keys[kind], err) < 0)
            return -1;
    return aead_new(&c->aead, err);
}

int
frame_ctx_new(const struct repo_keys *keys, int zstd_level,
              struct frame_ctx **ret, struct err *err)
{
    CLEANUP(frame_ctx_freep) struct frame_ctx *c = calloc(1, sizeof *c);

    if (c == NULL)
        return err_set_errno(err, ENOMEM, "frame buffers");
    c->compresses = zstd_level != 0;
    for (unsigned kind = FRAME_DATA; kind <= FRAME_BLOB; kind++)
        if (hasher_new(keys->id[kind], &c->hasher[kind], err) < 0)
            return -1;
    if (keys->sealed && set_up_sealing(c, keys, err) < 0)
        return -1;
    if (codec_new(zstd_level != 0 ? zstd_level : 1, &c->codec, err) < 0)
        return -1;
    *ret = TAKE_PTR(c);
    return 0;
}

void
frame_ctx_free(struct frame_ctx *c)
{
    if (c == NULL)
        return;
    for (unsigned kind = FRAME_DATA; kind <= FRAME_BLOB; kind++) {
        hasher_free(c->hasher[kind]);
        hasher_free(c->keys[kind]);
    }
    aead_free(c->aead);
    codec_free(c->codec);
    free(c->opened);
    free(c->out);
    free(c);
}

int
frame_id(struct frame_ctx *c, enum frame_kind kind, const void *data,
         size_t len, struct chunk_id *ret, struct err *err)
{
    return hasher_id(c->hasher[kind], data, len, ret->b, err);
}

bool
chunk_data_zero(const void *data, size_t len)
{
    const uint8_t *p = data;

    /* Zero at the start, and each byte equals the one 16 before it. */
    for (size_t i = 0; i < len && i < 16; i++)
        if (p[i] != 0)
            return false;
    return len <= 16 || memcmp(p, p + 16, len - 16) == 0;
}

/* -- sealing ----------------------------------------------------------------*/

void
frame_ctx_set_nonces(struct frame_ctx *c, frame_nonce_fn fn, void *arg)
{
    c->nonces = fn;
    c->nonces_arg = arg;
}

static void
put_aad(const struct frame_ctx *c, const struct frame_head *h,
        uint8_t aad[AAD_LEN])
{
    memcpy(aad, c->repo, sizeof c->repo);
    aad[AAD_KIND] = (uint8_t)h->kind;
    aad[AAD_CODEC] = (uint8_t)h->codec;
    put_le32(aad + AAD_RAW_LEN, h->raw_len);
    put_le32(aad + AAD_STORED_LEN, h->stored_len);
    memcpy(aad + AAD_ID, h->id.b, sizeof h->id.b);
    aad[AAD_SLOT] = (uint8_t)h->slot;
}

/* `h` is complete but for the nonce; `in` may be `out`. */
static int
seal_payload(struct frame_ctx *c, struct frame_head *h, const uint8_t *in,
             size_t len, uint8_t *out, struct err *err)
{
    uint8_t key[HASH_LEN], aad[AAD_LEN];
    struct aead_params p = {key, h->nonce, aad, sizeof aad};
    int r = c->nonces != NULL ? c->nonces(c->nonces_arg, h->nonce, err)
                              : aead_nonce(h->nonce, err);

    put_aad(c, h, aad);
    if (r < 0 ||
        hasher_id(c->keys[h->kind], h->id.b, sizeof h->id.b, key, err) < 0)
        return -1;
    r = aead_seal(c->aead, &p, in, len, out, err);
    wipe(key, sizeof key);
    return r;
}

static int
open_payload(struct frame_ctx *c, const struct frame_head *h, const uint8_t *in,
             uint8_t *out, struct err *err)
{
    uint8_t key[HASH_LEN], aad[AAD_LEN];
    struct aead_params p = {key, h->nonce, aad, sizeof aad};
    struct err why = ERR_INIT;
    int r;

    put_aad(c, h, aad);
    if (hasher_id(c->keys[h->kind], h->id.b, sizeof h->id.b, key, err) < 0)
        return -1;
    r = aead_open(c->aead, &p, in, h->stored_len, out, &why);
    wipe(key, sizeof key);
    if (r < 0 && why.code == ERR_CORRUPT)
        return err_set(err, ERR_CORRUPT,
                       "frame fails its authentication: it is damaged or was "
                       "exchanged");
    return r < 0 ? err_copy(err, &why) : 0;
}

/* -- encoding ---------------------------------------------------------------*/

static int
room_for(struct frame_ctx *c, size_t len, struct err *err)
{
    size_t want = FRAME_HEAD_LEN + codec_bound(len) + FRAME_TAG_LEN;

    if (want <= c->out_cap)
        return 0;
    free(c->out);
    c->out_cap = 0;
    c->out = malloc(want);
    if (c->out == NULL)
        return err_set_errno(err, ENOMEM, "frame of %zu bytes", want);
    c->out_cap = want;
    return 0;
}

static void
put_head(uint8_t *p, const struct frame_head *h)
{
    memset(p, 0, FRAME_HEAD_LEN);
    memcpy(p, magic, sizeof magic);
    p[AT_VERSION] = FRAME_VERSION;
    p[AT_KIND] = (uint8_t)h->kind;
    p[AT_CODEC] = (uint8_t)h->codec;
    put_le32(p + AT_RAW_LEN, h->raw_len);
    put_le32(p + AT_STORED_LEN, h->stored_len);
    memcpy(p + AT_ID, h->id.b, sizeof h->id.b);
    memcpy(p + AT_NONCE, h->nonce, sizeof h->nonce);
    p[AT_KEY_SLOT] = (uint8_t)h->slot;
    put_le64(p + AT_SUM, XXH64(p, AT_SUM, 0));
}

/* The payload before it is sealed: *ret is `data` itself when that is stored as
 * it is. */
static int
pack_payload(struct frame_ctx *c, const void *data, size_t len,
             struct frame_head *h, const uint8_t **ret, struct err *err)
{
    size_t stored = len;

    if (c->compresses &&
        codec_compress(c->codec, data, len, c->out + FRAME_HEAD_LEN,
                       c->out_cap - FRAME_HEAD_LEN, &stored, err) < 0)
        return -1;
    /* Less than 1/32 gained is not worth decompressing it ever again. */
    if (c->compresses && stored <= len - len / 32 && stored < len) {
        h->codec = FRAME_ZSTD;
        *ret = c->out + FRAME_HEAD_LEN;
    } else {
        h->codec = FRAME_RAW;
        stored = len;
        *ret = data;
    }
    h->raw_len = (uint32_t)len;
    h->stored_len = (uint32_t)stored;
    return 0;
}

int
frame_encode(struct frame_ctx *c, enum frame_kind kind,
             const struct chunk_id *id, const void *data, size_t len,
             const uint8_t **ret, size_t *ret_len, struct err *err)
{
    struct frame_head h = {.kind = kind, .id = *id};
    const uint8_t *payload;
    uint8_t *out;

    if (len == 0 || len > FRAME_RAW_MAX)
        return err_set(err, ERR_USAGE, "a frame of %zu bytes cannot be made",
                       len);
    if (room_for(c, len, err) < 0 ||
        pack_payload(c, data, len, &h, &payload, err) < 0)
        return -1;
    out = c->out + FRAME_HEAD_LEN;
    if (c->aead != NULL) {
        size_t plain = h.stored_len;

        h.slot = FRAME_SEALED;
        h.stored_len += FRAME_TAG_LEN;
        if (seal_payload(c, &h, payload, plain, out, err) < 0)
            return -1;
    } else if (payload != out) {
        memcpy(out, payload, len);
    }
    put_head(c->out, &h);
    *ret = c->out;
    *ret_len = FRAME_HEAD_LEN + h.stored_len;
    return 0;
}

/* -- decoding ---------------------------------------------------------------*/

static bool
all_zero(const uint8_t *p, size_t len)
{
    while (len > 0)
        if (p[--len] != 0)
            return false;
    return true;
}

/* What version 1 does not know, and must not guess at. */
static int
check_features(const uint8_t *p, struct err *err)
{
    if (p[AT_VERSION] != FRAME_VERSION)
        return err_set(err, ERR_UNSUPPORTED,
                       "frame version %u is not known; use a newer tidemark",
                       p[AT_VERSION]);
    if (p[AT_KIND] < FRAME_DATA || p[AT_KIND] > FRAME_BLOB)
        return err_set(err, ERR_UNSUPPORTED,
                       "frame kind %u is not known; use a newer tidemark",
                       p[AT_KIND]);
    if (p[AT_CODEC] > FRAME_ZSTD)
        return err_set(err, ERR_UNSUPPORTED,
                       "frame codec %u is not known; use a newer tidemark",
                       p[AT_CODEC]);
    if (p[AT_FLAGS] != 0 || p[AT_KEY_SLOT] > FRAME_SEALED ||
        (p[AT_KEY_SLOT] == FRAME_PLAIN &&
         !all_zero(p + AT_NONCE, AT_KEY_SLOT - AT_NONCE)) ||
        !all_zero(p + AT_RESERVED, AT_SUM - AT_RESERVED))
        return err_set(err, ERR_UNSUPPORTED,
                       "frame uses flags (0x%02x), a key slot (%u), a nonce "
                       "or reserved bytes that are not known; use a newer "
                       "tidemark",
                       p[AT_FLAGS], p[AT_KEY_SLOT]);
    return 0;
}

static int
check_lengths(const struct frame_head *h, struct err *err)
{
    uint32_t tag = h->slot == FRAME_SEALED ? FRAME_TAG_LEN : 0;

    if (h->raw_len == 0 || h->raw_len > FRAME_RAW_MAX)
        return err_set(err, ERR_CORRUPT,
                       "frame claims %u plaintext bytes, allowed are 1 to %u",
                       h->raw_len, FRAME_RAW_MAX);
    if (h->stored_len <= tag || h->stored_len - tag > h->raw_len ||
        (h->codec == FRAME_RAW && h->stored_len - tag != h->raw_len))
        return err_set(err, ERR_CORRUPT,
                       "frame claims %u stored bytes for %u plaintext bytes",
                       h->stored_len, h->raw_len);
    return 0;
}

int
frame_parse(const uint8_t *bytes, size_t len, struct frame_head *ret,
            struct err *err)
{
    struct frame_head h;

    if (len < FRAME_HEAD_LEN)
        return err_set(err, ERR_CORRUPT,
                       "frame of %zu bytes is shorter than its header", len);
    if (memcmp(bytes, magic, sizeof magic) != 0)
        return err_set(err, ERR_CORRUPT, "no frame begins here");
    if (get_le64(bytes + AT_SUM) != XXH64(bytes, AT_SUM, 0))
        return err_set(err, ERR_CORRUPT, "frame header fails its checksum");
    if (check_features(bytes, err) < 0)
        return -1;
    h.kind = bytes[AT_KIND];
    h.codec = bytes[AT_CODEC];
    h.raw_len = get_le32(bytes + AT_RAW_LEN);
    h.stored_len = get_le32(bytes + AT_STORED_LEN);
    memcpy(h.id.b, bytes + AT_ID, sizeof h.id.b);
    h.slot = bytes[AT_KEY_SLOT];
    memcpy(h.nonce, bytes + AT_NONCE, sizeof h.nonce);
    if (check_lengths(&h, err) < 0)
        return -1;
    *ret = h;
    return 0;
}

static int
wrong_id(const struct chunk_id *found, const struct chunk_id *wanted,
         struct err *err)
{
    char a[65], b[65];

    hex_encode(found->b, sizeof found->b, a);
    hex_encode(wanted->b, sizeof wanted->b, b);
    return err_set(err, ERR_CORRUPT, "frame holds chunk %.16s, wanted is %.16s",
                   a, b);
}

static int
room_to_open(struct frame_ctx *c, size_t len, struct err *err)
{
    if (len <= c->opened_cap)
        return 0;
    free(c->opened);
    c->opened_cap = 0;
    c->opened = malloc(len);
    if (c->opened == NULL)
        return err_set_errno(err, ENOMEM, "frame of %zu bytes", len);
    c->opened_cap = len;
    return 0;
}

/* Payload to plaintext, not yet compared with the id. */
static int
unpack_payload(struct frame_ctx *c, const struct frame_head *h,
               const uint8_t *payload, void *out, struct err *err)
{
    size_t len = h->stored_len;

    if (h->slot == FRAME_SEALED) {
        if (h->codec == FRAME_RAW)
            return open_payload(c, h, payload, out, err);
        if (room_to_open(c, h->raw_len, err) < 0 ||
            open_payload(c, h, payload, c->opened, err) < 0)
            return -1;
        payload = c->opened;
        len -= FRAME_TAG_LEN;
    }
    if (h->codec == FRAME_ZSTD)
        return codec_decompress(c->codec, payload, len, out, h->raw_len, err);
    memcpy(out, payload, h->raw_len);
    return 0;
}

static int
decode_payload(struct frame_ctx *c, const struct frame_head *h,
               const uint8_t *payload, void *out, struct err *err)
{
    struct chunk_id id;

    if (unpack_payload(c, h, payload, out, err) < 0 ||
        frame_id(c, h->kind, out, h->raw_len, &id, err) < 0)
        return -1;
    if (!chunk_id_equal(&id, &h->id))
        return err_set(err, ERR_CORRUPT, "frame payload does not match its id");
    return 0;
}

int
frame_decode(struct frame_ctx *c, const uint8_t *bytes, size_t len,
             const struct chunk_id *expect_id, uint32_t expect_raw_len,
             void *out, struct err *err)
{
    struct frame_head h;

    if (frame_parse(bytes, len, &h, err) < 0)
        return -1;
    if (FRAME_HEAD_LEN + (size_t)h.stored_len != len)
        return err_set(err, ERR_CORRUPT, "frame is %zu bytes long, not %zu",
                       FRAME_HEAD_LEN + (size_t)h.stored_len, len);
    if ((h.slot == FRAME_SEALED) != (c->aead != NULL))
        return err_set(err, ERR_CORRUPT,
                       "frame is %sencrypted, its repository "
                       "is %s",
                       h.slot == FRAME_SEALED ? "" : "not ",
                       c->aead != NULL ? "encrypted" : "not");
    if (h.raw_len != expect_raw_len)
        return err_set(err, ERR_CORRUPT,
                       "frame holds %u plaintext bytes, wanted are %u",
                       h.raw_len, expect_raw_len);
    if (expect_id != NULL && !chunk_id_equal(&h.id, expect_id))
        return wrong_id(&h.id, expect_id, err);
    return decode_payload(c, &h, bytes + FRAME_HEAD_LEN, out, err);
}
