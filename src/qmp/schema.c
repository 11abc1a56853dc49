/* What query-qmp-schema says, looked up by name.
 *
 * The reply is one flat array of about a thousand entries that name each other
 * ("arg-type": "49"); a sorted index makes each step of a path one search.
 * Types may lead back to themselves; a walk is as long as its path, so that is
 * no matter.  Source: QEMU docs/devel/qapi-code-gen, "Client introspection".
 */
#include "qmp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "jv.h"

struct entry {
    const char *name;
    const struct jv *j;
};

struct qmp_schema {
    struct jv *reply; /* the entries point into it */
    struct entry *entries;
    size_t n;
};

DEFINE_CLEANUP(struct qmp_schema *, qmp_schema_free)

/* Where a walk stands.  The members that can follow are those of all open
 * types: a union's base and the variants that were selected, or every type an
 * alternate can be. */
#define OPEN_MAX_TYPES 16
struct place {
    const struct jv *lead; /* the type the last step led to */
    const struct jv *open[OPEN_MAX_TYPES];
    size_t n;
};

/* A part of a path; not NUL-terminated. */
struct word {
    const char *s;
    size_t len;
};

static int
compare(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->name,
                  ((const struct entry *)b)->name);
}

int
qmp_schema_parse(struct jv *reply, struct qmp_schema **ret, struct err *err)
{
    CLEANUP_JV struct jv *array = reply;
    CLEANUP(qmp_schema_freep) struct qmp_schema *s = NULL;

    if (!jv_is_array(array) || jv_size(array) == 0)
        return err_set(err, ERR_PROTOCOL, "QEMU's schema is no list");
    s = calloc(1, sizeof *s);
    if (s == NULL)
        return err_set_errno(err, ENOMEM, "QEMU's schema");
    s->entries = calloc(jv_size(array), sizeof *s->entries);
    if (s->entries == NULL)
        return err_set_errno(err, ENOMEM, "QEMU's schema");
    for (size_t i = 0; i < jv_size(array); i++) {
        const struct jv *j = jv_at(array, i);
        const char *name = jv_str(jv_get(j, "name"));

        if (name == NULL || jv_str(jv_get(j, "meta-type")) == NULL)
            return err_set(err, ERR_PROTOCOL,
                           "entry %zu of QEMU's schema has no name or type", i);
        s->entries[s->n].name = name;
        s->entries[s->n++].j = j;
    }
    qsort(s->entries, s->n, sizeof *s->entries, compare);
    s->reply = TAKE_PTR(array);
    *ret = TAKE_PTR(s);
    return 0;
}

int
qmp_schema_load(struct qmp *q, struct qmp_schema **ret, struct err *err)
{
    struct jv *reply = NULL;

    if (qmp_call(q, "query-qmp-schema", NULL, QMP_TIMEOUT_MS, &reply, err) < 0)
        return -1;
    return qmp_schema_parse(reply, ret, err);
}

void
qmp_schema_free(struct qmp_schema *s)
{
    if (s == NULL)
        return;
    free(s->entries);
    jv_free(s->reply);
    free(s);
}

static const struct jv *
find(const struct qmp_schema *s, const char *name)
{
    struct entry key = {.name = name};
    const struct entry *e;

    if (name == NULL)
        return NULL;
    e = bsearch(&key, s->entries, s->n, sizeof key, compare);
    return e != NULL ? e->j : NULL;
}

static const char *
meta(const struct jv *type)
{
    const char *m = jv_str(jv_get(type, "meta-type"));

    return m != NULL ? m : "";
}

static bool
is_word(const char *name, struct word w)
{
    return name != NULL && strlen(name) == w.len &&
           memcmp(name, w.s, w.len) == 0;
}

/* The element of `array` whose `key` is `w`. */
static const struct jv *
pick(const struct jv *array, const char *key, struct word w)
{
    for (size_t i = 0; i < jv_size(array); i++)
        if (is_word(jv_str(jv_get(jv_at(array, i), key)), w))
            return jv_at(array, i);
    return NULL;
}

static void
open_type(struct place *p, const struct jv *type)
{
    if (p->n < OPEN_MAX_TYPES &&
        (strcmp(meta(type), "object") == 0 || strcmp(meta(type), "array") == 0))
        p->open[p->n++] = type;
}

/* Step to the type `name`, forgetting what was open. */
static bool
go(const struct qmp_schema *s, struct place *p, const char *name)
{
    const struct jv *type = find(s, name), *members;

    if (type == NULL)
        return false;
    p->lead = type;
    p->n = 0;
    if (strcmp(meta(type), "alternate") != 0) {
        open_type(p, type);
        return true;
    }
    members = jv_get(type, "members");
    for (size_t i = 0; i < jv_size(members); i++)
        open_type(p, find(s, jv_str(jv_get(jv_at(members, i), "type"))));
    return true;
}

static bool
step_element(const struct qmp_schema *s, struct place *p)
{
    for (size_t i = 0; i < p->n; i++) {
        const char *e = jv_str(jv_get(p->open[i], "element-type"));

        if (e != NULL)
            return go(s, p, e);
    }
    return false;
}

static bool
step_member(const struct qmp_schema *s, struct place *p, struct word name)
{
    for (size_t i = 0; i < p->n; i++) {
        const struct jv *m = pick(jv_get(p->open[i], "members"), "name", name);

        if (m != NULL)
            return go(s, p, jv_str(jv_get(m, "type")));
    }
    return false;
}

/* "driver=qcow2": the variant's members come to those of the base. */
static bool
step_variant(const struct qmp_schema *s, struct place *p, struct word tag,
             struct word value)
{
    for (size_t i = 0; i < p->n; i++) {
        const struct jv *v, *type;

        if (!is_word(jv_str(jv_get(p->open[i], "tag")), tag))
            continue;
        v = pick(jv_get(p->open[i], "variants"), "case", value);
        type = find(s, jv_str(jv_get(v, "type")));
        if (type == NULL)
            continue;
        p->lead = type;
        open_type(p, type);
        return true;
    }
    return false;
}

static bool
step(const struct qmp_schema *s, struct place *p, struct word w)
{
    const char *eq = memchr(w.s, '=', w.len);
    struct word tag = w, value = w;

    if (w.len == 2 && memcmp(w.s, "[]", 2) == 0)
        return step_element(s, p);
    if (eq == NULL)
        return step_member(s, p, w);
    tag.len = (size_t)(eq - w.s);
    value.s = eq + 1;
    value.len = w.len - tag.len - 1;
    return step_variant(s, p, tag, value);
}

static bool
walk(const struct qmp_schema *s, const char *command, const char *path,
     struct place *p)
{
    const struct jv *c = find(s, command);

    if (c == NULL || strcmp(meta(c), "command") != 0 ||
        !go(s, p, jv_str(jv_get(c, "arg-type"))))
        return false;
    while (*path != '\0') {
        size_t len = strcspn(path, "/");

        if (!step(s, p, (struct word){path, len}))
            return false;
        path += len;
        path += *path == '/';
    }
    return true;
}

bool
qmp_schema_command(const struct qmp_schema *s, const char *command)
{
    const char *m = meta(find(s, command));

    return strcmp(m, "command") == 0 || strcmp(m, "event") == 0;
}

bool
qmp_schema_has(const struct qmp_schema *s, const char *command,
               const char *path)
{
    struct place p = {0};

    return walk(s, command, path, &p);
}

const char *
qmp_schema_meta(const struct qmp_schema *s, const char *command,
                const char *path)
{
    struct place p = {0};

    return walk(s, command, path, &p) ? meta(p.lead) : NULL;
}
