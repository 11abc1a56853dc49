/* Adding and removing key slots, beside other processes that do the same.
 *
 * Removing is the dangerous part.  Whoever wants to remove slot X
 *  1. creates the mark "key/X.remove-<random>",
 *  2. *then* lists: a usable slot other than X and without a mark must be there,
 *  3. if so removes X, then its marks; otherwise removes its own mark.
 * Of two that remove the last two slots, at least one lists after both marks
 * were made, and it withdraws.  A mark whose owner was killed does not hinder
 * opening; it only keeps that slot from counting, and the next `remove` of it
 * ends what was begun.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "err.h"
#include "guarded.h"
#include "harden.h"
#include "hash.h"
#include "internal.h"
#include "keyring_int.h"
#include "rand.h"
#include "secret.h"
#include "store.h"

static const struct kdf_cost default_cost = KDF_COST_DEFAULT;

/* -- adding -----------------------------------------------------------------*/

int
keyring_ask_new(const struct key_new *new, const char *what,
                struct secret **ret, struct err *err)
{
    CLEANUP_GUARDED struct secret *s = guarded_alloc(sizeof *s);
    struct secret_ask ask = {.what = what, .fresh = true};
    int r;

    harden_process();
    if (s == NULL)
        return err_set_errno(err, ENOMEM, "memory for keys");
    r = new->passphrase != NULL ? new->passphrase(new->arg, &ask, s, err) : 1;
    if (r < 0)
        return -1;
    if (r == 1 || s->kind != SECRET_PASSPHRASE)
        return err_set(err, ERR_KEY, "no new passphrase was given");
    if (s->len == 0 || s->len > SECRET_PASSPHRASE_MAX)
        return err_set(err, ERR_USAGE, "a passphrase has 1 to %d bytes",
                       SECRET_PASSPHRASE_MAX);
    *ret = TAKE_PTR(s);
    return 0;
}

/* What was wrapped must open again, before anybody relies on it. */
static int
prove(const struct key_slot *s, const struct secret *passphrase,
      const uint8_t *master, struct err *err)
{
    CLEANUP_GUARDED uint8_t *back = guarded_alloc(KEY_MASTER_LEN);

    if (back == NULL)
        return err_set_errno(err, ENOMEM, "memory for keys");
    if (key_slot_unwrap(s, passphrase, back, NULL) < 0 ||
        memcmp(back, master, KEY_MASTER_LEN) != 0)
        return err_set(err, ERR_CORRUPT,
                       "a new key slot does not open again; test the memory of "
                       "this machine");
    return 0;
}

static int
put_slot(struct store *st, const struct key_slot *s, struct err *err)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    CLEANUP(buf_done) struct buf back = BUF_INIT;
    char key[REPO_KEY_MAX];

    (void)snprintf(key, sizeof key, "key/%s", s->name);
    if (key_slot_encode(s, &b, err) < 0 ||
        store_put(st, key, b.data, b.len, err) < 0 ||
        buf_reserve(&back, b.len, err) < 0 ||
        store_get(st, key, 0, b.len, back.data, err) < 0)
        return -1;
    if (memcmp(b.data, back.data, b.len) != 0)
        return err_set(err, ERR_CORRUPT,
                       "'%s' does not read back as written; check the storage "
                       "of '%s'",
                       key, store_path(st));
    return 0;
}

static int
add(struct store *st, const struct repo_format *f, const uint8_t *master,
    const struct key_new *new, const struct secret *passphrase,
    char ret_slot[17], struct err *err)
{
    struct kdf_cost cost = default_cost;
    struct key_slot s;

    if (new->kdf_ops != 0)
        cost.ops = new->kdf_ops;
    if (new->kdf_mem != 0)
        cost.mem = new->kdf_mem;
    if (key_slot_wrap(f, passphrase, new->label != NULL ? new->label : "",
                      &cost, master, &s, err) < 0 ||
        prove(&s, passphrase, master, err) < 0 || put_slot(st, &s, err) < 0)
        return -1;
    (void)strcpy(ret_slot, s.name);
    return 0;
}

