#include "cli.h"

#include <fcntl.h>
#include <langinfo.h>
#include <locale.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "cli_main.h"
#include "conf.h"
#include "err.h"
#include "jv.h"
#include "log.h"
#include "near.h"
#include "passphrase.h"
#include "recorder.h"
#include "signals.h"
#include "text.h"

static const struct command *const commands[] = {
    &command_init,    &command_backup,  &command_points, &command_show,
    &command_restore, &command_verify,  &command_check,  &command_prune,
    &command_gc,      &command_diff,    &command_stats,  &command_key,
    &command_doctor,  &command_history, &command_run,    &command_status,
};

const struct command *const *
cli_commands(size_t *ret_n)
{
    *ret_n = ARRAY_SIZE(commands);
    return commands;
}

/* -- help -------------------------------------------------------------------*/

static void
print_help(FILE *to)
{
    (void)fputs("usage: tidemark COMMAND [ARGUMENTS] [OPTIONS]\n\n"
                "Backs up running QEMU/KVM virtual machines: consistent,\n"
                "incremental, deduplicated.\n\n",
                to);
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        (void)fprintf(to, "  %-10s%s\n", commands[i]->name,
                      commands[i]->summary);
    (void)fputs("\n  --version             print the version and stop\n"
                "  -h, --help            print this; after a command, its "
                "options\n\n"
                "More: man tidemark\n",
                to);
}

static void
print_command_help(const struct command *cmd, FILE *to)
{
    (void)fprintf(to, "usage: tidemark %s", cmd->name);
    if (cmd->operand != OPERAND_NONE)
        (void)fprintf(to, cmd->operand == OPERAND_OPTIONAL ? " [%s]" : " %s",
                      cmd->operand_name);
    (void)fprintf(to, " [OPTIONS]\n\n%s\n\n", cmd->about);
    opts_print(cmd->opts, to);
    opts_print(opts_common, to);
}

/* -- finding the command ----------------------------------------------------*/

static const struct command *
find_command(const char *word, struct err *err)
{
    struct near near;

    near_init(&near, word);
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        if (strcmp(word, commands[i]->name) == 0)
            return commands[i];
        near_take(&near, commands[i]->name);
    }
    if (near.best != NULL)
        (void)err_set(err, ERR_USAGE,
                      "unknown command '%s'; did you mean '%s'?", word,
                      near.best);
    else
        (void)err_set(err, ERR_USAGE,
                      "unknown command '%s'; see 'tidemark --help'", word);
    return NULL;
}

/* -- running it -------------------------------------------------------------*/

static void
on_scratch(void *arg, uint64_t bytes)
{
    struct cli *c = arg;

    c->out.meter.progress.scratch = bytes;
}

static void
on_progress(void *arg, const char *phase, uint64_t done, uint64_t total)
{
    struct cli *c = arg;

    meter_update(&c->out.meter, phase, done, total);
    recorder_progress(c, phase, done, total);
}

static void
on_event(void *arg, const struct jv *event)
{
    struct cli *c = arg;
    const char *kind = jv_get_str(event, "event");
    const char *message = jv_get_str(event, "message");

    recorder_event(c, event);
    if (kind != NULL && strcmp(kind, "warning") == 0 && message != NULL)
        out_warning(&c->out, message);
    if (kind != NULL && strcmp(kind, "note") == 0 && message != NULL)
        log_debug("%s", message);
    if (kind != NULL && strcmp(kind, "plan") == 0) {
        jv_free(c->plan);
        c->plan = jv_ref(event);
    }
    if (c->out.json && c->command->events)
        (void)out_json(&c->out, event, NULL);
}

static void
on_line(void *arg, const char *line)
{
    struct cli *c = arg;

    recorder_line(c, line);
    if (c->o.debug)
        out_trace(&c->out, line);
}

