/* Finding the slots, and getting the master key out of one. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "err.h"
#include "guarded.h"
#include "harden.h"
#include "hash.h"
#include "internal.h"
#include "keyring_int.h"
#include "paper.h"
#include "secret.h"
#include "store.h"

#define ATTEMPTS_MAX 10
#define SLOT_LEN_MAX 65536

DEFINE_CLEANUP(struct keyring *, keyring_close)

/* -- loading ----------------------------------------------------------------*/

struct listing {
    struct keyring *k;
    char (*going)[KEY_SLOT_TEXT];
    size_t n_going;
    struct err *err;
};

static bool
is_slot_name(const char *name)
{
    return strspn(name, "0123456789abcdef") >= KEY_SLOT_TEXT - 1;
}

static int
note_going(struct listing *l, const char *name)
{
    void *v = realloc(l->going, (l->n_going + 1) * sizeof *l->going);

    if (v == NULL)
        return err_set_errno(l->err, ENOMEM, "key slots");
    l->going = v;
    (void)snprintf(l->going[l->n_going++], KEY_SLOT_TEXT, "%.16s", name);
    return 0;
}

/* "key/<slot>" or "key/<slot>.remove-<random>". */
static int
note_object(void *arg, const char *key, uint64_t len)
{
    struct listing *l = arg;
    const char *name = key + strlen("key/");
    struct key_entry *v;

    (void)len;
    if (!is_slot_name(name))
        return 0;
    if (strncmp(name + 16, ".remove-", 8) == 0)
        return note_going(l, name);
    if (name[16] != '\0')
        return 0;
    if (l->k->n == KEYRING_READ_MAX)
        return err_set(l->err, ERR_FORMAT,
                       "more than %d objects under 'key/': whoever can write "
                       "to the repository put them there; remove what is not "
                       "yours",
                       KEYRING_READ_MAX);
    v = realloc(l->k->v, (l->k->n + 1) * sizeof *v);
    if (v == NULL)
        return err_set_errno(l->err, ENOMEM, "key slots");
    l->k->v = v;
    v += l->k->n++;
    memset(v, 0, sizeof *v);
    (void)snprintf(v->info.slot, sizeof v->info.slot, "%s", name);
    return 0;
}

static int
compare(const void *a, const void *b)
{
    const struct key_entry *x = a, *y = b;

    return strcmp(x->info.slot, y->info.slot);
}

static int
check_place(const struct keyring *k, const struct key_slot *s, const char *name,
            struct err *err)
{
    if (strcmp(s->name, name) != 0)
        return err_set(err, ERR_CORRUPT,
                       "this is key slot %s under a wrong name", s->name);
    if (strcmp(s->repo, k->format.id) != 0)
        return err_set(
            err, ERR_CORRUPT,
            "belongs to the repository %s: it, or the format object, "
            "was exchanged",
            s->repo);
    if (!hash_equal(s->format_sum, k->format.sum))
        return err_set(err, ERR_CORRUPT,
                       "was made for another format object: that one was "
                       "changed or exchanged");
    return 0;
}

static int
read_slot(const struct keyring *k, const char *name, struct key_slot *ret,
          struct err *err)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    char key[REPO_KEY_MAX];
    uint64_t len;
    int found;

    (void)snprintf(key, sizeof key, "key/%s", name);
    found = store_size(k->store, key, &len, err);
    if (found < 0)
        return -1;
    if (found == 0)
        return err_set(err, ERR_NOT_FOUND, "is gone");
    if (len == 0 || len > SLOT_LEN_MAX)
        return err_set(err, ERR_CORRUPT, "a key slot cannot have that size");
    if (buf_reserve(&b, (size_t)len, err) < 0 ||
        store_get(k->store, key, 0, (size_t)len, b.data, err) < 0 ||
        key_slot_decode(b.data, (size_t)len, ret, err) < 0)
        return -1;
    return check_place(k, ret, name, err);
}

static void
read_entry(const struct keyring *k, struct key_entry *e)
{
    struct err why = ERR_INIT;

    if (read_slot(k, e->info.slot, &e->slot, &why) < 0) {
        (void)snprintf(e->info.problem, sizeof e->info.problem, "%.250s",
                       why.msg);
        return;
    }
    (void)snprintf(e->info.label, sizeof e->info.label, "%s", e->slot.label);
    e->info.time_ns = e->slot.time_ns;
    e->info.ops = e->slot.cost.ops;
    e->info.mem = e->slot.cost.mem;
}

