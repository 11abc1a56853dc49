/* repo/index.h - index segments: where the frames of one session are.
 *
 * A segment is a sorted array of fixed records behind a small fan-out table,
 * made to be mapped and searched in place: opening one costs the tables, a
 * look-up one or two pages.  Blocks of records carry their own checksums, so
 * that a damaged segment is noticed by the look-up that would be misled, and
 * not by reading 512 MiB per TiB at each start.  Bytes: docs/format.md,
 * "Index segments".
 *
 * Everything here is pure: bytes in, answers out.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "internal.h"
#include "pack.h"

#define SEGMENT_HEAD_LEN 64
#define SEGMENT_PACK_LEN 32
#define SEGMENT_RECORD_LEN 32
#define SEGMENT_BLOCK 128 /* records under one checksum */
#define SEGMENT_SHA_LEN 32
#define SEGMENT_PREFIX 16 /* bytes of an id in a record */
#define SEGMENT_RECORDS_MAX (1u << 28)
#define SEGMENT_PACKS_MAX (1u << 24)

struct index_record {
    uint8_t prefix[SEGMENT_PREFIX];
    uint32_t pack; /* number in the segment's pack table */
    uint32_t offset, frame_len, raw_len;
    enum frame_kind kind;
};

/* An opened segment; its bytes are borrowed. */
struct segment {
    const uint8_t *bytes;
    size_t len;
    uint8_t sid[REPO_SID_LEN];
    uint32_t k;
    uint32_t n_packs, n_records;
    unsigned fan_bits; /* 8 or 16 */
    const uint8_t *packs, *fan, *sums, *records;
};

struct segment_name {
    uint8_t sid[REPO_SID_LEN];
    uint32_t k;
};

/* "index/<sid>-<k>" */
void segment_key(const struct segment_name *n, char key[REPO_KEY_MAX]);

/* Make a segment.  `records` are sorted in place. */
int segment_build(const struct segment_name *name,
                  const struct pack_name *packs, uint32_t n_packs,
                  struct index_record *records, uint32_t n_records,
                  struct buf *ret, struct err *err);

/* The same in steps, for who merges sorted records: the packs are put behind
 * SEGMENT_HEAD_LEN bytes, the records, in order, behind segment_tables_len()
 * bytes, and SEGMENT_SHA_LEN bytes follow; _seal() fills in the rest. */
uint64_t segment_tables_len(uint32_t n_packs, uint32_t n_records);
void segment_put_pack(uint8_t *p, const struct pack_name *n);
void segment_put_record(uint8_t *p, const struct index_record *r);
int segment_seal(const struct segment_name *name, uint8_t *bytes,
                 uint32_t n_packs, uint32_t n_records, struct err *err);

/* Check header and tables, not the records. */
int segment_open(const uint8_t *bytes, size_t len, struct segment *ret,
                 struct err *err);

/* 1 and the number of its first record (others follow, all of them checked), 0
 * not there, -1 damaged where it would be. */
int segment_find(const struct segment *s, const struct chunk_id *id,
                 uint32_t *ret_no, struct err *err);

/* Record `no`, with its values checked against the limits. */
int segment_record(const struct segment *s, uint32_t no,
                   struct index_record *ret, struct err *err);
void segment_pack(const struct segment *s, uint32_t no, struct pack_name *ret);

/* One block, or all, against their checksums. */
int segment_check_block(const struct segment *s, uint32_t block,
                        struct err *err);
int segment_check_records(const struct segment *s, struct err *err);

/* Everything: the SHA-256 at the end, order, every record. */
int segment_check(const struct segment *s, struct err *err);
