/* Storing chunks and pages: the busy part of a backup.
 *
 * Cheapest question first: is it all zero, is it what the base has at this
 * place, does the repository have it, has this session just stored it.  Only
 * what is left is compressed.
 *
 * Reuse trusts a match of 16 of the 32 bytes of an id: ids are HMACs under a key
 * that no guest knows, so that nobody can search for a collision, and by chance
 * two of 2^34 chunks (1 PiB) share a prefix with odds of 2^-61.
 */
#include "session.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "flush.h"
#include "frame.h"
#include "hash.h"
#include "store.h"
#include "table.h"

/* -- packs ------------------------------------------------------------------*/

static int
submit_locked(struct repo_session *s, enum pack_class class, struct err *err)
{
    struct pack *p = s->current[class];

    if (p == NULL)
        return 0;
    if (pack_finish(p, err) < 0)
        return -1;
    s->current[class] = NULL;
    return flusher_submit(s->flusher, p, err);
}

static int
start_pack_locked(struct repo_session *s, enum pack_class class,
                  struct err *err)
{
    struct pack_name name = {.class = class, .seq = s->n_packs + 1};

    if (s->n_packs == s->classes_cap) {
        uint32_t cap = s->classes_cap == 0 ? 64 : s->classes_cap * 2;
        uint8_t *v = realloc(s->classes, cap);

        if (v == NULL)
            return err_set_errno(err, ENOMEM, "list of packs");
        s->classes = v;
        s->classes_cap = cap;
    }
    memcpy(name.sid, s->sid, sizeof name.sid);
    if (pack_new(&name, &s->current[class], err) < 0)
        return -1;
    s->classes[s->n_packs++] = (uint8_t) class;
    return 0;
}

/* A current pack with room for `len` more bytes and what follows the frames. */
static int
make_room_locked(struct repo_session *s, enum pack_class class, size_t len,
                 struct err *err)
{
    const struct pack *p = s->current[class];

    if (p != NULL) {
        size_t whole = pack_len(p) + len + PACK_FOOT_LEN +
                       ((size_t)pack_n_frames(p) + 1) * PACK_ENTRY_LEN;

        if (whole > s->pack_target && submit_locked(s, class, err) < 0)
            return -1;
    }
    if (s->current[class] != NULL)
        return 0;
    return start_pack_locked(s, class, err);
}

int
session_add_locked(struct repo_session *s, const struct frame_head *head,
                   const uint8_t *frame, size_t len, struct err *err)
{
    enum pack_class class = head->kind == FRAME_DATA ? PACK_DATA : PACK_META;
    struct index_record rec = {.frame_len = (uint32_t)len,
                               .raw_len = head->raw_len,
                               .kind = head->kind};

    if (record_table_full(s->table) && session_spill_locked(s, err) < 0)
        return -1;
    if (make_room_locked(s, class, len, err) < 0 ||
        pack_add(s->current[class], head, frame, len, &rec.offset, err) < 0)
        return -1;
    rec.pack = pack_name(s->current[class])->seq;
    /* Pages are read back while the session runs: their packs stay whole. */
    if (class == PACK_DATA && pack_held(s->current[class]) >= s->part_max &&
        flusher_part(s->flusher, s->current[class], err) < 0)
        return -1;
    memcpy(rec.prefix, head->id.b, sizeof rec.prefix);
    return record_table_add(s->table, &rec, err);
}

int
session_flush_locked(struct repo_session *s, struct err *err)
{
    uint32_t n;

    if (submit_locked(s, PACK_DATA, err) < 0 ||
        submit_locked(s, PACK_META, err) < 0 ||
        flusher_drain(s->flusher, err) < 0)
        return -1;
    (void)record_table_all(s->table, &n);
    return n > 0 ? session_spill_locked(s, err) : 0;
}

/* -- one chunk --------------------------------------------------------------*/

static int
have_chunk(struct repo_session *s, const struct chunk_id *id, struct err *err)
{
    enum pack_class class;
    struct index_record rec;
    struct locator loc;
    int found;

    /* A damaged index says nothing about this chunk; a lost pack has it no more,
     * a condemned one not for long, and a bad frame never had it: it is stored
     * again, which heals it. */
    if (index_find_reusable(s->repo, id, &loc, NULL) > 0)
        return 1;
    (void)pthread_mutex_lock(&s->lock);
    found = session_find_locked(s, id, &rec, &class, err);
    (void)pthread_mutex_unlock(&s->lock);
    return found;
}

/* What was made is read once before it is trusted: against bad memory and bugs
 * of libraries, which no checksum made afterwards can see. */
static int
check_frame(struct put_worker *w, const struct chunk_id *id, const void *data,
            size_t len, const uint8_t *frame, size_t frame_len, struct err *err)
{
    struct err why = ERR_INIT;

    if (len > w->plain_cap) {
        free(w->plain);
        w->plain_cap = 0;
        w->plain = malloc(len);
        if (w->plain == NULL)
            return err_set_errno(err, ENOMEM, "chunk of %zu bytes", len);
        w->plain_cap = len;
    }
    if (frame_decode(w->ctx, frame, frame_len, id, (uint32_t)len, w->plain,
                     &why) == 0 &&
        memcmp(w->plain, data, len) == 0)
        return 0;
    return err_set(err, ERR_CORRUPT,
                   "a chunk did not survive being packed (%s); test the memory "
                   "of this machine",
                   why.code != ERR_NONE ? why.msg : "its bytes differ");
}

