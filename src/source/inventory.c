#include "inventory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block.h"
#include "cleanup.h"
#include "err.h"
#include "jv.h"

/* QEMU: drivers with is_filter set, and their one child that carries data. */
static const struct {
    const char *driver;
    const char *child;
} filters[] = {
    {"throttle", "file"},      {"copy-on-read", "file"},
    {"preallocate", "file"},   {"compress", "file"},
    {"blkdebug", "image"},     {"blklogwrites", "file"},
    {"blkreplay", "image"},    {"copy-before-write", "file"},
    {"mirror_top", "backing"}, {"commit_top", "backing"},
    {"backup-top", "backing"},
};

/* Drivers that are image formats; everything else below a device is a protocol
 * and its bytes are the disk's. */
static const char *const formats[] = {"qcow2", "raw",  "qcow",     "qed",
                                      "vmdk",  "vhdx", "vpc",      "vdi",
                                      "luks",  "dmg",  "parallels"};

#define WALK_MAX 64 /* nodes below one device; deeper is a loop */

bool
inventory_is_filter(const char *driver)
{
    for (size_t i = 0; i < ARRAY_SIZE(filters); i++)
        if (strcmp(filters[i].driver, driver) == 0)
            return true;
    return false;
}

static const char *
filter_child(const char *driver)
{
    for (size_t i = 0; i < ARRAY_SIZE(filters); i++)
        if (strcmp(filters[i].driver, driver) == 0)
            return filters[i].child;
    return "file";
}

/* The id a person gave in "/machine/peripheral/ID/virtio-backend", or a bare
 * id; NULL for QEMU's own paths. */
static char *
qdev_id(const char *qdev)
{
    static const char prefix[] = "/machine/peripheral/";
    const char *p = qdev;

    if (*p != '/')
        return strdup(p);
    if (strncmp(p, prefix, sizeof prefix - 1) != 0)
        return NULL;
    p += sizeof prefix - 1;
    return strndup(p, strcspn(p, "/"));
}

char *
inventory_name(const char *qdev, const char *device, const char *node)
{
    char *name = qdev != NULL && *qdev != '\0' ? qdev_id(qdev) : NULL;

    if (name == NULL && device != NULL && *device != '\0')
        name = strdup(device);
    if (name == NULL && node != NULL)
        name = strdup(node);
    for (char *p = name; p != NULL && *p != '\0'; p++)
        if (*p == '/' || (unsigned char)*p <= ' ' || (unsigned char)*p > '~')
            *p = '_';
    return name;
}

static int64_t
graph_id(const struct jv *graph, const char *node)
{
    const struct jv *nodes = jv_get(graph, "nodes");
    int64_t id = -1;

    for (size_t i = 0; i < jv_size(nodes); i++) {
        const char *name = jv_get_str(jv_at(nodes, i), "name");
        const char *type = jv_get_str(jv_at(nodes, i), "type");

        if (name != NULL && type != NULL && strcmp(name, node) == 0 &&
            strcmp(type, "block-driver") == 0)
            (void)jv_get_int(jv_at(nodes, i), "id", &id);
    }
    return id;
}

static const char *
graph_name(const struct jv *graph, int64_t id)
{
    const struct jv *nodes = jv_get(graph, "nodes");

    for (size_t i = 0; i < jv_size(nodes); i++) {
        int64_t other = -1;

        if (jv_get_int(jv_at(nodes, i), "id", &other) && other == id)
            return jv_get_str(jv_at(nodes, i), "name");
    }
    return NULL;
}

/* Node below `node` through the edge `child`: from the node's own "children"
 * (10.1+), else from the graph. */
static const char *
child_of(const struct jv *nodes, const struct jv *graph, const char *node,
         const char *child)
{
    const struct jv *list = jv_get(qmp_block_find(nodes, node), "children");
    const struct jv *edges = jv_get(graph, "edges");
    int64_t id = graph_id(graph, node);

    for (size_t i = 0; i < jv_size(list); i++) {
        const char *edge = jv_get_str(jv_at(list, i), "child");

        if (edge != NULL && strcmp(edge, child) == 0)
            return jv_get_str(jv_at(list, i), "node-name");
    }
    for (size_t i = 0; id >= 0 && i < jv_size(edges); i++) {
        const char *edge = jv_get_str(jv_at(edges, i), "name");
        int64_t parent = -1, below = -1;

        (void)jv_get_int(jv_at(edges, i), "parent", &parent);
        (void)jv_get_int(jv_at(edges, i), "child", &below);
        if (edge != NULL && parent == id && strcmp(edge, child) == 0)
            return graph_name(graph, below);
    }
    return NULL;
}

