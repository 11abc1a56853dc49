/* json/jv.h - JSON values; the one place that touches the JSON library.
 *
 * Everything that comes from outside (QEMU, the guest agent, a repository) is
 * parsed with limits on size and depth, because the guest agent's answers are
 * the guest's.  Values are reference counted; one value and its children belong
 * to one thread at a time.
 *
 * The prefix is jv_ (JSON value) because jansson owns the json_ symbols.
 *
 * Getters take NULL and the wrong type and then answer "not there", so that a
 * chain of look-ups needs one check at its end.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct jv;

#define JV_DEPTH_MAX 64 /* what our own objects and QEMU's need is under 20 */
/* Of any text: what is parsed takes at most about 512 MiB of memory, whatever it
 * says.  A commit object of 32 TiB in packs of 32 MiB has half of this. */
#define JV_CONTAINERS_MAX (2u << 20) /* lists and objects */
#define JV_VALUES_MAX (8u << 20)
#define JV_STRING_MAX (16u << 20) /* bytes */

/* Parse exactly one value of `len` bytes, nested at most `max_depth` deep and within
 * the limits above.
 * Duplicate keys and NUL characters in strings are refused.  0: *ret is owned
 * by the caller. */
int jv_parse(const void *text, size_t len, unsigned max_depth, struct jv **ret,
             struct err *err);

/* One line of text, keys sorted when `sorted`; the caller frees it.  NULL when
 * there is no memory. */
char *jv_text(const struct jv *j, bool sorted);
/* The same with two-space indentation, for people. */
char *jv_pretty(const struct jv *j);

struct jv *jv_ref(const struct jv *j); /* NULL stays NULL */
void jv_free(struct jv *j);            /* drops one reference */

/* Constructors return NULL without memory; jv_set() and jv_add() accept
 * that NULL and report it, so calls nest without checks. */
struct jv *jv_object(void);
struct jv *jv_array(void);
struct jv *jv_string(const char *s); /* invalid UTF-8 is replaced by '?' */
struct jv *jv_int(int64_t v);
struct jv *jv_real(double v);
struct jv *jv_bool(bool v);
struct jv *jv_null(void);

/* Build from a format, as jansson's json_pack: "{s:s, s:I, s:b, s:o?}" with
 * const char *, int64_t (I), int (i, b), struct jv * (o: reference stolen).
 * NULL when there is no memory or an "o" was NULL. */
struct jv *jv_build(const char *fmt, ...);

/* Put `value` (reference stolen, also on failure) into object or array.  -1
 * when there is no memory, value is NULL or the type is wrong. */
int jv_set(struct jv *object, const char *key, struct jv *value);
int jv_add(struct jv *array, struct jv *value);
int jv_del(struct jv *object, const char *key);

/* Shorthands for jv_set() with a fresh value. */
int jv_set_str(struct jv *object, const char *key, const char *s);
int jv_set_int(struct jv *object, const char *key, int64_t v);
int jv_set_bool(struct jv *object, const char *key, bool v);

/* Look-ups; what they return is borrowed. */
const struct jv *jv_get(const struct jv *object, const char *key);
/* "inserted.image.format": a path of keys. */
const struct jv *jv_path(const struct jv *j, const char *path);
const char *jv_str(const struct jv *j);                       /* or NULL */
const char *jv_get_str(const struct jv *j, const char *path); /* or NULL */
bool jv_get_int(const struct jv *j, const char *path, int64_t *ret);
bool jv_get_uint(const struct jv *j, const char *path, uint64_t *ret);
bool jv_uint(const struct jv *j, uint64_t *ret); /* j itself, not negative */
/* A missing key counts as `otherwise`. */
bool jv_get_bool(const struct jv *j, const char *path, bool otherwise);

bool jv_is_object(const struct jv *j);
bool jv_is_array(const struct jv *j);
bool jv_is_string(const struct jv *j);
bool jv_is_null(const struct jv *j); /* JSON's null; NULL is none */
bool jv_equal(const struct jv *a, const struct jv *b);

/* Elements of an array, keys of an object; 0 for anything else. */
size_t jv_size(const struct jv *j);
const struct jv *jv_at(const struct jv *array, size_t i);

/* for (void *it = jv_first(o); it; it = jv_next(o, it)) jv_key(it) ... */
void *jv_first(const struct jv *object);
void *jv_next(const struct jv *object, void *it);
const char *jv_key(void *it);
const struct jv *jv_value(void *it);

#include "cleanup.h"
DEFINE_CLEANUP(struct jv *, jv_free)
#define CLEANUP_JV CLEANUP(jv_freep)
