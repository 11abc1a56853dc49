/* store/backend.h - what a kind of store implements.
 *
 * dir.c is one; a test may bring another.  Contracts are those of the functions
 * of the same name in store.h.
 */
#pragma once

#include "store.h"

struct store_ops {
    void (*close)(void *impl);
    int (*put)(void *impl, const char *key, const void *data, size_t len,
               struct err *err);
    int (*get)(void *impl, const char *key, uint64_t off, size_t len, void *buf,
               struct err *err);
    int (*size)(void *impl, const char *key, uint64_t *ret_len,
                struct err *err);
    int (*map)(void *impl, const char *key, const uint8_t **ret,
               size_t *ret_len, struct err *err);
    void (*unmap)(void *impl, const uint8_t *data, size_t len);
    /* NULL: what was mapped can always be read. */
    int (*check_map)(void *impl, const uint8_t *data, struct err *err);
    int (*list)(void *impl, const char *kind, store_list_fn fn, void *arg,
                struct err *err);
    int (*delete)(void *impl, const char *key, struct err *err);
    int (*sync)(void *impl, const char *kind, struct err *err);
    /* NULL: there are none. */
    int (*list_temps)(void *impl, store_list_fn fn, void *arg, struct err *err);
    int (*delete_temp)(void *impl, const char *name, struct err *err);
    int (*free_space)(void *impl, uint64_t *ret, struct err *err);
    /* Objects in pieces; without these, the pieces are collected and put. */
    int (*begin)(void *impl, const char *key, void **ret_w, struct err *err);
    int (*add)(void *w, const void *data, size_t len, struct err *err);
    int (*commit)(void *w, struct err *err);
    void (*end)(void *w);
    /* The parts of store_self_test() that only this kind of store knows.  NULL:
     * nothing to look at. */
    int (*probe)(void *impl, struct err *err);
    /* Another handle of the same store, as another program would have it.
     * NULL: there is no such thing. */
    int (*reopen)(void *impl, struct store **ret, struct err *err);
};

/* Make a store of an implementation.  `path` is what messages call it.
 * store_close() calls ops->close(impl); after -1 it was not called. */
int store_wrap(const struct store_ops *ops, void *impl, const char *path,
               struct store **ret, struct err *err);

/* ops->probe and ops->reopen; 0 where there are none, *ret is NULL then. */
int store_probe(struct store *s, struct err *err);
int store_reopen(struct store *s, struct store **ret, struct err *err);
