#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "cli.h"
#include "err.h"
#include "jv.h"
#include "size.h"
#include "table.h"

static const struct opt opts[] = {
    OPT(repo, 0, "DIR", opt_set_text, "repository (TIDEMARK_REPO)"),
    OPT(structure, 0, NULL, opt_set_flag,
        "names, sizes, index and maps; not the bytes of packs"),
    OPT(sample, 0, "SHARE", opt_set_share,
        "only so many of the packs, like 5%; those that were\nverified longest "
        "ago, so that it walks round"),
    OPT_NAMED("limit-rate", limit_rate, "SIZE", opt_set_rate,
              "read so many bytes per second at most"),
    OPT(resume, 0, NULL, opt_set_flag,
        "go on with what an interrupted run has not read"),
    OPT_NAMED("read-only", read_only, NULL, opt_set_flag,
              "keep no record of what was found"),
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

int
report_proof(struct cli *c, const struct jv *result, struct err *err)
{
    CLEANUP(table_freep)
    struct table *t = table_new("DAMAGED|DISK|>OFFSET|>BYTES|PROBLEM");
    const struct jv *problems = jv_get(result, "problems");
    const struct jv *notes = jv_get(result, "notes");
    uint64_t n_points = report_uint(result, "points");
    uint64_t n_chunks = report_uint(result, "chunks");
    char size[SIZE_TEXT_MAX];

    for (size_t i = 0; i < jv_size(problems); i++)
        add_problem(t, jv_at(problems, i));
    if (jv_size(problems) > 0 && table_print(t, 0, c->out.result, err) != 0)
        return -1;
    for (size_t i = 0; !c->out.quiet && i < jv_size(notes); i++)
        if (jv_is_string(jv_at(notes, i)))
            out_line(&c->out, "note: %s", jv_str(jv_at(notes, i)));
    if (!c->out.quiet)
        out_line(&c->out,
                 "checked %" PRIu64 " point%s, %" PRIu64 " chunk%s, %s: %s",
                 n_points, n_points == 1 ? "" : "s", n_chunks,
                 n_chunks == 1 ? "" : "s",
                 size_text(report_uint(result, "bytes"), size),
                 jv_size(problems) > 0 ? "damage found" : "no damage found");
    return 0;
}

int
report_verdict(struct cli *c, const struct jv *result, const char *advice)
{
    size_t n_problems = jv_size(jv_get(result, "problems"));
    char text[256];

    if (n_problems == 0)
        return cli_status(c);
    (void)snprintf(text, sizeof text, "damage found: %zu problem%s; %s",
                   n_problems, n_problems == 1 ? "" : "s", advice);
    out_complain(&c->out, text);
    return EXIT_FAILED;
}

/* A run that reads packs in their order can go on where it was stopped. */
static int
stopped(const struct job_verify_opts *o, struct err *err)
{
    CLEANUP_FREE char *how = NULL;

    if (err->code != ERR_CANCELED || o->structure || o->sample > 0 ||
        o->read_only)
        return -1;
    how = strdup(err->msg);
    if (how == NULL)
        return -1;
    err_clear(err);
    return err_set(err, ERR_CANCELED,
                   "%s; go on with: tidemark verify%s%s --resume", how,
                   o->what != NULL ? " " : "", o->what != NULL ? o->what : "");
}

static int
run(struct cli *c, struct err *err)
{
    CLEANUP_JV struct jv *result = NULL;
    struct job_verify_opts o = {.what = c->o.operand,
                                .threads = c->o.threads,
                                .structure = c->o.structure,
                                .sample = c->o.sample,
                                .limit_rate = c->o.limit_rate,
                                .resume = c->o.resume,
                                .read_only = c->o.read_only};
    int ret;

    if (o.structure && (o.sample > 0 || o.limit_rate > 0 || o.resume))
        return err_set(err, ERR_USAGE,
                       "verify: --structure reads no packs: --sample, "
                       "--limit-rate and --resume have no meaning with it");
    if (o.sample > 0 && o.resume)
        return err_set(err, ERR_USAGE,
                       "verify: --sample goes on by itself where the last one "
                       "ended: leave --resume away");

    if (cli_repo(c, &o.repo, err) != 0)
        return -1;
    if (job_verify(&o, &c->hooks, &result, err) != 0)
        return stopped(&o, err);
    cli_remember(c, result);
    meter_clear(&c->out.meter);
    out_warnings(&c->out, jv_get(result, "warnings"));
    ret = c->out.json ? out_json(&c->out, result, err)
                      : report_proof(c, result, err);
    if (ret != 0)
        return -1;
    return report_verdict(c, result,
                          "the next backup stores again what the machine still "
                          "has; see also: tidemark check");
}

const struct command command_verify = {
    .id = CMD_VERIFY,
    .name = "verify",
    .operand_name = "NAME[@REV]",
    .operand = OPERAND_OPTIONAL,
    .summary = "read and check everything that points need",
    .about = "Reads every pack that the points need (all, those of NAME, or "
             "one) and\n"
             "compares it with its hash, and each chunk with its name.  Damage "
             "is reported\n"
             "with the exact points, disks and ranges that it touches, and "
             "noted in the\n"
             "repository: nothing is built on it, and the next backup heals "
             "what it can.",
    .opts = opts,
    .signals = true,
    .recorded = true,
    .run = run,
};
