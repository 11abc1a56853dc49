/* cli/cli.h - the commands, and what they share.
 *
 * A command reads its options, fills a struct job_X_opts, calls job_X(), and
 * prints the result.  It returns an exit status, or -1 with an error that
 * cli_main() prints and turns into a status (exitcode.h).
 */
#pragma once

#include <limits.h>
#include <stdbool.h>

#include "exitcode.h"
#include "job.h"
#include "opts.h"
#include "out.h"

struct cli;
struct conf;
struct conf_section;
struct err;
struct history;
struct jv;

enum operand { OPERAND_NONE, OPERAND_OPTIONAL, OPERAND_REQUIRED };

struct command {
    enum command_id id;
    const char *name;
    const char *operand_name; /* "MACHINE" */
    enum operand operand;
    unsigned max_operands; /* how many, if more than one */
    const char *summary;   /* one line, for the list of commands */
    const char *about;     /* a few lines for --help */
    const struct opt *opts;
    bool events;   /* --json also prints events as they happen */
    bool signals;  /* catches signals and cleans up */
    bool recorded; /* in the history of this host */
    int (*run)(struct cli *c, struct err *err);
};

extern const struct command command_init;
extern const struct command command_backup;
extern const struct command command_points;
extern const struct command command_show;
extern const struct command command_restore;
extern const struct command command_verify;
extern const struct command command_check;
extern const struct command command_prune;
extern const struct command command_gc;
extern const struct command command_diff;
extern const struct command command_stats;
extern const struct command command_doctor;
extern const struct command command_key;
extern const struct command command_history;
extern const struct command command_run;
extern const struct command command_status;

struct cli {
    const struct command *command;
    struct opts o;
    struct out out;
    struct job_hooks hooks;
    struct jv *plan; /* the job's "plan" event, or NULL; owned */
    char run_dir[PATH_MAX];
    struct history *history; /* that this run is recorded in, or NULL; owned */
    bool history_failed;     /* once, and that was said */
    struct conf *conf;       /* config.h; NULL: not read (yet) */
    const struct conf_section *machine; /* that the operand names, or NULL */
};

/* All commands in the order of --help. */
const struct command *const *cli_commands(size_t *ret_n);

/* -- shared by commands: cli.c ----------------------------------------------*/

/* --repo, what the configuration says, or TIDEMARK_REPO; a usage error when none
 * of them is there. */
int cli_repo(struct cli *c, const char **ret, struct err *err);

/* Where locks are, in c->run_dir. */
int cli_run_dir(struct cli *c, struct err *err);

/* Where this host's state is kept: TIDEMARK_STATE, or the usual place. */
int cli_state_dir(char *buf, size_t len, struct err *err);

/* How to look at a machine: run and scratch directories. */
int cli_source(struct cli *c, struct source_opts *ret, struct err *err);

/* Done: EXIT_WARNING when anything was warned of. */
int cli_status(const struct cli *c);

/* Mark and print the result object of a job that reports events. */
int cli_event_result(struct cli *c, struct jv *result, const char *event,
                     struct err *err);

/* The result of the job, the moment that it exists: for the history. */
void cli_remember(struct cli *c, const struct jv *result);

/* NULL for an empty list, else its words. */
const char *const *cli_list(const struct opt_list *l);

/* -- shared by commands: report.c -------------------------------------------*/

/* "web1@1f3a9c": machine and the first `digits` of the point's id. */
#define POINT_REF_DIGITS 6
#define POINT_REF_MAX 320 /* a name of 255 bytes, '@' and a whole id */
void point_ref(const struct jv *point, unsigned digits, char *buf, size_t len);

/* Digits with which every point of an array has a name of its own; at least
 * POINT_REF_DIGITS. */
unsigned point_digits(const struct jv *points);

/* "file system consistent, frozen 45 ms", "crash consistent (no agent)". */
void point_consistency(const struct jv *point, char *buf, size_t len);

#define POINT_TAGS_LEN 2200 /* 64 words of 32 bytes */
/* "tag1 tag2", or NULL when the point has none. */
const char *point_tags(const struct jv *point, char *buf, size_t len);

/* What verify and check found: a table of the damage, notes, one line that sums
 * it up.  _verdict() gives the exit status. */
int report_proof(struct cli *c, const struct jv *result, struct err *err);
int report_verdict(struct cli *c, const struct jv *result, const char *advice);

/* Table of a point's disks: tracking, read, new, stored. */
int report_disks(struct out *o, const struct jv *disks, struct err *err);

/* The figures of a collection; what `job_gc` gave. */
int report_gc(struct out *o, const struct jv *result, struct err *err);

/* Any value for people: scalars as "key  value", arrays of flat objects as
 * tables, the rest indented.  `skip`: NULL-terminated keys left out at the top. */
int report_value(struct out *o, const struct jv *value, const char *const *skip,
                 struct err *err);

/* "text" of a member, `otherwise` when it is missing or no string. */
const char *report_str(const struct jv *o, const char *key,
                       const char *otherwise);
uint64_t report_uint(const struct jv *o, const char *key);
