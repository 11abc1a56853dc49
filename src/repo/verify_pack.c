/* One pack, read once from its begin to its end: SHA-256 of all of it, and the
 * frames that points need. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "frame.h"
#include "hash.h"
#include "store.h"
#include "verify.h"

#define WINDOW (4u << 20) /* read at a time */
#define NAP_MS 100        /* between looks for a cancel */

/* What is in memory of the pack: bytes pos .. pos + fill - 1. */
struct window {
    struct verify *v;
    struct vreader *w;
    struct vpack *p;
    char key[REPO_KEY_MAX];
    uint64_t pos;
    size_t fill;
    struct err broken; /* it could not be read to its end */
};

int
vreader_init(struct vreader *w, struct repo *r, struct err *err)
{
    memset(w, 0, sizeof *w);
    if (frame_ctx_new(&r->keys, 0, &w->ctx, err) < 0 ||
        sha256_new(&w->sha, err) < 0)
        return -1;
    return 0;
}

void
vreader_done(struct vreader *w)
{
    frame_ctx_free(w->ctx);
    sha256_free(w->sha);
    free(w->buf);
    free(w->plain);
}

static int
have_room(uint8_t **buf, size_t *cap, size_t want, struct err *err)
{
    uint8_t *p;

    if (want <= *cap)
        return 0;
    p = realloc(*buf, want);
    if (p == NULL)
        return err_set_errno(err, ENOMEM, "%zu bytes of a pack", want);
    *buf = p;
    *cap = want;
    return 0;
}

/* -- reading at a limited rate ----------------------------------------------*/

static void
nap(uint64_t us)
{
    struct timespec t = {.tv_sec = (time_t)(us / 1000000u),
                         .tv_nsec = (long)(us % 1000000u) * 1000};

    (void)nanosleep(&t, NULL);
}

/* Wait for this read's turn, and count its bytes. */
static int
take_turn(struct verify *v, size_t len, struct err *err)
{
    uint64_t at = 0;

    (void)pthread_mutex_lock(&v->lock);
    if (v->opts.limit_rate > 0)
        at = rate_turn(&v->rate, clock_us(), len, v->opts.limit_rate);
    (void)pthread_mutex_unlock(&v->lock);
    while (at > 0 && clock_us() < at) {
        uint64_t left = at - clock_us();

        if (verify_canceled(v, err) < 0)
            return -1;
        nap(left < NAP_MS * 1000u ? left : NAP_MS * 1000u);
    }
    return verify_canceled(v, err);
}

static void
count_read(struct verify *v, size_t len)
{
    (void)pthread_mutex_lock(&v->lock);
    v->done += len;
    v->rep.packs_bytes += len;
    if (v->opts.progress != NULL)
        v->opts.progress(v->opts.arg, v->done < v->total ? v->done : v->total,
                         v->total);
    (void)pthread_mutex_unlock(&v->lock);
}

/* Failures that say nothing about the pack. */
static bool
not_its_fault(const struct err *e)
{
    return e->code == ERR_CANCELED || e->sys == ENOMEM || e->sys == EMFILE ||
           e->sys == ENFILE;
}

/* Failures that may pass: a problem, but nothing that a bad list, which nobody takes
 * back, should say of the pack. */
static bool
may_pass(const struct err *e)
{
    return e->sys == EACCES || e->sys == EPERM || e->sys == ESTALE ||
           e->sys == ETIMEDOUT || e->sys == ENOTCONN;
}

/* Add the next bytes of the pack to the window, at least up to `end`. */
static int
read_on(struct window *s, uint64_t end, struct err *err)
{
    uint64_t from = s->pos + s->fill;
    size_t want = end > from + WINDOW ? (size_t)(end - from) : WINDOW;

    if (want > s->p->found - from)
        want = (size_t)(s->p->found - from);
    if (have_room(&s->w->buf, &s->w->cap, s->fill + want, err) < 0 ||
        take_turn(s->v, want, err) < 0)
        return -1;
    if (store_get(s->v->repo->store, s->key, from, want, s->w->buf + s->fill,
                  &s->broken) < 0)
        return not_its_fault(&s->broken) ? err_copy(err, &s->broken) : 0;
    if (sha256_add(s->w->sha, s->w->buf + s->fill, want, err) < 0)
        return -1;
    s->fill += want;
    count_read(s->v, want);
    return 0;
}