static int
check_unlocked(const struct keyring *k, struct err *err)
{
    return k->master != NULL ? 0 : err_set(err, ERR_USAGE, "keys are locked");
}

/* A slot where there are at most `others`. */
static int
add_to(struct keyring *k, const struct key_new *new, size_t others,
       char ret_slot[17], struct err *err)
{
    CLEANUP_GUARDED struct secret *s = NULL;

    if (check_unlocked(k, err) < 0)
        return -1;
    if (k->n > others)
        return err_set(err, ERR_USAGE,
                       "'%s' has %zu key slots, at most %d are allowed; remove "
                       "one first",
                       store_path(k->store), k->n, KEYRING_SLOTS_MAX);
    if (keyring_ask_new(new, store_path(k->store), &s, err) < 0 ||
        add(k->store, &k->format, k->master, new, s, ret_slot, err) < 0)
        return -1;
    return keyring_reload(k, err);
}

int
keyring_add(struct keyring *k, const struct key_new *new, char ret_slot[17],
            struct err *err)
{
    return add_to(k, new, KEYRING_SLOTS_MAX - 1, ret_slot, err);
}

/* The format object's bytes are known before the slot is wrapped, because the
 * slot is bound to them; decoding them gives f->sum. */
static int
seal_format(struct repo_format *f, const uint8_t *master, struct buf *b,
            struct err *err)
{
    if (format_master_check(master, f->check, err) < 0 ||
        format_encode(f, b, err) < 0)
        return -1;
    return format_decode(b->data, b->len, f, err);
}

int
keyring_first(struct store *st, struct repo_format *f,
              const struct key_new *new, const struct secret *passphrase,
              struct buf *ret_format, struct err *err)
{
    CLEANUP_GUARDED uint8_t *master = guarded_alloc(KEY_MASTER_LEN);
    char slot[KEY_SLOT_TEXT];

    if (master == NULL)
        return err_set_errno(err, ENOMEM, "memory for keys");
    rand_bytes(master, KEY_MASTER_LEN);
    f->encrypted = true;
    if (seal_format(f, master, ret_format, err) < 0)
        return -1;
    return add(st, f, master, new, passphrase, slot, err);
}

/* -- removing ---------------------------------------------------------------*/

static int
find_slot(const struct keyring *k, const char *name, char ret[KEY_SLOT_TEXT],
          struct err *err)
{
    const char *found = NULL;

    for (size_t i = 0; i < k->n; i++) {
        if (strncmp(k->v[i].info.slot, name, strlen(name)) != 0)
            continue;
        if (found != NULL)
            return err_set(
                err, ERR_USAGE,
                "several key slots begin with '%s'; write more of it", name);
        found = k->v[i].info.slot;
    }
    if (found == NULL || strlen(name) < 4)
        return err_set(err, ERR_NOT_FOUND,
                       "no key slot '%s' in '%s'; see: tidemark key list '%s'",
                       name, store_path(k->store), store_path(k->store));
    (void)strcpy(ret, found);
    return 0;
}

struct marks {
    const char *slot;
    struct store *store;
    struct err *err;
};

static int
remove_mark(void *arg, const char *key, uint64_t len)
{
    const struct marks *m = arg;
    const char *name = key + strlen("key/");

    (void)len;
    if (strncmp(name, m->slot, 16) != 0 ||
        strncmp(name + 16, ".remove-", 8) != 0)
        return 0;
    return store_delete(m->store, key, m->err);
}

/* The slot's removal is durable before its marks go. */
static int
remove_marked(struct keyring *k, const char *slot, struct err *err)
{
    struct marks m = {slot, k->store, err};
    char key[REPO_KEY_MAX];

    (void)snprintf(key, sizeof key, "key/%s", slot);
    if (store_delete(k->store, key, err) < 0 ||
        store_sync(k->store, "key", err) < 0 ||
        store_list(k->store, "key", remove_mark, &m, err) < 0)
        return -1;
    return store_sync(k->store, "key", err);
}

