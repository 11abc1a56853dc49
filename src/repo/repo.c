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
#include "internal.h"
#include "rand.h"
#include "session.h"
#include "store.h"

DEFINE_CLEANUP(struct store *, store_close)
DEFINE_CLEANUP(struct repo *, repo_close)

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

struct seen {
    const char *key;
    bool found;
};

static int
is_it_listed(void *arg, const char *key, uint64_t len)
{
    struct seen *s = arg;

    (void)len;
    s->found |= strcmp(key, s->key) == 0;
    return 0;
}

static int
unfit(const struct store *st, const char *what, struct err *err)
{
    return err_set(err, ERR_UNSUPPORTED,
                   "the file system of '%s' cannot hold a repository: %s; "
                   "use another one",
                   store_path(st), what);
}

static int
test_object(struct store *st, const char *key, struct err *err)
{
    static const char text[] = "tidemark tests what this file system can do\n";
    char back[sizeof text] = "";
    struct seen seen = {key, false};
    struct err second = ERR_INIT;

    if (store_put(st, key, text, sizeof text, err) < 0)
        return -1;
    if (store_put(st, key, text, sizeof text, &second) == 0)
        return unfit(st, "it lets a file be created twice", err);
    if (second.code != ERR_EXISTS)
        return err_copy(err, &second);
    if (store_get(st, key, 0, sizeof text, back, err) < 0)
        return -1;
    if (memcmp(back, text, sizeof text) != 0)
        return unfit(st, "it does not give back what was written", err);
    if (store_list(st, "session", is_it_listed, &seen, err) < 0)
        return -1;
    if (!seen.found)
        return unfit(st, "it does not list what was written", err);
    return 0;
}

/* The promises that everything else rests on, tried before they are needed. */
static int
self_test(struct store *st, struct err *err)
{
    char key[REPO_KEY_MAX], sid[REPO_SID_TEXT];
    uint8_t random[REPO_SID_LEN];
    int r;

    rand_bytes(random, sizeof random);
    hex_encode(random, sizeof random, sid);
    (void)snprintf(key, sizeof key, "session/test-%s", sid);
    r = test_object(st, key, err);
    if (store_delete(st, key, r < 0 ? NULL : err) < 0)
        return -1;
    return r;
}

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

int
repo_init(const char *path, uint32_t chunk_size, const struct file_ops *ops,
          struct err *err)
{
    CLEANUP(store_closep) struct store *st = NULL;
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    struct repo_format f = {.chunk_size = chunk_size};
    struct err why = ERR_INIT;
    uint8_t id[16];

    if (chunk_size < REPO_CHUNK_MIN || chunk_size > REPO_CHUNK_MAX ||
        (chunk_size & (chunk_size - 1)) != 0)
        return err_set(err, ERR_USAGE,
                       "chunk size %u is not a power of two from %u to %u",
                       chunk_size, REPO_CHUNK_MIN, REPO_CHUNK_MAX);
    rand_bytes(id, sizeof id);
    hex_encode(id, sizeof id, f.id);
    rand_bytes(f.secret, sizeof f.secret);
    if (store_dir_create(path, ops, &why) < 0)
        return why.code == ERR_EXISTS && has_format(path, ops)
                   ? err_set(err, ERR_EXISTS,
                             "'%s' is a Tidemark repository already; use it "
                             "as it is, or choose another directory",
                             path)
                   : not_made(path, &why, err);
    if (store_dir_open(path, ops, &st, err) < 0 || self_test(st, err) < 0 ||
        format_encode(&f, &b, err) < 0 ||
        store_put(st, FORMAT_KEY, b.data, b.len, err) < 0)
        return err_wrap(err, "make repository '%s'", path);
    return 0;
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

static int
fill(struct repo *r, const struct repo_format *f, struct err *err)
{
    memcpy(r->id, f->id, sizeof r->id);
    memcpy(r->read_only, f->read_only, sizeof r->read_only);
    r->chunk_size = f->chunk_size;
    if (format_keys(f, &r->keys, err) < 0 ||
        frame_ctx_new(&r->keys, 0, &r->page_ctx, err) < 0 ||
        catalog_new(&r->catalog, err) < 0 || repo_check_features(r, err) < 0)
        return -1;
    return index_reload(r, err);
}

int
repo_open(const char *path, const struct file_ops *ops, struct repo **ret,
          struct err *err)
{
    CLEANUP(repo_closep) struct repo *r = calloc(1, sizeof *r);
    struct repo_format f;
    struct err why = ERR_INIT;

    if (r == NULL)
        return err_set_errno(err, ENOMEM, "repository '%s'", path);
    (void)pthread_rwlock_init(&r->index_lock, NULL);
    (void)pthread_mutex_init(&r->page_lock, NULL);
    /* Missing directory, empty mount point, somebody's files: all the same. */
    if (store_dir_open(path, ops, &r->store, &why) < 0 ||
        read_format(r->store, &f, &why) < 0) {
        if (why.code == ERR_NOT_FOUND || why.code == ERR_FORMAT)
            return no_repository(r->store, path, &why, err);
        (void)err_copy(err, &why);
        return err_wrap(err, "open repository '%s'", path);
    }
    if (fill(r, &f, err) < 0)
        return err_wrap(err, "open repository '%s'", path);
    *ret = TAKE_PTR(r);
    return 0;
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
    free(r);
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

const uint8_t *
repo_key_commit(const struct repo *r)
{
    return r->keys.commit;
}
