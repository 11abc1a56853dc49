/* cli/config.h - what tidemark.conf says, applied to a command's options.
 *
 * A key of a [machine] is the long name of an option of backup or prune and is
 * checked and applied by the setter of that option, so that the file and the
 * command line cannot differ in what they allow.  What the command line gave is
 * never overwritten.
 */
#pragma once

#include <stdint.h>

#include "conf.h"

struct cli;
struct err;

/* The keys that a configuration may have; constant after the first call.  NULL
 * without memory. */
const struct conf_key *config_keys(void);

/* Read --config, TIDEMARK_CONFIG or the default file, once.  NULL in *ret when
 * it is the default one and not there. */
int config_find(struct cli *c, const struct conf **ret, struct err *err);
/* The same, but there must be one. */
int config_need(struct cli *c, const struct conf **ret, struct err *err);

/* Take the values of a section for options of the running command that the
 * command line does not have. */
int config_apply(struct cli *c, const struct conf_section *s, struct err *err);

/* Open repositories of this section with its passphrase command from now on. */
void config_unlock(struct cli *c, const struct conf_section *repository);

/* The operand of backup and doctor: an address stays as it is, a name is looked
 * up and its section applied (c->machine is set then). */
int config_machine(struct cli *c, const char **ret_address, struct err *err);

/* A repository as --repo or a section names it: a path, or the name of a
 * [repository], whose passphrase command is used from then on. */
int config_repository(struct cli *c, const char *text, const char **ret_path,
                      struct err *err);

/* The name under which the repository has a machine's points. */
const char *config_point_name(const struct conf_section *machine);

/* The machine whose section or points have this name (up to its '@'), or NULL. */
const struct conf_section *config_machine_named(const struct conf *conf,
                                                const char *name);

/* The repository of `machine` (NULL: of none in particular), or that of
 * [defaults], or the only one; else NULL. */
const struct conf_section *
config_repository_of(const struct conf *conf,
                     const struct conf_section *machine);

/* Values of keys that are no options; `otherwise` when there is none. */
uint64_t config_duration_ns(const struct conf_section *s, const char *key,
                            uint64_t otherwise);
unsigned config_count(const struct conf_section *s, const char *key,
                      unsigned otherwise);
