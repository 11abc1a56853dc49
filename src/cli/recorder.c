/* Between the command line and the history. */
#include "recorder.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "cli.h"
#include "err.h"
#include "history.h"
#include "jv.h"

#define FLUSH_MS 2000u /* of the log is what a kill costs */
#define PARENT "TIDEMARK_RUN_PARENT"

static const char *
environment(const char *name)
{
    const char *v = getenv(name);

    return v != NULL && *v != '\0' ? v : NULL;
}

int
recorder_dir(char dir[PATH_MAX], struct err *err)
{
    const char *state = environment("TIDEMARK_STATE");
    const char *xdg = environment("XDG_STATE_HOME");
    const char *home = environment("HOME");
    int n;

    if (state != NULL)
        n = snprintf(dir, PATH_MAX, "%s", state);
    else if (geteuid() == 0)
        n = snprintf(dir, PATH_MAX, "/var/lib/tidemark");
    else if (xdg != NULL)
        n = snprintf(dir, PATH_MAX, "%s/tidemark", xdg);
    else if (home != NULL)
        n = snprintf(dir, PATH_MAX, "%s/.local/state/tidemark", home);
    else
        return err_set(err, ERR_USAGE,
                       "no directory for it: set TIDEMARK_STATE");
    /* Names of its files are put behind it. */
    if (n < 0 || n > PATH_MAX - 128)
        return err_set(err, ERR_USAGE,
                       "the path of the state directory is too long");
    return 0;
}

/* Once is enough.  Its end is tried all the same, or this run would seem to have
 * died. */
static void
complain(struct cli *c, const struct err *why)
{
    char text[ERR_MSG_MAX + 64];

    if (c->history_failed)
        return;
    c->history_failed = true;
    (void)snprintf(text, sizeof text, "history could not be written: %s",
                   why->msg);
    out_warning(&c->out, text);
}

/* -- the beginning ----------------------------------------------------------*/

/* "web1" of "web1@latest"; NULL without memory or when it is no one machine. */
static char *
machine_of(const struct cli *c)
{
    const char *word = c->o.operand;

    if (c->command == &command_backup)
        return c->o.name != NULL ? strdup(c->o.name) : NULL;
    if (word == NULL || c->o.operands.n > 1)
        return NULL;
    return strndup(word, strcspn(word, "@"));
}

static int
begin(struct cli *c, struct err *err)
{
    CLEANUP_FREE char *machine = machine_of(c);
    const char *repo = c->o.repo ? c->o.repo : environment("TIDEMARK_REPO");
    CLEANUP_FREE char *real = repo != NULL ? realpath(repo, NULL) : NULL;
    struct history_start start = {.command = c->command->name,
                                  .target =
                                      c->o.operands.n > 1 ? NULL : c->o.operand,
                                  .machine = machine,
                                  .repo = real != NULL ? real : repo,
                                  .parent = environment(PARENT)};
    struct history_opts opts = HISTORY_OPTS_INIT;
    char dir[PATH_MAX], id[24];

    opts.dir = dir;
    if (recorder_dir(dir, err) < 0 ||
        history_open(&opts, &c->history, err) < 0 ||
        history_begin(c->history, &start, err) < 0)
        return -1;
    /* What this run starts is part of it. */
    (void)snprintf(id, sizeof id, "%" PRId64, history_id(c->history));
    (void)setenv(PARENT, id, 1);
    return 0;
}

void
recorder_begin(struct cli *c)
{
    struct err why = ERR_INIT;
    char text[PATH_MAX + 128];

    if (!c->command->recorded || c->o.dry_run)
        return;
    if (begin(c, &why) < 0) {
        history_close(TAKE_PTR(c->history));
        complain(c, &why);
        return;
    }
    if (history_moved(c->history) == NULL)
        return;
    (void)snprintf(text, sizeof text,
                   "the history was damaged: it is kept as '%s', and a new one "
                   "has begun",
                   history_moved(c->history));
    out_warning(&c->out, text);
}

/* -- while it runs ----------------------------------------------------------*/

void
recorder_about(struct cli *c, const char *machine, const char *repo)
{
    CLEANUP_FREE char *real = repo != NULL ? realpath(repo, NULL) : NULL;

    if (c->history != NULL)
        history_about(c->history, machine, real != NULL ? real : repo);
}

void
recorder_line(struct cli *c, const char *line)
{
    if (c->history != NULL)
        history_log(c->history, line);
}

void
recorder_flush(struct cli *c)
{
    struct err why = ERR_INIT;

    if (c->history != NULL && !c->history_failed &&
        history_flush(c->history, FLUSH_MS, &why) < 0)
        complain(c, &why);
}

void
recorder_progress(struct cli *c, const char *phase, uint64_t done,
                  uint64_t total)
{
    if (c->history == NULL)
        return;
    history_progress(c->history, phase, done, total);
    recorder_flush(c);
}

/* Events come as text a program could read.  None of them comes while a guest is
 * frozen, so the log may be written now. */
void
recorder_event(struct cli *c, const struct jv *event)
{
    const char *kind = jv_get_str(event, "event");
    CLEANUP_FREE char *text = NULL;

    if (c->history == NULL)
        return;
    text = jv_text(event, false);
    history_log(c->history, text != NULL ? text : "event");
    if (kind != NULL && strcmp(kind, "plan") == 0)
        history_plan(c->history, event);
    recorder_flush(c);
}

void
recorder_result(struct cli *c, const struct jv *result)
{
    struct err why = ERR_INIT;

    if (c->history != NULL && history_result(c->history, result, &why) < 0)
        complain(c, &why);
}

/* -- the end ----------------------------------------------------------------*/

static const char *
state_of(int status)
{
    switch (status) {
    case EXIT_DONE:
        return "done";
    case EXIT_WARNING:
        return "warning";
    case EXIT_INTERRUPTED:
        return "canceled";
    default:
        return "failed";
    }
}

int
recorder_end(struct cli *c, int status, const struct err *err)
{
    struct history_end end = {.state = state_of(status),
                              .exit_status = status,
                              .warnings = c->out.warned};
    struct err why = ERR_INIT;

    if (c->history == NULL)
        return status;
    if (status != EXIT_DONE && status != EXIT_WARNING)
        end.error = c->out.complaint;
    if (err->code != ERR_NONE)
        end.error_code = err_code_name(err->code);
    if (end.error != NULL && *end.error != '\0')
        history_log(c->history, end.error);
    if (history_end(c->history, &end, &why) < 0) {
        complain(c, &why);
        status = status == EXIT_DONE ? EXIT_WARNING : status;
    }
    history_close(TAKE_PTR(c->history));
    return status;
}
