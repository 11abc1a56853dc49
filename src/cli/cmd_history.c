#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "cli.h"
#include "clock.h"
#include "err.h"
#include "history.h"
#include "jv.h"
#include "recorder.h"
#include "size.h"
#include "table.h"
#include "text.h"

#define LAST_DEFAULT 30u

static const struct opt opts[] = {
    OPT(last, 0, "N", opt_set_keep, "so many runs at most, or all (30)"),
    OPT(failed, 0, NULL, opt_set_flag,
        "only runs that failed, were stopped, or died"),
    OPT(since, 0, "TIME", opt_set_duration,
        "only runs that began in the last 12h, 7d, ..."),
    OPT_NAMED("run", run_id, "ID", opt_set_run,
              "everything about one run, its log too"),
    OPT_END,
};

/* -- the list ---------------------------------------------------------------*/

static const char *
took(const struct jv *run, char *buf)
{
    return text_duration(report_uint(run, "duration_ms") / 1000, buf);
}

static void
size_cell(struct table *t, const struct jv *run, const char *key)
{
    uint64_t v;

    if (jv_get_uint(run, key, &v))
        table_size(t, v);
    else
        table_text(t, NULL);
}

/* What came of it, in a line. */
static void
outcome(const struct jv *run, char *buf, size_t len)
{
    const char *error = report_str(run, "error", NULL);

    if (error != NULL)
        (void)snprintf(buf, len, "%s", error);
    else if (jv_get_str(run, "point") != NULL)
        point_ref(run, POINT_REF_DIGITS, buf, len);
    else
        (void)snprintf(buf, len, "-");
}

static void
add_row(struct table *t, const struct jv *run)
{
    char text[ERR_MSG_MAX], duration[TEXT_DURATION_MAX];

    table_count(t, report_uint(run, "id"));
    table_text(t, report_str(run, "start", NULL));
    table_text(t, report_str(run, "command", NULL));
    table_text(t, report_str(run, "machine", report_str(run, "target", NULL)));
    table_text(t, report_str(run, "state", NULL));
    table_text(t, took(run, duration));
    table_text(t, report_str(run, "tracking", NULL));
    size_cell(t, run, "read_bytes");
    size_cell(t, run, "stored_bytes");
    outcome(run, text, sizeof text);
    table_text(t, text);
}

static int
report_list(struct cli *c, const struct jv *runs, struct err *err)
{
    CLEANUP(table_freep)
    struct table *t = table_new("RUN|STARTED|COMMAND|MACHINE|STATE|>TOOK|"
                                "TRACKING|>READ|>STORED|POINT OR ERROR");

    for (size_t i = 0; i < jv_size(runs); i++)
        add_row(t, jv_at(runs, i));
    if (jv_size(runs) > 0)
        return table_print(t, 0, c->out.result, err);
    if (!c->out.quiet)
        out_line(&c->out, "no runs%s",
                 c->o.operand != NULL || c->o.failed || c->o.since > 0
                     ? " like that"
                     : " are recorded");
    return 0;
}

static int
list(struct cli *c, struct history *h, struct err *err)
{
    CLEANUP_JV struct jv *runs = NULL, *o = jv_object();
    struct history_filter f = {.machine = c->o.operand,
                               .failed = c->o.failed,
                               .last =
                                   c->o.last > 0 ? c->o.last : LAST_DEFAULT};

    if (c->o.since > 0)
        f.since_ns = clock_wall_ns() - (int64_t)c->o.since;
    if (h == NULL)
        runs = jv_array();
    else if (history_list(h, &f, &runs, err) < 0)
        return -1;
    if (!c->out.json)
        return report_list(c, runs, err);
    if (jv_set(o, "runs", TAKE_PTR(runs)) < 0)
        return err_set(err, ERR_SYSTEM, "out of memory for the history");
    return out_json(&c->out, o, err);
}

/* -- one run ----------------------------------------------------------------*/

static void
report_log(struct out *o, const struct jv *log)
{
    if (jv_size(log) > 0)
        out_line(o, "log:");
    for (size_t i = 0; i < jv_size(log); i++) {
        const struct jv *line = jv_at(log, i);
        const char *text = report_str(line, "text", "");
        uint64_t ms;

        if (jv_get_uint(line, "ms", &ms))
            out_line(o, "  %4" PRIu64 ".%03u  %s", ms / 1000,
                     (unsigned)(ms % 1000), text);
        else
            out_line(o, "            %s", text);
    }
}

/* Only what is known. */
static int
report_run(struct cli *c, const struct jv *run, struct err *err)
{
    static const char *const later[] = {"log", "children", NULL};
    CLEANUP_JV struct jv *known = jv_object();
    const struct jv *children = jv_get(run, "children");

    for (void *it = jv_first(run); it != NULL; it = jv_next(run, it)) {
        const struct jv *v = jv_value(it);

        if (jv_is_null(v) || (jv_is_array(v) && jv_size(v) == 0))
            continue;
        if (jv_set(known, jv_key(it), jv_ref(v)) < 0)
            return err_set(err, ERR_SYSTEM, "out of memory for the history");
    }
    if (report_value(&c->out, known, later, err) != 0)
        return -1;
    if (jv_size(children) > 0) {
        out_line(&c->out, "started by it:");
        if (report_list(c, children, err) != 0)
            return -1;
    }
    report_log(&c->out, jv_get(run, "log"));
    return 0;
}

static int
show(struct cli *c, struct history *h, struct err *err)
{
    CLEANUP_JV struct jv *run = NULL;

    if (h == NULL)
        return err_set(err, ERR_NOT_FOUND, "no runs are recorded");
    if (history_show(h, (int64_t)c->o.run_id, &run, err) < 0)
        return -1;
    return c->out.json ? out_json(&c->out, run, err) : report_run(c, run, err);
}

/* -- the command ------------------------------------------------------------*/

static int
run(struct cli *c, struct err *err)
{
    CLEANUP_HISTORY struct history *h = NULL;
    char dir[PATH_MAX];
    int ret;

    if (c->o.run_id > 0 && (c->o.operand != NULL || c->o.failed ||
                            c->o.since > 0 || c->o.last > 0))
        return err_set(err, ERR_USAGE,
                       "history: --run shows one run: a machine, --last, "
                       "--failed and --since have no meaning with it");
    if (recorder_dir(dir, err) < 0 || history_open_read(dir, &h, err) < 0)
        return err_wrap(err, "history");
    ret = c->o.run_id > 0 ? show(c, h, err) : list(c, h, err);
    return ret != 0 ? -1 : cli_status(c);
}

const struct command command_history = {
    .id = CMD_HISTORY,
    .name = "history",
    .operand_name = "MACHINE",
    .operand = OPERAND_OPTIONAL,
    .summary = "list the runs of this host and what came of them",
    .about = "Lists the runs of this host, newest first: how each ended, how "
             "the disks were\n"
             "tracked, what was read and stored.  A run whose process is gone "
             "without an end\n"
             "is shown as \"died\".",
    .opts = opts,
    .run = run,
};
