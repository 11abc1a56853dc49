#include <inttypes.h>
#include <stdio.h>

#include "cleanup.h"
#include "cli.h"
#include "err.h"
#include "jv.h"
#include "size.h"
#include "table.h"

static const struct opt opts[] = {
    OPT(repo, 0, "DIR", opt_set_text, "repository (TIDEMARK_REPO)"),
    OPT_END,
};

/* "2.9 x"; "-" where there is nothing to divide by. */
static void
add_ratio(struct table *t, const struct jv *o, const char *whole,
          const char *part)
{
    double w = (double)report_uint(o, whole), p = (double)report_uint(o, part);
    char text[32];

    (void)snprintf(text, sizeof text, "%.1f", p > 0 ? w / p : 0.0);
    table_text(t, p > 0 ? text : NULL);
}

static void
add_figures(struct table *t, const struct jv *o)
{
    table_size(t, report_uint(o, "size"));
    table_size(t, report_uint(o, "data_bytes"));
    table_size(t, report_uint(o, "unique_bytes"));
    table_size(t, report_uint(o, "stored_bytes"));
    table_size(t, report_uint(o, "meta_bytes"));
    add_ratio(t, o, "data_bytes", "unique_bytes");
    add_ratio(t, o, "unique_bytes", "stored_bytes");
    table_size(t, report_uint(o, "freed_bytes"));
}

#define FIGURES "|>SIZE|>DATA|>UNIQUE|>STORED|>MAPS|>DEDUP|>COMPR|>FREES"

static int
report_points(struct cli *c, const struct jv *machines, struct err *err)
{
    CLEANUP(table_freep)
    struct table *t = table_new("POINT|TAKEN" FIGURES);
    char ref[POINT_REF_MAX];

    for (size_t m = 0; m < jv_size(machines); m++) {
        const struct jv *points = jv_get(jv_at(machines, m), "points");
        unsigned digits = point_digits(points);

        for (size_t i = 0; i < jv_size(points); i++) {
            point_ref(jv_at(points, i), digits, ref, sizeof ref);
            table_text(t, ref);
            table_text(t, report_str(jv_at(points, i), "time", NULL));
            add_figures(t, jv_at(points, i));
        }
    }
    return table_print(t, 0, c->out.result, err);
}

static void
add_sum(struct table *t, const char *name, const struct jv *o)
{
    table_text(t, name);
    table_count(t, report_uint(o, "n_points"));
    add_figures(t, o);
}

static int
report_machines(struct cli *c, const struct jv *result, struct err *err)
{
    CLEANUP(table_freep)
    struct table *t = table_new("MACHINE|>POINTS" FIGURES);
    const struct jv *machines = jv_get(result, "machines");

    for (size_t m = 0; m < jv_size(machines); m++)
        add_sum(t, report_str(jv_at(machines, m), "machine", "?"),
                jv_at(machines, m));
    if (c->o.operand == NULL)
        add_sum(t, "(all)", jv_get(result, "all"));
    return table_print(t, 0, c->out.result, err);
}

static int
report(struct cli *c, const struct jv *result, struct err *err)
{
    const struct jv *machines = jv_get(result, "machines");
    char packs[SIZE_TEXT_MAX], unused[SIZE_TEXT_MAX];

    if (jv_size(machines) > 0 && report_points(c, machines, err) != 0)
        return -1;
    if (jv_size(machines) > 0)
        out_line(&c->out, "%s", "");
    if (report_machines(c, result, err) != 0)
        return -1;
    if (c->o.operand == NULL)
        out_line(&c->out, "packs take %s, of which no point needs %s",
                 size_text(report_uint(result, "pack_bytes"), packs),
                 size_text(report_uint(result, "unreferenced_bytes"), unused));
    return 0;
}

static int
run(struct cli *c, struct err *err)
{
    CLEANUP_JV struct jv *result = NULL;
    const char *repo;
    int ret;

    if (cli_repo(c, &repo, err) != 0 ||
        job_stats(repo, c->o.operand, &c->hooks, &result, err) != 0)
        return -1;
    out_warnings(&c->out, jv_get(result, "problems"));
    ret = c->out.json ? out_json(&c->out, result, err) : report(c, result, err);
    return ret != 0 ? -1 : cli_status(c);
}

const struct command command_stats = {
    .id = CMD_STATS,
    .name = "stats",
    .operand_name = "NAME[@REV]",
    .operand = OPERAND_OPTIONAL,
    .summary = "what points take, and what removing them would free",
    .about = "Shows for each point and machine how large its disks are, how "
             "much of that is\n"
             "data, what of it no earlier point had and takes, and what "
             "removing it alone\n"
             "would free.",
    .opts = opts,
    .signals = true,
    .run = run,
};
