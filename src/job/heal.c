#include "heal.h"

#include <errno.h>
#include <stdlib.h>

#include "cleanup.h"
#include "err.h"
#include "reader.h"

int
heal_add(void *arg, uint64_t index, uint64_t n, struct err *err)
{
    struct heal *h = arg;

    if (h->n == h->cap) {
        size_t cap = h->cap == 0 ? 64 : 2 * h->cap;
        struct heal_run *v = realloc(h->v, cap * sizeof *v);

        if (v == NULL)
            return err_set_errno(err, ENOMEM, "list of damaged chunks");
        h->v = v;
        h->cap = cap;
    }
    h->v[h->n++] = (struct heal_run){index, n};
    h->n_chunks += n;
    return 0;
}

void
heal_done(struct heal *h)
{
    free(h->v);
    *h = (struct heal){0};
}

/* The first run that ends behind `index`. */
static size_t
first_behind(const struct heal *h, uint64_t index)
{
    size_t lo = 0, hi = h->n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (h->v[mid].index + h->v[mid].n <= index)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

bool
heal_has(const struct heal *h, uint64_t index)
{
    size_t i = first_behind(h, index);

    return i < h->n && h->v[i].index <= index;
}

/* The extents behind `*i` that has the flag, or NULL. */
static const struct nbd_extent *
next_flagged(const struct nbd_extents *e, size_t *i)
{
    while (*i < e->n && (!e->v[*i].flag || e->v[*i].len == 0))
        (*i)++;
    return *i < e->n ? &e->v[*i] : NULL;
}

/* Append, or widen the last one: `x` does not begin before it. */
static void
join(struct nbd_extents *to, struct nbd_extent x)
{
    struct nbd_extent *last = to->n > 0 ? &to->v[to->n - 1] : NULL;

    if (last == NULL || x.off > last->off + last->len)
        to->v[to->n++] = x;
    else if (x.off + x.len > last->off + last->len)
        last->len = x.off + x.len - last->off;
}

static struct nbd_extent
cut(const struct heal_run *r, uint32_t chunk_size, uint64_t off, uint64_t end)
{
    uint64_t a = r->index * chunk_size, b = (r->index + r->n) * chunk_size;

    a = a > off ? a : off;
    b = b < end ? b : end;
    return (struct nbd_extent){.off = a, .len = b - a, .flag = true};
}

int
heal_extents(const struct heal *h, uint32_t chunk_size, uint64_t off,
             uint64_t len, struct nbd_extents *e, struct err *err)
{
    size_t k = first_behind(h, off / chunk_size), i = 0;
    const uint64_t end = off + len;
    struct nbd_extents to = {0};

    if (k == h->n || h->v[k].index * chunk_size >= end)
        return 0;
    to.cap = e->n + (h->n - k);
    to.v = calloc(to.cap, sizeof *to.v);
    if (to.v == NULL)
        return err_set_errno(err, ENOMEM, "%zu extents", to.cap);
    for (;;) {
        const struct nbd_extent *x = next_flagged(e, &i);
        bool more = k < h->n && h->v[k].index * chunk_size < end;

        if (x == NULL && !more)
            break;
        if (!more || (x != NULL && x->off <= h->v[k].index * chunk_size))
            join(&to, e->v[i++]);
        else
            join(&to, cut(&h->v[k++], chunk_size, off, end));
    }
    nbd_extents_done(e);
    *e = to;
    return 0;
}
