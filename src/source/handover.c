/* source/handover.c - taking the point: one instant for all disks.
 *
 * Order matters here more than anywhere else:
 *   everything slow first (scratch, NBD server), then freeze, one transaction,
 *   thaw, and only then the nodes and exports that need no instant.
 * The transaction adds, per disk: the new generation's bitmap, the backup job
 * whose filter keeps old data in the scratch file, and a disabled temporary
 * bitmap, into which the base bitmap is merged (that copy is exported: the base
 * itself is never touched and goes on recording).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "block.h"
#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "jv.h"
#include "log.h"
#include "source_internal.h"

#define SCRATCH_MIN (1u << 20) /* with less the guest's first write breaks it */

static const char *
disk_name(const struct source *s, const struct capture_disk *d)
{
    return s->inv.disks[d->disk].name;
}

static const char *
disk_node(const struct source *s, const struct capture_disk *d)
{
    return s->inv.disks[d->disk].node;
}

static char *
bitmap_name(const char *repo_id, const char *generation)
{
    char prefix[BITMAP_NAME_MAX];
    char *name = NULL;

    bitmap_prefix(repo_id, prefix);
    if (asprintf(&name, "%s%s", prefix, generation) < 0)
        return NULL;
    return name;
}

int
capture_name_disk(struct source *s, const char *run, struct capture_disk *d,
                  size_t i, const struct source_want *want, const char *repo_id,
                  struct err *err)
{
    unsigned no = (unsigned)i;

    d->disk = want->disk;
    d->persistent = s->inv.disks[want->disk].persistent;
    d->fresh = bitmap_name(repo_id, want->generation);
    d->base = want->base ? bitmap_name(repo_id, want->base) : NULL;
    d->rest = want->rest ? bitmap_name(repo_id, want->rest) : NULL;
    (void)snprintf(d->older, NAME_MAX_LEN, PREFIX "%s-older", run);
    (void)snprintf(d->rest_context, sizeof d->rest_context,
                   "qemu:dirty-bitmap:%s", d->older);
    (void)snprintf(d->dirty, NAME_MAX_LEN, PREFIX "%s-dirty", run);
    (void)snprintf(d->job, NAME_MAX_LEN, PREFIX "%s-job%u", run, no);
    (void)snprintf(d->filter, NAME_MAX_LEN, PREFIX "%s-cbw%u", run, no);
    (void)snprintf(d->snap, NAME_MAX_LEN, PREFIX "%s-snap%u", run, no);
    (void)snprintf(d->scratch, NAME_MAX_LEN, PREFIX "%s-scr%u", run, no);
    (void)snprintf(d->file, NAME_MAX_LEN, PREFIX "%s-file%u", run, no);
    (void)snprintf(d->export_id, NAME_MAX_LEN, PREFIX "%s-exp%u", run, no);
    (void)snprintf(d->paint, NAME_MAX_LEN, PREFIX "%s-pnt%u", run, no);
    (void)snprintf(d->paint_bitmap, NAME_MAX_LEN, PREFIX "%s-paint", run);
    (void)snprintf(d->paint_export, NAME_MAX_LEN, PREFIX "%s-pex%u", run, no);
    (void)snprintf(d->context, sizeof d->context, "qemu:dirty-bitmap:%s",
                   d->dirty);
    if (d->fresh == NULL || (want->base != NULL && d->base == NULL) ||
        (want->rest != NULL && d->rest == NULL))
        return err_set_errno(err, ENOMEM, "disk '%s'", disk_name(s, d));
    return 0;
}

