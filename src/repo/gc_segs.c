/* Asking the segments of a view where frames are, many ids at a time.
 *
 * Ids are sorted first, so that each segment is gone through once from its
 * beginning to its end, or in few places, instead of being searched for each id
 * alone: a disk of 1 TiB has 16 million of them.  Records were checked when the
 * segment was opened, so that nothing is checked again here.
 */
#include "gc.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "cleanup.h"
#include "jv.h"
#include "store.h"

/* A process may have only so many mappings (65530 by default). */
#define MAPPINGS_MAX 50000u

/* -- opening ----------------------------------------------------------------*/

static int
check_name(const struct gc_segment *s, struct err *err)
{
    struct segment_name name = {.k = s->seg.k};
    char key[REPO_KEY_MAX];
    uint64_t len;

    memcpy(name.sid, s->seg.sid, sizeof name.sid);
    segment_key(&name, key);
    if (strcmp(key, s->key) != 0)
        return err_set(err, ERR_CORRUPT, "this is '%s' under a wrong name",
                       key);
    if (!jv_get_uint(s->part, "len", &len) || len != s->map_len)
        return err_set(err, ERR_CORRUPT,
                       "%zu bytes, the commit object says otherwise",
                       s->map_len);
    return 0;
}

static int
map_or_copy(struct gc_view *v, struct gc_segment *s, struct err *err)
{
    if (store_map(v->r->store, s->key, &s->map, &s->map_len, err) < 0)
        return -1;
    if (v->n_segs <= MAPPINGS_MAX)
        return 0;
    s->own = malloc(s->map_len + 1);
    if (s->own == NULL)
        return err_set_errno(err, ENOMEM, "index segment");
    memcpy(s->own, s->map, s->map_len);
    store_unmap(v->r->store, s->map, s->map_len);
    s->map = NULL;
    return 0;
}

static int
number_packs(struct gc_view *v, struct gc_segment *s, struct err *err)
{
    s->packs = calloc((size_t)s->seg.n_packs + 1, sizeof *s->packs);
    if (s->packs == NULL)
        return err_set_errno(err, ENOMEM, "index segment");
    for (uint32_t i = 0; i < s->seg.n_packs; i++) {
        struct pack_name name;
        struct gc_pack *p;

        segment_pack(&s->seg, i, &name);
        if (gc_packs_add(&v->packs, &name, &s->packs[i], err) < 0)
            return -1;
        p = &v->packs.v[s->packs[i]];
        p->counted |= !p->gone;
    }
    return 0;
}

static int
open_segment(struct gc_view *v, uint32_t commit, const struct jv *part,
             struct err *err)
{
    const char *key = jv_get_str(part, "key");
    struct gc_segment *s = realloc(v->segs, (v->n_segs + 1) * sizeof *s);

    if (s == NULL)
        return err_set_errno(err, ENOMEM, "index segments");
    v->segs = s;
    if (key == NULL || strlen(key) >= sizeof s->key)
        return err_set(err, ERR_CORRUPT, "an index segment without a key");
    if (jv_get(v->gone_index, key) != NULL)
        return 0;
    s += v->n_segs++;
    *s = (struct gc_segment){.part = part, .commit = commit};
    memcpy(s->key, key, strlen(key) + 1);
    if (map_or_copy(v, s, err) < 0 ||
        segment_open(s->map != NULL ? s->map : s->own, s->map_len, &s->seg,
                     err) < 0 ||
        check_name(s, err) < 0 || segment_check_records(&s->seg, err) < 0 ||
        number_packs(v, s, err) < 0)
        return err_wrap(err, "%s", key);
    s->record_base = v->n_records;
    v->n_records += s->seg.n_records;
    return 0;
}

