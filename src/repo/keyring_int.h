/* repo/keyring_int.h - keyrings, for this folder. */
#pragma once

#include "format.h"
#include "keyring.h"
#include "keyslot.h"

struct store;

/* Nobody adds to so many.  Read are twice as many: of some that add at once
 * each sees one place free, and the result must still open. */
#define KEYRING_SLOTS_MAX 64
#define KEYRING_READ_MAX (2 * KEYRING_SLOTS_MAX)

struct key_entry {
    struct key_info info;
    struct key_slot slot; /* valid when info.problem is "" */
};

struct keyring {
    struct store *store; /* borrowed unless `owned` */
    bool owned;
    struct repo_format format;
    struct key_entry *v; /* by name */
    size_t n;
    uint8_t *master; /* guarded memory; NULL: locked */
    char opened_by[KEY_SLOT_TEXT];
};

/* The slots in `st`, which stays the caller's. */
int keyring_load(struct store *st, const struct repo_format *f,
                 struct keyring **ret, struct err *err);

/* For a repository that does not exist yet: a new master key, its first slot,
 * and the bytes of the format object, which is created after this. */
int keyring_first(struct store *st, struct repo_format *f,
                  const struct key_new *new, const struct secret *passphrase,
                  struct buf *ret_format, struct err *err);

/* Slots that can be used, `but` (may be NULL) not counted. */
size_t keyring_usable(const struct keyring *k, const char *but);
int keyring_reload(struct keyring *k, struct err *err);
/* Ask for a passphrase that is to be set. */
int keyring_ask_new(const struct key_new *new, const char *what,
                    struct secret **ret, struct err *err);
