/* cli/opts.h - options as data: one table parses them and prints the help.
 *
 * A command lists its options as rows of struct opt; the same rows become
 * getopt_long()'s tables, `--help`, and (checked by a test) the manual page.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "retention.h"
#include "source.h"

struct err;

#define OPTS_LIST_MAX 256u /* how often --disk may be given */
#define OPTS_ROWS_MAX 32u
#define OPTS_THREADS_MAX 256u

/* A list of words that stay where argv has them. */
struct opt_list {
    const char *v[OPTS_LIST_MAX + 1]; /* NULL-terminated */
    size_t n;
};

/* The values of all commands. */
struct opts {
    const char *operand; /* MACHINE, NAME@REV, ... or NULL; the first one */
    struct opt_list operands;
    const char *repo;
    const char *name;
    const char *to;
    const char *format;
    const char *scratch;
    struct opt_list disks;
    struct opt_list exclude;
    struct opt_list tags;
    struct opt_list keep_tags;
    struct retention keep; /* but for its tags */
    uint64_t fence_after;  /* ns; 0: default */
    unsigned rewrite;      /* percent; 0: default */
    const char *label;
    const char *passphrase_command;
    const char *new_passphrase_command;
    int passphrase_fd; /* -1: none; the others, too */
    int new_passphrase_fd;
    int paper_key_fd;
    uint64_t kdf_memory; /* bytes; 0: default */
    uint64_t chunk_size;
    enum quiesce quiesce;
    int compress;
    unsigned threads; /* 0: as many as there are CPUs */
    bool encrypt;
    bool full;
    bool paranoid;
    unsigned audit; /* of 10000 */
    bool structure;
    bool resume;
    bool hold;
    bool read_only;
    bool repair;
    unsigned sample;     /* of 10000 */
    uint64_t limit_rate; /* bytes per second */
    bool overwrite;
    bool remove;
    bool dry_run;
    bool gc;
    bool json;
    bool quiet;
    bool debug;
    bool help;
};

#define OPTS_INIT                                                        \
    {                                                                    \
        .chunk_size = 64u << 10, .compress = 1, .audit = 100,            \
        .passphrase_fd = -1, .new_passphrase_fd = -1, .paper_key_fd = -1 \
    }

struct opt {
    const char *name; /* long name */
    int letter;       /* short form, or 0 */
    const char *arg;  /* what --help calls its argument; NULL: takes none */
    const char *help; /* lines separated by '\n' */
    int (*set)(void *field, const char *value, struct err *err);
    size_t offset; /* of the field in struct opts */
};

/* Rows are written OPT(repo, 0, "DIR", set_text, "..."), field = name. */
#define OPT(field, short_, arg_, set_, help_)                               \
    {                                                                       \
        .name = #field, .letter = (short_), .arg = (arg_), .help = (help_), \
        .set = (set_), .offset = offsetof(struct opts, field)               \
    }
#define OPT_NAMED(name_, field, arg_, set_, help_)                      \
    {                                                                   \
        .name = (name_), .arg = (arg_), .help = (help_), .set = (set_), \
        .offset = offsetof(struct opts, field)                          \
    }
#define OPT_END      \
    {                \
        .name = NULL \
    }

/* Setters: `value` is NULL for options without argument. */
int opt_set_text(void *field, const char *value, struct err *err);
int opt_set_flag(void *field, const char *value, struct err *err);
int opt_set_list(void *field, const char *value, struct err *err);
int opt_set_chunk_size(void *field, const char *value, struct err *err);
int opt_set_quiesce(void *field, const char *value, struct err *err);
int opt_set_compress(void *field, const char *value, struct err *err);
int opt_set_threads(void *field, const char *value, struct err *err);
int opt_set_share(void *field, const char *value, struct err *err);
int opt_set_audit(void *field, const char *value, struct err *err);
int opt_set_rate(void *field, const char *value, struct err *err);
int opt_set_keep(void *field, const char *value, struct err *err);
int opt_set_percent(void *field, const char *value, struct err *err);
int opt_set_duration(void *field, const char *value, struct err *err); /* ns */
/* An open descriptor; children will not have it. */
int opt_set_fd(void *field, const char *value, struct err *err);
int opt_set_kdf_memory(void *field, const char *value, struct err *err);
int opt_set_format(void *field, const char *value, struct err *err);

/* --json, --quiet, --debug, --help, and what unlocks a repository: every command takes them. */
extern const struct opt opts_common[];

/* Parse argv[1..]; argv[0] is the command's name.  -1 with ERR_USAGE. */
int opts_parse(const struct opt *rows, int argc, char **argv, struct opts *ret,
               struct err *err);

/* The rows as lines of help. */
void opts_print(const struct opt *rows, FILE *to);
