/* store/store.h - bytes by key, written once.
 *
 * A key is "kind/name": lower-case letters, digits, '-', '.', and '/' between
 * parts.  An object appears whole or not at all, is never modified, and its key
 * is never used again.  No other folder opens the files of a repository.
 *
 * What kind of store it is: store/backend.h.
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

/* Make the directory for a new repository: `path` may exist if it is empty, or
 * holds only what a store_self_test() or store_put() that was killed left behind.
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
 * failed fsync is not repeated into success).  What is visible, whoever made it
 * and however that ended, is durable when a later put next to it (the same key up
 * to the last '/') returns 0: who builds on a commit object that he sees needs
 * no more than his own. */
int store_put(struct store *s, const char *key, const void *data, size_t len,
              struct err *err);

/* The same for an object that is made piece by piece, so that it need not be in
 * memory whole.  Nothing is visible before _commit(), which is called once and
 * says what store_put() says; after a failure only _free() is left, which removes
 * what was not committed.  A writer belongs to one thread at a time. */
struct store_writer;
int store_writer_new(struct store *s, const char *key,
                     struct store_writer **ret, struct err *err);
int store_writer_add(struct store_writer *w, const void *data, size_t len,
                     struct err *err);
int store_writer_commit(struct store_writer *w, struct err *err);
void store_writer_free(struct store_writer *w); /* NULL is fine */

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
/* 0, or -1 when a part of what store_map() gave could not be read since (a bad
 * sector): zeroes were there instead.  To be asked after a checksum failed, and
 * before an answer is believed that no checksum guards.  *err is replaced by the
 * cause. */
int store_check_map(struct store *s, const uint8_t *data, struct err *err);

/* Call `fn` for every object whose key begins with "kind/" (sub-directories
 * included), in no order; a non-zero result of fn ends the walk and is
 * returned.  A kind with no directory has no objects. Temporary files are not
 * shown. */
typedef int (*store_list_fn)(void *arg, const char *key, uint64_t len);
int store_list(struct store *s, const char *kind, store_list_fn fn, void *arg,
               struct err *err);

/* Remove; a missing object is no error.  Durable after store_sync(). */
int store_delete(struct store *s, const char *key, struct err *err);

/* Make the removals below "kind/" durable: until then, a power cut may bring back
 * what was removed. */
int store_sync(struct store *s, const char *kind, struct err *err);

/* Temporary files: a writer that dies leaves them, and nobody can tell them from
 * those of a writer that lives.  Removing one of the latter makes store_put()
 * write it again, so that whoever removes should do that seldom.  The names are
 * for store_delete_temp() only. */
int store_list_temps(struct store *s, store_list_fn fn, void *arg,
                     struct err *err);
int store_delete_temp(struct store *s, const char *name, struct err *err);

/* Bytes free for us on the file system. */
int store_free_space(struct store *s, uint64_t *ret, struct err *err);

/* Try what everything else rests on, before it is needed: objects are created
 * exclusively, and what one handle writes, lists or removes the other sees at
 * once; in a directory also that links are counted and that NFS is mounted as a
 * shared repository needs it.  `second` is another handle of the same store; NULL
 * opens one.  0, or -1: ERR_UNSUPPORTED says which promise is broken. */
int store_self_test(struct store *s, struct store *second, struct err *err);
