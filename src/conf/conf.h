/* conf/conf.h - the configuration: repositories, machines, and their defaults.
 *
 * Sections and what they may hold are checked when the file is read: a key that
 * nobody knows, a value that its option would refuse, a machine whose
 * repository does not exist.  A backup that was never made because of a typing
 * error is found on the day of the restore, so nothing is ignored.
 *
 * Which keys there are is a table of the caller's (the command line gives it
 * the rules of its options); what a key means is the caller's affair, too.
 * Read once, then constant.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct conf;
struct conf_section;
struct err;

#define CONF_NAME_MAX 255u      /* bytes of a name */
#define CONF_SECTIONS_MAX 4096u /* of both kinds */
#define CONF_VALUES_MAX 256u    /* in one section */

enum conf_kind { CONF_DEFAULTS, CONF_REPOSITORY, CONF_MACHINE };
#define CONF_IN(kind) (1u << (kind))

struct conf_key {
    const char *name;
    unsigned in; /* CONF_IN() of the sections that may have it */
    bool list;   /* may be given more than once */
    /* Is the value right?  `arg` is that of the row. */
    int (*check)(const void *arg, const char *value, struct err *err);
    const void *arg;
};

/* Parse; `keys` ends with a NULL name and outlives the result.  All errors are
 * ERR_USAGE and begin with "FILE:LINE: ". */
int conf_parse(const char *file, const void *text, size_t len,
               const struct conf_key *keys, struct conf **ret, struct err *err);

/* Read the file.  It names commands that run as whoever uses it: one that
 * others may write is refused, with the way to repair that.  ERR_NOT_FOUND when
 * there is none. */
int conf_load(const char *file, const struct conf_key *keys, struct conf **ret,
              struct err *err);
void conf_free(struct conf *c); /* NULL is fine */

const char *conf_file(const struct conf *c);

/* The sections of a kind in the order of the file; NULL behind the last.  There
 * is always exactly one CONF_DEFAULTS. */
const struct conf_section *conf_at(const struct conf *c, enum conf_kind kind,
                                   size_t i);
/* By name, or NULL. */
const struct conf_section *conf_find(const struct conf *c, enum conf_kind kind,
                                     const char *name);
const char *conf_name(const struct conf_section *s);

/* The value of a key; that of [defaults] when the section has none and the key
 * may stand there; or NULL.  conf_nth(): the i-th of a list. */
const char *conf_get(const struct conf_section *s, const char *key);
const char *conf_nth(const struct conf_section *s, const char *key, size_t i);

/* The [repository] of a machine, or NULL when it names none. */
const struct conf_section *conf_repository_of(const struct conf_section *s);

/* ERR_USAGE: no machine (repository) `name` in FILE, did you mean ..., or which
 * ones there are.  Returns -1. */
int conf_unknown(const struct conf *c, enum conf_kind kind, const char *name,
                 struct err *err);

#include "cleanup.h"
DEFINE_CLEANUP(struct conf *, conf_free)
