#include "runs.h"

#include "reader.h"

static const struct nbd_extent *
skip_to_flag(struct runs *r)
{
    const struct nbd_extents *e = r->extents;

    while (r->i < e->n && (e->v[r->i].flag != r->flag || e->v[r->i].len == 0))
        r->i++;
    return r->i < e->n ? &e->v[r->i] : NULL;
}

static uint64_t
end_chunk(const struct nbd_extent *x, uint32_t chunk_size)
{
    return (x->off + x->len - 1) / chunk_size + 1;
}

bool
runs_next(struct runs *r, uint64_t *ret_index, uint64_t *ret_n)
{
    const struct nbd_extent *x = skip_to_flag(r);
    uint64_t start, end;

    if (x == NULL)
        return false;
    start = x->off / r->chunk_size;
    end = end_chunk(x, r->chunk_size);
    r->i++;
    while ((x = skip_to_flag(r)) != NULL && x->off / r->chunk_size <= end) {
        end = end_chunk(x, r->chunk_size);
        r->i++;
    }
    *ret_index = start;
    *ret_n = end - start;
    return true;
}
