/* What points take, and what each of them alone holds.
 *
 * Every index record gets an owner: the one point that refers to it, or the one
 * machine when several of its points do, or nobody in particular.  An owner only
 * moves in this direction, and whoever moves the owner of a page moves those of
 * everything below; so a page whose owner stays is not entered, and one is
 * entered three times at most, however many points share it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "internal.h"
#include "map_page.h"
#include "store.h"

#define NOBODY 0u         /* not reached yet */
#define SHARED UINT32_MAX /* by several machines */

/* The data below a page, which the owner alone does not tell: open addressing
 * by record number. */
struct page_sum {
    uint64_t record_plus_1; /* 0: free */
    uint64_t data;
};

struct count {
    struct repo *repo;
    const struct point_list *list;
    const bool *cancel;
    struct repo_stats st;
    uint32_t *machine_of; /* by point, 0 .. n_machines - 1 */
    uint32_t *owner;      /* by record: i + 1, or n + 1 + m, or as above */
    uint64_t n_owner;
    struct page_sum *sums;
    size_t n_sums, sums_cap; /* a power of two */
    uint32_t me;             /* the point that is walked */
    struct map_shape shape;  /* of its disk */
};

void
repo_stats_done(struct repo_stats *s)
{
    free(s->points);
    free(s->machines);
    *s = (struct repo_stats){0};
}

/* -- the data below pages ---------------------------------------------------*/

static struct page_sum *
sum_place(struct page_sum *v, size_t cap, uint64_t record)
{
    size_t i = (size_t)((record * 0x9e3779b97f4a7c15u) >> 20) & (cap - 1);

    while (v[i].record_plus_1 != 0 && v[i].record_plus_1 != record + 1)
        i = (i + 1) & (cap - 1);
    return &v[i];
}

static int
sum_set(struct count *c, uint64_t record, uint64_t data, struct err *err)
{
    struct page_sum *place;

    if (2 * c->n_sums >= c->sums_cap) {
        size_t cap = c->sums_cap == 0 ? 1024 : 2 * c->sums_cap;
        struct page_sum *v = calloc(cap, sizeof *v);

        if (v == NULL)
            return err_set_errno(err, ENOMEM, "sums of %zu map pages", cap);
        for (size_t i = 0; i < c->sums_cap; i++)
            if (c->sums[i].record_plus_1 != 0)
                *sum_place(v, cap, c->sums[i].record_plus_1 - 1) = c->sums[i];
        free(c->sums);
        c->sums = v;
        c->sums_cap = cap;
    }
    place = sum_place(c->sums, c->sums_cap, record);
    c->n_sums += place->record_plus_1 == 0;
    *place = (struct page_sum){record + 1, data};
    return 0;
}

static uint64_t
sum_get(const struct count *c, uint64_t record)
{
    return c->sums_cap == 0 ? 0 : sum_place(c->sums, c->sums_cap, record)->data;
}

/* -- owners -----------------------------------------------------------------*/

static uint32_t
machine_code(const struct count *c, uint32_t machine)
{
    return (uint32_t)c->list->n + 1 + machine;
}

/* The machine of an owner that is a point or a machine. */
static uint32_t
machine_of_owner(const struct count *c, uint32_t owner)
{
    return owner <= c->list->n ? c->machine_of[owner - 1]
                               : owner - 1 - (uint32_t)c->list->n;
}

static void
first_owner(struct count *c, const struct locator *l)
{
    struct repo_stat *p = &c->st.points[c->me - 1];

    if (l->kind == FRAME_DATA) {
        p->unique += l->raw_len;
        p->stored += l->frame_len;
    } else {
        p->meta += l->frame_len;
    }
    p->freed += l->frame_len;
    c->st.machines[c->machine_of[c->me - 1]].freed += l->frame_len;
    c->owner[l->record] = c->me;
}

/* The point that is walked refers to the record.  True when that is news, and
 * the pages below have to be told. */
static bool
own(struct count *c, const struct locator *l)
{
    uint32_t before = c->owner[l->record];
    uint32_t mine = c->machine_of[c->me - 1], theirs;

    if (before == NOBODY) {
        first_owner(c, l);
        return true;
    }
    if (before == SHARED || before == c->me || before == machine_code(c, mine))
        return false;
    theirs = machine_of_owner(c, before);
    if (before <= c->list->n)
        c->st.points[before - 1].freed -= l->frame_len;
    if (theirs != mine)
        c->st.machines[theirs].freed -= l->frame_len;
    c->owner[l->record] = theirs == mine ? machine_code(c, mine) : SHARED;
    return true;
}

/* -- the walk ---------------------------------------------------------------*/

/* The index grows when another process commits meanwhile. */
static int
have_owner(struct count *c, uint64_t record, struct err *err)
{
    uint64_t n = index_n_records(c->repo);
    uint32_t *v;

    if (record < c->n_owner)
        return 0;
    if (n <= record)
        n = record + 1;
    v = realloc(c->owner, n * sizeof *v);
    if (v == NULL)
        return err_set_errno(err, ENOMEM, "owners of %" PRIu64 " chunks", n);
    memset(v + c->n_owner, 0, (n - c->n_owner) * sizeof *v);
    c->owner = v;
    c->n_owner = n;
    return 0;
}

static int
find(struct count *c, const struct chunk_id *id, struct locator *ret,
     struct err *err)
{
    int rc = index_find(c->repo, id, ret, err);

    if (rc == 0)
        return err_set(err, ERR_NOT_FOUND,
                       "in no index segment; what is damaged says: tidemark "
                       "verify");
    return rc < 0 ? -1 : have_owner(c, ret->record, err);
}

static int
count_chunk(struct count *c, const struct chunk_id *id, uint64_t *data,
            struct err *err)
{
    struct locator l;

