/* The walk over one map.  A page is entered once in all maps together, but for
 * the pages on the way to a disk's last chunk: what is right in them depends on
 * where the disk ends. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "verify.h"

struct walk {
    struct verify *v;
    const struct point *point;
    const struct point_disk *disk;
    struct map_shape shape;
};

bool
verify_bit(const uint64_t *bits, uint64_t i)
{
    return (__atomic_load_n(&bits[i / 64], __ATOMIC_RELAXED) >> (i % 64)) & 1;
}

void
verify_bit_set(uint64_t *bits, uint64_t i)
{
    (void)__atomic_fetch_or(&bits[i / 64], UINT64_C(1) << (i % 64),
                            __ATOMIC_RELAXED);
}

static int
widen(uint64_t **bits, uint64_t old_n, uint64_t new_n)
{
    uint64_t *p = realloc(*bits, new_n / 8);

    if (p == NULL)
        return -1;
    memset(p + old_n / 64, 0, (new_n - old_n) / 8);
    *bits = p;
    return 0;
}

/* The index grows when another process commits while we check.  No worker runs
 * while the walk does, so the bits may move. */
static int
have_bits(struct verify *v, uint64_t record, struct err *err)
{
    uint64_t n = (record / 4096 + 1) * 4096;

    if (record < v->n_bits)
        return 0;
    if (n < index_n_records(v->repo))
        n = (index_n_records(v->repo) / 4096 + 1) * 4096;
    if (widen(&v->seen, v->n_bits, n) < 0 ||
        widen(&v->need, v->n_bits, n) < 0 || widen(&v->bad, v->n_bits, n) < 0 ||
        widen(&v->fine, v->n_bits, n) < 0)
        return err_set_errno(err, ENOMEM, "bits for %" PRIu64 " index records",
                             n);
    v->n_bits = n;
    return 0;
}

/* Look `id` up and have bits for its record: 1 found, 0 not (*why says why), -1
 * the check cannot go on. */
static int
look(struct verify *v, const struct chunk_id *id, struct locator *l,
     struct err *why, struct err *err)
{
    int rc = index_find(v->repo, id, l, why);

    if (rc == 1)
        return have_bits(v, l->record, err) < 0 ? -1 : 1;
    if (rc == 0)
        (void)err_set(why, ERR_NOT_FOUND, "in no index segment");
    return 0;
}

/* Something is bad at chunks `first` .. `first + n - 1` of the disk. */
static int
hit(struct walk *w, uint64_t first, uint64_t n, const char *text,
    struct err *err)
{
    uint64_t end =
        w->shape.n_chunks - first < n ? w->shape.n_chunks : first + n;

    w->v->damage = true;
    if (w->v->pass != VERIFY_REPORT)
        return 0;
    return verify_problem(w->v, w->point, w->disk, first * w->shape.chunk_size,
                          (end - 1) * w->shape.chunk_size +
                              map_chunk_len(&w->shape, end - 1),
                          text, err);
}

/* Points need this record: count it for its pack, once. */
static int
mark(struct verify *v, const struct locator *l, struct err *err)
{
    struct vpack *p;

    if (l->absent || l->bad)
        v->damage = true; /* unless there is another copy; REPORT finds it */
    if (verify_bit(v->need, l->record))
        return 1;
    p = verify_pack(v, l->pack, err);
    if (p == NULL)
        return -1;
    verify_bit_set(v->need, l->record);
    p->need++;
    if (l->kind == FRAME_DATA && v->opts.level == REPO_VERIFY_STRUCTURE)
        v->rep.chunks++;
    return 1;
}

/* -- chunks -----------------------------------------------------------------*/

/* Try every place that it may be at. */
static int
prove(struct verify *v, const struct chunk_id *id, uint32_t len,
      const struct locator *l, struct err *why)
{
    struct err first = ERR_INIT;

    if (frame_read(v->repo, v->ctx, id, v->plain, len, &first) == 0)
        return 0;
    if (l != NULL && verify_bit(v->bad, l->record))
        return err_set(why, ERR_CORRUPT, "%s", verify_reason_get(v, l->record));
    return err_copy(why, &first);
}

static bool
doubtful(const struct verify *v, const struct locator *l, uint32_t len)
{
    return l->absent || l->bad || l->kind != FRAME_DATA || l->raw_len != len ||
           verify_bit(v->bad, l->record) || !verify_bit(v->need, l->record);
}

/* A record of another length or kind is as good as none: what reads the chunk
 * asks for that of the map. */
static int
report_chunk(struct walk *w, uint64_t index, const struct chunk_id *id,
             const struct locator *l, struct err *why, struct err *err)
{
    uint32_t len = map_chunk_len(&w->shape, index);
    struct verify *v = w->v;

    if (l != NULL && (!doubtful(v, l, len) || verify_bit(v->fine, l->record)))
        return 1;
    err_clear(why);
    if (prove(v, id, len, l, why) == 0) {
        if (l != NULL)
            verify_bit_set(v->fine, l->record);
        return 1;
    }
    (void)err_wrap(why, "chunk");
    if (id_set_add(&v->bad_ids, id)) {
        v->rep.bad_chunks++;
        v->n_missing += l == NULL;
    }
    return hit(w, index, 1, why->msg, err);
}

