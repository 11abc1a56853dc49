/* Where a chunk is: the quick table first, then the segments it does not hold.
 */
#include "catalog.h"

#include <string.h>

#include "quick.h"
#include "store.h"

static const struct loaded *segment_of_pack(const struct catalog *c,
                                            uint32_t pack);

/* Bytes of the pack, 0 when it is not there or cannot be looked at.  Asked once
 * per pack; of two threads the first one's answer counts for both. */
static uint64_t
pack_length(const struct repo *r, uint32_t pack)
{
    _Atomic uint64_t *noted = &r->catalog->pack_len[pack];
    uint64_t n = atomic_load(noted), len = 0;
    const struct loaded *s;
    char key[REPO_KEY_MAX];
    struct pack_name name;

    if (n != 0)
        return n - 1;
    s = segment_of_pack(r->catalog, pack);
    segment_pack(&s->seg, pack - s->pack_base, &name);
    pack_key(&name, key);
    if (store_size(r->store, key, &len, NULL) != 1)
        len = 0;
    if (!atomic_compare_exchange_strong(noted, &n, len + 1))
        len = n - 1;
    return len;
}

/* What a writer reuses, and a reader reads, must be there.  A pack ends with a
 * footer, so one that was cut behind the frame is not whole, either. */
static bool
is_there(const struct repo *r, const struct locator *l)
{
    return (uint64_t)l->offset + l->frame_len + PACK_FOOT_LEN <=
           pack_length(r, l->pack);
}

static int
locate(const struct loaded *l, uint32_t no, struct locator *ret,
       struct err *err)
{
    struct index_record rec;

    if (segment_record(&l->seg, no, &rec, err) < 0)
        return -1;
    *ret = (struct locator){
        .pack = l->pack_base + rec.pack,
        .offset = rec.offset,
        .frame_len = rec.frame_len,
        .raw_len = rec.raw_len,
        .kind = rec.kind,
        .record = l->record_base + no,
    };
    return 0;
}

static int
find_in(const struct loaded *l, const struct chunk_id *id, struct locator *ret,
        struct err *err)
{
    uint32_t no;
    int found = segment_find(&l->seg, id, &no, err);

    if (found <= 0)
        return found;
    return locate(l, no, ret, err) < 0 ? -1 : 1;
}

/* Search what the quick table does not hold, newest first; with `all` also what
 * it holds, because its answer (in *ret) was a pack that is gone. */
static int
find_slowly(const struct repo *r, const struct chunk_id *id, bool all,
            struct locator *ret, struct err *err)
{
    const struct catalog *c = r->catalog;
    struct err first = ERR_INIT;
    struct locator l;
    bool gone = all;

    for (size_t i = c->n; i-- > 0;) {
        struct segment_name name = {.k = c->v[i].seg.k};
        char key[REPO_KEY_MAX];
        int found = 0;

        if (all || !c->v[i].quick)
            found = find_in(&c->v[i], id, &l, &first);
        if (found > 0 && (!gone || is_there(r, &l)))
            *ret = l;
        if (found > 0 && is_there(r, &l))
            return 1;
        gone |= found > 0;
        if (found >= 0)
            continue;
        memcpy(name.sid, c->v[i].seg.sid, sizeof name.sid);
        segment_key(&name, key);
        (void)err_copy(err, &first);
        (void)err_wrap(err, "index segment '%s'", key);
        err = NULL; /* another segment may still have it */
    }
    if (gone)
        ret->absent = true;
    return gone ? 1 : first.code != ERR_NONE ? -1 : 0;
}

static int
find_locked(const struct repo *r, const struct chunk_id *id,
            struct locator *ret, struct err *err)
{
    const struct catalog *c = r->catalog;
    uint32_t segment, no;
    bool gone = false;

    /* Entered records were checked, so values out of bounds cannot be. */
    if (quick_find(c->quick, id, &segment, &no) &&
        locate(&c->v[segment], no, ret, NULL) == 0) {
        if (is_there(r, ret))
            return 1;
        gone = true;
    }
    return find_slowly(r, id, gone, ret, err);
}

static int
enter_new_locked(struct catalog *c, struct err *err)
{
    for (; c->n_quick < c->n; c->n_quick++) {
        struct loaded *l = &c->v[c->n_quick];
        int entered = quick_add(c->quick, (uint32_t)c->n_quick, &l->seg, err);

        if (entered < 0)
            return -1;
        l->quick = entered > 0;
    }
    return 0;
}

/* Not done when a repository is opened: listing points needs no look-up. */
static int
enter_new(struct repo *r, struct err *err)
{
    int result;

    (void)pthread_rwlock_wrlock(&r->index_lock);
    result = enter_new_locked(r->catalog, err);
    (void)pthread_rwlock_unlock(&r->index_lock);
    return result;
}

int
index_find(struct repo *r, const struct chunk_id *id, struct locator *ret,
           struct err *err)
{
    struct err why = ERR_INIT;
    int found = 0;
    bool ready;

    for (int turn = 0; turn < 2; turn++) {
        (void)pthread_rwlock_rdlock(&r->index_lock);
        /* Once is enough: what a reload adds meanwhile is found slowly. */
        ready = turn > 0 || r->catalog->n_quick == r->catalog->n;
        if (ready)
            found = find_locked(r, id, ret, &why);
        (void)pthread_rwlock_unlock(&r->index_lock);
        if (ready)
            break;
        if (enter_new(r, err) < 0)
            return -1;
    }
    return found < 0 ? err_copy(err, &why) : found;
}

static const struct loaded *
segment_of_pack(const struct catalog *c, uint32_t pack)
{
    size_t lo = 0, hi = c->n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (c->v[mid].pack_base + c->v[mid].seg.n_packs <= pack)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < c->n ? &c->v[lo] : NULL;
}

int
locator_pack_key(struct repo *r, const struct locator *l,
                 char key[REPO_KEY_MAX])
{
    const struct loaded *s;
    struct pack_name name;

    (void)pthread_rwlock_rdlock(&r->index_lock);
    s = segment_of_pack(r->catalog, l->pack);
    if (s != NULL) {
        segment_pack(&s->seg, l->pack - s->pack_base, &name);
        pack_key(&name, key);
    }
    (void)pthread_rwlock_unlock(&r->index_lock);
    return s != NULL ? 0 : -1;
}

int
locator_compare(const struct locator *a, const struct locator *b)
{
    if (a->pack != b->pack)
        return a->pack < b->pack ? -1 : 1;
    return (a->offset > b->offset) - (a->offset < b->offset);
}

uint64_t
index_n_records(struct repo *r)
{
    uint64_t n;

    (void)pthread_rwlock_rdlock(&r->index_lock);
    n = r->catalog->n_records;
    (void)pthread_rwlock_unlock(&r->index_lock);
    return n;
}

uint32_t
index_n_packs(struct repo *r)
{
    uint32_t n;

    (void)pthread_rwlock_rdlock(&r->index_lock);
    n = r->catalog->n_packs;
    (void)pthread_rwlock_unlock(&r->index_lock);
    return n;
}
