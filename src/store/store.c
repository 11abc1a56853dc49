/* The calls of store.h, handed on to the kind of store that it is. */
#include "store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "buf.h"
#include "err.h"

struct store {
    const struct store_ops *ops;
    void *impl;
    char *path;
};

int
store_wrap(const struct store_ops *ops, void *impl, const char *path,
           struct store **ret, struct err *err)
{
    struct store *s = calloc(1, sizeof *s);

    if (s != NULL)
        s->path = strdup(path);
    if (s == NULL || s->path == NULL) {
        free(s);
        return err_set_errno(err, ENOMEM, "store '%s'", path);
    }
    s->ops = ops;
    s->impl = impl;
    *ret = s;
    return 0;
}

void
store_close(struct store *s)
{
    if (s == NULL)
        return;
    s->ops->close(s->impl);
    free(s->path);
    free(s);
}

const char *
store_path(const struct store *s)
{
    return s->path;
}

int
store_put(struct store *s, const char *key, const void *data, size_t len,
          struct err *err)
{
    return s->ops->put(s->impl, key, data, len, err);
}

int
store_get(struct store *s, const char *key, uint64_t off, size_t len, void *buf,
          struct err *err)
{
    return s->ops->get(s->impl, key, off, len, buf, err);
}

int
store_size(struct store *s, const char *key, uint64_t *ret_len, struct err *err)
{
    return s->ops->size(s->impl, key, ret_len, err);
}

int
store_map(struct store *s, const char *key, const uint8_t **ret,
          size_t *ret_len, struct err *err)
{
    return s->ops->map(s->impl, key, ret, ret_len, err);
}

void
store_unmap(struct store *s, const uint8_t *data, size_t len)
{
    s->ops->unmap(s->impl, data, len);
}

int
store_check_map(struct store *s, const uint8_t *data, struct err *err)
{
    return s->ops->check_map != NULL ? s->ops->check_map(s->impl, data, err)
                                     : 0;
}

int
store_list(struct store *s, const char *kind, store_list_fn fn, void *arg,
           struct err *err)
{
    return s->ops->list(s->impl, kind, fn, arg, err);
}

int
store_delete(struct store *s, const char *key, struct err *err)
{
    return s->ops->delete (s->impl, key, err);
}

int
store_sync(struct store *s, const char *kind, struct err *err)
{
    return s->ops->sync(s->impl, kind, err);
}

int
store_list_temps(struct store *s, store_list_fn fn, void *arg, struct err *err)
{
    return s->ops->list_temps != NULL
               ? s->ops->list_temps(s->impl, fn, arg, err)
               : 0;
}

int
store_delete_temp(struct store *s, const char *name, struct err *err)
{
    return s->ops->delete_temp(s->impl, name, err);
}

int
store_free_space(struct store *s, uint64_t *ret, struct err *err)
{
    return s->ops->free_space(s->impl, ret, err);
}

int
store_probe(struct store *s, struct err *err)
{
    return s->ops->probe != NULL ? s->ops->probe(s->impl, err) : 0;
}

int
store_reopen(struct store *s, struct store **ret, struct err *err)
{
    *ret = NULL;
    return s->ops->reopen != NULL ? s->ops->reopen(s->impl, ret, err) : 0;
}

/* -- objects in pieces ------------------------------------------------------*/

struct store_writer {
    struct store *store;
    void *impl;        /* of a store that can, or NULL */
    char *key;         /* else */
    struct buf pieces; /* else */
};

int
store_writer_new(struct store *s, const char *key, struct store_writer **ret,
                 struct err *err)
{
    struct store_writer *w = calloc(1, sizeof *w);
    int r = 0;

    if (w == NULL)
        return err_set_errno(err, ENOMEM, "object '%s'", key);
    w->store = s;
    if (s->ops->begin != NULL) {
        r = s->ops->begin(s->impl, key, &w->impl, err);
    } else {
        w->key = strdup(key);
        if (w->key == NULL)
            r = err_set_errno(err, ENOMEM, "object '%s'", key);
    }
    if (r < 0) {
        free(w);
        return -1;
    }
    *ret = w;
    return 0;
}

int
store_writer_add(struct store_writer *w, const void *data, size_t len,
                 struct err *err)
{
    if (w->impl == NULL)
        return buf_append(&w->pieces, data, len, err);
    return w->store->ops->add(w->impl, data, len, err);
}

int
store_writer_commit(struct store_writer *w, struct err *err)
{
    if (w->impl == NULL)
        return store_put(w->store, w->key, w->pieces.data, w->pieces.len, err);
    return w->store->ops->commit(w->impl, err);
}

void
store_writer_free(struct store_writer *w)
{
    if (w == NULL)
        return;
    if (w->impl != NULL)
        w->store->ops->end(w->impl);
    buf_done(&w->pieces);
    free(w->key);
    free(w);
}