/* 1 the chunk is good so far, 0 it is not, -1 cannot go on. */
static int
chunk(struct walk *w, uint64_t index, const struct chunk_id *id,
      struct err *err)
{
    struct verify *v = w->v;
    struct err why = ERR_INIT;
    struct locator l;
    int rc = look(v, id, &l, &why, err);

    if (rc < 0)
        return -1;
    if (v->pass == VERIFY_REPORT)
        return report_chunk(w, index, id, rc == 1 ? &l : NULL, &why, err);
    if (rc == 0 || l.kind != FRAME_DATA ||
        l.raw_len != map_chunk_len(&w->shape, index))
        v->damage = true;
    return rc == 0 ? 0 : mark(v, &l, err);
}

/* -- pages ------------------------------------------------------------------*/

static int
bad_page(struct walk *w, unsigned level, uint64_t page_no,
         const struct chunk_id *id, struct err *why, struct err *err)
{
    struct verify *v = w->v;

    (void)err_wrap(why, "map page");
    if (v->pass == VERIFY_REPORT && id_set_add(&v->bad_ids, id))
        v->rep.bad_pages++;
    return hit(w, map_first_chunk(level, page_no, 0),
               UINT64_C(1) << ((level + 1) * MAP_PAGE_BITS), why->msg, err);
}

static int
read_page(struct walk *w, unsigned level, uint64_t page_no,
          const struct chunk_id *id, struct map_page *ret, struct err *why)
{
    uint8_t data[MAP_PAGE_LEN];

    if (page_get(w->v->repo, id, data, sizeof data, why) < 0 ||
        map_page_decode(data, sizeof data, ret, why) < 0)
        return -1;
    return map_page_check(&w->shape, level, page_no, ret, why);
}

static int walk(struct walk *w, unsigned level, uint64_t page_no,
                const struct chunk_id *id, struct err *err);

static int
walk_entries(struct walk *w, unsigned level, uint64_t page_no,
             const struct map_page *page, struct err *err)
{
    int good = 1;

    for (unsigned slot = 0; slot < MAP_PAGE_ENTRIES; slot++) {
        const struct chunk_id *id = &page->entry[slot];
        int rc = 1;

        if (chunk_id_zero(id))
            continue;
        if (level == 0)
            rc = chunk(w, map_first_chunk(0, page_no, slot), id, err);
        else
            rc = walk(w, level - 1, (page_no << MAP_PAGE_BITS) + slot, id, err);
        if (rc < 0)
            return -1;
        good &= rc;
    }
    return good;
}

/* 1 the page was entered before and needs no second look, 0, -1. */
static int
been_here(struct verify *v, const struct locator *l, bool last, struct err *err)
{
    if (verify_bit(v->seen, l->record))
        return !last;
    if (v->pass == VERIFY_REPORT)
        return 0;
    verify_bit_set(v->seen, l->record);
    v->rep.pages++;
    return mark(v, l, err) < 0 ? -1 : 0;
}

/* 1 nothing bad below, 0 something is, -1 cannot go on.  The depth is bounded
 * by the level, which the size of the disk gives. */
static int
walk(struct walk *w, unsigned level, uint64_t page_no,
     const struct chunk_id *id, struct err *err)
{
    bool last = map_page_no(level, w->shape.n_chunks - 1) == page_no;
    struct verify *v = w->v;
    struct err why = ERR_INIT;
    struct map_page page;
    struct locator l;
    int rc = look(v, id, &l, &why, err);

    if (rc < 0 || verify_canceled(v, err) < 0)
        return -1;
    if (rc == 0)
        return bad_page(w, level, page_no, id, &why, err);
    rc = been_here(v, &l, last, err);
    if (rc != 0)
        return rc;
    if (read_page(w, level, page_no, id, &page, &why) < 0)
        return bad_page(w, level, page_no, id, &why, err);
    rc = walk_entries(w, level, page_no, &page, err);
    if (rc == 1 && v->pass == VERIFY_REPORT)
        verify_bit_set(v->seen, l.record);
    return rc;
}

int
verify_walk(struct verify *v, const struct point *p, const struct point_disk *d,
            struct err *err)
{
    struct walk w = {.v = v, .point = p, .disk = d};

    if (map_shape_init(&w.shape, d->size, d->chunk_size, err) < 0)
        return -1;
    if (chunk_id_zero(&d->root))
        return 0;
    if (walk(&w, w.shape.height - 1, 0, &d->root, err) < 0)
        return -1;
    return verify_problem_end(v, err);
}
