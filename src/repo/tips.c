/* Which points a machine has, as far as a commit has to know: its newest one.
 *
 * Noted when a commit object is read for the index, so that with thousands of
 * points a commit does not read all of them again.  Only a hint where to look:
 * the point that is chosen is read and checked whole.
 */
#include "catalog.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "jv.h"

void
tips_done(struct tips *t)
{
    for (size_t i = 0; i < t->n; i++)
        free(t->v[i].machine);
    free(t->v);
    *t = (struct tips){NULL, 0, 0};
}

int
tips_add(struct tips *t, const char *sid, const struct jv *point,
         struct err *err)
{
    const char *machine = jv_get_str(point, "machine");
    struct tip tip = {.machine = NULL};

    if (machine == NULL || !id_text_valid(sid) ||
        !jv_get_uint(point, "seq", &tip.seq))
        return 0; /* no point, or none that can be used */
    if (t->n == t->cap) {
        size_t cap = t->cap == 0 ? 64 : 2 * t->cap;
        struct tip *v = realloc(t->v, cap * sizeof *v);

        if (v == NULL)
            return err_set_errno(err, ENOMEM, "list of %zu points", cap);
        t->v = v;
        t->cap = cap;
    }
    tip.machine = strdup(machine);
    if (tip.machine == NULL)
        return err_set_errno(err, ENOMEM, "list of points");
    memcpy(tip.sid, sid, sizeof tip.sid);
    t->v[t->n++] = tip;
    return 0;
}

static int
compare(uint64_t seq, const char *sid, const struct tip *t)
{
    if (seq != t->seq)
        return seq < t->seq ? -1 : 1;
    return strcmp(sid, t->sid);
}

bool
index_newest(struct repo *r, const char *machine, uint64_t *seq,
             char sid[REPO_SID_TEXT])
{
    const struct tips *t = &r->catalog->tips;
    const struct tip *best = NULL;

    (void)pthread_rwlock_rdlock(&r->index_lock);
    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->v[i].machine, machine) == 0 &&
            (sid[0] == '\0' || compare(*seq, sid, &t->v[i]) > 0) &&
            (best == NULL || compare(best->seq, best->sid, &t->v[i]) < 0))
            best = &t->v[i];
    if (best != NULL) {
        *seq = best->seq;
        memcpy(sid, best->sid, sizeof best->sid);
    }
    (void)pthread_rwlock_unlock(&r->index_lock);
    return best != NULL;
}
