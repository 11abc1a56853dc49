#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "jv.h"
#include "point.h"
#include "repo.h"

struct point *
point_new(void)
{
    return calloc(1, sizeof(struct point));
}

static void
disk_done(struct point_disk *d)
{
    free(d->name);
    free(d->format);
    free(d->generation);
    free(d->base_generation);
    free(d->tracking);
    free(d->reason);
    jv_free(d->source);
}

void
point_free(struct point *p)
{
    if (p == NULL)
        return;
    for (size_t i = 0; i < p->n_disks; i++)
        disk_done(&p->disks[i]);
    free(p->disks);
    for (size_t i = 0; i < p->n_tags; i++)
        free(p->tags[i]);
    free(p->tags);
    free(p->machine);
    free(p->lineage);
    free(p->consistency);
    free(p->capture);
    free(p);
}

const struct point_disk *
point_disk(const struct point *p, const char *name)
{
    for (size_t i = 0; i < p->n_disks; i++)
        if (strcmp(p->disks[i].name, name) == 0)
            return &p->disks[i];
    return NULL;
}

bool
point_has_tag(const struct point *p, const char *tag)
{
    for (size_t i = 0; i < p->n_tags; i++)
        if (strcmp(p->tags[i], tag) == 0)
            return true;
    return false;
}

int
point_list_split(struct point_list *l, struct point_list *ret, struct err *err)
{
    size_t kept = 0;

    ret->n = 0;
    ret->v = calloc(l->n + 1, sizeof(struct point *));
    if (ret->v == NULL)
        return err_set_errno(err, ENOMEM, "list of %zu points", l->n);
    for (size_t i = 0; i < l->n; i++)
        if (l->v[i]->partial)
            ret->v[ret->n++] = l->v[i];
        else
            l->v[kept++] = l->v[i];
    l->n = kept;
    return 0;
}

void
point_list_done(struct point_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        point_free(l->v[i]);
    free(l->v);
    l->v = NULL;
    l->n = 0;
}
