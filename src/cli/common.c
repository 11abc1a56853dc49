/* What several commands need to turn options into what a job wants. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "err.h"
#include "jv.h"
#include "recorder.h"

static const char *
environment(const char *name)
{
    const char *v = getenv(name);

    return v != NULL && *v != '\0' ? v : NULL;
}

int
cli_repo(struct cli *c, const char **ret, struct err *err)
{
    const char *repo = c->o.repo;

    if (repo == NULL)
        repo = environment("TIDEMARK_REPO");
    if (repo == NULL)
        return err_set(err, ERR_USAGE,
                       "%s: no repository given: use --repo DIR or set "
                       "TIDEMARK_REPO",
                       c->command->name);
    *ret = repo;
    return 0;
}

/* Two runs see each other's lock only if they look in the same place, so there
 * is no guessing of a directory that might differ between them. */
static int
run_dir(struct cli *c, struct err *err)
{
    const char *dir = environment("TIDEMARK_RUN_DIR");
    const char *base = environment("XDG_RUNTIME_DIR");
    int n;

    if (dir != NULL)
        n = snprintf(c->run_dir, sizeof c->run_dir, "%s", dir);
    else if (geteuid() == 0)
        n = snprintf(c->run_dir, sizeof c->run_dir, "/run/tidemark");
    else if (base != NULL)
        n = snprintf(c->run_dir, sizeof c->run_dir, "%s/tidemark", base);
    else
        return err_set(err, ERR_USAGE,
                       "no directory for locks: set TIDEMARK_RUN_DIR to a "
                       "private directory, the same for every run");
    if (n < 0 || (size_t)n >= sizeof c->run_dir)
        return err_set(err, ERR_USAGE,
                       "the path of the run directory is too long");
    return 0;
}

int
cli_source(struct cli *c, struct source_opts *ret, struct err *err)
{
    if (run_dir(c, err) != 0)
        return err_wrap(err, "%s", c->command->name);
    ret->run_dir = c->run_dir;
    ret->quiesce = c->o.quiesce;
    ret->scratch = c->o.scratch;
    if (ret->scratch == NULL)
        ret->scratch = environment("TIDEMARK_SCRATCH");
    ret->scratch_max = c->o.scratch_max;
    return 0;
}

int
cli_status(const struct cli *c)
{
    return c->out.n_warnings > 0 ? EXIT_WARNING : EXIT_DONE;
}

int
cli_event_result(struct cli *c, struct jv *result, const char *event,
                 struct err *err)
{
    (void)jv_set_str(result, "event", event);
    return out_json(&c->out, result, err);
}

void
cli_remember(struct cli *c, const struct jv *result)
{
    recorder_result(c, result);
}

const char *const *
cli_list(const struct opt_list *l)
{
    return l->n > 0 ? l->v : NULL;
}
