/* cli/words.h - secrets from descriptors and commands. */
#pragma once

#include <stdbool.h>

struct err;
struct secret;

/* The first line of descriptor `fd`, without its newline; `all`: everything up
 * to its end.  Nothing behind the line is read, so that one descriptor can give
 * several. */
int words_from_fd(int fd, bool all, struct secret *ret, struct err *err);

/* The first line that `sh -c COMMAND` prints.  ERR_KEY when it fails or takes
 * longer than two minutes. */
int words_from_command(const char *command, struct secret *ret,
                       struct err *err);
