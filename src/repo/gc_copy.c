/* Moving what is needed out of the packs that go.
 *
 * Frames are copied byte for byte, each proved first: what is copied now replaces
 * the original for ever.  One that fails is looked for in every other pack that
 * has it; if none is good, the collection ends, and nothing was deleted.
 */
#include "gc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "frame.h"
#include "hash.h"
#include "jv.h"
#include "mark.h"
#include "rand.h"
#include "store.h"

#define REFS_AT_ONCE (1u << 20)

struct copier {
    struct gc *g;
    struct gc_reader reader;
    struct pack *current[PACK_META + 1];
    uint32_t *n_wanted; /* by pack */
    uint64_t done, total;
};

static void
copier_done(struct copier *c)
{
    gc_reader_done(&c->reader);
    pack_free(c->current[PACK_DATA]);
    pack_free(c->current[PACK_META]);
    free(c->n_wanted);
}

int
gc_note_part(struct jv *list, const char *key, const uint8_t *bytes, size_t len,
             const char *count, uint64_t n, struct err *err)
{
    char hex[2 * HASH_LEN + 1];
    uint8_t sha[HASH_LEN];
    struct jv *part;

    if (hash_sha256(bytes, len, sha, err) < 0)
        return -1;
    hex_encode(sha, sizeof sha, hex);
    part = jv_build("{s:s, s:I, s:s}", "key", key, "len", (int64_t)len,
                    "sha256", hex);
    if ((count != NULL && jv_set_int(part, count, (int64_t)n) < 0) ||
        jv_add(list, part) < 0)
        return err_set_errno(err, ENOMEM, "list of objects");
    return 0;
}

/* -- writing ----------------------------------------------------------------*/

static int
start_pack(struct gc *g, enum pack_class class, struct pack **ret,
           struct err *err)
{
    struct pack_name name = {.class = class, .seq = g->last_seq + 1};
    uint8_t *v = realloc(g->classes, (size_t)g->last_seq + 1);

    if (v == NULL)
        return err_set_errno(err, ENOMEM, "list of packs");
    g->classes = v;
    memcpy(name.sid, g->sid_bytes, sizeof name.sid);
    if (pack_new(&name, ret, err) < 0)
        return -1;
    v[g->last_seq++] = (uint8_t) class;
    return 0;
}

static int
put_pack(struct copier *c, enum pack_class class, struct err *err)
{
    struct pack *p = c->current[class];
    char key[REPO_KEY_MAX];

    if (p == NULL)
        return 0;
    pack_key(pack_name(p), key);
    if (pack_finish(p, err) < 0 ||
        store_put(c->g->r->store, key, pack_bytes(p), pack_len(p), err) < 0 ||
        gc_note_part(c->g->packs, key, pack_bytes(p), pack_len(p), NULL, 0,
                     err) < 0)
        return err_wrap(err, "copy to '%s'", key);
    c->g->rep.bytes_copied += pack_len(p);
    pack_free(TAKE_PTR(c->current[class]));
    return 0;
}

/* What was copied so far as a segment, so that memory stays bounded. */
static int
spill(struct gc *g, struct err *err)
{
    CLEANUP_FREE struct pack_name *packs =
        calloc((size_t)g->last_seq + 1, sizeof *packs);
    struct index_record *recs = (struct index_record *)(void *)g->copies.data;
    uint32_t n = (uint32_t)(g->copies.len / sizeof *recs);

    if (packs == NULL)
        return err_set_errno(err, ENOMEM, "index segment");
    for (uint32_t i = 0; i < g->last_seq; i++) {
        memcpy(packs[i].sid, g->sid_bytes, sizeof packs[i].sid);
        packs[i].class = g->classes[i];
        packs[i].seq = i + 1;
    }
    for (uint32_t i = 0; i < n; i++)
        recs[i].pack--;
    g->copies.len = 0;
    return gc_put_segment(g, packs, g->last_seq, recs, n, err);
}

static int
note_record(struct gc *g, const struct index_record *rec, struct err *err)
{
    if (g->copies.len / sizeof *rec >= g->limits.segment_max &&
        spill(g, err) < 0)
        return -1;
    return buf_append(&g->copies, rec, sizeof *rec, err);
}

static int
add_frame(struct copier *c, const struct gc_ref *r, const uint8_t *frame,
          struct err *err)
{
    enum pack_class class = r->kind == FRAME_DATA ? PACK_DATA : PACK_META;
    struct index_record rec = {
        .frame_len = r->frame_len, .raw_len = r->raw_len, .kind = r->kind};
    struct pack *p = c->current[class];
    struct frame_head head;

    if (frame_parse(frame, r->frame_len, &head, err) < 0)
        return -1;
    if (p != NULL &&
        pack_len(p) + r->frame_len + PACK_FOOT_LEN +
                ((size_t)pack_n_frames(p) + 1) * PACK_ENTRY_LEN >
            c->g->limits.pack_target &&
        put_pack(c, class, err) < 0)
        return -1;
    if (c->current[class] == NULL &&
        start_pack(c->g, class, &c->current[class], err) < 0)
        return -1;
    p = c->current[class];
    if (pack_add(p, &head, frame, r->frame_len, &rec.offset, err) < 0)
        return -1;
    rec.pack = pack_name(p)->seq;
    memcpy(rec.prefix, head.id.b, sizeof rec.prefix);
    return note_record(c->g, &rec, err);
}

