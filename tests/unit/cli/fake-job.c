/* A job library that does nothing, for the tests of the command line.
 *
 * What it answers is told by the environment of the test that starts it:
 *   FAKE_ERROR   "CODE SIDE TEXT" (numbers of err_code and err_side): fail so
 *   FAKE_RESULT  the result as JSON, instead of a plausible one
 *   FAKE_EVENTS  JSON array of events to send first
 *   FAKE_STEPS   progress reports to send, 1 MiB each
 *   FAKE_WAIT    file to make; then wait until asked to stop
 *   FAKE_GC_ERROR, FAKE_GC_BUSY  what becomes of a collection
 *   FAKE_ECHO    file that gets the options as they arrived, as JSON
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "job.h"
#include "jv.h"
#include "log.h"

#define POINT_ID "1f3a9c00112233445566778899aabbcc"
#define DISK                                                             \
    "{\"disk\":\"vda\",\"format\":\"qcow2\",\"size\":21474836480,"       \
    "\"tracking\":\"full\",\"reason\":\"new disk\",\"persistent\":true," \
    "\"read_bytes\":1610612736,\"dirty_bytes\":1610612736,"              \
    "\"new_bytes\":1073741824,\"stored_bytes\":536870912}"
#define POINT                                                               \
    "\"machine\":\"web1\",\"point\":\"" POINT_ID "\",\"parent\":\"\","      \
    "\"seq\":1,\"time\":\"2026-11-20T18:00:00Z\","                          \
    "\"consistency\":\"filesystem\",\"freeze_ms\":45,\"capture\":\"pull\"," \
    "\"tags\":[]"
#define WAIT_MS 20000u

static const char *
env(const char *name)
{
    const char *v = getenv(name);

    return v != NULL && *v != '\0' ? v : NULL;
}

static int
give(const char *plausible, struct jv **ret, struct err *err)
{
    const char *text = env("FAKE_RESULT");

    if (text == NULL)
        text = plausible;
    return jv_parse(text, strlen(text), JV_DEPTH_MAX, ret, err);
}

static int
fail(struct err *err)
{
    const char *text = env("FAKE_ERROR");
    char *rest;
    int code, side;

    if (text == NULL)
        return 0;
    code = (int)strtol(text, &rest, 10);
    side = (int)strtol(rest, &rest, 10);
    (void)err_set(err, (enum err_code)code, "%s",
                  *rest == ' ' ? rest + 1 : rest);
    (void)err_side(err, (enum err_side)side);
    return err_wrap(err, "job");
}

static void
send_events(const struct job_hooks *hooks)
{
    const char *text = env("FAKE_EVENTS"), *steps = env("FAKE_STEPS");
    long n = steps != NULL ? strtol(steps, NULL, 10) : 0;
    CLEANUP_JV struct jv *events = NULL;

    if (text != NULL)
        (void)jv_parse(text, strlen(text), JV_DEPTH_MAX, &events, ERR_ABORT);
    for (size_t i = 0; i < jv_size(events); i++)
        hooks->event(hooks->arg, jv_at(events, i));
    for (long i = 1; i <= n; i++)
        hooks->progress(hooks->arg, "read", (uint64_t)i << 20,
                        (uint64_t)n << 20);
}

/* Tell the test that this process runs, then wait for the flag. */
static int
wait_for_cancel(const struct job_hooks *hooks, struct err *err)
{
    const char *ready = env("FAKE_WAIT");
    struct deadline d = deadline_in(WAIT_MS);
    int fd;

    if (ready == NULL)
        return 0;
    fd = open(ready, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    if (fd >= 0)
        (void)close(fd);
    while (!atomic_load(hooks->cancel) && deadline_left(d) > 0)
        (void)usleep(1000);
    /* Cleaning up takes until the test takes its file away. */
    while (access(ready, F_OK) == 0 && deadline_left(d) > 0)
        (void)usleep(1000);
    return err_set(err, ERR_CANCELED, "stopped on request");
}

static void
echo(struct jv *options)
{
    const char *file = env("FAKE_ECHO");
    CLEANUP_FREE char *text = options != NULL ? jv_text(options, true) : NULL;
    FILE *f = file != NULL ? fopen(file, "we") : NULL;

    if (f != NULL && text != NULL)
        (void)fputs(text, f);
    if (f != NULL)
        (void)fclose(f);
    jv_free(options);
}

static struct jv *
words(const char *const *list)
{
    struct jv *a = list != NULL ? jv_array() : jv_null();

    for (; list != NULL && *list != NULL; list++)
        (void)jv_add(a, jv_string(*list));
    return a;
}

static struct jv *
text_or_null(const char *s)
{
    return s != NULL ? jv_string(s) : jv_null();
}

int
job_backup(const struct job_backup_opts *o, const struct job_hooks *hooks,
           struct jv **ret_result, struct err *err)
{
    struct jv *e = jv_object();

    (void)jv_set(e, "machine", text_or_null(o->machine));
    (void)jv_set(e, "name", text_or_null(o->name));
    (void)jv_set(e, "repo", text_or_null(o->repo));
    (void)jv_set_bool(e, "full", o->full);
    (void)jv_set(e, "disks", words(o->disks));
    (void)jv_set(e, "exclude", words(o->exclude));
    (void)jv_set(e, "tags", words(o->tags));
    (void)jv_set_int(e, "quiesce", o->source.quiesce);
    (void)jv_set(e, "scratch", text_or_null(o->source.scratch));
    (void)jv_set(e, "run_dir", text_or_null(o->source.run_dir));
    (void)jv_set_int(e, "zstd_level", o->zstd_level);
    (void)jv_set_bool(e, "paranoid", o->paranoid);
    (void)jv_set_int(e, "threads", o->threads);
    (void)jv_set(e, "offline", text_or_null(o->source.offline));
    echo(e);
    log_debug("backup of %s\n\033[2J", o->machine);
    send_events(hooks);
    if (fail(err) != 0 || wait_for_cancel(hooks, err) != 0)
        return -1;
    return give("{\"event\":\"committed\"," POINT
                ",\"filesystems\":2,\"note\":\"\",\"transaction_us\":2100,"
                "\"duration_ms\":5000,\"warnings\":[],\"disks\":[" DISK "]}",
                ret_result, err);
}

int
job_restore(const struct job_restore_opts *o, const struct job_hooks *hooks,
            struct jv **ret_result, struct err *err)
{
    struct jv *e = jv_object();

    (void)jv_set(e, "repo", text_or_null(o->repo));
    (void)jv_set(e, "point", text_or_null(o->point));
    (void)jv_set(e, "to", text_or_null(o->to));
    (void)jv_set(e, "format", text_or_null(o->format));
    (void)jv_set(e, "disks", words(o->disks));
    (void)jv_set_bool(e, "overwrite", o->overwrite);
    (void)jv_set_int(e, "threads", o->threads);
    echo(e);
    send_events(hooks);
    if (fail(err) != 0 || wait_for_cancel(hooks, err) != 0)
        return -1;
    return give("{\"event\":\"restored\",\"machine\":\"web1\",\"point\":"
                "\"" POINT_ID "\",\"to\":\"/r\",\"format\":\"qcow2\","
                "\"config\":\"/r/machine.json\",\"disks\":["
                "{\"disk\":\"vda\",\"file\":\"/r/vda.qcow2\","
                "\"size\":21474836480,\"written_bytes\":1073741824}]}",
                ret_result, err);
}

int
job_verify(const struct job_verify_opts *o, const struct job_hooks *hooks,
           struct jv **ret_result, struct err *err)
{
    struct jv *e = jv_object();

    (void)jv_set(e, "repo", text_or_null(o->repo));
    (void)jv_set(e, "what", text_or_null(o->what));
    (void)jv_set_int(e, "threads", o->threads);
    (void)jv_set_bool(e, "structure", o->structure);
    (void)jv_set_int(e, "sample", o->sample);
    (void)jv_set_int(e, "limit_rate", (int64_t)o->limit_rate);
    (void)jv_set_bool(e, "resume", o->resume);
    (void)jv_set_bool(e, "read_only", o->read_only);
    echo(e);
    send_events(hooks);
    if (fail(err) != 0 || wait_for_cancel(hooks, err) != 0)
        return -1;
    return give("{\"points\":3,\"pages\":12,\"chunks\":4096,"
                "\"bytes\":268435456,\"problems\":[]}",
                ret_result, err);
}

#define FIGURES                                                          \
    "\"size\":21474836480,\"data_bytes\":1073741824,"                    \
    "\"unique_bytes\":536870912,\"stored_bytes\":268435456,"             \
    "\"meta_bytes\":1048576,\"freed_bytes\":4096,\"deduplication\":2.0," \
    "\"compression\":2.0"
#define SHORT                                    \
    "\"machine\":\"web1\",\"point\":\"" POINT_ID \
    "\",\"seq\":1,\"time\":\"2026-11-20T18:00:00Z\",\"tags\":[\"a\",\"b\"]"

int
job_prune(const struct job_prune_opts *o, const struct job_hooks *hooks,
          struct jv **ret_result, struct err *err)
{
    const struct retention *k = &o->keep;
    struct jv *e = jv_build(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:b, s:b, s:b, s:b, s:o}",
        "last", (int64_t)k->last, "hourly", (int64_t)k->hourly, "daily",
        (int64_t)k->daily, "weekly", (int64_t)k->weekly, "monthly",
        (int64_t)k->monthly, "yearly", (int64_t)k->yearly, "within",
        text_or_null(k->within), "tags", words(k->tags), "ignore_clock",
        (int)k->ignore_clock, "remove_last", (int)k->remove_last, "remove",
        (int)o->remove, "dry_run", (int)o->dry_run, "names", words(o->names));

    (void)jv_set(e, "repo", text_or_null(o->repo));
    echo(e);
    if (fail(err) != 0)
        return -1;
    return give("{\"repository\":\"00ff\",\"dry_run\":false,\"kept\":1,"
                "\"removed\":2,\"machines\":[{\"machine\":\"web1\","
                "\"kept\":1,\"removed\":2,\"points\":["
                "{" SHORT ",\"action\":\"remove\",\"rules\":[]},"
                "{" SHORT ",\"action\":\"remove\",\"rules\":[],"
                "\"damaged\":true},"
                "{" SHORT ",\"action\":\"keep\",\"rules\":[\"last\","
                "\"daily 2026-11-20\"]}]}],\"problems\":[]}",
                ret_result, err);
}