/* Have [from, end) in the window, or s->broken. */
static int
slide(struct window *s, uint64_t from, uint64_t end, struct err *err)
{
    while (s->broken.code == ERR_NONE && s->pos + s->fill < end) {
        uint64_t keep = from < s->pos + s->fill ? from : s->pos + s->fill;

        if (keep < s->pos)
            keep = s->pos;
        if (s->fill > 0)
            memmove(s->w->buf, s->w->buf + (keep - s->pos),
                    (size_t)(s->pos + s->fill - keep));
        s->fill -= (size_t)(keep - s->pos);
        s->pos = keep;
        if (read_on(s, end, err) < 0)
            return -1;
    }
    return 0;
}

/* -- frames -----------------------------------------------------------------*/

static int
prove(struct vreader *w, const struct vframe *f, const uint8_t *bytes,
      struct err *why)
{
    struct frame_head h;

    if (have_room(&w->plain, &w->plain_cap, f->raw_len, why) < 0 ||
        frame_parse(bytes, f->frame_len, &h, why) < 0)
        return -1;
    if (h.kind != f->kind || memcmp(h.id.b, f->prefix, sizeof f->prefix) != 0)
        return err_set(why, ERR_CORRUPT,
                       "the index has another chunk at this place");
    return frame_decode(w->ctx, bytes, f->frame_len, &h.id, f->raw_len,
                        w->plain, why);
}

/* A frame that is not in the window: the pack cannot be read to its end, or the
 * index has frames that overlap. */
static int
prove_alone(struct window *s, const struct vframe *f, struct err *why)
{
    CLEANUP_FREE uint8_t *bytes = malloc(f->frame_len);

    if (bytes == NULL)
        return err_set_errno(why, ENOMEM, "frame of %u bytes", f->frame_len);
    if (store_get(s->v->repo->store, s->key, f->offset, f->frame_len, bytes,
                  why) < 0)
        return -1;
    return prove(s->w, f, bytes, why);
}

static int
keep_bad(struct verify *v, const struct vpack *p, uint32_t at, struct err *err)
{
    struct vbad *list =
        realloc(v->bad_frames, (v->n_bad_frames + 1) * sizeof *list);

    if (list == NULL)
        return err_set_errno(err, ENOMEM, "list of bad frames");
    v->bad_frames = list;
    list[v->n_bad_frames++] = (struct vbad){p->name, at};
    return 0;
}

static int
note_frame(struct window *s, const struct vframe *f, struct err *why,
           struct err *err)
{
    struct verify *v = s->v;
    int rc = 0;

    (void)pthread_mutex_lock(&v->lock);
    if (f->kind == FRAME_DATA) {
        v->rep.chunks++;
        v->rep.bytes += f->raw_len;
    }
    if (why->code != ERR_NONE) {
        (void)err_wrap(why, "%s at offset %" PRIu32, s->key, f->offset);
        v->damage = true;
        verify_bit_set(v->bad, f->record);
        verify_reason_add(v, f->record, why->msg);
        rc = may_pass(why) ? 0 : keep_bad(v, s->p, f->offset, err);
    }
    (void)pthread_mutex_unlock(&v->lock);
    return rc;
}

static int
one_frame(struct window *s, const struct vframe *f, bool *ret_good,
          struct err *err)
{
    uint64_t end = (uint64_t)f->offset + f->frame_len;
    struct err why = ERR_INIT;

    if (end > s->p->found)
        (void)err_set(&why, ERR_CORRUPT, "ends behind the end of the pack");
    else if (slide(s, f->offset, end, err) < 0)
        return -1;
    else if (s->pos <= f->offset && end <= s->pos + s->fill)
        (void)prove(s->w, f, s->w->buf + (f->offset - s->pos), &why);
    else
        (void)prove_alone(s, f, &why);
    if (not_its_fault(&why))
        return err_copy(err, &why);
    *ret_good &= why.code == ERR_NONE;
    return note_frame(s, f, &why, err);
}

/* -- the pack ---------------------------------------------------------------*/

/* Every frame of a pack that is damaged somewhere, also those that no point needs
 * now: a later backup must not build on them. */
