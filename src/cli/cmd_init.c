#include <inttypes.h>

#include "cli.h"
#include "config.h"
#include "err.h"
#include "jv.h"
#include "size.h"

static const struct opt opts[] = {
    OPT_NAMED("chunk-size", chunk_size, "SIZE", opt_set_chunk_size,
              "16K to 4M, a power of two (64K)"),
    OPT(encrypt, 0, NULL, opt_set_flag,
        "encrypt everything under a passphrase; see also: tidemark key"),
    OPT(label, 0, "TEXT", opt_set_text,
        "name of the first key slot, for people"),
    OPT_NAMED("kdf-memory", kdf_memory, "SIZE", opt_set_kdf_memory,
              "memory of one guess at the passphrase, 64M to 1G (64M)"),
    OPT_END,
};

static int
run(struct cli *c, struct err *err)
{
    CLEANUP_JV struct jv *result = NULL;
    const char *path;
    char size[SIZE_TEXT_MAX];

    struct job_init_opts o = {.repo = c->o.operand,
                              .chunk_size = c->o.chunk_size,
                              .encrypt = c->o.encrypt,
                              .label = c->o.label,
                              .kdf_memory = c->o.kdf_memory};

    if (config_repository(c, o.repo, &o.repo, err) != 0)
        return -1;
    if (!o.encrypt && (o.label != NULL || o.kdf_memory != 0))
        return err_set(err, ERR_USAGE,
                       "init: --label and --kdf-memory need --encrypt");
    /* Whoever names a passphrase believes that it will be used. */
    if (!o.encrypt && (c->o.passphrase_fd >= 0 || c->o.paper_key_fd >= 0 ||
                       c->o.passphrase_command != NULL))
        return err_set(err, ERR_USAGE,
                       "init: a passphrase was given, but not --encrypt");
    if (job_init(&o, &result, err) != 0)
        return -1;
    if (c->out.json)
        return out_json(&c->out, result, err) != 0 ? -1 : EXIT_DONE;
    path = report_str(result, "path", c->o.operand);
    if (!c->out.quiet)
        out_line(&c->out, "repository %s made in '%s', chunks of %s%s",
                 report_str(result, "repository", "?"), path,
                 size_text(c->o.chunk_size, size),
                 o.encrypt ? ", encrypted" : "");
    if (!c->out.quiet && o.encrypt)
        out_line(&c->out,
                 "now print the paper key and keep it in a safe place: "
                 "tidemark key export '%s'",
                 path);
    return EXIT_DONE;
}

const struct command command_init = {
    .id = CMD_INIT,
    .name = "init",
    .operand_name = "REPO",
    .operand = OPERAND_REQUIRED,
    .summary = "make a repository in a new or empty directory",
    .about = "Makes a repository in the new or empty directory REPO.",
    .opts = opts,
    .run = run,
};
