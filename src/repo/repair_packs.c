/* Packs that are damaged: what is good in them is copied, as a collector does, so
 * that nothing needs them any more. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "jv.h"
#include "repair.h"
#include "salvage.h"
#include "store.h"

/* -- which ------------------------------------------------------------------*/

static int
check_len(void *arg, const struct pack_name *name, const struct jv *part,
          struct err *err)
{
    struct repair *p = arg;
    char key[REPO_KEY_MAX];
    uint64_t want, len = 0;
    int rc;

    pack_key(name, key);
    if (!jv_get_uint(part, "len", &want))
        return 0;
    rc = store_size(p->repo->store, key, &len, err);
    if (rc <= 0 || len == want)
        return rc < 0 ? -1 : 0; /* of a missing one nothing can be saved */
    return pack_set_add(p->damaged, name, err);
}

static int
check_commit(void *arg, const char *commit, const struct jv *payload,
             struct err *err)
{
    (void)commit;
    return repair_parts(arg, payload, check_len, arg, err);
}

/* One that a verification has named, if it is there and counts. */
static int
add_named(struct repair *p, const struct pack_name *name, struct err *err)
{
    char key[REPO_KEY_MAX];
    uint64_t len;
    int rc;

    if (pack_set_has(p->gone, name))
        return 0;
    pack_key(name, key);
    rc = store_size(p->repo->store, key, &len, err);
    return rc <= 0 ? rc : pack_set_add(p->damaged, name, err);
}

int
repair_find_packs(struct repair *p, struct err *err)
{
    const struct catalog *c = p->repo->catalog;
    int rc = 0;

    (void)pthread_rwlock_rdlock(&p->repo->index_lock);
    for (size_t i = 0; rc == 0 && i < pack_set_n(c->bad); i++)
        rc = add_named(p, pack_set_at(c->bad, i), err);
    for (size_t i = 0; rc == 0 && i < c->n_bad_frames; i++)
        rc = add_named(p, &c->bad_frames[i].pack, err);
    (void)pthread_rwlock_unlock(&p->repo->index_lock);
    return rc < 0 ? -1 : repair_commits(p, check_commit, p, err);
}

/* -- copying ----------------------------------------------------------------*/

struct copying {
    struct repair *p;
    uint64_t good, copied; /* of this pack */
};

/* 1 another pack has it that is in order, 0, -1. */
static int
is_elsewhere(struct repair *p, const struct chunk_id *id, struct err *err)
{
    struct locator l[INDEX_COPIES_MAX];
    struct pack_name name;
    char key[REPO_KEY_MAX];
    size_t n = 0;

    if (index_find_all(p->repo, id, l, INDEX_COPIES_MAX, &n, NULL) < 0)
        return 0; /* the index is damaged there: a copy more does no harm */
    for (size_t i = 0; i < n; i++)
        if (!l[i].absent && !l[i].bad && !l[i].condemned &&
            locator_pack_key(p->repo, &l[i], key) == 0 &&
            pack_name_parse(key, &name) && !pack_set_has(p->damaged, &name))
            return 1;
    (void)err;
    return 0;
}

static int
add_copy(struct repo_session *s, const struct frame_head *h,
         const uint8_t *frame, size_t len, struct err *err)
{
    struct index_record rec;
    enum pack_class class;
    int found;

    (void)pthread_mutex_lock(&s->lock);
    found = session_find_locked(s, &h->id, &rec, &class, err);
    if (found == 0)
        found = session_add_locked(s, h, frame, len, err) < 0 ? -1 : 2;
    (void)pthread_mutex_unlock(&s->lock);
    return found;
}

static int
copy_frame(void *arg, const struct frame_head *h, const uint8_t *frame,
           size_t len, uint32_t offset, struct err *err)
{
    struct copying *c = arg;
    int rc;

    (void)offset;
    c->good++;
    rc = is_elsewhere(c->p, &h->id, err);
    if (rc != 0)
        return rc < 0 ? -1 : 0;
    rc =
        c->p->session != NULL ? add_copy(c->p->session, h, frame, len, err) : 2;
    if (rc == 2) {
        c->copied++;
        c->p->rep.frames_copied++;
        c->p->rep.bytes_copied += len;
    }
    return rc < 0 ? -1 : 0;
}

static int
one_pack(struct repair *p, const struct pack_name *name, struct err *err)
{
    struct copying c = {.p = p};
    struct err why = ERR_INIT;
    char key[REPO_KEY_MAX];
    const uint8_t *data;
    size_t len;
    int rc;

    pack_key(name, key);
    if (store_map(p->repo->store, key, &data, &len, &why) < 0)
        return repair_say(p, err, "leave '%s' alone: %s", key, why.msg);
    rc = salvage_scan(p->ctx, data, len, copy_frame, &c, err);
    store_unmap(p->repo->store, data, len);
    p->rep.packs_damaged++;
    if (rc < 0)
        return -1;
    return c.copied == 0
               ? 0
               : repair_say(p, err,
                            "copy %" PRIu64 " of %" PRIu64 " good frames out "
                            "of '%s'; the others have good copies",
                            c.copied, c.good, key);
}

int
repair_packs(struct repair *p, struct err *err)
{
    const size_t n = pack_set_n(p->damaged);

    for (size_t i = 0; i < n; i++) {
        if (repair_canceled(p, err) < 0 ||
            one_pack(p, pack_set_at(p->damaged, i), err) < 0)
            return -1;
        if (p->opts.progress != NULL)
            p->opts.progress(p->opts.arg, i + 1, n);
    }
    return 0;
}
