/* Making and opening a repository. */
#include "repo.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "catalog.h"
#include "cleanup.h"
#include "err.h"
#include "format.h"
#include "guarded.h"
#include "internal.h"
#include "keyring_int.h"
#include "rand.h"
#include "session.h"
#include "store.h"

DEFINE_CLEANUP(struct store *, store_close)
DEFINE_CLEANUP(struct repo *, repo_close)
DEFINE_CLEANUP(struct keyring *, keyring_close)

bool
chunk_id_zero(const struct chunk_id *id)
{
    return chunk_data_zero(id->b, sizeof id->b);
}

bool
chunk_id_equal(const struct chunk_id *a, const struct chunk_id *b)
{
    return memcmp(a->b, b->b, sizeof a->b) == 0;
}

/* -- the format object ------------------------------------------------------*/

static int
read_format(struct store *st, struct repo_format *ret, struct err *err)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    uint64_t len;
    int found = store_size(st, FORMAT_KEY, &len, err);

    if (found < 0)
        return -1;
    if (found == 0)
        return err_set(err, ERR_NOT_FOUND, "no format object");
    if (len > FORMAT_LEN_MAX)
        return err_set(err, ERR_FORMAT, "format object of unlikely size");
    if (buf_reserve(&b, (size_t)len + 1, err) < 0 ||
        store_get(st, FORMAT_KEY, 0, (size_t)len, b.data, err) < 0)
        return -1;
    return format_decode(b.data, (size_t)len, ret, err);
}

/* -- making -----------------------------------------------------------------*/

static bool
has_format(const char *path, const struct file_ops *ops)
{
    CLEANUP(store_closep) struct store *st = NULL;
    struct repo_format f;

    return store_dir_open(path, ops, &st, NULL) == 0 &&
           read_format(st, &f, NULL) == 0;
}

static int
not_made(const char *path, const struct err *why, struct err *err)
{
    (void)err_copy(err, why);
    return err_wrap(err, "make repository '%s'", path);
}

static int
check_chunk_size(uint32_t chunk_size, struct err *err)
{
    if (chunk_size < REPO_CHUNK_MIN || chunk_size > REPO_CHUNK_MAX ||
        (chunk_size & (chunk_size - 1)) != 0)
        return err_set(err, ERR_USAGE,
                       "chunk size %u is not a power of two from %u to %u",
                       chunk_size, REPO_CHUNK_MIN, REPO_CHUNK_MAX);
    return 0;
}

static struct key_new
first_key(const struct repo_init_opts *opts)
{
    return (struct key_new){.passphrase = opts->passphrase,
                            .arg = opts->arg,
                            .label = opts->label,
                            .kdf_ops = opts->kdf_ops,
                            .kdf_mem = opts->kdf_mem};
}

struct slot_walk {
    struct store *st;
    struct err *err;
};

static int
remove_slot(void *arg, const char *key, uint64_t len)
{
    struct slot_walk *w = arg;

    (void)len;
    return store_delete(w->st, key, w->err);
}

/* Of an init that was killed before there was a format object: they open
 * nothing, and beside one that is not encrypted they would look like fraud. */
static int
remove_old_slots(struct store *st, struct err *err)
{
    struct slot_walk w = {st, err};

    if (store_list(st, "key", remove_slot, &w, err) != 0)
        return -1;
    return store_sync(st, "key", err);
}

/* The key slot comes first: it is of no use alone, and a repository without one
 * could never be opened. */
static int
init_store(struct store *st, const struct repo_init_opts *opts,
           const struct secret *passphrase, char ret_id[33], struct err *err)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    struct repo_format f = {.chunk_size = opts->chunk_size};
    const struct key_new first = first_key(opts);
    uint8_t id[16];

    if (check_chunk_size(opts->chunk_size, err) < 0)
        return -1;
    rand_bytes(id, sizeof id);
    hex_encode(id, sizeof id, f.id);
    if (store_self_test(st, NULL, err) < 0 || remove_old_slots(st, err) < 0)
        return -1;
    if (opts->encrypt) {
        if (keyring_first(st, &f, &first, passphrase, &b, err) < 0)
            return -1;
    } else {
        rand_bytes(f.secret, sizeof f.secret);
        if (format_encode(&f, &b, err) < 0)
            return -1;
    }
    memcpy(ret_id, f.id, sizeof f.id);
    return store_put(st, FORMAT_KEY, b.data, b.len, err);
}

