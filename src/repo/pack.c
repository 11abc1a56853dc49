#include "pack.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "buf.h"
#include "bytes.h"
#include "cleanup.h"
#include "err.h"
#include "frame.h"
#include "hash.h"
#include "rand.h"

#define PACK_VERSION 1

static const uint8_t head_magic[8] = {'T', 'M', 'P', 'A', 'C', 'K', 0, 0};
static const uint8_t foot_magic[8] = {'T', 'M', 'P', 'A', 'C', 'K', 'E', 0};

/* Offsets (docs/format.md, "Packs"). */
enum {
    HEAD_VERSION = 8,
    HEAD_CLASS = 12,
    HEAD_SID = 16,
    HEAD_SEQ = 32,
    HEAD_RESERVED = 36,
    HEAD_SUM = 56,

    ENTRY_OFFSET = 32,
    ENTRY_FRAME_LEN = 36,
    ENTRY_RAW_LEN = 40,
    ENTRY_KIND = 44,

    FOOT_VERSION = 8,
    FOOT_N_ENTRIES = 12,
    FOOT_TABLE_OFF = 16,
    FOOT_TABLE_SHA = 24,
    FOOT_SUM = 56,
};

struct pack {
    struct pack_name name;
    uint64_t handed;  /* bytes that were handed over */
    struct buf bytes; /* that follow them */
    struct buf table; /* entries in the order of the frames */
};

DEFINE_CLEANUP(struct pack *, pack_free)

void
pack_key(const struct pack_name *n, char key[REPO_KEY_MAX])
{
    char sid[REPO_SID_TEXT];

    hex_encode(n->sid, sizeof n->sid, sid);
    (void)snprintf(key, REPO_KEY_MAX, "%s/%s/%08x",
                   n->class == PACK_DATA ? "data" : "meta", sid, n->seq);
}

/* -- building ---------------------------------------------------------------*/

int
pack_new(const struct pack_name *name, struct pack **ret, struct err *err)
{
    CLEANUP(pack_freep) struct pack *p = calloc(1, sizeof *p);
    uint8_t head[PACK_HEAD_LEN] = {0};

    if (p == NULL)
        return err_set_errno(err, ENOMEM, "pack");
    p->name = *name;
    memcpy(head, head_magic, sizeof head_magic);
    put_le32(head + HEAD_VERSION, PACK_VERSION);
    put_le32(head + HEAD_CLASS, name->class);
    memcpy(head + HEAD_SID, name->sid, sizeof name->sid);
    put_le32(head + HEAD_SEQ, name->seq);
    put_le64(head + HEAD_SUM, XXH64(head, HEAD_SUM, 0));
    if (buf_append(&p->bytes, head, sizeof head, err) < 0)
        return -1;
    *ret = TAKE_PTR(p);
    return 0;
}

void
pack_free(struct pack *p)
{
    if (p == NULL)
        return;
    buf_done(&p->bytes);
    buf_done(&p->table);
    free(p);
}

void
pack_hand_over(struct pack *p, struct buf *mem, uint64_t *ret_off)
{
    struct buf fresh = *mem;

    *ret_off = p->handed;
    p->handed += p->bytes.len;
    *mem = p->bytes;
    p->bytes = fresh;
    p->bytes.len = 0;
}

int
pack_add(struct pack *p, const struct frame_head *head, const uint8_t *frame,
         size_t len, uint32_t *ret_off, struct err *err)
{
    uint8_t e[PACK_ENTRY_LEN];
    size_t off = pack_len(p);

    if (off + len + p->table.len + PACK_ENTRY_LEN + PACK_FOOT_LEN >
        PACK_LEN_MAX)
        return err_set(err, ERR_USAGE, "a pack of more than %u bytes",
                       PACK_LEN_MAX);
    memcpy(e, head->id.b, sizeof head->id.b);
    put_le32(e + ENTRY_OFFSET, (uint32_t)off);
    put_le32(e + ENTRY_FRAME_LEN, (uint32_t)len);
    put_le32(e + ENTRY_RAW_LEN, head->raw_len);
    put_le32(e + ENTRY_KIND, head->kind);
    if (buf_append(&p->bytes, frame, len, err) < 0 ||
        buf_append(&p->table, e, sizeof e, err) < 0)
        return -1;
    *ret_off = (uint32_t)off;
    return 0;
}

