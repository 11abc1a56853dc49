/* Results of jobs for people. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "cli.h"
#include "err.h"
#include "jv.h"
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

void
point_consistency(const struct jv *point, char *buf, size_t len)
{
    const char *how = report_str(point, "consistency", "");
    const char *why = report_str(point, "note", "");

    if (strcmp(how, "filesystem") == 0)
        (void)snprintf(buf, len,
                       "file system consistent, frozen %" PRIu64 " ms",
                       report_uint(point, "freeze_ms"));
    else
        (void)snprintf(buf, len, "%s consistent%s%s%s",
                       *how != '\0' ? how : "unknown whether",
                       *why != '\0' ? " (" : "", why, *why != '\0' ? ")" : "");
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
        table_text(t, report_str(d, "name", NULL));
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

/* Text of a scalar, or JSON of what is deeper; escaping is the caller's. */
static char *
value_text(const struct jv *v)
{
    return jv_is_string(v) ? strdup(jv_str(v)) : jv_text(v, false);
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

/* Columns: the flat members of the first element. */
static size_t
table_keys(const struct jv *first, const char **keys, char *heads, size_t len)
{
    size_t n = 0;

    heads[0] = '\0';
    for (void *it = jv_first(first); it != NULL && n < TABLE_COLUMNS_MAX;
         it = jv_next(first, it)) {
        size_t used = strlen(heads);

        if (!is_flat(jv_value(it)) || strchr(jv_key(it), '|') != NULL ||
            used + strlen(jv_key(it)) + 2 > len)
            continue;
        (void)snprintf(heads + used, len - used, "%s%s", n > 0 ? "|" : "",
                       jv_key(it));
        keys[n++] = jv_key(it);
    }
    return n;
}

static int
print_table(FILE *to, const struct jv *rows, unsigned indent, struct err *err)
{
    const char *keys[TABLE_COLUMNS_MAX];
    char heads[512];
    size_t n = table_keys(jv_at(rows, 0), keys, heads, sizeof heads);
    CLEANUP(table_freep) struct table *t = table_new(heads);

    for (size_t i = 0; i < jv_size(rows); i++)
        for (size_t k = 0; k < n; k++) {
            const struct jv *v = jv_get(jv_at(rows, i), keys[k]);
            CLEANUP_FREE char *text = v != NULL ? value_text(v) : NULL;

            table_text(t, text);
        }
    return n == 0 ? 0 : table_print(t, indent, to, err);
}

static int print_value(FILE *to, const struct jv *v, unsigned indent,
                       const char *const *skip, struct err *err);

static int
print_scalar(FILE *to, const char *key, const struct jv *v, unsigned indent,
             struct err *err)
{
    CLEANUP_FREE char *raw = value_text(v);
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
print_member(FILE *to, const char *key, const struct jv *v, unsigned indent,
             struct err *err)
{
    CLEANUP_FREE char *label = NULL;

    if (is_flat(v) || jv_size(v) == 0 || indent / 2 >= DEPTH_MAX)
        return print_scalar(to, key, v, indent, err);
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
            print_member(to, jv_key(it), jv_value(it), indent, err) != 0)
            return -1;
    if (jv_is_array(v))
        for (size_t i = 0; i < jv_size(v); i++)
            if (print_member(to, "-", jv_at(v, i), indent, err) != 0)
                return -1;
    return 0;
}

int
report_value(struct out *o, const struct jv *value, const char *const *skip,
             struct err *err)
{
    if (is_flat(value))
        return print_scalar(o->result, "", value, 0, err);
    return print_value(o->result, value, 0, skip, err);
}
