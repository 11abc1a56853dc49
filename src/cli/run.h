/* cli/run.h - the parts of `tidemark run`. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"
#include "crew.h"

struct cli;
struct err;
struct jv;

/* How a machine came out of it. */
enum outcome {
    OUTCOME_OK,
    OUTCOME_WARNING, /* committed, with warnings */
    OUTCOME_BUSY,    /* another run holds the machine: no alarm */
    OUTCOME_STOPPED, /* because we were asked to stop, or not begun */
    OUTCOME_FAILED,
};

struct run {
    struct cli *cli;
    const struct conf *conf;
    const struct conf_section **machines; /* in the order of the file */
    struct task *backups;                 /* one for each */
    size_t n;
    struct task *chores; /* prune, gc, verify: in this order */
    size_t n_chores;
    char *config; /* the file, for the children */
    uint64_t stop_ms;
    unsigned parallel;
};

/* How long a child may take, in ms; NULL: one that belongs to no machine. */
uint64_t run_timeout(const struct run *r, const struct conf_section *machine);

enum outcome run_outcome(const struct task *t);
const char *run_outcome_name(enum outcome o);

/* What is done to the repositories of the machines that committed: fills
 * r->chores.  Warns of what cannot be decided. */
int run_plan_chores(struct run *r, struct err *err);
/* Note what has to be known the next time (when gc ran). */
void run_note_chores(struct run *r);

/* The one summary; the last line of JSON. */
struct jv *run_summary(const struct run *r, int status);
int run_report(const struct run *r, int status, struct err *err);

/* The status of all of it. */
int run_status(const struct run *r, bool stopped);
