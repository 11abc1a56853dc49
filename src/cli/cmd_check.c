#include <inttypes.h>

#include "cleanup.h"
#include "cli.h"
#include "err.h"
#include "jv.h"

static const struct opt opts[] = {
    OPT(repo, 0, "DIR", opt_set_text, "repository (TIDEMARK_REPO)"),
    OPT(repair, 0, NULL, opt_set_flag,
        "make index segments again, save what is good in damaged\npacks"),
    OPT_NAMED("dry-run", dry_run, NULL, opt_set_flag,
              "with --repair: only say what it would do"),
    OPT(threads, 0, "N", opt_set_threads, "worker threads (one per CPU)"),
    OPT_END,
};

static void
report_actions(struct cli *c, const struct jv *repair)
{
    const struct jv *actions = jv_get(repair, "actions");
    uint64_t lost = report_uint(repair, "frames_lost");

    for (size_t i = 0; i < jv_size(actions); i++)
        if (jv_is_string(jv_at(actions, i)))
            out_line(&c->out, "%s%s", c->o.dry_run ? "would: " : "",
                     jv_str(jv_at(actions, i)));
    if (repair != NULL && jv_size(actions) == 0 && !c->out.quiet)
        out_line(&c->out, "nothing to repair");
    if (lost > 0)
        out_line(&c->out,
                 "%" PRIu64 " chunk%s no good copy here; the next backup "
                 "stores again what the machine still has",
                 lost, lost == 1 ? " or page has" : "s and pages have");
}

static int
run(struct cli *c, struct err *err)
{
    CLEANUP_JV struct jv *result = NULL;
    struct job_check_opts o = {.repair = c->o.repair,
                               .dry_run = c->o.dry_run,
                               .threads = c->o.threads};
    int ret;

    if (o.dry_run && !o.repair)
        return err_set(err, ERR_USAGE,
                       "check: --dry-run says what --repair would do: give "
                       "both");
    if (cli_repo(c, &o.repo, err) != 0 ||
        job_check(&o, &c->hooks, &result, err) != 0)
        return -1;
    cli_remember(c, result);
    meter_clear(&c->out.meter);
    if (!c->out.json)
        report_actions(c, jv_get(result, "repair"));
    ret = c->out.json ? out_json(&c->out, result, err)
                      : report_proof(c, result, err);
    if (ret != 0)
        return -1;
    if (o.dry_run && jv_size(jv_get(jv_get(result, "repair"), "actions")) > 0)
        return report_verdict(c, result,
                              "repair what can be: tidemark check --repair");
    return report_verdict(
        c, result,
        o.repair
            ? "what is left can only come from another copy of the "
              "repository, or from the machines: back up again"
            : "read everything with: tidemark verify; then: tidemark check "
              "--repair; and back up again");
}

const struct command command_check = {
    .id = CMD_CHECK,
    .name = "check",
    .operand = OPERAND_NONE,
    .summary = "look for damage without reading all data, and repair it",
    .about = "Looks at names, sizes, index and maps, as verify --structure "
             "does.  --repair\n"
             "first makes lost index segments again, and copies what is good "
             "out of packs\n"
             "that are damaged (as verify has noted them).  It adds objects "
             "and removes\n"
             "nothing but records that nobody can read.",
    .opts = opts,
    .signals = true,
    .recorded = true,
    .run = run,
};
