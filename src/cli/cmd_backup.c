#include <inttypes.h>
#include <string.h>

#include "cleanup.h"
#include "cli.h"
#include "config.h"
#include "err.h"
#include "hook.h"
#include "jv.h"
#include "size.h"
#include "text.h"

static const struct opt opts[] = {
    OPT(repo, 0, "DIR", opt_set_text, "repository (TIDEMARK_REPO)"),
    OPT(name, 0, "NAME", opt_set_text, "name of the machine (QEMU's -name)"),
    OPT(full, 0, NULL, opt_set_flag,
        "read everything; what is known is still not stored\nagain"),
    OPT_NAMED("disk", disks, "DISK", opt_set_list,
              "only this disk; may be repeated"),
    OPT(exclude, 0, "DISK", opt_set_list,
        "all disks but this; may be repeated"),
    OPT_NAMED("tag", tags, "WORD", opt_set_list,
              "put a word on the point; may be repeated"),
    OPT(quiesce, 0, "HOW", opt_set_quiesce,
        "freeze the guest's file systems: auto, require or\noff (auto)"),
    OPT(scratch, 0, "DIR", opt_set_text,
        "for old data while the backup runs\n(TIDEMARK_SCRATCH; else where "
        "there is room)"),
    OPT(compress, 0, "LEVEL", opt_set_compress, "zstd level 0 to 19 (1)"),
    OPT(paranoid, 0, NULL, opt_set_flag,
        "decode and compare every chunk before it is trusted"),
    OPT(audit, 0, "SHARE", opt_set_audit,
        "share of the unchanged data to read again and\ncompare: 5%, off or "
        "all (1%)"),
    OPT(threads, 0, "N", opt_set_threads, "worker threads (one per CPU)"),
    OPT_NAMED("limit-rate", limit_rate, "SIZE", opt_set_rate,
              "read at most so many bytes per second"),
    OPT_NAMED("no-backoff", no_backoff, NULL, opt_set_flag,
              "read on at full speed when the guest becomes slow"),
    OPT_NAMED("scratch-max", scratch_max, "SIZE", opt_set_scratch_max,
              "give up when the scratch files take more than this"),
    OPT(resume, 0, NULL, opt_set_flag,
        "finish the point that a run which was cut off had\nbegun; QEMU must "
        "still hold its instant"),
    OPT(hold, 0, NULL, opt_set_flag,
        "when the repository fails, leave the instant in QEMU\nfor --resume"),
    OPT(offline, 0, "FILES", opt_set_text,
        "file:/disk0.qcow2,... to take when nobody listens\nat MACHINE's "
        "socket"),
    OPT_END,
};

/* "name" both wanted and excluded: one of them is a typing error. */
static int
check_lists(const struct opts *o, struct err *err)
{
    for (size_t i = 0; i < o->disks.n; i++)
        for (size_t j = 0; j < o->exclude.n; j++)
            if (strcmp(o->disks.v[i], o->exclude.v[j]) == 0)
                return err_set(err, ERR_USAGE,
                               "backup: disk '%s' is both wanted and excluded",
                               o->disks.v[i]);
    /* Those of the configuration are likely what that run had. */
    if (o->resume &&
        (o->full || opts_given(o, "disk") || opts_given(o, "exclude")))
        return err_set(err, ERR_USAGE,
                       "backup: --resume takes the disks and the way of the "
                       "run that was cut off; leave --full, --disk and "
                       "--exclude away");
    return 0;
}

/* What a person might believe to be in the point. */
static void
report_skipped(struct cli *c)
{
    const struct jv *skipped = jv_get(c->plan, "skipped");

    for (size_t i = 0; i < jv_size(skipped); i++) {
        const struct jv *d = jv_at(skipped, i);

        if (jv_get_str(d, "disk") != NULL)
            out_line(&c->out, "not taken: %s (%s)", jv_get_str(d, "disk"),
                     report_str(d, "why", "?"));
    }
}

/* What is remarkable, like an instant that is older than this run. */
static void
report_notes(struct cli *c, const struct jv *disks)
{
    for (size_t i = 0; i < jv_size(disks); i++) {
        const struct jv *d = jv_at(disks, i);

        if (report_str(d, "note", "")[0] != '\0')
            out_line(&c->out, "%s: %s", report_str(d, "disk", "?"),
                     report_str(d, "note", ""));
    }
}

