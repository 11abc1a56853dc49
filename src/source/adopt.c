/* source/adopt.c - taking over the instant that a dead run has left in QEMU.
 *
 * The journal says what that run had made; QEMU is asked whether all of it still
 * stands.  Nothing is changed before every answer is yes: whoever cannot take it
 * over leaves it to source_recover().  A scratch file that could not take a
 * guest's old data is seen by its consequences: the machine stopped on an I/O
 * error, the job ended, or the export fails when it is read.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "block.h"
#include "cleanup.h"
#include "err.h"
#include "jv.h"
#include "source_internal.h"

#define JOURNAL_PART 24000u /* bytes; with more disks nothing can be resumed */
#define RESERVE_MAX (64u << 20)
#define DISKS_MAX 1024u

/* -- writing it down --------------------------------------------------------*/

static struct jv *
numbers(const uint64_t *v, size_t n)
{
    struct jv *a = jv_array();

    for (size_t i = 0; i < n; i++)
        (void)jv_add(a, jv_int((int64_t)v[i]));
    return a;
}

static struct jv *
want_json(const struct source *s, const struct source_want *w)
{
    const struct disk *d = &s->inv.disks[w->disk];

    return jv_build("{s:s, s:s, s:I, s:s, s:s, s:s, s:s, s:o}", "disk", d->name,
                    "node", d->node, "size", (int64_t)d->size, "base",
                    w->base != NULL ? w->base : "", "generation", w->generation,
                    "rest", w->rest != NULL ? w->rest : "", "note",
                    w->note != NULL ? w->note : "", "canaries",
                    numbers(w->canaries, w->n_canaries));
}

static int
note_json(struct source *s, const char *key, const struct jv *j,
          struct err *err)
{
    CLEANUP_FREE char *text = j != NULL ? jv_text(j, true) : NULL;

    if (text == NULL)
        return err_set_errno(err, ENOMEM, "journal of this run");
    return strlen(text) > JOURNAL_PART ? 0
                                       : rundir_note(s->run, key, text, err);
}

int
capture_note(struct source *s, const char *repo_id,
             const struct source_want *want, size_t n, struct err *err)
{
    CLEANUP_JV struct jv *disks = jv_array();
    CLEANUP_JV struct jv *j = NULL;

    for (size_t i = 0; i < n; i++)
        if (jv_add(disks, want_json(s, &want[i])) < 0)
            return err_set_errno(err, ENOMEM, "journal of this run");
    j = jv_build("{s:s, s:i, s:o}", "repo", repo_id, "rung", (int)s->rung,
                 "disks", jv_ref(disks));
    return note_json(s, "capture", j, err);
}

int
capture_note_instant(struct source *s, const struct source_instant *in,
                     struct err *err)
{
    CLEANUP_JV struct jv *persistent = jv_array();
    CLEANUP_JV struct jv *j = NULL;

    for (size_t i = 0; i < s->cap.n; i++)
        (void)jv_add(persistent, jv_bool(s->cap.v[i].persistent));
    j = jv_build("{s:I, s:b, s:I, s:i, s:s, s:b, s:o}", "time_ns", in->time_ns,
                 "filesystem", (int)in->filesystem, "freeze_ms",
                 (int64_t)in->freeze_ms, "filesystems", (int)in->filesystems,
                 "note", in->note, "thawed", (int)in->thaw_confirmed,
                 "persistent", jv_ref(persistent));
    return note_json(s, "instant", j, err);
}

/* -- reading it -------------------------------------------------------------*/

static int
no(struct err *err, const char *why)
{
    return err_set(err, ERR_NOT_FOUND,
                   "no instant can be finished: %s; run a backup without "
                   "--resume, which goes on from what is durable",
                   why);
}

static struct jv *
journal_json(const struct source *s, const char *key)
{
    const char *text = jv_get_str(rundir_dead(s->run), key);
    struct jv *j = NULL;

    if (text == NULL || jv_parse(text, strlen(text), 8, &j, NULL) < 0)
        return NULL;
    return j;
}