int
gc_view_open_segments(struct gc_view *v, struct err *err)
{
    for (size_t c = 0; c < v->n_commits; c++) {
        const struct jv *list = jv_get(v->commits[c].payload, "index");

        if (v->commits[c].fate != GC_STAYS)
            continue;
        for (size_t i = 0; i < jv_size(list); i++)
            if (open_segment(v, (uint32_t)c, jv_at(list, i), err) < 0)
                return err_wrap(err, "collection refused (nothing was deleted; "
                                     "run: tidemark check --repair)");
    }
    return 0;
}

/* What a segment says was believed since it was opened, from memory that the
 * kernel may have read from the disk again meanwhile. */
int
gc_view_check_segments(const struct gc_view *v, struct err *err)
{
    for (size_t i = 0; i < v->n_segs; i++) {
        const struct gc_segment *s = &v->segs[i];
        int result = segment_check_records(&s->seg, err);

        if (s->map != NULL && store_check_map(v->r->store, s->map, err) < 0)
            result = -1;
        if (result < 0)
            return err_wrap(err,
                            "%s: was damaged while it was used; nothing was "
                            "deleted; run: tidemark check --repair",
                            s->key);
    }
    return 0;
}

/* -- one record -------------------------------------------------------------*/

static bool
is_bad(const struct gc_view *v, uint32_t pack, uint32_t at)
{
    size_t lo = 0, hi = v->n_bad_frames;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const struct gc_bad_frame *f = &v->bad_frames[mid];

        if (f->pack == pack && f->at == at)
            return true;
        if (f->pack < pack || (f->pack == pack && f->at < at))
            lo = mid + 1;
        else
            hi = mid;
    }
    return v->packs.v[pack].bad;
}

int
gc_ref_at(const struct gc_view *v, const struct gc_segment *s, uint32_t no,
          struct gc_ref *ret, struct err *err)
{
    struct index_record rec;
    const struct gc_pack *p;
    bool goes, bad;

    if (segment_record(&s->seg, no, &rec, err) < 0)
        return err_wrap(err, "%s", s->key);
    *ret = (struct gc_ref){.record = s->record_base + no,
                           .pack = s->packs[rec.pack],
                           .offset = rec.offset,
                           .frame_len = rec.frame_len,
                           .raw_len = rec.raw_len,
                           .kind = (uint8_t)rec.kind,
                           .rank = GC_UNKNOWN};
    memcpy(ret->id.b, rec.prefix, sizeof rec.prefix);
    p = &v->packs.v[ret->pack];
    if (!p->counted)
        return 0;
    /* A pack ends with a footer: one that was cut behind the frame is not
     * whole, either. */
    if ((uint64_t)rec.offset + rec.frame_len + PACK_FOOT_LEN > p->len) {
        ret->rank = GC_ABSENT;
        return 0;
    }
    goes = p->condemned || p->chosen;
    bad = is_bad(v, ret->pack, rec.offset);
    ret->rank = bad ? (goes ? GC_BAD_CONDEMNED : GC_BAD)
                    : (goes ? GC_CONDEMNED : GC_GOOD);
    return 0;
}

/* -- sorting ----------------------------------------------------------------*/

#define BUCKETS 65536u
#define BUCKETS_WORTH 16384u

/* What is looked for, by id. */
struct wanted {
    struct gc_ref *refs;
    size_t n;
    size_t
        *from; /* BUCKETS + 1: where ids with these two bytes begin, or NULL */
};

static void
wanted_done(struct wanted *w)
{
    free(w->from);
}

static int
compare_ids(const void *a, const void *b)
{
    return memcmp(((const struct gc_ref *)a)->id.b,
                  ((const struct gc_ref *)b)->id.b, sizeof(struct chunk_id));
}

static unsigned
bucket_of(const uint8_t *prefix)
{
    return (unsigned)prefix[0] << 8 | prefix[1];
}