/* -- choosing the copy ------------------------------------------------------*/

static bool
goes(const struct gc *g, const struct gc_ref *r)
{
    return g->view.packs.v[r->pack].chosen;
}

/* The best record was not good: any other that is. */
static int
rescue(struct copier *c, const struct gc_ref *want, const struct err *why,
       struct err *err)
{
    struct gc_ref copies[GC_COPIES_MAX];
    const uint8_t *frame;
    bool stays = false;
    size_t n;

    if (gc_find_copies(&c->g->view, want, copies, &n, err) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        if (gc_reader_prove(&c->reader, copies, i, i + 1, &frame, NULL) == 0)
            return goes(c->g, &copies[i]) ? add_frame(c, &copies[i], frame, err)
                                          : 0;
        stays |= !goes(c->g, &copies[i]);
    }
    if (stays) /* it is damaged where it is, and nothing is made worse */
        return 0;
    (void)err_copy(err, why);
    return err_wrap(err, "what a point needs cannot be copied, so nothing was "
                         "deleted; run: tidemark check --repair");
}

static int
copy_one(struct copier *c, const struct gc_ref *refs, size_t i, size_t n,
         struct err *err)
{
    struct err why = ERR_INIT;
    const uint8_t *frame;

    if (gc_reader_prove(&c->reader, refs, i, n, &frame, &why) < 0)
        return rescue(c, &refs[i], &why, err);
    return goes(c->g, &refs[i]) ? add_frame(c, &refs[i], frame, err) : 0;
}

static int
copy_refs(struct copier *c, struct gc_ref *refs, size_t n, struct err *err)
{
    gc_refs_sort_by_place(refs, n);
    for (size_t i = 0; i < n; i++) {
        if (copy_one(c, refs, i, n, err) < 0)
            return -1;
        if (++c->done % 1024 != 0)
            continue;
        gc_progress(c->g, "copy", c->done, c->total);
        if (gc_canceled(c->g, err) < 0)
            return -1;
    }
    return 0;
}

/* -- some packs at a time ---------------------------------------------------*/

typedef int (*wanted_fn)(void *arg, const struct gc_ref *r, struct err *err);

static bool
skipped(const struct gc *g, const struct gc_ref *r)
{
    const struct gc_pack *p = &g->view.packs.v[r->pack];

    if (MUTANT(MUTANT_GC_NO_COPY))
        return true;
    return MUTANT(MUTANT_GC_OWN_CONDEMNED) && p->condemned;
}

static int
each_wanted(struct gc *g, wanted_fn fn, void *arg, struct err *err)
{
    const struct gc_view *v = &g->view;

    for (size_t s = 0; s < v->n_segs; s++)
        for (uint32_t no = 0; no < v->segs[s].seg.n_records; no++) {
            struct gc_ref r;

            if (!mark_needs_copy(g->mark, v->segs[s].record_base + no))
                continue;
            if (gc_ref_at(v, &v->segs[s], no, &r, err) < 0 ||
                (!skipped(g, &r) && fn(arg, &r, err) < 0))
                return -1;
        }
    return 0;
}

static int
count_one(void *arg, const struct gc_ref *r, struct err *err)
{
    struct copier *c = arg;

    (void)err;
    c->n_wanted[r->pack]++;
    c->total++;
    return 0;
}

struct batch {
    uint32_t from, to; /* packs */
    struct buf refs;
};

static int
take_one(void *arg, const struct gc_ref *r, struct err *err)
{
    struct batch *b = arg;

    if (r->pack < b->from || r->pack >= b->to)
        return 0;
    return buf_append(&b->refs, r, sizeof *r, err);
}

static int
copy_packs(struct copier *c, struct batch *b, struct err *err)
{
    if (each_wanted(c->g, take_one, b, err) < 0)
        return -1;
    return copy_refs(c, (struct gc_ref *)(void *)b->refs.data,
                     b->refs.len / sizeof(struct gc_ref), err);
}

static int
copy_all(struct copier *c, struct err *err)
{
    uint32_t n_packs = (uint32_t)c->g->view.packs.n;
    uint32_t n = 0;
    struct batch b = {0};
    int result = 0;

    if (each_wanted(c->g, count_one, c, err) < 0)
        return -1;
    while (result == 0 && b.to < n_packs) {
        b.from = b.to;
        b.refs.len = 0;
        for (n = 0; b.to < n_packs && n < REFS_AT_ONCE; b.to++)
            n += c->n_wanted[b.to];
        if (n > 0)
            result = copy_packs(c, &b, err);
    }
    buf_done(&b.refs);
    return result;
}

int
gc_copy(struct gc *g, struct err *err)
{
    CLEANUP(copier_done) struct copier c = {.g = g};

    c.n_wanted = calloc(g->view.packs.n + 1, sizeof *c.n_wanted);
    if (c.n_wanted == NULL)
        return err_set_errno(err, ENOMEM, "list of packs");
    if (gc_reader_init(&c.reader, &g->view, err) < 0 || copy_all(&c, err) < 0 ||
        put_pack(&c, PACK_DATA, err) < 0)
        return -1;
    return put_pack(&c, PACK_META, err);
}