static const char *
text_or_null(const struct jv *j, const char *key)
{
    const char *s = jv_get_str(j, key);

    return s != NULL && s[0] != '\0' ? s : NULL;
}

static size_t
find_disk(const struct source *s, const char *name)
{
    size_t i = 0;

    while (i < s->inv.n &&
           (name == NULL || strcmp(s->inv.disks[i].name, name) != 0))
        i++;
    return i;
}

static int
read_canaries(const struct jv *j, struct standing_disk *d, struct err *err)
{
    const struct jv *a = jv_get(j, "canaries");

    for (size_t i = 0; i < jv_size(a) && i < ARRAY_SIZE(d->canaries); i++)
        if (!jv_uint(jv_at(a, i), &d->canaries[d->want.n_canaries++]))
            return no(err, "its journal cannot be read");
    d->want.canaries = d->canaries;
    return 0;
}

/* The same disk, by name, node and size. */
static int
read_disk(struct source *s, const struct jv *j, struct standing_disk *d,
          struct err *err)
{
    const char *node = jv_get_str(j, "node");
    const struct disk *disk;
    uint64_t size;

    d->want.disk = find_disk(s, jv_get_str(j, "disk"));
    if (d->want.disk == s->inv.n)
        return no(err, "the machine has not the same disks any more");
    disk = &s->inv.disks[d->want.disk];
    if (node == NULL || strcmp(disk->node, node) != 0 ||
        !jv_get_uint(j, "size", &size) || size != disk->size)
        return no(err, "a disk was exchanged or resized");
    d->want.base = text_or_null(j, "base");
    d->want.rest = text_or_null(j, "rest");
    d->want.note = jv_get_str(j, "note");
    d->want.generation = jv_get_str(j, "generation");
    if (d->want.generation == NULL || strlen(d->want.generation) != 32)
        return no(err, "its journal cannot be read");
    return read_canaries(j, d, err);
}

static int
read_journal(struct source *s, const char *repo_id, struct err *err)
{
    struct standing *st = &s->standing;
    const char *repo, *frozen = jv_get_str(rundir_dead(s->run), "frozen");
    const struct jv *disks;
    size_t n;

    st->capture = journal_json(s, "capture");
    st->instant = journal_json(s, "instant");
    repo = jv_get_str(st->capture, "repo");
    disks = jv_get(st->capture, "disks");
    n = jv_size(disks);
    if (rundir_dead(s->run) == NULL)
        return no(err, "no run was cut off on this machine, as far as is known "
                       "on this host");
    if (repo == NULL || st->instant == NULL || n == 0 || n > DISKS_MAX)
        return no(err, "the run that was cut off had taken none, or it was "
                       "ended in order");
    if (strcmp(repo, repo_id) != 0)
        return no(err, "it was taken for another repository");
    if (frozen != NULL && strcmp(frozen, "perhaps") == 0)
        return no(err, "the guest may still be frozen");
    st->v = calloc(n, sizeof *st->v);
    if (st->v == NULL)
        return err_set_errno(err, ENOMEM, "capture of %zu disks", n);
    for (; st->n < n; st->n++)
        if (read_disk(s, jv_at(disks, st->n), &st->v[st->n], err) < 0)
            return -1;
    return 0;
}

void
standing_done(struct standing *st)
{
    jv_free(st->capture);
    jv_free(st->instant);
    free(st->v);
    *st = (struct standing){NULL, NULL, NULL, 0};
}

/* -- does it stand? ---------------------------------------------------------*/

/* The object of an array whose `key` is `name`, or NULL. */
static const struct jv *
named(const struct jv *list, const char *key, const char *name)
{
    for (size_t i = 0; i < jv_size(list); i++) {
        const char *other = jv_get_str(jv_at(list, i), key);

        if (other != NULL && strcmp(other, name) == 0)
            return jv_at(list, i);
    }
    return NULL;
}

static bool
bitmap_stands(const struct source *s, const struct capture_disk *d,
              const char *name, bool recording)
{
    const struct jv *b = qmp_block_bitmap(
        qmp_block_find(s->nodes, s->inv.disks[d->disk].node), name);

    return b != NULL && !jv_get_bool(b, "inconsistent", false) &&
           jv_get_bool(b, "recording", !recording) == recording;
}

