/* store/store.h - bytes by key, written once.
 *
 * A key is "kind/name": lower-case letters, digits, '-', '.', and '/' between
 * parts.  An object appears whole or not at all, is never modified, and its key
 * is never used again.  No other folder opens the files of a repository.
 *
 * Directory store: temporary file in the same directory, write, fsync, link()
 * to the final name (exclusive also on NFS: after a lost reply the link count
 * tells), unlink the temporary name, fsync the directory.  Files 0600,
 * directories 0700.
 * Threads: all functions may be called from any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct file_ops; /* store/fileops.h */
struct store;

/* Make the directory for a new repository: `path` may exist if it is empty.
 * ERR_EXISTS otherwise. */
int store_dir_create(const char *path, const struct file_ops *ops,
                     struct err *err);

/* Open the directory store at `path`.  `ops` NULL means file_ops_system. */
int store_dir_open(const char *path, const struct file_ops *ops,
                   struct store **ret, struct err *err);
void store_close(struct store *s); /* NULL is fine */
const char *store_path(const struct store *s);

/* Create the object exclusively and durably: after 0 it survives a power cut.
 * ERR_EXISTS when the key is taken, ERR_NO_SPACE when full.  After any other
 * error the object may or may not exist; never retry under the same key (a
 * failed fsync is not repeated into success). */
int store_put(struct store *s, const char *key, const void *data, size_t len,
              struct err *err);

/* Read exactly `len` bytes at `off`.  ERR_NOT_FOUND when there is no such
 * object, ERR_CORRUPT when it is shorter. */
int store_get(struct store *s, const char *key, uint64_t off, size_t len,
              void *buf, struct err *err);

/* 1 and *ret_len, 0 when there is no such object, -1 error. */
int store_size(struct store *s, const char *key, uint64_t *ret_len,
               struct err *err);

/* Whole object as read-only memory (mmap here; a copy in other stores). */
int store_map(struct store *s, const char *key, const uint8_t **ret,
              size_t *ret_len, struct err *err);
void store_unmap(struct store *s, const uint8_t *data, size_t len);

/* Call `fn` for every object whose key begins with "kind/" (sub-directories
 * included), in no order; a non-zero result of fn ends the walk and is
 * returned.  A kind with no directory has no objects. Temporary files are not
 * shown. */
typedef int (*store_list_fn)(void *arg, const char *key, uint64_t len);
int store_list(struct store *s, const char *kind, store_list_fn fn, void *arg,
               struct err *err);

/* Remove; a missing object is no error. */
int store_delete(struct store *s, const char *key, struct err *err);

/* Bytes free for us on the file system. */
int store_free_space(struct store *s, uint64_t *ret, struct err *err);
