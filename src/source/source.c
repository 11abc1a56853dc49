#include "source.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block.h"
#include "cleanup.h"
#include "err.h"
#include "identity.h"
#include "jv.h"
#include "log.h"
#include "source_internal.h"

#define CONNECT_MS 10000
#define AGENT_MS 5000
#define HOLD_MS 10000

int
source_qmp(struct source *s, const char *command, struct jv *args,
           struct err *err)
{
    return qmp_call(s->qmp, command, args, QMP_TIMEOUT_MS, NULL, err);
}

static void
probe_features(struct source *s)
{
    struct features *f = &s->features;
    const struct qmp_schema *sc = s->schema;
    const char *element =
        qmp_schema_meta(sc, "block-export-add", "type=nbd/bitmaps/[]");

    f->snapshot_access =
        qmp_schema_has(sc, "blockdev-add", "driver=snapshot-access");
    f->export_node_bitmap =
        element != NULL && strcmp(element, "alternate") == 0;
    f->filter_name = qmp_schema_has(sc, "blockdev-backup", "filter-node-name");
    f->export_add = qmp_schema_command(sc, "block-export-add");
    f->blockdev_create = qmp_schema_command(sc, "blockdev-create");
    f->nodes_flat = qmp_schema_has(sc, "query-named-block-nodes", "flat");
    f->on_cbw_error = qmp_schema_has(sc, "blockdev-backup", "on-cbw-error");
    f->block_graph = qmp_schema_command(sc, "x-debug-query-block-graph");
    f->iothread_nbd_safe = !qmp_older(s->qmp, 9, 0, 0);
    f->latency_histogram =
        qmp_schema_command(sc, "block-latency-histogram-set");
    f->snapshot_status = !qmp_older(s->qmp, 8, 0, 0);
}

/* Does the device or the controller it hangs on have an iothread?  1, 0, or -1
 * when QEMU does not say. */
static int
device_iothread(struct source *s, const char *qdev)
{
    CLEANUP_FREE char *path = strdup(qdev);
    bool on_bus = false;

    for (unsigned i = 0; path != NULL && i < 16; i++) {
        CLEANUP_JV struct jv *v = NULL;
        char *slash;

        if (qmp_call(
                s->qmp, "qom-get",
                jv_build("{s:s, s:s}", "path", path, "property", "iothread"),
                QMP_TIMEOUT_MS, &v, NULL) == 0)
            return jv_str(v) != NULL && jv_str(v)[0] != '\0';
        if (!on_bus) {
            CLEANUP_JV struct jv *bus = NULL;

            if (qmp_call(s->qmp, "qom-get",
                         jv_build("{s:s, s:s}", "path", path, "property",
                                  "parent_bus"),
                         QMP_TIMEOUT_MS, &bus, NULL) < 0 ||
                jv_str(bus) == NULL)
                return -1;
            free(path);
            path = strdup(jv_str(bus));
            on_bus = true;
        }
        slash = path != NULL ? strrchr(path, '/') : NULL;
        if (slash == NULL || slash == path)
            return 0;
        *slash = '\0';
    }
    return -1;
}

/* Where QEMU does not say, a machine that has iothreads is taken to use them:
 * the other guess can kill it. */
static void
look_iothreads(struct source *s)
{
    CLEANUP_JV struct jv *threads = NULL;
    bool any;

    any = qmp_call(s->qmp, "query-iothreads", NULL, QMP_TIMEOUT_MS, &threads,
                   NULL) < 0 ||
          jv_size(threads) > 0;
    for (size_t i = 0; i < s->inv.n; i++) {
        struct disk *d = &s->inv.disks[i];

        d->iothread = any && d->skip == NULL && d->qdev != NULL &&
                      device_iothread(s, d->qdev) != 0;
    }
}

static int
view_disks(struct source *s, struct err *err)
{
    free(s->disks);
    s->disks = calloc(s->inv.n + 1, sizeof *s->disks);
    if (s->disks == NULL)
        return err_set_errno(err, ENOMEM, "disk list");
    for (size_t i = 0; i < s->inv.n; i++) {
        const struct disk *d = &s->inv.disks[i];

        s->disks[i] = (struct source_disk){
            .name = d->name,
            .node = d->node,
            .format = d->format,
            .file = d->file,
            .size = d->size,
            .persistent = d->persistent,
            .iothread = d->iothread,
            .skip = d->skip,
            .info = d->info,
        };
    }
    return 0;
}

