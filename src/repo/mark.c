#include "mark.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "map_page.h"
#include "rand.h"

/* Pages of one level that are expanded at once: each has up to 64 entries. */
#define PAGES_AT_ONCE 8192u

struct mark {
    struct gc_view *v;
    uint64_t *live, *copy;            /* bit per record */
    struct buf roots[MAP_HEIGHT_MAX]; /* struct gc_ref, by level */
    struct buf blobs;
    struct gc_reader reader;
    uint64_t n_pages, n_chunks;
    const struct gc *g; /* while it runs */
};

DEFINE_CLEANUP(struct mark *, mark_free)

int
mark_new(struct gc_view *v, struct mark **ret, struct err *err)
{
    CLEANUP(mark_freep) struct mark *m = calloc(1, sizeof *m);
    size_t n = (size_t)(v->n_records / 64 + 1);

    if (m == NULL)
        return err_set_errno(err, ENOMEM, "mark");
    m->v = v;
    m->live = calloc(n, sizeof *m->live);
    m->copy = calloc(n, sizeof *m->copy);
    if (m->live == NULL || m->copy == NULL)
        return err_set_errno(err, ENOMEM, "mark of %" PRIu64 " records",
                             v->n_records);
    if (gc_reader_init(&m->reader, v, err) < 0)
        return -1;
    for (size_t i = 0; i < v->packs.n; i++) {
        v->packs.v[i].live_bytes = 0;
        v->packs.v[i].n_live = 0;
        v->packs.v[i].bad_live = false;
    }
    *ret = TAKE_PTR(m);
    return 0;
}

void
mark_free(struct mark *m)
{
    if (m == NULL)
        return;
    for (size_t i = 0; i < ARRAY_SIZE(m->roots); i++)
        buf_done(&m->roots[i]);
    buf_done(&m->blobs);
    gc_reader_done(&m->reader);
    free(m->live);
    free(m->copy);
    free(m);
}

static bool
bit(const uint64_t *bits, uint64_t no)
{
    return (bits[no / 64] >> (no % 64) & 1) != 0;
}

static void
set_bit(uint64_t *bits, uint64_t no)
{
    bits[no / 64] |= UINT64_C(1) << (no % 64);
}

bool
mark_is_live(const struct mark *m, uint64_t record)
{
    return bit(m->live, record);
}

bool
mark_needs_copy(const struct mark *m, uint64_t record)
{
    return bit(m->copy, record);
}

uint64_t
mark_n_chunks(const struct mark *m)
{
    return m->n_chunks;
}

/* -- roots ------------------------------------------------------------------*/

static int
add_ref(struct buf *b, const struct chunk_id *id, enum frame_kind kind,
        struct err *err)
{
    struct gc_ref r = {.id = *id, .kind = (uint8_t)kind};

    return chunk_id_zero(id) ? 0 : buf_append(b, &r, sizeof r, err);
}

int
mark_add(struct mark *m, const struct point *p, struct err *err)
{
    for (size_t i = 0; i < p->n_disks; i++) {
        const struct point_disk *d = &p->disks[i];
        struct map_shape shape;

        if (map_shape_init(&shape, d->size, d->chunk_size, err) < 0 ||
            add_ref(&m->roots[shape.height - 1], &d->root, FRAME_MAP, err) < 0)
            return err_wrap(err, "point %s, disk '%s'", p->id, d->name);
    }
    return p->config_len == 0 ? 0
                              : add_ref(&m->blobs, &p->config, FRAME_BLOB, err);
}

/* -- marking ----------------------------------------------------------------*/

static int
not_there(const struct gc_ref *r, struct err *err)
{
    static const char *const kinds[] = {"?", "chunk", "page", "configuration"};
    char hex[65];

    hex_encode(r->id.b, sizeof r->id.b, hex);
    return err_set(err, ERR_CORRUPT,
                   "a point needs %s %.16s, %s; nothing was deleted; run: "
                   "tidemark check --repair",
                   kinds[r->kind], hex,
                   r->rank == GC_UNKNOWN ? "which the index does not have"
                                         : "whose pack is not there");
}

/* Find them, mark them, and keep at the beginning of refs[] those that were not
 * marked before: *n of them. */
