/* job/prune.c - removing points: by rules, or by name.
 *
 * A point that is forgotten can still be restored by whoever pinned it before,
 * and by nobody else; its chunks stay until a collection.  All verdicts are made
 * before the first point is forgotten, so that a machine with a clock that
 * cannot be right stops the run before it has removed anything.
 */
#include "job.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "common.h"
#include "err.h"
#include "jv.h"
#include "repo.h"

struct prune {
    const struct job_prune_opts *opts;
    const struct job_hooks *hooks;
    struct repo *repo;
    struct point_list list;    /* of all machines */
    struct point_list partial; /* of unfinished runs */
    /* by point of the list */
    bool *named;        /* by its own name, or by its machine's */
    bool *damaged;      /* as far as that was looked for */
    unsigned *verdicts; /* as retention_decide() gives them; 0: goes */
    struct jv *machines;
    struct jv *problems;
    uint64_t n_kept, n_removed;
};

/* One machine's points: a part of the list. */
struct part {
    size_t first, n;
};

static const char *
machine_of(const struct prune *p, struct part m)
{
    return p->list.v[m.first]->machine;
}

static struct part
next_machine(const struct prune *p, size_t first)
{
    struct part m = {first, 0};

    while (first + m.n < p->list.n &&
           strcmp(p->list.v[first + m.n]->machine, machine_of(p, m)) == 0)
        m.n++;
    return m;
}

/* -- what is named ----------------------------------------------------------*/

static int
name_point(struct prune *p, const char *name, struct err *err)
{
    const struct point *found;

    if (!p->opts->remove)
        return err_set(err, ERR_USAGE,
                       "'%.300s' names a point; rules are for machines: to "
                       "remove just this point, say so with --remove",
                       name);
    if (point_find(&p->list, name, &found, err) < 0)
        return -1;
    for (size_t i = 0; i < p->list.n; i++)
        p->named[i] |= p->list.v[i] == found;
    return 0;
}

/* Of a machine whose first backup has not ended there is no more than that. */
static bool
only_partial(const struct prune *p, const char *name)
{
    bool any = false;

    for (size_t i = 0; i < p->list.n; i++)
        if (strcmp(p->list.v[i]->machine, name) == 0)
            return false;
    for (size_t i = 0; i < p->partial.n; i++)
        any |= strcmp(p->partial.v[i]->machine, name) == 0;
    return any;
}

static int
name_machine(struct prune *p, const char *name, struct err *err)
{
    const struct point *found;

    if (only_partial(p, name))
        return 0;
    /* For the words when there is none. */
    if (point_find(&p->list, name, &found, err) < 0)
        return -1;
    for (size_t i = 0; i < p->list.n; i++)
        p->named[i] |= strcmp(p->list.v[i]->machine, name) == 0;
    return 0;
}

static int
find_named(struct prune *p, struct err *err)
{
    const char *const *name = p->opts->names;

    if (name == NULL)
        memset(p->named, true, p->list.n * sizeof *p->named);
    for (; name != NULL && *name != NULL; name++) {
        int rc = strchr(*name, '@') != NULL ? name_point(p, *name, err)
                                            : name_machine(p, *name, err);

        if (rc < 0)
            return -1;
    }
    return 0;
}

/* -- verdicts ---------------------------------------------------------------*/

#define NOT_NAMED RETAIN_BIT(RETAIN_N) /* stays, and no rule says why */

/* Without any known damage there is nothing to look for. */
static int
is_damaged(struct prune *p, size_t i, struct err *err)
{
    /* A bool that somebody else sets: the atomic's representation is a bool's,
     * and repo reads it as such. */
    const void *cancel = p->hooks != NULL ? p->hooks->cancel : NULL;
    int rc;

    if (!repo_damage_known(p->repo))
        return 0;
    rc = repo_point_damaged(p->repo, p->list.v[i], cancel, NULL, err);
    p->damaged[i] = rc > 0;
    return rc;
}

/* By rules.  The newest point first until one is good: older ones do not matter
 * then. */
static int
decide_by_rules(struct prune *p, struct part m, struct err *err)
{
    int rc = p->opts->keep.remove_last ? 0 : 1;

    for (size_t i = m.first + m.n; rc > 0 && i-- > m.first;)
        rc = is_damaged(p, i, err);
    if (rc < 0)
        return -1;
    return retention_decide(&p->opts->keep, p->list.v + m.first, m.n,
                            p->damaged + m.first, clock_wall_ns(),
                            p->verdicts + m.first, err);
}

