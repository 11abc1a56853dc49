#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "hash.h"
#include "jv.h"
#include "point.h"
#include "rand.h"
#include "repo.h"

DEFINE_CLEANUP(struct point *, point_free)

#define HEX_ID (2 * sizeof(struct chunk_id) + 1)

/* -- struct to JSON ---------------------------------------------------------*/

static struct jv *
id_to_json(const struct chunk_id *id)
{
    char text[HEX_ID];

    hex_encode(id->b, sizeof id->b, text);
    return jv_string(text);
}

static struct jv *
text_or_null(const char *s)
{
    return s == NULL ? jv_null() : jv_string(s);
}

static struct jv *
canaries_to_json(const uint64_t *v, size_t n)
{
    CLEANUP_JV struct jv *a = jv_array();

    for (size_t i = 0; i < n; i++)
        if (jv_add(a, jv_int((int64_t)v[i])) < 0)
            return NULL;
    return TAKE_PTR(a);
}

/* What only partial points have. */
static struct jv *
partial_to_json(const struct point_disk *d)
{
    return jv_build("{s:I, s:o, s:o}", "done", (int64_t)d->done,
                    "base_generation", text_or_null(d->base_generation),
                    "base_canaries",
                    canaries_to_json(d->base_canaries, d->n_base_canaries));
}

static struct jv *
disk_to_json(const struct point_disk *d)
{
    return jv_build(
        "{s:s, s:I, s:I, s:o, s:s, s:o, s:b, s:s, s:s, s:I, s:I, s:I, s:I, "
        "s:o, s:o, s:o}",
        "name", d->name, "size", (int64_t)d->size, "chunk_size",
        (int64_t)d->chunk_size, "root", id_to_json(&d->root), "format",
        d->format, "generation", text_or_null(d->generation), "persistent",
        (int)d->persistent, "tracking", d->tracking, "reason", d->reason,
        "read_bytes", (int64_t)d->read_bytes, "dirty_bytes",
        (int64_t)d->dirty_bytes, "new_bytes", (int64_t)d->new_bytes,
        "stored_bytes", (int64_t)d->stored_bytes, "canaries",
        canaries_to_json(d->canaries, d->n_canaries), "source",
        d->source == NULL ? jv_null() : jv_ref(d->source), "audit",
        jv_build("{s:I, s:I, s:I, s:I}", "round", (int64_t)d->audit.round,
                 "bound", (int64_t)d->audit.bound, "chunks",
                 (int64_t)d->audit.chunks, "bytes", (int64_t)d->audit.bytes));
}

static struct jv *
tags_to_json(const struct point *p)
{
    CLEANUP_JV struct jv *a = jv_array();

    for (size_t i = 0; i < p->n_tags; i++)
        if (jv_add(a, jv_string(p->tags[i])) < 0)
            return NULL;
    return TAKE_PTR(a);
}

static struct jv *
disks_to_json(const struct point *p)
{
    CLEANUP_JV struct jv *a = jv_array();

    for (size_t i = 0; i < p->n_disks; i++) {
        const struct point_disk *d = &p->disks[i];
        CLEANUP_JV struct jv *j = disk_to_json(d);

        if (j == NULL ||
            (p->partial && jv_set(j, "partial", partial_to_json(d)) < 0) ||
            jv_add(a, jv_ref(j)) < 0)
            return NULL;
    }
    return TAKE_PTR(a);
}

struct jv *
point_to_json(const struct point *p, const uint8_t *prev, struct err *err)
{
    char prev_text[2 * HASH_LEN + 1] = "";
    struct jv *j;

    if (point_check(p, err) < 0)
        return NULL;
    if (prev != NULL)
        hex_encode(prev, HASH_LEN, prev_text);
    j = jv_build("{s:s, s:s, s:s, s:I, s:s, s:s, s:I, s:s, s:I, s:s, s:o, s:o, "
                 "s:I, s:o}",
                 "id", p->id, "parent", p->parent, "prev", prev_text, "seq",
                 (int64_t)p->seq, "machine", p->machine, "lineage", p->lineage,
                 "time_ns", p->time_ns, "consistency", p->consistency,
                 "freeze_ms", (int64_t)p->freeze_ms, "capture", p->capture,
                 "tags", tags_to_json(p), "config", id_to_json(&p->config),
                 "config_len", (int64_t)p->config_len, "disks",
                 disks_to_json(p));
    if (j != NULL && p->partial && jv_set_bool(j, "partial", true) < 0)
        jv_free(TAKE_PTR(j));
    if (j == NULL)
        (void)err_set_errno(err, ENOMEM, "point");
    return j;
}

