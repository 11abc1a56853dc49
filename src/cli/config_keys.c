/* The table of the keys in tidemark.conf.  Most of them are options, and their
 * rows come from the commands themselves. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "cli.h"
#include "config.h"
#include "err.h"

#define IN_REPOSITORY CONF_IN(CONF_REPOSITORY)
#define IN_DEFAULTS CONF_IN(CONF_DEFAULTS)
#define IN_MACHINE (CONF_IN(CONF_MACHINE) | IN_DEFAULTS)
#define ONLY_MACHINE CONF_IN(CONF_MACHINE)

#define KEYS_MAX 64u

/* -- checks -----------------------------------------------------------------*/

static int
check_text(const void *arg, const char *value, struct err *err)
{
    return 0;
}

static int
check_path(const void *arg, const char *value, struct err *err)
{
    if (value[0] != '/')
        return err_set(err, ERR_USAGE,
                       "'%s' is no absolute path; a timer and a shell would "
                       "take it for different places",
                       value);
    return 0;
}

/* The rest of an address is looked at by whoever uses it. */
static int
check_address(const void *scheme, const char *value, struct err *err)
{
    size_t n = strlen(scheme);

    if (strncmp(value, scheme, n) != 0 || value[n] != '/')
        return err_set(err, ERR_USAGE,
                       "'%s' does not begin with '%s/': write %s", value,
                       (const char *)scheme,
                       strcmp(scheme, "qmp:") == 0
                           ? "source = qmp:/path.sock, or disks = "
                             "file:/image.qcow2 for a machine that is off"
                           : "disks = file:/image.qcow2");
    return 0;
}

static int
check_duration(const void *arg, const char *value, struct err *err)
{
    uint64_t ns;

    return opt_set_duration(&ns, value, err);
}

static int
check_parallel(const void *arg, const char *value, struct err *err)
{
    unsigned n;

    return opt_set_parallel(&n, value, err);
}

static int
check_share(const void *arg, const char *value, struct err *err)
{
    unsigned share;

    return opt_set_share(&share, value, err);
}

static int
check_gc(const void *arg, const char *value, struct err *err)
{
    if (strcmp(value, "never") != 0 && strcmp(value, "after-run") != 0 &&
        strcmp(value, "weekly") != 0)
        return err_set(err, ERR_USAGE,
                       "'%s' is none of never, after-run, weekly", value);
    return 0;
}

/* By the setter of the option, on values that nobody uses. */
static int
check_option(const void *arg, const char *value, struct err *err)
{
    CLEANUP_FREE struct opts *scratch = calloc(1, sizeof *scratch);
    const struct opt *row = arg;

    if (scratch == NULL)
        return err_set_errno(err, ENOMEM, "configuration");
    if (row->arg != NULL)
        return row->set((char *)scratch + row->offset, value, err);
    if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
        return err_set(err, ERR_USAGE, "'%s' is none of yes, no", value);
    return 0;
}

/* -- the table --------------------------------------------------------------*/

static const struct conf_key own[] = {
    {"path", IN_REPOSITORY, false, check_path, NULL},
    {"passphrase-command", IN_REPOSITORY, false, check_text, NULL},
    {"gc", IN_REPOSITORY | IN_DEFAULTS, false, check_gc, NULL},
    {"verify", IN_REPOSITORY | IN_DEFAULTS, false, check_share, NULL},
    {"source", ONLY_MACHINE, false, check_address, "qmp:"},
    {"disks", ONLY_MACHINE, false, check_address, "file:"},
    {"repository", IN_MACHINE, false, check_text, NULL},
    {"before", IN_MACHINE, false, check_text, NULL},
    {"after", IN_MACHINE, false, check_text, NULL},
    {"hook-timeout", IN_MACHINE, false, check_duration, NULL},
    {"timeout", IN_MACHINE, false, check_duration, NULL},
    {"max-age", IN_MACHINE, false, check_duration, NULL},
    {"parallel", IN_DEFAULTS, false, check_parallel, NULL},
    {"stop-timeout", IN_DEFAULTS, false, check_duration, NULL},
};

/* Options that may stand in the file.  One that this build's command does not
 * have is an unknown key. */
static const struct {
    const struct command *command;
    const char *name;
    unsigned in;
    bool list;
} options[] = {
    {&command_backup, "name", ONLY_MACHINE, false},
    {&command_backup, "disk", ONLY_MACHINE, true},
    {&command_backup, "exclude", IN_MACHINE, true},
    {&command_backup, "tag", IN_MACHINE, true},
    {&command_backup, "quiesce", IN_MACHINE, false},
    {&command_backup, "scratch", IN_MACHINE, false},
    {&command_backup, "compress", IN_MACHINE, false},
    {&command_backup, "paranoid", IN_MACHINE, false},
    {&command_backup, "threads", IN_MACHINE, false},
    {&command_backup, "audit", IN_MACHINE, false},
    {&command_backup, "limit-rate", IN_MACHINE, false},
    {&command_backup, "no-backoff", IN_MACHINE, false},
    {&command_backup, "scratch-max", IN_MACHINE, false},
    {&command_prune, "keep-last", IN_MACHINE, false},
    {&command_prune, "keep-hourly", IN_MACHINE, false},
    {&command_prune, "keep-daily", IN_MACHINE, false},
    {&command_prune, "keep-weekly", IN_MACHINE, false},
    {&command_prune, "keep-monthly", IN_MACHINE, false},
    {&command_prune, "keep-yearly", IN_MACHINE, false},
    {&command_prune, "keep-within", IN_MACHINE, false},
    {&command_prune, "keep-tag", IN_MACHINE, true},
};

static int
check_scratch(const void *arg, const char *value, struct err *err)
{
    return check_path(NULL, value, err);
}

static int
check_within(const void *arg, const char *value, struct err *err)
{
    const struct retention r = {.within = value};

    return retention_check(&r, err);
}

static int
check_tag(const void *arg, const char *value, struct err *err)
{
    const char *const tags[] = {value, NULL};
    const struct retention r = {.tags = tags};

    return retention_check(&r, err);
}

/* What the option leaves to the job, or a file must not have. */
static void
stricter(struct conf_key *k)
{
    if (strcmp(k->name, "scratch") == 0)
        k->check = check_scratch;
    if (strcmp(k->name, "keep-within") == 0)
        k->check = check_within;
    if (strcmp(k->name, "keep-tag") == 0 || strcmp(k->name, "tag") == 0)
        k->check = check_tag;
}

const struct conf_key *
config_keys(void)
{
    static struct conf_key table[KEYS_MAX + 1];
    size_t n = 0;

    _Static_assert(ARRAY_SIZE(own) + ARRAY_SIZE(options) <= KEYS_MAX,
                   "the table of keys is too small");
    if (table[0].name != NULL)
        return table;
    for (size_t i = 0; i < ARRAY_SIZE(own); i++)
        table[n++] = own[i];
    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        const struct opt *row = options[i].command->opts;

        while (row->name != NULL && strcmp(row->name, options[i].name) != 0)
            row++;
        if (row->name == NULL)
            continue;
        table[n] = (struct conf_key){.name = row->name,
                                     .in = options[i].in,
                                     .list = options[i].list,
                                     .check = check_option,
                                     .arg = row};
        stricter(&table[n++]);
    }
    return table;
}
