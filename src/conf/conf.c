#include "conf_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "ini.h"
#include "near.h"

static const char *const kinds[] = {[CONF_DEFAULTS] = "defaults",
                                    [CONF_REPOSITORY] = "repository",
                                    [CONF_MACHINE] = "machine"};

const char *
conf_kind_word(enum conf_kind kind)
{
    return kinds[kind];
}

/* -- memory -----------------------------------------------------------------*/

static void
section_free(struct conf_section *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->n_values; i++)
        free(s->values[i].text);
    free(s->values);
    free(s->name);
    free(s);
}

void
conf_free(struct conf *c)
{
    if (c == NULL)
        return;
    for (size_t i = 0; i < c->n_sections; i++)
        section_free(c->sections[i]);
    free(c->sections);
    free(c->file);
    free(c);
}

static struct conf_section *
add_section(struct conf *c, enum conf_kind kind, const char *name,
            unsigned line, struct err *err)
{
    struct conf_section *s = NULL;
    void *p = reallocarray(c->sections, c->n_sections + 1, sizeof(void *));

    if (p != NULL) {
        c->sections = p;
        s = calloc(1, sizeof *s);
    }
    if (s == NULL || (s->name = strdup(name)) == NULL) {
        section_free(s);
        (void)err_set_errno(err, ENOMEM, "configuration");
        return NULL;
    }
    s->conf = c;
    s->kind = kind;
    s->line = line;
    c->sections[c->n_sections++] = s;
    return s;
}

static int
add_value(struct conf_section *s, const struct conf_key *key,
          const struct ini_line *l, struct err *err)
{
    CLEANUP_FREE char *text = strdup(l->text);
    void *p = reallocarray(s->values, s->n_values + 1, sizeof *s->values);

    if (p != NULL)
        s->values = p;
    if (p == NULL || text == NULL)
        return err_set_errno(err, ENOMEM, "configuration");
    s->values[s->n_values++] = (struct conf_value){
        .key = key, .text = TAKE_PTR(text), .line = l->number};
    return 0;
}

/* -- lines ------------------------------------------------------------------*/

static int
check_name(const struct ini_line *l, struct err *err)
{
    size_t len = strlen(l->text);

    if (len == 0)
        return err_set(err, ERR_USAGE, "write [%s NAME]", l->word);
    if (len > CONF_NAME_MAX)
        return err_set(err, ERR_USAGE, "the name is longer than %u bytes",
                       CONF_NAME_MAX);
    if (strpbrk(l->text, "/@:") != NULL || l->text[0] == '-')
        return err_set(err, ERR_USAGE,
                       "the name '%s' has a '/', '@' or ':', or begins with "
                       "'-'",
                       l->text);
    return 0;
}

static int
unknown_section(const char *word, struct err *err)
{
    struct near near;

    near_init(&near, word);
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        near_take(&near, kinds[i]);
    if (near.best != NULL)
        return err_set(err, ERR_USAGE,
                       "unknown section [%s]; did you mean [%s]?", word,
                       near.best);
    return err_set(err, ERR_USAGE,
                   "unknown section [%s]; there are [repository NAME], "
                   "[machine NAME] and [defaults]",
                   word);
}

static int
take_section(struct conf *c, const struct ini_line *l, struct err *err)
{
    size_t kind = 0;
    const struct conf_section *old;

    while (kind < ARRAY_SIZE(kinds) && strcmp(l->word, kinds[kind]) != 0)
        kind++;
    if (kind == ARRAY_SIZE(kinds))
        return unknown_section(l->word, err);
    if (kind == CONF_DEFAULTS) {
        if (*l->text != '\0')
            return err_set(err, ERR_USAGE, "[defaults] takes no name");
    } else if (check_name(l, err) != 0) {
        return -1;
    }
    if (c->n_sections >= CONF_SECTIONS_MAX)
        return err_set(err, ERR_USAGE, "more than %u sections",
                       CONF_SECTIONS_MAX);
    old = conf_find(c, (enum conf_kind)kind, l->text);
    if (old != NULL && old->line != 0)
        return err_set(err, ERR_USAGE, "there is a [%s%s%s] in line %u already",
                       l->word, *l->text ? " " : "", l->text, old->line);
    if (kind == CONF_DEFAULTS) {
        c->sections[0]->line = l->number;
        return 0;
    }
    return add_section(c, (enum conf_kind)kind, l->text, l->number, err) != NULL
               ? 0
               : -1;
}

