/* source/paint.c - a bitmap with bits that no guest wrote.
 *
 * QEMU has no command that sets bits of a bitmap.  But a bitmap on a null-co
 * node of the disk's size records what is written there, and bitmaps can be
 * merged across nodes (qemu.md 3e): so the canaries are zeroes written through
 * a short-lived writable export, and the transaction merges them into the new
 * bitmap at the instant it is born.
 */
#include <stdint.h>

#include "block.h"
#include "cleanup.h"
#include "err.h"
#include "jv.h"
#include "source_internal.h"
#include "writer.h"

#define WRITE_TIMEOUT_MS 30000

DEFINE_CLEANUP(struct nbd_writer *, nbd_writer_close)

static int
write_blocks(struct source *s, const struct capture_disk *d,
             const uint64_t *blocks, size_t n, struct err *err)
{
    CLEANUP(nbd_writer_closep) struct nbd_writer *w = NULL;
    uint64_t size = s->inv.disks[d->disk].size;

    if (nbd_writer_open(s->cap.socket, d->paint_export, 4, WRITE_TIMEOUT_MS, &w,
                        err) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        uint64_t off = blocks[i] * GRANULARITY;
        uint64_t len = size - off < GRANULARITY ? size - off : GRANULARITY;

        if (off >= size)
            return err_set(err, ERR_USAGE, "block %zu is behind the end", i);
        if (nbd_writer_zero(w, off, len, err) < 0)
            return -1;
    }
    return nbd_writer_flush(w, err);
}

int
paint_disk(struct source *s, struct capture_disk *d, const uint64_t *blocks,
           size_t n, struct err *err)
{
    d->painted = true;
    if (source_qmp(s, "blockdev-add",
                   jv_build("{s:s, s:s, s:I}", "driver", "null-co", "node-name",
                            d->paint, "size",
                            (int64_t)s->inv.disks[d->disk].size),
                   err) < 0 ||
        source_qmp(s, "block-dirty-bitmap-add",
                   jv_build("{s:s, s:s, s:i}", "node", d->paint, "name",
                            d->paint_bitmap, "granularity", GRANULARITY),
                   err) < 0 ||
        source_qmp(s, "block-export-add",
                   jv_build("{s:s, s:s, s:s, s:s, s:b}", "type", "nbd", "id",
                            d->paint_export, "node-name", d->paint, "name",
                            d->paint_export, "writable", 1),
                   err) < 0)
        return -1;
    if (write_blocks(s, d, blocks, n, err) < 0)
        return -1;
    return qmp_export_end(s->qmp, d->paint_export, END_TIMEOUT_MS, err);
}
