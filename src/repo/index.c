#include "index.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "buf.h"
#include "bytes.h"
#include "err.h"
#include "frame.h"
#include "hash.h"
#include "rand.h"

#define SEGMENT_VERSION 1
#define FAN_LARGE 65536u /* records from which 16 bits are used */

static const uint8_t magic[8] = {'T', 'M', 'I', 'N', 'D', 'E', 'X', 0};

/* Offsets (docs/format.md, "Index segments"). */
enum {
    HEAD_VERSION = 8,
    HEAD_FAN_BITS = 12,
    HEAD_SID = 16,
    HEAD_K = 32,
    HEAD_N_PACKS = 36,
    HEAD_N_RECORDS = 40,
    HEAD_RESERVED = 44,
    HEAD_TABLES_SUM = 48,
    HEAD_SUM = 56,

    PACK_SID = 0,
    PACK_CLASS = 16,
    PACK_SEQ = 20,

    RECORD_PACK = 16,
    RECORD_OFFSET = 20,
    RECORD_FRAME_LEN = 24,
    RECORD_KIND_RAW = 28, /* kind in the upper 4 bits */
};
#define RAW_LEN_MASK 0x0fffffffu

void
segment_key(const struct segment_name *n, char key[REPO_KEY_MAX])
{
    char sid[REPO_SID_TEXT];

    hex_encode(n->sid, sizeof n->sid, sid);
    (void)snprintf(key, REPO_KEY_MAX, "index/%s-%u", sid, n->k);
}

/* -- layout -----------------------------------------------------------------*/

static uint32_t
n_blocks(uint32_t n_records)
{
    return n_records / SEGMENT_BLOCK + (n_records % SEGMENT_BLOCK != 0);
}

/* Where the parts begin; the whole length is returned. */
static uint64_t
lay_out(struct segment *s)
{
    uint64_t packs = SEGMENT_HEAD_LEN;
    uint64_t fan = packs + (uint64_t)s->n_packs * SEGMENT_PACK_LEN;
    uint64_t sums = fan + (4ull << s->fan_bits);
    uint64_t records = sums + (uint64_t)n_blocks(s->n_records) * 8;
    uint64_t sha = records + (uint64_t)s->n_records * SEGMENT_RECORD_LEN;

    s->packs = s->bytes + packs;
    s->fan = s->bytes + fan;
    s->sums = s->bytes + sums;
    s->records = s->bytes + records;
    return sha + SEGMENT_SHA_LEN;
}

static uint32_t
fan_slot(const struct segment *s, const uint8_t *prefix)
{
    return s->fan_bits == 8 ? prefix[0]
                            : (uint32_t)(prefix[0] << 8 | prefix[1]);
}

static uint64_t
block_sum(const struct segment *s, uint32_t block)
{
    uint32_t first = block * SEGMENT_BLOCK;
    uint32_t n = s->n_records - first;

    if (n > SEGMENT_BLOCK)
        n = SEGMENT_BLOCK;
    return XXH64(s->records + (size_t)first * SEGMENT_RECORD_LEN,
                 (size_t)n * SEGMENT_RECORD_LEN, 0);
}

/* -- building ---------------------------------------------------------------*/