int
keyring_reload(struct keyring *k, struct err *err)
{
    struct listing l = {.k = k, .err = err};
    int r;

    free(k->v);
    k->v = NULL;
    k->n = 0;
    r = store_list(k->store, "key", note_object, &l, err);
    if (r == 0 && k->n > 1)
        qsort(k->v, k->n, sizeof *k->v, compare);
    for (size_t i = 0; r == 0 && i < k->n; i++) {
        read_entry(k, &k->v[i]);
        for (size_t j = 0; j < l.n_going; j++)
            k->v[i].info.going |= strcmp(l.going[j], k->v[i].info.slot) == 0;
    }
    free(l.going);
    return r;
}

int
keyring_load(struct store *st, const struct repo_format *f,
             struct keyring **ret, struct err *err)
{
    CLEANUP(keyring_closep) struct keyring *k = calloc(1, sizeof *k);

    if (k == NULL)
        return err_set_errno(err, ENOMEM, "key slots");
    k->store = st;
    k->format = *f;
    if (keyring_reload(k, err) < 0)
        return -1;
    *ret = TAKE_PTR(k);
    return 0;
}

int
keyring_open(const char *path, const struct file_ops *ops, struct keyring **ret,
             struct err *err)
{
    struct repo_format f;
    struct store *st;

    if (repo_open_format(path, ops, &st, &f, err) < 0)
        return -1;
    if (!f.encrypted) {
        store_close(st);
        return err_set(err, ERR_USAGE,
                       "repository '%s' is not encrypted and has no keys; "
                       "encryption is chosen when a repository is made: "
                       "tidemark init --encrypt",
                       path);
    }
    if (keyring_load(st, &f, ret, err) < 0) {
        store_close(st);
        return -1;
    }
    (*ret)->owned = true;
    return 0;
}

void
keyring_close(struct keyring *k)
{
    if (k == NULL)
        return;
    guarded_free(k->master);
    free(k->v);
    if (k->owned)
        store_close(k->store);
    free(k);
}

const char *
keyring_repo_id(const struct keyring *k)
{
    return k->format.id;
}

size_t
keyring_size(const struct keyring *k)
{
    return k->n;
}

const struct key_info *
keyring_at(const struct keyring *k, size_t i)
{
    return &k->v[i].info;
}

size_t
keyring_usable(const struct keyring *k, const char *but)
{
    size_t n = 0;

    for (size_t i = 0; i < k->n; i++)
        n += k->v[i].info.problem[0] == '\0' &&
             (but == NULL || strcmp(k->v[i].info.slot, but) != 0);
    return n;
}

/* -- unlocking --------------------------------------------------------------*/

static int
check_master(struct keyring *k, const uint8_t *master, struct err *err)
{
    uint8_t check[FORMAT_CHECK_LEN];

    if (format_master_check(master, check, err) < 0)
        return -1;
    if (memcmp(check, k->format.check, sizeof check) != 0)
        return err_set(err, ERR_CORRUPT,
                       "holds the master key of another repository");
    return 0;
}

static int
no_key(const struct keyring *k, struct err *err)
{
    if (k->n == 0)
        return err_set(err, ERR_KEY,
                       "repository '%s' is encrypted and its key slots "
                       "(key/...) are gone: put one back from a copy, or open "
                       "it with the paper key (--paper-key-fd)",
                       store_path(k->store));
    if (keyring_usable(k, NULL) == 0)
        return err_set(err, ERR_KEY,
                       "repository '%s' is encrypted and none of its %zu key "
                       "slots can be used (key/%s: %s): put one back from a "
                       "copy, or open it with the paper key (--paper-key-fd)",
                       store_path(k->store), k->n, k->v[0].info.slot,
                       k->v[0].info.problem);
    return err_set(err, ERR_KEY,
                   "repository '%s' is encrypted and no passphrase was given",
                   store_path(k->store));
}

/* 0, ERR_KEY when the passphrase is that of none, or another error: where none
 * could be tried for lack of memory, nothing is known of the passphrase. */
