/* Forgetting and collecting. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "driver.h"
#include "err.h"
#include "repo.h"

DEFINE_CLEANUP(struct repo *, repo_close)

int
driver_forget(const struct driver_opts *o, char **ids, int n)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    struct err err = ERR_INIT;

    if (repo_open(o->repo, o->ops, &r, &err) < 0)
        return driver_error(&err);
    for (int i = 0; i < n; i++) {
        if (repo_forget(r, ids[i], "test", &err) < 0)
            return driver_error(&err);
        say("forgotten %s", ids[i]);
    }
    return DRIVER_OK;
}

/* Half an hour of watching in no time. */
static uint64_t jumping_clock;

static uint64_t
jumping_now(void *arg)
{
    (void)arg;
    return jumping_clock;
}

static void
jumping_sleep(void *arg, uint64_t ns)
{
    (void)arg;
    jumping_clock += ns;
}

static int
collect(const struct driver_opts *o, struct repo *r, struct repo_gc_report *rep,
        struct err *err)
{
    struct repo_gc_opts opts = {.fence_after = o->fence_ms * 1000000};

    if (o->fence_ms == 0) {
        opts.now_ns = jumping_now;
        opts.sleep_ns = jumping_sleep;
    }
    return repo_gc(r, &opts, rep, err);
}

int
driver_gc(const struct driver_opts *o)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    struct repo_gc_report rep = {0};
    struct err err = ERR_INIT;

    if (repo_open(o->repo, o->ops, &r, &err) < 0 ||
        collect(o, r, &rep, &err) < 0)
        return driver_error(&err);
    say("collected points=%" PRIu64 " packs=%" PRIu64 " rewritten=%" PRIu64
        " leftovers=%" PRIu64 " fenced=%" PRIu64 " resumed=%" PRIu64
        " other=%d",
        rep.points_removed, rep.packs_removed, rep.packs_rewritten,
        rep.leftovers, rep.sessions_fenced, rep.resumed, rep.other_runs);
    return DRIVER_OK;
}
