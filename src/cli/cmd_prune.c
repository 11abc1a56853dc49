#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "cli.h"
#include "config.h"
#include "err.h"
#include "jv.h"
#include "table.h"

#define RULES_LEN 1024

#define KEEP(rule, what)                                                      \
    {                                                                         \
        .name = "keep-" #rule, .arg = "N", .help = what, .set = opt_set_keep, \
        .offset = offsetof(struct opts, keep.rule)                            \
    }

static const struct opt opts[] = {
    OPT(repo, 0, "DIR", opt_set_text, "repository (TIDEMARK_REPO)"),
    KEEP(last, "keep the newest N points; N of all --keep may be\n'all'"),
    KEEP(hourly, "the newest point of each of the N last hours that\nhave "
                 "any"),
    KEEP(daily, "of each of the N last days that have any (UTC)"),
    KEEP(weekly, "of each of the N last weeks (Monday to Sunday)"),
    KEEP(monthly, "of each of the N last months"),
    KEEP(yearly, "of each of the N last years"),
    OPT_NAMED("keep-within", keep.within, "TIME", opt_set_text,
              "everything up to TIME before the newest point: 14d,\n1y6m, 36h"),
    OPT_NAMED("keep-tag", keep_tags, "WORD", opt_set_list,
              "everything with this tag; may be repeated"),
    OPT(remove, 0, NULL, opt_set_flag,
        "remove exactly the points NAME@REV that are named"),
    OPT_NAMED("remove-last", keep.remove_last, NULL, opt_set_flag,
              "even the last good point of a machine"),
    OPT_NAMED("ignore-clock", keep.ignore_clock, NULL, opt_set_flag,
              "judge by times that cannot be right"),
    OPT_NAMED("dry-run", dry_run, NULL, opt_set_flag,
              "say what would be removed and change nothing"),
    OPT(gc, 0, NULL, opt_set_flag, "then free the space, as tidemark gc does"),
    OPT_END,
};

/* -- for people -------------------------------------------------------------*/

static const char *
why(const struct jv *point, char *buf, size_t len)
{
    const struct jv *rules = jv_get(point, "rules");
    bool keep = strcmp(report_str(point, "action", ""), "keep") == 0;
    size_t n = 0;

    if (jv_get_bool(point, "damaged", false) && !keep)
        return "damaged";
    if (jv_size(rules) == 0)
        return keep ? "not named" : NULL;
    for (size_t i = 0; i < jv_size(rules) && n < len; i++) {
        const char *rule = jv_str(jv_at(rules, i));

        n += (size_t)snprintf(buf + n, len - n, "%s%s", i > 0 ? ", " : "",
                              rule != NULL ? rule : "?");
    }
    return buf;
}

static int
report_machine(struct cli *c, const struct jv *m, struct err *err)
{
    CLEANUP(table_freep)
    struct table *t = table_new("POINT|TAKEN|TAGS|ACTION|WHY");
    const struct jv *points = jv_get(m, "points");
    uint64_t kept = report_uint(m, "kept"), gone = report_uint(m, "removed");
    unsigned digits = point_digits(points);
    char text[POINT_TAGS_LEN], rules[RULES_LEN], ref[POINT_REF_MAX];

    for (size_t i = 0; i < jv_size(points); i++) {
        const struct jv *p = jv_at(points, i);

        point_ref(p, digits, ref, sizeof ref);
        table_text(t, ref);
        table_text(t, report_str(p, "time", NULL));
        table_text(t, point_tags(p, text, sizeof text));
        table_text(t, report_str(p, "action", NULL));
        table_text(t, why(p, rules, sizeof rules));
    }
    if (table_print(t, 0, c->out.result, err) != 0)
        return -1;
    out_line(&c->out, "%s: %" PRIu64 " point%s stay%s, %" PRIu64 " %sremoved",
             report_str(m, "machine", "?"), kept, kept == 1 ? "" : "s",
             kept == 1 ? "s" : "", gone, c->o.dry_run ? "would be " : "");
    return 0;
}

