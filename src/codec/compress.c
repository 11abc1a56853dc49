#include "compress.h"

#include <errno.h>
#include <stdlib.h>
#include <zstd.h>

#include "cleanup.h"
#include "err.h"

/* Contexts are kept: making one costs more than compressing a small page. */
struct codec {
    int level;
    ZSTD_CCtx *c;
    ZSTD_DCtx *d;
};

DEFINE_CLEANUP(struct codec *, codec_free)

int
codec_new(int level, struct codec **ret, struct err *err)
{
    CLEANUP(codec_freep) struct codec *c = calloc(1, sizeof *c);

    if (level < ZSTD_minCLevel() || level > ZSTD_maxCLevel())
        return err_set(err, ERR_USAGE,
                       "compression level %d does not exist; use 1 to %d",
                       level, ZSTD_maxCLevel());
    if (c == NULL)
        return err_set_errno(err, ENOMEM, "compressor");
    c->level = level;
    c->c = ZSTD_createCCtx();
    c->d = ZSTD_createDCtx();
    if (c->c == NULL || c->d == NULL)
        return err_set_errno(err, ENOMEM, "compressor");
    *ret = TAKE_PTR(c);
    return 0;
}

void
codec_free(struct codec *c)
{
    if (c == NULL)
        return;
    (void)ZSTD_freeCCtx(c->c);
    (void)ZSTD_freeDCtx(c->d);
    free(c);
}

size_t
codec_bound(size_t len)
{
    return ZSTD_compressBound(len);
}

int
codec_compress(struct codec *c, const void *src, size_t len, void *dst,
               size_t cap, size_t *ret_len, struct err *err)
{
    size_t n = ZSTD_compressCCtx(c->c, dst, cap, src, len, c->level);

    if (ZSTD_isError(n))
        return err_set(err, ERR_SYSTEM, "compress %zu bytes: %s", len,
                       ZSTD_getErrorName(n));
    *ret_len = n;
    return 0;
}

int
codec_decompress(struct codec *c, const void *src, size_t len, void *dst,
                 size_t raw_len, struct err *err)
{
    size_t n = ZSTD_decompressDCtx(c->d, dst, raw_len, src, len);

    if (ZSTD_isError(n))
        return err_set(err, ERR_CORRUPT, "decompress %zu bytes: %s", len,
                       ZSTD_getErrorName(n));
    if (n != raw_len)
        return err_set(err, ERR_CORRUPT,
                       "%zu compressed bytes give %zu bytes, not %zu", len, n,
                       raw_len);
    return 0;
}

int
codec_content_len(const void *src, size_t len, size_t max, size_t *ret_len,
                  struct err *err)
{
    unsigned long long n = ZSTD_getFrameContentSize(src, len);

    if (n == ZSTD_CONTENTSIZE_ERROR || n == ZSTD_CONTENTSIZE_UNKNOWN)
        return err_set(err, ERR_CORRUPT,
                       "%zu compressed bytes do not say their length", len);
    if (n > max)
        return err_set(err, ERR_CORRUPT,
                       "compressed text claims %llu bytes, more than %zu", n,
                       max);
    *ret_len = (size_t)n;
    return 0;
}
