/* A backup between the hooks of its machine. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "cli.h"
#include "config.h"
#include "err.h"
#include "hook.h"
#include "jv.h"

#define TIMEOUT_NS (UINT64_C(600) * 1000000000)
#define NS_PER_MS 1000000u
/* What is being stopped (a shutdown, perhaps) does not wait for ever for `after`. */
#define STOPPING_MS 30000u
#define VARS_MAX 8

/* The variables of a hook; texts are owned. */
struct vars {
    char *v[VARS_MAX + 1];
    size_t n;
    bool failed;
};

static void
vars_done(struct vars *v)
{
    for (size_t i = 0; i < v->n; i++)
        free(v->v[i]);
}

static void __attribute__((format(printf, 2, 3)))
add(struct vars *v, const char *fmt, ...)
{
    va_list ap;

    if (v->n == VARS_MAX || v->failed)
        return;
    va_start(ap, fmt);
    if (vasprintf(&v->v[v->n], fmt, ap) < 0) {
        v->v[v->n] = NULL;
        v->failed = true;
    } else {
        v->n++;
    }
    va_end(ap);
}

static int
run_hook(struct cli *c, const char *what, struct vars *v, uint64_t timeout_ms,
         const atomic_bool *cancel, struct err *err)
{
    struct hook h = {.what = what,
                     .command = conf_get(c->machine, what),
                     .env = (const char *const *)v->v,
                     .timeout_ms = timeout_ms,
                     .cancel = cancel};

    add(v, "TIDEMARK_HOOK=%s", what);
    if (v->failed)
        return err_set_errno(err, ENOMEM, "hook '%s'", what);
    meter_clear(&c->out.meter);
    (void)out_flush(&c->out, NULL); /* nothing of ours is left in the child */
    return hook_run(&h, err);
}

static uint64_t
timeout_of(const struct cli *c)
{
    return config_duration_ns(c->machine, "hook-timeout", TIMEOUT_NS) /
           NS_PER_MS;
}

static void
add_names(const struct cli *c, const struct job_backup_opts *o, struct vars *v)
{
    add(v, "TIDEMARK_MACHINE=%s", conf_name(c->machine));
    add(v, "TIDEMARK_REPOSITORY=%s", o->repo);
}

static int
before(struct cli *c, const struct job_backup_opts *o, struct err *err)
{
    CLEANUP(vars_done) struct vars v = {0};

    if (c->machine == NULL || conf_get(c->machine, "before") == NULL)
        return 0;
    add_names(c, o, &v);
    if (run_hook(c, "before", &v, timeout_of(c), c->hooks.cancel, err) != 0)
        return err_wrap(err, "nothing was backed up");
    return 0;
}

/* An event, so that it reaches programs as well as people. */
static void
warn(struct cli *c, const char *message)
{
    CLEANUP_JV struct jv *e =
        jv_build("{s:s, s:s}", "event", "warning", "message", message);

    if (e != NULL)
        c->hooks.event(c->hooks.arg, e);
}

static void
after(struct cli *c, const struct job_backup_opts *o, const struct jv *result,
      const struct err *why)
{
    CLEANUP(vars_done) struct vars v = {0};
    struct err err = ERR_INIT;
    uint64_t timeout_ms = timeout_of(c);
    bool warned = c->out.n_warnings > 0 || jv_size(jv_get(result, "warnings"));

    if (c->machine == NULL || conf_get(c->machine, "after") == NULL)
        return;
    add_names(c, o, &v);
    add(&v, "TIDEMARK_RESULT=%s",
        result == NULL ? "failed"
        : warned       ? "warning"
                       : "ok");
    add(&v, "TIDEMARK_POINT=%s", report_str(result, "point", ""));
    add(&v, "TIDEMARK_ERROR=%s", result == NULL ? why->msg : "");
    if (c->hooks.cancel != NULL && atomic_load(c->hooks.cancel) &&
        timeout_ms > STOPPING_MS)
        timeout_ms = STOPPING_MS;
    if (run_hook(c, "after", &v, timeout_ms, NULL, &err) != 0)
        warn(c, err.msg);
}

int
hooked_backup(struct cli *c, const struct job_backup_opts *o,
              struct jv **ret_result, struct err *err)
{
    struct jv *result = NULL;

    if (before(c, o, err) == 0 && job_backup(o, &c->hooks, &result, err) != 0)
        result = NULL;
    after(c, o, result, err);
    if (result == NULL)
        return -1;
    *ret_result = result;
    return 0;
}
