/* Reading one map page or blob through the index. */
#include "session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "flush.h"
#include "frame.h"
#include "rand.h"
#include "store.h"

static int
decode(struct repo *r, const char *key, uint32_t off, const uint8_t *frame,
       size_t frame_len, const struct chunk_id *id, void *buf, size_t len,
       struct err *err)
{
    int result;

    (void)pthread_mutex_lock(&r->page_lock);
    result = frame_decode(r->page_ctx, frame, frame_len, id, (uint32_t)len, buf,
                          err);
    (void)pthread_mutex_unlock(&r->page_lock);
    if (result < 0)
        return err_wrap(err, "frame at %u of '%s'", off, key);
    return 0;
}

static int
read_page(struct repo *r, const struct chunk_id *id, void *buf, size_t len,
          struct err *err)
{
    struct frame_ctx *ctx = NULL;
    int result;

    /* A page is read in microseconds, mostly from the page cache; one context
     * for all threads has not been seen to matter. */
    (void)pthread_mutex_lock(&r->page_lock);
    ctx = r->page_ctx;
    result = frame_read(r, ctx, id, buf, (uint32_t)len, err);
    (void)pthread_mutex_unlock(&r->page_lock);
    return result < 0 ? err_wrap(err, "map page or blob") : 0;
}

int
page_get(struct repo *r, const struct chunk_id *id, void *buf, size_t len,
         struct err *err)
{
    if (len == 0 || len > REPO_BLOB_MAX)
        return err_set(err, ERR_CORRUPT, "a page of %zu bytes", len);
    if (chunk_id_zero(id)) {
        memset(buf, 0, len);
        return 0;
    }
    return read_page(r, id, buf, len, err);
}

/* -- with what the session has put ------------------------------------------*/

/* A pack goes from the session to the flusher to the store, so looking in this
 * order never misses it. */
static int
copy_frame(struct repo_session *s, const struct index_record *rec, bool copied,
           uint8_t *frame, const char *key, struct err *err)
{
    if (copied ||
        flusher_copy(s->flusher, rec->pack, rec->offset, rec->frame_len, frame))
        return 0;
    return store_get(s->repo->store, key, rec->offset, rec->frame_len, frame,
                     err);
}

/* 1 found, and *ret_frame (owned by the caller) holds it if `*ret_copied`. */
static int
find_own(struct repo_session *s, const struct chunk_id *id,
         struct index_record *rec, enum pack_class *class, uint8_t **ret_frame,
         bool *ret_copied, struct err *err)
{
    const struct pack *p;
    int found = session_find_locked(s, id, rec, class, err);

    if (found <= 0)
        return found;
    *ret_frame = malloc(rec->frame_len);
    if (*ret_frame == NULL)
        return err_set_errno(err, ENOMEM, "frame of %u bytes", rec->frame_len);
    p = s->current[*class];
    /* Only packs of data are handed over in parts. */
    *ret_copied = p != NULL && pack_name(p)->seq == rec->pack &&
                  pack_held(p) == pack_len(p);
    if (*ret_copied)
        memcpy(*ret_frame, pack_bytes(p) + rec->offset, rec->frame_len);
    return 1;
}

int
page_get_session(struct repo_session *s, const struct chunk_id *id, void *buf,
                 size_t len, struct err *err)
{
    CLEANUP_FREE uint8_t *frame = NULL;
    struct index_record rec;
    enum pack_class class;
    struct pack_name name;
    char key[REPO_KEY_MAX];
    bool copied = false;
    int found;

    if (len == 0 || len > REPO_BLOB_MAX || chunk_id_zero(id))
        return page_get(s->repo, id, buf, len, err);
    (void)pthread_mutex_lock(&s->lock);
    found = find_own(s, id, &rec, &class, &frame, &copied, err);
    (void)pthread_mutex_unlock(&s->lock);
    if (found < 0)
        return -1;
    if (found == 0)
        return page_get(s->repo, id, buf, len, err);
    memcpy(name.sid, s->sid, sizeof name.sid);
    name.class = class;
    name.seq = rec.pack;
    pack_key(&name, key);
    if (copy_frame(s, &rec, copied, frame, key, err) < 0)
        return -1;
    return decode(s->repo, key, rec.offset, frame, rec.frame_len, id, buf, len,
                  err);
}
