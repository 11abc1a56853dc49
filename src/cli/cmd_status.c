#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "cli.h"
#include "clock.h"
#include "config.h"
#include "err.h"
#include "jv.h"
#include "status.h"

#define MAX_AGE_NS (UINT64_C(26) * 3600 * 1000000000)

static const struct opt opts[] = {
    OPT(repo, 0, "DIR", opt_set_text,
        "only this repository (TIDEMARK_REPO, or all of the\nconfiguration)"),
    OPT_NAMED("max-age", max_age, "TIME", opt_set_duration,
              "how old the last good point may be (26h)"),
    OPT(prometheus, 0, "FILE", opt_set_text,
        "also write the figures there, for node_exporter"),
    OPT_END,
};

struct status {
    struct cli *cli;
    const struct conf *conf; /* or NULL */
    bool plain; /* a repository of which the configuration says nothing */
    struct jv *machines, *repositories;
    enum health worst;
    char *note; /* of the first machine that is worst */
    int64_t now_ns;
};

static void
status_done(struct status *s)
{
    jv_free(s->machines);
    jv_free(s->repositories);
    free(s->note);
}

static void
take_health(struct status *s, enum health h, const char *name, const char *text)
{
    if (h <= s->worst)
        return;
    s->worst = h;
    free(s->note);
    if (asprintf(&s->note, "%s: %s", name, text) < 0)
        s->note = NULL;
}

/* -- machines ---------------------------------------------------------------*/

static bool
wanted(const struct opts *o, const char *name)
{
    for (size_t i = 0; i < o->operands.n; i++)
        if (strcmp(o->operands.v[i], name) == 0)
            return true;
    return o->operands.n == 0;
}

static uint64_t
max_age(const struct status *s, const struct conf_section *machine)
{
    if (s->cli->o.max_age != 0)
        return s->cli->o.max_age;
    if (machine == NULL && s->conf != NULL)
        machine = conf_at(s->conf, CONF_DEFAULTS, 0);
    return config_duration_ns(machine, "max-age", MAX_AGE_NS);
}

/* `m`: what the repository has of it, or NULL.  Machines that nobody backs up any
 * more are shown and alarm nobody, unless somebody asks for them, or nothing says
 * which those are. */
static int
add_machine(struct status *s, const char *name, const char *repo,
            const struct conf_section *machine, const struct jv *m,
            const char *trouble, struct err *err)
{
    CLEANUP_JV struct jv *o = jv_object();
    enum health h = HEALTH_CRITICAL;

    for (void *it = jv_first(m); it != NULL; it = jv_next(m, it))
        (void)jv_set(o, jv_key(it), jv_ref(jv_value(it)));
    (void)jv_set_str(o, "machine", name);
    (void)jv_set_str(o, "repository", repo);
    (void)jv_set_bool(o, "configured", machine != NULL);
    if (trouble == NULL) {
        h = status_judge(o, m, s->now_ns, max_age(s, machine));
    } else {
        (void)jv_set_str(o, "state", health_name(h));
        (void)jv_set_str(o, "text", trouble);
    }
    if (machine == NULL && !s->plain && trouble == NULL &&
        s->cli->o.operands.n == 0) {
        h = HEALTH_OK;
        (void)jv_set_str(o, "state", health_name(h));
    }
    take_health(s, h, name, report_str(o, "text", ""));
    if (jv_add(s->machines, jv_ref(o)) != 0)
        return err_set_errno(err, ENOMEM, "report");
    return 0;
}

static const struct jv *
find_machine(const struct jv *result, const char *name)
{
    const struct jv *list = jv_get(result, "machines");

    for (size_t i = 0; i < jv_size(list); i++)
        if (strcmp(report_str(jv_at(list, i), "machine", ""), name) == 0)
            return jv_at(list, i);
    return NULL;
}

/* Those of the configuration that are backed up into this repository. */
static int
add_configured(struct status *s, const struct conf_section *repo,
               const char *name, const struct jv *result, const char *trouble,
               struct err *err)
{
    const struct conf_section *m;

    if (s->plain)
        return 0;
    for (size_t i = 0; (m = conf_at(s->conf, CONF_MACHINE, i)) != NULL; i++) {
        if (config_repository_of(s->conf, m) != repo ||
            !wanted(&s->cli->o, conf_name(m)))
            continue;
        if (add_machine(s, conf_name(m), name, m,
                        find_machine(result, config_point_name(m)), trouble,
                        err) != 0)
            return -1;
    }
    return 0;
}

static bool
is_configured(const struct status *s, const struct conf_section *repo,
              const char *point_name)
{
    const struct conf_section *m;

    if (s->plain)
        return false;
    for (size_t i = 0; (m = conf_at(s->conf, CONF_MACHINE, i)) != NULL; i++)
        if (config_repository_of(s->conf, m) == repo &&
            strcmp(config_point_name(m), point_name) == 0)
            return true;
    return false;
}

static int
add_others(struct status *s, const struct conf_section *repo, const char *name,
           const struct jv *result, struct err *err)
{
    const struct jv *list = jv_get(result, "machines");

    for (size_t i = 0; i < jv_size(list); i++) {
        const char *machine = report_str(jv_at(list, i), "machine", "");

        if (!is_configured(s, repo, machine) && wanted(&s->cli->o, machine) &&
            add_machine(s, machine, name, NULL, jv_at(list, i), NULL, err) != 0)
            return -1;
    }
    return 0;
}

/* -- repositories -----------------------------------------------------------*/

