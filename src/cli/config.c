#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "cli.h"
#include "err.h"
#include "passphrase.h"
#include "recorder.h"

#define DEFAULT_FILE "/etc/tidemark/tidemark.conf"

/* -- the file ---------------------------------------------------------------*/

/* The path, and whether somebody asked for this very one. */
static const char *
file_of(const struct cli *c, bool *ret_asked)
{
    const char *env = getenv("TIDEMARK_CONFIG");

    *ret_asked = true;
    if (c->o.config != NULL)
        return c->o.config;
    if (env != NULL && *env != '\0')
        return env;
    *ret_asked = false;
    return DEFAULT_FILE;
}

int
config_find(struct cli *c, const struct conf **ret, struct err *err)
{
    struct err why = ERR_INIT;
    bool asked;
    const char *file = file_of(c, &asked);

    if (c->conf == NULL &&
        conf_load(file, config_keys(), &c->conf, &why) != 0) {
        if (asked || why.code != ERR_NOT_FOUND) {
            (void)err_copy(err, &why);
            if (why.code == ERR_NOT_FOUND || why.code == ERR_SYSTEM)
                err->code = ERR_USAGE;
            return -1;
        }
    }
    *ret = c->conf;
    return 0;
}

int
config_need(struct cli *c, const struct conf **ret, struct err *err)
{
    if (config_find(c, ret, err) != 0)
        return -1;
    if (*ret == NULL)
        return err_set(err, ERR_USAGE,
                       "there is no configuration '%s': write one, or name "
                       "another with --config FILE",
                       DEFAULT_FILE);
    return 0;
}

/* -- values -> options ------------------------------------------------------*/

static int
apply_row(struct cli *c, const struct opt *row, const struct conf_section *s,
          struct err *err)
{
    void *field = (char *)&c->o + row->offset;
    const char *value;

    for (size_t i = 0; (value = conf_nth(s, row->name, i)) != NULL; i++) {
        if (row->arg == NULL && strcmp(value, "no") == 0)
            continue;
        if (row->set(field, value, err) != 0)
            return err_wrap(err, "%s: '%s' of '%s'", conf_file(c->conf),
                            row->name, conf_name(s));
        if (row->set != opt_set_list)
            break;
    }
    return 0;
}

/* Only rows that are keys, too: "repo" is none. */
int
config_apply(struct cli *c, const struct conf_section *s, struct err *err)
{
    for (const struct opt *row = c->command->opts; row->name != NULL; row++)
        if (!opts_given(&c->o, row->name) && apply_row(c, row, s, err) != 0)
            return -1;
    return 0;
}

void
config_unlock(struct cli *c, const struct conf_section *repository)
{
    if (!opts_given(&c->o, "passphrase-command") &&
        !opts_given(&c->o, "passphrase-fd") &&
        !opts_given(&c->o, "paper-key-fd"))
        c->o.passphrase_command = conf_get(repository, "passphrase-command");
    passphrase_forget(); /* another repository's is a wrong one */
    passphrase_set_up(&c->o, c->command->id == CMD_INIT);
}

/* -- names ------------------------------------------------------------------*/

const char *
config_point_name(const struct conf_section *machine)
{
    const char *name = conf_get(machine, "name");

    return name != NULL ? name : conf_name(machine);
}

const struct conf_section *
config_machine_named(const struct conf *conf, const char *name)
{
    size_t len = strcspn(name, "@");
    const struct conf_section *s;

    for (size_t i = 0; (s = conf_at(conf, CONF_MACHINE, i)) != NULL; i++)
        if (strlen(config_point_name(s)) == len &&
            memcmp(config_point_name(s), name, len) == 0)
            return s;
    for (size_t i = 0; (s = conf_at(conf, CONF_MACHINE, i)) != NULL; i++)
        if (strlen(conf_name(s)) == len && memcmp(conf_name(s), name, len) == 0)
            return s;
    return NULL;
}

const struct conf_section *
config_repository_of(const struct conf *conf,
                     const struct conf_section *machine)
{
    const struct conf_section *r = conf_repository_of(
        machine != NULL ? machine : conf_at(conf, CONF_DEFAULTS, 0));

    if (r == NULL && conf_at(conf, CONF_REPOSITORY, 1) == NULL)
        r = conf_at(conf, CONF_REPOSITORY, 0);
    return r;
}

static int
no_configuration(const struct cli *c, struct err *err)
{
    return err_set(err, ERR_USAGE,
                   "machine '%s' is not understood: it is no address like "
                   "qmp:/path.sock, and there is no configuration '%s' in "
                   "which to look it up",
                   c->o.operand, DEFAULT_FILE);
}

int
config_machine(struct cli *c, const char **ret_address, struct err *err)
{
    const struct conf *conf;
    const struct conf_section *s;

    if (strchr(c->o.operand, ':') != NULL) {
        *ret_address = c->o.operand;
        return 0;
    }
    if (config_find(c, &conf, err) != 0)
        return -1;
    if (conf == NULL)
        return no_configuration(c, err);
    s = conf_find(conf, CONF_MACHINE, c->o.operand);
    if (s == NULL)
        return conf_unknown(conf, CONF_MACHINE, c->o.operand, err);
    if (config_apply(c, s, err) != 0)
        return -1;
    if (c->o.name == NULL)
        c->o.name = conf_name(s);
    c->machine = s;
    recorder_about(c, c->o.name, NULL);
    *ret_address = conf_get(s, "source");
    if (*ret_address == NULL)
        *ret_address = conf_get(s, "disks");
    else if (c->o.offline == NULL)
        c->o.offline = conf_get(s, "disks");
    return 0;
}

int
config_repository(struct cli *c, const char *text, const char **ret_path,
                  struct err *err)
{
    const struct conf *conf;
    const struct conf_section *s;

    *ret_path = text;
    if (strchr(text, '/') != NULL || *text == '.' || *text == '\0')
        return 0;
    if (config_find(c, &conf, err) != 0)
        return -1;
    if (conf == NULL)
        return 0;
    s = conf_find(conf, CONF_REPOSITORY, text);
    if (s == NULL)
        return access(text, F_OK) == 0 || c->command->id == CMD_INIT
                   ? 0
                   : conf_unknown(conf, CONF_REPOSITORY, text, err);
    config_unlock(c, s);
    *ret_path = conf_get(s, "path");
    return 0;
}

/* -- keys that are no options -----------------------------------------------*/

uint64_t
config_duration_ns(const struct conf_section *s, const char *key,
                   uint64_t otherwise)
{
    const char *value = s != NULL ? conf_get(s, key) : NULL;
    uint64_t ns = otherwise;

    if (value != NULL)
        (void)opt_set_duration(&ns, value, NULL); /* checked when read */
    return ns;
}

unsigned
config_count(const struct conf_section *s, const char *key, unsigned otherwise)
{
    const char *value = conf_get(s, key);
    unsigned n = otherwise;

    if (value != NULL)
        (void)opt_set_parallel(&n, value, NULL);
    return n;
}
