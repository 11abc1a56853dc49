/* Frames: as they are, and with a header checksum that fits. */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "bytes.h"
#include "frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define OUT_MAX 65536 /* plaintext that a target asks for */

static void
decode(struct frame_ctx *c, const uint8_t *data, size_t size)
{
    struct frame_head h;
    uint8_t *out;

    if (frame_parse(data, size, &h, NULL) < 0 || h.raw_len > OUT_MAX)
        return;
    out = malloc(h.raw_len);
    if (out == NULL)
        abort();
    (void)frame_decode(c, data, size, NULL, h.raw_len, out, NULL);
    free(out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct repo_keys keys;
    static struct frame_ctx *c;
    uint8_t *copy;

    if (c == NULL && frame_ctx_new(&keys, 1, &c, NULL) < 0)
        abort();
    decode(c, data, size);
    if (size < FRAME_HEAD_LEN)
        return 0;
    copy = malloc(size);
    if (copy == NULL)
        abort();
    memcpy(copy, data, size);
    put_le64(copy + 64, XXH64(copy, 64, 0));
    decode(c, copy, size);
    free(copy);
    return 0;
}
