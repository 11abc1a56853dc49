/* cli/signals.h - asking a job to stop.
 *
 * SIGINT, SIGTERM and SIGHUP raise a flag that the job looks at; it then
 * thaws, removes what it put into QEMU, and returns.  Further signals do not
 * kill it either, because half a clean-up is worse than none, but say so.
 * Signals that were ignored at the start (nohup, background shells) stay
 * ignored.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

/* SIGPIPE: a reader that goes away must not kill a backup. */
void signals_ignore_pipe(void);

/* Whoever started us may ignore SIGCHLD; then no child's status could be had, and
 * one that failed would look like one that did not. */
void signals_keep_children(void);

/* Install the handlers; the returned flag lives as long as the process. */
const atomic_bool *signals_catch(void);

/* The signal that raised the flag, or 0. */
int signals_caught(void);
