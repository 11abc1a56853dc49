/* Index segments that are lost, made again from packs. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "hash.h"
#include "index.h"
#include "jv.h"
#include "rand.h"
#include "repair.h"
#include "salvage.h"
#include "store.h"

#define BATCH_RECORDS (4u << 20) /* of one segment, 40 bytes each in memory */

/* -- which ------------------------------------------------------------------*/

static bool
is_gone(const struct repair *p, const char *key)
{
    bool gone;

    (void)pthread_rwlock_rdlock(&p->repo->index_lock);
    gone = names_has(&p->repo->catalog->gone_index, key);
    (void)pthread_rwlock_unlock(&p->repo->index_lock);
    return gone;
}

static bool
is_listed(const struct repair *p, const char *key)
{
    const struct lost_segment *l = (const void *)p->lost.data;

    for (size_t i = 0; i < p->lost.len / sizeof *l; i++)
        if (strcmp(l[i].key, key) == 0)
            return true;
    return false;
}

static int
find_in_commit(void *arg, const char *commit, const struct jv *payload,
               struct err *err)
{
    const struct jv *index = jv_get(payload, "index");
    struct repair *p = arg;

    for (size_t i = 0; i < jv_size(index); i++) {
        const char *key = jv_get_str(jv_at(index, i), "key");
        struct lost_segment l = {.collector = jv_get(payload, "gone") != NULL};
        struct err why = ERR_INIT;

        if (key == NULL || strlen(key) >= sizeof l.key || is_gone(p, key) ||
            is_listed(p, key) ||
            segment_part_check(p->repo, key, jv_at(index, i), &why) == 0)
            continue;
        (void)strcpy(l.key, key);
        (void)strcpy(l.commit, commit);
        if (buf_append(&p->lost, &l, sizeof l, err) < 0 ||
            repair_say(p, err, "make '%s' again from packs (%s)", key,
                       why.msg) < 0)
            return -1;
    }
    return 0;
}

int
repair_find_segments(struct repair *p, struct err *err)
{
    return repair_commits(p, find_in_commit, p, err);
}

/* -- making -----------------------------------------------------------------*/

struct making {
    struct repair *p;
    struct pack_set *seen;  /* packs whose records are written */
    struct pack_set *named; /* packs that some segment has */
    struct buf packs;       /* struct pack_name */
    struct buf records;     /* struct index_record */
    bool all;
};

static int
put_segment(struct making *m, const struct buf *b, uint32_t k, uint32_t n,
            struct err *err)
{
    struct repo_session *s = m->p->session;
    struct segment_name name = {.k = k};
    char key[REPO_KEY_MAX], hex[2 * HASH_LEN + 1];
    uint8_t sha[HASH_LEN];

    memcpy(name.sid, s->sid, sizeof name.sid);
    segment_key(&name, key);
    if (hash_sha256(b->data, b->len, sha, err) < 0 ||
        store_put(s->repo->store, key, b->data, b->len, err) < 0)
        return -1;
    hex_encode(sha, sizeof sha, hex);
    if (jv_add(m->p->segments, jv_build("{s:s, s:I, s:s, s:I}", "key", key,
                                        "len", (int64_t)b->len, "sha256", hex,
                                        "records", (int64_t)n)) < 0)
        return err_set_errno(err, ENOMEM, "list of segments");
    return 0;
}

/* Write what is collected as one segment. */
static int
flush(struct making *m, struct err *err)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    uint32_t n = (uint32_t)(m->records.len / sizeof(struct index_record));
    struct repo_session *s = m->p->session;
    struct segment_name name = {.k = 0};
    int rc = 0;

    if (n > 0)
        m->p->rep.segments_rebuilt++;
    m->p->rep.records += n;
    if (n > 0 && s != NULL) {
        memcpy(name.sid, s->sid, sizeof name.sid);
        name.k = ++s->last_k; /* so that it is removed with the session */
        rc = segment_build(&name, (const void *)m->packs.data,
                           (uint32_t)(m->packs.len / sizeof(struct pack_name)),
                           (void *)m->records.data, n, &b, err);
        if (rc == 0)
            rc = put_segment(m, &b, name.k, n, err);
    }
    m->packs.len = m->records.len = 0;
    return rc;
}

static int
add_records(struct making *m, const struct pack_name *name,
            const struct buf *entries, struct err *err)
{
    const struct pack_entry *e = (const void *)entries->data;
    uint32_t no = (uint32_t)(m->packs.len / sizeof *name);

    if (buf_append(&m->packs, name, sizeof *name, err) < 0)
        return -1;
    for (size_t i = 0; i < entries->len / sizeof *e; i++) {
        struct index_record rec = {.pack = no,
                                   .offset = e[i].offset,
                                   .frame_len = e[i].frame_len,
                                   .raw_len = e[i].raw_len,
                                   .kind = e[i].kind};

        memcpy(rec.prefix, e[i].id.b, sizeof rec.prefix);
        if (buf_append(&m->records, &rec, sizeof rec, err) < 0)
            return -1;
    }
    return m->records.len / sizeof(struct index_record) >= BATCH_RECORDS
               ? flush(m, err)
               : 0;
}