/* Ids are spread evenly: a first pass by two bytes leaves small heaps. */
static int
sort_many(struct gc_ref *refs, size_t n, struct err *err)
{
    CLEANUP_FREE struct gc_ref *to = malloc(n * sizeof *to);
    CLEANUP_FREE size_t *at = calloc(BUCKETS, sizeof *at);
    size_t sum = 0;

    if (to == NULL || at == NULL)
        return err_set_errno(err, ENOMEM, "%zu ids", n);
    for (size_t i = 0; i < n; i++)
        at[bucket_of(refs[i].id.b)]++;
    for (unsigned b = 0; b < BUCKETS; b++) {
        sum += at[b];
        at[b] = sum - at[b];
    }
    for (size_t i = 0; i < n; i++)
        to[at[bucket_of(refs[i].id.b)]++] = refs[i];
    for (unsigned b = 0; b < BUCKETS; b++) {
        size_t from = b == 0 ? 0 : at[b - 1];

        if (at[b] - from > 1)
            qsort(to + from, at[b] - from, sizeof *to, compare_ids);
    }
    memcpy(refs, to, n * sizeof *refs);
    return 0;
}

static int
note_buckets(struct wanted *w, struct err *err)
{
    size_t i = 0;

    w->from = calloc(BUCKETS + 1, sizeof *w->from);
    if (w->from == NULL)
        return err_set_errno(err, ENOMEM, "%zu ids", w->n);
    for (unsigned b = 0; b <= BUCKETS; b++) {
        while (i < w->n && bucket_of(w->refs[i].id.b) < b)
            i++;
        w->from[b] = i;
    }
    return 0;
}

/* Sort, and keep one of each. */
static int
prepare(struct wanted *w, struct err *err)
{
    size_t n = 0;

    if (w->n >= BUCKETS_WORTH) {
        if (sort_many(w->refs, w->n, err) < 0)
            return -1;
    } else if (w->n > 0) {
        qsort(w->refs, w->n, sizeof *w->refs, compare_ids);
    }
    for (size_t i = 0; i < w->n; i++)
        if (n == 0 || compare_ids(&w->refs[n - 1], &w->refs[i]) != 0)
            w->refs[n++] = w->refs[i];
    w->n = n;
    for (size_t i = 0; i < n; i++) {
        w->refs[i].rank = GC_UNKNOWN;
        w->refs[i].record = UINT64_MAX;
    }
    return n >= BUCKETS_WORTH ? note_buckets(w, err) : 0;
}

