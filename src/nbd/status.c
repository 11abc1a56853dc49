/* Block status: one request at a time, each as long as the protocol allows, so
 * that a sparse disk of 1 TiB is some hundred round trips. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <libnbd.h>

#include "cleanup.h"
#include "extents.h"
#include "reader-int.h"

#define ASK_MAX (UINT64_C(1) << 31)
#define ASK_ALIGN 65536 /* no request ends inside a cluster */

struct query {
    struct nbd_reader *r;
    struct nbd_conn *conn;
    const char *context; /* as the server names it */
    struct nbd_span span;
    struct nbd_extents found;

    /* The request under way. */
    uint64_t ask_end;
    unsigned n_answers;
    bool queued; /* see conns.h */
    bool over;
    int error;      /* of the server */
    struct err err; /* of its extents */
};

static int
on_extents(void *arg, const char *context, uint64_t off, uint32_t *entries,
           size_t n, int *error)
{
    struct query *q = arg;

    if (*error != 0)
        return 0;
    if (strcmp(context, q->context) != 0 || q->n_answers++ > 0)
        return err_set(&q->err, ERR_PROTOCOL,
                       "the server answered for '%s', which was not asked",
                       context);
    return nbd_span_take(&q->span, q->ask_end, entries, n, &q->found, &q->err);
}

static int
on_end(void *arg, int *error)
{
    struct query *q = arg;

    q->error = *error;
    q->over = true;
    return q->queued; /* see conns.h */
}

static int
send_query(struct query *q, struct err *err)
{
    uint64_t ask_end = q->span.pos + ASK_MAX;
    uint64_t last = nbd_align_up(&q->r->cs, q->span.end);

    ask_end = ask_end < last ? nbd_align_down(ask_end, ASK_ALIGN) : last;
    q->ask_end = ask_end;
    q->n_answers = 0;
    q->over = false;
    q->queued = false;
    /* See invariant (1); a bitmap is not read through the node. */
    while (q->conn == q->r->alloc &&
           reader_overlaps(q->r, q->span.pos, ask_end))
        if (reader_turn(q->r, err) < 0)
            return -1;
    if (nbd_aio_block_status(
            q->conn->h, ask_end - q->span.pos, q->span.pos,
            (nbd_extent_callback){.callback = on_extents, .user_data = q},
            (nbd_completion_callback){.callback = on_end, .user_data = q},
            0) >= 0) {
        q->queued = true;
    } else {
        q->over = true;
        q->error = nbd_get_errno() != 0 ? nbd_get_errno() : ENOTCONN;
    }
    return 0;
}

/* One request and its answer. */
static int
ask(struct query *q, struct err *err)
{
    if (send_query(q, err) < 0)
        return -1;
    while (!q->over || nbd_conns_over(&q->r->cs))
        if (reader_turn(q->r, err) < 0)
            return -1;
    if (q->err.code != ERR_NONE)
        return err_copy(err, &q->err);
    if (q->error != 0)
        return err_set(err, ERR_REMOTE,
                       "the server cannot say what is at %" PRIu64 ": %s",
                       q->span.pos, strerror(q->error));
    if (q->n_answers == 0)
        return err_set(err, ERR_PROTOCOL,
                       "the server sent no extents at %" PRIu64, q->span.pos);
    return 0;
}

/* The caller's array is replaced on success only. */
static int
run(struct query *q, struct nbd_extents *ret, struct err *err)
{
    CLEANUP(nbd_extents_done) struct nbd_extents old = {0};

    while (q->span.pos < q->span.end)
        if (ask(q, err) < 0) {
            nbd_extents_done(&q->found);
            if (q->r->dead.code != ERR_NONE)
                return -1;
            return err_wrap(err, "export '%s', context '%s'",
                            q->r->cs.export_name, q->context);
        }
    old = *ret;
    *ret = q->found;
    return 0;
}

static int
extents(struct nbd_reader *r, struct nbd_conn *conn, const char *context,
        enum nbd_extent_kind kind, uint64_t off, uint64_t len,
        struct nbd_extents *ret, struct err *err)
{
    struct query q = {.r = r, .conn = conn, .context = context};

    if (off > r->cs.size || len > r->cs.size - off)
        return err_set(err, ERR_USAGE,
                       "export '%s': extents of %" PRIu64 " bytes at %" PRIu64
                       " of %" PRIu64,
                       r->cs.export_name, len, off, r->cs.size);
    if (reader_begin(r, err) < 0)
        return -1;
    q.span = (struct nbd_span){.kind = kind,
                               .off = off,
                               .end = off + len,
                               .disk_size = r->cs.size,
                               .align = r->cs.block_min,
                               .n_max = NBD_EXTENTS_MAX,
                               .pos = nbd_align_down(off, r->cs.block_min)};
    return run(&q, ret, err);
}

int
nbd_reader_dirty(struct nbd_reader *r, uint64_t off, uint64_t len,
                 struct nbd_extents *ret, struct err *err)
{
    if (r->dirty == NULL)
        return err_set(err, ERR_USAGE,
                       "export '%s' was opened without a dirty context",
                       r->cs.export_name);
    return extents(r, r->dirty, r->dirty_context, NBD_EXTENT_DIRTY, off, len,
                   ret, err);
}

static int
nothing_zero(uint64_t off, uint64_t len, struct nbd_extents *ret,
             struct err *err)
{
    struct nbd_extent *e = malloc(sizeof *e);

    if (e == NULL)
        return err_set_errno(err, ENOMEM, "list of extents");
    *e = (struct nbd_extent){.off = off, .len = len};
    nbd_extents_done(ret);
    *ret = (struct nbd_extents){.v = e, .n = len > 0, .cap = 1};
    return 0;
}

int
nbd_reader_zero(struct nbd_reader *r, uint64_t off, uint64_t len,
                struct nbd_extents *ret, struct err *err)
{
    if (r->grain > 0)
        return nothing_zero(off, len, ret, err);
    return extents(r, r->alloc, LIBNBD_CONTEXT_BASE_ALLOCATION, NBD_EXTENT_ZERO,
                   off, len, ret, err);
}