static int
try_slots(struct keyring *k, const struct secret *s, uint8_t *master,
          struct err *err)
{
    size_t tried = 0, others = 0;
    const struct key_info *odd = NULL;
    struct err failed = ERR_INIT;

    for (size_t i = 0; i < k->n; i++) {
        struct key_entry *e = &k->v[i];
        struct err why = ERR_INIT;

        if (e->info.problem[0] == '\0' &&
            key_slot_unwrap(&e->slot, s, master, &why) == 0 &&
            check_master(k, master, &why) == 0) {
            (void)strcpy(k->opened_by, e->info.slot);
            return 0;
        }
        if (why.code == ERR_USAGE)
            return err_copy(err, &why);
        if (why.code == ERR_KEY) {
            tried++;
            continue;
        }
        if (why.code == ERR_SYSTEM)
            failed = why;
        if (why.code != ERR_NONE)
            (void)snprintf(e->info.problem, sizeof e->info.problem, "%.250s",
                           why.msg);
        others++;
        odd = &e->info;
    }
    if (tried == 0)
        return failed.code != ERR_NONE ? err_copy(err, &failed)
                                       : no_key(k, err);
    (void)err_set(err, ERR_KEY,
                  "wrong passphrase: it opens none of the %zu key slots that "
                  "were tried in '%s'",
                  tried, store_path(k->store));
    if (odd != NULL && err != NULL) {
        size_t n = strlen(err->msg);

        (void)snprintf(err->msg + n, sizeof err->msg - n,
                       "; %zu more cannot be used (key/%s: %s)", others,
                       odd->slot, odd->problem);
    }
    return -1;
}

static int
try_paper(struct keyring *k, const struct secret *s, uint8_t *master,
          struct err *err)
{
    struct err why = ERR_INIT;
    char repo[33];

    if (paper_decode(s->text, s->len, repo, master, &why) < 0)
        return err_set(err, ERR_KEY, "%s", why.msg);
    if (strcmp(repo, k->format.id) != 0)
        return err_set(err, ERR_KEY,
                       "this is the paper key of the repository %s; '%s' is %s",
                       repo, store_path(k->store), k->format.id);
    if (check_master(k, master, NULL) < 0)
        return err_set(err, ERR_KEY,
                       "the paper key does not fit the repository '%s'; its "
                       "format object may have been exchanged",
                       store_path(k->store));
    k->opened_by[0] = '\0';
    return 0;
}

/* One question and what comes of the answer: 0, 1 (asks no more), -1. */
static int
attempt(struct keyring *k, secret_fn fn, void *arg, unsigned n,
        struct secret *s, struct err *err)
{
    struct secret_ask ask = {.what = store_path(k->store),
                             .attempt = n,
                             .no_passphrase = keyring_usable(k, NULL) == 0};
    int r;

    memset(s, 0, sizeof *s);
    r = fn(arg, &ask, s, err);
    if (r != 0)
        return r;
    if (s->kind == SECRET_PAPER_KEY)
        return try_paper(k, s, k->master, err);
    if (ask.no_passphrase)
        return no_key(k, err);
    return try_slots(k, s, k->master, err);
}

int
keyring_unlock(struct keyring *k, secret_fn fn, void *arg, struct err *err)
{
    CLEANUP_GUARDED struct secret *s = NULL;
    struct err last = ERR_INIT;

    harden_process();
    s = guarded_alloc(sizeof *s);
    k->master = guarded_alloc(KEY_MASTER_LEN);
    if (s == NULL || k->master == NULL)
        return err_set_errno(err, ENOMEM, "memory for keys");
    for (unsigned n = 0; fn != NULL && n < ATTEMPTS_MAX; n++) {
        struct err why = ERR_INIT;
        int r = attempt(k, fn, arg, n, s, &why);

        if (r == 0)
            return 0;
        if (r == 1)
            break;
        last = why;
        if (why.code != ERR_KEY)
            break;
    }
    guarded_free(k->master);
    k->master = NULL;
    return last.code != ERR_NONE ? err_copy(err, &last) : no_key(k, err);
}

const char *
keyring_opened_by(const struct keyring *k)
{
    return k->opened_by;
}

void
keyring_export(const struct keyring *k, struct secret *ret)
{
    ret->kind = SECRET_PAPER_KEY;
    paper_encode(k->format.id, k->master, ret->text, &ret->len);
}
