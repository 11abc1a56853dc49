/* Streams of sorted records through a heap into one buffer.
 *
 * The size of the tables in front of the records is known last, when the
 * packs of the output have been counted.  So the records are put behind room for
 * the largest tables, the tables right before the records, and the segment
 * begins somewhere in the buffer.
 */
#include "index_merge.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "cleanup.h"
#include "err.h"

#define NAMES_MIN 4096u
#define RECORD_PACK 16 /* offsets in a record (docs/format.md 7) */
#define RECORD_OFFSET 20

struct cursor {
    const struct segment *seg;
    size_t input;
    uint32_t no; /* of `rec` */
    struct index_record rec;
    uint32_t *pack; /* by the segment's pack number: number in `names` */
};

struct merge {
    const struct merge_opts *opts;
    struct pack_name *names; /* sorted, each once */
    size_t n_names, names_cap, names_limit;
    struct cursor *cursors; /* n, in the order of the inputs */
    size_t n;
    struct cursor **heap; /* the one with the smallest prefix first */
    size_t n_heap;

    /* the output that is being made */
    uint8_t *bytes;
    size_t room;    /* bytes before the records */
    uint32_t max;   /* records, of one output */
    uint32_t n_out; /* records so far */
    uint32_t cap;   /* records */
    uint32_t *used; /* by number in `names`: number in the output + 1 */
};

static void
merge_done(struct merge *m)
{
    for (size_t i = 0; m->cursors != NULL && i < m->n; i++)
        free(m->cursors[i].pack);
    free(m->names);
    free(m->cursors);
    free(m->heap);
    free(m->bytes);
    free(m->used);
}

/* -- packs ------------------------------------------------------------------*/

/* By session, then number: what a session writes is sorted like this already. */
static int
compare_names(const void *a, const void *b)
{
    const struct pack_name *x = a, *y = b;
    int r = memcmp(x->sid, y->sid, sizeof x->sid);

    if (r != 0)
        return r;
    if (x->seq != y->seq)
        return x->seq < y->seq ? -1 : 1;
    return (int)x->class - (int)y->class;
}

static void
sort_names(struct merge *m)
{
    size_t n = 0;

    if (m->n_names == 0)
        return;
    qsort(m->names, m->n_names, sizeof *m->names, compare_names);
    for (size_t i = 1; i < m->n_names; i++)
        if (compare_names(&m->names[n], &m->names[i]) != 0)
            m->names[++n] = m->names[i];
    m->n_names = n + 1;
}

/* Merged segments name mostly the same packs: sorting now and then keeps the
 * memory near that of the different ones. */
static int
add_name(struct merge *m, const struct pack_name *name, struct err *err)
{
    if (m->n_names == m->names_cap) {
        size_t cap;
        struct pack_name *v;

        sort_names(m);
        cap = m->n_names * 2 < NAMES_MIN ? NAMES_MIN : m->n_names * 2;
        v = realloc(m->names, cap * sizeof *v);
        if (v == NULL)
            return err_set_errno(err, ENOMEM, "names of %zu packs", cap);
        m->names = v;
        m->names_cap = cap;
    }
    m->names[m->n_names++] = *name;
    return 0;
}

static int
find_name(const struct merge *m, const struct pack_name *name, uint32_t *ret,
          struct err *err)
{
    const struct pack_name *p =
        m->n_names == 0
            ? NULL
            : bsearch(name, m->names, m->n_names, sizeof *p, compare_names);

    if (p == NULL)
        return err_set(err, ERR_USAGE,
                       "a record was moved to a pack that nobody named");
    *ret = (uint32_t)(p - m->names);
    return 0;
}

static int
collect_names(struct merge *m, const struct segment *in, struct err *err)
{
    struct pack_name name;

    for (size_t i = 0; i < m->n; i++)
        for (uint32_t p = 0; p < in[i].n_packs; p++) {
            segment_pack(&in[i], p, &name);
            if (add_name(m, &name, err) < 0)
                return -1;
        }
    for (size_t i = 0; i < m->opts->n_more; i++)
        if (add_name(m, &m->opts->more[i], err) < 0)
            return -1;
    sort_names(m);
    m->used = calloc(m->n_names + 1, sizeof *m->used);
    if (m->used == NULL)
        return err_set_errno(err, ENOMEM, "%zu packs", m->n_names);
    return 0;
}

static int
map_names(struct merge *m, struct cursor *c, struct err *err)
{
    struct pack_name name;

    c->pack = calloc((size_t)c->seg->n_packs + 1, sizeof *c->pack);
    if (c->pack == NULL)
        return err_set_errno(err, ENOMEM, "%u packs", c->seg->n_packs);
    for (uint32_t p = 0; p < c->seg->n_packs; p++) {
        segment_pack(c->seg, p, &name);
        if (find_name(m, &name, &c->pack[p], err) < 0)
            return -1;
    }
    return 0;
}

