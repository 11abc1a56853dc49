/* cli/recorder.h - what a command does, into the history of this host.
 *
 * A history that cannot be written costs one warning and never the run.  Every
 * function takes a command that is not recorded, and then does nothing.
 * Main thread, but for recorder_line().
 */
#pragma once

#include <limits.h>
#include <stdint.h>

struct cli;
struct err;
struct jv;

/* The directory of the history: TIDEMARK_STATE, or where this user's belongs. */
int recorder_dir(char dir[PATH_MAX], struct err *err);

/* Before the command runs, while there is one thread. */
void recorder_begin(struct cli *c);

/* What the configuration says: the machine's name, the repository's path; NULL:
 * nothing. */
void recorder_about(struct cli *c, const char *machine, const char *repo);

void recorder_line(struct cli *c, const char *line); /* any thread */
void recorder_flush(struct cli *c); /* at most every two seconds */
void recorder_event(struct cli *c, const struct jv *event);
void recorder_progress(struct cli *c, const char *phase, uint64_t done,
                       uint64_t total);
void recorder_result(struct cli *c, const struct jv *result);

/* The end, with the exit status; `err` is that of a command that failed.  The
 * status to exit with: a history that was not written is worth a warning. */
int recorder_end(struct cli *c, int status, const struct err *err);
