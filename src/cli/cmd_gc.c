#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "cleanup.h"
#include "cli.h"
#include "err.h"
#include "jv.h"
#include "size.h"

static const struct opt opts[] = {
    OPT(repo, 0, "DIR", opt_set_text, "repository (TIDEMARK_REPO)"),
    OPT_NAMED("dry-run", dry_run, NULL, opt_set_flag,
              "say what would be freed and change nothing"),
    OPT(rewrite, 0, "PERCENT", opt_set_percent,
        "rewrite packs of which as much or more is not\nneeded (50)"),
    OPT_NAMED("fence-after", fence_after, "TIME", opt_set_duration,
              "take a run for dead whose heartbeat stands still\nfor so long "
              "(15m)"),
    OPT_END,
};

/* -- for people -------------------------------------------------------------*/

static void __attribute__((format(printf, 3, 4)))
field(struct out *o, const char *label, const char *fmt, ...)
{
    char text[160];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    out_field(o, label, text);
}

/* What happens seldom is told when it happened. */
static void
report_events(struct out *o, const struct jv *g)
{
    uint64_t leftovers = report_uint(g, "leftovers");
    uint64_t fenced = report_uint(g, "sessions_fenced");

    if (leftovers > 0)
        field(o, "leftovers", "%" PRIu64 " packs and segments of dead runs",
              leftovers);
    if (fenced > 0)
        field(o, "fenced", "%" PRIu64 " run%s without a heartbeat", fenced,
              fenced == 1 ? "" : "s");
    if (report_uint(g, "resumed") > 0)
        field(o, "resumed", "an unfinished collection was brought to its end");
}

int
report_gc(struct out *o, const struct jv *g, struct err *err)
{
    bool dry = jv_get_bool(g, "dry_run", false);
    char a[SIZE_TEXT_MAX], b[SIZE_TEXT_MAX];

    field(o, "points", "%" PRIu64 " removed, %" PRIu64 " stay",
          report_uint(g, "points_removed"), report_uint(g, "points_live"));
    field(o, "packs",
          "%" PRIu64 " of %" PRIu64 " removed, %" PRIu64 " of them rewritten",
          report_uint(g, "packs_removed"), report_uint(g, "packs"),
          report_uint(g, "packs_rewritten"));
    field(o, "space", "%s of %s removed, %s copied",
          size_text(report_uint(g, "removed_bytes"), a),
          size_text(report_uint(g, "before_bytes"), b),
          size_text(report_uint(g, "copied_bytes"), (char[SIZE_TEXT_MAX]){0}));
    field(o, "index", "%" PRIu64 " segment%s, %" PRIu64 " before",
          report_uint(g, "segments_after"),
          report_uint(g, "segments_after") == 1 ? "" : "s",
          report_uint(g, "segments_before"));
    report_events(o, g);
    if (dry)
        out_line(o, "nothing was changed (--dry-run)");
    return 0;
}

/* -- the command ------------------------------------------------------------*/

static int
run(struct cli *c, struct err *err)
{
    CLEANUP_JV struct jv *result = NULL;
    struct job_gc_opts o = {.dry_run = c->o.dry_run,
                            .rewrite = c->o.rewrite,
                            .fence_after = c->o.fence_after};
    bool busy;
    int ret = 0;

    if (cli_repo(c, &o.repo, err) != 0 ||
        job_gc(&o, &c->hooks, &result, err) != 0)
        return -1;
    cli_remember(c, result);
    meter_clear(&c->out.meter);
    busy = jv_get_bool(result, "other_runs", false);
    if (busy)
        out_complain(&c->out, "another collector works on this repository: "
                              "nothing was done");
    if (c->out.json)
        ret = out_json(&c->out, result, err);
    else if (!c->out.quiet && !busy)
        ret = report_gc(&c->out, result, err);
    if (ret != 0)
        return -1;
    return busy ? EXIT_BUSY : cli_status(c);
}

const struct command command_gc = {
    .id = CMD_GC,
    .name = "gc",
    .operand = OPERAND_NONE,
    .summary = "free what no point needs",
    .about = "Removes the points that were pruned, and frees the space that no "
             "point needs.\n"
             "May run beside backups and restores; may be stopped and run "
             "again.",
    .opts = opts,
    .signals = true,
    .recorded = true,
    .run = run,
};
