/* Watching other sessions: until they end, or are taken for dead.
 *
 * Only changes of heartbeats count, seen on one's own clock; times of other hosts
 * are never looked at.
 */
#include "gc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "clock.h"

#define SECOND UINT64_C(1000000000)
#define POLL_FIRST (1 * SECOND)
#define POLL_LATER (5 * SECOND)
#define POLLS_FIRST 10u
#define NEVER UINT32_MAX

struct watch {
    char sid[REPO_SID_TEXT];
    uint64_t beat, idle;
    unsigned changes;
    unsigned alive_after; /* changes that settle it */
    bool settled;
};

struct watches {
    struct watch *v;
    size_t n;
};

static void
watches_done(struct watches *w)
{
    free(w->v);
}

static int
watch_one(struct watches *w, const struct session_info *s, unsigned alive_after,
          struct err *err)
{
    struct watch *v = realloc(w->v, (w->n + 1) * sizeof *v);

    if (v == NULL)
        return err_set_errno(err, ENOMEM, "sessions");
    w->v = v;
    v[w->n] = (struct watch){.beat = s->beat, .alive_after = alive_after};
    memcpy(v[w->n++].sid, s->sid, sizeof s->sid);
    return 0;
}

/* -- time -------------------------------------------------------------------*/

static uint64_t
now(const struct gc *g)
{
    return g->opts->now_ns != NULL ? g->opts->now_ns(g->opts->arg)
                                   : clock_us() * 1000;
}

static void
sleep_for(const struct gc *g, uint64_t ns)
{
    struct timespec t = {.tv_sec = (time_t)(ns / SECOND),
                         .tv_nsec = (long)(ns % SECOND)};

    if (g->opts->sleep_ns != NULL)
        g->opts->sleep_ns(g->opts->arg, ns);
    else
        (void)nanosleep(&t, NULL);
}

static uint64_t
fence_after(const struct gc *g)
{
    return g->opts->fence_after != 0 ? g->opts->fence_after
                                     : REPO_FENCE_AFTER_NS;
}

/* -- one look ---------------------------------------------------------------*/

static const struct session_info *
find_session(const struct session_list *l, const char *sid)
{
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->v[i].sid, sid) == 0)
            return &l->v[i];
    return NULL;
}

static int
fence(struct gc *g, struct watch *w, struct err *err)
{
    int fenced =
        session_fence(g->r, w->sid, "a collector took it for dead", err);

    if (fenced < 0)
        return err_wrap(err, "fence session %s", w->sid);
    g->rep.sessions_fenced += fenced > 0;
    w->settled = true;
    return 0;
}

static int
look(struct gc *g, struct watch *w, const struct session_info *s,
     uint64_t passed, struct err *err)
{
    if (s == NULL || s->ended) {
        w->settled = true;
    } else if (s->beat != w->beat) {
        w->beat = s->beat;
        w->idle = 0;
        w->changes++;
        w->settled = w->changes >= w->alive_after;
    } else {
        w->idle += passed;
        if (w->idle >= fence_after(g) || session_is_dead(s))
            return fence(g, w, err);
    }
    return 0;
}

/* Until all are settled.  Time that passed without looking (a suspended host, a
 * store that hung for both sides) counts as one interval only. */
static int
watch_all(struct gc *g, struct watches *w, struct err *err)
{
    uint64_t last = now(g);

    for (unsigned turn = 0;; turn++) {
        uint64_t poll = turn < POLLS_FIRST ? POLL_FIRST : POLL_LATER;
        CLEANUP(session_list_done) struct session_list l = {NULL, 0};
        uint64_t passed;
        size_t left = 0;

        if (poll > fence_after(g) / 4 + 1)
            poll = fence_after(g) / 4 + 1;
        passed = now(g) - last;
        last += passed;
        if (passed > 2 * poll)
            passed = 2 * poll;
        if (session_list_read(g->r, &l, err) < 0)
            return -1;
        for (size_t i = 0; i < w->n; i++) {
            if (!w->v[i].settled &&
                look(g, &w->v[i], find_session(&l, w->v[i].sid), passed, err) <
                    0)
                return -1;
            left += !w->v[i].settled;
        }
        if (left == 0)
            return 0;
        gc_progress(g, "wait", w->n - left, w->n);
        if (gc_canceled(g, err) < 0)
            return -1;
        sleep_for(g, poll);
    }
}