static int
mark_refs(struct mark *m, struct gc_ref *refs, size_t *n, struct err *err)
{
    size_t fresh = 0;

    if (gc_find(m->v, refs, n, err) < 0)
        return -1;
    for (size_t i = 0; i < *n; i++) {
        struct gc_ref *r = &refs[i];
        struct gc_pack *p;

        if (r->rank >= GC_ABSENT)
            return not_there(r, err);
        if (bit(m->live, r->record))
            continue;
        set_bit(m->live, r->record);
        /* Before a spare copy goes, the one that stays is looked at. */
        if (r->rank != GC_GOOD || r->spare)
            set_bit(m->copy, r->record);
        p = &m->v->packs.v[r->pack];
        p->live_bytes += r->frame_len;
        p->n_live++;
        p->bad_live |= r->rank == GC_BAD || r->rank == GC_BAD_CONDEMNED;
        refs[fresh++] = *r;
    }
    *n = fresh;
    return 0;
}

/* -- pages ------------------------------------------------------------------*/

/* The best copy, or any that can be read. */
static int
read_page(struct mark *m, const struct gc_ref *refs, size_t i, size_t n,
          struct map_page *ret, struct err *err)
{
    struct gc_ref copies[GC_COPIES_MAX];
    struct err why = ERR_INIT;
    const uint8_t *frame;
    size_t n_copies;
    int result = -1;

    if (refs[i].raw_len != MAP_PAGE_LEN)
        return err_set(err, ERR_CORRUPT, "a page of %u bytes", refs[i].raw_len);
    if (gc_reader_prove(&m->reader, refs, i, n, &frame, &why) == 0)
        return map_page_decode(m->reader.plain, MAP_PAGE_LEN, ret, err);
    if (gc_find_copies(m->v, &refs[i], copies, &n_copies, err) < 0)
        return -1;
    for (size_t c = 0; result < 0 && c < n_copies; c++)
        if (copies[c].raw_len == MAP_PAGE_LEN)
            result =
                gc_reader_prove(&m->reader, copies, c, c + 1, &frame, NULL);
    if (result < 0) {
        (void)err_copy(err, &why);
        return err_wrap(err, "nothing was deleted; run: tidemark check "
                             "--repair");
    }
    return map_page_decode(m->reader.plain, MAP_PAGE_LEN, ret, err);
}

static int
expand(struct mark *m, const struct gc_ref *refs, size_t n,
       enum frame_kind kind, struct gc_ref *ret, size_t *ret_n, struct err *err)
{
    size_t k = 0;

    for (size_t i = 0; i < n; i++) {
        struct map_page page;

        if (read_page(m, refs, i, n, &page, err) < 0)
            return -1;
        for (unsigned slot = 0; slot < MAP_PAGE_ENTRIES; slot++)
            if (!chunk_id_zero(&page.entry[slot]))
                ret[k++] = (struct gc_ref){.id = page.entry[slot],
                                           .kind = (uint8_t)kind};
    }
    m->n_pages += n;
    gc_progress(m->g, "mark", m->n_pages, 0);
    *ret_n = k;
    return gc_canceled(m->g, err);
}

/* Pages of `level`, marked just now. */
static int
walk(struct mark *m, unsigned level, struct gc_ref *pages, size_t n,
     struct err *err)
{
    size_t at_once = n < PAGES_AT_ONCE ? n : PAGES_AT_ONCE;
    CLEANUP_FREE struct gc_ref *below = NULL;

    if (n == 0)
        return 0;
    below = malloc(at_once * MAP_PAGE_ENTRIES * sizeof *below);
    if (below == NULL)
        return err_set_errno(err, ENOMEM, "%zu map pages", at_once);
    gc_refs_sort_by_place(pages, n);
    for (size_t i = 0; i < n; i += at_once) {
        size_t some = n - i < at_once ? n - i : at_once, k;

        if (expand(m, pages + i, some, level == 0 ? FRAME_DATA : FRAME_MAP,
                   below, &k, err) < 0 ||
            mark_refs(m, below, &k, err) < 0)
            return -1;
        if (level == 0)
            m->n_chunks += k;
        else if (walk(m, level - 1, below, k, err) < 0)
            return -1;
    }
    return 0;
}

static int
mark_roots(struct mark *m, struct buf *roots, unsigned level, struct err *err)
{
    struct gc_ref *refs = (struct gc_ref *)(void *)roots->data;
    size_t n = roots->len / sizeof *refs;

    if (mark_refs(m, refs, &n, err) < 0)
        return -1;
    return walk(m, level, refs, n, err);
}

int
mark_run(struct mark *m, const struct gc *g, struct err *err)
{
    struct gc_ref *blobs = (struct gc_ref *)(void *)m->blobs.data;
    size_t n = m->blobs.len / sizeof *blobs;

    m->g = g;
    for (unsigned level = MAP_HEIGHT_MAX; level-- > 0;)
        if (mark_roots(m, &m->roots[level], level, err) < 0)
            return -1;
    return mark_refs(m, blobs, &n, err);
}