int
job_gc(const struct job_gc_opts *o, const struct job_hooks *hooks,
       struct jv **ret_result, struct err *err)
{
    struct jv *e =
        jv_build("{s:o, s:b, s:I, s:I}", "repo", text_or_null(o->repo),
                 "dry_run", (int)o->dry_run, "rewrite", (int64_t)o->rewrite,
                 "fence_after", (int64_t)o->fence_after);

    echo(e);
    if (env("FAKE_GC_ERROR") != NULL)
        return err_set(err, ERR_NO_SPACE, "collection failed");
    if (env("FAKE_GC_BUSY") != NULL)
        return jv_parse("{\"other_runs\":true}", 19, 4, ret_result, err);
    if (fail(err) != 0 || wait_for_cancel(hooks, err) != 0)
        return -1;
    return give("{\"points_removed\":2,\"points_live\":1,\"packs\":10,"
                "\"packs_removed\":4,\"packs_rewritten\":1,"
                "\"chunks_live\":99,\"before_bytes\":3145728,"
                "\"removed_bytes\":2097152,\"copied_bytes\":1024,"
                "\"segments_before\":5,\"segments_after\":2,"
                "\"leftovers\":3,\"sessions_fenced\":1,\"resumed\":1,"
                "\"other_runs\":false,\"dry_run\":true}",
                ret_result, err);
}