int
source_look(struct source *s, struct err *err)
{
    CLEANUP_JV struct jv *blocks = NULL;
    CLEANUP_JV struct jv *graph = NULL;
    struct inventory inv = {0};
    struct jv *nodes = NULL;

    if (s->off == NULL &&
        qmp_call(s->qmp, "query-block", NULL, QMP_TIMEOUT_MS, &blocks, err) < 0)
        return -1;
    if (qmp_block_nodes(s->qmp, &nodes, err) < 0)
        return -1;
    jv_free(s->nodes);
    s->nodes = nodes;
    if (s->off != NULL)
        blocks = offline_blocks(s, nodes);
    if (s->features.block_graph &&
        qmp_call(s->qmp, "x-debug-query-block-graph", NULL, QMP_TIMEOUT_MS,
                 &graph, err) < 0)
        return -1;
    if (inventory_parse(blocks, nodes, graph, &inv, err) < 0)
        return -1;
    inventory_done(&s->inv);
    s->inv = inv;
    if (s->off == NULL)
        look_iothreads(s);
    else if (offline_files(s, err) < 0)
        return -1;
    if (identity_fill(s, err) < 0)
        return -1;
    return view_disks(s, err);
}

static int
look_identity(struct source *s, struct err *err)
{
    CLEANUP_JV struct jv *name = NULL;
    CLEANUP_JV struct jv *uuid = NULL;
    const char *text;

    if (qmp_call(s->qmp, "query-name", NULL, QMP_TIMEOUT_MS, &name, err) < 0 ||
        qmp_call(s->qmp, "query-uuid", NULL, QMP_TIMEOUT_MS, &uuid, err) < 0)
        return -1;
    text = jv_get_str(name, "name");
    s->name = text != NULL ? strdup(text) : NULL;
    text = jv_get_str(uuid, "UUID");
    if (text != NULL &&
        strcmp(text, "00000000-0000-0000-0000-000000000000") != 0)
        s->uuid = strdup(text);
    return 0;
}

/* Forks: no thread may exist yet. */
static int
start_guard(struct source *s, struct err *err)
{
    struct err why = ERR_INIT;

    if (s->at.agent == NULL || s->opts.quiesce == QUIESCE_OFF) {
        if (s->opts.quiesce == QUIESCE_REQUIRE)
            return err_set(err, ERR_USAGE,
                           "--quiesce require needs the guest agent's socket; "
                           "write the machine as qmp:%s,agent=/path.sock",
                           s->at.qmp);
        (void)snprintf(s->agent_note, sizeof s->agent_note, "%s",
                       s->at.agent == NULL ? "no guest agent was given"
                                           : "quiescing is off");
        return 0;
    }
    if (guard_start(s->at.agent, AGENT_MS, s->opts.hold_ms, &s->guard, &why) ==
        0)
        return 0;
    if (s->opts.quiesce == QUIESCE_REQUIRE) {
        return err_copy(err, &why);
    }
    (void)snprintf(s->agent_note, sizeof s->agent_note, "%.200s", why.msg);
    return 0;
}

static void
choose_rung(struct source *s)
{
    const char *force = getenv("TIDEMARK_PULL");

    /* Which disks take part is the job's decision, and only theirs matter:
     * source_begin() looks at their iothreads. */
    s->rung = rung_choose(&s->features, NULL,
                          force != NULL && strcmp(force, "overlay") == 0,
                          s->refusal, sizeof s->refusal);
}

/* Given by option or environment: taken as it is. */
static int
choose_scratch(struct source *s, struct err *err)
{
    const char *given = rundir_scratch_default(s->opts.scratch);
    struct scratch_places p = {0};
    uint64_t disks = 0;
    size_t i;

    if (given == NULL) {
        if (scratch_look(&s->inv, &p, err) < 0)
            return -1;
        for (i = 0; i < s->inv.n; i++)
            disks += s->inv.disks[i].skip == NULL ? s->inv.disks[i].size : 0;
        i = scratch_choose(p.v, p.n, scratch_room(disks));
        given = i < p.n ? p.v[i].dir : SCRATCH_SYSTEM;
        log_debug("scratch files go to '%s'", given);
    }
    s->scratch = strdup(given);
    scratch_places_done(&p);
    return s->scratch != NULL ? 0 : err_set_errno(err, ENOMEM, "scratch area");
}

int
source_probe(struct source *s, struct err *err)
{
    qmp_on_event(s->qmp, capture_event, s);
    if (qmp_schema_load(s->qmp, &s->schema, err) < 0)
        return -1;
    probe_features(s);
    choose_rung(s);
    return 0;
}