static int
disk_stands(const struct source *s, const struct capture_disk *d,
            const struct jv *jobs, const struct jv *exports, bool overlay,
            struct err *err)
{
    const struct jv *job = named(jobs, "id", d->job);
    const struct jv *export = named(exports, "id", d->export_id);
    const char *status = jv_get_str(job, "status");
    const char *node = jv_get_str(export, "node-name");
    struct stat st;

    if (status == NULL || strcmp(status, "running") != 0)
        return no(err, "QEMU has ended the job that holds it");
    if (export == NULL || jv_get_bool(export, "shutting-down", true) ||
        node == NULL || strcmp(node, overlay ? d->scratch : d->snap) != 0 ||
        qmp_block_find(s->nodes, d->filter) == NULL ||
        qmp_block_find(s->nodes, d->scratch) == NULL)
        return no(err, "QEMU does not hold it any more");
    /* A base that is gone was found to lie, and its copy does so, too. */
    if (!bitmap_stands(s, d, d->fresh, true) ||
        (d->base != NULL && !bitmap_stands(s, d, d->base, true)) ||
        (d->rest != NULL && !bitmap_stands(s, d, d->rest, true)) ||
        (d->base != NULL && !bitmap_stands(s, d, d->dirty, false)) ||
        (d->rest != NULL && !bitmap_stands(s, d, d->older, false)))
        return no(err, "a bitmap of it is gone from QEMU");
    if (lstat(d->path, &st) < 0 || !S_ISREG(st.st_mode))
        return no(err, "its scratch file is gone");
    return 0;
}

/* An error on one of the machine's disks may have been the scratch file's. */
static int
check_errors(struct source *s, struct err *err)
{
    CLEANUP_JV struct jv *status = NULL;
    CLEANUP_JV struct jv *blocks = NULL;
    const char *text;

    if (qmp_call(s->qmp, "query-status", NULL, QMP_TIMEOUT_MS, &status, err) <
            0 ||
        qmp_call(s->qmp, "query-block", NULL, QMP_TIMEOUT_MS, &blocks, err) < 0)
        return -1;
    text = jv_get_str(status, "status");
    if (text == NULL || strcmp(text, "io-error") == 0)
        return no(err, "the machine was stopped by an I/O error");
    for (size_t i = 0; i < jv_size(blocks); i++) {
        const char *io = jv_get_str(jv_at(blocks, i), "io-status");

        if (io != NULL && strcmp(io, "ok") != 0)
            return no(err, "a disk of the machine has had an I/O error");
    }
    return 0;
}

static int
check_standing(struct source *s, bool overlay, struct err *err)
{
    CLEANUP_JV struct jv *jobs = NULL;
    CLEANUP_JV struct jv *exports = NULL;

    if (check_errors(s, err) < 0 ||
        qmp_call(s->qmp, "query-jobs", NULL, QMP_TIMEOUT_MS, &jobs, err) < 0 ||
        qmp_call(s->qmp, "query-block-exports", NULL, QMP_TIMEOUT_MS, &exports,
                 err) < 0)
        return -1;
    for (size_t i = 0; i < s->cap.n; i++)
        if (disk_stands(s, &s->cap.v[i], jobs, exports, overlay, err) < 0)
            return err_wrap(err, "disk '%s'",
                            s->inv.disks[s->cap.v[i].disk].name);
    return 0;
}

