/* Index segments: as they are, and with checksums that fit; opened, searched
 * for an id made of the input, checked whole. */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "bytes.h"
#include "index.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
use(const uint8_t *data, size_t size)
{
    struct segment s;
    struct index_record r;
    struct pack_name name;
    struct chunk_id id = {{0}};
    uint32_t no;

    if (segment_open(data, size, &s, NULL) < 0)
        return;
    memcpy(id.b, data + size - sizeof id.b, sizeof id.b);
    (void)segment_find(&s, &id, &no, NULL);
    for (uint32_t i = 0; i < s.n_records; i++) {
        memcpy(id.b, s.records + (size_t)i * SEGMENT_RECORD_LEN,
               SEGMENT_PREFIX);
        if (segment_find(&s, &id, &no, NULL) == 1 && no >= s.n_records)
            abort();
        if (segment_record(&s, i, &r, NULL) == 0)
            segment_pack(&s, r.pack, &name);
    }
    (void)segment_check(&s, NULL);
}

/* Where the header says that tables and records are. */
static void
resum(uint8_t *p, size_t size)
{
    uint64_t n_packs = get_le32(p + 36), n = get_le32(p + 40);
    uint64_t fan = get_le32(p + 12) == 16 ? 262144 : 1024;
    uint64_t sums = 64 + n_packs * SEGMENT_PACK_LEN + fan;
    uint64_t blocks = (n + SEGMENT_BLOCK - 1) / SEGMENT_BLOCK;
    uint64_t records = sums + blocks * 8;

    if (records + n * SEGMENT_RECORD_LEN <= size) {
        for (uint64_t b = 0; b < blocks; b++) {
            uint64_t left = n - b * SEGMENT_BLOCK;

            if (left > SEGMENT_BLOCK)
                left = SEGMENT_BLOCK;
            put_le64(p + sums + b * 8,
                     XXH64(p + records + b * SEGMENT_BLOCK * SEGMENT_RECORD_LEN,
                           left * SEGMENT_RECORD_LEN, 0));
        }
        put_le64(p + 48, XXH64(p + 64, records - 64, 0));
    }
    put_le64(p + 56, XXH64(p, 56, 0));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy;

    use(data, size);
    if (size < SEGMENT_HEAD_LEN + SEGMENT_SHA_LEN)
        return 0;
    copy = malloc(size);
    if (copy == NULL)
        abort();
    memcpy(copy, data, size);
    resum(copy, size);
    use(copy, size);
    free(copy);
    return 0;
}