int
repo_init_store(struct store *st, uint32_t chunk_size, struct err *err)
{
    const struct repo_init_opts opts = {.chunk_size = chunk_size};
    char id[33];

    return init_store(st, &opts, NULL, id, err);
}

int
repo_init_with(const char *path, const struct repo_init_opts *opts,
               char ret_id[33], struct err *err)
{
    CLEANUP_GUARDED struct secret *passphrase = NULL;
    CLEANUP(store_closep) struct store *st = NULL;
    const struct key_new first = first_key(opts);
    struct err why = ERR_INIT;

    if (check_chunk_size(opts->chunk_size, err) < 0)
        return -1;
    /* Before there is anything that an end at this question would leave. */
    if (opts->encrypt && keyring_ask_new(&first, path, &passphrase, err) < 0)
        return -1;
    if (store_dir_create(path, opts->ops, &why) < 0)
        return why.code == ERR_EXISTS && has_format(path, opts->ops)
                   ? err_set(err, ERR_EXISTS,
                             "'%s' is a Tidemark repository already; use it "
                             "as it is, or choose another directory",
                             path)
                   : not_made(path, &why, err);
    if (store_dir_open(path, opts->ops, &st, err) < 0 ||
        init_store(st, opts, passphrase, ret_id, err) < 0)
        return err_wrap(err, "make repository '%s'", path);
    return 0;
}

int
repo_init(const char *path, uint32_t chunk_size, const struct file_ops *ops,
          struct err *err)
{
    const struct repo_init_opts opts = {.chunk_size = chunk_size, .ops = ops};
    char id[33];

    return repo_init_with(path, &opts, id, err);
}

/* -- opening ----------------------------------------------------------------*/

static int
any_object(void *arg, const char *key, uint64_t len)
{
    (void)arg;
    (void)key;
    (void)len;
    return 1;
}

/* `why`: what is wrong with the "format" object.  Where there are points, the
 * advice to make a repository would be the wrong one. */
static int
no_repository(struct store *s, const char *path, const struct err *why,
              struct err *err)
{
    err_clear(err);
    if (s != NULL && store_list(s, "commit", any_object, NULL, NULL) == 1)
        return err_set(err, ERR_CORRUPT,
                       "repository '%s' holds points but its object 'format' "
                       "is damaged or missing (%s); put it back from a copy "
                       "of the repository",
                       path, why->msg);
    return err_set(err, ERR_NOT_FOUND,
                   "'%s' is not a Tidemark repository; make one with: "
                   "tidemark init '%s'",
                   path, path);
}

struct feature_walk {
    struct repo *r;
    struct err *err;
};

static int
look_at_feature(void *arg, const char *key, uint64_t len)
{
    struct feature_walk *w = arg;

    (void)len;
    return format_feature(key, w->r->read_only, sizeof w->r->read_only, w->err);
}

int
repo_check_features(struct repo *r, struct err *err)
{
    struct feature_walk w = {r, err};

    return store_list(r->store, "feature", look_at_feature, &w, err);
}

/* Whoever can write to the store could put a format object there that says "not
 * encrypted", and the next backup would store in the clear. */
static int
check_plain(const struct repo *r, const struct repo_open_opts *opts,
            struct err *err)
{
    int slots = store_list(r->store, "key", any_object, NULL, err);

    if (slots < 0)
        return -1;
    if (slots > 0)
        return err_set(err, ERR_CORRUPT,
                       "the format object says that the repository is not "
                       "encrypted, but it has key slots: the format object was "
                       "exchanged; put it back from a copy");
    if (opts->encrypted)
        return err_set(err, ERR_KEY,
                       "a passphrase was given, but the repository is not "
                       "encrypted: give none, or if it should be, its format "
                       "object was exchanged");
    return 0;
}

static int
unlock(struct repo *r, const struct repo_format *f,
       const struct repo_open_opts *opts, struct err *err)
{
    CLEANUP(keyring_closep) struct keyring *k = NULL;

    if (!f->encrypted)
        return check_plain(r, opts, err) < 0
                   ? -1
                   : format_keys(f, NULL, &r->keys, err);
    if (keyring_load(r->store, f, &k, err) < 0 ||
        keyring_unlock(k, opts->unlock, opts->arg, err) < 0)
        return -1;
    return format_keys(f, k->master, &r->keys, err);
}

