#include "flush.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "err.h"
#include "hash.h"
#include "store.h"

/* Bytes of a pack, from `off` on; the last ones make it an object. */
struct part {
    struct pack_name name;
    uint64_t off;
    struct buf bytes;
    bool last;
};

/* A pack whose first part was written. */
struct growing {
    struct store_writer *writer; /* NULL: there is none */
    struct sha256 *sha;
};

struct flusher {
    /* never changed after flusher_new() */
    struct store *store;
    pthread_t thread;
    bool started;

    /* of whoever writes */
    struct growing growing[PACK_META + 1]; /* by class */

    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* protected by lock */
    struct part waiting[FLUSH_WAITING];
    unsigned n_waiting;
    size_t waiting_bytes;
    struct part writing; /* its bytes are read without the lock */
    bool busy;
    struct buf spare[FLUSH_WAITING]; /* memory of parts that were written */
    unsigned n_spare;
    bool ending;
    struct err failure;
    struct flushed *done;
    size_t n_done;
    uint64_t stored;
};

DEFINE_CLEANUP(struct flusher *, flusher_free)

/* -- writing ----------------------------------------------------------------*/

static int
begin_pack(struct flusher *f, struct growing *g, const struct part *p,
           struct err *err)
{
    char key[REPO_KEY_MAX];

    pack_key(&p->name, key);
    if ((g->sha == NULL && sha256_new(&g->sha, err) < 0) ||
        sha256_start(g->sha, err) < 0)
        return -1;
    return store_writer_new(f->store, key, &g->writer, err);
}

static int
end_pack(struct growing *g, const struct part *p, struct flushed *ret,
         struct err *err)
{
    struct store_writer *w = TAKE_PTR(g->writer);
    int r = sha256_done(g->sha, ret->sha, err);

    ret->name = p->name;
    ret->len = p->off + p->bytes.len;
    if (r == 0)
        r = store_writer_commit(w, err);
    store_writer_free(w);
    return r;
}

static int
write_part(struct flusher *f, const struct part *p, struct flushed *ret,
           struct err *err)
{
    struct growing *g = &f->growing[p->name.class];

    if (p->off == 0 && begin_pack(f, g, p, err) < 0)
        return -1;
    if (sha256_add(g->sha, p->bytes.data, p->bytes.len, err) < 0 ||
        store_writer_add(g->writer, p->bytes.data, p->bytes.len, err) < 0)
        return -1;
    return p->last ? end_pack(g, p, ret, err) : 0;
}

static int
note_done_locked(struct flusher *f, const struct flushed *d, struct err *err)
{
    struct flushed *v = realloc(f->done, (f->n_done + 1) * sizeof *v);

    if (v == NULL)
        return err_set_errno(err, ENOMEM, "list of packs");
    f->done = v;
    v[f->n_done++] = *d;
    return 0;
}

static void
drop_waiting_locked(struct flusher *f)
{
    while (f->n_waiting > 0)
        buf_done(&f->waiting[--f->n_waiting].bytes);
    f->waiting_bytes = 0;
}

/* Making and returning memory for each part costs a page fault per 4 KiB: it is
 * used again, except what a large pack of pages took. */
static void
keep_memory_locked(struct flusher *f, struct buf *b)
{
    b->len = 0;
    if (f->n_spare < FLUSH_WAITING && b->cap <= 4 * FLUSH_PART)
        f->spare[f->n_spare++] = *b;
    else
        buf_done(b);
}

static void
write_next_locked(struct flusher *f)
{
    struct err err = ERR_INIT;
    struct flushed d;
    int r;

    f->writing = f->waiting[0];
    f->busy = true;
    f->n_waiting--;
    f->waiting_bytes -= f->writing.bytes.len;
    memmove(f->waiting, f->waiting + 1, f->n_waiting * sizeof *f->waiting);
    (void)pthread_cond_broadcast(&f->changed);
    (void)pthread_mutex_unlock(&f->lock);
    r = write_part(f, &f->writing, &d, &err);
    (void)pthread_mutex_lock(&f->lock);
    if (r == 0 && f->writing.last)
        r = note_done_locked(f, &d, &err);
    if (r < 0) {
        (void)err_copy(&f->failure, &err);
        drop_waiting_locked(f);
    } else {
        f->stored += f->writing.bytes.len;
    }
    f->busy = false;
    keep_memory_locked(f, &f->writing.bytes);
    f->writing = (struct part){.bytes = BUF_INIT};
    (void)pthread_cond_broadcast(&f->changed);
}

static void *
run(void *arg)
{
    struct flusher *f = arg;

    (void)pthread_mutex_lock(&f->lock);
    for (;;) {
        while (f->n_waiting == 0 && !f->ending)
            (void)pthread_cond_wait(&f->changed, &f->lock);
        if (f->ending)
            break;
        write_next_locked(f);
    }
    (void)pthread_mutex_unlock(&f->lock);
    return NULL;
}

