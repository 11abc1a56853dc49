/* source/inventory.h - disks of a running QEMU, from its own answers.
 *
 * Everything is addressed by the node name of the format node: once a backup
 * filter is in place a device name resolves to the filter, and a bitmap put
 * there is lost with it (qemu.md 1.4, rule 1).  Node names of their own making
 * ("#block312") change at every start, so what identifies a disk across runs is
 * its qdev id, else its device name, else a node name given by a person.
 *
 * Pure: QEMU's answers in, structs out.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct jv;

struct disk {
    char *name;
    char *node;
    char *root;   /* node at the top: `node`, or a filter above it */
    char *driver; /* of the format node */
    char *format; /* "raw" also for protocol drivers without a format node */
    char *file;
    char *qdev; /* as QEMU gives it, or NULL */
    char *skip; /* reason, or NULL */
    uint64_t size;
    bool persistent;
    bool iothread;
    struct jv *info;
};

struct inventory {
    struct disk *disks;
    size_t n;
};

/* From query-block, query-named-block-nodes (flat) and, where QEMU has it,
 * x-debug-query-block-graph (may be NULL).  0: free with inventory_done(). */
int inventory_parse(const struct jv *blocks, const struct jv *nodes,
                    const struct jv *graph, struct inventory *ret,
                    struct err *err);
void inventory_done(struct inventory *inv);

/* Stable name from qdev, device and node name; malloc'd, NULL without memory. */
char *inventory_name(const char *qdev, const char *device, const char *node);

/* True for drivers that only pass requests on (throttle, copy-on-read, ...). */
bool inventory_is_filter(const char *driver);
