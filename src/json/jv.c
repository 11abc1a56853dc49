#include "jv.h"

#include <jansson.h>
#include <stdarg.h>
#include <string.h>

#include "err.h"

/* A struct jv is a json_t under another name: no second object per value. */
static json_t *
unwrap(const struct jv *j)
{
    return (json_t *)(uintptr_t)j;
}

static struct jv *
wrap(json_t *j)
{
    return (struct jv *)j;
}

/* What the parser would be asked to build, counted before it does. */
struct shape {
    unsigned depth;
    uint64_t containers, values;
};

static int
check_shape(const struct shape *s, unsigned max_depth, struct err *err)
{
    /* Jansson's own limit is 2048 levels, too many for a thread's stack to be
     * comfortable with. */
    if (s->depth > max_depth)
        return err_set(err, ERR_FORMAT, "JSON is nested deeper than %u levels",
                       max_depth);
    if (s->containers > JV_CONTAINERS_MAX || s->values > JV_VALUES_MAX)
        return err_set(
            err, ERR_FORMAT, "JSON has more than %u %s",
            s->values > JV_VALUES_MAX ? JV_VALUES_MAX : JV_CONTAINERS_MAX,
            s->values > JV_VALUES_MAX ? "values" : "lists and objects");
    return 0;
}

/* The end of the string that begins behind `i`. */
static int
skip_string(const char *p, size_t len, size_t *i, struct err *err)
{
    size_t begin = *i;

    for ((*i)++; *i < len && p[*i] != '"'; (*i)++)
        if (p[*i] == '\\')
            (*i)++;
    if (*i - begin > JV_STRING_MAX)
        return err_set(err, ERR_FORMAT, "JSON has a string of %zu bytes",
                       *i - begin);
    return 0;
}

/* Three bytes of text can become two hundred of memory: refuse that first. */
static int
prescan(const char *p, size_t len, unsigned max_depth, struct err *err)
{
    struct shape s = {0};

    for (size_t i = 0; i < len; i++) {
        bool check = true;

        if (p[i] == '"') {
            if (skip_string(p, len, &i, err) < 0)
                return -1;
            check = false;
        } else if (p[i] == '{' || p[i] == '[') {
            s.depth++;
            s.containers++;
            s.values++;
        } else if (p[i] == ',') {
            s.values++;
        } else {
            if ((p[i] == '}' || p[i] == ']') && s.depth > 0)
                s.depth--;
            check = false;
        }
        if (check && check_shape(&s, max_depth, err) < 0)
            return -1;
    }
    return 0;
}

int
jv_parse(const void *text, size_t len, unsigned max_depth, struct jv **ret,
         struct err *err)
{
    json_error_t je;
    json_t *j;

    if (prescan(text, len, max_depth, err) < 0)
        return -1;
    j = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &je);
    if (j == NULL)
        return err_set(err, ERR_FORMAT, "not valid JSON at byte %d: %s",
                       je.position, je.text);
    *ret = wrap(j);
    return 0;
}

char *
jv_text(const struct jv *j, bool sorted)
{
    return json_dumps(unwrap(j), JSON_COMPACT | JSON_ENCODE_ANY |
                                     (sorted ? JSON_SORT_KEYS : 0));
}

char *
jv_pretty(const struct jv *j)
{
    return json_dumps(unwrap(j), JSON_INDENT(2) | JSON_ENCODE_ANY);
}

struct jv *
jv_ref(const struct jv *j)
{
    return wrap(json_incref(unwrap(j)));
}

void
jv_free(struct jv *j)
{
    json_decref(unwrap(j));
}

struct jv *
jv_object(void)
{
    return wrap(json_object());
}

struct jv *
jv_array(void)
{
    return wrap(json_array());
}

struct jv *
jv_string(const char *s)
{
    json_t *j = json_string(s);
    char *copy;

    if (j != NULL || s == NULL)
        return wrap(j);
    copy = strdup(s);
    if (copy == NULL)
        return NULL;
    for (char *p = copy; *p != '\0'; p++)
        if ((unsigned char)*p >= 0x80)
            *p = '?';
    j = json_string(copy);
    free(copy);
    return wrap(j);
}

