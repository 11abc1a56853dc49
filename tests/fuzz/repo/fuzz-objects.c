/* All authenticated objects of a repository: what is authentic is not yet sane.
 *
 * The input is a list of objects: a byte of kind and session, two bytes of
 * length, a text of JSON.  Each is put into a store in memory behind a correct
 * MAC and under its right name, which is also written into it; then everything
 * that reads such objects does so: opening, listing points, sessions and what is
 * forgotten, the look of a collection.  Sessions are "000...", "111...", so that
 * an input can make objects name each other. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "buf.h"
#include "format.h"
#include "gc.h"
#include "internal.h"
#include "jv.h"
#include "store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define OBJECTS_MAX 64

/* -- a store in memory ------------------------------------------------------*/

struct object {
    char key[REPO_KEY_MAX];
    struct buf bytes;
};
static struct object objects[OBJECTS_MAX];
static unsigned n_objects;

static struct object *
find(const char *key)
{
    for (unsigned i = 0; i < n_objects; i++)
        if (strcmp(objects[i].key, key) == 0)
            return &objects[i];
    return NULL;
}

static void
mem_close(void *impl)
{
    (void)impl;
}

static int
mem_put(void *impl, const char *key, const void *data, size_t len,
        struct err *err)
{
    struct object *o = &objects[n_objects];

    (void)impl;
    if (find(key) != NULL)
        return err_set(err, ERR_EXISTS, "'%s' exists", key);
    if (n_objects == OBJECTS_MAX)
        return err_set(err, ERR_NO_SPACE, "no room for '%s'", key);
    (void)snprintf(o->key, sizeof o->key, "%s", key);
    if (buf_append(&o->bytes, data, len, err) < 0)
        return -1;
    n_objects++;
    return 0;
}

static int
mem_get(void *impl, const char *key, uint64_t off, size_t len, void *buf,
        struct err *err)
{
    const struct object *o = find(key);

    (void)impl;
    if (o == NULL)
        return err_set(err, ERR_NOT_FOUND, "no '%s'", key);
    if (off > o->bytes.len || len > o->bytes.len - off)
        return err_set(err, ERR_CORRUPT, "'%s' is short", key);
    if (len > 0)
        memcpy(buf, o->bytes.data + off, len);
    return 0;
}

static int
mem_size(void *impl, const char *key, uint64_t *ret_len, struct err *err)
{
    const struct object *o = find(key);

    (void)impl;
    (void)err;
    if (o != NULL)
        *ret_len = o->bytes.len;
    return o != NULL;
}

/* An exact copy, so that a sanitizer sees each byte read too far. */
static int
mem_map(void *impl, const char *key, const uint8_t **ret, size_t *ret_len,
        struct err *err)
{
    const struct object *o = find(key);
    uint8_t *copy;

    (void)impl;
    if (o == NULL)
        return err_set(err, ERR_NOT_FOUND, "no '%s'", key);
    copy = malloc(o->bytes.len > 0 ? o->bytes.len : 1);
    if (copy == NULL)
        abort();
    if (o->bytes.len > 0)
        memcpy(copy, o->bytes.data, o->bytes.len);
    *ret = copy;
    *ret_len = o->bytes.len;
    return 0;
}

static void
mem_unmap(void *impl, const uint8_t *data, size_t len)
{
    (void)impl;
    (void)len;
    free((void *)(uintptr_t)data);
}

static int
mem_list(void *impl, const char *kind, store_list_fn fn, void *arg,
         struct err *err)
{
    size_t len = strlen(kind);
    int r = 0;

    (void)impl;
    (void)err;
    for (unsigned i = 0; r == 0 && i < n_objects; i++)
        if (strncmp(objects[i].key, kind, len) == 0 &&
            objects[i].key[len] == '/')
            r = fn(arg, objects[i].key, objects[i].bytes.len);
    return r;
}

static const struct store_ops mem_ops = {
    .close = mem_close,
    .put = mem_put,
    .get = mem_get,
    .size = mem_size,
    .map = mem_map,
    .unmap = mem_unmap,
    .list = mem_list,
};

static void
mem_clear(void)
{
    for (unsigned i = 0; i < n_objects; i++)
        buf_done(&objects[i].bytes);
    n_objects = 0;
}

/* -- from the input to objects ----------------------------------------------*/

