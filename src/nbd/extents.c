#include "extents.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>

#include <libnbd.h>

#include "err.h"
#include "reader.h"

void
nbd_extents_done(struct nbd_extents *e)
{
    free(e->v);
    *e = (struct nbd_extents){0};
}

static bool
flag_of(enum nbd_extent_kind kind, uint32_t flags)
{
    if (kind == NBD_EXTENT_DIRTY)
        return flags != 0;
    return (flags & LIBNBD_STATE_ZERO) != 0 &&
           (flags & ~(uint32_t)(LIBNBD_STATE_ZERO | LIBNBD_STATE_HOLE)) == 0;
}

static int
grow(struct nbd_extents *e, struct err *err)
{
    size_t cap = e->cap > 0 ? 2 * e->cap : 64;
    struct nbd_extent *v = realloc(e->v, cap * sizeof *v);

    if (v == NULL)
        return err_set(err, ERR_SYSTEM, "no memory for %zu extents", cap);
    e->v = v;
    e->cap = cap;
    return 0;
}

/* The array is full: give the last extent the safe flag, which is that of its
 * neighbour before, and melt the two into one. */
static void
melt(const struct nbd_span *s, struct nbd_extents *e)
{
    struct nbd_extent *last = &e->v[e->n - 1];

    if (last->flag == (s->kind == NBD_EXTENT_DIRTY))
        return;
    last[-1].len += last->len;
    e->n--;
}

static bool
extend(struct nbd_extents *e, uint64_t len, bool flag)
{
    if (e->n == 0 || e->v[e->n - 1].flag != flag)
        return false;
    e->v[e->n - 1].len += len;
    return true;
}

/* Append [from, to), which adjoins the last extent. */
static int
append(const struct nbd_span *s, uint64_t from, uint64_t to, bool flag,
       struct nbd_extents *e, struct err *err)
{
    if (extend(e, to - from, flag))
        return 0;
    if (e->n >= s->n_max) {
        flag = s->kind == NBD_EXTENT_DIRTY;
        melt(s, e);
        if (extend(e, to - from, flag))
            return 0;
    }
    if (e->n == e->cap && grow(e, err) < 0)
        return -1;
    e->v[e->n++] =
        (struct nbd_extent){.off = from, .len = to - from, .flag = flag};
    return 0;
}

static int
check_entry(const struct nbd_span *s, uint64_t ask_end, uint32_t len,
            struct err *err)
{
    if (len == 0)
        return err_set(err, ERR_PROTOCOL,
                       "the server sent an empty extent at %" PRIu64, s->pos);
    if (s->pos >= ask_end)
        return err_set(err, ERR_PROTOCOL,
                       "the server sent an extent at %" PRIu64
                       ", behind the end of the request",
                       s->pos);
    if (len % s->align != 0 && s->pos + len < s->disk_size)
        return err_set(err, ERR_PROTOCOL,
                       "the server sent an extent of %" PRIu32
                       " bytes at %" PRIu64 ", but its block size is %" PRIu32,
                       len, s->pos, s->align);
    return 0;
}

int
nbd_span_take(struct nbd_span *s, uint64_t ask_end, const uint32_t *entries,
              size_t n, struct nbd_extents *ret, struct err *err)
{
    if (n < 2 || n % 2 != 0)
        return err_set(err, ERR_PROTOCOL,
                       "the server sent no extents at %" PRIu64, s->pos);
    for (size_t i = 0; i < n; i += 2) {
        uint64_t from = s->pos > s->off ? s->pos : s->off;
        uint64_t to;

        if (check_entry(s, ask_end, entries[i], err) < 0)
            return -1;
        to = s->pos + entries[i];
        if (to > ask_end)
            to = ask_end;
        s->pos = to;
        if (to > s->end)
            to = s->end;
        if (from < to &&
            append(s, from, to, flag_of(s->kind, entries[i + 1]), ret, err) < 0)
            return -1;
    }
    return 0;
}
