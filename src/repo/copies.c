/* Reading one frame from wherever a good copy of it is.
 *
 * A pack may have been lost, a frame may be damaged, a collector may have moved
 * both: every record of the id is tried, and when none is any good, the index
 * is read again, once.
 */
#include "internal.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "rand.h"
#include "store.h"

/* One record; *why names the object. */
static int
read_copy(struct repo *r, struct frame_ctx *ctx, const struct locator *l,
          const struct chunk_id *id, void *buf, uint32_t len, struct err *why)
{
    CLEANUP_FREE uint8_t *frame = NULL;
    char key[REPO_KEY_MAX];

    if (locator_pack_key(r, l, key) < 0)
        return err_set(why, ERR_CORRUPT, "pack %u has no name", l->pack);
    frame = malloc(l->frame_len);
    if (frame == NULL)
        return err_set_errno(why, ENOMEM, "frame of %u bytes", l->frame_len);
    if (store_get(r->store, key, l->offset, l->frame_len, frame, why) < 0) {
        if (why->code == ERR_NOT_FOUND)
            index_pack_lost(r, l->pack);
        else if (why->sys == EIO)
            index_frame_failed(r, l);
        return -1;
    }
    if (frame_decode(ctx, frame, l->frame_len, id, len, buf, why) < 0) {
        if (why->code == ERR_CORRUPT)
            index_frame_failed(r, l);
        return err_wrap(why, "frame at %u of '%s'", l->offset, key);
    }
    return 0;
}

/* 0 read; -1 with the first reason in *why, if there was a record. */
static int
try_all(struct repo *r, struct frame_ctx *ctx, const struct chunk_id *id,
        void *buf, uint32_t len, struct err *why)
{
    struct locator l[INDEX_COPIES_MAX];
    size_t n = 0;

    if (index_find_all(r, id, l, INDEX_COPIES_MAX, &n, why) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        struct err err = ERR_INIT;

        if (read_copy(r, ctx, &l[i], id, buf, len, &err) == 0)
            return 0;
        (void)err_copy(why, &err);
    }
    return -1;
}

/* Many chunks that are really lost must not mean as many listings: when reading
 * the index again has brought nothing for a while, it is done once a second. */
#define FRUITLESS_MAX 16
#define FRUITLESS_US 1000000

static bool
reload(struct repo *r)
{
    uint64_t before = index_n_records(r);
    uint64_t now = clock_us();

    if (atomic_load(&r->fruitless) >= FRUITLESS_MAX &&
        now - atomic_load(&r->reloaded_us) < FRUITLESS_US)
        return false;
    if (index_reload(r, NULL) < 0)
        return false;
    atomic_store(&r->reloaded_us, now);
    if (index_n_records(r) != before)
        atomic_store(&r->fruitless, 0);
    else
        (void)atomic_fetch_add(&r->fruitless, 1);
    return true;
}

int
frame_read(struct repo *r, struct frame_ctx *ctx, const struct chunk_id *id,
           void *buf, uint32_t len, struct err *err)
{
    struct err why = ERR_INIT;
    char hex[65];

    if (try_all(r, ctx, id, buf, len, &why) == 0)
        return 0;
    if (reload(r) && try_all(r, ctx, id, buf, len, &why) == 0)
        return 0;
    if (why.code != ERR_NONE)
        return err_copy(err, &why);
    hex_encode(id->b, sizeof id->b, hex);
    return err_set(err, ERR_NOT_FOUND,
                   "chunk %.16s is in no index segment of '%s'; run: tidemark "
                   "verify",
                   hex, repo_path(r));
}
