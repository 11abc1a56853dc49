#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "cli.h"
#include "clock.h"
#include "err.h"
#include "io.h"
#include "jv.h"
#include "recorder.h"
#include "run.h"
#include "size.h"
#include "table.h"
#include "text.h"

#define PARALLEL 2u
#define STOP_NS (UINT64_C(90) * 1000000000)
/* A first full read of much data lasts days; what hangs must end all the same. */
#define TIMEOUT_NS (UINT64_C(7) * 86400 * 1000000000)
#define NS_PER_MS 1000000u
#define SHOW_MS 10000u /* between two lines of progress of one machine */

static const struct opt opts[] = {
    OPT(parallel, 0, "N", opt_set_parallel, "machines at once (2)"),
    OPT_NAMED("dry-run", dry_run, NULL, opt_set_flag,
              "say what would be done and do nothing"),
    OPT_END,
};

/* -- one at a time ----------------------------------------------------------*/

/* By the file: runs of different configurations do not exclude each other. */
static uint64_t
fingerprint(const char *file)
{
    CLEANUP_FREE char *real = realpath(file, NULL);
    uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a */

    for (const char *p = real != NULL ? real : file; *p != '\0'; p++)
        h = (h ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
    return h;
}

static int
refuse(int fd, const char *file, struct err *err)
{
    char pid[24] = "";
    ssize_t n = io_pread_full(fd, pid, sizeof pid - 1, 0);

    pid[n > 0 ? strcspn(pid, "\n") : 0] = '\0';
    return err_set(err, ERR_LOCKED,
                   "already running: process %s is at work on '%s'; nothing "
                   "was done",
                   pid[0] != '\0' ? pid : "(just started)", file);
}

/* The kernel drops the lock with the process; the file stays. */
static int
lock_run(struct cli *c, const char *file, int *ret_fd, struct err *err)
{
    char path[PATH_MAX + 64], pid[24];
    CLEANUP_CLOSE int fd = -1;

    if (cli_run_dir(c, err) != 0)
        return err_wrap(err, "run");
    if (mkdir(c->run_dir, 0700) < 0 && errno != EEXIST)
        return err_set_errno(err, errno, "make the run directory '%s'",
                             c->run_dir);
    (void)snprintf(path, sizeof path, "%s/run-%016" PRIx64 ".lock", c->run_dir,
                   fingerprint(file));
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_set_errno(err, errno, "open lock file '%s'", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK
                   ? refuse(fd, file, err)
                   : err_set_errno(err, errno, "lock '%s'", path);
    (void)snprintf(pid, sizeof pid, "%d\n", (int)getpid());
    if (ftruncate(fd, 0) < 0 || io_pwrite_full(fd, pid, strlen(pid), 0) < 0)
        return err_set_errno(err, errno, "write lock file '%s'", path);
    *ret_fd = TAKE_FD(fd);
    return 0;
}

/* -- which machines ---------------------------------------------------------*/

static bool
wanted(const struct opts *o, const char *name)
{
    for (size_t i = 0; i < o->operands.n; i++)
        if (strcmp(o->operands.v[i], name) == 0)
            return true;
    return o->operands.n == 0;
}

static int
choose(struct run *r, struct err *err)
{
    const struct opts *o = &r->cli->o;
    const struct conf_section *s;
    size_t all = 0;

    for (size_t i = 0; i < o->operands.n; i++)
        if (conf_find(r->conf, CONF_MACHINE, o->operands.v[i]) == NULL)
            return conf_unknown(r->conf, CONF_MACHINE, o->operands.v[i], err);
    while (conf_at(r->conf, CONF_MACHINE, all) != NULL)
        all++;
    if (all == 0)
        return err_set(err, ERR_USAGE, "'%s' has no [machine NAME]",
                       conf_file(r->conf));
    r->machines = calloc(all, sizeof *r->machines);
    r->backups = calloc(all, sizeof *r->backups);
    if (r->machines == NULL || r->backups == NULL)
        return err_set_errno(err, ENOMEM, "%zu machines", all);
    for (size_t i = 0; (s = conf_at(r->conf, CONF_MACHINE, i)) != NULL; i++)
        if (wanted(o, conf_name(s)))
            r->machines[r->n++] = s;
    return 0;
}

uint64_t
run_timeout(const struct run *r, const struct conf_section *machine)
{
    if (machine == NULL)
        machine = conf_at(r->conf, CONF_DEFAULTS, 0);
    return config_duration_ns(machine, "timeout", TIMEOUT_NS) / NS_PER_MS;
}

static void
make_tasks(struct run *r)
{
    for (size_t i = 0; i < r->n; i++) {
        const char *name = conf_name(r->machines[i]);

        r->backups[i] = (struct task){
            .kind = "backup",
            .label = name,
            .timeout_ms = run_timeout(r, r->machines[i]),
            .argv = {"backup", name, "--json", "--config", r->config,
                     r->cli->o.debug ? "--debug" : NULL}};
    }
}

/* -- while they run ---------------------------------------------------------*/

static void
say(struct run *r, const struct task *t, const char *text)
{
    static const char own[] = "tidemark: ";
    char line[4096], whole[4352];

    if (strncmp(text, own, sizeof own - 1) == 0)
        text += sizeof own - 1;
    (void)snprintf(whole, sizeof whole, "%s%s%s: %s", t->label,
                   strcmp(t->kind, "backup") == 0 ? "" : " ",
                   strcmp(t->kind, "backup") == 0 ? "" : t->kind,
                   text_escape_to(text, line, sizeof line));
    (void)fprintf(r->cli->out.notes, "%s\n", whole);
    recorder_line(r->cli, whole);
    recorder_flush(r->cli);
    (void)fflush(r->cli->out.notes);
}

static void
on_line(void *arg, struct task *t, const char *line)
{
    say(arg, t, line);
}

static void
on_began(void *arg, struct task *t)
{
    struct run *r = arg;

    t->shown_ms = clock_ms();
    if (!r->cli->out.quiet && !r->cli->out.json)
        say(r, t, "begun");
}

static void
show_progress(struct run *r, struct task *t, const struct jv *o)
{
    uint64_t done = report_uint(o, "done"), total = report_uint(o, "total");
    char a[SIZE_TEXT_MAX], b[SIZE_TEXT_MAX], text[160];

    if (clock_ms() - t->shown_ms < SHOW_MS || total == 0)
        return;
    t->shown_ms = clock_ms();
    (void)snprintf(text, sizeof text, "%s %s of %s",
                   report_str(o, "phase", "read"), size_text(done, a),
                   size_text(total, b));
    say(r, t, text);
}

/* Each object says for whom it is; what is no event becomes one. */
static void
on_object(void *arg, struct task *t, struct jv *o)
{
    struct run *r = arg;
    struct out *out = &r->cli->out;

    if (jv_get_str(o, "event") == NULL)
        (void)jv_set_str(o, "event", t->kind);
    (void)jv_set_str(o, "for", t->label);
    recorder_flush(r->cli); /* a sign of life */
    if (out->json)
        (void)out_json(out, o, NULL);
    else if (!out->quiet && strcmp(jv_get_str(o, "event"), "progress") == 0)
        show_progress(r, t, o);
}

static void
on_ended(void *arg, struct task *t)
{
    struct run *r = arg;
    char text[64], time[TEXT_DURATION_MAX];

    if (t->killed) {
        (void)snprintf(text, sizeof text, "error: ended by signal %d",
                       t->status - 128);
        say(r, t, text);
    } else if (!r->cli->out.quiet && !r->cli->out.json) {
        (void)snprintf(text, sizeof text, "%s, %s",
                       run_outcome_name(run_outcome(t)),
                       text_duration(t->ms / 1000, time));
        say(r, t, text);
    }
}

static int
run_all(struct run *r, struct err *err)
{
    const struct crew_hooks hooks = {.arg = r,
                                     .object = on_object,
                                     .line = on_line,
                                     .began = on_began,
                                     .ended = on_ended};
    const atomic_bool *cancel = r->cli->hooks.cancel;

    make_tasks(r);
    if (crew_run(r->backups, r->n, r->parallel, r->stop_ms, cancel, &hooks,
                 err) != 0)
        return -1;
    if (atomic_load(cancel))
        return 0;
    /* One after the other: they are about the same repositories. */
    if (run_plan_chores(r, err) != 0 ||
        crew_run(r->chores, r->n_chores, 1, r->stop_ms, cancel, &hooks, err) !=
            0)
        return -1;
    run_note_chores(r);
    return 0;
}

/* -- the command ------------------------------------------------------------*/

static int
dry_run(struct run *r, struct err *err)
{
    CLEANUP(table_freep)
    struct table *t = table_new("MACHINE|REPOSITORY|SOURCE");
    CLEANUP_JV struct jv *list = jv_array();
    CLEANUP_JV struct jv *o = NULL;

    for (size_t i = 0; i < r->n; i++) {
        const struct conf_section *s = r->machines[i];
        const struct conf_section *repo = config_repository_of(r->conf, s);
        const char *source = conf_get(s, "source");
        const char *path = repo != NULL ? conf_name(repo) : "TIDEMARK_REPO";

        if (source == NULL)
            source = conf_get(s, "disks");
        table_text(t, conf_name(s));
        table_text(t, path);
        table_text(t, source);
        (void)jv_add(list, jv_build("{s:s, s:s, s:s}", "machine", conf_name(s),
                                    "repository", path, "source", source));
    }
    if (!r->cli->out.json)
        return table_print(t, 0, r->cli->out.result, err) != 0 ? -1 : EXIT_DONE;
    o = jv_build("{s:b, s:o}", "dry_run", 1, "machines", TAKE_PTR(list));
    return out_json(&r->cli->out, o, err) != 0 ? -1 : EXIT_DONE;
}

static int
conclude(struct run *r, struct err *err)
{
    struct cli *c = r->cli;
    int status = run_status(r, atomic_load(c->hooks.cancel)), ret = 0;
    CLEANUP_JV struct jv *summary = run_summary(r, status);

    if (summary == NULL)
        return err_set_errno(err, ENOMEM, "summary");
    cli_remember(c, summary);
    if (c->out.json) {
        ret = out_json(&c->out, summary, err);
    } else if (!c->out.quiet || status != EXIT_DONE) {
        ret = run_report(r, status, err);
    }
    return ret != 0 ? -1 : status;
}

static int
run_locked(struct run *r, struct err *err)
{
    CLEANUP_CLOSE int lock = -1;

    if (lock_run(r->cli, r->config, &lock, err) != 0 || run_all(r, err) != 0)
        return -1;
    return conclude(r, err);
}

static void
run_done(struct run *r)
{
    for (size_t i = 0; i < r->n; i++)
        task_done(&r->backups[i]);
    for (size_t i = 0; i < r->n_chores; i++)
        task_done(&r->chores[i]);
    free(r->machines);
    free(r->backups);
    free(r->chores);
    free(r->config);
}

static int
run(struct cli *c, struct err *err)
{
    CLEANUP(run_done) struct run r = {.cli = c};
    const struct conf_section *all;

    if (opts_given(&c->o, "passphrase-fd") ||
        opts_given(&c->o, "passphrase-command") ||
        opts_given(&c->o, "paper-key-fd"))
        return err_set(err, ERR_USAGE,
                       "run: each repository has its passphrase-command in the "
                       "configuration");
    if (config_need(c, &r.conf, err) != 0 || choose(&r, err) != 0)
        return -1;
    all = conf_at(r.conf, CONF_DEFAULTS, 0);
    r.parallel = c->o.parallel != 0 ? c->o.parallel
                                    : config_count(all, "parallel", PARALLEL);
    r.stop_ms = config_duration_ns(all, "stop-timeout", STOP_NS) / NS_PER_MS;
    r.config = realpath(conf_file(r.conf), NULL);
    if (r.config == NULL)
        return err_set_errno(err, errno, "'%s'", conf_file(r.conf));
    return c->o.dry_run ? dry_run(&r, err) : run_locked(&r, err);
}

const struct command command_run = {
    .id = CMD_RUN,
    .name = "run",
    .operand_name = "MACHINE...",
    .operand = OPERAND_OPTIONAL,
    .max_operands = OPTS_LIST_MAX,
    .summary = "back up all machines of the configuration",
    .about =
        "Takes a point of each machine in tidemark.conf (or of each MACHINE), "
        "several at\n"
        "once, then does what the configuration says of retention, "
        "collection and\n"
        "proof.  One that fails stops no other; the summary and the exit "
        "status tell.",
    .opts = opts,
    .signals = true,
    .recorded = true,
    .run = run,
};
