/* source/histograms.c - what the guest feels: asking QEMU how long its requests take.
 *
 * A histogram is the only way to see a tail.  Where a device has none we ask for
 * one and remove it at the end; somebody else's is used as it is.  A run that
 * dies leaves a histogram that costs a guest nothing measurable, and the next
 * run removes it (source_recover()).  Where QEMU cannot make histograms there are
 * still counts and times.
 *
 * What cannot be asked is not known, and no failure.  (A QEMU that does not answer at
 * all is one, and source_watch() says so.)
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "jv.h"
#include "log.h"
#include "source_internal.h"

#define SET "block-latency-histogram-set"

static bool
same(const char *a, const char *b)
{
    return a != NULL && b != NULL && a[0] != '\0' && strcmp(a, b) == 0;
}

/* The inventory's disk that an element of query-blockstats speaks of. */
static const struct disk *
disk_of(const struct source *s, const struct jv *device, size_t *ret_no)
{
    const char *qdev = jv_get_str(device, "qdev");
    const char *node = jv_get_str(device, "node-name");

    for (size_t i = 0; i < s->inv.n; i++) {
        const struct disk *d = &s->inv.disks[i];

        if (d->skip != NULL ||
            !(same(d->qdev, qdev) ||
              (qdev == NULL && (same(d->root, node) || same(d->node, node)))))
            continue;
        *ret_no = i;
        return d;
    }
    return NULL;
}

static struct jv *
query(struct source *s)
{
    CLEANUP_JV struct jv *all = NULL;
    struct err why = ERR_INIT;

    if (s->qmp == NULL)
        return NULL;
    if (qmp_call(s->qmp, "query-blockstats", NULL, QMP_TIMEOUT_MS, &all,
                 &why) == 0)
        return TAKE_PTR(all);
    log_debug("latency of the guest: %s", why.msg);
    return NULL;
}

/* Without boundaries: remove. */
static int
set_histograms(struct source *s, const char *qdev, struct jv *boundaries)
{
    struct jv *args = jv_build("{s:s}", "id", qdev);
    struct err why = ERR_INIT;

    if (boundaries != NULL &&
        jv_set(args, "boundaries", jv_ref(boundaries)) < 0) {
        jv_free(args);
        return -1;
    }
    if (qmp_call(s->qmp, SET, args, QMP_TIMEOUT_MS, NULL, &why) == 0)
        return 0;
    log_debug("histogram of '%s': %s", qdev, why.msg);
    return -1;
}

void
source_impact_begin(struct source *s)
{
    CLEANUP_JV struct jv *all = NULL;
    CLEANUP_JV struct jv *boundaries = latency_boundaries();

    if (!s->features.latency_histogram || boundaries == NULL)
        return;
    all = query(s);
    s->measuring = all != NULL;
    for (size_t i = 0; i < jv_size(all); i++) {
        const struct jv *device = jv_at(all, i);
        const struct disk *d;
        size_t no;

        d = disk_of(s, device, &no);
        if (d != NULL && d->qdev != NULL &&
            latency_owner(device) == HISTOGRAM_NONE)
            (void)set_histograms(s, d->qdev, boundaries);
    }
}

int
source_impact_look(struct source *s, struct guest_io *ret)
{
    CLEANUP_JV struct jv *all = query(s);

    if (all == NULL)
        return -1;
    memset(ret, 0, s->inv.n * sizeof *ret);
    for (size_t i = 0; i < jv_size(all); i++) {
        size_t no;

        if (disk_of(s, jv_at(all, i), &no) != NULL)
            latency_parse(jv_at(all, i), &ret[no]);
    }
    return 0;
}

/* By what they look like, not by what we believe to have done: somebody may have
 * set others meanwhile, and those are not ours to remove. */
size_t
histograms_remove(struct source *s)
{
    CLEANUP_JV struct jv *all = NULL;
    size_t n = 0;

    if (!s->features.latency_histogram)
        return 0;
    all = query(s);
    for (size_t i = 0; i < jv_size(all); i++) {
        const struct jv *device = jv_at(all, i);
        const char *qdev = jv_get_str(device, "qdev");

        if (qdev != NULL && latency_owner(device) == HISTOGRAM_OURS)
            n += set_histograms(s, qdev, NULL) == 0;
    }
    return n;
}

void
histograms_end(struct source *s)
{
    if (!s->measuring || s->qmp == NULL)
        return;
    s->measuring = false;
    (void)histograms_remove(s);
}