static int
compare_entries(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct chunk_id));
}

int
pack_finish(struct pack *p, struct err *err)
{
    uint8_t foot[PACK_FOOT_LEN] = {0};
    uint64_t table_off = pack_len(p);
    uint32_t n = pack_n_frames(p);

    if (n > 0)
        qsort(p->table.data, n, PACK_ENTRY_LEN, compare_entries);
    memcpy(foot, foot_magic, sizeof foot_magic);
    put_le32(foot + FOOT_VERSION, PACK_VERSION);
    put_le32(foot + FOOT_N_ENTRIES, n);
    put_le64(foot + FOOT_TABLE_OFF, table_off);
    if (hash_sha256(p->table.data, p->table.len, foot + FOOT_TABLE_SHA, err) <
        0)
        return -1;
    put_le64(foot + FOOT_SUM, XXH64(foot, FOOT_SUM, 0));
    if (buf_append(&p->bytes, p->table.data, p->table.len, err) < 0)
        return -1;
    return buf_append(&p->bytes, foot, sizeof foot, err);
}

const struct pack_name *
pack_name(const struct pack *p)
{
    return &p->name;
}

const uint8_t *
pack_bytes(const struct pack *p)
{
    return p->bytes.data;
}

size_t
pack_held(const struct pack *p)
{
    return p->bytes.len;
}

size_t
pack_len(const struct pack *p)
{
    return p->handed + p->bytes.len;
}

uint32_t
pack_n_frames(const struct pack *p)
{
    return (uint32_t)(p->table.len / PACK_ENTRY_LEN);
}

/* -- reading ----------------------------------------------------------------*/

static int
parse_head(const uint8_t *p, struct pack_name *ret, struct err *err)
{
    uint32_t class = get_le32(p + HEAD_CLASS);

    if (memcmp(p, head_magic, sizeof head_magic) != 0)
        return err_set(err, ERR_CORRUPT, "this is no pack");
    if (get_le64(p + HEAD_SUM) != XXH64(p, HEAD_SUM, 0))
        return err_set(err, ERR_CORRUPT, "pack header fails its checksum");
    if (get_le32(p + HEAD_VERSION) != PACK_VERSION)
        return err_set(err, ERR_UNSUPPORTED,
                       "pack version %u is not known; use a newer tidemark",
                       get_le32(p + HEAD_VERSION));
    if (class != PACK_DATA && class != PACK_META)
        return err_set(err, ERR_UNSUPPORTED,
                       "pack class %u is not known; use a newer tidemark",
                       class);
    memcpy(ret->sid, p + HEAD_SID, sizeof ret->sid);
    ret->class = class;
    ret->seq = get_le32(p + HEAD_SEQ);
    return 0;
}

static int
parse_foot(const uint8_t *p, size_t len, struct pack_view *v, struct err *err)
{
    const uint8_t *foot = p + len - PACK_FOOT_LEN;
    uint64_t table_len;

    if (memcmp(foot, foot_magic, sizeof foot_magic) != 0)
        return err_set(err, ERR_CORRUPT, "pack has no footer at its end");
    if (get_le64(foot + FOOT_SUM) != XXH64(foot, FOOT_SUM, 0))
        return err_set(err, ERR_CORRUPT, "pack footer fails its checksum");
    if (get_le32(foot + FOOT_VERSION) != PACK_VERSION)
        return err_set(err, ERR_UNSUPPORTED,
                       "pack version %u is not known; use a newer tidemark",
                       get_le32(foot + FOOT_VERSION));
    v->n_entries = get_le32(foot + FOOT_N_ENTRIES);
    v->table_off = get_le64(foot + FOOT_TABLE_OFF);
    table_len = (uint64_t)v->n_entries * PACK_ENTRY_LEN;
    if (v->table_off < PACK_HEAD_LEN || v->table_off > len ||
        len - PACK_FOOT_LEN < table_len ||
        len - PACK_FOOT_LEN - table_len != v->table_off)
        return err_set(err, ERR_CORRUPT,
                       "pack of %zu bytes has no room for a table of %u "
                       "entries at %llu",
                       len, v->n_entries, (unsigned long long)v->table_off);
    v->table = p + v->table_off;
    return 0;
}

