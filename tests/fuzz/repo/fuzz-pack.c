/* Packs: as they are, and with checksums that fit.  Every entry that is
 * accepted must lie in the pack. */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "bytes.h"
#include "hash.h"
#include "pack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
parse(const uint8_t *data, size_t size)
{
    struct pack_view v;

    if (pack_parse(data, size, &v, NULL) < 0)
        return;
    for (uint32_t i = 0; i < v.n_entries; i++) {
        struct pack_entry e;

        pack_entry_at(&v, i, &e);
        if ((uint64_t)e.offset + e.frame_len > size)
            abort();
    }
}

static void
resum(uint8_t *p, size_t size)
{
    uint8_t *foot = p + size - PACK_FOOT_LEN;
    uint64_t off = get_le64(foot + 16);

    put_le64(p + 56, XXH64(p, 56, 0));
    if (off <= size - PACK_FOOT_LEN)
        (void)hash_sha256(p + off, size - PACK_FOOT_LEN - off, foot + 24, NULL);
    put_le64(foot + 56, XXH64(foot, 56, 0));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy;

    parse(data, size);
    if (size < PACK_HEAD_LEN + PACK_FOOT_LEN)
        return 0;
    copy = malloc(size);
    if (copy == NULL)
        abort();
    memcpy(copy, data, size);
    resum(copy, size);
    parse(copy, size);
    free(copy);
    return 0;
}
