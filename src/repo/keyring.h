/* repo/keyring.h - who can open an encrypted repository.
 *
 * The master key is wrapped in key slots, each under a passphrase of its own.
 * Slots are objects that are created exclusively and never changed, so any
 * number of processes may add and remove at once; one that goes marks its slot
 * first and then looks who else goes, so that the last two never go together.
 * Losing a slot loses nothing while another, or the paper key, is there.
 *
 * Threads: a keyring belongs to one thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "repo.h"

struct err;
struct keyring;
struct secret;

struct key_info {
    char slot[17];     /* 16 hex digits */
    char label[65];    /* as given when it was made */
    int64_t time_ns;   /* when it was made */
    uint64_t ops, mem; /* cost of one guess */
    bool going;        /* somebody has begun to remove it */
    char problem[256]; /* why it cannot be used, or "" */
};

/* Look at the slots of the encrypted repository at `path`; asks nobody. */
int keyring_open(const char *path, const struct file_ops *ops,
                 struct keyring **ret, struct err *err);
void keyring_close(struct keyring *k); /* NULL is fine */
const char *keyring_repo_id(const struct keyring *k);
size_t keyring_size(const struct keyring *k);
const struct key_info *keyring_at(const struct keyring *k, size_t i);

/* Get the master key: with a passphrase of any slot, or the paper key.  `fn` is
 * asked again as long as its answers are wrong.  ERR_KEY. */
int keyring_unlock(struct keyring *k, secret_fn fn, void *arg, struct err *err);
/* The slot that opened it; "" for the paper key. */
const char *keyring_opened_by(const struct keyring *k);

/* The rest needs keyring_unlock() before. */

struct key_new {
    secret_fn passphrase; /* asked with `fresh` */
    void *arg;
    const char *label;         /* NULL: none */
    uint64_t kdf_ops, kdf_mem; /* 0: the default */
};

/* Add a slot; read back and opened before this returns 0. */
int keyring_add(struct keyring *k, const struct key_new *new, char ret_slot[17],
                struct err *err);

/* Remove the slot with this name (or the beginning of one).  Refuses the last
 * usable one, and the one whose passphrase was given: that of a slot that stays
 * proves that the repository can still be opened. */
int keyring_remove(struct keyring *k, const char *slot, char ret_slot[17],
                   struct err *err);

/* Another passphrase in the place of the slot that was opened: a new slot, then
 * the old one goes.  No data is rewritten. */
int keyring_passwd(struct keyring *k, const struct key_new *new,
                   char ret_slot[17], struct err *err);

/* The paper key as text. */
void keyring_export(const struct keyring *k, struct secret *ret);
