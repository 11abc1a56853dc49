/* job/backup.c - a backup from the first look to the settled bitmaps.
 *
 * Everything slow comes before the instant, everything that can be lost comes
 * after the commit.  Whatever fails in between, the old bitmaps have gone on
 * recording and the next run is incremental.
 */
#include "job.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "adopt.h"
#include "backup.h"
#include "canary.h"
#include "cleanup.h"
#include "clock.h"
#include "common.h"
#include "copy.h"
#include "err.h"
#include "impact.h"
#include "jv.h"
#include "log.h"
#include "plan.h"
#include "pool.h"
#include "repo.h"
#include "resume.h"
#include "source.h"

#define CONFIG_MAX (16u << 20) /* repo_put_blob() */
#define THREADS_MAX 256
#define WATCH_MS 2        /* the pipeline waits between two looks */
#define LAST_WATCH_MS 500 /* after a failed read: did QEMU say why? */

/* -- before the instant -----------------------------------------------------*/

static int
machine_name(struct backup *b, struct err *err)
{
    b->machine = b->opts->name != NULL ? b->opts->name : source_name(b->source);
    if (b->machine == NULL && source_offline(b->source)) {
        b->machine = offline_machine(&b->known, b->opts->machine, err);
        return b->machine != NULL ? 0 : -1;
    }
    if (b->machine == NULL)
        return err_set(err, ERR_USAGE,
                       "machine '%s' has no name of its own: give one with "
                       "--name",
                       b->opts->machine);
    return name_check_machine(b->machine, err);
}

/* The source forks its guard, so it is opened while there are no threads. */
static int
open_both(struct backup *b, struct err *err)
{
    struct source_opts source = b->opts->source;

    if (b->opts->name != NULL && name_check_machine(b->opts->name, err) < 0)
        return -1;
    if (name_check_tags(b->opts->tags, err) < 0)
        return -1;
    if (open_repo(b->opts->repo, &b->repo, err) < 0)
        return -1;
    if (offline_know(b->repo, b->opts, &b->known, err) < 0)
        return -1;
    source.known = b->known.v;
    source.n_known = b->known.n;
    /* The machine's side only here: "cannot be reached" is said of no machine
     * that was, whatever breaks later. */
    if (source_open(b->opts->machine, &source, &b->source, err) < 0)
        return err_side(err, ERR_SIDE_MACHINE);
    return machine_name(b, err);
}

/* Before any point is looked at: only what is seen after the registration is
 * safe from a collector. */
static int
begin_session(struct backup *b, struct err *err)
{
    const struct repo_session_opts opts = {.n_workers = b->threads,
                                           .zstd_level = b->opts->zstd_level,
                                           .paranoid = b->opts->paranoid,
                                           .machine = b->machine};

    if (repo_session_begin(b->repo, &opts, &b->session, err) < 0)
        return err_side(err, ERR_SIDE_REPO);
    return 0;
}

static int
list_points(struct backup *b, struct err *err)
{
    CLEANUP_JV struct jv *bad = NULL;

    if (repo_points_all(b->repo, b->machine, &b->points, &bad, err) < 0 ||
        point_list_split(&b->points, &b->partials, err) < 0)
        return err_side(err, ERR_SIDE_REPO);
    for (size_t i = 0; i < jv_size(bad); i++)
        backup_warn(b, "%s; run verify", jv_str(jv_at(bad, i)));
    return 0;
}

/* What a dead run left is cleared away before anything is judged by it. */
static int
recover(struct backup *b, struct err *err)
{
    CLEANUP_JV struct jv *done = NULL;

    if (source_recover(b->source, &done, err) < 0)
        return err_wrap(err, "clear away what an earlier run left");
    for (size_t i = 0; i < jv_size(done); i++)
        hooks_event(b->hooks, jv_build("{s:s, s:o}", "event", "recovered",
                                       "action", jv_ref(jv_at(done, i))));
    if (jv_size(done) > 0)
        hooks_note(b->hooks,
                   "an earlier run did not end: cleared away what it left "
                   "(%zu actions)",
                   jv_size(done));
    return 0;
}

static bool
has_disk(const struct source *s, const char *name)
{
    for (size_t i = 0; i < source_n_disks(s); i++)
        if (strcmp(source_disk(s, i)->name, name) == 0)
            return true;
    return false;
}

/* A disk that was there the last time and is not now is worth a line; of a
 * machine that is off, whose images somebody named, it was likely forgotten. */