/* The error of a command line that is wrong, with the way to its help. */
static int
parse(struct cli *c, int argc, char **argv, struct err *err)
{
    const struct command *cmd = c->command;

    if (opts_parse(cmd->opts, argc, argv, &c->o, err) != 0)
        return err_wrap(err, "%s", cmd->name);
    if (c->o.help)
        return 0;
    if (cmd->operand == OPERAND_NONE && c->o.operand != NULL)
        return err_set(err, ERR_USAGE, "%s: takes no argument, but got '%s'",
                       cmd->name, c->o.operand);
    if (cmd->operand == OPERAND_REQUIRED &&
        (c->o.operand == NULL || *c->o.operand == '\0'))
        return err_set(err, ERR_USAGE,
                       "%s: %s is missing; see 'tidemark %s --help'", cmd->name,
                       cmd->operand_name, cmd->name);
    if (c->o.operands.n > 1 && c->o.operands.n > cmd->max_operands)
        return err_set(
            err, ERR_USAGE, "%s: one argument too many: '%s'", cmd->name,
            c->o.operands.v[cmd->max_operands > 1 ? cmd->max_operands : 1]);
    return 0;
}

static int
run_command(struct cli *c, int argc, char **argv, struct err *err)
{
    int status;

    if (parse(c, argc, argv, err) != 0)
        return -1;
    if (c->o.help) {
        print_command_help(c->command, c->out.result);
        return EXIT_DONE;
    }
    c->out.json = c->o.json;
    c->out.quiet = c->o.quiet;
    out_progress(&c->out, c->o.debug, c->command->events);
    c->hooks = (struct job_hooks){.progress = on_progress,
                                  .scratch = on_scratch,
                                  .event = on_event,
                                  .arg = c};
    if (c->command->signals)
        c->hooks.cancel = signals_catch();
    passphrase_set_up(&c->o, c->command == &command_init);
    recorder_begin(c);
    if (c->o.debug || c->history != NULL)
        log_to(on_line, c);
    status = c->command->run(c, err);
    passphrase_forget();
    log_to(NULL, NULL);
    return status;
}

static int
run(struct cli *c, int argc, char **argv, struct err *err)
{
    const char *word = argc > 1 ? argv[1] : NULL;

    if (word == NULL) {
        print_help(c->out.notes);
        return EXIT_USAGE;
    }
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        print_help(c->out.result);
        return EXIT_DONE;
    }
    if (strcmp(word, "--version") == 0) {
        (void)fprintf(c->out.result, "tidemark %s\n", TIDEMARK_VERSION);
        return EXIT_DONE;
    }
    if (*word == '-')
        return err_set(err, ERR_USAGE,
                       "unknown option '%s': options go after the command; "
                       "see 'tidemark --help'",
                       word);
    c->command = find_command(word, err);
    if (c->command == NULL)
        return -1;
    return run_command(c, argc - 1, argv + 1, err);
}

/* A file that a job opens must never get number 0, 1 or 2, or what is printed
 * would go into it.  Standard output that was closed stays unwritable, so that
 * the loss of the result is noticed. */
static void
reserve_standard_files(void)
{
    static const int flags[] = {O_RDONLY, O_RDONLY, O_RDWR};

    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            (void)open("/dev/null", flags[fd]);
}

/* Also for errors that come up before the options are understood. */
static bool
wants_json(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--json") == 0)
            return true;
    return false;
}

/* A result that nobody got is no success.  The message of a backup says that
 * the point exists all the same. */
static int
finish(struct cli *c, int status)
{
    struct err err = ERR_INIT;

    meter_clear(&c->out.meter);
    if (out_flush(&c->out, &err) == 0)
        return status;
    if (status != EXIT_DONE && status != EXIT_WARNING)
        return status;
    if (c->command == &command_backup)
        (void)err_wrap(&err, "the point is committed");
    out_complain(&c->out, err.msg);
    return EXIT_FAILED;
}

int
cli_main(int argc, char **argv)
{
    struct cli c = {.o = OPTS_INIT};
    struct err err = ERR_INIT;
    int status;

    reserve_standard_files();
    (void)umask(077); /* what a disk holds is nobody else's business */
    signals_ignore_pipe();
    signals_keep_children();
    (void)setlocale(LC_CTYPE, "");
    text_utf8(strcmp(nl_langinfo(CODESET), "UTF-8") == 0);
    out_init(&c.out);
    c.out.json = wants_json(argc, argv);
    status = run(&c, argc, argv, &err);
    if (status < 0) {
        status = exit_status_of(c.command ? c.command->id : CMD_NONE, &err);
        out_error(&c.out, &err, status);
    }
    status = recorder_end(&c, finish(&c, status), &err);
    jv_free(c.plan);
    conf_free(c.conf);
    out_done(&c.out);
    return status;
}