static int
fill(struct repo *r, const struct repo_format *f,
     const struct repo_open_opts *opts, struct err *err)
{
    memcpy(r->id, f->id, sizeof r->id);
    memcpy(r->read_only, f->read_only, sizeof r->read_only);
    r->chunk_size = f->chunk_size;
    if (unlock(r, f, opts, err) < 0 ||
        frame_ctx_new(&r->keys, 0, &r->page_ctx, err) < 0 ||
        catalog_new(&r->catalog, err) < 0 || repo_check_features(r, err) < 0)
        return -1;
    return index_reload(r, err);
}

static int
open_failed(struct store *st, const char *path, const struct err *why,
            struct err *err)
{
    if (why->code == ERR_NOT_FOUND || why->code == ERR_FORMAT)
        return no_repository(st, path, why, err);
    (void)err_copy(err, why);
    return err_wrap(err, "open repository '%s'", path);
}

static int
open_store(struct store *st, const struct repo_format *f,
           const struct repo_open_opts *opts, struct repo **ret,
           struct err *err)
{
    CLEANUP(repo_closep) struct repo *r = guarded_alloc(sizeof *r);

    if (r == NULL) {
        store_close(st);
        return err_set_errno(err, ENOMEM, "repository");
    }
    (void)pthread_rwlock_init(&r->index_lock, NULL);
    (void)pthread_mutex_init(&r->page_lock, NULL);
    r->store = st;
    if (fill(r, f, opts, err) < 0)
        return err_wrap(err, "open repository '%s'", store_path(st));
    *ret = TAKE_PTR(r);
    return 0;
}

int
repo_open_store(struct store *st, struct repo **ret, struct err *err)
{
    static const struct repo_open_opts opts;
    struct err why = ERR_INIT;
    struct repo_format f;

    if (read_format(st, &f, &why) < 0) {
        (void)open_failed(st, store_path(st), &why, err);
        store_close(st);
        return -1;
    }
    return open_store(st, &f, &opts, ret, err);
}

int
repo_open_format(const char *path, const struct file_ops *ops,
                 struct store **ret, struct repo_format *ret_format,
                 struct err *err)
{
    CLEANUP(store_closep) struct store *st = NULL;
    struct err why = ERR_INIT;

    /* Missing directory, empty mount point, somebody's files: all the same. */
    if (store_dir_open(path, ops, &st, &why) < 0)
        return open_failed(NULL, path, &why, err);
    if (read_format(st, ret_format, &why) < 0)
        return open_failed(st, path, &why, err);
    *ret = TAKE_PTR(st);
    return 0;
}

int
repo_open_with(const char *path, const struct repo_open_opts *opts,
               struct repo **ret, struct err *err)
{
    struct repo_format f;
    struct store *st;

    if (repo_open_format(path, opts->ops, &st, &f, err) < 0)
        return -1;
    return open_store(st, &f, opts, ret, err);
}

int
repo_open(const char *path, const struct file_ops *ops, struct repo **ret,
          struct err *err)
{
    const struct repo_open_opts opts = {.ops = ops};

    return repo_open_with(path, &opts, ret, err);
}

void
repo_close(struct repo *r)
{
    if (r == NULL)
        return;
    catalog_free(r->catalog, r->store);
    frame_ctx_free(r->page_ctx);
    store_close(r->store);
    (void)pthread_rwlock_destroy(&r->index_lock);
    (void)pthread_mutex_destroy(&r->page_lock);
    guarded_free(r);
}

const char *
repo_id(const struct repo *r)
{
    return r->id;
}

uint32_t
repo_chunk_size(const struct repo *r)
{
    return r->chunk_size;
}

const char *
repo_path(const struct repo *r)
{
    return store_path(r->store);
}

int
repo_free_space(const struct repo *r, uint64_t *ret, struct err *err)
{
    return store_free_space(r->store, ret, err);
}

int
repo_may_write(const struct repo *r, struct err *err)
{
    if (r->read_only[0] == '\0')
        return 0;
    return err_set(err, ERR_UNSUPPORTED,
                   "the repository uses the feature '%s', with which this "
                   "program may only read it; use a newer tidemark",
                   r->read_only);
}

bool
repo_encrypted(const struct repo *r)
{
    return r->keys.sealed;
}

const struct commit_keys *
repo_key_commit(const struct repo *r)
{
    return &r->keys.commit;
}