static int
report(struct cli *c, const struct jv *result, struct err *err)
{
    const struct jv *machines = jv_get(result, "machines");
    const struct jv *gc = jv_get(result, "gc");

    if (c->out.quiet)
        return 0;
    for (size_t i = 0; i < jv_size(machines); i++) {
        if (i > 0)
            out_line(&c->out, "%s", "");
        if (report_machine(c, jv_at(machines, i), err) != 0)
            return -1;
    }
    if (jv_size(machines) == 0)
        out_line(&c->out, "no points");
    if (gc != NULL && !jv_get_bool(gc, "other_runs", false)) {
        out_line(&c->out, "%s", "");
        return report_gc(&c->out, gc, err);
    }
    if (gc == NULL && report_uint(result, "removed") > 0 && !c->o.dry_run)
        out_line(&c->out, "the space is freed by: tidemark gc");
    return 0;
}

/* -- the command ------------------------------------------------------------*/

/* One machine of the configuration, and no rule on the command line: its own. */
static int
configured_rules(struct cli *c, struct err *err)
{
    const struct conf_section *s;
    const struct conf *conf;
    const struct retention *k = &c->o.keep;

    if (c->o.operands.n != 1 || c->o.remove || retention_any(k) ||
        c->o.keep_tags.n > 0)
        return 0;
    if (config_find(c, &conf, err) != 0)
        return -1;
    s = conf != NULL ? conf_find(conf, CONF_MACHINE, c->o.operand) : NULL;
    if (s == NULL)
        return 0;
    c->machine = s;
    c->o.operands.v[0] = config_point_name(s);
    return config_apply(c, s, err);
}

/* The points are removed whatever becomes of the collection: the report comes
 * first, then its error. */
static int
collect(struct cli *c, const char *repo, struct jv *result, struct err *err)
{
    CLEANUP_JV struct jv *gc = NULL;
    struct job_gc_opts o = {.repo = repo};

    if (job_gc(&o, &c->hooks, &gc, err) != 0)
        return err_wrap(err, "the points are pruned, but gc");
    if (jv_get_bool(gc, "other_runs", false))
        out_warning(&c->out, "another collector works on this repository: no "
                             "space was freed by this run");
    if (jv_set(result, "gc", TAKE_PTR(gc)) != 0)
        return err_set(err, ERR_SYSTEM, "out of memory for the report");
    return 0;
}

static int
prune(struct cli *c, struct err *err)
{
    CLEANUP_JV struct jv *result = NULL;
    struct job_prune_opts o = {.names = cli_list(&c->o.operands),
                               .keep = c->o.keep,
                               .remove = c->o.remove,
                               .dry_run = c->o.dry_run};
    struct err gc = ERR_INIT;
    int ret, collected = 0;

    o.keep.tags = cli_list(&c->o.keep_tags);
    if (cli_repo(c, &o.repo, err) != 0 ||
        job_prune(&o, &c->hooks, &result, err) != 0)
        return -1;
    out_warnings(&c->out, jv_get(result, "problems"));
    if (c->o.gc && !c->o.dry_run)
        collected = collect(c, o.repo, result, &gc);
    cli_remember(c, result);
    meter_clear(&c->out.meter);
    ret = c->out.json ? out_json(&c->out, result, err) : report(c, result, err);
    if (ret != 0)
        return -1;
    return collected != 0 ? err_copy(err, &gc) : cli_status(c);
}

static int
run(struct cli *c, struct err *err)
{
    return configured_rules(c, err) != 0 ? -1 : prune(c, err);
}

const struct command command_prune = {
    .id = CMD_PRUNE,
    .name = "prune",
    .operand_name = "MACHINE...",
    .operand = OPERAND_OPTIONAL,
    .max_operands = OPTS_LIST_MAX,
    .summary = "remove the points that no rule keeps",
    .about = "Removes points: of all machines or of each MACHINE those that no "
             "--keep rule\n"
             "keeps, or, with --remove, exactly the points NAME@REV.  Shows "
             "which rule keeps\n"
             "what.  The space is freed by gc.",
    .opts = opts,
    .signals = true,
    .recorded = true,
    .run = run,
};