static void
note_gone(struct backup *b)
{
    const struct point *last;

    if (b->points.n == 0)
        return;
    last = b->points.v[b->points.n - 1];
    for (size_t i = 0; i < last->n_disks; i++) {
        size_t k = 0;

        while (k < b->plan.n &&
               strcmp(b->plan.v[k].disk->name, last->disks[i].name) != 0)
            k++;
        if (k < b->plan.n)
            continue;
        if (source_offline(b->source) &&
            !has_disk(b->source, last->disks[i].name))
            backup_warn(b,
                        "disk '%s' of the previous point is not in this one: "
                        "its image is not named in 'file:...'",
                        last->disks[i].name);
        else
            hooks_note(b->hooks,
                       "disk '%s' of the previous point is not in this one",
                       last->disks[i].name);
    }
}

static int
choose_new(struct backup *b, struct err *err)
{
    if (recover(b, err) < 0)
        return -1;
    if (plan_make(b->opts, b->source, &b->points, repo_id(b->repo),
                  repo_chunk_size(b->repo), &b->plan, err) < 0)
        return -1;
    resume_choose(b);
    return 0;
}

static int
choose(struct backup *b, struct err *err)
{
    if (source_rung(b->source) == RUNG_NONE)
        return err_set(err, ERR_UNSUPPORTED, "%s", source_refusal(b->source));
    if ((b->opts->resume ? adopt_choose : choose_new)(b, err) < 0)
        return -1;
    b->copy = calloc(b->plan.n, sizeof *b->copy);
    b->got = calloc(b->plan.n, sizeof *b->got);
    if (b->copy == NULL || b->got == NULL)
        return err_set_errno(err, ENOMEM, "backup of %zu disks", b->plan.n);
    note_gone(b);
    backup_tell_plan(b);
    return impact_new(b->source, b->opts->limit_rate, !b->opts->no_backoff,
                      &b->impact, err);
}

static int
store_config(struct backup *b, struct err *err)
{
    CLEANUP_JV struct jv *config = NULL;
    CLEANUP_FREE char *text = NULL;

    if (source_offline(b->source)) {
        if (offline_config(b->repo, b->session, &b->points, &b->point->config,
                           &b->point->config_len, err) < 0)
            return -1;
        if (b->point->config_len > 0)
            return 0;
    }
    if (source_config(b->source, &config, err) < 0)
        return -1;
    text = jv_text(config, true);
    if (text == NULL)
        return err_set_errno(err, ENOMEM, "configuration of the machine");
    b->point->config_len = strlen(text);
    if (b->point->config_len > CONFIG_MAX)
        return err_set(err, ERR_FORMAT,
                       "the machine's configuration has %" PRIu64 " bytes, "
                       "more than %u",
                       b->point->config_len, CONFIG_MAX);
    if (repo_put_blob(b->session, text, b->point->config_len, &b->point->config,
                      err) < 0)
        return err_side(err, ERR_SIDE_REPO);
    return 0;
}

static int
new_map(struct backup *b, size_t i, struct err *err)
{
    static const struct chunk_id zero;
    const struct plan_disk *p = &b->plan.v[i];
    struct copy_disk *d = &b->copy[i];

    map_writer_free(TAKE_PTR(d->map));
    if (map_writer_new(b->session, d->size, repo_chunk_size(b->repo),
                       p->base != NULL ? &p->base->root : &zero, &d->map,
                       err) < 0)
        return err_side(err, ERR_SIDE_REPO);
    return 0;
}

static void
drop_base(struct backup *b, size_t i, const struct err *why)
{
    struct copy_disk *d = &b->copy[i];

    backup_warn(b, "disk '%s': map of an earlier point: %s; run verify",
                d->name, why->msg);
    map_reader_free(TAKE_PTR(d->base));
    heal_done(&d->heal);
    /* or a full read would find the bad pages "stored already" */
    if (b->plan.v[i].older != NULL)
        repo_probe_map(b->repo, b->plan.v[i].older);
    plan_base_damaged(&b->plan.v[i]);
}

/* What the repository has lost of the disk is read again, changed or not.  -1:
 * not even the map can be read. */
static int
find_damage(struct backup *b, size_t i)
{
    const struct point_disk *older = b->plan.v[i].older;
    struct copy_disk *d = &b->copy[i];
    struct err why = ERR_INIT;

    if (b->plan.v[i].resumed == NULL && /* else resume_probe() has looked */
        repo_damaged(b->repo, older, heal_add, &d->heal, &why) < 0) {
        drop_base(b, i, &why);
        return -1;
    }
    if (d->heal.n > 0)
        hooks_note(b->hooks,
                   "disk '%s': %" PRIu64 " chunks of the earlier point are "
                   "damaged; they are read again",
                   d->name, d->heal.n_chunks);
    return 0;
}

