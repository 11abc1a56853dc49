/* job/copy_mark.c - how far the copy is, made durable while it goes on.
 *
 * Maps are written from left to right, so one number per disk says what is this
 * instant's.  Workers are ahead of it: units behind one that is still being read
 * have been stored already.  They are entered into the map as well, although
 * nobody may count on them, because what a session has put is safe from a
 * collector only where the partial point refers to it (repo.h); later they leave
 * the queue in their turn and are entered once more.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "cleanup.h"
#include "clock.h"
#include "lane.h"
#include "repo.h"

/* With less than this share of what makes a checkpoint due, a copy that fails is
 * not worth a last one. */
#define LAST_BYTES_SHARE 16
#define LAST_TIME_SHARE 5

/* -- how far ----------------------------------------------------------------*/

static uint64_t
done_locked(const struct lane *l)
{
    const struct unit *head = l->units.head;
    uint64_t off = (head != NULL ? head->index : l->pos) *
                   (uint64_t)l->copy->opts->chunk_size;

    return off < l->disk->size ? off : l->disk->size;
}

/* False: what an unfinished run left of some disk is not caught up with yet, and a
 * checkpoint now would know less of it than that run's. */
static bool
measure(struct copy *c)
{
    bool good = true;

    (void)pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < c->n_lanes; i++) {
        struct lane *l = &c->lanes[i];
        struct copy_disk *d = l->disk;

        d->untouched = i >= c->next_lane;
        d->done = d->untouched ? 0 : done_locked(l);
        if (d->resumed && !d->untouched && d->done < d->split)
            good = false;
    }
    (void)pthread_mutex_unlock(&c->lock);
    return good;
}

/* Time alone is no progress: a machine that is silent gets nowhere. */
static bool
reached(struct copy *c, uint64_t bytes_share, uint64_t time_share,
        uint64_t progress)
{
    const struct copy_opts *o = c->opts;
    uint64_t bytes, done;

    if (o->checkpoint == NULL)
        return false;
    (void)pthread_mutex_lock(&c->lock);
    bytes = c->new_bytes;
    done = c->done - c->marked_done;
    (void)pthread_mutex_unlock(&c->lock);
    return bytes > o->checkpoint_bytes / bytes_share ||
           (done > progress &&
            clock_ms() - c->marked_ms > o->checkpoint_ms / time_share);
}

/* -- maps -------------------------------------------------------------------*/

/* The finished units that wait behind others: *ret is the caller's, the units stay
 * in the queue, which only the calling thread takes them from. */
static size_t
waiting_units(struct copy *c, struct lane *l, struct unit ***ret)
{
    size_t n = 0;

    (void)pthread_mutex_lock(&c->lock);
    *ret = calloc((size_t)l->units.n_units + 1, sizeof **ret);
    for (struct unit *u = l->units.head; *ret != NULL && u; u = u->next)
        if (u->finished)
            (*ret)[n++] = u;
    (void)pthread_mutex_unlock(&c->lock);
    return n;
}

static int
finish_map(struct copy *c, struct lane *l, struct err *err)
{
    CLEANUP_FREE struct unit **v = NULL;
    struct copy_disk *d = l->disk;
    size_t n = waiting_units(c, l, &v);

    if (v == NULL)
        return err_set_errno(err, ENOMEM, "list of units");
    for (size_t i = 0; i < n; i++)
        if (copy_apply_unit(d, v[i], err) < 0)
            return -1;
    if (map_writer_finish(d->map, &d->root, err) < 0) {
        (void)err_side(err, ERR_SIDE_REPO);
        return err_wrap(err, "map of disk '%s'", d->name);
    }
    return 0;
}

static int
finish_maps(struct copy *c, struct err *err)
{
    for (size_t i = 0; i < c->n_lanes; i++)
        if (finish_map(c, &c->lanes[i], err) < 0)
            return -1;
    return 0;
}

/* The base of the next stretch of the map is what the partial point has.  What
 * the old base has is compared with no more: only what the partial point reaches
 * is known to stay. */
static int
go_on(struct copy *c, struct err *err)
{
    for (size_t i = 0; i < c->n_lanes; i++) {
        struct copy_disk *d = c->lanes[i].disk;

        map_writer_free(TAKE_PTR(d->map));
        d->base_gone = true;
        if (map_writer_new(c->opts->session, d->size, c->opts->chunk_size,
                           &d->root, &d->map, err) < 0)
            return err_side(err, ERR_SIDE_REPO);
    }
    return 0;
}

/* -- the commit, beside the watch -------------------------------------------*/

struct commit {
    struct copy *copy;
    int result;
    struct err err;
    bool ended; /* protected by the copy's lock */
};

static void *
commit_main(void *arg)
{
    struct commit *m = arg;
    struct copy *c = m->copy;

    m->result = c->opts->checkpoint(c->opts->arg, &m->err);
    (void)pthread_mutex_lock(&c->lock);
    m->ended = true;
    copy_news_locked(c);
    (void)pthread_mutex_unlock(&c->lock);
    return NULL;
}

static bool
commit_ended(struct commit *m)
{
    bool ended;

    (void)pthread_mutex_lock(&m->copy->lock);
    ended = m->ended;
    (void)pthread_mutex_unlock(&m->copy->lock);
    return ended;
}

/* A slow repository must not keep the calling thread from looking at the scratch
 * space.  What it sees first counts when the commit has ended. */
static int
commit_and_watch(struct copy *c, struct err *err)
{
    struct commit m = {.copy = c};
    struct err why = ERR_INIT;
    sigset_t all, old;
    pthread_t thread;
    int r, seen = 0;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    r = pthread_create(&thread, NULL, commit_main, &m);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r != 0)
        return err_set_errno(err, r, "start a thread");
    while (!commit_ended(&m)) {
        if (seen == 0)
            seen = copy_poll(c, &why);
        copy_wait_news(c);
    }
    (void)pthread_join(thread, NULL);
    if (m.result < 0) {
        (void)err_copy(err, &m.err);
        return err_side(err, ERR_SIDE_REPO);
    }
    return seen < 0 ? err_copy(err, &why) : 0;
}

static int
checkpoint(struct copy *c, struct err *err)
{
    if (finish_maps(c, err) < 0 || commit_and_watch(c, err) < 0)
        return -1;
    return go_on(c, err);
}

int
copy_checkpoint(struct copy *c, struct err *err)
{
    int r = 0;

    if (!reached(c, 1, 1, 0))
        return 0;
    (void)pthread_rwlock_wrlock(&c->puts);
    if (!atomic_load(&c->failed) && measure(c)) {
        r = checkpoint(c, err);
        (void)pthread_mutex_lock(&c->lock);
        c->new_bytes = 0;
        c->marked_done = c->done;
        (void)pthread_mutex_unlock(&c->lock);
        c->marked_ms = clock_ms();
    }
    (void)pthread_rwlock_unlock(&c->puts);
    return r;
}

bool
copy_last_mark(struct copy *c, const struct err *why)
{
    const uint64_t least = c->opts->checkpoint_bytes / LAST_BYTES_SHARE;
    struct err err = ERR_INIT;

    for (size_t i = 0; i < c->n_lanes; i++)
        if (c->lanes[i].disk->audit_failed || c->lanes[i].disk->base_damaged)
            return false; /* its base is not to be built upon */
    return why->side != ERR_SIDE_REPO &&
           reached(c, LAST_BYTES_SHARE, LAST_TIME_SHARE, least) && measure(c) &&
           finish_maps(c, &err) == 0;
}
