/* After the backups: retention, collection and proof, as the configuration
 * says.  Only what a machine's own new point has earned: a machine whose backup
 * fails keeps all points that it has. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "cli.h"
#include "clock.h"
#include "err.h"
#include "run.h"

#define WEEK_NS (INT64_C(7) * 86400 * 1000000000)
#define SLACK_NS (INT64_C(3600) * 1000000000) /* timers are never exact */

static const char *const rules[] = {
    "keep-last",    "keep-hourly", "keep-daily",  "keep-weekly",
    "keep-monthly", "keep-yearly", "keep-within", "keep-tag"};

static bool
has_rules(const struct conf_section *s)
{
    for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
        if (conf_get(s, rules[i]) != NULL)
            return true;
    return false;
}

static bool
committed(const struct run *r, size_t i)
{
    return run_outcome(&r->backups[i]) <= OUTCOME_WARNING;
}

static bool
used_by_success(const struct run *r, const struct conf_section *repo)
{
    for (size_t i = 0; i < r->n; i++)
        if (committed(r, i) &&
            config_repository_of(r->conf, r->machines[i]) == repo)
            return true;
    return false;
}

/* A key of a repository, or of [defaults]. */
static const char *
setting(const struct run *r, const struct conf_section *repo, const char *key)
{
    const char *value = conf_get(repo, key);

    return value != NULL ? value
                         : conf_get(conf_at(r->conf, CONF_DEFAULTS, 0), key);
}

/* -- once a week ------------------------------------------------------------*/

/* An empty file whose time says when the last collection ended. */
static int
stamp_path(const struct conf_section *repo, char *buf, size_t len,
           struct err *err)
{
    char dir[PATH_MAX];
    int n;

    if (cli_state_dir(dir, sizeof dir, err) != 0)
        return -1;
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return err_set_errno(err, errno, "make the state directory '%s'", dir);
    n = snprintf(buf, len, "%s/gc-%s", dir, conf_name(repo));
    if (n < 0 || (size_t)n >= len)
        return err_set(err, ERR_USAGE,
                       "the path of the state directory is too "
                       "long");
    return 0;
}

/* 1: a week has passed (or a clock was wrong), 0: not yet, -1: cannot say. */
static int
week_passed(const struct conf_section *repo, struct err *err)
{
    char path[PATH_MAX];
    struct stat st;
    int64_t age;

    if (stamp_path(repo, path, sizeof path, err) != 0)
        return -1;
    if (stat(path, &st) < 0)
        return errno == ENOENT ? 1 : err_set_errno(err, errno, "'%s'", path);
    age = clock_wall_ns() - (int64_t)st.st_mtim.tv_sec * 1000000000;
    return age < 0 || age + SLACK_NS >= WEEK_NS;
}

static int
note_gc(const struct conf_section *repo, struct err *err)
{
    CLEANUP_CLOSE int fd = -1;
    char path[PATH_MAX];

    if (stamp_path(repo, path, sizeof path, err) != 0)
        return -1;
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || futimens(fd, NULL) < 0)
        return err_set_errno(err, errno, "note the collection in '%s'", path);
    return 0;
}

void
run_note_chores(struct run *r)
{
    for (size_t i = 0; i < r->n_chores; i++) {
        const struct task *t = &r->chores[i];
        struct err err = ERR_INIT;

        if (strcmp(t->kind, "gc") == 0 && t->state == TASK_ENDED &&
            t->status == EXIT_DONE &&
            note_gc(conf_find(r->conf, CONF_REPOSITORY, t->label), &err) != 0)
            out_warning(&r->cli->out, err.msg);
    }
}

/* -- the list ---------------------------------------------------------------*/

static struct task *
add(struct run *r, const char *kind, const char *label)
{
    struct task *t = &r->chores[r->n_chores++];
    size_t n = 0;

    *t = (struct task){
        .kind = kind, .label = label, .timeout_ms = run_timeout(r, NULL)};
    t->argv[n++] = kind;
    t->argv[n++] = "--json";
    t->argv[n++] = "--config";
    t->argv[n++] = r->config;
    return t;
}

static void
append(struct task *t, const char *word)
{
    size_t n = 0;

    while (t->argv[n] != NULL)
        n++;
    if (n < TASK_ARGS_MAX)
        t->argv[n] = word;
}

static void
add_on(struct run *r, const char *kind, const struct conf_section *repo,
       const char *option, const char *value)
{
    struct task *t = add(r, kind, conf_name(repo));

    append(t, "--repo");
    append(t, conf_name(repo));
    if (option != NULL) {
        append(t, option);
        append(t, value);
    }
}

static bool
wants_gc(struct run *r, const struct conf_section *repo)
{
    const char *gc = setting(r, repo, "gc");
    struct err err = ERR_INIT;
    int weekly = 0;

    if (gc == NULL || strcmp(gc, "never") == 0)
        return false;
    if (strcmp(gc, "after-run") == 0)
        return true;
    weekly = week_passed(repo, &err);
    if (weekly < 0) {
        (void)err_wrap(&err, "no collection: when the last one was is not "
                             "known");
        out_warning(&r->cli->out, err.msg);
    }
    return weekly > 0;
}

int
run_plan_chores(struct run *r, struct err *err)
{
    const struct conf_section *repo;
    size_t n_repos = 0;

    while (conf_at(r->conf, CONF_REPOSITORY, n_repos) != NULL)
        n_repos++;
    r->chores = calloc(r->n + 2 * n_repos + 1, sizeof *r->chores);
    if (r->chores == NULL)
        return err_set_errno(err, ENOMEM, "what follows the backups");
    for (size_t i = 0; i < r->n; i++)
        if (committed(r, i) && has_rules(r->machines[i]))
            append(add(r, "prune", conf_name(r->machines[i])),
                   conf_name(r->machines[i]));
    for (size_t i = 0; i < n_repos; i++) {
        repo = conf_at(r->conf, CONF_REPOSITORY, i);
        if (used_by_success(r, repo) && wants_gc(r, repo))
            add_on(r, "gc", repo, NULL, NULL);
    }
    for (size_t i = 0; i < n_repos; i++) {
        repo = conf_at(r->conf, CONF_REPOSITORY, i);
        if (used_by_success(r, repo) && setting(r, repo, "verify") != NULL)
            add_on(r, "verify", repo, "--sample", setting(r, repo, "verify"));
    }
    return 0;
}
