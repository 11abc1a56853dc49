/* codec/compress.h - zstd, with the sizes known in advance.
 *
 * Threads: a codec belongs to one thread; make one per worker.
 */
#pragma once

#include <stddef.h>

struct codec;
struct err;

int codec_new(int level, struct codec **ret, struct err *err);
void codec_free(struct codec *c); /* NULL is fine */

/* Room that codec_compress() needs at most for `len` bytes. */
size_t codec_bound(size_t len);

/* Compress into `dst` (`cap` bytes).  *ret_len is the result's length. */
int codec_compress(struct codec *c, const void *src, size_t len, void *dst,
                   size_t cap, size_t *ret_len, struct err *err);

/* Decompress exactly `raw_len` bytes into `dst`; anything else, more or less,
 * is ERR_CORRUPT.  Never writes beyond raw_len. */
int codec_decompress(struct codec *c, const void *src, size_t len, void *dst,
                     size_t raw_len, struct err *err);

/* The length that one compressed piece says it decompresses to; more than `max`
 * or none at all is ERR_CORRUPT. */
int codec_content_len(const void *src, size_t len, size_t max, size_t *ret_len,
                      struct err *err);