static int
compare_places(const void *a, const void *b)
{
    const struct gc_ref *x = a, *y = b;

    if (x->pack != y->pack)
        return x->pack < y->pack ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

void
gc_refs_sort_by_place(struct gc_ref *refs, size_t n)
{
    if (n > 0)
        qsort(refs, n, sizeof *refs, compare_places);
}

/* -- finding ----------------------------------------------------------------*/

/* Ids so sparse among the records are jumped to by the fan-out. */
#define SPARSE 16

static int
compare_record(const struct segment *s, uint32_t no, const struct gc_ref *ref)
{
    return memcmp(s->records + (size_t)no * SEGMENT_RECORD_LEN, ref->id.b,
                  SEGMENT_PREFIX);
}

/* The first record from `no` on that is not less. */
static uint32_t
jump(const struct segment *s, const struct gc_ref *ref, uint32_t no)
{
    unsigned slot = s->fan_bits == 8 ? ref->id.b[0] : bucket_of(ref->id.b);
    uint32_t lo = slot == 0 ? 0 : get_le32(s->fan + 4 * (size_t)(slot - 1));
    uint32_t hi = get_le32(s->fan + 4 * (size_t)slot);

    if (lo < no)
        lo = no;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;

        if (compare_record(s, mid, ref) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static void
take_better(struct gc_ref *ref, const struct gc_ref *found)
{
    struct chunk_id id = ref->id;
    bool spare = ref->spare || found->rank == GC_CONDEMNED;

    if (found->kind == ref->kind)
        ref->spare = spare;
    if (found->kind != ref->kind || found->rank > ref->rank ||
        (found->rank == ref->rank && found->record >= ref->record))
        return;
    *ref = *found;
    ref->id = id;
    ref->spare = spare;
}

/* Few records, many ids: each record is looked for among the ids. */
static int
find_few(const struct gc_view *v, const struct gc_segment *s, struct wanted *w,
         struct err *err)
{
    for (uint32_t no = 0; no < s->seg.n_records; no++) {
        const uint8_t *rec = s->seg.records + (size_t)no * SEGMENT_RECORD_LEN;
        size_t lo = w->from[bucket_of(rec)], end = w->from[bucket_of(rec) + 1];
        size_t hi = end;

        while (lo < hi) {
            size_t mid = lo + (hi - lo) / 2;

            if (compare_record(&s->seg, no, &w->refs[mid]) > 0)
                lo = mid + 1;
            else
                hi = mid;
        }
        for (; lo < end && compare_record(&s->seg, no, &w->refs[lo]) == 0;
             lo++) {
            struct gc_ref found;

            if (gc_ref_at(v, s, no, &found, err) < 0)
                return -1;
            take_better(&w->refs[lo], &found);
        }
    }
    return 0;
}

static int
find_one(const struct gc_view *v, const struct gc_segment *s, uint32_t no,
         struct gc_ref *ref, struct err *err)
{
    for (; no < s->seg.n_records && compare_record(&s->seg, no, ref) == 0;
         no++) {
        struct gc_ref found;

        if (gc_ref_at(v, s, no, &found, err) < 0)
            return -1;
        take_better(ref, &found);
    }
    return 0;
}

static int
find_in(const struct gc_view *v, const struct gc_segment *s, struct wanted *w,
        struct err *err)
{
    const struct segment *seg = &s->seg;
    bool sparse = w->n < seg->n_records / SPARSE;
    uint32_t no = 0;

    if (w->from != NULL && seg->n_records < w->n / 2)
        return find_few(v, s, w, err);
    for (size_t i = 0; i < w->n; i++) {
        if (sparse)
            no = jump(seg, &w->refs[i], no);
        while (no < seg->n_records && compare_record(seg, no, &w->refs[i]) < 0)
            no++;
        if (no == seg->n_records)
            break;
        if (find_one(v, s, no, &w->refs[i], err) < 0)
            return -1;
    }
    return 0;
}

int
gc_find(const struct gc_view *v, struct gc_ref *refs, size_t *n,
        struct err *err)
{
    CLEANUP(wanted_done) struct wanted w = {.refs = refs, .n = *n};

    if (prepare(&w, err) < 0)
        return -1;
    for (size_t s = 0; s < v->n_segs; s++)
        if (find_in(v, &v->segs[s], &w, err) < 0)
            return -1;
    *n = w.n;
    return 0;
}

static int
compare_ranks(const void *a, const void *b)
{
    const struct gc_ref *x = a, *y = b;

    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    return (x->record > y->record) - (x->record < y->record);
}

int
gc_find_copies(const struct gc_view *v, const struct gc_ref *want,
               struct gc_ref ret[GC_COPIES_MAX], size_t *ret_n, struct err *err)
{
    size_t n = 0;

    for (size_t i = 0; i < v->n_segs; i++) {
        const struct gc_segment *s = &v->segs[i];
        uint32_t no = jump(&s->seg, want, 0);

        for (; no < s->seg.n_records && compare_record(&s->seg, no, want) == 0;
             no++) {
            struct gc_ref found;

            if (gc_ref_at(v, s, no, &found, err) < 0)
                return -1;
            if (found.kind == want->kind && found.rank < GC_ABSENT &&
                n < GC_COPIES_MAX)
                ret[n++] = found;
        }
    }
    if (n > 0)
        qsort(ret, n, sizeof *ret, compare_ranks);
    *ret_n = n;
    return 0;
}