/* A sparse file of our own, which QEMU's user may write. */
static int
make_scratch_file(struct source *s, const char *dir, struct capture_disk *d,
                  uint64_t size, struct err *err)
{
    CLEANUP_CLOSE int fd = -1;
    unsigned uid, gid;
    int pid;

    if (asprintf(&d->path, "%s/%s", dir, disk_name(s, d)) < 0) {
        d->path = NULL;
        return err_set_errno(err, ENOMEM, "scratch file");
    }
    qmp_peer(s->qmp, &uid, &gid, &pid);
    fd =
        open(d->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_set_errno(err, errno, "make scratch file '%s'", d->path);
    if (ftruncate(fd, (off_t)size) < 0)
        return err_set_errno(err, errno, "size scratch file '%s'", d->path);
    if (uid != geteuid() && fchown(fd, uid, gid) < 0)
        return err_set_errno(err, errno, "give '%s' to QEMU's user %u", d->path,
                             uid);
    return 0;
}

/* Snapshot rung: a raw file, whatever size the disk has. */
static int
scratch_raw(struct source *s, const char *dir, struct capture_disk *d,
            struct err *err)
{
    if (make_scratch_file(s, dir, d, s->inv.disks[d->disk].size, err) < 0)
        return -1;
    return source_qmp(s, "blockdev-add",
                      jv_build("{s:s, s:s, s:s, s:s}", "driver", "file",
                               "node-name", d->scratch, "filename", d->path,
                               "discard", "unmap"),
                      err);
}

/* Overlay rung: a qcow2 file that QEMU itself writes, with the disk as its
 * backing node: what was not saved in it is read from the live disk. */
static int
scratch_qcow2(struct source *s, const char *dir, struct capture_disk *d,
              struct err *err)
{
    char job[NAME_MAX_LEN];

    if (make_scratch_file(s, dir, d, 0, err) < 0)
        return -1;
    (void)snprintf(job, sizeof job, PREFIX "%s-create", rundir_id(s->run));
    if (source_qmp(s, "blockdev-add",
                   jv_build("{s:s, s:s, s:s}", "driver", "file", "node-name",
                            d->file, "filename", d->path),
                   err) < 0 ||
        source_qmp(s, "blockdev-create",
                   jv_build("{s:s, s:{s:s, s:s, s:I}}", "job-id", job,
                            "options", "driver", "qcow2", "file", d->file,
                            "size", (int64_t)s->inv.disks[d->disk].size),
                   err) < 0 ||
        qmp_job_wait(s->qmp, job, END_TIMEOUT_MS, err) < 0)
        return -1;
    return source_qmp(s, "blockdev-add",
                      jv_build("{s:s, s:s, s:s, s:s}", "driver", "qcow2",
                               "node-name", d->scratch, "file", d->file,
                               "backing", disk_node(s, d)),
                      err);
}

static int
make_scratch(struct source *s, struct err *err)
{
    struct capture *c = &s->cap;
    struct statvfs vfs;
    const char *dir;
    unsigned uid, gid;
    int pid;
    uint64_t avail;

    qmp_peer(s->qmp, &uid, &gid, &pid);
    if (rundir_scratch(s->run, s->scratch, uid, &dir, err) < 0)
        return -1;
    if (statvfs(dir, &vfs) < 0)
        return err_set_errno(err, errno, "scratch area '%s'", s->scratch);
    avail = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    if (avail < SCRATCH_MIN)
        return err_set(err, ERR_NO_SPACE,
                       "scratch area '%s' is full; choose another with "
                       "--scratch",
                       s->scratch);
    c->scratch_reserve =
        scratch_reserve(avail, scratch_with_images(&s->inv, s->scratch));
    for (size_t i = 0; i < c->n; i++) {
        int r = s->rung == RUNG_OVERLAY ? scratch_qcow2(s, dir, &c->v[i], err)
                                        : scratch_raw(s, dir, &c->v[i], err);

        if (r < 0)
            return err_wrap(err, "disk '%s': scratch", disk_name(s, &c->v[i]));
    }
    return 0;
}

/* There is one NBD server per QEMU: if somebody else's runs, its address is
 * not known to us and its exports are not ours to disturb. */
static int
start_server(struct source *s, struct err *err)
{
    struct capture *c = &s->cap;
    unsigned uid, gid;
    int pid;
    const char *dir;

    qmp_peer(s->qmp, &uid, &gid, &pid);
    if (rundir_sockets(s->run, uid, gid, &dir, err) < 0)
        return -1;
    if (asprintf(&c->socket, "%s/nbd.sock", dir) < 0) {
        c->socket = NULL;
        return err_set_errno(err, ENOMEM, "NBD socket path");
    }
    if (rundir_note(s->run, "nbd", c->socket, err) < 0)
        return -1;
    if (source_qmp(s, "nbd-server-start",
                   jv_build("{s:{s:s, s:{s:s}}, s:i}", "addr", "type", "unix",
                            "data", "path", c->socket, "max-connections", 0),
                   err) < 0) {
        if (strstr(qmp_error_desc(s->qmp), "already running") != NULL) {
            err_clear(err);
            return err_set(err, ERR_UNSUPPORTED,
                           "another program has started the NBD server of this "
                           "QEMU; end its export (see 'tidemark doctor') and "
                           "run again");
        }
        return -1;
    }
    c->server = true;
    return 0;
}

/* A disabled bitmap for a copy of what is to be read. */
static struct jv *
add_temporary(const char *node, const char *name)
{
    return qmp_action("block-dirty-bitmap-add",
                      jv_build("{s:s, s:s, s:i, s:b}", "node", node, "name",
                               name, "granularity", GRANULARITY, "disabled",
                               1));
}

static struct jv *
merge_into(const char *node, const char *target, const char *from)
{
    return qmp_action("block-dirty-bitmap-merge",
                      jv_build("{s:s, s:s, s:[s]}", "node", node, "target",
                               target, "bitmaps", from));
}

/* The order keeps a write that falls in between from being lost: a disk with an
 * iothread goes on writing until its backup action drains it (QEMU's drain at
 * the start of a transaction has ended by then).  So the new bitmap records
 * from before the instant and the base is copied after it: both can only have
 * too much. */
static int
add_disk_actions(struct source *s, struct capture_disk *d, struct jv *list)
{
    const char *node = disk_node(s, d);
    struct jv *backup, *fresh;
    int r = 0;

    fresh = jv_build("{s:s, s:s, s:i}", "node", node, "name", d->fresh,
                     "granularity", GRANULARITY);
    if (d->persistent)
        r |= jv_set_bool(fresh, "persistent", true);
    r |= jv_add(list, qmp_action("block-dirty-bitmap-add", fresh));
    if (d->painted)
        r |= jv_add(list, qmp_action("block-dirty-bitmap-merge",
                                     jv_build("{s:s, s:s, s:[{s:s, s:s}]}",
                                              "node", node, "target", d->fresh,
                                              "bitmaps", "node", d->paint,
                                              "name", d->paint_bitmap)));
    if (d->base != NULL)
        r |= jv_add(list, add_temporary(node, d->dirty));
    if (d->rest != NULL)
        r |= jv_add(list, add_temporary(node, d->older));
    backup = jv_build("{s:s, s:s, s:s, s:s, s:s, s:b}", "job-id", d->job,
                      "device", node, "target", d->scratch, "sync", "none",
                      "filter-node-name", d->filter, "auto-dismiss", 0);
    /* A scratch that fails must break the point, not the guest's write. */
    if (s->features.on_cbw_error)
        r |= jv_set_str(backup, "on-cbw-error", "break-snapshot");
    r |= jv_add(list, qmp_action("blockdev-backup", backup));
    if (d->base != NULL)
        r |= jv_add(list, merge_into(node, d->dirty, d->base));
    if (d->rest != NULL)
        r |= jv_add(list, merge_into(node, d->older, d->rest));
    return r;
}

static int
transaction(struct source *s, struct err *err)
{
    struct jv *actions = jv_array();
    int r = 0;

    for (size_t i = 0; i < s->cap.n; i++)
        r |= add_disk_actions(s, &s->cap.v[i], actions);
    if (actions == NULL || r < 0) {
        jv_free(actions);
        return err_set_errno(err, ENOMEM, "transaction");
    }
    return source_qmp(s, "transaction", jv_build("{s:o}", "actions", actions),
                      err);
}

/* An image that refuses to keep bitmaps (full of them, or of a kind we do not
 * know) still gets one that lives as long as QEMU does. */
static int
take_instant(struct source *s, struct source_instant *ret, struct err *err)
{
    struct err first = ERR_INIT;
    uint64_t start = clock_us();
    bool persistent = false;

    for (size_t i = 0; i < s->cap.n; i++)
        persistent |= s->cap.v[i].persistent;
    if (transaction(s, &first) < 0) {
        if (!persistent || first.code != ERR_REMOTE ||
            strstr(qmp_error_desc(s->qmp), "ersistent") == NULL)
            return err_copy(err, &first);
        log_debug("without persistent bitmaps, because: %s", first.msg);
        for (size_t i = 0; i < s->cap.n; i++)
            s->cap.v[i].persistent = false;
        start = clock_us();
        if (transaction(s, err) < 0)
            return -1;
    }
    s->cap.taken = true;
    ret->transaction_us = clock_us() - start;
    ret->time_ns = clock_wall_ns();
    return 0;
}

/* Freeze; in auto mode a guest that cannot be frozen is backed up all the same
 * and the point says what it is. */
static int
freeze(struct source *s, struct source_instant *ret, bool *ret_frozen,
       struct err *err)
{
    struct err why = ERR_INIT;
    unsigned count = 0;

    *ret_frozen = false;
    if (s->guard == NULL) {
        (void)snprintf(ret->note, sizeof ret->note, "%.250s", s->agent_note);
        return 0;
    }
    if (rundir_note(s->run, "frozen", "perhaps", err) < 0)
        return -1;
    if (guard_freeze(s->guard, &count, &why) < 0) {
        if (s->opts.quiesce == QUIESCE_REQUIRE) {
            (void)err_copy(err, &why);
            return err_wrap(err, "freeze the guest");
        }
        (void)snprintf(ret->note, sizeof ret->note, "%.250s", why.msg);
        return 0;
    }
    *ret_frozen = true;
    ret->filesystems = count;
    return 0;
}

static void
thaw(struct source *s, struct source_instant *ret)
{
    struct guard_report report = {0};

    ret->thaw_confirmed = true;
    if (s->guard == NULL)
        return;
    (void)guard_thaw(s->guard, &report, NULL);
    ret->thaw_confirmed = report.thaw_confirmed;
    ret->freeze_ms = report.freeze_ms;
    ret->filesystem = report.held && report.filesystems > 0 && s->cap.taken;
    if (report.note[0] != '\0' && ret->note[0] == '\0')
        (void)snprintf(ret->note, sizeof ret->note, "%.250s", report.note);
    if (report.held && report.filesystems == 0)
        (void)snprintf(ret->note, sizeof ret->note,
                       "the agent froze no file system");
    s->maybe_frozen = !report.thaw_confirmed;
    if (report.thaw_confirmed)
        (void)rundir_note(s->run, "frozen", "no", NULL);
}

/* Without {node, name} (below 7.1) the name is looked up down the chain, which an
 * overlay's backing link provides. */
static int
add_bitmap(struct source *s, const struct capture_disk *d, const char *name,
           struct jv *list)
{
    if (s->rung == RUNG_OVERLAY)
        return jv_add(list, jv_string(name));
    return jv_add(
        list, jv_build("{s:s, s:s}", "node", disk_node(s, d), "name", name));
}

static int
export_disk(struct source *s, struct capture_disk *d, struct err *err)
{
    const char *node = s->rung == RUNG_OVERLAY ? d->scratch : d->snap;
    struct jv *args;

    if (s->rung == RUNG_SNAPSHOT &&
        source_qmp(s, "blockdev-add",
                   jv_build("{s:s, s:s, s:s}", "driver", "snapshot-access",
                            "node-name", d->snap, "file", d->filter),
                   err) < 0)
        return -1;
    args =
        jv_build("{s:s, s:s, s:s, s:s, s:b}", "type", "nbd", "id", d->export_id,
                 "node-name", node, "name", d->export_id, "writable", 0);
    if (d->base != NULL) {
        CLEANUP_JV struct jv *list = jv_array();

        if (add_bitmap(s, d, d->dirty, list) < 0 ||
            (d->rest != NULL && add_bitmap(s, d, d->older, list) < 0) ||
            jv_set(args, "bitmaps", jv_ref(list)) < 0) {
            jv_free(args);
            return err_set_errno(err, ENOMEM, "export");
        }
    }
    return source_qmp(s, "block-export-add", args, err);
}

static int
check_wants(struct source *s, const struct source_want *want, size_t n,
            struct err *err)
{
    char refusal[sizeof s->refusal];

    if (s->rung == RUNG_NONE)
        return err_set(err, ERR_UNSUPPORTED, "%s", s->refusal);
    for (size_t i = 0; i < n; i++) {
        const struct disk *d = &s->inv.disks[want[i].disk];

        if (d->iothread && rung_choose(&s->features, d->name, false, refusal,
                                       sizeof refusal) == RUNG_NONE)
            return err_set(err, ERR_UNSUPPORTED, "%s", refusal);
    }
    return 0;
}

static int
prepare(struct source *s, const char *repo_id, const struct source_want *want,
        size_t n, struct err *err)
{
    if (check_wants(s, want, n, err) < 0)
        return -1;
    s->cap.v = calloc(n, sizeof *s->cap.v);
    if (s->cap.v == NULL)
        return err_set_errno(err, ENOMEM, "capture of %zu disks", n);
    s->cap.n = n;
    for (size_t i = 0; i < n; i++)
        if (capture_name_disk(s, rundir_id(s->run), &s->cap.v[i], i, &want[i],
                              repo_id, err) < 0)
            return -1;
    s->dirty = true;
    if (make_scratch(s, err) < 0 || start_server(s, err) < 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        if (want[i].n_canaries > 0 &&
            paint_disk(s, &s->cap.v[i], want[i].canaries, want[i].n_canaries,
                       err) < 0)
            return err_wrap(err, "disk '%s': canaries",
                            disk_name(s, &s->cap.v[i]));
    return capture_note(s, repo_id, want, n, err);
}

static int
begin(struct source *s, struct source_instant *ret, struct err *err)
{
    struct err why = ERR_INIT;
    bool frozen;
    int r;

    if (freeze(s, ret, &frozen, err) < 0) {
        thaw(s, ret);
        return -1;
    }
    r = take_instant(s, ret, &why);
    thaw(s, ret);
    /* Where both fail, what somebody did is why QEMU refused. */
    if (still_check(s, err) < 0)
        return -1;
    if (r < 0)
        return err_copy(err, &why);
    if (frozen && !ret->filesystem && s->opts.quiesce == QUIESCE_REQUIRE)
        return err_set(err, ERR_TIMEOUT,
                       "the guest was not frozen across the instant: %s",
                       ret->note);
    for (size_t i = 0; i < s->cap.n; i++)
        if (export_disk(s, &s->cap.v[i], err) < 0)
            return err_wrap(err, "disk '%s'", disk_name(s, &s->cap.v[i]));
    return capture_note_instant(s, ret, err);
}

/* Below 8.0 a range that the guest overwrote in part since the instant gets its
 * status from the live disk (hbitmap_status(), repaired by a4d5224c2c): what the
 * guest zeroed then reads as zeroes over NBD, and nothing shows it (measured with
 * 7.2.22).  The filter copies in blocks of 64 KiB, and within one it is right. */
static unsigned
status_grain(const struct source *s)
{
    return s->rung == RUNG_SNAPSHOT && !s->features.snapshot_status ? 65536 : 0;
}

void
capture_got(const struct source *s, const struct capture_disk *d,
            struct source_got *ret)
{
    *ret = (struct source_got){
        .socket = s->cap.socket,
        .export_name = d->export_id,
        .dirty_context = d->base != NULL ? d->context : NULL,
        .persistent = d->persistent,
        .tracked = true,
        .rest_context = d->rest != NULL ? d->rest_context : NULL,
        .scratch = s->rung == RUNG_SNAPSHOT ? d->path : NULL,
        .grain = status_grain(s),
    };
}

int
source_begin(struct source *s, const char *repo_id,
             const struct source_want *want, size_t n, struct source_got *got,
             struct source_instant *ret, struct err *err)
{
    memset(ret, 0, sizeof *ret);
    ret->thaw_confirmed = true;
    if (prepare(s, repo_id, want, n, err) < 0 || begin(s, ret, err) < 0) {
        struct err more = ERR_INIT;

        if (source_release(s, &more) < 0 || source_settle(s, false, &more) < 0)
            log_debug("clean-up after a failed start: %s", more.msg);
        return -1;
    }
    for (size_t i = 0; i < n; i++)
        capture_got(s, &s->cap.v[i], &got[i]);
    return 0;
}
