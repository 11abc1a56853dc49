/* source/rung.c - the ladder of captures (qemu.md 1.3).
 *
 * Chosen by what the schema says.  The version decides one thing only, because
 * no schema shows it: below 9.0 QEMU's NBD server aborts the whole machine when
 * a client of a disk with an iothread disconnects.
 */
#include <stdio.h>

#include "source_internal.h"

enum rung
rung_choose(const struct features *f, const char *iothread_disk,
            bool force_overlay, char *refusal, size_t len)
{
    refusal[0] = '\0';
    if (!f->export_add || !f->filter_name || !f->nodes_flat) {
        (void)snprintf(refusal, len,
                       "this QEMU is too old: it lacks %s; QEMU 5.2 or newer "
                       "is needed",
                       !f->export_add    ? "block-export-add"
                       : !f->filter_name ? "blockdev-backup filter-node-name"
                                         : "query-named-block-nodes flat");
        return RUNG_NONE;
    }
    if (iothread_disk != NULL && !f->iothread_nbd_safe) {
        (void)snprintf(refusal, len,
                       "disk '%s' runs in an iothread, and in QEMU below 9.0 "
                       "reading it over NBD can abort the machine; upgrade "
                       "QEMU, take the iothread off the disk, or leave the "
                       "disk out with --exclude %s",
                       iothread_disk, iothread_disk);
        return RUNG_NONE;
    }
    if (f->snapshot_access && f->export_node_bitmap && !force_overlay)
        return RUNG_SNAPSHOT;
    if (f->blockdev_create)
        return RUNG_OVERLAY;
    (void)snprintf(refusal, len,
                   "this QEMU has neither snapshot-access nor "
                   "blockdev-create; QEMU 5.2 or newer is needed");
    return RUNG_NONE;
}
