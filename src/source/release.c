/* source/release.c - taking down what a capture has standing in QEMU.
 *
 * Order (qemu.md 1.4, rule 2): export, snapshot node, job, scratch node.  Each
 * step is tried whatever became of the one before, so that as little as
 * possible is left behind; the first error is the one that is told.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "block.h"
#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "jv.h"
#include "log.h"
#include "source_internal.h"

#define POLL_MS 50u
#define RECONNECT_MS 30000u

static void
keep(struct err *first, struct err *now)
{
    if (now->code != ERR_NONE)
        (void)err_copy(first, now);
    err_clear(now);
}

static void
end_disk(struct source *s, struct capture_disk *d, struct err *first)
{
    struct err e = ERR_INIT;

    (void)qmp_export_end(s->qmp, d->export_id, END_TIMEOUT_MS, &e);
    keep(first, &e);
    if (s->rung == RUNG_SNAPSHOT)
        (void)qmp_node_end(s->qmp, d->snap, END_TIMEOUT_MS, &e);
    keep(first, &e);
    (void)qmp_job_end(s->qmp, d->job, END_TIMEOUT_MS, &e);
    keep(first, &e);
    (void)qmp_node_end(s->qmp, d->scratch, END_TIMEOUT_MS, &e);
    keep(first, &e);
    if (s->rung == RUNG_OVERLAY)
        (void)qmp_node_end(s->qmp, d->file, END_TIMEOUT_MS, &e);
    keep(first, &e);
    if (d->painted) {
        (void)qmp_export_end(s->qmp, d->paint_export, END_TIMEOUT_MS, &e);
        keep(first, &e);
        (void)qmp_node_end(s->qmp, d->paint, END_TIMEOUT_MS, &e);
        keep(first, &e);
    }
    if (d->base != NULL)
        (void)qmp_bitmap_end(s->qmp, s->inv.disks[d->disk].node, d->dirty,
                             END_TIMEOUT_MS, &e);
    keep(first, &e);
    if (d->rest != NULL)
        (void)qmp_bitmap_end(s->qmp, s->inv.disks[d->disk].node, d->older,
                             END_TIMEOUT_MS, &e);
    keep(first, &e);
}

/* A guest that our scratch stopped goes on: the request that failed is
 * repeated by QEMU, and there is no filter above the disk any more. */
static int
continue_guest(struct source *s, struct err *err)
{
    CLEANUP_JV struct jv *status = NULL;
    const char *text;

    if (s->off != NULL)
        return 0;
    if (qmp_call(s->qmp, "query-status", NULL, QMP_TIMEOUT_MS, &status, err) <
        0)
        return -1;
    text = jv_get_str(status, "status");
    if (text == NULL || strcmp(text, "io-error") != 0)
        return 0;
    log_debug("continuing the guest that a full scratch stopped");
    return source_qmp(s, "cont", NULL, err);
}

/* Once the disks whose scratch failed are down; another one may fail and stop
 * it again. */
static void
continue_stopped(struct source *s)
{
    if (!s->cap.scratch_stop)
        return;
    for (size_t i = 0; i < s->cap.n; i++)
        if (s->cap.v[i].failed && !s->cap.v[i].ended)
            return;
    s->cap.scratch_stop = false; /* before: the next event may come meanwhile */
    if (continue_guest(s, NULL) < 0)
        s->cap.scratch_stop = true;
}

/* Drop every export at once: their clients' reads end side by side. */
static void
drop_exports(struct source *s)
{
    for (size_t i = 0; i < s->cap.n; i++) {
        s->cap.v[i].ended = false;
        (void)source_qmp(
            s, "block-export-del",
            jv_build("{s:s, s:s}", "id", s->cap.v[i].export_id, "mode", "hard"),
            NULL);
    }
}

static bool
is_listed(const struct jv *exports, const char *id)
{
    for (size_t i = 0; i < jv_size(exports); i++) {
        const char *other = jv_get_str(jv_at(exports, i), "id");

        if (other != NULL && strcmp(other, id) == 0)
            return true;
    }
    return false;
}

/* The disks whose export is gone; *ret_left counts the others. */
static int
end_ready(struct source *s, size_t *ret_left, struct err *first)
{
    CLEANUP_JV struct jv *exports = NULL;

    *ret_left = 0;
    if (qmp_call(s->qmp, "query-block-exports", NULL, QMP_TIMEOUT_MS, &exports,
                 first) < 0)
        return -1;
    for (size_t i = 0; i < s->cap.n; i++) {
        struct capture_disk *d = &s->cap.v[i];

        if (d->ended)
            continue;
        if (is_listed(exports, d->export_id)) {
            (*ret_left)++;
            continue;
        }
        end_disk(s, d, first);
        d->ended = true;
        continue_stopped(s);
    }
    return 0;
}

/* Disk by disk as their exports go: that of a slow disk waits for its reads,
 * and a guest that another disk's scratch stopped must not wait with it. */
static void
end_disks(struct source *s, struct err *first)
{
    struct deadline until = deadline_in(END_TIMEOUT_MS);
    size_t left = 0;

    drop_exports(s);
    while (end_ready(s, &left, first) == 0 && left > 0 &&
           deadline_left(until) > 0) {
        if (qmp_pump(s->qmp, POLL_MS, first) < 0)
            break;
        continue_stopped(s);
    }
    for (size_t i = 0; i < s->cap.n; i++)
        if (!s->cap.v[i].ended)
            end_disk(s, &s->cap.v[i], first);
}