/* -- inputs -----------------------------------------------------------------*/

static int
wrap(const struct cursor *c, struct err *err)
{
    struct segment_name name = {.k = c->seg->k};
    char key[REPO_KEY_MAX];

    memcpy(name.sid, c->seg->sid, sizeof name.sid);
    segment_key(&name, key);
    return err_wrap(err, "index segment '%s'", key);
}

/* Take record c->no.  1, 0 at the end, -1. */
static int
load(struct cursor *c, struct err *err)
{
    uint8_t before[SEGMENT_PREFIX];

    if (c->no == c->seg->n_records)
        return 0;
    memcpy(before, c->rec.prefix, sizeof before);
    if ((c->no % SEGMENT_BLOCK == 0 &&
         segment_check_block(c->seg, c->no / SEGMENT_BLOCK, err) < 0) ||
        segment_record(c->seg, c->no, &c->rec, err) < 0)
        return wrap(c, err);
    if (c->no > 0 && memcmp(before, c->rec.prefix, sizeof before) > 0) {
        (void)err_set(err, ERR_CORRUPT, "record %u is not in order", c->no);
        return wrap(c, err);
    }
    return 1;
}

static bool
less(const struct cursor *a, const struct cursor *b)
{
    return memcmp(a->rec.prefix, b->rec.prefix, sizeof a->rec.prefix) < 0;
}

static void
sift_down(struct merge *m, size_t i)
{
    struct cursor **h = m->heap;

    for (;;) {
        size_t c = 2 * i + 1;
        struct cursor *tmp = h[i];

        if (c >= m->n_heap)
            return;
        if (c + 1 < m->n_heap && less(h[c + 1], h[c]))
            c++;
        if (!less(h[c], tmp))
            return;
        h[i] = h[c];
        h[c] = tmp;
        i = c;
    }
}

static int
start_inputs(struct merge *m, const struct segment *in, struct err *err)
{
    if (collect_names(m, in, err) < 0)
        return -1;
    m->cursors = calloc(m->n + 1, sizeof *m->cursors);
    m->heap = calloc(m->n + 1, sizeof(struct cursor *));
    if (m->cursors == NULL || m->heap == NULL)
        return err_set_errno(err, ENOMEM, "%zu index segments", m->n);
    for (size_t i = 0; i < m->n; i++) {
        struct cursor *c = &m->cursors[i];
        int r;

        c->seg = &in[i];
        c->input = i;
        if (map_names(m, c, err) < 0)
            return -1;
        r = load(c, err);
        if (r < 0)
            return -1;
        if (r > 0)
            m->heap[m->n_heap++] = c;
    }
    for (size_t i = m->n_heap / 2; i-- > 0;)
        sift_down(m, i);
    return 0;
}

/* Go on to the next record of the input at the top. */
static int
advance(struct merge *m, struct err *err)
{
    int r;

    m->heap[0]->no++;
    r = load(m->heap[0], err);
    if (r < 0)
        return -1;
    if (r == 0)
        m->heap[0] = m->heap[--m->n_heap];
    if (m->n_heap > 0)
        sift_down(m, 0);
    return 0;
}

/* -- the output -------------------------------------------------------------*/

static uint8_t *
out_at(const struct merge *m, uint32_t no)
{
    return m->bytes + m->room + (size_t)no * SEGMENT_RECORD_LEN;
}

static int
grow(struct merge *m, uint32_t cap, struct err *err)
{
    uint8_t *v = NULL;

    if (cap <= SEGMENT_RECORDS_MAX)
        v = realloc(m->bytes, m->room + (size_t)cap * SEGMENT_RECORD_LEN +
                                  SEGMENT_SHA_LEN);
    if (v == NULL)
        return err_set_errno(err, ENOMEM, "index segment of %u records", cap);
    m->bytes = v;
    m->cap = cap;
    return 0;
}

/* Room for the largest output: never more than there is to merge. */
static int
start_output(struct merge *m, struct err *err)
{
    size_t packs = m->n_names;
    uint64_t total = 0;
    uint32_t cap;

    m->max =
        m->opts->records_max > 0 ? m->opts->records_max : MERGE_RECORDS_MAX;
    for (size_t i = 0; i < m->n; i++)
        total += m->cursors[i].seg->n_records;
    cap = total < m->max ? (uint32_t)total : m->max;
    if (packs > SEGMENT_PACKS_MAX)
        packs = SEGMENT_PACKS_MAX;
    /* All the records of one id, which stay together, may be more than max. */
    m->room = (size_t)segment_tables_len((uint32_t)packs, SEGMENT_RECORDS_MAX);
    return grow(m, cap + 1, err);
}

/* Numbers in the output follow the order of the names: the records stay in
 * order when they are renumbered. */