/* What the journal's run called its things. */
static int
name_capture(struct source *s, const char *repo_id, struct err *err)
{
    const struct jv *dead = rundir_dead(s->run);
    const char *run = jv_get_str(dead, "run");
    const char *scratch = jv_get_str(dead, "scratch");
    const char *socket = jv_get_str(dead, "nbd");
    struct capture *c = &s->cap;

    if (run == NULL || strlen(run) != RUN_ID_LEN || scratch == NULL ||
        socket == NULL || jv_get_str(dead, "sockets") == NULL)
        return no(err, "its journal cannot be read");
    c->v = calloc(s->standing.n, sizeof *c->v);
    c->socket = strdup(socket);
    if (c->v == NULL || c->socket == NULL)
        return err_set_errno(err, ENOMEM, "capture");
    for (; c->n < s->standing.n; c->n++) {
        struct capture_disk *d = &c->v[c->n];

        if (capture_name_disk(s, run, d, c->n, &s->standing.v[c->n].want,
                              repo_id, err) < 0)
            return -1;
        d->painted = true; /* its node stands until the end */
        if (asprintf(&d->path, "%s/%s", scratch, s->inv.disks[d->disk].name) <
            0) {
            d->path = NULL;
            return err_set_errno(err, ENOMEM, "scratch file");
        }
    }
    return 0;
}

int
source_standing(struct source *s, const char *repo_id,
                const struct source_want **ret, size_t *ret_n, struct err *err)
{
    CLEANUP_FREE struct source_want *v = NULL;
    uint64_t rung = RUNG_NONE;

    if (s->off != NULL)
        return no(err, "the machine is off");
    if (read_journal(s, repo_id, err) < 0 || name_capture(s, repo_id, err) < 0)
        return -1;
    if (!jv_get_uint(s->standing.capture, "rung", &rung) ||
        (rung != RUNG_SNAPSHOT && rung != RUNG_OVERLAY))
        return no(err, "its journal cannot be read");
    if (check_standing(s, rung == RUNG_OVERLAY, err) < 0)
        return -1;
    s->rung = (enum rung)rung;
    v = calloc(s->standing.n, sizeof *v);
    if (v == NULL)
        return err_set_errno(err, ENOMEM, "capture");
    for (size_t i = 0; i < s->standing.n; i++)
        v[i] = s->standing.v[i].want;
    *ret_n = s->standing.n;
    *ret = TAKE_PTR(v);
    return 0;
}

/* -- taking it over ---------------------------------------------------------*/

static int
read_instant(const struct source *s, struct source_instant *ret,
             struct err *err)
{
    const struct jv *j = s->standing.instant;
    const char *note = jv_get_str(j, "note");
    uint64_t n = 0;

    memset(ret, 0, sizeof *ret);
    if (!jv_get_int(j, "time_ns", &ret->time_ns) ||
        !jv_get_uint(j, "freeze_ms", &ret->freeze_ms) ||
        !jv_get_uint(j, "filesystems", &n))
        return no(err, "its journal cannot be read");
    ret->filesystems = (unsigned)n;
    ret->filesystem = jv_get_bool(j, "filesystem", false);
    ret->thaw_confirmed = jv_get_bool(j, "thawed", false);
    (void)snprintf(ret->note, sizeof ret->note, "%.250s",
                   note != NULL ? note : "");
    return 0;
}

static bool
is_true(const struct jv *array, size_t i)
{
    CLEANUP_JV struct jv *yes = jv_bool(true);

    return i < jv_size(array) && jv_equal(jv_at(array, i), yes);
}

int
source_adopt(struct source *s, struct source_got *got,
             struct source_instant *ret, struct err *err)
{
    const struct jv *persistent = jv_get(s->standing.instant, "persistent");
    struct capture *c = &s->cap;
    struct statvfs vfs;
    const char *dir;
    uint64_t avail;

    if (read_instant(s, ret, err) < 0 || rundir_adopt(s->run, &dir, err) < 0)
        return -1;
    s->dirty = true;
    c->taken = c->server = true;
    c->keep = true; /* of what the dead run has made durable; settled later */
    avail = statvfs(dir, &vfs) == 0 ? (uint64_t)vfs.f_bavail * vfs.f_frsize : 0;
    c->scratch_reserve = avail / 8 < RESERVE_MAX ? avail / 8 : RESERVE_MAX;
    for (size_t i = 0; i < c->n; i++) {
        c->v[i].persistent = is_true(persistent, i);
        capture_got(s, &c->v[i], &got[i]);
    }
    return 0;
}

bool
source_hold(struct source *s)
{
    if (!s->dirty || s->cap.broken || s->off != NULL)
        return false;
    s->hold = true;
    rundir_hold(s->run);
    return true;
}