static int
compare_records(const void *a, const void *b)
{
    const struct index_record *x = a, *y = b;
    int r = memcmp(x->prefix, y->prefix, sizeof x->prefix);

    if (r != 0)
        return r;
    if (x->pack != y->pack)
        return x->pack < y->pack ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

void
segment_put_pack(uint8_t *p, const struct pack_name *n)
{
    memset(p, 0, SEGMENT_PACK_LEN);
    memcpy(p + PACK_SID, n->sid, sizeof n->sid);
    put_le32(p + PACK_CLASS, n->class);
    put_le32(p + PACK_SEQ, n->seq);
}

void
segment_put_record(uint8_t *p, const struct index_record *r)
{
    memcpy(p, r->prefix, sizeof r->prefix);
    put_le32(p + RECORD_PACK, r->pack);
    put_le32(p + RECORD_OFFSET, r->offset);
    put_le32(p + RECORD_FRAME_LEN, r->frame_len);
    put_le32(p + RECORD_KIND_RAW, (uint32_t)r->kind << 28 | r->raw_len);
}

static unsigned
fan_bits(uint32_t n_records)
{
    return n_records < FAN_LARGE ? 8 : 16;
}

uint64_t
segment_tables_len(uint32_t n_packs, uint32_t n_records)
{
    return SEGMENT_HEAD_LEN + (uint64_t)n_packs * SEGMENT_PACK_LEN +
           (4ull << fan_bits(n_records)) + (uint64_t)n_blocks(n_records) * 8;
}

static void
put_fan(uint8_t *fan, const struct segment *s)
{
    uint32_t n = 0;

    for (uint32_t slot = 0; slot < 1u << s->fan_bits; slot++) {
        while (n < s->n_records &&
               fan_slot(s, s->records + (size_t)n * SEGMENT_RECORD_LEN) == slot)
            n++;
        put_le32(fan + 4 * (size_t)slot, n);
    }
}

static void
put_head(uint8_t *p, const struct segment *s)
{
    size_t tables = (size_t)(s->records - s->packs);

    memset(p, 0, SEGMENT_HEAD_LEN);
    memcpy(p, magic, sizeof magic);
    put_le32(p + HEAD_VERSION, SEGMENT_VERSION);
    put_le32(p + HEAD_FAN_BITS, s->fan_bits);
    memcpy(p + HEAD_SID, s->sid, sizeof s->sid);
    put_le32(p + HEAD_K, s->k);
    put_le32(p + HEAD_N_PACKS, s->n_packs);
    put_le32(p + HEAD_N_RECORDS, s->n_records);
    put_le64(p + HEAD_TABLES_SUM, XXH64(s->packs, tables, 0));
    put_le64(p + HEAD_SUM, XXH64(p, HEAD_SUM, 0));
}

int
segment_seal(const struct segment_name *name, uint8_t *bytes, uint32_t n_packs,
             uint32_t n_records, struct err *err)
{
    struct segment s = {.bytes = bytes,
                        .k = name->k,
                        .n_packs = n_packs,
                        .n_records = n_records,
                        .fan_bits = fan_bits(n_records)};
    size_t len = (size_t)lay_out(&s) - SEGMENT_SHA_LEN;

    memcpy(s.sid, name->sid, sizeof s.sid);
    put_fan(bytes + (s.fan - bytes), &s);
    for (uint32_t b = 0; b < n_blocks(n_records); b++)
        put_le64(bytes + (s.sums - bytes) + 8 * (size_t)b, block_sum(&s, b));
    put_head(bytes, &s);
    return hash_sha256(bytes, len, bytes + len, err);
}

int
segment_build(const struct segment_name *name, const struct pack_name *packs,
              uint32_t n_packs, struct index_record *records,
              uint32_t n_records, struct buf *ret, struct err *err)
{
    uint64_t tables, len;
    uint8_t *bytes;

    if (n_records > SEGMENT_RECORDS_MAX || n_packs > SEGMENT_PACKS_MAX)
        return err_set(err, ERR_USAGE,
                       "an index segment of %u records in %u packs", n_records,
                       n_packs);
    tables = segment_tables_len(n_packs, n_records);
    len = tables + (uint64_t)n_records * SEGMENT_RECORD_LEN + SEGMENT_SHA_LEN;
    if (buf_reserve(ret, (size_t)len, err) < 0)
        return err_wrap(err, "index segment of %u records", n_records);
    bytes = ret->data + ret->len;
    if (n_records > 0)
        qsort(records, n_records, sizeof *records, compare_records);
    for (uint32_t i = 0; i < n_packs; i++)
        segment_put_pack(
            bytes + SEGMENT_HEAD_LEN + (size_t)i * SEGMENT_PACK_LEN, &packs[i]);
    for (uint32_t i = 0; i < n_records; i++)
        segment_put_record(bytes + tables + (size_t)i * SEGMENT_RECORD_LEN,
                           &records[i]);
    if (segment_seal(name, bytes, n_packs, n_records, err) < 0)
        return -1;
    ret->len += (size_t)len;
    return 0;
}

/* -- opening ----------------------------------------------------------------*/

static int
parse_head(const uint8_t *p, size_t len, struct segment *s, struct err *err)
{
    if (len < SEGMENT_HEAD_LEN + SEGMENT_SHA_LEN)
        return err_set(err, ERR_CORRUPT,
                       "an index segment cannot have %zu bytes", len);
    if (memcmp(p, magic, sizeof magic) != 0)
        return err_set(err, ERR_CORRUPT, "this is no index segment");
    if (get_le64(p + HEAD_SUM) != XXH64(p, HEAD_SUM, 0))
        return err_set(err, ERR_CORRUPT, "index header fails its checksum");
    if (get_le32(p + HEAD_VERSION) != SEGMENT_VERSION)
        return err_set(err, ERR_UNSUPPORTED,
                       "index version %u is not known; use a newer tidemark",
                       get_le32(p + HEAD_VERSION));
    memcpy(s->sid, p + HEAD_SID, sizeof s->sid);
    s->k = get_le32(p + HEAD_K);
    s->n_packs = get_le32(p + HEAD_N_PACKS);
    s->n_records = get_le32(p + HEAD_N_RECORDS);
    s->fan_bits = get_le32(p + HEAD_FAN_BITS);
    if ((s->fan_bits != 8 && s->fan_bits != 16) ||
        s->n_packs > SEGMENT_PACKS_MAX || s->n_records > SEGMENT_RECORDS_MAX)
        return err_set(err, ERR_CORRUPT,
                       "index header claims %u packs, %u records and a "
                       "fan-out of %u bits",
                       s->n_packs, s->n_records, s->fan_bits);
    return 0;
}

static int
check_tables(const struct segment *s, struct err *err)
{
    size_t tables = (size_t)(s->records - s->packs);
    uint32_t n = 0;

    if (get_le64(s->bytes + HEAD_TABLES_SUM) != XXH64(s->packs, tables, 0))
        return err_set(err, ERR_CORRUPT, "index tables fail their checksum");
    for (uint32_t i = 0; i < s->n_packs; i++) {
        uint32_t class =
            get_le32(s->packs + (size_t)i * SEGMENT_PACK_LEN + PACK_CLASS);

        if (class != PACK_DATA && class != PACK_META)
            return err_set(err, ERR_UNSUPPORTED,
                           "pack class %u is not known; use a newer tidemark",
                           class);
    }
    for (uint32_t slot = 0; slot < 1u << s->fan_bits; slot++) {
        uint32_t next = get_le32(s->fan + 4 * (size_t)slot);

        if (next < n || next > s->n_records)
            return err_set(err, ERR_CORRUPT, "index fan-out %u is out of order",
                           slot);
        n = next;
    }
    if (n != s->n_records)
        return err_set(err, ERR_CORRUPT,
                       "index fan-out ends at %u of %u records", n,
                       s->n_records);
    return 0;
}

int
segment_open(const uint8_t *bytes, size_t len, struct segment *ret,
             struct err *err)
{
    struct segment s = {.bytes = bytes, .len = len};
    uint64_t want;

    if (parse_head(bytes, len, &s, err) < 0)
        return -1;
    want = lay_out(&s);
    if (want != len)
        return err_set(err, ERR_CORRUPT,
                       "index segment has %zu bytes, its header says %llu", len,
                       (unsigned long long)want);
    if (check_tables(&s, err) < 0)
        return -1;
    *ret = s;
    return 0;
}

/* -- searching --------------------------------------------------------------*/

static const uint8_t *
prefix_at(const struct segment *s, uint32_t no)
{
    return s->records + (size_t)no * SEGMENT_RECORD_LEN;
}

int
segment_check_block(const struct segment *s, uint32_t block, struct err *err)
{
    if (get_le64(s->sums + 8 * (size_t)block) != block_sum(s, block))
        return err_set(err, ERR_CORRUPT,
                       "block %u of the index segment fails its checksum",
                       block);
    return 0;
}

int
segment_check_records(const struct segment *s, struct err *err)
{
    for (uint32_t b = 0; b < n_blocks(s->n_records); b++)
        if (segment_check_block(s, b, err) < 0)
            return -1;
    return 0;
}

static int
compare_at(const struct segment *s, uint32_t no, const struct chunk_id *id)
{
    return memcmp(prefix_at(s, no), id->b, SEGMENT_PREFIX);
}

/* The first of the records lo .. hi-1 that is not before `id`. */
static uint32_t
search(const struct segment *s, uint32_t lo, uint32_t hi,
       const struct chunk_id *id)
{
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;

        if (compare_at(s, mid, id) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* The same block by block, each checked before it is asked.  Ids are as good as
 * random, so that the right place in the slot can be guessed: mostly one block
 * is read, of the dozens that a slot of a large segment has. */
static int
search_blocks(const struct segment *s, uint32_t lo, uint32_t hi,
              const struct chunk_id *id, uint32_t *ret, struct err *err)
{
    const uint8_t *b = id->b + s->fan_bits / 8;
    uint64_t rest = (uint32_t)b[0] << 24 | b[1] << 16 | b[2] << 8 | b[3];
    uint32_t probe = lo + (uint32_t)((hi - lo) * rest >> 32);

    for (unsigned turn = 0; lo < hi; turn++) {
        uint32_t block = probe / SEGMENT_BLOCK;
        uint32_t first = block * SEGMENT_BLOCK, end = first + SEGMENT_BLOCK;

        first = first < lo ? lo : first;
        end = end > hi ? hi : end;
        if (segment_check_block(s, block, err) < 0)
            return -1;
        if (compare_at(s, first, id) >= 0) {
            hi = first;
            probe = hi - 1;
        } else if (compare_at(s, end - 1, id) < 0) {
            lo = end;
            probe = lo;
        } else {
            lo = hi = search(s, first, end, id);
        }
        if (turn >= 2) /* not random after all */
            probe = lo + (hi - lo) / 2;
    }
    *ret = lo;
    return 0;
}

int
segment_find(const struct segment *s, const struct chunk_id *id,
             uint32_t *ret_no, struct err *err)
{
    uint32_t slot = fan_slot(s, id->b);
    uint32_t lo = slot == 0 ? 0 : get_le32(s->fan + 4 * (size_t)(slot - 1));
    uint32_t hi = get_le32(s->fan + 4 * (size_t)slot);
    uint32_t no;

    /* It was in order when it was opened, but the disk may fail since. */
    if (lo > hi || hi > s->n_records)
        return err_set(err, ERR_CORRUPT, "index fan-out %u is out of order",
                       slot);
    if (search_blocks(s, lo, hi, id, &no, err) < 0)
        return -1;
    if (no == hi || compare_at(s, no, id) != 0)
        return 0;
    *ret_no = no;
    /* The others of this id, too: the caller may read on. */
    for (; no < hi && compare_at(s, no, id) == 0; no++)
        if (no % SEGMENT_BLOCK == 0 &&
            segment_check_block(s, no / SEGMENT_BLOCK, err) < 0)
            return -1;
    return 1;
}

int
segment_record(const struct segment *s, uint32_t no, struct index_record *ret,
               struct err *err)
{
    const uint8_t *p = prefix_at(s, no);
    uint32_t kind_raw = get_le32(p + RECORD_KIND_RAW);
    struct index_record r;

    memcpy(r.prefix, p, sizeof r.prefix);
    r.pack = get_le32(p + RECORD_PACK);
    r.offset = get_le32(p + RECORD_OFFSET);
    r.frame_len = get_le32(p + RECORD_FRAME_LEN);
    r.raw_len = kind_raw & RAW_LEN_MASK;
    r.kind = kind_raw >> 28;
    if (r.pack >= s->n_packs || r.kind < FRAME_DATA || r.kind > FRAME_BLOB ||
        r.raw_len == 0 || r.raw_len > FRAME_RAW_MAX ||
        r.offset < PACK_HEAD_LEN || r.frame_len <= FRAME_HEAD_LEN ||
        r.frame_len > FRAME_HEAD_LEN + r.raw_len + FRAME_TAG_LEN)
        return err_set(err, ERR_CORRUPT,
                       "record %u of the index segment is out of bounds: pack "
                       "%u, offset %u, frame of %u bytes, kind %u, %u "
                       "plaintext bytes",
                       no, r.pack, r.offset, r.frame_len, (unsigned)r.kind,
                       r.raw_len);
    *ret = r;
    return 0;
}

void
segment_pack(const struct segment *s, uint32_t no, struct pack_name *ret)
{
    const uint8_t *p = s->packs + (size_t)no * SEGMENT_PACK_LEN;

    memcpy(ret->sid, p + PACK_SID, sizeof ret->sid);
    ret->class = get_le32(p + PACK_CLASS);
    ret->seq = get_le32(p + PACK_SEQ);
}

int
segment_check(const struct segment *s, struct err *err)
{
    uint8_t sha[HASH_LEN];
    struct index_record r;

    if (hash_sha256(s->bytes, s->len - SEGMENT_SHA_LEN, sha, err) < 0)
        return -1;
    if (!hash_equal(sha, s->bytes + s->len - SEGMENT_SHA_LEN))
        return err_set(err, ERR_CORRUPT, "index segment fails its SHA-256");
    if (segment_check_records(s, err) < 0)
        return -1;
    for (uint32_t i = 0; i < s->n_records; i++) {
        if (segment_record(s, i, &r, err) < 0)
            return -1;
        if (i > 0 && memcmp(prefix_at(s, i - 1), r.prefix, sizeof r.prefix) > 0)
            return err_set(err, ERR_CORRUPT,
                           "record %u of the index segment is not in order", i);
    }
    return 0;
}
