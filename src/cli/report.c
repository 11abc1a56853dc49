/* Results of jobs for people. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "cli.h"
#include "err.h"
#include "jv.h"
#include "size.h"
#include "table.h"
#include "text.h"

#define DEPTH_MAX 8u    /* below that, values are shown as JSON */
#define KEY_COLUMNS 20u /* where the values of a block begin */

const char *
report_str(const struct jv *o, const char *key, const char *otherwise)
{
    const char *s = jv_str(jv_get(o, key));

    return s != NULL ? s : otherwise;
}

uint64_t
report_uint(const struct jv *o, const char *key)
{
    uint64_t v = 0;

    (void)jv_get_uint(o, key, &v);
    return v;
}

/* -- points -----------------------------------------------------------------*/

void
point_ref(const struct jv *point, unsigned digits, char *buf, size_t len)
{
    const char *machine = report_str(point, "machine", NULL);

    (void)snprintf(buf, len, "%s%s%.*s", machine != NULL ? machine : "",
                   machine != NULL ? "@" : "", (int)digits,
                   report_str(point, "point", "?"));
}

static int
compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

unsigned
point_digits(const struct jv *points)
{
    size_t n = jv_size(points);
    CLEANUP_FREE const char **ids = calloc(n + 1, sizeof *ids);
    unsigned need = POINT_REF_DIGITS;

    if (ids == NULL)
        return need;
    for (size_t i = 0; i < n; i++)
        ids[i] = report_str(jv_at(points, i), "point", "");
    qsort(ids, n, sizeof *ids, compare);
    for (size_t i = 1; i < n; i++) {
        unsigned same = 0;

        while (ids[i][same] != '\0' && ids[i][same] == ids[i - 1][same])
            same++;
        if (same + 1 > need && ids[i][same] != '\0')
            need = same + 1;
    }
    return need;
}

void
point_consistency(const struct jv *point, char *buf, size_t len)
{
    const char *how = report_str(point, "consistency", "");
    const char *why = report_str(point, "note", "");

    if (strcmp(how, "filesystem") == 0)
        (void)snprintf(buf, len,
                       "file system consistent, frozen %" PRIu64 " ms",
                       report_uint(point, "freeze_ms"));
    else if (strcmp(how, "offline") == 0)
        (void)snprintf(buf, len, "taken while the machine was off");
    else
        (void)snprintf(buf, len, "%s consistent%s%s%s",
                       *how != '\0' ? how : "unknown whether",
                       *why != '\0' ? " (" : "", why, *why != '\0' ? ")" : "");
}

const char *
point_tags(const struct jv *point, char *buf, size_t len)
{
    const struct jv *tags = jv_get(point, "tags");
    size_t n = 0;

    buf[0] = '\0';
    for (size_t i = 0; i < jv_size(tags) && n < len; i++) {
        const char *tag = jv_str(jv_at(tags, i));

        n += (size_t)snprintf(buf + n, len - n, "%s%s", i > 0 ? " " : "",
                              tag != NULL ? tag : "?");
    }
    return jv_size(tags) > 0 ? buf : NULL;
}

int
report_disks(struct out *o, const struct jv *disks, struct err *err)
{
    CLEANUP(table_freep)
    struct table *t = table_new("DISK|TRACKING|>SIZE|>READ|>NEW|>STORED");

    for (size_t i = 0; i < jv_size(disks); i++) {
        const struct jv *d = jv_at(disks, i);
        const char *reason = report_str(d, "reason", "");
        char tracking[160];

        (void)snprintf(tracking, sizeof tracking, "%s%s%s",
                       report_str(d, "tracking", "?"),
                       *reason != '\0' ? ": " : "", reason);
        table_text(t, report_str(d, "disk", NULL));
        table_text(t, tracking);
        table_size(t, report_uint(d, "size"));
        table_size(t, report_uint(d, "read_bytes"));
        table_size(t, report_uint(d, "new_bytes"));
        table_size(t, report_uint(d, "stored_bytes"));
    }
    return table_print(t, 0, o->result, err);
}

/* -- any value --------------------------------------------------------------*/

static bool
is_flat(const struct jv *v)
{
    return !jv_is_object(v) && !jv_is_array(v);
}

/* Does the key say that its number is one of bytes? */
static bool
counts_bytes(const char *key)
{
    size_t n = strlen(key);

    return strcmp(key, "size") == 0 || strcmp(key, "free") == 0 ||
           (n > 6 && strcmp(key + n - 6, "_bytes") == 0);
}

/* Text of a scalar, or JSON of what is deeper; escaping is the caller's. */
static char *
value_text(const struct jv *parent, const char *key, const struct jv *v)
{
    char buf[SIZE_TEXT_MAX];
    uint64_t n;

    if (jv_is_string(v))
        return strdup(jv_str(v));
    if (counts_bytes(key) && jv_get_uint(parent, key, &n))
        return strdup(size_text(n, buf));
    return jv_text(v, false);
}

