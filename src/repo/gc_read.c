/* Reading frames in the order in which they lie. */
#include "gc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "frame.h"
#include "store.h"

#define WINDOW_MAX (4u << 20) /* read at once */
#define GAP_MAX (64u << 10)   /* read and not wanted, between two frames */

int
gc_reader_init(struct gc_reader *rd, const struct gc_view *v, struct err *err)
{
    *rd = (struct gc_reader){.v = v, .pack = GC_NONE};
    rd->plain = malloc(REPO_BLOB_MAX);
    if (rd->plain == NULL)
        return err_set_errno(err, ENOMEM, "frame");
    return frame_ctx_new(&v->r->keys, 0, &rd->ctx, err);
}

void
gc_reader_done(struct gc_reader *rd)
{
    frame_ctx_free(rd->ctx);
    buf_done(&rd->window);
    free(rd->plain);
    *rd = (struct gc_reader){.pack = GC_NONE};
}

static int
read_window(struct gc_reader *rd, uint32_t pack, uint64_t start, uint64_t end,
            struct err *err)
{
    char key[REPO_KEY_MAX];

    rd->pack = GC_NONE;
    rd->window.len = 0;
    pack_key(&rd->v->packs.v[pack].name, key);
    if (buf_reserve(&rd->window, (size_t)(end - start), err) < 0 ||
        store_get(rd->v->r->store, key, start, (size_t)(end - start),
                  rd->window.data, err) < 0)
        return -1;
    rd->window.len = (size_t)(end - start);
    rd->pack = pack;
    rd->start = start;
    return 0;
}

static bool
holds(const struct gc_reader *rd, const struct gc_ref *r)
{
    return rd->pack == r->pack && r->offset >= rd->start &&
           (uint64_t)r->offset + r->frame_len <= rd->start + rd->window.len;
}

/* Where the run of frames that begins with refs[i] ends. */
static uint64_t
run_end(const struct gc_ref *refs, size_t i, size_t n)
{
    uint64_t start = refs[i].offset, end = start + refs[i].frame_len;

    for (size_t k = i + 1; k < n && refs[k].pack == refs[i].pack; k++) {
        uint64_t next = (uint64_t)refs[k].offset + refs[k].frame_len;

        if (refs[k].offset > end + GAP_MAX || next > start + WINDOW_MAX)
            break;
        if (next > end)
            end = next;
    }
    return end;
}

int
gc_reader_get(struct gc_reader *rd, const struct gc_ref *refs, size_t i,
              size_t n, const uint8_t **ret, struct err *err)
{
    const struct gc_ref *r = &refs[i];
    uint64_t end = r->offset + (uint64_t)r->frame_len;

    /* What cannot be read together may be readable one by one. */
    if (!holds(rd, r) &&
        read_window(rd, r->pack, r->offset, run_end(refs, i, n), NULL) < 0 &&
        read_window(rd, r->pack, r->offset, end, err) < 0)
        return -1;
    *ret = rd->window.data + (r->offset - rd->start);
    return 0;
}

/* The frame names its own id, of which the record knew 16 bytes. */
int
gc_reader_prove(struct gc_reader *rd, const struct gc_ref *refs, size_t i,
                size_t n, const uint8_t **ret_frame, struct err *err)
{
    const struct gc_ref *r = &refs[i];
    struct frame_head head;
    const uint8_t *frame;
    char key[REPO_KEY_MAX];

    pack_key(&rd->v->packs.v[r->pack].name, key);
    if (gc_reader_get(rd, refs, i, n, &frame, err) < 0 ||
        frame_parse(frame, r->frame_len, &head, err) < 0 ||
        frame_decode(rd->ctx, frame, r->frame_len, NULL, r->raw_len, rd->plain,
                     err) < 0)
        return err_wrap(err, "frame at %u of '%s'", r->offset, key);
    if (head.kind != r->kind || memcmp(head.id.b, r->id.b, SEGMENT_PREFIX) != 0)
        return err_set(err, ERR_CORRUPT,
                       "frame at %u of '%s' is another one than the index says",
                       r->offset, key);
    *ret_frame = frame;
    return 0;
}