int
job_diff(const struct job_diff_opts *o, const struct job_hooks *hooks,
         struct jv **ret_result, struct err *err)
{
    echo(jv_build("{s:o, s:o, s:o, s:o}", "repo", text_or_null(o->repo), "from",
                  text_or_null(o->from), "to", text_or_null(o->to), "disks",
                  words(o->disks)));
    send_events(hooks);
    if (fail(err) != 0)
        return -1;
    return give("{\"from\":{" SHORT "},\"to\":{" SHORT "},\"disks\":["
                "{\"disk\":\"vda\",\"size\":2097152,\"from_size\":1048576,"
                "\"extents\":2,\"changed_bytes\":131072,"
                "\"zero_bytes\":65536},{\"disk\":\"vdb\","
                "\"only_in\":\"to\"}]}",
                ret_result, err);
}

int
job_stats(const char *repo, const char *what, const struct job_hooks *hooks,
          struct jv **ret_result, struct err *err)
{
    if (fail(err) != 0)
        return -1;
    return give(
        "{\"repository\":\"00ff\",\"pack_bytes\":3145728,"
        "\"unreferenced_bytes\":1048576,\"all\":{\"n_points\":1," FIGURES
        "},\"machines\":[{\"machine\":\"web1\","
        "\"n_points\":1," FIGURES ",\"points\":[{" SHORT "," FIGURES
        "}]}],\"problems\":[]}",
        ret_result, err);
}

