/* New index segments: few large ones in place of many small ones.
 *
 * All segments that are merged are gone through at once, in the order of ids, and
 * written in parts: each new segment has its own range of ids, and only one is in
 * memory at a time.  A large segment that is mostly alive goes on as it is.
 */
#include "gc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "jv.h"
#include "store.h"

/* The segments that it replaces will be removed. */
static int
read_back(struct gc *g, const char *key, const struct buf *b, struct err *err)
{
    const uint8_t *map;
    size_t len;
    bool same;

    if (store_map(g->r->store, key, &map, &len, err) < 0)
        return -1;
    same = len == b->len && memcmp(map, b->data, len) == 0;
    store_unmap(g->r->store, map, len);
    return same ? 0
                : err_set(err, ERR_CORRUPT,
                          "'%s' does not read back as written; check the "
                          "storage of '%s'",
                          key, repo_path(g->r));
}

int
gc_put_segment(struct gc *g, const struct pack_name *packs, uint32_t n_packs,
               struct index_record *records, uint32_t n_records,
               struct err *err)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    struct segment_name name = {.k = ++g->last_k};
    char key[REPO_KEY_MAX];

    memcpy(name.sid, g->sid_bytes, sizeof name.sid);
    segment_key(&name, key);
    if (segment_build(&name, packs, n_packs, records, n_records, &b, err) < 0 ||
        store_put(g->r->store, key, b.data, b.len, err) < 0 ||
        read_back(g, key, &b, err) < 0)
        return err_wrap(err, "write '%s'", key);
    return gc_note_part(g->index, key, b.data, b.len, "records", n_records,
                        err);
}

/* -- which segments ---------------------------------------------------------*/

/* A record of this pack is worth keeping. */
static bool
pack_stays(const struct gc_pack *p)
{
    return p->counted && !p->chosen && p->len > 0;
}

static bool
is_foldable(const struct gc *g, const struct gc_segment *s)
{
    return s->seg.n_records < g->limits.segment_fold;
}

unsigned
gc_n_foldable(const struct gc *g)
{
    unsigned n = 0;

    for (size_t i = 0; i < g->view.n_segs; i++)
        n += is_foldable(g, &g->view.segs[i]);
    return n;
}

static int
mostly_alive(const struct gc *g, const struct gc_segment *s, struct err *err)
{
    uint64_t dead = 0;

    for (uint32_t no = 0; no < s->seg.n_records; no++) {
        struct index_record rec;

        if (segment_record(&s->seg, no, &rec, err) < 0)
            return -1;
        dead += !pack_stays(&g->view.packs.v[s->packs[rec.pack]]);
    }
    return dead * 4 < s->seg.n_records;
}

static int
stop_counting(struct gc *g, const struct gc_segment *s, struct err *err)
{
    if (jv_add(g->gone_index, jv_string(s->key)) < 0)
        return err_set_errno(err, ENOMEM, "list of segments");
    return 0;
}

/* -- merging ----------------------------------------------------------------*/

/* One stream of records; packs as numbers of the view, or behind them the
 * collection's own. */
struct source {
    const struct gc_segment *s; /* or NULL: own[] */
    const struct index_record *own;
    uint32_t no, n;
    struct index_record rec;
};

struct merger {
    struct gc *g;
    struct source *v; /* a heap: the least record first */
    size_t n;
    uint32_t n_view_packs;
    /* the segment that is being made */
    struct buf records; /* struct index_record */
    struct buf names;   /* struct pack_name */
    uint32_t *numbers;  /* by pack: number in names + 1, 0: not in it */
    struct index_record last;
    bool has_last;
};

static void
merger_done(struct merger *m)
{
    buf_done(&m->records);
    buf_done(&m->names);
    free(m->numbers);
    free(m->v);
}

static int
compare(const struct index_record *a, const struct index_record *b)
{
    int c = memcmp(a->prefix, b->prefix, sizeof a->prefix);

    if (c == 0)
        c = (a->pack > b->pack) - (a->pack < b->pack);
    return c != 0 ? c : (a->offset > b->offset) - (a->offset < b->offset);
}

/* The next record that is worth keeping: 1, at the end 0, -1. */
static int
advance(const struct merger *m, struct source *s, struct err *err)
{
    while (s->no < s->n) {
        if (s->s == NULL) {
            s->rec = s->own[s->no++];
            s->rec.pack += m->n_view_packs;
            return 1;
        }
        if (segment_record(&s->s->seg, s->no++, &s->rec, err) < 0)
            return -1;
        s->rec.pack = s->s->packs[s->rec.pack];
        if (pack_stays(&m->g->view.packs.v[s->rec.pack]))
            return 1;
    }
    return 0;
}

static void
sift_down(struct merger *m, size_t i)
{
    for (;;) {
        size_t least = i;
        struct source t;

        for (size_t k = 2 * i + 1; k <= 2 * i + 2 && k < m->n; k++)
            if (compare(&m->v[k].rec, &m->v[least].rec) < 0)
                least = k;
        if (least == i)
            return;
        t = m->v[i];
        m->v[i] = m->v[least];
        m->v[least] = t;
        i = least;
    }
}