static int
add_frame(struct repo_session *s, const struct frame_head *head,
          const uint8_t *frame, size_t len, bool *ret_new, struct err *err)
{
    enum pack_class class;
    struct index_record rec;
    int found;

    (void)pthread_mutex_lock(&s->lock);
    /* Another worker may have stored it since have_chunk(). */
    found = session_find_locked(s, &head->id, &rec, &class, err);
    *ret_new = found == 0;
    if (found == 0)
        found = session_add_locked(s, head, frame, len, err);
    (void)pthread_mutex_unlock(&s->lock);
    return found < 0 ? -1 : 0;
}

static int
store_new(struct repo_session *s, struct put_worker *w, enum frame_kind kind,
          const struct chunk_id *id, const void *data, size_t len,
          struct put_stat *stat, struct err *err)
{
    bool check = kind != FRAME_DATA || s->paranoid ||
                 w->n_put++ % SESSION_CHECK_EVERY == 0;
    struct frame_head head;
    const uint8_t *frame;
    size_t frame_len;

    if (frame_encode(w->ctx, kind, id, data, len, &frame, &frame_len, err) <
            0 ||
        frame_parse(frame, frame_len, &head, err) < 0)
        return -1;
    if (check && check_frame(w, id, data, len, frame, frame_len, err) < 0)
        return -1;
    if (add_frame(s, &head, frame, frame_len, &stat->is_new, err) < 0)
        return -1;
    stat->stored_bytes = stat->is_new ? (uint32_t)frame_len : 0;
    return 0;
}

static int
put(struct repo_session *s, struct put_worker *w, enum frame_kind kind,
    const void *data, size_t len, const struct chunk_id *base,
    struct chunk_id *ret_id, struct put_stat *stat, struct err *err)
{
    int found;

    memset(stat, 0, sizeof *stat);
    if (chunk_data_zero(data, len)) {
        memset(ret_id, 0, sizeof *ret_id);
        return 0;
    }
    if (frame_id(w->ctx, kind, data, len, ret_id, err) < 0)
        return -1;
    if (base != NULL && chunk_id_equal(base, ret_id))
        return 0;
    found = have_chunk(s, ret_id, err);
    if (found != 0)
        return found < 0 ? -1 : 0;
    return store_new(s, w, kind, ret_id, data, len, stat, err);
}

static int
put_or_fail(struct repo_session *s, unsigned worker, enum frame_kind kind,
            const void *data, size_t len, const struct chunk_id *base,
            struct chunk_id *ret_id, struct put_stat *ret_stat, struct err *err)
{
    struct err why = ERR_INIT;
    struct put_stat stat;
    struct chunk_id id;

    if (session_alive(s, err) < 0)
        return -1;
    if (put(s, &s->workers[worker], kind, data, len, base, &id, &stat, &why) <
        0) {
        (void)session_fail(s, &why);
        return err_copy(err, &why);
    }
    *ret_id = id;
    if (ret_stat != NULL)
        *ret_stat = stat;
    return 0;
}

static int
check_request(const struct repo_session *s, size_t len, size_t max,
              struct err *err)
{
    if (s->sealed)
        return err_set(err, ERR_USAGE, "the session is sealed");
    if (len == 0 || len > max)
        return err_set(err, ERR_USAGE,
                       "%zu bytes cannot be stored as one, allowed are 1 to "
                       "%zu",
                       len, max);
    return 0;
}

int
repo_put(struct repo_session *s, unsigned worker, const void *data, size_t len,
         const struct chunk_id *base, struct chunk_id *ret_id,
         struct put_stat *ret_stat, struct err *err)
{
    if (worker >= s->n_workers)
        return err_set(err, ERR_USAGE, "worker %u of %u", worker, s->n_workers);
    if (check_request(s, len, REPO_CHUNK_MAX, err) < 0)
        return -1;
    return put_or_fail(s, worker, FRAME_DATA, data, len, base, ret_id, ret_stat,
                       err);
}

int
repo_put_blob(struct repo_session *s, const void *data, size_t len,
              struct chunk_id *ret_id, struct err *err)
{
    if (check_request(s, len, REPO_BLOB_MAX, err) < 0)
        return -1;
    return put_or_fail(s, s->n_workers, FRAME_BLOB, data, len, NULL, ret_id,
                       NULL, err);
}

int
page_put(struct repo_session *s, const void *page, size_t len,
         struct chunk_id *ret_id, struct err *err)
{
    if (check_request(s, len, REPO_BLOB_MAX, err) < 0)
        return -1;
    return put_or_fail(s, s->n_workers, FRAME_MAP, page, len, NULL, ret_id,
                       NULL, err);
}
