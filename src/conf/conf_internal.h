/* conf/conf_internal.h - what conf.c and conf_check.c share. */
#pragma once

#include "conf.h"

struct conf_value {
    const struct conf_key *key;
    char *text;
    unsigned line;
};

struct conf_section {
    struct conf *conf;
    enum conf_kind kind;
    char *name;    /* "" of [defaults] */
    unsigned line; /* 0: not in the file */
    struct conf_value *values;
    size_t n_values;
};

struct conf {
    char *file;
    const struct conf_key *keys;
    struct conf_section **sections; /* the first is [defaults] */
    size_t n_sections;
};

const char *conf_kind_word(enum conf_kind kind);

/* What one line alone does not show: each repository has a path, each machine a
 * source, and what they refer to is there. */
int conf_check(const struct conf *c, struct err *err);
