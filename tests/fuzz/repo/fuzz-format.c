/* The format object: as it is, and its first line with a checksum that fits. */
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "format.h"
#include "hash.h"
#include "rand.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size > 0 ? memchr(data, '\n', size) : NULL;
    size_t line = end != NULL ? (size_t)(end + 1 - data) : size;
    struct buf b = BUF_INIT;
    struct repo_format f;
    uint8_t sum[HASH_LEN];
    char hex[2 * HASH_LEN + 1];

    (void)format_decode(data, size, &f, NULL);
    if (buf_append(&b, data, line, NULL) < 0 ||
        (end == NULL && buf_append(&b, "\n", 1, NULL) < 0) ||
        hash_sha256(b.data, b.len, sum, NULL) < 0)
        abort();
    hex_encode(sum, sizeof sum, hex);
    if (buf_printf(&b, "sha256 %s\n", NULL, hex) < 0)
        abort();
    if (format_decode(b.data, b.len, &f, NULL) == 0 &&
        (f.chunk_size < REPO_CHUNK_MIN || strlen(f.id) != 32))
        abort();
    buf_done(&b);
    return 0;
}