/* -- other collectors -------------------------------------------------------*/

/* Of two that meet, the one with the greater id yields at once, and the other
 * one gives it the time to do so. */
int
gc_exclude_others(struct gc *g, struct err *err)
{
    CLEANUP(session_list_done) struct session_list l = {NULL, 0};
    CLEANUP(watches_done) struct watches w = {NULL, 0};

    if (MUTANT(MUTANT_GC_NO_EXCLUSION))
        return 1;
    if (session_list_read(g->r, &l, err) < 0)
        return -1;
    for (size_t i = 0; i < l.n; i++) {
        const struct session_info *s = &l.v[i];
        unsigned patience = strcmp(g->sid, s->sid) < 0 ? 3 : 1;

        if (strcmp(s->what, "gc") == 0 && !s->ended &&
            strcmp(s->sid, g->sid) != 0 && watch_one(&w, s, patience, err) < 0)
            return -1;
    }
    if (w.n > 0 && watch_all(g, &w, err) < 0)
        return -1;
    for (size_t i = 0; i < w.n; i++)
        if (w.v[i].changes >= w.v[i].alive_after)
            return 0;
    return 1;
}

/* -- the dead ---------------------------------------------------------------*/

/* Without this, what a killed backup left would stay until there is something
 * else to collect.  One heartbeat is enough here: the living are not
 * waited for. */
int
gc_fence_dead(struct gc *g, struct err *err)
{
    CLEANUP(session_list_done) struct session_list l = {NULL, 0};
    CLEANUP(watches_done) struct watches w = {NULL, 0};

    if (session_list_read(g->r, &l, err) < 0)
        return -1;
    for (size_t i = 0; i < l.n; i++)
        if (!l.v[i].ended && strcmp(l.v[i].what, "gc") != 0 &&
            watch_one(&w, &l.v[i], 1, err) < 0)
            return -1;
    return w.n > 0 ? watch_all(g, &w, err) : 0;
}

/* -- writers ----------------------------------------------------------------*/

static bool
pins_a_forgotten(const struct gc *g, const struct session_info *s)
{
    for (size_t i = 0; i < s->pins.n; i++)
        if (id_list_has(&g->forgotten, s->pins.v[i]))
            return true;
    return false;
}

/* Readers are not waited for; but one that holds what is forgotten must show
 * that it is alive, or it would hold it for ever. */
static int
watch_writers(struct gc *g, const struct session_list *l, struct watches *w,
              struct err *err)
{
    for (size_t i = 0; i < l->n; i++) {
        const struct session_info *s = &l->v[i];
        bool pin = strcmp(s->what, "pin") == 0;

        if (s->ended || strcmp(s->what, "gc") == 0 ||
            (pin && !pins_a_forgotten(g, s)))
            continue;
        if (watch_one(w, s, pin ? 1 : NEVER, err) < 0)
            return -1;
    }
    return 0;
}

int
gc_wait(struct gc *g, struct err *err)
{
    CLEANUP(session_list_done) struct session_list l = {NULL, 0};
    CLEANUP(watches_done) struct watches w = {NULL, 0};

    if (MUTANT(MUTANT_GC_NO_WAIT))
        return 0;
    if (!MUTANT(MUTANT_GC_SESSIONS_FIRST) &&
        session_list_read(g->r, &l, err) < 0)
        return -1;
    if (watch_writers(
            g, MUTANT(MUTANT_GC_SESSIONS_FIRST) ? &g->mutant_sessions : &l, &w,
            err) < 0)
        return -1;
    return w.n > 0 ? watch_all(g, &w, err) : 0;
}
