/* base/log.h - debug trace, off unless the command line turns it on.
 *
 * This is for whoever debugs Tidemark (`--debug`): what was sent, what was
 * decided.  Results and errors never go through here; see err.h.
 * Threads: log_to() once before threads start; log_debug() from any thread.
 */
#pragma once

typedef void (*log_fn)(void *arg, const char *line);

/* Send trace lines to `fn`; NULL turns the trace off. */
void log_to(log_fn fn, void *arg);

void log_debug(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
