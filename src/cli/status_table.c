/* The status as a table for people. */
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "cli.h"
#include "err.h"
#include "jv.h"
#include "status.h"
#include "table.h"

static const char *
tracking_text(const struct jv *m, char *buf, size_t len)
{
    const struct jv *disks = jv_get(m, "disks");
    size_t n = jv_size(disks), tracked = 0, kept = 0;

    for (size_t i = 0; i < n; i++) {
        tracked += jv_get_bool(jv_at(disks, i), "tracked", false);
        kept += jv_get_bool(jv_at(disks, i), "persistent", false) &&
                jv_get_bool(jv_at(disks, i), "tracked", false);
    }
    if (n == 0)
        return NULL;
    if (kept == n)
        return "incremental next";
    if (tracked == n)
        return "incremental until power-off";
    (void)snprintf(buf, len, "%zu of %zu full next", n - tracked, n);
    return buf;
}

static const char *
full_text(const struct jv *m, char *buf, size_t len)
{
    const struct jv *disks = jv_get(m, "disks"), *last = NULL;

    for (size_t i = 0; i < jv_size(disks); i++) {
        const struct jv *d = jv_at(disks, i);

        if (jv_get_str(d, "full_time") != NULL &&
            (last == NULL || strcmp(jv_get_str(d, "full_time"),
                                    jv_get_str(last, "full_time")) > 0))
            last = d;
    }
    if (last == NULL)
        return NULL;
    (void)snprintf(buf, len, "%.10s: %s", jv_get_str(last, "full_time"),
                   report_str(last, "full_reason", ""));
    return buf;
}

int
status_table(struct out *o, const struct jv *machines, bool plain,
             struct err *err)
{
    CLEANUP(table_freep)
    struct table *t = table_new("MACHINE|STATE|LAST GOOD POINT|TRACKING|LAST "
                                "FULL READ|VERIFIED|REMARK");
    char tracking[64], full[256];

    for (size_t i = 0; i < jv_size(machines); i++) {
        const struct jv *m = jv_at(machines, i);

        table_text(t, report_str(m, "machine", ""));
        table_text(t, jv_get_bool(m, "configured", false) || plain
                          ? report_str(m, "state", "")
                          : "not configured");
        table_text(t, report_str(m, "time", NULL));
        table_text(t, tracking_text(m, tracking, sizeof tracking));
        table_text(t, full_text(m, full, sizeof full));
        table_text(t, report_str(m, "verified", "never"));
        table_text(t, report_str(m, "text", ""));
    }
    return table_rows(t) > 0 ? table_print(t, 0, o->result, err) : 0;
}