static const char *
driver_of(const struct jv *nodes, const char *node)
{
    const char *drv = jv_get_str(qmp_block_find(nodes, node), "drv");

    return drv != NULL ? drv : "";
}

/* Down through the filters to the node that holds the format. */
static const char *
format_node(const struct jv *nodes, const struct jv *graph, const char *root)
{
    const char *node = root;

    for (unsigned i = 0; i < WALK_MAX && node != NULL; i++) {
        const char *drv = driver_of(nodes, node);

        if (!inventory_is_filter(drv))
            return node;
        node = child_of(nodes, graph, node, filter_child(drv));
    }
    return NULL;
}

/* The file at the very bottom of a node's `child`: what an image is, whatever
 * its node is called and whatever is put over or under it. */
static const char *
bottom_file(const struct jv *nodes, const struct jv *graph, const char *node,
            const char *child)
{
    for (unsigned i = 0; i < WALK_MAX; i++) {
        const char *below = child_of(nodes, graph, node, child);

        if (below == NULL && i == 0 && strcmp(child, "file") != 0)
            return NULL;
        if (below == NULL)
            break;
        node = below;
        child = filter_child(driver_of(nodes, node));
    }
    return jv_get_str(qmp_block_find(nodes, node), "file");
}

/* One node of the chain.  A filter has no "image": it changes no bytes. */
static struct jv *
chain_entry(const struct jv *nodes, const struct jv *graph, const char *node)
{
    const char *drv = driver_of(nodes, node);
    const char *file = jv_get_str(qmp_block_find(nodes, node), "file");
    const char *image = NULL, *data = NULL;

    if (!inventory_is_filter(drv)) {
        image = bottom_file(nodes, graph, node, "file");
        data = bottom_file(nodes, graph, node, "data-file");
    }
    return jv_build("{s:s, s:s, s:s, s:s*, s:s*}", "node", node, "driver", drv,
                    "file", file != NULL ? file : "", "image", image, "data",
                    data);
}

/* Every node from the root down, backing files behind their overlay: the
 * shape by which a later run sees that something was put in between. */
static struct jv *
chain_info(const struct jv *nodes, const struct jv *graph, const char *root)
{
    CLEANUP_JV struct jv *chain = jv_array();
    const char *node = root;

    for (unsigned i = 0; i < WALK_MAX && node != NULL; i++) {
        const char *drv = driver_of(nodes, node);

        if (jv_add(chain, chain_entry(nodes, graph, node)) < 0)
            return NULL;
        node =
            child_of(nodes, graph, node,
                     inventory_is_filter(drv) ? filter_child(drv) : "backing");
    }
    return TAKE_PTR(chain);
}

static bool
is_format(const char *driver)
{
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
        if (strcmp(formats[i], driver) == 0)
            return true;
    return false;
}

/* qcow2 v3 that is writable keeps bitmaps; v2 has no place for them.  With an
 * external data file the image can be rolled back without its bitmap noticing,
 * so such a bitmap is not made persistent. */
static bool
keeps_bitmaps(const struct jv *node, const char *driver)
{
    const char *compat = jv_get_str(node, "image.format-specific.data.compat");

    return strcmp(driver, "qcow2") == 0 && compat != NULL &&
           strcmp(compat, "0.10") != 0 &&
           jv_get_str(node, "image.format-specific.data.data-file") == NULL &&
           !jv_get_bool(node, "ro", true);
}

static void
disk_done(struct disk *d)
{
    free(d->name);
    free(d->node);
    free(d->root);
    free(d->driver);
    free(d->format);
    free(d->file);
    free(d->qdev);
    free(d->skip);
    jv_free(d->info);
}

void
inventory_done(struct inventory *inv)
{
    for (size_t i = 0; i < inv->n; i++)
        disk_done(&inv->disks[i]);
    free(inv->disks);
    inv->disks = NULL;
    inv->n = 0;
}