static int
check_entry(const struct pack_view *v, uint32_t i, struct err *err)
{
    struct pack_entry e;

    pack_entry_at(v, i, &e);
    if (e.kind < FRAME_DATA || e.kind > FRAME_BLOB ||
        (e.kind == FRAME_DATA) != (v->name.class == PACK_DATA) ||
        e.raw_len == 0 || e.raw_len > FRAME_RAW_MAX)
        return err_set(err, ERR_CORRUPT,
                       "entry %u of the pack's table has kind %u and %u "
                       "plaintext bytes",
                       i, (unsigned)e.kind, e.raw_len);
    if (e.offset < PACK_HEAD_LEN || e.frame_len <= FRAME_HEAD_LEN ||
        (uint64_t)e.offset + e.frame_len > v->table_off)
        return err_set(err, ERR_CORRUPT,
                       "entry %u of the pack's table names %u bytes at %u, "
                       "outside of its frames",
                       i, e.frame_len, e.offset);
    return 0;
}

static int
check_table(const struct pack_view *v, struct err *err)
{
    for (uint32_t i = 0; i < v->n_entries; i++) {
        const uint8_t *e = v->table + (size_t)i * PACK_ENTRY_LEN;

        if (i > 0 && compare_entries(e - PACK_ENTRY_LEN, e) > 0)
            return err_set(err, ERR_CORRUPT,
                           "entry %u of the pack's table is not in order", i);
        if (check_entry(v, i, err) < 0)
            return -1;
    }
    return 0;
}

int
pack_parse(const uint8_t *bytes, size_t len, struct pack_view *ret,
           struct err *err)
{
    struct pack_view v = {0};
    uint8_t sha[HASH_LEN];

    if (len < PACK_HEAD_LEN + PACK_FOOT_LEN || len > PACK_LEN_MAX)
        return err_set(err, ERR_CORRUPT,
                       "a pack cannot have %zu bytes, allowed are %u to %u",
                       len, PACK_HEAD_LEN + PACK_FOOT_LEN, PACK_LEN_MAX);
    if (parse_head(bytes, &v.name, err) < 0 ||
        parse_foot(bytes, len, &v, err) < 0 ||
        hash_sha256(v.table, (size_t)v.n_entries * PACK_ENTRY_LEN, sha, err) <
            0)
        return -1;
    if (!hash_equal(sha, bytes + len - PACK_FOOT_LEN + FOOT_TABLE_SHA))
        return err_set(err, ERR_CORRUPT, "pack table fails its SHA-256");
    if (check_table(&v, err) < 0)
        return -1;
    *ret = v;
    return 0;
}

void
pack_entry_at(const struct pack_view *v, uint32_t i, struct pack_entry *ret)
{
    const uint8_t *e = v->table + (size_t)i * PACK_ENTRY_LEN;

    memcpy(ret->id.b, e, sizeof ret->id.b);
    ret->offset = get_le32(e + ENTRY_OFFSET);
    ret->frame_len = get_le32(e + ENTRY_FRAME_LEN);
    ret->raw_len = get_le32(e + ENTRY_RAW_LEN);
    ret->kind = get_le32(e + ENTRY_KIND);
}