static const struct {
    const char *prefix, *suffix;
    enum commit_type type; /* 0: the bytes as they are */
} kinds[] = {
    {"commit/", ".1", COMMIT_COMMIT},
    {"commit/", ".1", COMMIT_ABORT},
    {"forget/", "", COMMIT_FORGET},
    {"gc/", ".condemned", COMMIT_CONDEMNED},
    {"bad/", "", COMMIT_BAD},
    {"packs/", "-1", COMMIT_PACKS},
    {"verified/", "", COMMIT_VERIFIED},
    {"session/", "", 0},
    {"beat/", ".7", 0},
    {"index/", "-1", 0},
    {"data/", "/00000001", 0},
    {"meta/", "/00000002", 0},
};

static struct repo_format format;
static struct repo_keys keys;

static void
put_record(const char *key, const char *sid, enum commit_type type,
           const uint8_t *text, size_t len)
{
    struct buf b = BUF_INIT;
    struct jv *j = NULL;

    if (jv_parse(text, len, JV_DEPTH_MAX, &j, NULL) == 0 && jv_is_object(j)) {
        if (type != COMMIT_COMMIT && type != COMMIT_ABORT)
            (void)jv_set_str(j, "object", key);
        else if (jv_get(j, "session") == NULL)
            (void)jv_set_str(j, "session", sid);
        if (commit_encode(&keys.commit, type, j, &b, NULL) == 0)
            (void)mem_put(NULL, key, b.data, b.len, NULL);
    }
    buf_done(&b);
    jv_free(j);
}

static void
put_object(uint8_t what, const uint8_t *text, size_t len)
{
    unsigned kind = (what & 15) % (sizeof kinds / sizeof kinds[0]);
    char sid[REPO_SID_TEXT], key[REPO_KEY_MAX];

    memset(sid, "0123456789abcdef"[what >> 4], sizeof sid - 1);
    sid[sizeof sid - 1] = '\0';
    (void)snprintf(key, sizeof key, "%s%s%s", kinds[kind].prefix, sid,
                   kinds[kind].suffix);
    if (kinds[kind].type != 0)
        put_record(key, sid, kinds[kind].type, text, len);
    else
        (void)mem_put(NULL, key, text, len, NULL);
}

static void
start(void)
{
    struct buf b = BUF_INIT;

    mem_clear();
    if (format.chunk_size == 0) {
        memset(format.id, 'a', sizeof format.id - 1);
        format.chunk_size = REPO_CHUNK_MIN;
        if (format_keys(&format, NULL, &keys, NULL) < 0)
            abort();
    }
    if (format_encode(&format, &b, NULL) < 0 ||
        mem_put(NULL, FORMAT_KEY, b.data, b.len, NULL) < 0)
        abort();
    buf_done(&b);
}

/* -- readers ----------------------------------------------------------------*/

static void
use(struct repo *r)
{
    struct chunk_id id = {{1}};
    struct point_list l = {0};
    struct session_list sessions = {NULL, 0};
    struct id_list gone = {0};
    struct jv *bad = NULL, *problems = index_problems(r);
    struct gc_view v;
    struct locator at;

    if (repo_points(r, NULL, &l, &bad, NULL) == 0)
        for (size_t i = 0; i < l.n; i++)
            if (strlen(l.v[i]->id) != 32 || l.v[i]->n_disks > 1024)
                abort();
    (void)index_find(r, &id, &at, NULL);
    (void)forgotten_list(r, &gone, NULL);
    (void)session_list_read(r, &sessions, NULL);
    memset(&v, 0, sizeof v);
    if (gc_view_read(&v, r, NULL) == 0)
        (void)gc_view_open_segments(&v, NULL);
    gc_view_done(&v);
    session_list_done(&sessions);
    id_list_done(&gone);
    point_list_done(&l);
    jv_free(bad);
    jv_free(problems);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct store *st = NULL;
    struct repo *r = NULL;

    start();
    while (size >= 3) {
        size_t len = data[1] | (size_t)data[2] << 8;

        if (len > size - 3)
            len = size - 3;
        put_object(data[0], data + 3, len);
        data += 3 + len;
        size -= 3 + len;
    }
    if (store_wrap(&mem_ops, &objects, "memory", &st, NULL) < 0)
        abort();
    if (repo_open_store(st, &r, NULL) == 0)
        use(r);
    repo_close(r);
    return 0;
}
