/* What several commands need to turn options into what a job wants. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "config.h"
#include "err.h"
#include "jv.h"
#include "recorder.h"

static const char *
environment(const char *name)
{
    const char *v = getenv(name);

    return v != NULL && *v != '\0' ? v : NULL;
}

/* What the configuration says: of the machine, of all, or the only one. */
static int
configured_repo(struct cli *c, const char **ret, struct err *err)
{
    const struct conf_section *s = c->machine, *repo = NULL;
    const struct conf *conf;

    *ret = NULL;
    if (config_find(c, &conf, err) != 0)
        return -1;
    if (conf == NULL)
        return 0;
    if (s == NULL && c->o.operand != NULL)
        s = config_machine_named(conf, c->o.operand);
    repo = config_repository_of(conf, s);
    if (repo == NULL)
        return 0;
    config_unlock(c, repo);
    *ret = conf_get(repo, "path");
    return 0;
}

static int
find_repo(struct cli *c, const char **ret, struct err *err)
{
    const char *repo = c->o.repo, *env = environment("TIDEMARK_REPO");

    if (repo != NULL)
        return config_repository(c, repo, ret, err);
    if (c->machine != NULL || opts_given(&c->o, "config") || env == NULL) {
        if (configured_repo(c, &repo, err) != 0)
            return -1;
        if (repo != NULL) {
            *ret = repo;
            return 0;
        }
    }
    if (env == NULL)
        return err_set(err, ERR_USAGE,
                       "%s: no repository given: use --repo DIR or set "
                       "TIDEMARK_REPO",
                       c->command->name);
    return config_repository(c, env, ret, err);
}

int
cli_repo(struct cli *c, const char **ret, struct err *err)
{
    if (find_repo(c, ret, err) != 0)
        return -1;
    recorder_about(c, NULL, *ret);
    return 0;
}

/* Two runs see each other's lock only if they look in the same place, so there
 * is no guessing of a directory that might differ between them. */
int
cli_run_dir(struct cli *c, struct err *err)
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
cli_state_dir(char *buf, size_t len, struct err *err)
{
    const char *dir = environment("TIDEMARK_STATE");
    const char *state = environment("XDG_STATE_HOME");
    const char *home = environment("HOME");
    int n;

    if (dir != NULL)
        n = snprintf(buf, len, "%s", dir);
    else if (geteuid() == 0)
        n = snprintf(buf, len, "/var/lib/tidemark");
    else if (state != NULL)
        n = snprintf(buf, len, "%s/tidemark", state);
    else
        n = snprintf(buf, len, "%s/.local/state/tidemark",
                     home != NULL ? home : "");
    if (n < 0 || (size_t)n >= len)
        return err_set(err, ERR_USAGE,
                       "the path of the state directory is too long");
    return 0;
}

int
cli_source(struct cli *c, struct source_opts *ret, struct err *err)
{
    if (cli_run_dir(c, err) != 0)
        return err_wrap(err, "%s", c->command->name);
    ret->run_dir = c->run_dir;
    ret->offline = c->o.offline;
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