/* 1 when the machine has a good point after the named ones are gone, or had none
 * before and has any. */
static int
good_stays(struct prune *p, struct part m, struct err *err)
{
    bool any = false;

    for (int named = 0; named <= 1; named++) {
        for (size_t i = m.first + m.n; i-- > m.first;) {
            int rc = 1;

            any |= !p->named[i];
            if (p->named[i] == (named == 1))
                rc = is_damaged(p, i, err);
            if (rc < 0)
                return -1;
            if (rc == 0)
                return named == 0;
        }
    }
    return any;
}

static int
decide_by_name(struct prune *p, struct part m, struct err *err)
{
    int good = p->opts->keep.remove_last ? 1 : good_stays(p, m, err);

    if (good < 0)
        return -1;
    if (good == 0)
        return err_set(
            err, ERR_USAGE,
            "no good point of '%s' would be left; to remove the last "
            "one all the same, give --remove-last, too",
            machine_of(p, m));
    for (size_t i = m.first; i < m.first + m.n; i++)
        p->verdicts[i] = p->named[i] ? 0 : NOT_NAMED;
    return 0;
}

static bool
concerned(const struct prune *p, struct part m)
{
    for (size_t i = m.first; i < m.first + m.n; i++)
        if (p->named[i])
            return true;
    return false;
}

static int
decide_all(struct prune *p, struct err *err)
{
    struct part m;

    for (size_t i = 0; i < p->list.n; i = m.first + m.n) {
        int rc = 0;

        m = next_machine(p, i);
        if (concerned(p, m))
            rc = p->opts->remove ? decide_by_name(p, m, err)
                                 : decide_by_rules(p, m, err);
        if (rc < 0)
            return err_wrap(err, "nothing was removed");
    }
    return 0;
}

/* -- doing it ---------------------------------------------------------------*/

static int
forget_all(struct prune *p, struct err *err)
{
    const char *why = p->opts->remove ? "removed by name" : "no rule kept it";
    struct part m;
    uint64_t n = 0;

    for (size_t i = 0; i < p->list.n; i = m.first + m.n) {
        m = next_machine(p, i);
        for (size_t k = i; concerned(p, m) && k < i + m.n; k++) {
            const struct point *point = p->list.v[k];
            int rc = 0;

            if (p->verdicts[k] != 0)
                continue;
            if (hooks_canceled(p->hooks))
                rc = err_set(err, ERR_CANCELED, "stopped on request");
            else
                rc = repo_forget(p->repo, point->id, why, err);
            if (rc < 0)
                return err_wrap(
                    err, "point '%s@%.8s' (%" PRIu64 " were removed before it)",
                    point->machine, point->id, n);
            n++;
        }
    }
    return 0;
}

/* With a machine go its unfinished runs. */
static int
forget_partial(struct prune *p, struct err *err)
{
    for (size_t i = 0; p->opts->remove && i < p->partial.n; i++) {
        const struct point *point = p->partial.v[i];

        if (name_in(p->opts->names, point->machine) &&
            repo_forget(p->repo, point->id, "removed with its machine", err) <
                0)
            return err_wrap(err, "unfinished run '%s@%.8s'", point->machine,
                            point->id);
    }
    return 0;
}

/* -- telling it -------------------------------------------------------------*/

static struct jv *
rules_json(const struct prune *p, size_t i)
{
    CLEANUP_JV struct jv *a = jv_array();
    char text[RETENTION_TEXT_MAX];

    for (int k = 0; k < RETAIN_N; k++) {
        enum retention_rule rule = (enum retention_rule)k;

        if ((p->verdicts[i] & RETAIN_BIT(k)) == 0)
            continue;
        (void)retention_text(&p->opts->keep, rule, p->list.v[i], text);
        if (jv_add(a, jv_string(text)) < 0)
            return NULL;
    }
    return TAKE_PTR(a);
}

