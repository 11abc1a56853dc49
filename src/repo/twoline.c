#include "twoline.h"

#include <errno.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "err.h"
#include "hash.h"
#include "jv.h"
#include "rand.h"

#define SUM_PREFIX "sha256 "
#define SUM_LINE_LEN (sizeof SUM_PREFIX - 1 + 2 * HASH_LEN + 1)

int
twoline_encode(const struct jv *j, struct buf *ret, struct err *err)
{
    CLEANUP_FREE char *text = jv_text(j, true);
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    char hex[2 * HASH_LEN + 1];
    uint8_t digest[HASH_LEN];

    if (text == NULL)
        return err_set_errno(err, ENOMEM, "text of an object");
    if (buf_printf(&b, "%s\n", err, text) < 0 ||
        hash_sha256(b.data, b.len, digest, err) < 0)
        return -1;
    hex_encode(digest, sizeof digest, hex);
    if (buf_printf(&b, SUM_PREFIX "%s\n", err, hex) < 0)
        return -1;
    return buf_append(ret, b.data, b.len, err);
}

static int
check_sum(const uint8_t *bytes, size_t len, size_t line, const char *what,
          uint8_t sum[HASH_LEN], struct err *err)
{
    const uint8_t *p = bytes + line;
    char hex[2 * HASH_LEN + 1];

    if (len - line != SUM_LINE_LEN || p[SUM_LINE_LEN - 1] != '\n' ||
        memcmp(p, SUM_PREFIX, sizeof SUM_PREFIX - 1) != 0)
        return err_set(err, ERR_CORRUPT,
                       "%s does not end with its SHA-256; restore it from a "
                       "copy of the repository",
                       what);
    if (hash_sha256(bytes, line, sum, err) < 0)
        return -1;
    /* As text: one bit makes another spelling of the same digit. */
    hex_encode(sum, HASH_LEN, hex);
    if (memcmp(p + sizeof SUM_PREFIX - 1, hex, sizeof hex - 1) != 0)
        return err_set(err, ERR_CORRUPT,
                       "%s fails its SHA-256; restore it from a copy of the "
                       "repository",
                       what);
    return 0;
}

int
twoline_decode(const uint8_t *bytes, size_t len, const char *magic,
               const char *what, struct jv **ret, uint8_t *sum, struct err *err)
{
    const uint8_t *end =
        len > 0 && len <= TWOLINE_LEN_MAX ? memchr(bytes, '\n', len) : NULL;
    CLEANUP_JV struct jv *j = NULL;
    uint8_t digest[HASH_LEN];
    size_t text;

    if (end == NULL ||
        memmem(bytes, (size_t)(end - bytes), magic, strlen(magic)) == NULL)
        return err_set(err, ERR_FORMAT, "%s is none: it does not say '%s'",
                       what, magic);
    text = (size_t)(end - bytes);
    if (check_sum(bytes, len, text + 1, what, digest, err) < 0 ||
        jv_parse(bytes, text, TWOLINE_DEPTH, &j, err) < 0)
        return -1;
    if (sum != NULL)
        memcpy(sum, digest, sizeof digest);
    *ret = TAKE_PTR(j);
    return 0;
}
