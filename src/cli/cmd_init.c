#include <inttypes.h>

#include "cli.h"
#include "err.h"
#include "jv.h"
#include "size.h"

static const struct opt opts[] = {
    OPT_NAMED("chunk-size", chunk_size, "SIZE", opt_set_chunk_size,
              "16K to 4M, a power of two (64K)"),
    OPT_END,
};

static int
run(struct cli *c, struct err *err)
{
    CLEANUP_JV struct jv *result = NULL;
    char size[SIZE_TEXT_MAX];

    if (job_init(c->o.operand, c->o.chunk_size, &result, err) != 0)
        return -1;
    if (c->out.json)
        return out_json(&c->out, result, err) != 0 ? -1 : EXIT_DONE;
    if (!c->out.quiet)
        out_line(&c->out, "repository %s made in '%s', chunks of %s",
                 report_str(result, "repository", "?"),
                 report_str(result, "path", c->o.operand),
                 size_text(c->o.chunk_size, size));
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
