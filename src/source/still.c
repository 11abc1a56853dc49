/* source/still.c - is it still the disk that was looked at?
 *
 * Minutes can lie between the first look at QEMU and the instant, and whoever
 * else has a monitor may take a snapshot, pivot a mirror or disable a bitmap in
 * between.  QEMU then goes on to export a node that the guest has left, or
 * merges a bitmap that lacks writes, without a word.  So look again when the
 * instant stands and nothing can change any more: the jobs of the capture
 * block the nodes.
 */
#include <inttypes.h>
#include <string.h>

#include "block.h"
#include "cleanup.h"
#include "err.h"
#include "jv.h"
#include "source_internal.h"

/* Devices are told apart as QEMU does it: a name of ours may come from the node
 * at the top, which is the capture's filter now. */
static const struct disk *
same_device(const struct inventory *inv, const struct disk *d)
{
    for (size_t i = 0; i < inv->n; i++) {
        const struct disk *o = &inv->disks[i];

        if (d->qdev != NULL && o->qdev != NULL
                ? strcmp(d->qdev, o->qdev) == 0
                : d->qdev == o->qdev && strcmp(d->name, o->name) == 0)
            return o;
    }
    return NULL;
}

/* The node that the guest writes to, below filters and what is ours. */
static const char *
guest_node(const struct disk *d)
{
    const struct jv *chain = jv_get(d->info, "chain");

    for (size_t i = 0; i < jv_size(chain); i++) {
        const char *node = jv_get_str(jv_at(chain, i), "node");
        const char *driver = jv_get_str(jv_at(chain, i), "driver");

        if (node != NULL && driver != NULL && !is_run_object(node) &&
            !inventory_is_filter(driver))
            return node;
    }
    return "";
}

static int
check_node(const struct disk *d, const struct inventory *inv,
           const struct jv *nodes, struct err *err)
{
    const struct disk *now = same_device(inv, d);
    uint64_t size = 0;

    if (now == NULL && d->qdev == NULL)
        return 0; /* no device: nobody but us can have put it elsewhere */
    if (now == NULL || strcmp(guest_node(now), d->node) != 0)
        return err_set(err, ERR_REMOTE,
                       "disk '%s' got another image while its point was "
                       "prepared (a snapshot, a commit or a mirror); run the "
                       "backup again",
                       d->name);
    if (jv_get_uint(qmp_block_find(nodes, d->node), "image.virtual-size",
                    &size) &&
        size != d->size)
        return err_set(err, ERR_REMOTE,
                       "disk '%s' was resized from %" PRIu64 " to %" PRIu64
                       " bytes while its point was prepared; run the backup "
                       "again",
                       d->name, d->size, size);
    return 0;
}

static int
check_bitmap(const struct disk *d, const char *name, const struct jv *nodes,
             struct err *err)
{
    const struct jv *bitmap =
        qmp_block_bitmap(qmp_block_find(nodes, d->node), name);

    if (bitmap != NULL && jv_get_bool(bitmap, "recording", false))
        return 0;
    return err_set(err, ERR_REMOTE,
                   "disk '%s': another program %s bitmap '%s' while the point "
                   "was prepared; run the backup again",
                   d->name, bitmap != NULL ? "disabled" : "removed", name);
}

int
still_check(struct source *s, struct err *err)
{
    CLEANUP_JV struct jv *blocks = NULL;
    CLEANUP_JV struct jv *nodes = NULL;
    CLEANUP_JV struct jv *graph = NULL;
    CLEANUP(inventory_done) struct inventory inv = {0};

    if (s->off != NULL)
        return 0; /* nobody else has a monitor of our storage daemon */
    if (qmp_call(s->qmp, "query-block", NULL, QMP_TIMEOUT_MS, &blocks, err) <
            0 ||
        qmp_block_nodes(s->qmp, &nodes, err) < 0)
        return -1;
    if (s->features.block_graph &&
        qmp_call(s->qmp, "x-debug-query-block-graph", NULL, QMP_TIMEOUT_MS,
                 &graph, err) < 0)
        return -1;
    if (inventory_parse(blocks, nodes, graph, &inv, err) < 0)
        return -1;
    for (size_t i = 0; i < s->cap.n; i++) {
        const struct capture_disk *c = &s->cap.v[i];
        const struct disk *d = &s->inv.disks[c->disk];

        if (check_node(d, &inv, nodes, err) < 0 ||
            (c->base != NULL && check_bitmap(d, c->base, nodes, err) < 0) ||
            (c->rest != NULL && check_bitmap(d, c->rest, nodes, err) < 0))
            return -1;
    }
    return 0;
}
