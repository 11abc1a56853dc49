/* source/doctor.c - what a person should know before the first backup. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "agent.h"
#include "block.h"
#include "cleanup.h"
#include "err.h"
#include "jv.h"
#include "source_internal.h"

#define AGENT_MS 3000

static const char *
rung_name(enum rung r)
{
    switch (r) {
    case RUNG_SNAPSHOT:
        return "snapshot-access";
    case RUNG_OVERLAY:
        return "overlay";
    case RUNG_NONE:
        break;
    }
    return "none";
}

/* Our bitmaps of a disk, of all repositories, with their state. */
static struct jv *
bitmaps_of(const struct source *s, const struct disk *d)
{
    const struct jv *list =
        jv_get(qmp_block_find(s->nodes, d->node), "dirty-bitmaps");
    struct jv *out = jv_array();

    for (size_t i = 0; i < jv_size(list); i++) {
        const struct jv *b = jv_at(list, i);
        const char *name = jv_get_str(b, "name");

        if (name != NULL && *name != '\0')
            (void)jv_add(out, jv_ref(b));
    }
    return out;
}

static struct jv *
describe_disks(const struct source *s)
{
    struct jv *out = jv_array();

    for (size_t i = 0; i < s->inv.n; i++) {
        const struct disk *d = &s->inv.disks[i];
        struct jv *o = jv_build(
            "{s:s, s:s, s:s, s:s, s:I, s:b, s:b, s:o}", "disk", d->name, "node",
            d->node, "format", d->format, "file", d->file, "size",
            (int64_t)d->size, "persistent", d->persistent, "iothread",
            d->iothread, "bitmaps", bitmaps_of(s, d));

        if (d->skip != NULL)
            (void)jv_set_str(o, "skipped", d->skip);
        (void)jv_add(out, o);
    }
    return out;
}

static struct jv *
describe_features(const struct features *f)
{
    return jv_build("{s:b, s:b, s:b, s:b, s:b}", "snapshot-access",
                    f->snapshot_access, "export-node-bitmap",
                    f->export_node_bitmap, "block-export-add", f->export_add,
                    "on-cbw-error", f->on_cbw_error, "iothread-nbd-safe",
                    f->iothread_nbd_safe);
}

static void
warn(struct jv *warnings, const char *fmt, const char *what)
{
    char text[1024];

    (void)snprintf(text, sizeof text, "%s%s", fmt, what);
    (void)jv_add(warnings, jv_string(text));
}

static struct jv *
describe_agent(const struct source *s, struct jv *warnings)
{
    struct agent *a = NULL;
    struct err why = ERR_INIT;
    bool frozen = false;
    struct jv *o;

    if (s->off != NULL)
        return jv_null();
    if (s->at.agent == NULL) {
        warn(warnings,
             "no guest agent was given: points will be crash-consistent; ",
             "write the machine as qmp:PATH,agent=PATH");
        return jv_null();
    }
    if (agent_open(s->at.agent, AGENT_MS, &a, &why) < 0) {
        warn(warnings, "the guest agent does not answer: ", why.msg);
        return jv_build("{s:b, s:s}", "answers", 0, "problem", why.msg);
    }
    o = jv_build("{s:b}", "answers", 1);
    if (agent_frozen(a, AGENT_MS, &frozen, NULL) == 0)
        (void)jv_set_bool(o, "frozen", frozen);
    if (frozen)
        warn(warnings, "the guest's file systems are frozen now", "");
    agent_close(a);
    return o;
}

static struct jv *
describe_scratch(const struct source *s, struct jv *warnings)
{
    struct statvfs vfs;

    if (statvfs(s->scratch, &vfs) < 0) {
        warn(warnings, "there is no scratch area at ", s->scratch);
        return jv_build("{s:s}", "path", s->scratch);
    }
    return jv_build("{s:s, s:I}", "path", s->scratch, "free",
                    (int64_t)((uint64_t)vfs.f_bavail * vfs.f_frsize));
}

static void
warn_disks(const struct source *s, struct jv *warnings)
{
    char refusal[512];
    size_t n = 0;

    for (size_t i = 0; i < s->inv.n; i++) {
        const struct disk *d = &s->inv.disks[i];

        n += d->skip == NULL;
        if (d->skip == NULL && !d->persistent)
            warn(warnings, d->name,
                 s->off != NULL
                     ? ": its image cannot keep a bitmap, so each backup while "
                       "the machine is off reads the whole disk"
                     : ": its image cannot keep a bitmap, so the backup after "
                       "a restart of the machine reads the whole disk");
        if (d->iothread && d->skip == NULL &&
            rung_choose(&s->features, d->name, false, refusal,
                        sizeof refusal) == RUNG_NONE)
            warn(warnings, refusal, "");
    }
    if (n == 0)
        warn(warnings, "the machine has no disk that could be backed up", "");
}

static int
describe_leftovers(struct source *s, struct jv *out, struct jv *warnings,
                   struct err *err)
{
    struct leftovers l = {0};

    if (!s->features.export_add)
        return 0;
    if (leftovers_find(s, &l, err) < 0)
        return -1;
    if (leftovers_count(&l) > 0)
        warn(warnings,
             "a run that died left something in QEMU; the next backup removes "
             "it, or finishes its point with --resume",
             "");
    (void)jv_set(out, "leftovers",
                 jv_build("{s:O, s:O, s:O, s:O}", "exports", l.exports, "jobs",
                          l.jobs, "nodes", l.nodes, "bitmaps", l.bitmaps));
    leftovers_done(&l);
    return 0;
}

int
source_doctor(struct source *s, struct jv **ret, struct err *err)
{
    CLEANUP_JV struct jv *out = jv_object();
    struct qmp_version v = qmp_version(s->qmp);
    struct jv *warnings = jv_array();
    char version[64];

    (void)snprintf(version, sizeof version, "%u.%u.%u", v.major, v.minor,
                   v.micro);
    if (out == NULL || jv_set(out, "warnings", warnings) < 0)
        return err_set_errno(err, ENOMEM, "report");
    (void)jv_set_str(out, "machine", s->name ? s->name : "");
    if (s->uuid != NULL)
        (void)jv_set_str(out, "uuid", s->uuid);
    (void)jv_set_str(out, "qemu", version);
    (void)jv_set_str(out, "capture",
                     s->off != NULL && s->rung != RUNG_NONE
                         ? "offline"
                         : rung_name(s->rung));
    if (s->refusal[0] != '\0')
        warn(warnings, s->refusal, "");
    (void)jv_set(out, "features", describe_features(&s->features));
    (void)jv_set(out, "disks", describe_disks(s));
    (void)jv_set(out, "agent", describe_agent(s, warnings));
    (void)jv_set(out, "scratch", describe_scratch(s, warnings));
    warn_disks(s, warnings);
    if (s->name == NULL && s->off == NULL)
        warn(warnings,
             "the machine has no name of its own: back it up with --name NAME",
             "");
    if (describe_leftovers(s, out, warnings, err) < 0)
        return -1;
    *ret = TAKE_PTR(out);
    return 0;
}
