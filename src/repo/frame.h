/* repo/frame.h - one stored chunk: a header that describes itself, a payload.
 *
 * Bytes: docs/format.md, "Frames".  Parsing is pure and never reads beyond the
 * bytes it is given.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "internal.h"

#define FRAME_HEAD_LEN 72
#define FRAME_RAW_MAX (16u << 20) /* plaintext bytes in one frame */
#define FRAME_NONCE_LEN 12
#define FRAME_TAG_LEN 16 /* what sealing adds to the payload at most */

enum frame_codec {
    FRAME_RAW = 0,
    FRAME_ZSTD = 1,
};

/* Whose key the payload is sealed with; others are for later versions. */
enum frame_slot {
    FRAME_PLAIN = 0,
    FRAME_SEALED = 1, /* the repository's */
};

struct frame_head {
    enum frame_kind kind;
    enum frame_codec codec;
    uint32_t raw_len;    /* plaintext, 1 .. FRAME_RAW_MAX */
    uint32_t stored_len; /* payload; at most raw_len and a tag */
    struct chunk_id id;
    enum frame_slot slot;
    uint8_t nonce[FRAME_NONCE_LEN]; /* zero when plain */
};

/* Read the header at `bytes`, of which `len` may be looked at. */
int frame_parse(const uint8_t *bytes, size_t len, struct frame_head *ret,
                struct err *err);

/* Take nonces from `fn` instead of the random numbers: for tests with known
 * answers, and for those that count them. */
typedef int (*frame_nonce_fn)(void *arg, uint8_t nonce[FRAME_NONCE_LEN],
                              struct err *err);
void frame_ctx_set_nonces(struct frame_ctx *c, frame_nonce_fn fn, void *arg);

/* Make the frame of `data`, whose id is `id`.  *ret is borrowed from the
 * context until its next use. */
int frame_encode(struct frame_ctx *c, enum frame_kind kind,
                 const struct chunk_id *id, const void *data, size_t len,
                 const uint8_t **ret, size_t *ret_len, struct err *err);