static int
unknown_key(const struct conf_section *s, const char *word, struct err *err)
{
    const struct conf_key *k = s->conf->keys;
    struct near near;

    near_init(&near, word);
    for (; k->name != NULL; k++) {
        if (strcmp(k->name, word) == 0)
            return err_set(err, ERR_USAGE,
                           "'%s' has no meaning in a [%s] section", word,
                           kinds[s->kind]);
        if ((k->in & CONF_IN(s->kind)) != 0)
            near_take(&near, k->name);
    }
    if (near.best != NULL)
        return err_set(err, ERR_USAGE, "unknown key '%s'; did you mean '%s'?",
                       word, near.best);
    return err_set(err, ERR_USAGE,
                   "unknown key '%s' in [%s]; see "
                   "tidemark.conf(5)",
                   word, kinds[s->kind]);
}

static int
check_value(const struct conf_section *s, const struct conf_key *key,
            const struct ini_line *l, struct err *err)
{
    if (*l->text == '\0')
        return err_set(err, ERR_USAGE, "'%s' has no value", l->word);
    if (s->n_values >= CONF_VALUES_MAX)
        return err_set(err, ERR_USAGE, "more than %u keys in one section",
                       CONF_VALUES_MAX);
    for (size_t i = 0; !key->list && i < s->n_values; i++)
        if (s->values[i].key == key)
            return err_set(err, ERR_USAGE,
                           "'%s' stands in line %u of this section already",
                           l->word, s->values[i].line);
    if (key->check(key->arg, l->text, err) != 0)
        return err_wrap(err, "'%s'", l->word);
    return 0;
}

struct reader {
    struct conf *conf;
    struct conf_section *now; /* NULL before the first section */
};

static int
take_line(void *arg, const struct ini_line *l, struct err *err)
{
    struct reader *r = arg;
    const struct conf_key *k = r->conf->keys;

    if (l->kind == INI_SECTION) {
        if (take_section(r->conf, l, err) != 0)
            return -1;
        r->now = strcmp(l->word, kinds[CONF_DEFAULTS]) == 0
                     ? r->conf->sections[0]
                     : r->conf->sections[r->conf->n_sections - 1];
        return 0;
    }
    if (r->now == NULL)
        return err_set(err, ERR_USAGE, "'%s' stands before the first [section]",
                       l->word);
    while (k->name != NULL && (strcmp(k->name, l->word) != 0 ||
                               (k->in & CONF_IN(r->now->kind)) == 0))
        k++;
    if (k->name == NULL)
        return unknown_key(r->now, l->word, err);
    if (check_value(r->now, k, l, err) != 0)
        return -1;
    return add_value(r->now, k, l, err);
}

int
conf_parse(const char *file, const void *text, size_t len,
           const struct conf_key *keys, struct conf **ret, struct err *err)
{
    CLEANUP(conf_freep) struct conf *c = calloc(1, sizeof *c);
    struct reader r = {.conf = c};

    if (c == NULL || (c->file = strdup(file)) == NULL)
        return err_set_errno(err, ENOMEM, "configuration");
    c->keys = keys;
    if (add_section(c, CONF_DEFAULTS, "", 0, err) == NULL ||
        ini_parse(file, text, len, take_line, &r, err) != 0 ||
        conf_check(c, err) != 0)
        return -1;
    *ret = TAKE_PTR(c);
    return 0;
}

/* -- looking ----------------------------------------------------------------*/

const char *
conf_file(const struct conf *c)
{
    return c->file;
}

const char *
conf_name(const struct conf_section *s)
{
    return s->name;
}

const struct conf_section *
conf_at(const struct conf *c, enum conf_kind kind, size_t i)
{
    for (size_t k = 0; k < c->n_sections; k++)
        if (c->sections[k]->kind == kind && i-- == 0)
            return c->sections[k];
    return NULL;
}

const struct conf_section *
conf_find(const struct conf *c, enum conf_kind kind, const char *name)
{
    for (size_t i = 0; i < c->n_sections; i++)
        if (c->sections[i]->kind == kind &&
            strcmp(c->sections[i]->name, name) == 0)
            return c->sections[i];
    return NULL;
}

static const char *
own_nth(const struct conf_section *s, const char *key, size_t i)
{
    for (size_t k = 0; k < s->n_values; k++)
        if (strcmp(s->values[k].key->name, key) == 0 && i-- == 0)
            return s->values[k].text;
    return NULL;
}

/* A list of its own hides all of the defaults' list. */
const char *
conf_nth(const struct conf_section *s, const char *key, size_t i)
{
    if (s->kind == CONF_MACHINE && own_nth(s, key, 0) == NULL)
        s = s->conf->sections[0];
    return own_nth(s, key, i);
}

const char *
conf_get(const struct conf_section *s, const char *key)
{
    return conf_nth(s, key, 0);
}

const struct conf_section *
conf_repository_of(const struct conf_section *s)
{
    const char *name = conf_get(s, "repository");

    return name != NULL ? conf_find(s->conf, CONF_REPOSITORY, name) : NULL;
}