static bool
is_table(const struct jv *v)
{
    if (!jv_is_array(v) || jv_size(v) == 0)
        return false;
    for (size_t i = 0; i < jv_size(v); i++)
        if (!jv_is_object(jv_at(v, i)) || jv_size(jv_at(v, i)) == 0)
            return false;
    return true;
}

struct columns {
    const char *key[TABLE_COLUMNS_MAX];
    size_t n;
    char heads[512];
};

static void
add_column(struct columns *c, const char *key)
{
    size_t used = strlen(c->heads);

    for (size_t i = 0; i < c->n; i++)
        if (strcmp(c->key[i], key) == 0)
            return;
    if (c->n == TABLE_COLUMNS_MAX || *key == '>' || strchr(key, '|') != NULL ||
        used + strlen(key) + 2 > sizeof c->heads)
        return;
    (void)snprintf(c->heads + used, sizeof c->heads - used, "%s%s",
                   c->n > 0 ? "|" : "", key);
    c->key[c->n++] = key;
}

/* All members of all rows but objects, in the order in which they come. */
static void
find_columns(const struct jv *rows, struct columns *c)
{
    for (size_t i = 0; i < jv_size(rows); i++) {
        const struct jv *row = jv_at(rows, i);

        for (void *it = jv_first(row); it != NULL; it = jv_next(row, it))
            if (!jv_is_object(jv_value(it)))
                add_column(c, jv_key(it));
    }
}

static int
print_table(FILE *to, const struct jv *rows, unsigned indent, struct err *err)
{
    struct columns c = {.n = 0};
    CLEANUP(table_freep) struct table *t = NULL;

    find_columns(rows, &c);
    if (c.n == 0)
        return 0;
    t = table_new(c.heads);
    for (size_t i = 0; i < jv_size(rows); i++)
        for (size_t k = 0; k < c.n; k++) {
            const struct jv *v = jv_get(jv_at(rows, i), c.key[k]);
            CLEANUP_FREE char *text = NULL;

            if (jv_is_array(v)) {
                table_count(t, jv_size(v));
                continue;
            }
            text = v != NULL ? value_text(jv_at(rows, i), c.key[k], v) : NULL;
            table_text(t, text);
        }
    return table_print(t, indent, to, err);
}

static int print_value(FILE *to, const struct jv *v, unsigned indent,
                       const char *const *skip, struct err *err);

static int
print_scalar(FILE *to, const struct jv *parent, const char *key,
             const struct jv *v, unsigned indent, struct err *err)
{
    CLEANUP_FREE char *raw = value_text(parent, key, v);
    CLEANUP_FREE char *text = raw != NULL ? text_escape(raw) : NULL;
    CLEANUP_FREE char *label = text_escape(key);

    if (text == NULL || label == NULL)
        return err_set(err, ERR_SYSTEM, "out of memory for the output");
    (void)fprintf(to, "%*s%-*s %s\n", (int)indent, "",
                  (int)(KEY_COLUMNS > indent ? KEY_COLUMNS - indent : 0), label,
                  text);
    return 0;
}

static int
print_member(FILE *to, const struct jv *parent, const char *key,
             const struct jv *v, unsigned indent, struct err *err)
{
    CLEANUP_FREE char *label = NULL;

    if (is_flat(v) || jv_size(v) == 0 || indent / 2 >= DEPTH_MAX)
        return print_scalar(to, parent, key, v, indent, err);
    label = text_escape(key);
    if (label == NULL)
        return err_set(err, ERR_SYSTEM, "out of memory for the output");
    (void)fprintf(to, "%*s%s:\n", (int)indent, "", label);
    if (is_table(v))
        return print_table(to, v, indent + 2, err);
    return print_value(to, v, indent + 2, NULL, err);
}

static bool
skipped(const char *const *skip, const char *key)
{
    for (; skip != NULL && *skip != NULL; skip++)
        if (strcmp(*skip, key) == 0)
            return true;
    return false;
}

static int
print_value(FILE *to, const struct jv *v, unsigned indent,
            const char *const *skip, struct err *err)
{
    for (void *it = jv_first(v); it != NULL; it = jv_next(v, it))
        if (!skipped(skip, jv_key(it)) &&
            print_member(to, v, jv_key(it), jv_value(it), indent, err) != 0)
            return -1;
    if (jv_is_array(v))
        for (size_t i = 0; i < jv_size(v); i++)
            if (print_member(to, NULL, "-", jv_at(v, i), indent, err) != 0)
                return -1;
    return 0;
}

int
report_value(struct out *o, const struct jv *value, const char *const *skip,
             struct err *err)
{
    if (is_flat(value))
        return print_scalar(o->result, NULL, "", value, 0, err);
    return print_value(o->result, value, 0, skip, err);
}