/* Usable slots that stay when `slot` goes. */
static size_t
staying(const struct keyring *k, const char *slot, bool *ret_others_go)
{
    size_t n = 0;

    *ret_others_go = false;
    for (size_t i = 0; i < k->n; i++) {
        const struct key_info *e = &k->v[i].info;

        if (strcmp(e->slot, slot) == 0 || e->problem[0] != '\0')
            continue;
        n += !e->going;
        *ret_others_go |= e->going;
    }
    return n;
}

static int
not_removed(const char *slot, bool others_go, struct err *err)
{
    if (others_go)
        return err_set(err, ERR_LOCKED,
                       "key slot %s would be the last: all others are being "
                       "removed by another process, or by one that was killed "
                       "(then remove those first)",
                       slot);
    return err_set(err, ERR_USAGE,
                   "key slot %s is the last one that can be used: nobody could "
                   "open the repository any more; add another first",
                   slot);
}

static int
remove_slot(struct keyring *k, const char *slot, struct err *err)
{
    char mark[REPO_KEY_MAX], random[17];
    uint8_t bytes[8];
    bool others_go;

    rand_bytes(bytes, sizeof bytes);
    hex_encode(bytes, sizeof bytes, random);
    (void)snprintf(mark, sizeof mark, "key/%s.remove-%s", slot, random);
    if (store_put(k->store, mark, "remove\n", 7, err) < 0)
        return -1;
    if (keyring_reload(k, err) < 0) {
        (void)store_delete(k->store, mark, NULL);
        return -1;
    }
    if (staying(k, slot, &others_go) == 0) {
        (void)store_delete(k->store, mark, NULL);
        return not_removed(slot, others_go, err);
    }
    if (remove_marked(k, slot, err) < 0)
        return err_wrap(err, "remove key slot %s", slot);
    return keyring_reload(k, err);
}

int
keyring_remove(struct keyring *k, const char *slot, char ret_slot[17],
               struct err *err)
{
    char name[KEY_SLOT_TEXT];

    if (check_unlocked(k, err) < 0 || find_slot(k, slot, name, err) < 0)
        return -1;
    if (keyring_usable(k, name) == 0)
        return not_removed(name, false, err);
    if (strcmp(name, k->opened_by) == 0)
        return err_set(err, ERR_USAGE,
                       "the passphrase that was given is that of key slot %s "
                       "itself; give that of one that stays",
                       name);
    if (remove_slot(k, name, err) < 0)
        return -1;
    (void)strcpy(ret_slot, name);
    return 0;
}

int
keyring_passwd(struct keyring *k, const struct key_new *new, char ret_slot[17],
               struct err *err)
{
    struct key_new labeled = *new;
    char old[KEY_SLOT_TEXT], label[KEY_LABEL_MAX + 1] = "";

    if (check_unlocked(k, err) < 0)
        return -1;
    if (k->opened_by[0] == '\0')
        return err_set(err, ERR_USAGE,
                       "a paper key has no passphrase; use 'key add' to make a "
                       "new key slot");
    (void)strcpy(old, k->opened_by);
    for (size_t i = 0; i < k->n; i++)
        if (strcmp(k->v[i].info.slot, old) == 0)
            (void)strcpy(label, k->v[i].info.label);
    if (labeled.label == NULL)
        labeled.label = label;
    /* The old one goes. */
    if (add_to(k, &labeled, KEYRING_SLOTS_MAX, ret_slot, err) < 0)
        return -1;
    if (remove_slot(k, old, err) < 0)
        return err_wrap(err,
                        "key slot %s has the new passphrase, but the old "
                        "one still opens the repository",
                        ret_slot);
    return 0;
}