static int
add_source(struct merger *m, struct source s, struct err *err)
{
    int more = advance(m, &s, err);

    if (more > 0)
        m->v[m->n++] = s;
    return more < 0 ? -1 : 0;
}

static int
flush(struct merger *m, struct err *err)
{
    uint32_t n = (uint32_t)(m->records.len / sizeof(struct index_record));
    uint32_t n_packs = (uint32_t)(m->names.len / sizeof(struct pack_name));

    if (n == 0)
        return 0;
    if (gc_put_segment(m->g, (struct pack_name *)(void *)m->names.data, n_packs,
                       (struct index_record *)(void *)m->records.data, n,
                       err) < 0)
        return -1;
    memset(m->numbers, 0,
           (m->n_view_packs + (size_t)m->g->last_seq + 1) * sizeof(uint32_t));
    m->records.len = m->names.len = 0;
    return gc_canceled(m->g, err);
}

static int
name_pack(struct merger *m, uint32_t pack, struct err *err)
{
    struct pack_name name;

    if (pack < m->n_view_packs) {
        name = m->g->view.packs.v[pack].name;
    } else {
        name.seq = pack - m->n_view_packs;
        name.class = m->g->classes[name.seq - 1];
        memcpy(name.sid, m->g->sid_bytes, sizeof name.sid);
    }
    if (buf_append(&m->names, &name, sizeof name, err) < 0)
        return -1;
    m->numbers[pack] = (uint32_t)(m->names.len / sizeof name);
    return 0;
}

static int
take(struct merger *m, const struct index_record *rec, struct err *err)
{
    bool same_id = m->has_last &&
                   memcmp(m->last.prefix, rec->prefix, sizeof rec->prefix) == 0;
    struct index_record out = *rec;

    if (same_id && compare(&m->last, rec) == 0)
        return 0; /* two segments say the same */
    if (!same_id && m->records.len / sizeof out >= m->g->limits.segment_max &&
        flush(m, err) < 0)
        return -1;
    if (m->numbers[rec->pack] == 0 && name_pack(m, rec->pack, err) < 0)
        return -1;
    out.pack = m->numbers[rec->pack] - 1;
    m->last = *rec;
    m->has_last = true;
    return buf_append(&m->records, &out, sizeof out, err);
}

static int
merge(struct merger *m, struct err *err)
{
    for (size_t i = m->n; i-- > 0;)
        sift_down(m, i);
    while (m->n > 0) {
        int more;

        if (take(m, &m->v[0].rec, err) < 0)
            return -1;
        more = advance(m, &m->v[0], err);
        if (more < 0)
            return -1;
        if (more == 0)
            m->v[0] = m->v[--m->n];
        sift_down(m, 0);
    }
    return flush(m, err);
}

/* -- what goes in -----------------------------------------------------------*/

static int
compare_own(const void *a, const void *b)
{
    return compare(a, b);
}

static int
add_copies(struct merger *m, struct err *err)
{
    struct index_record *own = (struct index_record *)(void *)m->g->copies.data;
    struct source s = {.own = own,
                       .n = (uint32_t)(m->g->copies.len / sizeof *own)};

    if (s.n == 0)
        return 0;
    qsort(own, s.n, sizeof *own, compare_own);
    return add_source(m, s, err);
}

static int
add_segment(struct merger *m, const struct gc_segment *s, struct err *err)
{
    const struct source from = {.s = s, .n = s->seg.n_records};
    bool stays = m->g->view.commits[s->commit].fate == GC_STAYS;
    int alive;

    if (!is_foldable(m->g, s)) {
        if (stays)
            return 0;
        alive = mostly_alive(m->g, s, err);
        if (alive < 0)
            return -1;
        if (alive > 0) {
            if (jv_add(m->g->taken_over, jv_ref(s->part)) < 0)
                return err_set_errno(err, ENOMEM, "list of segments");
            return 0;
        }
    }
    if (stop_counting(m->g, s, err) < 0)
        return -1;
    return add_source(m, from, err);
}

int
gc_write_index(struct gc *g, struct err *err)
{
    CLEANUP(merger_done) struct merger m = {.g = g};

    m.n_view_packs = (uint32_t)g->view.packs.n;
    m.v = calloc(g->view.n_segs + 1, sizeof *m.v);
    m.numbers =
        calloc(m.n_view_packs + (size_t)g->last_seq + 1, sizeof *m.numbers);
    if (m.v == NULL || m.numbers == NULL)
        return err_set_errno(err, ENOMEM, "index");
    if (add_copies(&m, err) < 0)
        return -1;
    for (size_t i = 0; i < g->view.n_segs; i++)
        if (add_segment(&m, &g->view.segs[i], err) < 0)
            return -1;
    gc_progress(g, "index", 0, 0);
    return merge(&m, err);
}
