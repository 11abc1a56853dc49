/* Making an index segment again, in memory, from the tables at the ends of
 * packs: slower to open, but all points stay readable. */
#include "catalog.h"

#include <stdio.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "err.h"
#include "index.h"
#include "internal.h"
#include "jv.h"
#include "points.h"
#include "store.h"

struct rebuild {
    struct buf packs;   /* struct pack_name */
    struct buf records; /* struct index_record */
};

static void
rebuild_done(struct rebuild *b)
{
    buf_done(&b->packs);
    buf_done(&b->records);
}

static int
add_pack_entries(struct rebuild *b, const struct pack_view *v, struct err *err)
{
    uint32_t no = (uint32_t)(b->packs.len / sizeof v->name);

    for (uint32_t i = 0; i < v->n_entries; i++) {
        struct pack_entry e;
        struct index_record rec = {.pack = no};

        pack_entry_at(v, i, &e);
        memcpy(rec.prefix, e.id.b, sizeof rec.prefix);
        rec.offset = e.offset;
        rec.frame_len = e.frame_len;
        rec.raw_len = e.raw_len;
        rec.kind = e.kind;
        if (buf_append(&b->records, &rec, sizeof rec, err) < 0)
            return -1;
    }
    return buf_append(&b->packs, &v->name, sizeof v->name, err);
}

static int
rebuild_pack(struct repo *r, const char *key, struct rebuild *b,
             struct err *err)
{
    char own[REPO_KEY_MAX];
    struct pack_view v;
    const uint8_t *map;
    size_t len;
    int result = -1;

    if (store_map(r->store, key, &map, &len, err) < 0)
        return -1;
    if (pack_parse(map, len, &v, err) == 0) {
        pack_key(&v.name, own);
        if (strcmp(own, key) != 0)
            (void)err_set(err, ERR_CORRUPT, "this is '%s' under a wrong name",
                          own);
        else
            result = add_pack_entries(b, &v, err);
    }
    if (store_check_map(r->store, map, err) < 0)
        result = -1;
    store_unmap(r->store, map, len);
    return result;
}

static int
rebuild_key(struct repo *r, const struct jv *part, struct rebuild *b,
            struct err *err)
{
    const char *key = jv_get_str(part, "key");
    struct err why = ERR_INIT;
    struct pack_name name;

    if (key == NULL || !pack_name_parse(key, &name) ||
        pack_set_has(r->catalog->gone, &name))
        return 0;
    if (rebuild_pack(r, key, b, &why) < 0)
        return catalog_problem(r->catalog, key, &why, err);
    return 0;
}

/* One record with packs that did not fit into the commit object. */
static int
rebuild_list(struct repo *r, const char *key, struct rebuild *b,
             struct err *err)
{
    CLEANUP_JV struct jv *payload = NULL;
    struct err why = ERR_INIT;
    const struct jv *list;

    if (key == NULL)
        return 0;
    if (record_read(r, key, COMMIT_PACKS, &payload, &why) < 0)
        return catalog_problem(r->catalog, key, &why, err);
    list = jv_get(payload, "packs");
    for (size_t i = 0; i < jv_size(list); i++)
        if (rebuild_key(r, jv_at(list, i), b, err) < 0)
            return -1;
    return 0;
}

static int
collect_entries(struct repo *r, const struct jv *payload, struct rebuild *b,
                struct err *err)
{
    const struct jv *list = jv_get(payload, "packs");
    const struct jv *more = jv_get(payload, "pack_lists");

    for (size_t i = 0; i < jv_size(list); i++)
        if (rebuild_key(r, jv_at(list, i), b, err) < 0)
            return -1;
    for (size_t i = 0; i < jv_size(more); i++)
        if (rebuild_list(r, jv_get_str(jv_at(more, i), "key"), b, err) < 0)
            return -1;
    if (b->packs.len / sizeof(struct pack_name) > SEGMENT_PACKS_MAX ||
        b->records.len / sizeof(struct index_record) > SEGMENT_RECORDS_MAX)
        return err_set(err, ERR_UNSUPPORTED, "too many packs for one segment");
    return 0;
}

/* Once a collector has merged segments, a lost one can hold records of any pack
 * that counts. */
static int
collect_all(struct repo *r, struct rebuild *b, struct err *err)
{
    const struct catalog *c = r->catalog;

    for (size_t i = 0; i < c->seen.n; i++) {
        CLEANUP_JV struct jv *payload = NULL;
        const char *key = c->seen.v[i].key;
        char sid[REPO_SID_TEXT];
        enum commit_type type;

        (void)snprintf(sid, sizeof sid, "%.32s", strchr(key, '/') + 1);
        if (strncmp(key, "commit/", 7) != 0 || id_list_has(&c->removed, sid) ||
            commit_read(r, key, &type, &payload, NULL, NULL) < 0 ||
            type != COMMIT_COMMIT)
            continue;
        if (collect_entries(r, payload, b, err) < 0)
            return -1;
    }
    return 0;
}

int
rebuild_segment(struct repo *r, const struct jv *payload, bool all,
                struct err *err)
{
    CLEANUP(rebuild_done) struct rebuild b = {BUF_INIT, BUF_INIT};
    struct segment_name name = {.k = 0};
    struct loaded l = {.own = BUF_INIT};

    if ((all ? collect_all(r, &b, err)
             : collect_entries(r, payload, &b, err)) == 0 &&
        segment_build(&name, (const struct pack_name *)(void *)b.packs.data,
                      (uint32_t)(b.packs.len / sizeof(struct pack_name)),
                      (struct index_record *)(void *)b.records.data,
                      (uint32_t)(b.records.len / sizeof(struct index_record)),
                      &l.own, err) == 0 &&
        segment_open(l.own.data, l.own.len, &l.seg, err) == 0 &&
        catalog_add(r->catalog, &l, err) == 0)
        return 0;
    buf_done(&l.own);
    return err_wrap(err, "make an index again from packs");
}
