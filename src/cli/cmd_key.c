#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "cli.h"
#include "config.h"
#include "err.h"
#include "io.h"
#include "jv.h"
#include "passphrase.h"
#include "table.h"

static const struct opt opts[] = {
    OPT(repo, 0, "DIR", opt_set_text, "repository (TIDEMARK_REPO)"),
    OPT(label, 0, "TEXT", opt_set_text, "name of the new key slot, for people"),
    OPT_NAMED("new-passphrase-fd", new_passphrase_fd, "N", opt_set_fd,
              "read the new passphrase from descriptor N"),
    OPT_NAMED("new-passphrase-command", new_passphrase_command, "CMD",
              opt_set_text, "run CMD, its first line is the new passphrase"),
    OPT_NAMED("kdf-memory", kdf_memory, "SIZE", opt_set_kdf_memory,
              "memory of one guess at the passphrase, 64M to 1G (64M)"),
    OPT_END,
};

static int
list_table(struct cli *c, const struct jv *keys, struct err *err)
{
    CLEANUP(table_freep)
    struct table *t = table_new("SLOT|LABEL|MADE|>MEMORY|STATE");

    for (size_t i = 0; i < jv_size(keys); i++) {
        const struct jv *k = jv_at(keys, i);
        const char *problem = report_str(k, "problem", "");

        table_text(t, report_str(k, "slot", "?"));
        table_text(t, report_str(k, "label", ""));
        table_text(t, report_str(k, "time", ""));
        table_size(t, report_uint(k, "mem"));
        table_text(t, *problem != '\0'                    ? problem
                      : jv_get_bool(k, "removing", false) ? "being removed"
                                                          : "good");
    }
    return table_print(t, 0, c->out.result, err);
}

static int
report(struct cli *c, enum job_key_action action, const struct jv *result,
       struct err *err)
{
    const char *slot = report_str(result, "slot", "?");

    if (c->out.json)
        return out_json(&c->out, result, err);
    if (action == JOB_KEY_LIST)
        return list_table(c, jv_get(result, "keys"), err);
    if (c->out.quiet)
        return 0;
    if (action == JOB_KEY_ADD)
        out_line(&c->out, "key slot %s added", slot);
    if (action == JOB_KEY_PASSWD)
        out_line(&c->out,
                 "key slot %s has the new passphrase; the old one is "
                 "gone",
                 slot);
    if (action == JOB_KEY_REMOVE)
        out_line(&c->out, "key slot %s removed", slot);
    return 0;
}

/* Past stdio, whose buffers are nobody's to wipe. */
static int
export_paper(struct cli *c, const char *repo, struct err *err)
{
    CLEANUP_FREE struct secret *paper = calloc(1, sizeof *paper);
    int r;

    if (c->out.json)
        return err_set(err, ERR_USAGE,
                       "key export prints text for paper, not JSON");
    if (paper == NULL)
        return err_set_errno(err, ENOMEM, "paper key");
    r = job_key_export(repo, paper, err);
    if (r == 0 && io_write_full(STDOUT_FILENO, paper->text, paper->len) < 0)
        r = err_set_errno(err, errno, "write the paper key");
    explicit_bzero(paper, sizeof *paper);
    return r != 0 ? -1 : EXIT_DONE;
}

static int
find_action(const char *word, enum job_key_action *ret, struct err *err)
{
    static const char *const words[] = {[JOB_KEY_LIST] = "list",
                                        [JOB_KEY_ADD] = "add",
                                        [JOB_KEY_REMOVE] = "remove",
                                        [JOB_KEY_PASSWD] = "passwd",
                                        [JOB_KEY_EXPORT] = "export"};

    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        if (strcmp(word, words[i]) == 0) {
            *ret = (enum job_key_action)i;
            return 0;
        }
    return err_set(err, ERR_USAGE,
                   "key: '%s' is none of list, add, remove, passwd, export",
                   word);
}

/* [REPO] [SLOT] behind the action: REPO may as well come from --repo or
 * TIDEMARK_REPO, and of one word `remove` takes it for SLOT. */
static int
find_words(struct cli *c, struct job_key_opts *o, struct err *err)
{
    const struct opt_list *l = &c->o.operands;
    bool remove = o->action == JOB_KEY_REMOVE;
    size_t words = l->n - 1, slots = remove ? 1 : 0;

    if (words > slots + (c->o.repo == NULL))
        return err_set(err, ERR_USAGE, "key %s: one argument too many: '%s'",
                       c->o.operand, l->v[l->n - 1]);
    if (words < slots)
        return err_set(err, ERR_USAGE,
                       "key remove: SLOT is missing; see: tidemark key list");
    o->slot = remove ? l->v[l->n - 1] : NULL;
    if (words == slots)
        return cli_repo(c, &o->repo, err);
    o->repo = l->v[1];
    if (*o->repo == '\0')
        return err_set(err, ERR_USAGE, "key %s: REPO is empty", c->o.operand);
    return config_repository(c, o->repo, &o->repo, err);
}

static int
run(struct cli *c, struct err *err)
{
    CLEANUP_JV struct jv *result = NULL;
    struct job_key_opts o = {.label = c->o.label,
                             .kdf_memory = c->o.kdf_memory,
                             .passphrase = passphrase_new};

    if (find_action(c->o.operand, &o.action, err) != 0)
        return -1;
    if (find_words(c, &o, err) != 0)
        return -1;
    if (o.action == JOB_KEY_EXPORT)
        return export_paper(c, o.repo, err);
    if (job_key(&o, &result, err) != 0)
        return -1;
    return report(c, o.action, result, err) != 0 ? -1 : EXIT_DONE;
}

const struct command command_key = {
    .id = CMD_KEY,
    .name = "key",
    .operand_name = "ACTION [REPO] [SLOT]",
    .operand = OPERAND_REQUIRED,
    .max_operands = 3,
    .summary = "passphrases of an encrypted repository",
    .about = "list    the key slots of the repository\n"
             "add     one more passphrase\n"
             "remove  take SLOT away; the passphrase of another slot is asked "
             "for\n"
             "passwd  change the passphrase that is given\n"
             "export  print the paper key, which opens the repository when "
             "all\n"
             "        passphrases are lost\n\n"
             "REPO may be left out where --repo or TIDEMARK_REPO says it.",
    .opts = opts,
    .run = run,
};