/* Maps of one disk: to write, and the base's to compare with.  A base map that
 * cannot be read costs a full read, never the backup. */
static int
open_maps(struct backup *b, size_t i, struct err *err)
{
    struct plan_disk *p = &b->plan.v[i];
    struct copy_disk *d = &b->copy[i];
    const uint32_t chunk_size = repo_chunk_size(b->repo);
    struct err why = ERR_INIT;
    struct chunk_id id;

    d->name = p->disk->name;
    d->size = p->disk->size;
    resume_probe(b, i);
    if (p->base != NULL)
        d->audit =
            audit_choose(b->opts->audit, p->base->audit.round, chunk_size);
    if (p->older != NULL &&
        (map_reader_new(b->repo, d->size, chunk_size, &p->older->root, &d->base,
                        &why) < 0 ||
         (d->size > 0 && map_reader_get(d->base, 0, &id, &why) < 0)))
        drop_base(b, i, &why);
    if (p->older != NULL && find_damage(b, i) < 0)
        log_debug("disk '%s': will be read in full", d->name);
    return new_map(b, i, err);
}

static int
prepare(struct backup *b, struct err *err)
{
    b->point = point_new();
    if (b->point == NULL)
        return err_set_errno(err, ENOMEM, "new point");
    if (store_config(b, err) < 0)
        return -1;
    for (size_t i = 0; i < b->plan.n; i++)
        if (open_maps(b, i, err) < 0)
            return err_wrap(err, "disk '%s'", b->plan.v[i].disk->name);
    hooks_event(b->hooks, plan_event(&b->plan, b->source));
    return 0;
}

/* -- the instant and the copy -----------------------------------------------*/

static int
take_instant(struct backup *b, struct err *err)
{
    CLEANUP_FREE struct source_want *want = calloc(b->plan.n, sizeof *want);
    char time[CLOCK_TEXT_MAX];

    if (want == NULL)
        return err_set_errno(err, ENOMEM, "capture of %zu disks", b->plan.n);
    if (hooks_canceled(b->hooks))
        return err_set(err, ERR_CANCELED, "canceled: nothing was committed");
    for (size_t i = 0; i < b->plan.n; i++) {
        const struct plan_disk *p = &b->plan.v[i];

        want[i].disk = p->source;
        want[i].base = p->base != NULL ? p->base->generation : NULL;
        want[i].rest = p->rest;
        want[i].note = p->reason;
        want[i].generation = p->generation;
        want[i].canaries = p->canaries;
        want[i].n_canaries = p->n_canaries;
    }
    impact_before(b->impact, b->hooks);
    if (source_begin(b->source, repo_id(b->repo), want, b->plan.n, b->got,
                     &b->instant, err) < 0)
        return -1;
    b->taken = true;
    clock_text(b->instant.time_ns, time, sizeof time);
    hooks_event(b->hooks,
                jv_build("{s:s, s:s, s:s, s:I, s:I}", "event", "instant",
                         "time", time, "consistency", backup_consistency(b),
                         "freeze_ms", (int64_t)b->instant.freeze_ms,
                         "transaction_us", (int64_t)b->instant.transaction_us));
    return 0;
}

static int
look_after(void *arg, uint64_t done, uint64_t total, struct err *err)
{
    struct backup *b = arg;

    if (hooks_canceled(b->hooks))
        return err_set(err, ERR_CANCELED, "canceled: nothing was committed");
    hooks_scratch(b->hooks, impact_watch(b->impact));
    hooks_progress(b->hooks, "read", done, total);
    resume_tell(b);
    if (source_watch(b->source, WATCH_MS, &b->cause) < 0)
        return err_copy(err, &b->cause);
    return 0;
}

/* Reads fail because of something.  Either we took the exports down ourselves,
 * for what source_watch() saw, or QEMU says what it was a moment later than the
 * NBD connection broke. */
static void
find_cause(struct backup *b, struct err *err)
{
    if (err->side == ERR_SIDE_REPO || err->code == ERR_CANCELED)
        return;
    if (b->cause.code != ERR_NONE ||
        source_watch(b->source, LAST_WATCH_MS, &b->cause) < 0) {
        log_debug("before that: %s", err->msg);
        *err = b->cause;
    }
}

/* A bitmap without its canaries looks healthy and is not: read this very
 * instant in full. */
