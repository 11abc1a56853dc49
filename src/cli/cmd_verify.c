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
    OPT(threads, 0, "N", opt_set_threads, "worker threads (one per CPU)"),
    OPT_END,
};

/* A problem names an object of the repository, or a range of a point's disk. */
static void
add_problem(struct table *t, const struct jv *p)
{
    const char *point = report_str(p, "point", NULL);

    table_text(t, point != NULL ? point : report_str(p, "object", NULL));
    table_text(t, report_str(p, "disk", NULL));
    if (jv_get(p, "offset") != NULL) {
        table_count(t, report_uint(p, "offset"));
        table_count(t, report_uint(p, "length"));
    } else {
        table_text(t, NULL);
        table_text(t, NULL);
    }
    table_text(t, jv_is_string(p) ? jv_str(p) : report_str(p, "problem", NULL));
}

static int
report(struct cli *c, const struct jv *result, struct err *err)
{
    CLEANUP(table_freep)
    struct table *t = table_new("DAMAGED|DISK|>OFFSET|>BYTES|PROBLEM");
    const struct jv *problems = jv_get(result, "problems");
    uint64_t n_points = report_uint(result, "points");
    uint64_t n_chunks = report_uint(result, "chunks");
    char size[SIZE_TEXT_MAX];

    for (size_t i = 0; i < jv_size(problems); i++)
        add_problem(t, jv_at(problems, i));
    if (jv_size(problems) > 0 && table_print(t, 0, c->out.result, err) != 0)
        return -1;
    if (!c->out.quiet)
        out_line(&c->out,
                 "checked %" PRIu64 " point%s, %" PRIu64 " chunk%s, %s: %s",
                 n_points, n_points == 1 ? "" : "s", n_chunks,
                 n_chunks == 1 ? "" : "s",
                 size_text(report_uint(result, "bytes"), size),
                 jv_size(problems) > 0 ? "damage found" : "no damage found");
    return 0;
}

static int
verdict(struct cli *c, size_t n_problems)
{
    char text[160];

    if (n_problems == 0)
        return cli_status(c);
    (void)snprintf(text, sizeof text,
                   "damage found: %zu problem%s; restore what it touches from "
                   "another copy of the repository, and back up again",
                   n_problems, n_problems == 1 ? "" : "s");
    out_complain(&c->out, text);
    return EXIT_FAILED;
}

static int
run(struct cli *c, struct err *err)
{
    CLEANUP_JV struct jv *result = NULL;
    struct job_verify_opts o = {.what = c->o.operand, .threads = c->o.threads};
    int ret;

    if (cli_repo(c, &o.repo, err) != 0 ||
        job_verify(&o, &c->hooks, &result, err) != 0)
        return -1;
    meter_clear(&c->out.meter);
    out_warnings(&c->out, jv_get(result, "warnings"));
    ret = c->out.json ? out_json(&c->out, result, err) : report(c, result, err);
    if (ret != 0)
        return -1;
    return verdict(c, jv_size(jv_get(result, "problems")));
}

const struct command command_verify = {
    .id = CMD_VERIFY,
    .name = "verify",
    .operand_name = "NAME[@REV]",
    .operand = OPERAND_OPTIONAL,
    .summary = "read and check everything that points need",
    .about = "Reads every chunk that the points need (all, those of NAME, or "
             "one) and\n"
             "compares it with its name.  Damage is reported with the exact "
             "points, disks\n"
             "and ranges that it touches.",
    .opts = opts,
    .signals = true,
    .run = run,
};
