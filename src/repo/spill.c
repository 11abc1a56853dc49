/* Index segments of the running session: written when memory is full, asked like
 * those of others, merged so that a long first backup does not ask hundreds of
 * them about each new chunk.
 *
 * Merging is done by the put that filled the memory; the others wait.  With
 * SPILL_MERGE_AT runs to a level, a record is merged once per level.
 */
#include "session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "hash.h"
#include "index_merge.h"
#include "log.h"
#include "store.h"
#include "table.h"

static int
pack_range(const struct index_record *recs, uint32_t n, uint32_t *ret_min,
           uint32_t *ret_max)
{
    *ret_min = UINT32_MAX;
    *ret_max = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (recs[i].pack < *ret_min)
            *ret_min = recs[i].pack;
        if (recs[i].pack > *ret_max)
            *ret_max = recs[i].pack;
    }
    return n > 0;
}

/* The table as a segment: its records now have numbers of the segment's own
 * pack table, so it must be cleared next. */
static int
build_segment(struct repo_session *s, const struct segment_name *name,
              struct buf *ret, struct err *err)
{
    uint32_t n, min, max;
    struct index_record *recs = record_table_all(s->table, &n);
    CLEANUP_FREE struct pack_name *packs = NULL;

    if (!pack_range(recs, n, &min, &max))
        return 0;
    packs = calloc(max - min + 1, sizeof *packs);
    if (packs == NULL)
        return err_set_errno(err, ENOMEM, "index segment");
    for (uint32_t seq = min; seq <= max; seq++) {
        struct pack_name *p = &packs[seq - min];

        memcpy(p->sid, s->sid, sizeof p->sid);
        p->class = s->classes[seq - 1];
        p->seq = seq;
    }
    for (uint32_t i = 0; i < n; i++)
        recs[i].pack -= min;
    return segment_build(name, packs, max - min + 1, recs, n, ret, err);
}

/* Map what was just written, and see that it is that. */
static int
open_written(struct repo_session *s, const char *key, const uint8_t *bytes,
             size_t len, struct spilled *sp, struct err *err)
{
    if (hash_sha256(bytes, len, sp->sha, err) < 0 ||
        store_map(s->repo->store, key, &sp->map, &sp->map_len, err) < 0)
        return -1;
    if (sp->map_len != len || memcmp(sp->map, bytes, len) != 0)
        (void)err_set(err, ERR_CORRUPT,
                      "index segment '%s' does not read back as written; "
                      "check the storage of '%s'",
                      key, repo_path(s->repo));
    else if (segment_open(sp->map, sp->map_len, &sp->seg, err) == 0)
        return 0;
    store_unmap(s->repo->store, sp->map, sp->map_len);
    return -1;
}

static int
write_segment(struct repo_session *s, const struct segment_name *name,
              unsigned level, const uint8_t *bytes, size_t len, struct err *err)
{
    struct spilled sp = {.level = level};
    struct spilled *v =
        realloc(s->spilled, ((size_t)s->n_spilled + 1) * sizeof *v);
    char key[REPO_KEY_MAX];

    if (v == NULL)
        return err_set_errno(err, ENOMEM, "index segments");
    s->spilled = v;
    segment_key(name, key);
    if (store_put(s->repo->store, key, bytes, len, err) < 0 ||
        open_written(s, key, bytes, len, &sp, err) < 0)
        return -1;
    v[s->n_spilled++] = sp;
    s->index_bytes += len;
    return 0;
}

/* -- merging ----------------------------------------------------------------*/

struct merging {
    struct repo_session *s;
    unsigned level; /* of the outputs */
};

static int
write_merged(void *arg, const struct segment_name *name, const uint8_t *bytes,
             size_t len, struct err *err)
{
    struct merging *m = arg;

    return write_segment(m->s, name, m->level, bytes, len, err);
}

/* Entries first .. first+n-1, whose records are in others now, durably. */
static void
drop_segments(struct repo_session *s, uint32_t first, uint32_t n)
{
    for (uint32_t i = first; i < first + n; i++) {
        struct spilled *sp = &s->spilled[i];
        struct segment_name name = {.k = sp->seg.k};
        struct err err = ERR_INIT;
        char key[REPO_KEY_MAX];

        memcpy(name.sid, s->sid, sizeof name.sid);
        segment_key(&name, key);
        store_unmap(s->repo->store, sp->map, sp->map_len);
        s->index_bytes -= sp->map_len;
        /* One that stays is no part of the point: a collector removes it. */
        if (store_delete(s->repo->store, key, &err) < 0)
            log_debug("session: leftover '%s': %s", key, err.msg);
    }
    memmove(&s->spilled[first], &s->spilled[first + n],
            (s->n_spilled - first - n) * sizeof *s->spilled);
    s->n_spilled -= n;
}

/* All segments of `level` become one run of the next.  They are the last ones:
 * higher levels were made before. */
static int
merge_level(struct repo_session *s, unsigned level, struct err *err)
{
    struct merging m = {.s = s, .level = level + 1};
    struct merge_opts opts = {.last_k = &s->last_k,
                              .records_max = s->merge_max,
                              .emit = write_merged,
                              .arg = &m};
    CLEANUP_FREE struct segment *in = NULL;
    uint32_t first = s->n_spilled, n;

    while (first > 0 && s->spilled[first - 1].level == level)
        first--;
    n = s->n_spilled - first;
    in = calloc((size_t)n + 1, sizeof *in);
    if (in == NULL)
        return err_set_errno(err, ENOMEM, "%u index segments", n);
    for (uint32_t i = 0; i < n; i++)
        in[i] = s->spilled[first + i].seg;
    memcpy(opts.sid, s->sid, sizeof opts.sid);
    if (index_merge(in, n, &opts, err) < 0)
        return err_wrap(err, "merge %u index segments", n);
    drop_segments(s, first, n);
    s->n_runs[level] = 0;
    s->n_runs[level + 1]++;
    return 0;
}

int
session_spill_locked(struct repo_session *s, struct err *err)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    struct segment_name name = {.k = ++s->last_k};

    memcpy(name.sid, s->sid, sizeof name.sid);
    if (build_segment(s, &name, &b, err) < 0)
        return -1;
    record_table_clear(s->table);
    if (write_segment(s, &name, 0, b.data, b.len, err) < 0)
        return -1;
    buf_done(&b);
    s->n_runs[0]++;
    for (unsigned l = 0; l + 1 < SPILL_LEVELS; l++)
        if (s->n_runs[l] >= SPILL_MERGE_AT && merge_level(s, l, err) < 0)
            return -1;
    return 0;
}

/* -- looking up -------------------------------------------------------------*/

int
session_find_locked(struct repo_session *s, const struct chunk_id *id,
                    struct index_record *ret, enum pack_class *ret_class,
                    struct err *err)
{
    const struct index_record *r = record_table_find(s->table, id);

    if (r != NULL) {
        *ret = *r;
        *ret_class = s->classes[r->pack - 1];
        return 1;
    }
    for (uint32_t i = s->n_spilled; i-- > 0;) {
        const struct segment *seg = &s->spilled[i].seg;
        struct pack_name name;
        uint32_t no;
        int found = segment_find(seg, id, &no, err);

        if (found < 0 || (found > 0 && segment_record(seg, no, ret, err) < 0))
            return -1;
        if (found == 0)
            continue;
        segment_pack(seg, ret->pack, &name);
        ret->pack = name.seq;
        *ret_class = name.class;
        return 1;
    }
    return 0;
}