static struct jv *
verdict_json(const struct prune *p, size_t i)
{
    CLEANUP_JV struct jv *o = point_json_short(p->list.v[i]);
    const char *action = p->verdicts[i] != 0 ? "keep" : "remove";

    if (jv_set_str(o, "action", action) < 0 ||
        jv_set(o, "rules", rules_json(p, i)) < 0 ||
        (p->damaged[i] && jv_set_bool(o, "damaged", true) < 0))
        return NULL;
    return TAKE_PTR(o);
}

static int
tell_machine(struct prune *p, struct part m)
{
    CLEANUP_JV struct jv *points = jv_array();
    int64_t kept = 0;

    for (size_t i = m.first; i < m.first + m.n; i++) {
        if (jv_add(points, verdict_json(p, i)) < 0)
            return -1;
        kept += p->verdicts[i] != 0;
    }
    p->n_kept += (uint64_t)kept;
    p->n_removed += m.n - (uint64_t)kept;
    return jv_add(p->machines,
                  jv_build("{s:s, s:I, s:I, s:o}", "machine", machine_of(p, m),
                           "kept", kept, "removed", (int64_t)m.n - kept,
                           "points", TAKE_PTR(points)));
}

static int
tell(struct prune *p, struct jv **ret, struct err *err)
{
    struct part m;
    struct jv *o;
    int rc = 0;

    p->machines = jv_array();
    for (size_t i = 0; rc == 0 && i < p->list.n; i = m.first + m.n) {
        m = next_machine(p, i);
        if (concerned(p, m))
            rc = tell_machine(p, m);
    }
    if (p->problems == NULL)
        p->problems = jv_array();
    o = jv_build("{s:s, s:b, s:I, s:I, s:o, s:o}", "repository",
                 repo_id(p->repo), "dry_run", (int)p->opts->dry_run, "kept",
                 (int64_t)p->n_kept, "removed", (int64_t)p->n_removed,
                 "machines", TAKE_PTR(p->machines), "problems",
                 TAKE_PTR(p->problems));
    if (o == NULL || rc < 0) {
        jv_free(o);
        return err_set_errno(err, ENOMEM, "report");
    }
    *ret = o;
    return 0;
}

static int
prune(struct prune *p, struct jv **ret, struct err *err)
{
    size_t n;

    /* A commit object that cannot be read is a point that is not seen, so its
     * place is taken by another that stays. */
    if (repo_points_all(p->repo, NULL, &p->list, &p->problems, err) < 0 ||
        point_list_split(&p->list, &p->partial, err) < 0)
        return -1;
    n = p->list.n + 1;
    p->named = calloc(n, sizeof *p->named);
    p->damaged = calloc(n, sizeof *p->damaged);
    p->verdicts = calloc(n, sizeof *p->verdicts);
    if (p->named == NULL || p->damaged == NULL || p->verdicts == NULL)
        return err_set_errno(err, ENOMEM, "%zu points", n);
    if (find_named(p, err) < 0 || decide_all(p, err) < 0 ||
        tell(p, ret, err) < 0)
        return -1;
    if (!p->opts->dry_run &&
        (forget_all(p, err) < 0 || forget_partial(p, err) < 0)) {
        jv_free(TAKE_PTR(*ret));
        return -1;
    }
    return 0;
}

int
job_prune(const struct job_prune_opts *opts, const struct job_hooks *hooks,
          struct jv **ret_result, struct err *err)
{
    struct prune p = {.opts = opts, .hooks = hooks};
    struct jv *result = NULL;
    int rc = 0;

    if (!opts->remove && retention_check(&opts->keep, err) < 0)
        return -1;
    if (opts->remove && retention_any(&opts->keep))
        return err_set(err, ERR_USAGE,
                       "--remove removes what is named; --keep rules do not go "
                       "with it");
    if (opts->remove && opts->names == NULL)
        return err_set(err, ERR_USAGE, "--remove: which point? NAME@REV");
    if (open_repo(opts->repo, &p.repo, err) < 0)
        return -1;
    rc = prune(&p, &result, err);
    if (rc < 0)
        (void)err_side(err, ERR_SIDE_REPO);
    else
        *ret_result = result;
    point_list_done(&p.list);
    point_list_done(&p.partial);
    free(p.named);
    free(p.damaged);
    free(p.verdicts);
    jv_free(p.machines);
    jv_free(p.problems);
    repo_close(p.repo);
    return rc;
}
