#include <string.h>

#include "cleanup.h"
#include "cli.h"
#include "err.h"
#include "jv.h"
#include "table.h"

static const struct opt opts[] = {
    OPT(repo, 0, "DIR", opt_set_text, "repository (TIDEMARK_REPO)"),
    OPT_END,
};

static void
add_row(struct table *t, const struct jv *p, unsigned digits, bool tags)
{
    const struct jv *disks = jv_get(p, "disks");
    uint64_t size = 0, fresh = 0, stored = 0;
    const char *consistency = report_str(p, "consistency", "?");
    char ref[POINT_REF_MAX], text[POINT_TAGS_LEN];

    for (size_t i = 0; i < jv_size(disks); i++) {
        size += report_uint(jv_at(disks, i), "size");
        fresh += report_uint(jv_at(disks, i), "new_bytes");
        stored += report_uint(jv_at(disks, i), "stored_bytes");
    }
    point_ref(p, digits, ref, sizeof ref);
    table_text(t, ref);
    table_text(t, report_str(p, "time", NULL));
    table_text(t, strcmp(consistency, "filesystem") == 0 ? "file system"
                                                         : consistency);
    table_count(t, jv_size(disks));
    table_size(t, size);
    table_size(t, fresh);
    table_size(t, stored);
    if (tags)
        table_text(t, point_tags(p, text, sizeof text));
}

/* No column for what nobody uses. */
static bool
any_tags(const struct jv *points)
{
    for (size_t i = 0; i < jv_size(points); i++)
        if (jv_size(jv_get(jv_at(points, i), "tags")) > 0)
            return true;
    return false;
}

static int
report(struct cli *c, const struct jv *points, struct err *err)
{
    bool tags = any_tags(points);
    CLEANUP(table_freep)
    struct table *t =
        table_new(tags ? "POINT|TAKEN|CONSISTENT|>DISKS|>SIZE|>NEW|>STORED|TAGS"
                       : "POINT|TAKEN|CONSISTENT|>DISKS|>SIZE|>NEW|>STORED");
    unsigned digits = point_digits(points);

    for (size_t i = 0; i < jv_size(points); i++)
        add_row(t, jv_at(points, i), digits, tags);
    if (table_rows(t) > 0)
        return table_print(t, 0, c->out.result, err);
    if (!c->out.quiet)
        out_line(&c->out, c->o.operand ? "no points of '%s'" : "no points%s",
                 c->o.operand ? c->o.operand : "");
    return 0;
}

static int
run(struct cli *c, struct err *err)
{
    CLEANUP_JV struct jv *result = NULL;
    const char *repo;
    int ret;

    if (cli_repo(c, &repo, err) != 0 ||
        job_points(repo, c->o.operand, &result, err) != 0)
        return -1;
    out_warnings(&c->out, jv_get(result, "problems"));
    ret = c->out.json ? out_json(&c->out, result, err)
                      : report(c, jv_get(result, "points"), err);
    return ret != 0 ? -1 : cli_status(c);
}

const struct command command_points = {
    .id = CMD_POINTS,
    .name = "points",
    .operand_name = "NAME",
    .operand = OPERAND_OPTIONAL,
    .summary = "list the points in a repository",
    .about = "Lists the points of all machines, or of the machine NAME, "
             "oldest first.",
    .opts = opts,
    .run = run,
};