/* One that cannot be read is no reason to say nothing of the others. */
static int
look(struct status *s, const struct conf_section *repo, const char *name,
     const char *path, struct err *err)
{
    CLEANUP_JV struct jv *result = NULL;
    struct err why = ERR_INIT;
    const char *trouble = NULL;

    if (job_status(path, &s->cli->hooks, &result, &why) != 0) {
        if (why.code == ERR_CANCELED)
            return err_copy(err, &why);
        trouble = why.msg;
        out_complain(&s->cli->out, trouble);
        take_health(s, HEALTH_CRITICAL, name, trouble);
    }
    if (jv_size(jv_get(result, "problems")) > 0)
        take_health(s, HEALTH_WARNING, name,
                    "there are points that cannot be "
                    "read");
    out_warnings(&s->cli->out, jv_get(result, "problems"));
    if (jv_add(s->repositories,
               jv_build("{s:s, s:s, s:s, s:s}", "repository", name, "path",
                        path, "id", report_str(result, "repository", ""),
                        "error", trouble != NULL ? trouble : "")) != 0)
        return err_set_errno(err, ENOMEM, "report");
    if (add_configured(s, repo, name, result, trouble, err) != 0)
        return -1;
    return add_others(s, repo, name, result, err);
}

/* Is any machine that was asked for kept there, or perhaps there? */
static bool
concerns(const struct status *s, const struct conf_section *repo)
{
    const struct opt_list *l = &s->cli->o.operands;

    for (size_t i = 0; i < l->n; i++) {
        const struct conf_section *m =
            conf_find(s->conf, CONF_MACHINE, l->v[i]);

        if (m == NULL || config_repository_of(s->conf, m) == repo)
            return true;
    }
    return l->n == 0;
}

/* All of the configuration, or the one that was named. */
static int
look_at_all(struct status *s, struct err *err)
{
    const struct conf_section *repo;
    const char *path;
    bool any = false;

    for (size_t i = 0; s->cli->o.repo == NULL && s->conf != NULL &&
                       (repo = conf_at(s->conf, CONF_REPOSITORY, i)) != NULL;
         i++) {
        any = true;
        if (!concerns(s, repo))
            continue;
        config_unlock(s->cli, repo);
        if (look(s, repo, conf_name(repo), conf_get(repo, "path"), err) != 0)
            return -1;
    }
    if (any)
        return 0;
    if (cli_repo(s->cli, &path, err) != 0)
        return -1;
    repo = s->conf != NULL && s->cli->o.repo != NULL
               ? conf_find(s->conf, CONF_REPOSITORY, s->cli->o.repo)
               : NULL;
    s->plain = s->conf == NULL || (s->cli->o.repo != NULL && repo == NULL);
    return look(s, repo, repo != NULL ? conf_name(repo) : path, path, err);
}

/* Nobody knows it: the question was about something, so "ok" is no answer. */
static int
add_unknown(struct status *s, struct err *err)
{
    const struct opt_list *l = &s->cli->o.operands;

    for (size_t i = 0; i < l->n; i++) {
        bool found = false;

        for (size_t k = 0; k < jv_size(s->machines); k++)
            found |= strcmp(report_str(jv_at(s->machines, k), "machine", ""),
                            l->v[i]) == 0;
        if (!found &&
            add_machine(s, l->v[i], "", NULL, NULL,
                        "neither in the configuration nor in a repository",
                        err) != 0)
            return -1;
    }
    return 0;
}

/* -- telling ----------------------------------------------------------------*/

static int
report(struct status *s, struct err *err)
{
    static const char *const words[] = {"OK", "WARNING", "CRITICAL"};
    struct out *o = &s->cli->out;

    out_line(o, "TIDEMARK %s - %s", words[s->worst],
             s->note != NULL ? s->note : "all machines have a good point");
    return o->quiet ? 0 : status_table(o, s->machines, s->plain, err);
}

static int
write_prometheus(struct status *s, const struct jv *status, struct err *err)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;

    if (s->cli->o.prometheus == NULL)
        return 0;
    if (prometheus_text(status, s->now_ns, &b, err) != 0)
        return -1;
    return prometheus_write(s->cli->o.prometheus, b.data, b.len, err);
}

static int
conclude(struct status *s, struct err *err)
{
    static const int statuses[] = {EXIT_DONE, EXIT_WARNING, EXIT_FAILED};
    CLEANUP_JV struct jv *o =
        jv_build("{s:s, s:s, s:O, s:O}", "state", health_name(s->worst), "text",
                 s->note != NULL ? s->note : "", "machines", s->machines,
                 "repositories", s->repositories);

    if (o == NULL)
        return err_set_errno(err, ENOMEM, "report");
    if (write_prometheus(s, o, err) != 0)
        return -1;
    if ((s->cli->out.json ? out_json(&s->cli->out, o, err) : report(s, err)) !=
        0)
        return -1;
    return statuses[s->worst];
}

static int
run(struct cli *c, struct err *err)
{
    CLEANUP(status_done)
    struct status s = {.cli = c,
                       .machines = jv_array(),
                       .repositories = jv_array(),
                       .now_ns = clock_wall_ns()};

    if (config_find(c, &s.conf, err) != 0 || look_at_all(&s, err) != 0 ||
        add_unknown(&s, err) != 0)
        return -1;
    return conclude(&s, err);
}

const struct command command_status = {
    .id = CMD_STATUS,
    .name = "status",
    .operand_name = "MACHINE...",
    .operand = OPERAND_OPTIONAL,
    .max_operands = OPTS_LIST_MAX,
    .summary = "how old the last good points are",
    .about =
        "Tells of all machines of the configuration and the repositories (or "
        "of each\n"
        "MACHINE) how old the last good point is, whether the next backup "
        "can be\n"
        "incremental, and when its data was last verified.  Ends with 0, 1 "
        "(too old)\n"
        "or 5 (twice as old as it should be, or no good point).",
    .opts = opts,
    .signals = true,
    .run = run,
};
