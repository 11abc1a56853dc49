/* Checkpoints: a session makes what it has put so far durable as a point of an
 * unfinished run, and goes on under a new name.
 *
 * The new name is registered before the old session ends, so a collector finds
 * one of them at any time; and whatever counts as reusable is looked at again
 * afterwards, as in every session.  What was put under the old name is safe only
 * where the partial point refers to it, which is the caller's duty (repo.h).
 */
#include "session.h"

#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "flush.h"
#include "rand.h"
#include "store.h"
#include "table.h"

DEFINE_CLEANUP(struct flusher *, flusher_free)

static void
registration_drop(struct registration **g)
{
    registration_free(*g, false);
}

/* Everything that belongs to the old name is committed: forget it. */
static void
start_afresh(struct repo_session *s, struct registration *reg,
             struct flusher *flusher)
{
    (void)pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i < s->n_spilled; i++)
        store_unmap(s->repo->store, s->spilled[i].map, s->spilled[i].map_len);
    s->n_spilled = 0;
    memset(s->n_runs, 0, sizeof s->n_runs);
    record_table_clear(s->table);
    s->n_packs = s->last_k = 0;
    s->index_bytes += flusher_stored(s->flusher);
    (void)pthread_mutex_unlock(&s->lock);
    flusher_free(s->flusher);
    s->flusher = flusher;
    registration_free(s->reg, false);
    s->reg = reg;
    (void)strcpy(s->sid_text, registration_sid(reg));
    (void)hex_decode(s->sid_text, s->sid, sizeof s->sid);
    s->sealed = false;
    s->fate = SESSION_OPEN;
}

/* The machine's other writers are not looked for: the old session has kept
 * them away, and it ends only when the new one is there to be seen. */
static int
checkpoint(struct repo_session *s, struct point *p, struct err *err)
{
    CLEANUP(registration_drop) struct registration *reg = NULL;
    CLEANUP(flusher_freep) struct flusher *flusher = NULL;

    if (registration_new(s->repo, "put", p->machine, NULL, !s->synchronous,
                         &reg, err) < 0 ||
        flusher_new(s->repo->store, s->synchronous, &flusher, err) < 0)
        return -1;
    if (repo_commit(s, p, err) < 0)
        return -1;
    start_afresh(s, TAKE_PTR(reg), TAKE_PTR(flusher));
    if (repo_check_features(s->repo, err) < 0 ||
        repo_may_write(s->repo, err) < 0)
        return -1;
    index_look_again(s->repo);
    return index_reload(s->repo, err);
}

int
repo_session_checkpoint(struct repo_session *s, struct point *p,
                        struct err *err)
{
    struct err why = ERR_INIT;

    if (session_alive(s, err) < 0)
        return -1;
    if (!p->partial)
        return err_set(err, ERR_USAGE,
                       "a checkpoint makes points of unfinished runs only");
    if (checkpoint(s, p, &why) < 0) {
        (void)session_fail(s, &why);
        return err_copy(err, &why);
    }
    return 0;
}