/* -- JSON to struct ---------------------------------------------------------*/

/* One object being read: remembers the first field that was wrong, so that the
 * readers below need no checks between fields. */
struct fields {
    const struct jv *j;
    const char *bad;
    bool no_memory;
};

static void
note(struct fields *f, const char *key)
{
    if (f->bad == NULL)
        f->bad = key;
}

static char *
get_text(struct fields *f, const char *key)
{
    const char *s = jv_str(jv_get(f->j, key));
    char *copy = s == NULL ? NULL : strdup(s);

    if (s == NULL)
        note(f, key);
    else if (copy == NULL)
        f->no_memory = true;
    return copy;
}

/* NULL for JSON's null; a missing key is as wrong as a number. */
static char *
get_text_or_null(struct fields *f, const char *key)
{
    CLEANUP_JV struct jv *null = jv_null();
    const struct jv *v = jv_get(f->j, key);

    return v != NULL && jv_equal(v, null) ? NULL : get_text(f, key);
}

static void
get_hex32(struct fields *f, const char *key, char ret[33])
{
    const char *s = jv_str(jv_get(f->j, key));

    if (s == NULL || strlen(s) > 32)
        note(f, key);
    else
        memcpy(ret, s, strlen(s) + 1);
}

static void
get_id(struct fields *f, const char *key, struct chunk_id *ret)
{
    const char *s = jv_str(jv_get(f->j, key));

    if (s == NULL || !hex_decode(s, ret->b, sizeof ret->b))
        note(f, key);
}

static uint64_t
get_uint(struct fields *f, const char *key)
{
    uint64_t v = 0;

    if (!jv_get_uint(f->j, key, &v))
        note(f, key);
    return v;
}

static int64_t
get_int(struct fields *f, const char *key)
{
    int64_t v = 0;

    if (!jv_get_int(f->j, key, &v))
        note(f, key);
    return v;
}

static bool
get_bool(struct fields *f, const char *key)
{
    bool v = jv_get_bool(f->j, key, false);

    if (v != jv_get_bool(f->j, key, true))
        note(f, key); /* neither true nor false */
    return v;
}

static int
fields_end(const struct fields *f, struct err *err)
{
    if (f->no_memory)
        return err_set_errno(err, ENOMEM, "point");
    if (f->bad != NULL)
        return err_set(err, ERR_FORMAT, "'%s' is missing or not valid", f->bad);
    return 0;
}

static size_t
get_canaries(struct fields *f, const char *key, uint64_t ret[POINT_CANARIES])
{
    const struct jv *a = jv_get(f->j, key);

    if (!jv_is_array(a) || jv_size(a) > POINT_CANARIES) {
        note(f, key);
        return 0;
    }
    for (size_t i = 0; i < jv_size(a); i++) {
        CLEANUP_JV struct jv *one = jv_build("{s:O}", "n", jv_at(a, i));

        if (!jv_get_uint(one, "n", &ret[i]))
            note(f, key);
    }
    return jv_size(a);
}

static int
partial_from_json(const struct jv *j, struct point_disk *d, struct err *err)
{
    struct fields f = {.j = j};

    d->done = get_uint(&f, "done");
    d->base_generation = get_text_or_null(&f, "base_generation");
    d->n_base_canaries = get_canaries(&f, "base_canaries", d->base_canaries);
    return fields_end(&f, err);
}

/* Points from before there were audits have none. */
static void
get_audit(struct fields *f, struct point_disk *d)
{
    struct fields a = {.j = jv_get(f->j, "audit")};

    if (a.j == NULL)
        return;
    d->audit.round = get_uint(&a, "round");
    d->audit.bound = get_uint(&a, "bound");
    d->audit.chunks = get_uint(&a, "chunks");
    d->audit.bytes = get_uint(&a, "bytes");
    if (a.bad != NULL)
        note(f, "audit");
}

static int
disk_from_json(const struct jv *j, struct point_disk *d, struct err *err)
{
    struct fields f = {.j = j};
    uint64_t chunk_size;

    d->name = get_text(&f, "name");
    d->size = get_uint(&f, "size");
    chunk_size = get_uint(&f, "chunk_size");
    if (chunk_size > REPO_CHUNK_MAX)
        note(&f, "chunk_size");
    d->chunk_size = (uint32_t)chunk_size;
    get_id(&f, "root", &d->root);
    d->format = get_text(&f, "format");
    d->generation = get_text_or_null(&f, "generation");
    d->persistent = get_bool(&f, "persistent");
    d->n_canaries = get_canaries(&f, "canaries", d->canaries);
    d->tracking = get_text(&f, "tracking");
    d->reason = get_text(&f, "reason");
    d->read_bytes = get_uint(&f, "read_bytes");
    d->dirty_bytes = get_uint(&f, "dirty_bytes");
    d->new_bytes = get_uint(&f, "new_bytes");
    d->stored_bytes = get_uint(&f, "stored_bytes");
    get_audit(&f, d);
    if (jv_is_object(jv_get(j, "source")))
        d->source = jv_ref(jv_get(j, "source"));
    return fields_end(&f, err);
}