/* What an owner may rely on: disks that were audited in this run. */
static void
report_audit(struct cli *c, const struct jv *disks)
{
    uint64_t chunks = 0, bytes = 0, bound = 0;
    char size[SIZE_TEXT_MAX];

    for (size_t i = 0; i < jv_size(disks); i++) {
        const struct jv *d = jv_at(disks, i);
        uint64_t runs = report_uint(d, "audit_bound");

        chunks += report_uint(d, "audited_chunks");
        bytes += report_uint(d, "audit_bytes");
        bound = runs > bound ? runs : bound;
    }
    if (bound == 0 || chunks == 0)
        return;
    (void)size_text(bytes, size);
    out_line(&c->out,
             "audit: %" PRIu64
             " unchanged chunks are what they were (%s read); "
             "a single missed one is found within %" PRIu64 " runs",
             chunks, size, bound);
}

/* Only when it mattered: a second or more of waiting. */
static void
report_backoff(struct cli *c, const struct jv *point)
{
    uint64_t ms = report_uint(point, "backoff_ms");
    const struct jv *p99 = jv_get(point, "guest_write_p99_us");
    char time[TEXT_DURATION_MAX];

    if (ms < 1000)
        return;
    (void)text_duration(ms / 1000, time);
    if (report_uint(p99, "before") > 0 && report_uint(p99, "during") > 0)
        out_line(&c->out,
                 "reading waited %s for the guest: 99 %% of its writes took "
                 "less than %.1f ms before, %.1f ms during the backup",
                 time, (double)report_uint(p99, "before") / 1000,
                 (double)report_uint(p99, "during") / 1000);
    else
        out_line(&c->out, "reading waited %s for the guest", time);
}

static int
report(struct cli *c, const struct jv *point, struct err *err)
{
    char ref[POINT_REF_MAX], consistency[384];

    if (c->out.quiet)
        return 0;
    point_ref(point, POINT_REF_DIGITS, ref, sizeof ref);
    point_consistency(point, consistency, sizeof consistency);
    if (report_disks(&c->out, jv_get(point, "disks"), err) != 0)
        return -1;
    report_skipped(c);
    report_notes(c, jv_get(point, "disks"));
    report_audit(c, jv_get(point, "disks"));
    if (report_uint(point, "healed_chunks") > 0)
        out_line(&c->out,
                 "healed %" PRIu64 " damaged chunk%s: stored again from the "
                 "machine",
                 report_uint(point, "healed_chunks"),
                 report_uint(point, "healed_chunks") == 1 ? "" : "s");
    report_backoff(c, point);
    out_line(&c->out, "point %s committed, %s", ref, consistency);
    return 0;
}

static int
take_point(struct cli *c, const char *address, struct err *err)
{
    CLEANUP_JV struct jv *result = NULL;
    struct job_backup_opts o = {.machine = address,
                                .name = c->o.name,
                                .full = c->o.full,
                                .disks = cli_list(&c->o.disks),
                                .exclude = cli_list(&c->o.exclude),
                                .tags = cli_list(&c->o.tags),
                                .zstd_level = c->o.compress,
                                .paranoid = c->o.paranoid,
                                .audit = c->o.audit,
                                .threads = c->o.threads,
                                .limit_rate = c->o.limit_rate,
                                .no_backoff = c->o.no_backoff,
                                .resume = c->o.resume,
                                .hold = c->o.hold};
    struct err shown = ERR_INIT;
    int ret;

    if (check_lists(&c->o, err) != 0 || cli_repo(c, &o.repo, err) != 0 ||
        cli_source(c, &o.source, err) != 0)
        return -1;
    if (hooked_backup(c, &o, &result, err) != 0)
        return -1;
    cli_remember(c, result);
    meter_clear(&c->out.meter);
    out_warnings(&c->out, jv_get(result, "warnings"));
    ret = c->out.json ? cli_event_result(c, result, "committed", &shown)
                      : report(c, result, &shown);
    /* Whatever happens to the report: the point exists. */
    if (ret != 0)
        out_warning(&c->out, shown.msg);
    return cli_status(c);
}

/* First what the configuration has, then the options as a whole. */
static int
run(struct cli *c, struct err *err)
{
    const char *address;

    if (check_lists(&c->o, err) != 0 || config_machine(c, &address, err) != 0)
        return -1;
    return take_point(c, address, err);
}

const struct command command_backup = {
    .id = CMD_BACKUP,
    .name = "backup",
    .operand_name = "MACHINE",
    .operand = OPERAND_REQUIRED,
    .summary = "take a point of a machine",
    .about = "Takes a recovery point of MACHINE and commits it to the "
             "repository.\n"
             "MACHINE is qmp:/path.sock or "
             "qmp:/path.sock,agent=/path.sock; of a machine that is off\n"
             "file:/disk0.qcow2[,format=raw|qcow2][,disk=NAME],/disk1...; or "
             "a name in\ntidemark.conf.",
    .opts = opts,
    .events = true,
    .signals = true,
    .recorded = true,
    .run = run,
};
