#include "salvage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "err.h"
#include "store.h"

#define MAGIC "TMFR"

struct scan {
    struct frame_ctx *ctx;
    uint8_t *plain;
    size_t cap;
    salvage_fn fn;
    void *arg;
    bool heads; /* the header is enough */
};

/* 1 good, 0 not, -1. */
static int
prove(struct scan *s, const struct frame_head *h, const uint8_t *frame,
      size_t len, struct err *err)
{
    if (h->raw_len > s->cap) {
        uint8_t *p = realloc(s->plain, h->raw_len);

        if (p == NULL)
            return err_set_errno(err, ENOMEM, "frame of %u bytes", h->raw_len);
        s->plain = p;
        s->cap = h->raw_len;
    }
    return frame_decode(s->ctx, frame, len, &h->id, h->raw_len, s->plain,
                        NULL) == 0;
}

/* The frame at `at`: its length, 0 when there is none, -1. */
static int
take(struct scan *s, const uint8_t *data, size_t len, size_t at, size_t *ret,
     struct err *err)
{
    struct frame_head h;
    size_t whole;
    int good;

    *ret = 0;
    if (frame_parse(data + at, len - at, &h, NULL) < 0)
        return 0;
    whole = FRAME_HEAD_LEN + (size_t)h.stored_len;
    if (whole > len - at)
        return 0;
    good = s->heads ? 1 : prove(s, &h, data + at, whole, err);
    if (good < 0 || (good > 0 && s->fn(s->arg, &h, data + at, whole,
                                       (uint32_t)at, err) < 0))
        return -1;
    *ret = whole; /* the header has a checksum: its length counts */
    return 0;
}

static int
scan(struct scan *s, const uint8_t *data, size_t len, struct err *err)
{
    size_t at = PACK_HEAD_LEN, step;
    int rc = 0;

    while (rc == 0 && at < len && len <= PACK_LEN_MAX) {
        const uint8_t *next = memmem(data + at, len - at, MAGIC, 4);

        if (next == NULL)
            break;
        at = (size_t)(next - data);
        rc = take(s, data, len, at, &step, err);
        at += step > 0 ? step : 1;
    }
    free(s->plain);
    return rc;
}

int
salvage_scan(struct frame_ctx *ctx, const uint8_t *data, size_t len,
             salvage_fn fn, void *arg, struct err *err)
{
    struct scan s = {.ctx = ctx, .fn = fn, .arg = arg};

    return scan(&s, data, len, err);
}

/* -- entries ----------------------------------------------------------------*/

static int
add_entry(void *arg, const struct frame_head *h, const uint8_t *frame,
          size_t len, uint32_t offset, struct err *err)
{
    struct pack_entry e = {.id = h->id,
                           .kind = h->kind,
                           .offset = offset,
                           .frame_len = (uint32_t)len,
                           .raw_len = h->raw_len};

    (void)frame;
    return buf_append(arg, &e, sizeof e, err);
}

static int
add_table(const struct pack_view *v, struct buf *entries, struct err *err)
{
    for (uint32_t i = 0; i < v->n_entries; i++) {
        struct pack_entry e;

        pack_entry_at(v, i, &e);
        if (buf_append(entries, &e, sizeof e, err) < 0)
            return -1;
    }
    return 0;
}

int
salvage_entries(struct repo *r, const struct pack_name *name,
                struct buf *entries, struct err *err)
{
    struct scan s = {.fn = add_entry, .arg = entries, .heads = true};
    char key[REPO_KEY_MAX], own[REPO_KEY_MAX];
    const uint8_t *data;
    struct pack_view v;
    size_t len;
    int rc;

    pack_key(name, key);
    if (store_map(r->store, key, &data, &len, err) < 0)
        return -1;
    rc = pack_parse(data, len, &v, NULL);
    if (rc == 0)
        pack_key(&v.name, own);
    if (rc == 0 && strcmp(own, key) == 0)
        rc = add_table(&v, entries, err);
    else
        rc = scan(&s, data, len, err);
    store_unmap(r->store, data, len);
    return rc;
}