static int
check_canaries(struct backup *b, size_t i, struct err *err)
{
    struct plan_disk *p = &b->plan.v[i];
    bool alive = true;

    if (p->base == NULL)
        return 0;
    if (p->resumed != NULL) {
        int r = resume_check(b, i, err);

        alive = r == 0;
        if (r < 0)
            return -1;
    } else if (canary_check(&b->got[i], p->base, &alive, err) < 0)
        return err_side(err, ERR_SIDE_MACHINE);
    if (alive)
        return 0;
    plan_base_cleared(p);
    b->got[i].dirty_context = NULL;
    return new_map(b, i, err);
}

/* With --resume the base can be this very instant, whose bitmap is the one to
 * keep. */
static void
forget_bitmap(struct backup *b, const struct plan_disk *p,
              const char *generation)
{
    struct err why = ERR_INIT;

    if (generation == NULL || strcmp(generation, p->generation) == 0)
        return;
    if (source_forget(b->source, p->source, repo_id(b->repo), generation,
                      &why) < 0)
        hooks_note(b->hooks, "disk '%s': %s", p->disk->name, why.msg);
}

/* The base's bitmap lies.  It goes at once, and so does what was made durable of
 * this instant with it: should this run fail, the next one must not believe them
 * either. */
static void
distrust(struct backup *b, size_t i)
{
    struct plan_disk *p = &b->plan.v[i];

    resume_distrust(b);
    forget_bitmap(b, p, p->base->generation);
    forget_bitmap(b, p, p->rest);
    p->rest = NULL;
    plan_audit_failed(p, b->copy[i].audit_off);
}

/* True when the copy failed because a base map that looked whole has a page that
 * cannot be read, deep down, or an audit found what tracking had missed: those disks are read in full, all others once
 * more, from the same instant. */
static bool
start_over(struct backup *b, const struct err *why)
{
    bool damaged = false;

    for (size_t i = 0; i < b->plan.n; i++) {
        struct copy_disk *d = &b->copy[i];

        if (!d->base_damaged && !d->audit_failed)
            continue;
        d->resumed = d->same = false;
        damaged = true;
        if (d->base_damaged)
            drop_base(b, i, why);
        else
            distrust(b, i);
        d->base_damaged = d->audit_failed = false;
        b->got[i].dirty_context = d->dirty_context = NULL;
    }
    if (damaged)
        resume_look_again(b);
    for (size_t i = 0; damaged && i < b->plan.n; i++) {
        struct copy_disk *d = &b->copy[i];

        d->read_bytes = d->dirty_bytes = d->new_bytes = 0;
        d->stored_bytes = d->healed_chunks = d->resumed_bytes = 0;
        d->audited_chunks = d->audit_bytes = 0;
        if (new_map(b, i, NULL) < 0)
            return false;
    }
    return damaged;
}

/* The guest first: nobody looks after the scratch space while the repository
 * works. */
static void
give_up(struct backup *b, bool marked)
{
    if (!marked)
        return;
    (void)source_release(b->source, NULL);
    resume_last(b);
}

static int
copy_disks(struct backup *b, struct err *err)
{
    struct copy_opts opts = {.session = b->session,
                             .chunk_size = repo_chunk_size(b->repo),
                             .threads = b->threads,
                             .poll = look_after,
                             .arg = b,
                             .pace = impact_pace(b->impact),
                             .yield_cpu = !b->opts->no_backoff};
    struct err why = ERR_INIT;
    bool marked;

    for (size_t i = 0; i < b->plan.n; i++) {
        if (check_canaries(b, i, err) < 0)
            return err_wrap(err, "disk '%s'", b->copy[i].name);
        b->copy[i].socket = b->got[i].socket;
        b->copy[i].export_name = b->got[i].export_name;
        b->copy[i].scratch = b->got[i].scratch;
        b->copy[i].dirty_context = b->got[i].dirty_context;
        b->copy[i].grain = b->got[i].grain;
        if (!b->copy[i].same &&
            (b->plan.v[i].base != NULL) != (b->got[i].dirty_context != NULL))
            return err_set(err, ERR_PROTOCOL,
                           "disk '%s': its export does not say what changed",
                           b->copy[i].name);
    }
    resume_limits(b, &opts);
    while (copy_run(&opts, b->copy, b->plan.n, &marked, &why) < 0) {
        if (marked || !start_over(b, &why)) {
            find_cause(b, &why);
            give_up(b, marked);
            return err_copy(err, &why);
        }
        err_clear(&why);
    }
    /* Was it whole to the end? */
    return look_after(b, 1, 1, err);
}

/* -- the end ----------------------------------------------------------------*/