struct jv *
jv_int(int64_t v)
{
    return wrap(json_integer(v));
}

struct jv *
jv_real(double v)
{
    return wrap(json_real(v));
}

struct jv *
jv_bool(bool v)
{
    return wrap(json_boolean(v));
}

struct jv *
jv_null(void)
{
    return wrap(json_null());
}

struct jv *
jv_build(const char *fmt, ...)
{
    json_error_t je;
    va_list ap;
    json_t *j;

    va_start(ap, fmt);
    j = json_vpack_ex(&je, 0, fmt, ap);
    va_end(ap);
    return wrap(j);
}

int
jv_set(struct jv *object, const char *key, struct jv *value)
{
    return json_object_set_new(unwrap(object), key, unwrap(value));
}

int
jv_add(struct jv *array, struct jv *value)
{
    return json_array_append_new(unwrap(array), unwrap(value));
}

int
jv_del(struct jv *object, const char *key)
{
    return json_object_del(unwrap(object), key);
}

int
jv_set_str(struct jv *object, const char *key, const char *s)
{
    return jv_set(object, key, jv_string(s));
}

int
jv_set_int(struct jv *object, const char *key, int64_t v)
{
    return jv_set(object, key, jv_int(v));
}

int
jv_set_bool(struct jv *object, const char *key, bool v)
{
    return jv_set(object, key, jv_bool(v));
}

const struct jv *
jv_get(const struct jv *object, const char *key)
{
    return wrap(json_object_get(unwrap(object), key));
}

const struct jv *
jv_path(const struct jv *j, const char *path)
{
    while (j != NULL) {
        const char *dot = strchr(path, '.');

        if (dot == NULL)
            return jv_get(j, path);
        j = wrap(json_object_getn(unwrap(j), path, (size_t)(dot - path)));
        path = dot + 1;
    }
    return NULL;
}

const char *
jv_str(const struct jv *j)
{
    return json_string_value(unwrap(j));
}

const char *
jv_get_str(const struct jv *j, const char *path)
{
    return jv_str(jv_path(j, path));
}

bool
jv_get_int(const struct jv *j, const char *path, int64_t *ret)
{
    json_t *v = unwrap(jv_path(j, path));

    if (!json_is_integer(v))
        return false;
    *ret = json_integer_value(v);
    return true;
}

bool
jv_get_uint(const struct jv *j, const char *path, uint64_t *ret)
{
    int64_t v;

    if (!jv_get_int(j, path, &v) || v < 0)
        return false;
    *ret = (uint64_t)v;
    return true;
}

bool
jv_uint(const struct jv *j, uint64_t *ret)
{
    json_t *v = unwrap(j);

    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return false;
    *ret = (uint64_t)json_integer_value(v);
    return true;
}

bool
jv_get_bool(const struct jv *j, const char *path, bool otherwise)
{
    json_t *v = unwrap(jv_path(j, path));

    return json_is_boolean(v) ? json_is_true(v) : otherwise;
}

bool
jv_is_object(const struct jv *j)
{
    return json_is_object(unwrap(j));
}

bool
jv_is_array(const struct jv *j)
{
    return json_is_array(unwrap(j));
}

bool
jv_is_string(const struct jv *j)
{
    return json_is_string(unwrap(j));
}

bool
jv_is_null(const struct jv *j)
{
    return json_is_null(unwrap(j));
}

bool
jv_equal(const struct jv *a, const struct jv *b)
{
    return json_equal(unwrap(a), unwrap(b)) == 1;
}

size_t
jv_size(const struct jv *j)
{
    json_t *v = unwrap(j);

    return json_is_object(v) ? json_object_size(v) : json_array_size(v);
}

const struct jv *
jv_at(const struct jv *array, size_t i)
{
    return wrap(json_array_get(unwrap(array), i));
}

void *
jv_first(const struct jv *object)
{
    return json_object_iter(unwrap(object));
}

void *
jv_next(const struct jv *object, void *it)
{
    return json_object_iter_next(unwrap(object), it);
}

const char *
jv_key(void *it)
{
    return json_object_iter_key(it);
}

const struct jv *
jv_value(void *it)
{
    return wrap(json_object_iter_value(it));
}