static int
check_table_frames(struct window *s, const uint8_t *data,
                   const struct pack_view *view, struct err *err)
{
    for (uint32_t i = 0; i < view->n_entries; i++) {
        struct err why = ERR_INIT;
        struct pack_entry e;
        struct vframe f;
        int rc = 0;

        pack_entry_at(view, i, &e);
        f = (struct vframe){.offset = e.offset,
                            .frame_len = e.frame_len,
                            .raw_len = e.raw_len,
                            .kind = e.kind};
        memcpy(f.prefix, e.id.b, sizeof f.prefix);
        if (prove(s->w, &f, data + e.offset, &why) == 0)
            continue;
        if (not_its_fault(&why))
            return err_copy(err, &why);
        (void)pthread_mutex_lock(&s->v->lock);
        rc = keep_bad(s->v, s->p, e.offset, err);
        (void)pthread_mutex_unlock(&s->v->lock);
        if (rc < 0)
            return -1;
    }
    return 0;
}

/* 1 the pack can be made sense of without an index, and its bad frames are
 * known; 0 it cannot; -1. */
static int
check_table(struct window *s, bool frames, struct err *err)
{
    char own[REPO_KEY_MAX] = "";
    struct pack_view view;
    const uint8_t *data;
    int rc = 0;
    size_t len;

    if (store_map(s->v->repo->store, s->key, &data, &len, NULL) < 0)
        return 0;
    if (pack_parse(data, len, &view, NULL) == 0)
        pack_key(&view.name, own);
    if (strcmp(own, s->key) == 0)
        rc = frames && check_table_frames(s, data, &view, err) < 0 ? -1 : 1;
    if (store_check_map(s->v->repo->store, data, NULL) < 0 && rc > 0)
        rc = 0;
    store_unmap(s->v->repo->store, data, len);
    return rc;
}

static int
check_whole(struct window *s, struct err *why, struct err *err)
{
    uint8_t sha[HASH_LEN];

    if (s->broken.code != ERR_NONE)
        return err_copy(why, &s->broken);
    if (sha256_done(s->w->sha, sha, err) < 0)
        return -1;
    if (s->p->listed && s->p->found != s->p->len)
        return err_set(why, ERR_CORRUPT,
                       "%" PRIu64 " bytes long, written were %" PRIu64,
                       s->p->found, s->p->len);
    if (s->p->listed && !hash_equal(sha, s->p->sha))
        return err_set(why, ERR_CORRUPT,
                       "not the bytes that were written: its SHA-256 differs");
    if (!s->p->listed && check_table(s, false, NULL) == 0)
        return err_set(why, ERR_CORRUPT, "its table is damaged");
    return 0;
}

static int
judge(struct window *s, bool frames_good, struct err *err)
{
    struct err why = ERR_INIT;
    int table;

    if (check_whole(s, &why, err) == 0) {
        if (frames_good)
            return 0;
        (void)err_set(&why, ERR_CORRUPT,
                      "holds other frames than the index says");
    }
    if (why.code == ERR_NONE)
        return -1;
    if (why.code == ERR_NOT_FOUND) {
        s->p->found = 0; /* gone since it was listed; the report says how */
        return 0;
    }
    table = check_table(s, true, err);
    s->p->why = strdup(why.msg);
    s->p->whole_bad = table == 0; /* else its bad frames are known */
    s->p->spoiled = frames_good && table > 0;
    s->p->failed = !s->p->spoiled;
    s->p->kept |= may_pass(&why);
    return table < 0 ? -1 : 0;
}

int
verify_one_pack(struct verify *v, struct vreader *w, struct vpack *p,
                const struct vframe *f, size_t n, struct err *err)
{
    struct window s = {.v = v, .w = w, .p = p};
    bool good = true;

    pack_key(&p->name, s.key);
    if (p->found > PACK_LEN_MAX)
        (void)err_set(&s.broken, ERR_CORRUPT,
                      "%" PRIu64 " bytes long, more than a pack can have",
                      p->found);
    if (sha256_start(w->sha, err) < 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        if (one_frame(&s, &f[i], &good, err) < 0)
            return -1;
    while (s.broken.code == ERR_NONE && s.pos + s.fill < p->found)
        if (slide(&s, s.pos + s.fill, s.pos + s.fill + 1, err) < 0)
            return -1;
    if (judge(&s, good, err) < 0)
        return -1;
    p->done = true;
    return 0;
}
