#include <inttypes.h>
#include <stdio.h>

#include "cli.h"
#include "err.h"
#include "jv.h"

static const struct opt opts[] = {
    OPT(repo, 0, "DIR", opt_set_text, "repository (TIDEMARK_REPO)"),
    OPT_END,
};

static int
report(struct cli *c, const struct jv *p, struct err *err)
{
    struct out *o = &c->out;
    char text[POINT_TAGS_LEN];

    point_ref(p, 32, text, sizeof text);
    out_field(o, "point", text);
    out_field(o, "taken", report_str(p, "time", "?"));
    (void)snprintf(text, sizeof text, "%" PRIu64, report_uint(p, "seq"));
    out_field(o, "number", text);
    point_consistency(p, text, sizeof text);
    out_field(o, "consistency", text);
    if (point_tags(p, text, sizeof text) != NULL)
        out_field(o, "tags", text);
    out_field(o, "capture", report_str(p, "capture", "?"));
    if (*report_str(p, "parent", "") != '\0')
        out_field(o, "parent", report_str(p, "parent", ""));
    if (jv_is_object(jv_get(p, "config")))
        out_field(o, "configuration", "stored; shown with --json");
    out_line(o, "%s", "");
    return report_disks(o, jv_get(p, "disks"), err);
}

static int
run(struct cli *c, struct err *err)
{
    CLEANUP_JV struct jv *result = NULL;
    const char *repo;
    int ret;

    if (cli_repo(c, &repo, err) != 0 ||
        job_show(repo, c->o.operand, &result, err) != 0)
        return -1;
    out_warnings(&c->out, jv_get(result, "problems"));
    ret = c->out.json ? out_json(&c->out, result, err) : report(c, result, err);
    return ret != 0 ? -1 : cli_status(c);
}

const struct command command_show = {
    .id = CMD_SHOW,
    .name = "show",
    .operand_name = "NAME@REV",
    .operand = OPERAND_REQUIRED,
    .summary = "show one point, its disks and how they were read",
    .about = "Shows one point; with --json also the machine's configuration.\n"
             "NAME@REV: web1@latest, web1@latest~2, web1@2026-11-20T18:00, "
             "web1@1f3a9c.",
    .opts = opts,
    .run = run,
};
