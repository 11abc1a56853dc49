#include <inttypes.h>

#include "cleanup.h"
#include "cli.h"
#include "err.h"
#include "jv.h"
#include "table.h"

static const struct opt opts[] = {
    OPT(repo, 0, "DIR", opt_set_text, "repository (TIDEMARK_REPO)"),
    OPT(to, 0, "DIR", opt_set_text,
        "where the disks go; made if missing (required)"),
    OPT(format, 0, "FORMAT", opt_set_format, "qcow2 or raw (qcow2)"),
    OPT_NAMED("disk", disks, "DISK", opt_set_list,
              "only this disk; may be repeated"),
    OPT(overwrite, 0, NULL, opt_set_flag, "replace files that exist"),
    OPT(threads, 0, "N", opt_set_threads, "worker threads (one per CPU)"),
    OPT_END,
};

static int
report(struct cli *c, const struct jv *result, struct err *err)
{
    CLEANUP(table_freep)
    struct table *t = table_new("DISK|>SIZE|>WRITTEN|FILE");
    const struct jv *files = jv_get(result, "disks");
    char ref[POINT_REF_MAX];

    for (size_t i = 0; i < jv_size(files); i++) {
        const struct jv *f = jv_at(files, i);

        table_text(t, report_str(f, "disk", NULL));
        table_size(t, report_uint(f, "size"));
        table_size(t, report_uint(f, "written_bytes"));
        table_text(t, report_str(f, "file", NULL));
    }
    if (table_print(t, 0, c->out.result, err) != 0)
        return -1;
    point_ref(result, POINT_REF_DIGITS, ref, sizeof ref);
    out_line(&c->out, "point %s restored to '%s'", ref, c->o.to);
    return 0;
}

static int
run(struct cli *c, struct err *err)
{
    CLEANUP_JV struct jv *result = NULL;
    struct job_restore_opts o = {.point = c->o.operand,
                                 .to = c->o.to,
                                 .format = c->o.format ? c->o.format : "qcow2",
                                 .disks = cli_list(&c->o.disks),
                                 .overwrite = c->o.overwrite,
                                 .threads = c->o.threads};
    int ret = 0;

    if (o.to == NULL)
        return err_set(err, ERR_USAGE,
                       "restore: where to? use --to DIR for a directory that "
                       "gets the disks");
    if (cli_repo(c, &o.repo, err) != 0 ||
        job_restore(&o, &c->hooks, &result, err) != 0)
        return -1;
    cli_remember(c, result);
    meter_clear(&c->out.meter);
    out_warnings(&c->out, jv_get(result, "warnings"));
    if (c->out.json)
        ret = cli_event_result(c, result, "restored", err);
    else if (!c->out.quiet)
        ret = report(c, result, err);
    return ret != 0 ? -1 : cli_status(c);
}

const struct command command_restore = {
    .id = CMD_RESTORE,
    .name = "restore",
    .operand_name = "NAME@REV",
    .operand = OPERAND_REQUIRED,
    .summary = "write the disks of a point into a directory",
    .about = "Writes the disks of a point, and machine.json with the "
             "machine's\n"
             "configuration, into a directory.  A file appears under its name "
             "only when\n"
             "it is complete and durable.\n"
             "NAME@REV: web1@latest, web1@latest~2, web1@2026-11-20T18:00, "
             "web1@1f3a9c.",
    .opts = opts,
    .events = true,
    .signals = true,
    .recorded = true,
    .run = run,
};
