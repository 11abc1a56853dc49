/* What a collection with nobody else there must not leave behind: files that no
 * commit object names, and records of what is over. */
#include <ftw.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "driver.h"
#include "err.h"
#include "internal.h"
#include "jv.h"
#include "store.h"

DEFINE_CLEANUP(struct repo *, repo_close)

struct census {
    struct repo *r;
    struct jv *known; /* key: true, of what commit objects name */
    unsigned n_left;
    struct err err;
};

static void
know(struct census *c, const struct jv *list)
{
    for (size_t i = 0; i < jv_size(list); i++) {
        const char *key = jv_get_str(jv_at(list, i), "key");

        if (key != NULL && jv_set(c->known, key, jv_bool(true)) < 0)
            abort();
    }
}

static int
read_commit(void *arg, const char *key, uint64_t len)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    CLEANUP_JV struct jv *payload = NULL;
    struct census *c = arg;
    enum commit_type type;

    (void)len;
    if (commit_load(c->r, key, &b, &c->err) < 0 ||
        commit_decode(repo_key_commit(c->r), b.data, b.len, &type, &payload,
                      &c->err) < 0)
        return -1;
    if (type != COMMIT_COMMIT)
        return 0;
    know(c, jv_get(payload, "packs"));
    know(c, jv_get(payload, "index"));
    know(c, jv_get(payload, "pack_lists"));
    return 0;
}

static int
leftover(void *arg, const char *key, uint64_t len)
{
    struct census *c = arg;

    (void)len;
    /* The store's self-test, killed in its middle: some bytes that are no
     * session and that another one's self-test may need right now. */
    if (strncmp(key, "session/test-", 13) == 0)
        return 0;
    if (jv_get(c->known, key) != NULL)
        return 0;
    c->n_left++;
    say("left over %s", key);
    return 0;
}

static int
take_census(struct census *c, struct err *err)
{
    static const char *const kinds[] = {"session", "beat", "gc",    "forget",
                                        "data",    "meta", "index", "packs"};
    struct store *st = c->r->store;

    if (store_list(st, "commit", read_commit, c, &c->err) != 0)
        return err_copy(err, &c->err);
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (store_list(st, kinds[i], leftover, c, err) != 0)
            return -1;
    return 0;
}

static unsigned n_files_left;

/* What the store itself does not show. */
static int
look(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    if (strncmp(path + ftw->base, ".tmp-", 5) != 0)
        return 0;
    n_files_left++;
    say("left over %s", path);
    return 0;
}

int
driver_leftovers(const struct driver_opts *o)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    struct census c = {.known = jv_object()};
    struct err err = ERR_INIT;
    int rc;

    if (c.known == NULL || repo_open(o->repo, o->ops, &r, &err) < 0)
        return driver_error(&err);
    c.r = r;
    rc = take_census(&c, &err);
    jv_free(c.known);
    if (rc < 0)
        return driver_error(&err);
    if (nftw(o->repo, look, 16, FTW_PHYS) != 0)
        return DRIVER_FAILED;
    return c.n_left + n_files_left > 0 ? DRIVER_DAMAGE : DRIVER_OK;
}
