/* What a configuration must be as a whole, and errors that name what there is. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "conf_internal.h"
#include "err.h"
#include "ini.h"
#include "io.h"
#include "near.h"

#define NAMES_MAX 400 /* bytes of names in an error */

/* "db1, web1, ...", as many as fit. */
static void
list_names(const struct conf *c, enum conf_kind kind, char *buf, size_t len)
{
    const struct conf_section *s;
    size_t n = 0;

    buf[0] = '\0';
    for (size_t i = 0; (s = conf_at(c, kind, i)) != NULL; i++) {
        size_t more = strlen(s->name) + 2;

        if (n + more + 5 >= len) {
            memcpy(buf + n, n > 0 ? ", ..." : "...", n > 0 ? 6 : 4);
            return;
        }
        if (n > 0) {
            memcpy(buf + n, ", ", 2);
            n += 2;
        }
        memcpy(buf + n, s->name, more - 1);
        n += more - 2;
    }
}

int
conf_unknown(const struct conf *c, enum conf_kind kind, const char *name,
             struct err *err)
{
    const struct conf_section *s;
    const char *word = conf_kind_word(kind);
    char names[NAMES_MAX];
    struct near near;

    near_init(&near, name);
    for (size_t i = 0; (s = conf_at(c, kind, i)) != NULL; i++)
        near_take(&near, s->name);
    if (near.best != NULL)
        return err_set(err, ERR_USAGE, "no %s '%s' in '%s'; did you mean '%s'?",
                       word, name, c->file, near.best);
    list_names(c, kind, names, sizeof names);
    if (names[0] == '\0')
        return err_set(err, ERR_USAGE, "no %s '%s': '%s' has no [%s NAME]",
                       word, name, c->file, word);
    return err_set(err, ERR_USAGE, "no %s '%s' in '%s'; there %s: %s", word,
                   name, c->file, conf_at(c, kind, 1) != NULL ? "are" : "is",
                   names);
}

/* The line of a value, for an error that is found when all is read. */
static unsigned
line_of(const struct conf_section *s, const char *key)
{
    for (size_t i = 0; i < s->n_values; i++)
        if (strcmp(s->values[i].key->name, key) == 0)
            return s->values[i].line;
    return s->line;
}

static int
check_reference(const struct conf_section *s, struct err *err)
{
    const char *name = NULL;
    size_t i;

    for (i = 0; i < s->n_values && name == NULL; i++)
        if (strcmp(s->values[i].key->name, "repository") == 0)
            name = s->values[i].text;
    if (name == NULL || conf_find(s->conf, CONF_REPOSITORY, name) != NULL)
        return 0;
    (void)conf_unknown(s->conf, CONF_REPOSITORY, name, err);
    return err_wrap(err, "%s:%u", s->conf->file, line_of(s, "repository"));
}

static int
check_section(const struct conf_section *s, struct err *err)
{
    if (s->kind == CONF_REPOSITORY && conf_get(s, "path") == NULL)
        return err_set(err, ERR_USAGE,
                       "%s:%u: [repository %s] needs 'path = /directory'",
                       s->conf->file, s->line, s->name);
    if (s->kind != CONF_MACHINE)
        return 0;
    if (conf_get(s, "source") == NULL && conf_get(s, "disks") == NULL)
        return err_set(err, ERR_USAGE,
                       "%s:%u: [machine %s] needs 'source = "
                       "qmp:/path.sock' or 'disks = file:/image.qcow2'",
                       s->conf->file, s->line, s->name);
    return 0;
}

/* Where its points go must not depend on the environment of whoever runs it. */
static int
check_choice(const struct conf_section *s, struct err *err)
{
    if (s->kind != CONF_MACHINE || conf_get(s, "repository") != NULL ||
        conf_at(s->conf, CONF_REPOSITORY, 1) == NULL)
        return 0;
    return err_set(err, ERR_USAGE,
                   "%s:%u: [machine %s] needs 'repository = NAME': there is "
                   "more than one",
                   s->conf->file, s->line, s->name);
}