static int
disks_from_json(const struct jv *a, struct point *p, struct err *err)
{
    size_t n = jv_size(a);

    if (!jv_is_array(a) || n > POINT_DISKS_MAX)
        return err_set(err, ERR_FORMAT, "'disks' is no list of 0 to %d disks",
                       POINT_DISKS_MAX);
    if (n == 0)
        return 0;
    p->disks = calloc(n, sizeof *p->disks);
    if (p->disks == NULL)
        return err_set_errno(err, ENOMEM, "point with %zu disks", n);
    for (p->n_disks = 0; p->n_disks < n;) {
        struct point_disk *d = &p->disks[p->n_disks];
        size_t i = p->n_disks++; /* also a half-read disk is freed */

        if (disk_from_json(jv_at(a, i), d, err) < 0 ||
            (p->partial &&
             partial_from_json(jv_get(jv_at(a, i), "partial"), d, err) < 0))
            return err_wrap(err, "disk %zu", i);
    }
    return 0;
}

/* Points that were made before there were tags have none. */
static int
tags_from_json(const struct jv *a, struct point *p, struct err *err)
{
    size_t n = jv_size(a);

    if (a == NULL)
        return 0;
    if (!jv_is_array(a) || n > POINT_TAGS_MAX)
        return err_set(err, ERR_FORMAT, "'tags' is no list of 0 to %d words",
                       POINT_TAGS_MAX);
    if (n == 0)
        return 0;
    p->tags = calloc(n, sizeof *p->tags);
    if (p->tags == NULL)
        return err_set_errno(err, ENOMEM, "point with %zu tags", n);
    for (; p->n_tags < n; p->n_tags++) {
        const char *tag = jv_str(jv_at(a, p->n_tags));

        if (tag == NULL)
            return err_set(err, ERR_FORMAT, "'tags' is missing or not valid");
        p->tags[p->n_tags] = strdup(tag);
        if (p->tags[p->n_tags] == NULL)
            return err_set_errno(err, ENOMEM, "point with %zu tags", n);
    }
    return 0;
}

static void
get_prev(struct fields *f, uint8_t *ret_prev, bool *ret_has_prev)
{
    const char *s = jv_str(jv_get(f->j, "prev"));

    *ret_has_prev = s != NULL && s[0] != '\0';
    if (s == NULL || (*ret_has_prev && !hex_decode(s, ret_prev, HASH_LEN)))
        note(f, "prev");
}

static void
read_fields(struct fields *f, struct point *p)
{
    get_hex32(f, "id", p->id);
    get_hex32(f, "parent", p->parent);
    p->seq = get_uint(f, "seq");
    p->machine = get_text(f, "machine");
    p->lineage = get_text(f, "lineage");
    p->time_ns = get_int(f, "time_ns");
    p->consistency = get_text(f, "consistency");
    p->freeze_ms = get_uint(f, "freeze_ms");
    p->capture = get_text(f, "capture");
    get_id(f, "config", &p->config);
    p->config_len = get_uint(f, "config_len");
}

int
point_from_json(const struct jv *j, struct point **ret, uint8_t *ret_prev,
                bool *ret_has_prev, struct err *err)
{
    CLEANUP(point_freep) struct point *p = point_new();
    struct fields f = {.j = j};
    uint8_t prev[HASH_LEN];
    bool has_prev;

    if (p == NULL)
        return err_set_errno(err, ENOMEM, "point");
    read_fields(&f, p);
    p->partial = jv_get(j, "partial") != NULL && get_bool(&f, "partial");
    get_prev(&f, prev, &has_prev);
    if (fields_end(&f, err) < 0 ||
        tags_from_json(jv_get(j, "tags"), p, err) < 0 ||
        disks_from_json(jv_get(j, "disks"), p, err) < 0 ||
        point_check(p, err) < 0)
        return -1;
    if (has_prev != (p->parent[0] != '\0'))
        return err_set(err, ERR_FORMAT,
                       "'parent' and 'prev' do not belong together");
    if (has_prev)
        memcpy(ret_prev, prev, sizeof prev);
    *ret_has_prev = has_prev;
    *ret = TAKE_PTR(p);
    return 0;
}