/* Exports that could not be removed hurt nobody's data: the point is complete,
 * and the next run clears them away. */
static void
release(struct backup *b)
{
    struct err why = ERR_INIT;

    b->released = true;
    if (source_release(b->source, &why) < 0)
        backup_warn(b,
                    "something of this backup is left in QEMU (the next run "
                    "removes it): %s",
                    why.msg);
}

static int
commit(struct backup *b, struct err *err)
{
    struct err why = ERR_INIT;

    if (!b->opts->hold) /* else the commit may fail, too */
        release(b);
    if (backup_record(b, err) < 0 || repo_commit(b->session, b->point, err) < 0)
        return err_side(err, ERR_SIDE_REPO);
    b->taken = false;
    if (b->opts->hold)
        release(b);
    if (source_settle(b->source, true, &why) < 0)
        backup_warn(b, "bitmaps in QEMU are not as they should be: %s",
                    why.msg);
    resume_forget(b);
    err_clear(&why);
    if (source_finish(b->source, &why) < 0)
        backup_warn(b, "images of the machine: %s", why.msg);
    return 0;
}

/* Not committed: QEMU gets back what it had.  The first error stays. */
static void
undo(struct backup *b)
{
    struct err why = ERR_INIT;

    if (!b->taken)
        return;
    b->taken = false;
    (void)source_release(b->source, &why); /* the first error stays in why */
    (void)source_settle(b->source, false, &why);
    if (why.code != ERR_NONE && !source_offline(b->source))
        hooks_note(b->hooks,
                   "something of this backup is left in QEMU; the next run "
                   "removes it: %s",
                   why.msg);
    err_clear(&why);
    if (source_finish(b->source, &why) < 0)
        hooks_note(b->hooks,
                   "the images of the machine were not closed in order: %s",
                   why.msg);
}

/* The repository is what failed, and the instant may wait for it. */
static void
hold(struct backup *b, const struct err *why)
{
    if (!b->opts->hold || !b->taken || b->released ||
        why->side != ERR_SIDE_REPO || !source_hold(b->source))
        return;
    b->taken = false;
    hooks_event(b->hooks,
                jv_build("{s:s, s:s}", "event", "warning", "message",
                         "the instant is held in QEMU for 'backup --resume'; "
                         "until then nobody watches its scratch space, and a "
                         "full one may stop the machine"));
}

static void
backup_done(struct backup *b)
{
    undo(b);
    for (size_t i = 0; b->copy != NULL && i < b->plan.n; i++) {
        map_reader_free(b->copy[i].base);
        map_writer_free(b->copy[i].map);
        heal_done(&b->copy[i].heal);
    }
    free(b->copy);
    free(b->got);
    free(b->adopted);
    repo_session_free(b->session);
    point_free(b->point);
    plan_done(&b->plan);
    point_list_done(&b->points);
    point_list_done(&b->partials);
    source_close(b->source);
    repo_close(b->repo);
    offline_known_done(&b->known);
    jv_free(b->warnings);
    impact_free(b->impact);
}

/* From the instant on the machine was there: what fails now is the backup, not
 * the way to the machine. */
static int
reached(const struct backup *b, struct err *err)
{
    if (err != NULL && err->code == ERR_NO_SPACE && err->side == ERR_SIDE_REPO)
        (void)err_wrap(err, "no room in repository '%s'", b->opts->repo);
    if (err != NULL && err->side == ERR_SIDE_MACHINE)
        err->side = ERR_SIDE_NONE;
    return -1;
}

int
job_backup(const struct job_backup_opts *opts, const struct job_hooks *hooks,
           struct jv **ret_result, struct err *err)
{
    CLEANUP(backup_done) struct backup b = {.opts = opts, .hooks = hooks};

    b.start_ms = clock_ms();
    b.threads = opts->threads ? opts->threads : pool_cpus();
    b.threads = b.threads < THREADS_MAX ? b.threads : THREADS_MAX;
    b.warnings = jv_array();
    if (b.warnings == NULL)
        return err_set_errno(err, ENOMEM, "backup");
    if (open_both(&b, err) < 0 || begin_session(&b, err) < 0 ||
        list_points(&b, err) < 0 || choose(&b, err) < 0 || prepare(&b, err) < 0)
        return -1;
    if ((opts->resume ? adopt_instant : take_instant)(&b, err) < 0 ||
        copy_disks(&b, err) < 0 || commit(&b, err) < 0) {
        hold(&b, err);
        return reached(&b, err);
    }
    return backup_report(&b, ret_result, err);
}