    if (find(c, id, &l, err) < 0)
        return err_wrap(err, "chunk");
    (void)own(c, &l);
    *data += l.raw_len;
    return 0;
}

static int
read_page(struct count *c, unsigned level, uint64_t page_no,
          const struct chunk_id *id, struct map_page *ret, struct err *err)
{
    uint8_t bytes[MAP_PAGE_LEN];

    if (c->cancel != NULL && __atomic_load_n(c->cancel, __ATOMIC_RELAXED))
        return err_set(err, ERR_CANCELED, "stopped on request");
    if (page_get(c->repo, id, bytes, sizeof bytes, err) < 0 ||
        map_page_decode(bytes, sizeof bytes, ret, err) < 0 ||
        map_page_check(&c->shape, level, page_no, ret, err) < 0)
        return err_wrap(err, "map page of level %u", level);
    return 0;
}

/* Adds the data below the page to *data.  The depth is that of the map. */
static int
count_page(struct count *c, unsigned level, uint64_t page_no,
           const struct chunk_id *id, uint64_t *data, struct err *err)
{
    struct map_page page;
    struct locator l;
    uint64_t below = 0;

    if (find(c, id, &l, err) < 0)
        return err_wrap(err, "map page of level %u", level);
    if (!own(c, &l)) {
        *data += sum_get(c, l.record);
        return 0;
    }
    if (read_page(c, level, page_no, id, &page, err) < 0)
        return -1;
    for (unsigned slot = 0; slot < MAP_PAGE_ENTRIES; slot++) {
        const struct chunk_id *entry = &page.entry[slot];
        int rc = 0;

        if (chunk_id_zero(entry))
            continue;
        if (level == 0)
            rc = count_chunk(c, entry, &below, err);
        else
            rc = count_page(c, level - 1, (page_no << MAP_PAGE_BITS) + slot,
                            entry, &below, err);
        if (rc < 0)
            return -1;
    }
    *data += below;
    return sum_set(c, l.record, below, err);
}

static int
count_disk(struct count *c, const struct point_disk *d, struct err *err)
{
    struct repo_stat *p = &c->st.points[c->me - 1];

    p->size += d->size;
    if (map_shape_init(&c->shape, d->size, d->chunk_size, err) < 0)
        return -1;
    if (chunk_id_zero(&d->root))
        return 0;
    return count_page(c, c->shape.height - 1, 0, &d->root, &p->data, err);
}

static int
count_point(struct count *c, size_t i, struct err *err)
{
    const struct point *p = c->list->v[i];
    struct locator l;

    c->me = (uint32_t)i + 1;
    c->st.points[i].points = !p->partial;
    for (size_t k = 0; k < p->n_disks; k++)
        if (count_disk(c, &p->disks[k], err) < 0)
            return err_wrap(err, "point '%s@%.8s', disk '%s'", p->machine,
                            p->id, p->disks[k].name);
    if (chunk_id_zero(&p->config))
        return 0;
    if (find(c, &p->config, &l, err) < 0)
        return err_wrap(err, "point '%s@%.8s', configuration", p->machine,
                        p->id);
    (void)own(c, &l);
    return 0;
}

/* -- sums -------------------------------------------------------------------*/

static void
add(struct repo_stat *to, const struct repo_stat *s)
{
    to->points += s->points;
    to->size += s->size;
    to->data += s->data;
    to->unique += s->unique;
    to->stored += s->stored;
    to->meta += s->meta;
}

static int
add_length(void *arg, const char *key, uint64_t len)
{
    uint64_t *sum = arg;

    *sum += len;
    return 0;
}

static int
add_up(struct count *c, struct err *err)
{
    struct repo_stats *st = &c->st;

    for (size_t i = 0; i < c->list->n; i++)
        add(&st->machines[c->machine_of[i]], &st->points[i]);
    for (size_t m = 0; m < st->n_machines; m++)
        add(&st->all, &st->machines[m]);
    st->all.freed = st->all.stored + st->all.meta;
    if (store_list(c->repo->store, "data", add_length, &st->pack_bytes, err) !=
            0 ||
        store_list(c->repo->store, "meta", add_length, &st->pack_bytes, err) !=
            0)
        return err_wrap(err, "list the packs of '%s'", repo_path(c->repo));
    return 0;
}

static int
prepare(struct count *c, struct err *err)
{
    const struct point_list *l = c->list;

    c->st.points = calloc(l->n + 1, sizeof *c->st.points);
    c->st.machines = calloc(l->n + 1, sizeof *c->st.machines);
    c->machine_of = calloc(l->n + 1, sizeof *c->machine_of);
    if (c->st.points == NULL || c->st.machines == NULL || c->machine_of == NULL)
        return err_set_errno(err, ENOMEM, "figures of %zu points", l->n);
    for (size_t i = 0; i < l->n; i++) {
        if (i == 0 || strcmp(l->v[i]->machine, l->v[i - 1]->machine) != 0)
            c->st.n_machines++;
        c->machine_of[i] = (uint32_t)c->st.n_machines - 1;
    }
    return 0;
}

int
repo_stats(struct repo *r, const struct point_list *l, const bool *cancel,
           struct repo_stats *ret, struct err *err)
{
    struct count c = {.repo = r, .list = l, .cancel = cancel};
    int rc = prepare(&c, err);

    for (size_t i = 0; rc == 0 && i < l->n; i++)
        rc = count_point(&c, i, err);
    if (rc == 0)
        rc = add_up(&c, err);
    free(c.machine_of);
    free(c.owner);
    free(c.sums);
    if (rc < 0)
        repo_stats_done(&c.st);
    else
        *ret = c.st;
    return rc;
}