static int
number_packs(struct merge *m, uint32_t *ret_n, struct err *err)
{
    uint32_t n = 0;

    memset(m->used, 0, m->n_names * sizeof *m->used);
    for (uint32_t i = 0; i < m->n_out; i++)
        m->used[get_le32(out_at(m, i) + RECORD_PACK)] = 1;
    for (size_t i = 0; i < m->n_names; i++)
        if (m->used[i] != 0)
            m->used[i] = ++n;
    if (n > SEGMENT_PACKS_MAX)
        return err_set(err, ERR_USAGE, "an index segment of %u packs", n);
    for (uint32_t i = 0; i < m->n_out; i++) {
        uint8_t *p = out_at(m, i) + RECORD_PACK;

        put_le32(p, m->used[get_le32(p)] - 1);
    }
    *ret_n = n;
    return 0;
}

static int
finish_output(struct merge *m, struct err *err)
{
    struct segment_name name;
    uint8_t *bytes, *p;
    uint32_t n_packs = 0;
    size_t tables;

    if (m->n_out == 0)
        return 0;
    if (number_packs(m, &n_packs, err) < 0)
        return -1;
    tables = (size_t)segment_tables_len(n_packs, m->n_out);
    bytes = m->bytes + m->room - tables;
    p = bytes + SEGMENT_HEAD_LEN;
    for (size_t i = 0; i < m->n_names; i++)
        if (m->used[i] != 0) {
            segment_put_pack(p, &m->names[i]);
            p += SEGMENT_PACK_LEN;
        }
    memcpy(name.sid, m->opts->sid, sizeof name.sid);
    name.k = ++*m->opts->last_k;
    if (segment_seal(&name, bytes, n_packs, m->n_out, err) < 0)
        return -1;
    tables += (size_t)m->n_out * SEGMENT_RECORD_LEN + SEGMENT_SHA_LEN;
    m->n_out = 0;
    return m->opts->emit(m->opts->arg, &name, bytes, tables, err);
}

/* Place of `rec` among those of the same prefix at the end of the output; false
 * when it is there already. */
static bool
find_place(const struct merge *m, const struct index_record *rec, uint32_t *ret)
{
    uint8_t bytes[SEGMENT_RECORD_LEN];
    uint32_t i = m->n_out;

    segment_put_record(bytes, rec);
    for (; i > 0; i--) {
        const uint8_t *p = out_at(m, i - 1);
        uint32_t pack = get_le32(p + RECORD_PACK);

        if (memcmp(p, bytes, sizeof bytes) == 0)
            return false;
        if (memcmp(p, bytes, SEGMENT_PREFIX) != 0 || pack < rec->pack ||
            (pack == rec->pack && get_le32(p + RECORD_OFFSET) < rec->offset))
            break;
    }
    *ret = i;
    return true;
}

static int
put_out(struct merge *m, const struct index_record *rec, struct err *err)
{
    uint32_t at;

    if (m->n_out >= m->max &&
        memcmp(out_at(m, m->n_out - 1), rec->prefix, SEGMENT_PREFIX) != 0 &&
        finish_output(m, err) < 0)
        return -1;
    if (!find_place(m, rec, &at))
        return 0;
    if (m->n_out == m->cap && grow(m, m->cap * 2, err) < 0)
        return -1;
    memmove(out_at(m, at + 1), out_at(m, at),
            (size_t)(m->n_out - at) * SEGMENT_RECORD_LEN);
    segment_put_record(out_at(m, at), rec);
    m->n_out++;
    return 0;
}

/* The record at the top of the heap, as the output shall have it.  1, 0, -1. */
static int
filter(struct merge *m, struct index_record *ret, struct err *err)
{
    const struct cursor *c = m->heap[0];
    struct pack_name was, pack;
    int keep;

    *ret = c->rec;
    ret->pack = c->pack[c->rec.pack];
    if (m->opts->filter == NULL)
        return 1;
    was = pack = m->names[ret->pack];
    keep = m->opts->filter(m->opts->arg, c->input, ret, &pack, err);
    if (keep <= 0)
        return keep;
    memcpy(ret->prefix, c->rec.prefix, sizeof ret->prefix);
    ret->pack = c->pack[c->rec.pack];
    if (compare_names(&was, &pack) != 0 &&
        find_name(m, &pack, &ret->pack, err) < 0)
        return -1;
    return 1;
}

int
index_merge(const struct segment *in, size_t n, const struct merge_opts *opts,
            struct err *err)
{
    CLEANUP(merge_done) struct merge m = {.opts = opts, .n = n};
    struct index_record rec;

    if (start_inputs(&m, in, err) < 0 || start_output(&m, err) < 0)
        return -1;
    while (m.n_heap > 0) {
        int keep = filter(&m, &rec, err);

        if (keep < 0 || (keep > 0 && put_out(&m, &rec, err) < 0) ||
            advance(&m, err) < 0)
            return -1;
    }
    return finish_output(&m, err);
}
