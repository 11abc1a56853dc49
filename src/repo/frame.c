#include "frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "bytes.h"
#include "cleanup.h"
#include "compress.h"
#include "err.h"
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

struct frame_ctx {
    struct hasher *hasher[4]; /* by enum frame_kind */
    struct codec *codec;
    bool compresses;
    uint8_t *out; /* the last frame made */
    size_t out_cap;
};

DEFINE_CLEANUP(struct frame_ctx *, frame_ctx_free)

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
    for (unsigned kind = FRAME_DATA; kind <= FRAME_BLOB; kind++)
        hasher_free(c->hasher[kind]);
    codec_free(c->codec);
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

/* -- encoding ---------------------------------------------------------------*/

static int
room_for(struct frame_ctx *c, size_t len, struct err *err)
{
    size_t want = FRAME_HEAD_LEN + codec_bound(len);

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
    put_le64(p + AT_SUM, XXH64(p, AT_SUM, 0));
}

int
frame_encode(struct frame_ctx *c, enum frame_kind kind,
             const struct chunk_id *id, const void *data, size_t len,
             const uint8_t **ret, size_t *ret_len, struct err *err)
{
    struct frame_head h = {.kind = kind, .id = *id};
    size_t stored = len;

    if (len == 0 || len > FRAME_RAW_MAX)
        return err_set(err, ERR_USAGE, "a frame of %zu bytes cannot be made",
                       len);
    if (room_for(c, len, err) < 0)
        return -1;
    if (c->compresses &&
        codec_compress(c->codec, data, len, c->out + FRAME_HEAD_LEN,
                       c->out_cap - FRAME_HEAD_LEN, &stored, err) < 0)
        return -1;
    /* Less than 1/32 gained is not worth decompressing it ever again. */
    if (c->compresses && stored <= len - len / 32 && stored < len) {
        h.codec = FRAME_ZSTD;
    } else {
        h.codec = FRAME_RAW;
        stored = len;
        memcpy(c->out + FRAME_HEAD_LEN, data, len);
    }
    h.raw_len = (uint32_t)len;
    h.stored_len = (uint32_t)stored;
    put_head(c->out, &h);
    *ret = c->out;
    *ret_len = FRAME_HEAD_LEN + stored;
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
    if (p[AT_FLAGS] != 0 || p[AT_KEY_SLOT] != 0 ||
        !all_zero(p + AT_NONCE, AT_KEY_SLOT - AT_NONCE) ||
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
    if (h->raw_len == 0 || h->raw_len > FRAME_RAW_MAX)
        return err_set(err, ERR_CORRUPT,
                       "frame claims %u plaintext bytes, allowed are 1 to %u",
                       h->raw_len, FRAME_RAW_MAX);
    if (h->stored_len == 0 || h->stored_len > h->raw_len ||
        (h->codec == FRAME_RAW && h->stored_len != h->raw_len))
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
decode_payload(struct frame_ctx *c, const struct frame_head *h,
               const uint8_t *payload, void *out, struct err *err)
{
    struct chunk_id id;

    if (h->codec == FRAME_ZSTD) {
        if (codec_decompress(c->codec, payload, h->stored_len, out, h->raw_len,
                             err) < 0)
            return -1;
    } else {
        memcpy(out, payload, h->raw_len);
    }
    if (frame_id(c, h->kind, out, h->raw_len, &id, err) < 0)
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
    if (h.raw_len != expect_raw_len)
        return err_set(err, ERR_CORRUPT,
                       "frame holds %u plaintext bytes, wanted are %u",
                       h.raw_len, expect_raw_len);
    if (expect_id != NULL && !chunk_id_equal(&h.id, expect_id))
        return wrong_id(&h.id, expect_id, err);
    return decode_payload(c, &h, bytes + FRAME_HEAD_LEN, out, err);
}