static const char *
point_name(const struct conf_section *s)
{
    const char *name = conf_get(s, "name");

    return name != NULL ? name : s->name;
}

static int
compare_names(const void *a, const void *b)
{
    const struct conf_section *const *x = a, *const *y = b;
    const struct conf_section *rx = conf_repository_of(*x);
    const struct conf_section *ry = conf_repository_of(*y);
    int d = strcmp(rx != NULL ? rx->name : "", ry != NULL ? ry->name : "");

    if (d == 0)
        d = strcmp(point_name(*x), point_name(*y));
    return d != 0 ? d : (*x)->line < (*y)->line ? -1 : 1;
}

/* Two machines under one name would take turns in one chain of points. */
static int
check_names(const struct conf *c, struct err *err)
{
    CLEANUP_FREE const struct conf_section **m =
        calloc(c->n_sections, sizeof *m);
    size_t n = 0;

    if (m == NULL)
        return err_set_errno(err, ENOMEM, "configuration");
    for (size_t i = 0; i < c->n_sections; i++)
        if (c->sections[i]->kind == CONF_MACHINE)
            m[n++] = c->sections[i];
    qsort(m, n, sizeof *m, compare_names);
    for (size_t i = 1; i < n; i++)
        if (conf_repository_of(m[i - 1]) == conf_repository_of(m[i]) &&
            strcmp(point_name(m[i - 1]), point_name(m[i])) == 0)
            return err_set(err, ERR_USAGE,
                           "%s:%u: [machine %s] has the name '%s' in the "
                           "repository, as has [machine %s] in line %u",
                           c->file, m[i]->line, m[i]->name, point_name(m[i]),
                           m[i - 1]->name, m[i - 1]->line);
    return 0;
}

int
conf_check(const struct conf *c, struct err *err)
{
    for (size_t i = 0; i < c->n_sections; i++)
        if (check_section(c->sections[i], err) != 0 ||
            check_reference(c->sections[i], err) != 0 ||
            check_choice(c->sections[i], err) != 0)
            return -1;
    return check_names(c, err);
}

/* -- the file ---------------------------------------------------------------*/

/* Whoever can write it has what its user has. */
static int
check_owner(const char *file, int fd, struct err *err)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return err_set_errno(err, errno, "'%s'", file);
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_USAGE, "'%s' is no regular file", file);
    if (st.st_uid != 0 && st.st_uid != geteuid())
        return err_set(err, ERR_USAGE,
                       "'%s' belongs to another user (%u), who could have any "
                       "command run: chown it to root",
                       file, (unsigned)st.st_uid);
    if ((st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return err_set(err, ERR_USAGE,
                       "'%s' can be written by others, who could have any "
                       "command run: chmod go-w '%s'",
                       file, file);
    return 0;
}

static int
read_all(const char *file, int fd, struct buf *b, struct err *err)
{
    ssize_t n;

    if (buf_reserve(b, INI_FILE_MAX + 1, err) != 0)
        return -1;
    n = io_pread_full(fd, b->data, INI_FILE_MAX + 1, 0);
    if (n < 0)
        return err_set_errno(err, errno, "read '%s'", file);
    b->len = (size_t)n;
    return 0;
}

int
conf_load(const char *file, const struct conf_key *keys, struct conf **ret,
          struct err *err)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    CLEANUP_CLOSE int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0 && errno == ENOENT)
        return err_set(err, ERR_NOT_FOUND, "there is no configuration '%s'",
                       file);
    if (fd < 0)
        return err_set_errno(err, errno, "open the configuration '%s'", file);
    if (check_owner(file, fd, err) != 0 || read_all(file, fd, &b, err) != 0)
        return -1;
    return conf_parse(file, b.data, b.len, keys, ret, err);
}