/* The parts that need a medium. */
static int
fill_medium(struct disk *d, const struct jv *block, const struct jv *nodes,
            const struct jv *graph, struct err *err)
{
    const char *root = jv_get_str(block, "inserted.node-name");
    const char *node = root ? format_node(nodes, graph, root) : NULL;
    const struct jv *n = node ? qmp_block_find(nodes, node) : NULL;
    const char *drv, *file;

    if (n == NULL)
        return err_set(err, ERR_PROTOCOL,
                       "disk '%s': QEMU does not tell which node below '%s' "
                       "holds the image; report this with the output of "
                       "'tidemark doctor'",
                       d->name, root ? root : "?");
    drv = driver_of(nodes, node);
    file = jv_get_str(n, "file");
    d->root = strdup(root);
    d->node = strdup(node);
    d->driver = strdup(drv);
    d->format = strdup(is_format(drv) ? drv : "raw");
    d->file = strdup(file != NULL ? file : "");
    d->persistent = keeps_bitmaps(n, drv);
    d->info = jv_build("{s:s, s:s, s:s, s:o}", "node", node, "driver", drv,
                       "file", file != NULL ? file : "", "chain",
                       chain_info(nodes, graph, root));
    if (!d->root || !d->node || !d->driver || !d->format || !d->file ||
        !d->info)
        return err_set_errno(err, ENOMEM, "disk '%s'", d->name);
    if (!jv_get_uint(n, "image.virtual-size", &d->size))
        return err_set(err, ERR_PROTOCOL, "disk '%s': QEMU gives no size",
                       d->name);
    if (jv_get_bool(block, "inserted.ro", false))
        d->skip = strdup("read-only");
    else if (d->size == 0)
        d->skip = strdup("empty");
    return 0;
}

static int
fill_disk(struct disk *d, const struct jv *block, const struct jv *nodes,
          const struct jv *graph, struct err *err)
{
    const char *qdev = jv_get_str(block, "qdev");
    const char *device = jv_get_str(block, "device");
    const char *root = jv_get_str(block, "inserted.node-name");

    d->name = inventory_name(qdev, device, root);
    d->qdev = qdev != NULL ? strdup(qdev) : NULL;
    if (d->name == NULL)
        return err_set_errno(err, ENOMEM, "disk list");
    if (jv_get(block, "inserted") != NULL)
        return fill_medium(d, block, nodes, graph, err);
    d->skip = strdup("no medium");
    d->node = strdup("");
    d->root = strdup("");
    d->driver = strdup("");
    d->format = strdup("");
    d->file = strdup("");
    d->info = jv_object();
    return d->skip && d->info ? 0 : err_set_errno(err, ENOMEM, "disk list");
}

/* One image under two devices is one disk: tracked twice, each would remove the
 * other's bitmap. */
static int
skip_twins(struct inventory *inv, struct err *err)
{
    for (size_t i = 0; i < inv->n; i++)
        for (size_t k = 0; k < i; k++) {
            struct disk *d = &inv->disks[i];

            if (d->skip != NULL || inv->disks[k].skip != NULL ||
                strcmp(d->node, inv->disks[k].node) != 0)
                continue;
            if (asprintf(&d->skip, "the image of disk '%s' once more",
                         inv->disks[k].name) < 0) {
                d->skip = NULL;
                return err_set_errno(err, ENOMEM, "disk list");
            }
        }
    return 0;
}

/* Two devices of one name cannot be told apart later: say so now. */
static int
check_names(const struct inventory *inv, struct err *err)
{
    for (size_t i = 0; i < inv->n; i++)
        for (size_t k = 0; k < i; k++)
            if (inv->disks[i].skip == NULL && inv->disks[k].skip == NULL &&
                strcmp(inv->disks[i].name, inv->disks[k].name) == 0)
                return err_set(err, ERR_UNSUPPORTED,
                               "two disks are both called '%s'; give their "
                               "devices an id= of their own",
                               inv->disks[i].name);
    return 0;
}

int
inventory_parse(const struct jv *blocks, const struct jv *nodes,
                const struct jv *graph, struct inventory *ret, struct err *err)
{
    struct inventory inv = {0};

    if (!jv_is_array(blocks) || !jv_is_array(nodes))
        return err_set(err, ERR_PROTOCOL,
                       "QEMU's list of block devices is not a list");
    inv.disks = calloc(jv_size(blocks) + 1, sizeof *inv.disks);
    if (inv.disks == NULL)
        return err_set_errno(err, ENOMEM, "disk list");
    for (size_t i = 0; i < jv_size(blocks); i++) {
        inv.n++;
        if (fill_disk(&inv.disks[i], jv_at(blocks, i), nodes, graph, err) < 0) {
            inventory_done(&inv);
            return -1;
        }
    }
    if (check_names(&inv, err) < 0 || skip_twins(&inv, err) < 0) {
        inventory_done(&inv);
        return -1;
    }
    *ret = inv;
    return 0;
}