/* Nobody listens at the machine's QMP socket, so it is off, and we were told
 * where its images are. */
static int
fall_back(struct source *s, const struct err *why, struct err *err)
{
    CLEANUP(address_done) struct address at = {0};
    struct err more = ERR_INIT;

    if (s->opts.offline == NULL || why->code != ERR_SYSTEM ||
        (why->sys != ENOENT && why->sys != ECONNREFUSED))
        return err_copy(err, why);
    if (address_parse(s->opts.offline, &at, err) < 0)
        return -1;
    if (offline_open(s, &at, &more) == 0)
        return 0;
    (void)err_copy(err, &more);
    return err_wrap(err,
                    "the machine does not answer (%.200s), and as one that "
                    "is off",
                    why->msg);
}

/* A typing error in it should not wait for the night the machine is off. */
static int
check_offline(const struct source *s, struct err *err)
{
    CLEANUP(address_done) struct address at = {0};

    if (s->opts.offline == NULL)
        return 0;
    if (s->at.qmp == NULL)
        return err_set(err, ERR_USAGE,
                       "--offline is for a machine that is written as qmp:");
    if (address_parse(s->opts.offline, &at, err) < 0)
        return -1;
    if (at.qmp != NULL)
        return err_set(err, ERR_USAGE,
                       "--offline '%s': write file:/disk0.qcow2,...",
                       s->opts.offline);
    return 0;
}

static int
open_source(struct source *s, const char *machine, struct err *err)
{
    struct err why = ERR_INIT;
    unsigned uid, gid;
    int pid;

    if (address_parse(machine, &s->at, err) < 0 || check_offline(s, err) < 0)
        return -1;
    if (s->opts.hold_ms == 0)
        s->opts.hold_ms = HOLD_MS;
    if (s->at.qmp == NULL)
        return offline_open(s, &s->at, err);
    if (!s->opts.look_only &&
        rundir_open(s->opts.run_dir, s->at.qmp, &s->run, err) < 0)
        return -1;
    if (qmp_connect(s->at.qmp, CONNECT_MS, &s->qmp, &why) < 0)
        return fall_back(s, &why, err);
    qmp_peer(s->qmp, &uid, &gid, &pid);
    if (!s->opts.look_only &&
        (rundir_lock_process(s->run, pid, err) < 0 || start_guard(s, err) < 0))
        return -1;
    if (source_probe(s, err) < 0)
        return -1;
    if (!s->features.nodes_flat)
        return err_set(err, ERR_UNSUPPORTED, "machine '%s': %s", machine,
                       s->refusal);
    return look_identity(s, err) < 0 ? -1 : source_look(s, err);
}

int
source_open(const char *machine, const struct source_opts *opts,
            struct source **ret, struct err *err)
{
    struct source *s = calloc(1, sizeof *s);

    if (s == NULL)
        return err_set_errno(err, ENOMEM, "machine '%s'", machine);
    s->opts = *opts;
    if (open_source(s, machine, err) < 0 || choose_scratch(s, err) < 0) {
        source_close(s);
        return -1;
    }
    *ret = s;
    return 0;
}

void
source_close(struct source *s)
{
    if (s == NULL)
        return;
    if (s->qmp != NULL && s->dirty && !s->hold)
        (void)source_release(s, NULL);
    histograms_end(s);
    guard_stop(s->guard);
    offline_close(s);
    qmp_close(s->qmp);
    qmp_schema_free(s->schema);
    capture_done(&s->cap);
    standing_done(&s->standing);
    /* An unclean end keeps the journal: the next run reads what to do. */
    rundir_close(s->run, !s->dirty && !s->maybe_frozen);
    inventory_done(&s->inv);
    jv_free(s->nodes);
    address_done(&s->at);
    free(s->disks);
    free(s->scratch);
    free(s->name);
    free(s->uuid);
    free(s);
}

const char *
source_name(const struct source *s)
{
    return s->name;
}

const char *
source_scratch(const struct source *s)
{
    return s->scratch;
}

const char *
source_uuid(const struct source *s)
{
    return s->uuid;
}

size_t
source_n_disks(const struct source *s)
{
    return s->inv.n;
}

const struct source_disk *
source_disk(const struct source *s, size_t i)
{
    return &s->disks[i];
}

enum rung
source_rung(const struct source *s)
{
    return s->rung;
}

bool
source_offline(const struct source *s)
{
    return s->off != NULL;
}

const char *
source_refusal(const struct source *s)
{
    return s->refusal;
}
