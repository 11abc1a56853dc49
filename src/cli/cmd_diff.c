#include <inttypes.h>
#include <stdio.h>

#include "cleanup.h"
#include "cli.h"
#include "err.h"
#include "jv.h"
#include "size.h"
#include "table.h"
#include "text.h"

#define DISK_COLUMNS 12 /* of the list, which is printed as it comes */

static const struct opt opts[] = {
    OPT(repo, 0, "DIR", opt_set_text, "repository (TIDEMARK_REPO)"),
    OPT_NAMED("disk", disks, "DISK", opt_set_list,
              "only this disk; may be repeated"),
    OPT_END,
};

/* -- for people -------------------------------------------------------------*/

struct listing {
    struct out *out;
    bool begun;
};

/* There may be millions of extents, so none waits for the others' widths. */
static void
on_event(void *arg, const struct jv *e)
{
    struct listing *l = arg;
    char disk[1024];

    if (!l->begun)
        (void)fprintf(l->out->result, "%-*s %16s %14s\n", DISK_COLUMNS, "DISK",
                      "OFFSET", "BYTES");
    l->begun = true;
    (void)text_escape_to(report_str(e, "disk", "?"), disk, sizeof disk);
    (void)fprintf(l->out->result, "%-*s %16" PRIu64 " %14" PRIu64 "  %s\n",
                  DISK_COLUMNS, disk, report_uint(e, "offset"),
                  report_uint(e, "length"),
                  jv_get_bool(e, "zero", false) ? "zeroes" : "data");
}

static int
report(struct cli *c, const struct jv *result, bool listed, struct err *err)
{
    CLEANUP(table_freep)
    struct table *t = table_new("DISK|>SIZE|>BEFORE|>EXTENTS|>CHANGED|>ZEROED");
    const struct jv *disks = jv_get(result, "disks");

    for (size_t i = 0; i < jv_size(disks); i++) {
        const struct jv *d = jv_at(disks, i);

        if (jv_get(d, "only_in") != NULL)
            continue;
        table_text(t, report_str(d, "disk", NULL));
        table_size(t, report_uint(d, "size"));
        table_size(t, report_uint(d, "from_size"));
        table_count(t, report_uint(d, "extents"));
        table_size(t, report_uint(d, "changed_bytes"));
        table_size(t, report_uint(d, "zero_bytes"));
    }
    if (listed)
        out_line(&c->out, "%s", "");
    if (table_rows(t) > 0 && table_print(t, 0, c->out.result, err) != 0)
        return -1;
    for (size_t i = 0; i < jv_size(disks); i++)
        if (jv_get(jv_at(disks, i), "only_in") != NULL)
            out_line(&c->out, "only in the %s point: %s",
                     *report_str(jv_at(disks, i), "only_in", "") == 'f'
                         ? "first"
                         : "second",
                     report_str(jv_at(disks, i), "disk", "?"));
    return 0;
}

/* -- the command ------------------------------------------------------------*/

static int
run(struct cli *c, struct err *err)
{
    CLEANUP_JV struct jv *result = NULL;
    struct listing listing = {.out = &c->out};
    struct job_hooks hooks = c->hooks;
    struct job_diff_opts o = {.from = c->o.operands.v[0],
                              .to = c->o.operands.v[1],
                              .disks = cli_list(&c->o.disks)};

    if (o.to == NULL)
        return err_set(err, ERR_USAGE,
                       "diff: the second point is missing: NAME@A NAME@B");
    if (!c->out.json) {
        hooks.event = on_event;
        hooks.arg = &listing;
    }
    if (cli_repo(c, &o.repo, err) != 0 ||
        job_diff(&o, &hooks, &result, err) != 0)
        return -1;
    if (c->out.json)
        return cli_event_result(c, result, "diff", err) != 0 ? -1
                                                             : cli_status(c);
    return report(c, result, listing.begun, err) != 0 ? -1 : cli_status(c);
}

const struct command command_diff = {
    .id = CMD_DIFF,
    .name = "diff",
    .operand_name = "NAME@A NAME@B",
    .operand = OPERAND_REQUIRED,
    .max_operands = 2,
    .summary = "what changed from one point to another",
    .about = "Lists the ranges of each disk in which point NAME@B differs from "
             "NAME@A.\n"
             "Reads only those parts of the maps that differ, and no data.",
    .opts = opts,
    .events = true,
    .signals = true,
    .run = run,
};
