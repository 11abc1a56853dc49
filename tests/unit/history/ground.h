/* What the tests of the history share. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "history.h"
#include "tmpdir.h"

struct err;
struct jv;

extern char ground[TMPDIR_MAX]; /* a fresh directory, by ground_make() */

void ground_make(void);
void ground_remove(void);

/* As HISTORY_OPTS_INIT, in the directory. */
struct history_opts ground_opts(void);

/* Open, or abort. */
struct history *ground_open(void);

/* A run of `command` on `machine` that began; abort otherwise. */
struct history *ground_run(const char *command, const char *machine);

/* End it so, and close. */
void ground_end(struct history *h, const char *state);

/* The whole list; owned by the caller. */
struct jv *ground_list(void);
struct jv *ground_show(int64_t id);

/* SQL on the database beside all of it. */
void ground_sql(const char *sql);
int64_t ground_number(const char *sql);

/* The end of a child within 60 seconds: its wait status. */
int ground_wait(pid_t pid);
