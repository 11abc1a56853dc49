/* source/watch.c - is the instant still whole?
 *
 * A scratch file that cannot take more old data breaks the point, never the
 * guest.  QEMU 10.1 sees to that itself (on-cbw-error); before, the guest's
 * write fails and, with the usual werror policy, the machine stops.  So we
 * look at the free space before it is too late, and when QEMU reports an error
 * on one of our filters we take everything down and continue the machine at
 * once: its write is repeated and it loses nothing (qemu.md, appendix L).
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "cleanup.h"
#include "err.h"
#include "jv.h"
#include "log.h"
#include "size.h"
#include "source_internal.h"

static void
broken(struct capture *c, const char *what)
{
    if (!c->broken)
        (void)snprintf(c->broken_why, sizeof c->broken_why, "%s", what);
    c->broken = true;
}

/* QEMU names the node at the top of the device: our filter, or what stands above
 * it (a throttle node, say).  There it cannot be told whether the disk or its
 * scratch failed, and a stopped guest is worse than a lost point. */
static struct capture_disk *
by_top(const struct source *s, const char *node)
{
    const struct capture *c = &s->cap;

    for (size_t i = 0; node != NULL && i < c->n; i++) {
        const struct disk *d = &s->inv.disks[c->v[i].disk];

        if (strcmp(c->v[i].filter, node) == 0 ||
            (strcmp(d->root, d->node) != 0 && strcmp(d->root, node) == 0))
            return &c->v[i];
    }
    return NULL;
}

static bool
is_job(const struct capture *c, const char *id)
{
    for (size_t i = 0; id != NULL && i < c->n; i++)
        if (strcmp(c->v[i].job, id) == 0)
            return true;
    return false;
}

static void
io_error(struct source *s, const struct jv *data)
{
    struct capture *c = &s->cap;
    const char *action = jv_get_str(data, "action");
    const char *operation = jv_get_str(data, "operation");
    struct capture_disk *d = by_top(s, jv_get_str(data, "node-name"));

    /* A guest's read never touches the scratch. */
    if (d == NULL || (operation != NULL && strcmp(operation, "read") == 0))
        return;
    d->failed = true;
    broken(c, "the scratch file could not take the old data of a guest write "
              "(is the scratch area full?); give --scratch a larger one");
    c->scratch_stop |= action != NULL && strcmp(action, "stop") == 0;
}

void
capture_event(void *arg, const char *name, const struct jv *data)
{
    struct source *s = arg;
    struct capture *c = &s->cap;

    log_debug("event %s", name);
    if (!c->taken || c->n == 0)
        return;
    if (strcmp(name, "BLOCK_IO_ERROR") == 0) {
        io_error(s, data);
    } else if (strcmp(name, "JOB_STATUS_CHANGE") == 0) {
        const char *status = jv_get_str(data, "status");

        if (status != NULL && is_job(c, jv_get_str(data, "id")) &&
            (strcmp(status, "aborting") == 0 ||
             strcmp(status, "concluded") == 0) &&
            s->dirty)
            broken(c, "QEMU ended the job that holds the point (was the disk "
                      "unplugged, or the job canceled by another program?)");
    } else if (strcmp(name, "SHUTDOWN") == 0) {
        broken(c, "QEMU is shutting down");
    }
}

uint64_t
source_scratch_bytes(const struct source *s)
{
    uint64_t total = 0;
    struct stat st;

    for (size_t i = 0; i < s->cap.n; i++)
        if (s->cap.v[i].path != NULL && stat(s->cap.v[i].path, &st) == 0)
            total += (uint64_t)st.st_blocks * 512;
    return total;
}

static void
check_space(struct source *s)
{
    struct capture *c = &s->cap;
    const uint64_t taken = source_scratch_bytes(s), max = s->opts.scratch_max;
    struct statvfs vfs;

    if (max > 0 && taken > max) {
        char size[SIZE_TEXT_MAX], text[160];

        (void)snprintf(text, sizeof text,
                       "the scratch files take more than --scratch-max %s; "
                       "give a larger bound",
                       size_text(max, size));
        broken(c, text);
    }
    /* Scratch that has not grown is not what fills the file system. */
    if (c->n == 0 || taken == 0 || statvfs(s->scratch, &vfs) < 0)
        return;
    if ((uint64_t)vfs.f_bavail * vfs.f_frsize < c->scratch_reserve)
        broken(c, "the scratch area is nearly full; give --scratch a larger "
                  "one");
}

/* Under an overlay the export goes on after its job has ended, and then shows
 * the live disk: the job must be there, whatever became of the event. */
static int
check_jobs(struct source *s, struct err *err)
{
    CLEANUP_JV struct jv *jobs = NULL;
    size_t running = 0;

    if (s->rung != RUNG_OVERLAY || s->cap.broken || !s->dirty)
        return 0;
    if (qmp_call(s->qmp, "query-jobs", NULL, QMP_TIMEOUT_MS, &jobs, err) < 0)
        return -1;
    for (size_t i = 0; i < jv_size(jobs); i++) {
        const char *status = jv_get_str(jv_at(jobs, i), "status");

        running += is_job(&s->cap, jv_get_str(jv_at(jobs, i), "id")) &&
                   status != NULL && strcmp(status, "concluded") != 0 &&
                   strcmp(status, "aborting") != 0;
    }
    if (running < s->cap.n)
        broken(&s->cap, "QEMU ended the job that holds the point");
    return 0;
}

int
source_watch(struct source *s, unsigned timeout_ms, struct err *err)
{
    struct capture *c = &s->cap;

    if (s->qmp == NULL)
        return err_set(err, ERR_CLOSED, "the connection to QEMU is lost");
    if (qmp_pump(s->qmp, timeout_ms, err) < 0 || check_jobs(s, err) < 0)
        return s->off != NULL ? err_wrap(err, "storage daemon of the images")
                              : -1;
    check_space(s);
    if (!c->broken)
        return 0;
    (void)err_set(err,
                  strstr(c->broken_why, "scratch") != NULL ? ERR_NO_SPACE
                                                           : ERR_REMOTE,
                  "%s", c->broken_why);
    /* Now, not when the readers have noticed: a stopped guest waits. */
    (void)source_release(s, NULL);
    return -1;
}