static int
start(struct flusher *f, struct err *err)
{
    sigset_t all, old;
    int r;

    /* Signals are the main thread's. */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    r = pthread_create(&f->thread, NULL, run, f);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r != 0)
        return err_set_errno(err, r, "start the pack writer");
    f->started = true;
    return 0;
}

int
flusher_new(struct store *st, bool synchronous, struct flusher **ret,
            struct err *err)
{
    CLEANUP(flusher_freep) struct flusher *f = calloc(1, sizeof *f);

    if (f == NULL)
        return err_set_errno(err, ENOMEM, "pack writer");
    f->store = st;
    (void)pthread_mutex_init(&f->lock, NULL);
    (void)pthread_cond_init(&f->changed, NULL);
    if (!synchronous && start(f, err) < 0)
        return -1;
    *ret = TAKE_PTR(f);
    return 0;
}

void
flusher_free(struct flusher *f)
{
    if (f == NULL)
        return;
    (void)pthread_mutex_lock(&f->lock);
    f->ending = true;
    (void)pthread_cond_broadcast(&f->changed);
    (void)pthread_mutex_unlock(&f->lock);
    if (f->started)
        (void)pthread_join(f->thread, NULL);
    drop_waiting_locked(f); /* no other thread is left */
    for (unsigned i = 0; i < f->n_spare; i++)
        buf_done(&f->spare[i]);
    for (unsigned c = 0; c <= PACK_META; c++) {
        store_writer_free(f->growing[c].writer);
        sha256_free(f->growing[c].sha);
    }
    (void)pthread_mutex_destroy(&f->lock);
    (void)pthread_cond_destroy(&f->changed);
    free(f->done);
    free(f);
}

/* Takes over p->bytes, also on failure. */
static int
submit_locked(struct flusher *f, struct part *p, struct err *err)
{
    while (
        f->failure.code == ERR_NONE &&
        (f->n_waiting == FLUSH_WAITING ||
         (f->n_waiting > 0 && f->waiting_bytes + p->bytes.len > FLUSH_BYTES)))
        (void)pthread_cond_wait(&f->changed, &f->lock);
    if (f->failure.code != ERR_NONE) {
        buf_done(&p->bytes);
        return err_copy(err, &f->failure);
    }
    f->waiting[f->n_waiting++] = *p;
    f->waiting_bytes += p->bytes.len;
    (void)pthread_cond_broadcast(&f->changed);
    if (f->started)
        return 0;
    write_next_locked(f);
    return f->failure.code == ERR_NONE ? 0 : err_copy(err, &f->failure);
}

static int
submit(struct flusher *f, struct pack *p, bool last, struct err *err)
{
    struct part part = {.name = *pack_name(p), .bytes = BUF_INIT, .last = last};
    int r;

    (void)pthread_mutex_lock(&f->lock);
    if (!last && f->n_spare > 0)
        part.bytes = f->spare[--f->n_spare];
    pack_hand_over(p, &part.bytes, &part.off);
    r = submit_locked(f, &part, err);
    (void)pthread_mutex_unlock(&f->lock);
    return r;
}

int
flusher_part(struct flusher *f, struct pack *p, struct err *err)
{
    return submit(f, p, false, err);
}

int
flusher_submit(struct flusher *f, struct pack *p, struct err *err)
{
    int r = submit(f, p, true, err);

    pack_free(p);
    return r;
}

int
flusher_drain(struct flusher *f, struct err *err)
{
    int r = 0;

    (void)pthread_mutex_lock(&f->lock);
    while (f->n_waiting > 0 || f->busy)
        (void)pthread_cond_wait(&f->changed, &f->lock);
    if (f->failure.code != ERR_NONE)
        r = err_copy(err, &f->failure);
    (void)pthread_mutex_unlock(&f->lock);
    return r;
}

static bool
copy_from(const struct part *p, uint32_t seq, uint32_t off, size_t len,
          void *dst)
{
    if (p->name.seq != seq || off < p->off || off - p->off > p->bytes.len ||
        len > p->bytes.len - (off - p->off))
        return false;
    memcpy(dst, p->bytes.data + (off - p->off), len);
    return true;
}

int
flusher_copy(struct flusher *f, uint32_t seq, uint32_t off, size_t len,
             void *dst)
{
    bool found;

    (void)pthread_mutex_lock(&f->lock);
    found = f->busy && copy_from(&f->writing, seq, off, len, dst);
    for (unsigned i = 0; !found && i < f->n_waiting; i++)
        found = copy_from(&f->waiting[i], seq, off, len, dst);
    (void)pthread_mutex_unlock(&f->lock);
    return found;
}

const struct flushed *
flusher_done(const struct flusher *f, size_t *ret_n)
{
    *ret_n = f->n_done;
    return f->done;
}

uint64_t
flusher_stored(struct flusher *f)
{
    uint64_t n;

    (void)pthread_mutex_lock(&f->lock);
    n = f->stored;
    (void)pthread_mutex_unlock(&f->lock);
    return n;
}
