/* Any answer of a server: what is accepted covers the range without gap.
 *
 * Input: kind, log2 of the block size, disk size, offset, length (one byte,
 * then three of two bytes), then answers of up to 8 bytes per entry. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "cleanup.h"
#include "extents.h"
#include "reader.h"

#define HEAD 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check(const struct nbd_extents *e, const struct nbd_span *s)
{
    uint64_t pos = s->off;

    for (size_t i = 0; i < e->n; i++) {
        if (e->v[i].off != pos || e->v[i].len == 0)
            abort();
        if (i > 0 && e->v[i].flag == e->v[i - 1].flag)
            abort();
        pos += e->v[i].len;
    }
    if (s->pos > s->off && pos != (s->pos < s->end ? s->pos : s->end))
        abort();
    if (e->n > s->n_max + 1)
        abort();
}

static struct nbd_span
read_head(const uint8_t *data)
{
    struct nbd_span s = {.kind =
                             data[0] % 2 ? NBD_EXTENT_ZERO : NBD_EXTENT_DIRTY,
                         .align = 1u << (data[1] % 17),
                         .n_max = 100};

    s.disk_size = (uint64_t)get_le16(data + 2) << 20 | 0x1ff;
    s.off = (uint64_t)get_le16(data + 4) << 12;
    s.end = s.off + ((uint64_t)get_le16(data + 6) << 8);
    if (s.end > s.disk_size)
        s.end = s.disk_size;
    s.pos = s.off - s.off % s.align;
    return s;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP(nbd_extents_done) struct nbd_extents e = {0};
    struct nbd_span s;

    if (size < HEAD)
        return 0;
    s = read_head(data);
    data += HEAD;
    size -= HEAD;
    while (s.pos < s.end && s.off < s.end) {
        uint32_t entries[16];
        size_t n = size / 4 < 16 ? size / 4 : 16;
        uint64_t before = s.pos;

        for (size_t i = 0; i < n; i++)
            entries[i] = get_le32(data + 4 * i);
        data += 4 * n;
        size -= 4 * n;
        if (nbd_span_take(&s, s.end, entries, n, &e, NULL) < 0)
            break;
        if (s.pos <= before)
            abort();
        check(&e, &s);
    }
    return 0;
}
