/* Where a chunk is: the quick table first, then the segments it does not hold.
 */
#include "catalog.h"

#include <string.h>

#include "mutant.h"
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
locate(const struct repo *r, const struct loaded *l, uint32_t no,
       struct locator *ret, struct err *err)
{
    const uint8_t *flags = r->catalog->pack_flags;
    struct index_record rec;
    struct pack_name name;
    uint8_t f;

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
    f = flags[ret->pack];
    ret->absent = (f & PACK_IS_GONE) != 0 || !is_there(r, ret);
    ret->condemned = (f & PACK_IS_CONDEMNED) != 0;
    ret->bad = (f & PACK_IS_BAD) != 0;
    if ((f & PACK_HAS_BAD_FRAMES) != 0) {
        segment_pack(&l->seg, rec.pack, &name);
        ret->bad |= notes_frame_bad(r->catalog, &name, rec.offset);
    }
    return 0;
}

static unsigned
rank(const struct locator *l)
{
    return l->absent ? 3 : l->bad ? 2 : l->condemned ? 1 : 0;
}

/* Records of one id, the best first. */
struct copies {
    struct locator *v;
    size_t max, n;
};

static void
copies_add(struct copies *c, const struct locator *l)
{
    size_t i = c->n;

    for (size_t k = 0; k < c->n; k++)
        if (c->v[k].record == l->record)
            return;
    while (i > 0 && rank(&c->v[i - 1]) > rank(l))
        i--;
    if (i == c->max)
        return;
    if (c->n < c->max)
        c->n++;
    memmove(&c->v[i + 1], &c->v[i], (c->n - i - 1) * sizeof *l);
    c->v[i] = *l;
}

static bool
found_good(const struct copies *c)
{
    return c->n > 0 && rank(&c->v[0]) == 0;
}

/* Every record of `id` in one segment: they follow each other. */
static int
find_in(const struct repo *r, const struct loaded *l, const struct chunk_id *id,
        struct copies *c, struct err *err)
{
    struct index_record rec;
    struct locator at;
    uint32_t no;
    int found = segment_find(&l->seg, id, &no, err);

    /* No sum guards the fan-out any more when it cannot be read again. */
    if (found <= 0 && l->map != NULL &&
        store_check_map(r->store, l->map, err) < 0)
        return -1;
    if (found <= 0)
        return found;
    for (; no < l->seg.n_records; no++) {
        if (segment_record(&l->seg, no, &rec, err) < 0)
            return -1;
        if (memcmp(rec.prefix, id->b, sizeof rec.prefix) != 0)
            break;
        if (locate(r, l, no, &at, err) < 0)
            return -1;
        copies_add(c, &at);
    }
    return 0;
}

static void
name_segment(const struct loaded *l, struct err *err)
{
    struct segment_name name = {.k = l->seg.k};
    char key[REPO_KEY_MAX];

    memcpy(name.sid, l->seg.sid, sizeof name.sid);
    segment_key(&name, key);
    (void)err_wrap(err, "index segment '%s'", key);
}

/* Search the segments, newest first: those that the quick table does not hold,
 * or all of them.  Ends early at a good record unless `every`. */
static int
find_slowly(const struct repo *r, const struct chunk_id *id, bool all,
            bool every, struct copies *c, struct err *err)
{
    const struct catalog *cat = r->catalog;
    struct err first = ERR_INIT;

    for (size_t i = cat->n; i-- > 0 && (every || !found_good(c));) {
        if (!all && cat->v[i].quick)
            continue;
        if (find_in(r, &cat->v[i], id, c, &first) < 0)
            name_segment(&cat->v[i], &first);
    }
    /* Another segment may have it; only else does the damage matter. */
    return c->n == 0 && first.code != ERR_NONE ? err_copy(err, &first) : 0;
}

static int
find_locked(const struct repo *r, const struct chunk_id *id, bool every,
            struct copies *c, struct err *err)
{
    const struct catalog *cat = r->catalog;
    struct locator l;
    uint32_t segment, no;
    bool known = quick_find(cat->quick, id, &segment, &no);

    /* Entered records were checked, so values out of bounds cannot be. */
    if (known && locate(r, &cat->v[segment], no, &l, NULL) == 0)
        copies_add(c, &l);
    if (!every && found_good(c))
        return 0;
    return find_slowly(r, id, known || every, every, c, err);
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

static int
find(struct repo *r, const struct chunk_id *id, bool every, struct copies *c,
     struct err *err)
{
    struct err why = ERR_INIT;
    int result = 0;
    bool ready;

    for (int turn = 0; turn < 2; turn++) {
        (void)pthread_rwlock_rdlock(&r->index_lock);
        /* Once is enough: what a reload adds meanwhile is found slowly. */
        ready = turn > 0 || r->catalog->n_quick == r->catalog->n;
        if (ready)
            result = find_locked(r, id, every, c, &why);
        (void)pthread_rwlock_unlock(&r->index_lock);
        if (ready)
            break;
        if (enter_new(r, err) < 0)
            return -1;
    }
    return result < 0 ? err_copy(err, &why) : 0;
}

int
index_find(struct repo *r, const struct chunk_id *id, struct locator *ret,
           struct err *err)
{
    struct copies c = {ret, 1, 0};

    if (find(r, id, false, &c, err) < 0)
        return -1;
    return c.n > 0 ? 1 : 0;
}

int
index_find_reusable(struct repo *r, const struct chunk_id *id,
                    struct locator *ret, struct err *err)
{
    struct copies c = {ret, 1, 0};

    if (r->catalog->condemned_unknown)
        return 0;
    if (find(r, id, false, &c, err) < 0)
        return -1;
    if (MUTANT(MUTANT_PUT_CONDEMNED))
        return c.n > 0 && rank(&c.v[0]) <= 1 ? 1 : 0;
    return found_good(&c) ? 1 : 0;
}

int
index_find_all(struct repo *r, const struct chunk_id *id, struct locator *ret,
               size_t max, size_t *ret_n, struct err *err)
{
    struct copies c = {ret, max, 0};

    if (find(r, id, true, &c, err) < 0)
        return -1;
    *ret_n = c.n;
    return 0;
}

void
index_look_again(struct repo *r)
{
    if (MUTANT(MUTANT_PUT_OLD_LOOKS))
        return;
    (void)pthread_rwlock_wrlock(&r->index_lock);
    for (uint32_t i = 0; i < r->catalog->n_packs; i++)
        atomic_store(&r->catalog->pack_len[i], 0);
    (void)pthread_rwlock_unlock(&r->index_lock);
}

void
index_pack_lost(struct repo *r, uint32_t pack)
{
    (void)pthread_rwlock_rdlock(&r->index_lock);
    atomic_store(&r->catalog->pack_len[pack], 1);
    (void)pthread_rwlock_unlock(&r->index_lock);
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

bool
index_pack_missing(struct repo *r)
{
    bool missing = false;

    (void)pthread_rwlock_rdlock(&r->index_lock);
    for (uint32_t i = 0; !missing && i < r->catalog->n_packs; i++)
        missing = (r->catalog->pack_flags[i] & PACK_IS_GONE) == 0 &&
                  pack_length(r, i) == 0;
    (void)pthread_rwlock_unlock(&r->index_lock);
    return missing;
}