int
capture_end(struct source *s, struct err *err)
{
    struct capture *c = &s->cap;
    struct err first = ERR_INIT, e = ERR_INIT;

    if (!s->dirty || s->qmp == NULL)
        return 0;
    end_disks(s, &first);
    if (c->server) {
        if (source_qmp(s, "nbd-server-stop", NULL, &e) == 0)
            c->server = false;
        keep(&first, &e);
    }
    if (first.code != ERR_NONE)
        return err_copy(err, &first);
    s->dirty = false;
    rundir_scratch_end(s->run);
    return 0;
}

/* QEMU was silent for longer than a deadline, and a connection with a late reply
 * in it is of no more use.  What stands in QEMU should not wait for the next
 * run if a new connection finds it awake. */
static bool
reconnect(struct source *s, const struct err *why)
{
    struct qmp *q = NULL;

    if (why->code != ERR_TIMEOUT || !s->dirty || s->off != NULL)
        return false;
    log_debug("%s; trying a new connection", why->msg);
    qmp_close(TAKE_PTR(s->qmp)); /* first: QEMU serves one client */
    if (qmp_connect(s->at.qmp, RECONNECT_MS, &q, NULL) < 0)
        return false;
    log_debug("QEMU answers again");
    s->qmp = q;
    qmp_on_event(q, capture_event, s);
    return true;
}

int
source_release(struct source *s, struct err *err)
{
    struct err first = ERR_INIT, e = ERR_INIT;

    if (s->qmp == NULL)
        return 0;
    if (capture_end(s, &first) < 0 && reconnect(s, &first)) {
        err_clear(&first);
        /* An event may have been lost with the old connection. */
        s->cap.scratch_stop |= s->cap.broken;
        (void)capture_end(s, &first);
    }
    histograms_end(s);
    if (s->qmp == NULL)
        return err_copy(err, &first);
    if (s->cap.scratch_stop) {
        s->cap.scratch_stop = false;
        (void)continue_guest(s, &e);
        keep(&first, &e);
    }
    return first.code != ERR_NONE ? err_copy(err, &first) : 0;
}

static bool
is_base(const struct capture_disk *d, const char *name)
{
    return (d->base != NULL && strcmp(d->base, name) == 0) ||
           (d->rest != NULL && strcmp(d->rest, name) == 0);
}

/* Every bitmap of this repository on the disk but the new one, and with a partial
 * point but those that it was read with. */
static void
end_other_bitmaps(struct source *s, const struct capture_disk *d,
                  struct err *first)
{
    const char *node = s->inv.disks[d->disk].node;
    const struct jv *list =
        jv_get(qmp_block_find(s->nodes, node), "dirty-bitmaps");
    /* "tidemark-" and 16 digits and '-': the repository's own */
    size_t prefix = strlen(PREFIX) + 17;

    for (size_t i = 0; i < jv_size(list); i++) {
        const char *name = jv_get_str(jv_at(list, i), "name");
        struct err e = ERR_INIT;

        if (name == NULL || strncmp(name, d->fresh, prefix) != 0 ||
            strcmp(name, d->fresh) == 0 || (s->cap.keep && is_base(d, name)))
            continue;
        /* We export copies of it only, so this is somebody else's hold, and
         * nothing to wait for. */
        if (jv_get_bool(jv_at(list, i), "busy", false))
            (void)err_set(&e, ERR_LOCKED,
                          "disk '%s': bitmap '%s' is in use by another "
                          "program; the next backup removes it",
                          s->inv.disks[d->disk].name, name);
        else
            (void)qmp_bitmap_end(s->qmp, node, name, END_TIMEOUT_MS, &e);
        keep(first, &e);
    }
}

/* What QEMU answered is not believed: the new bitmap must be there. */
static void
check_fresh(struct source *s, const struct capture_disk *d, struct err *first)
{
    const char *node = s->inv.disks[d->disk].node;
    const struct jv *b =
        qmp_block_bitmap(qmp_block_find(s->nodes, node), d->fresh);

    if (b == NULL || !jv_get_bool(b, "recording", false))
        (void)err_set(first, ERR_PROTOCOL,
                      "disk '%s': the new bitmap '%s' is gone from QEMU; "
                      "another program removed it, and the next backup will "
                      "read the whole disk",
                      s->inv.disks[d->disk].name, d->fresh);
}

static int
refresh_nodes(struct source *s, struct err *err)
{
    struct jv *nodes = NULL;

    if (qmp_block_nodes(s->qmp, &nodes, err) < 0)
        return -1;
    jv_free(s->nodes);
    s->nodes = nodes;
    return 0;
}

void
source_keep(struct source *s, bool yes)
{
    s->cap.keep = yes;
}

int
source_settle(struct source *s, bool committed, struct err *err)
{
    struct capture *c = &s->cap;
    struct err first = ERR_INIT, e = ERR_INIT;

    if (s->qmp == NULL || !c->taken)
        return 0;
    if (refresh_nodes(s, &first) < 0)
        return err_copy(err, &first);
    for (size_t i = 0; i < c->n; i++) {
        struct capture_disk *d = &c->v[i];

        if (committed)
            c->keep = false;
        if (committed || c->keep)
            check_fresh(s, d, &first);
        if (committed || (c->keep && d->base != NULL)) {
            end_other_bitmaps(s, d, &first);
        } else if (!c->keep) {
            (void)qmp_bitmap_end(s->qmp, s->inv.disks[d->disk].node, d->fresh,
                                 END_TIMEOUT_MS, &e);
            keep(&first, &e);
        }
    }
    c->taken = false;
    c->committed = committed;
    return first.code != ERR_NONE ? err_copy(err, &first) : 0;
}

void
capture_done(struct capture *c)
{
    for (size_t i = 0; i < c->n; i++) {
        free(c->v[i].base);
        free(c->v[i].fresh);
        free(c->v[i].rest);
        free(c->v[i].path);
    }
    free(c->v);
    free(c->socket);
    c->v = NULL;
    c->socket = NULL;
    c->n = 0;
}
