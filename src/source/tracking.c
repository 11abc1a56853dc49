/* source/tracking.c - can a bitmap be believed? */
#include <stdio.h>
#include <string.h>

#include "block.h"
#include "jv.h"
#include "source_internal.h"

void
bitmap_prefix(const char *repo_id, char out[BITMAP_NAME_MAX])
{
    (void)snprintf(out, BITMAP_NAME_MAX, PREFIX "%.16s-", repo_id);
}

enum tracking
source_tracking(const struct source *s, size_t disk, const char *repo_id,
                const char *generation)
{
    char name[BITMAP_NAME_MAX];
    const struct jv *node = qmp_block_find(s->nodes, s->inv.disks[disk].node);
    const struct jv *bitmap;
    uint64_t granularity = 0;

    bitmap_prefix(repo_id, name);
    (void)strncat(name, generation, sizeof name - strlen(name) - 1);
    bitmap = qmp_block_bitmap(node, name);
    if (bitmap == NULL)
        return TRACKING_MISSING;
    if (jv_get_bool(bitmap, "inconsistent", false))
        return TRACKING_INCONSISTENT;
    if (jv_get_bool(bitmap, "busy", true))
        return TRACKING_BUSY;
    if (!jv_get_bool(bitmap, "recording", false))
        return TRACKING_NOT_RECORDING;
    if (!jv_get_uint(bitmap, "granularity", &granularity) ||
        granularity < 512 || (granularity & (granularity - 1)) != 0)
        return TRACKING_GRANULARITY;
    return TRACKING_OK;
}

int
source_forget(struct source *s, size_t disk, const char *repo_id,
              const char *generation, struct err *err)
{
    char name[BITMAP_NAME_MAX];

    bitmap_prefix(repo_id, name);
    (void)strncat(name, generation, sizeof name - strlen(name) - 1);
    return source_qmp(
        s, "block-dirty-bitmap-remove",
        jv_build("{s:s, s:s}", "node", s->inv.disks[disk].node, "name", name),
        err);
}

bool
source_has_bitmaps(const struct source *s, size_t disk, const char *repo_id)
{
    char prefix[BITMAP_NAME_MAX];
    const struct jv *node = qmp_block_find(s->nodes, s->inv.disks[disk].node);
    const struct jv *list = jv_get(node, "dirty-bitmaps");

    bitmap_prefix(repo_id, prefix);
    for (size_t i = 0; i < jv_size(list); i++) {
        const char *name = jv_get_str(jv_at(list, i), "name");

        if (name != NULL && strncmp(name, prefix, strlen(prefix)) == 0)
            return true;
    }
    return false;
}