/* It is lost, or the disk is bad there.  Everything else may pass, and the segment
 * that is given up for the new one may still have what this pack holds. */
static bool
may_leave_out(const struct err *why)
{
    return why->code == ERR_NOT_FOUND || why->sys == EIO;
}

static int
take_pack(void *arg, const struct pack_name *name, const struct jv *part,
          struct err *err)
{
    CLEANUP(buf_done) struct buf entries = BUF_INIT;
    struct making *m = arg;
    struct err why = ERR_INIT;
    char key[REPO_KEY_MAX];

    (void)part;
    if (repair_canceled(m->p, err) < 0)
        return -1;
    if (pack_set_has(m->seen, name))
        return 0;
    if (pack_set_add(m->seen, name, err) < 0)
        return -1;
    pack_key(name, key);
    if (salvage_entries(m->p->repo, name, &entries, &why) == 0)
        return add_records(m, name, &entries, err);
    if (!may_leave_out(&why))
        return err_copy(err, &why);
    return repair_say(m->p, err, "leave '%s' out of the index: %s", key,
                      why.msg);
}

/* A pack that was missing when its segment was made again, and is back. */
static int
take_if_unnamed(void *arg, const struct pack_name *name, const struct jv *part,
                struct err *err)
{
    struct making *m = arg;
    char key[REPO_KEY_MAX];
    uint64_t len = 0;
    int rc;

    if (pack_set_has(m->named, name) || pack_set_has(m->seen, name))
        return 0;
    pack_key(name, key);
    rc = store_size(m->p->repo->store, key, &len, err);
    if (rc <= 0 || len <= PACK_HEAD_LEN + PACK_FOOT_LEN)
        return rc < 0 ? -1 : 0;
    if (repair_say(m->p, err, "take '%s' into the index: no segment has it",
                   key) < 0)
        return -1;
    return take_pack(m, name, part, err);
}

/* A commit object that is newer than the index we know has segments of its own. */
static bool
is_known(const struct repair *p, const char *commit)
{
    bool known;

    (void)pthread_rwlock_rdlock(&p->repo->index_lock);
    known = names_has(&p->repo->catalog->seen, commit);
    (void)pthread_rwlock_unlock(&p->repo->index_lock);
    return known;
}

static int
note_named(struct making *m, struct err *err)
{
    const struct catalog *c = m->p->repo->catalog;
    int rc = 0;

    (void)pthread_rwlock_rdlock(&m->p->repo->index_lock);
    for (size_t i = 0; rc == 0 && i < c->n; i++)
        for (uint32_t k = 0; rc == 0 && k < c->v[i].seg.n_packs; k++) {
            struct pack_name name;

            segment_pack(&c->v[i].seg, k, &name);
            rc = pack_set_add(m->named, &name, err);
        }
    (void)pthread_rwlock_unlock(&m->p->repo->index_lock);
    return rc;
}

static bool
wanted(const struct making *m, const char *commit)
{
    const struct lost_segment *l = (const void *)m->p->lost.data;

    for (size_t i = 0; i < m->p->lost.len / sizeof *l; i++)
        if (m->all || strcmp(l[i].commit, commit) == 0)
            return true;
    return false;
}

static int
take_commit(void *arg, const char *commit, const struct jv *payload,
            struct err *err)
{
    struct making *m = arg;

    if (wanted(m, commit))
        return repair_parts(m->p, payload, take_pack, m, err);
    return is_known(m->p, commit)
               ? repair_parts(m->p, payload, take_if_unnamed, m, err)
               : 0;
}

int
repair_segments(struct repair *p, struct err *err)
{
    const struct lost_segment *l = (const void *)p->lost.data;
    struct making m = {.p = p, .seen = pack_set_new(), .named = pack_set_new()};
    int rc;

    for (size_t i = 0; i < p->lost.len / sizeof *l; i++)
        m.all |= l[i].collector;
    rc = m.seen != NULL && m.named != NULL
             ? note_named(&m, err)
             : err_set_errno(err, ENOMEM, "set of packs");
    if (rc == 0)
        rc = repair_commits(p, take_commit, &m, err);
    if (rc == 0)
        rc = flush(&m, err);
    pack_set_free(m.seen);
    pack_set_free(m.named);
    buf_done(&m.packs);
    buf_done(&m.records);
    return rc;
}
