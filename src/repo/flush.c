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

struct flusher {
    /* never changed after flusher_new() */
    struct store *store;
    pthread_t thread;
    bool started;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* protected by lock */
    struct pack *waiting[FLUSH_WAITING];
    unsigned n_waiting;
    struct pack *writing; /* its bytes are read without the lock */
    struct buf spare;     /* memory of a pack that was written */
    bool ending;
    struct err failure;
    struct flushed *done;
    size_t n_done;
    uint64_t stored;
};

DEFINE_CLEANUP(struct flusher *, flusher_free)

static int
write_pack(struct flusher *f, const struct pack *p, struct flushed *ret,
           struct err *err)
{
    char key[REPO_KEY_MAX];

    ret->name = *pack_name(p);
    ret->len = pack_len(p);
    pack_key(&ret->name, key);
    if (hash_sha256(pack_bytes(p), pack_len(p), ret->sha, err) < 0)
        return -1;
    return store_put(f->store, key, pack_bytes(p), pack_len(p), err);
}

static int
note_done_locked(struct flusher *f, const struct flushed *d, struct err *err)
{
    struct flushed *v = realloc(f->done, (f->n_done + 1) * sizeof *v);

    if (v == NULL)
        return err_set_errno(err, ENOMEM, "list of packs");
    f->done = v;
    v[f->n_done++] = *d;
    f->stored += d->len;
    return 0;
}

static void
drop_waiting_locked(struct flusher *f)
{
    while (f->n_waiting > 0)
        pack_free(f->waiting[--f->n_waiting]);
}

static void
write_next_locked(struct flusher *f)
{
    struct err err = ERR_INIT;
    struct flushed d;
    int r;

    f->writing = f->waiting[0];
    f->waiting[0] = f->waiting[1];
    f->n_waiting--;
    (void)pthread_cond_broadcast(&f->changed);
    (void)pthread_mutex_unlock(&f->lock);
    r = write_pack(f, f->writing, &d, &err);
    (void)pthread_mutex_lock(&f->lock);
    if (r == 0)
        r = note_done_locked(f, &d, &err);
    if (r < 0) {
        (void)err_copy(&f->failure, &err);
        drop_waiting_locked(f);
    }
    pack_take_memory(f->writing, &f->spare);
    pack_free(f->writing);
    f->writing = NULL;
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

int
flusher_new(struct store *st, struct flusher **ret, struct err *err)
{
    CLEANUP(flusher_freep) struct flusher *f = calloc(1, sizeof *f);
    sigset_t all, old;
    int r;

    if (f == NULL)
        return err_set_errno(err, ENOMEM, "pack writer");
    f->store = st;
    (void)pthread_mutex_init(&f->lock, NULL);
    (void)pthread_cond_init(&f->changed, NULL);
    /* Signals are the main thread's. */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    r = pthread_create(&f->thread, NULL, run, f);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r != 0)
        return err_set_errno(err, r, "start the pack writer");
    f->started = true;
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
    buf_done(&f->spare);
    (void)pthread_mutex_destroy(&f->lock);
    (void)pthread_cond_destroy(&f->changed);
    free(f->done);
    free(f);
}

int
flusher_submit(struct flusher *f, struct pack *p, struct err *err)
{
    int r = 0;

    (void)pthread_mutex_lock(&f->lock);
    while (f->n_waiting == FLUSH_WAITING && f->failure.code == ERR_NONE)
        (void)pthread_cond_wait(&f->changed, &f->lock);
    if (f->failure.code != ERR_NONE) {
        pack_free(p);
        r = err_copy(err, &f->failure);
    } else {
        f->waiting[f->n_waiting++] = p;
        (void)pthread_cond_broadcast(&f->changed);
    }
    (void)pthread_mutex_unlock(&f->lock);
    return r;
}

void
flusher_reuse(struct flusher *f, struct pack *p)
{
    (void)pthread_mutex_lock(&f->lock);
    pack_give_memory(p, &f->spare);
    (void)pthread_mutex_unlock(&f->lock);
}

int
flusher_drain(struct flusher *f, struct err *err)
{
    int r = 0;

    (void)pthread_mutex_lock(&f->lock);
    while (f->n_waiting > 0 || f->writing != NULL)
        (void)pthread_cond_wait(&f->changed, &f->lock);
    if (f->failure.code != ERR_NONE)
        r = err_copy(err, &f->failure);
    (void)pthread_mutex_unlock(&f->lock);
    return r;
}

static bool
copy_from(const struct pack *p, uint32_t seq, uint32_t off, size_t len,
          void *dst)
{
    if (p == NULL || pack_name(p)->seq != seq || off > pack_len(p) ||
        len > pack_len(p) - off)
        return false;
    memcpy(dst, pack_bytes(p) + off, len);
    return true;
}

int
flusher_copy(struct flusher *f, uint32_t seq, uint32_t off, size_t len,
             void *dst)
{
    bool found;

    (void)pthread_mutex_lock(&f->lock);
    found = copy_from(f->writing, seq, off, len, dst);
    for (unsigned i = 0; !found && i < f->n_waiting; i++)
        found = copy_from(f->waiting[i], seq, off, len, dst);
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