int
job_check(const struct job_check_opts *o, const struct job_hooks *hooks,
          struct jv **ret_result, struct err *err)
{
    struct jv *e = jv_object();

    (void)jv_set(e, "repo", text_or_null(o->repo));
    (void)jv_set_bool(e, "repair", o->repair);
    (void)jv_set_bool(e, "dry_run", o->dry_run);
    (void)jv_set_int(e, "threads", o->threads);
    echo(e);
    send_events(hooks);
    if (fail(err) != 0 || wait_for_cancel(hooks, err) != 0)
        return -1;
    return give("{\"points\":3,\"chunks\":4096,\"bytes\":0,"
                "\"problems\":[],\"repair\":{\"actions\":[\"did it\"]}}",
                ret_result, err);
}

int
job_points(const char *repo, const char *name, struct jv **ret_result,
           struct err *err)
{
    if (fail(err) != 0)
        return -1;
    return give("{\"repository\":\"00ff\",\"path\":\"/r\",\"points\":[{" POINT
                ",\"disks\":[" DISK "]}],\"problems\":[]}",
                ret_result, err);
}

int
job_show(const char *repo, const char *point, struct jv **ret_result,
         struct err *err)
{
    if (fail(err) != 0)
        return -1;
    return give("{" POINT ",\"lineage\":\"00\",\"config\":{\"name\":\"web1\"},"
                "\"disks\":[" DISK "]}",
                ret_result, err);
}

int
job_init(const struct job_init_opts *opts, struct jv **ret_result,
         struct err *err)
{
    if (fail(err) != 0)
        return -1;
    *ret_result = jv_object();
    (void)jv_set_str(*ret_result, "repository", "00ff");
    (void)jv_set_str(*ret_result, "path", opts->repo);
    return jv_set_int(*ret_result, "chunk_size", (int64_t)opts->chunk_size);
}

void
job_set_unlock(secret_fn fn, void *arg, bool required)
{
}

int
job_key(const struct job_key_opts *opts, struct jv **ret_result,
        struct err *err)
{
    if (fail(err) != 0)
        return -1;
    return give("{\"repository\":\"00ff\",\"slot\":\"0123456789abcdef\","
                "\"keys\":[{\"slot\":\"0123456789abcdef\",\"label\":\"me\","
                "\"time\":\"2026-11-20T18:00:00Z\",\"ops\":3,"
                "\"mem\":268435456,\"removing\":false,\"problem\":\"\"}]}",
                ret_result, err);
}

int
job_key_export(const char *repo, struct secret *ret, struct err *err)
{
    if (fail(err) != 0)
        return -1;
    ret->len = 6;
    memcpy(ret->text, "paper\n", 6);
    return 0;
}

int
job_doctor(const char *machine, const struct source_opts *opts,
           struct jv **ret_result, struct err *err)
{
    if (fail(err) != 0)
        return -1;
    return give("{\"machine\":\"web1\",\"qemu\":\"7.2.22\","
                "\"capture\":\"snapshot\",\"features\":{\"a\":true},"
                "\"disks\":[{\"disk\":\"vda\",\"size\":65536,"
                "\"iothread\":false,\"bitmaps\":[{},{}],\"info\":{}},"
                "{\"disk\":\"cd0\",\"skipped\":\"CD-ROM\"}],"
                "\"agent\":{\"answers\":true},\"empty\":[],"
                "\"warnings\":[]}",
                ret_result, err);
}
