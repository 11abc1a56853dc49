/* cli/terminal.h - asking a person who sits at the terminal. */
#pragma once

struct err;
struct secret;

/* Ask on the controlling terminal, without echo: 0, 1 when there is none, -1
 * (ERR_CANCELED when a signal came; the terminal is as it was before). */
int terminal_ask(const char *prompt, const char *what, struct secret *ret,
                 struct err *err);

/* A line on the terminal. */
void terminal_say(const char *line);
