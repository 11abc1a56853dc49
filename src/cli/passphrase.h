/* cli/passphrase.h - where a passphrase comes from.
 *
 * Never from the command line itself, which every user of the host can read,
 * and never from the environment, which children inherit: from a descriptor, a
 * command's output, or the terminal.
 */
#pragma once

#include <stdbool.h>

#include "secret.h"

struct err;
struct opts;

/* Use what the options and TIDEMARK_PASSPHRASE_COMMAND say for all jobs of this
 * process; `init`: a new passphrase comes from the same places. */
void passphrase_set_up(const struct opts *o, bool init);

/* For a new one of `key add` and `key passwd`; a secret_fn. */
int passphrase_new(void *arg, const struct secret_ask *ask, struct secret *ret,
                   struct err *err);

/* Wipe what was remembered. */
void passphrase_forget(void);
