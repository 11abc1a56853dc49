/* repo/internal.h - what the files of this folder share.  Not for other
 * folders; they use repo.h.
 *
 * Lock order: session lock, then index lock, then page lock.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "repo.h"

struct buf;
struct catalog; /* catalog.c: the segments of committed sessions */
struct err;
struct frame_ctx;
struct jv;
struct store;

#define REPO_SID_LEN 16  /* bytes of a session id */
#define REPO_SID_TEXT 33 /* as text, with its NUL */
#define REPO_KEY_MAX 128 /* bytes of any object's key, with its NUL */
#define REPO_BLOB_MAX (16u << 20)
#define REPO_PACK_TARGET (32u << 20)
#define REPO_NEW_RECORDS_MAX (1u << 20) /* of one session kept in memory */

/* What a frame holds.  Each kind has an id key of its own, so that a guest can
 * never make a chunk that passes for a map page. */
enum frame_kind {
    FRAME_DATA = 1,
    FRAME_MAP = 2,
    FRAME_BLOB = 3,
};

/* All derived from the secret of the format object: HKDF-Expand (RFC 5869)
 * with the labels of docs/format.md. */
struct repo_keys {
    uint8_t id[4][32];  /* by enum frame_kind; [0] is not used */
    uint8_t commit[32]; /* k_point: authenticates commit objects */
};

struct repo {
    /* never changed after repo_open() */
    struct store *store;
    char id[33];
    uint32_t chunk_size;
    char read_only[64]; /* why this program may not write here, or "" */
    struct repo_keys keys;

    pthread_rwlock_t index_lock;
    struct catalog *catalog; /* protected by index_lock */

    pthread_mutex_t page_lock;
    struct frame_ctx *page_ctx; /* protected by page_lock */
};

const uint8_t *repo_key_commit(const struct repo *r);

/* -- frames -----------------------------------------------------------------*/

/* Hashers and codec for frames: one per thread. `zstd_level` 0 never
 * compresses (decoding works the same). */
int frame_ctx_new(const struct repo_keys *keys, int zstd_level,
                  struct frame_ctx **ret, struct err *err);
void frame_ctx_free(struct frame_ctx *c); /* NULL is fine */

/* Id of `len` bytes as a chunk of `kind` (all zeroes included: the caller asks
 * chunk_data_zero() first). */
int frame_id(struct frame_ctx *c, enum frame_kind kind, const void *data,
             size_t len, struct chunk_id *ret, struct err *err);

/* Decode one frame of exactly `len` bytes: header checksum, kind, codec,
 * lengths, payload, and the id recomputed from the plaintext.  `expect_id` NULL
 * accepts the id the header names.  `out` has room for `expect_raw_len` bytes,
 * which the frame must have.  Pure: nothing is read from elsewhere. */
int frame_decode(struct frame_ctx *c, const uint8_t *bytes, size_t len,
                 const struct chunk_id *expect_id, uint32_t expect_raw_len,
                 void *out, struct err *err);

/* True when all `len` bytes are zero. */
bool chunk_data_zero(const void *data, size_t len);

/* -- index of committed sessions --------------------------------------------*/

/* Where a frame is.  Pack and record numbers are dense, belong to one open
 * struct repo and stay valid until repo_close(): a reload only adds.  The same
 * pack may have two numbers when two index segments name it. */
struct locator {
    uint32_t pack;      /* 0 .. index_n_packs() - 1 */
    uint32_t offset;    /* of the frame in the pack */
    uint32_t frame_len; /* header and payload */
    uint32_t raw_len;   /* plaintext */
    enum frame_kind kind;
    uint64_t record; /* 0 .. index_n_records() - 1 */
    bool absent;     /* the pack is gone, or too short for it */
};

/* 1 found, 0 not, -1 the index is damaged where the id would be. The record
 * matches 16 of the 32 bytes: frame_decode() proves the rest.  A record whose
 * pack is gone is the answer (`absent`) only where no other record is.  The
 * answer for an id changes only with a reload. */
int index_find(struct repo *r, const struct chunk_id *id, struct locator *ret,
               struct err *err);

/* Key of the pack: "data/<sid>/<seq>" or "meta/<sid>/<seq>". */
int locator_pack_key(struct repo *r, const struct locator *l,
                     char key[REPO_KEY_MAX]);

/* By pack, then offset: for qsort() of pointers' targets. */
int locator_compare(const struct locator *a, const struct locator *b);

/* Add the segments that COMMIT objects name and that are not loaded yet.  A
 * commit object or segment that is missing or damaged is left out and
 * described in index_problems(): other points do not depend on it. */
int index_reload(struct repo *r, struct err *err);
uint64_t index_n_records(struct repo *r);
uint32_t index_n_packs(struct repo *r);
/* Array of {"object": key, "problem": text}; owned by the caller. */
struct jv *index_problems(struct repo *r);

/* -- pages and blobs --------------------------------------------------------*/

/* Read and prove one map page or blob of exactly `len` bytes; the zero id gives
 * zeroes.  ERR_NOT_FOUND, ERR_CORRUPT.  Any thread. */
int page_get(struct repo *r, const struct chunk_id *id, void *buf, size_t len,
             struct err *err);
/* The same, and also what the running session has put.  Owner thread. */
int page_get_session(struct repo_session *s, const struct chunk_id *id,
                     void *buf, size_t len, struct err *err);
/* Store one map page unless it is there; all zeroes give the zero id. Owner
 * thread. */
int page_put(struct repo_session *s, const void *page, size_t len,
             struct chunk_id *ret_id, struct err *err);

/* -- session ----------------------------------------------------------------*/

struct repo *session_repo(struct repo_session *s);
const char *session_sid(const struct repo_session *s); /* 32 hex digits */

/* Flush packs and index segments durably.  *ret_parts (owned by the caller) is
 * {"packs": [{"key","len","sha256"}], "index": [{"key","len","sha256",
 * "records"}]}; the payload of the commit object has both members at its top
 * level.  Nothing can be put afterwards. */
int session_seal(struct repo_session *s, struct jv **ret_parts,
                 struct err *err);

/* What repo_session_free() may remove. Set IN_DOUBT before the commit object is
 * created, and OPEN again only when it is certain that it was not (ERR_EXISTS:
 * a fence was there first). */
enum session_fate {
    SESSION_OPEN,     /* remove packs, index segments, session object */
    SESSION_IN_DOUBT, /* remove nothing: the point may exist */
    SESSION_COMMITTED /* remove the session object only */
};
void session_set_fate(struct repo_session *s, enum session_fate fate);

/* Smaller limits, so that a test reaches them: pack size at which it is handed
 * to the flusher, records kept in memory.  Before the first put. */
void session_set_limits(struct repo_session *s, size_t pack_target,
                        size_t records_max);

/* -- commit objects ---------------------------------------------------------*/

enum commit_type {
    COMMIT_COMMIT = 1,
    COMMIT_ABORT = 2, /* a fence: this session may not commit */
};

#define COMMIT_LEN_MAX (64u << 20)   /* of the object */
#define COMMIT_JSON_MAX (256u << 20) /* of its payload, decompressed */

/* "commit/<sid>.<k>" */
void commit_key(const char *sid, unsigned k, char key[REPO_KEY_MAX]);
/* All bytes of a commit object, appended to `b`.  Read, not mapped: a sector that
 * cannot be read is an error then and no SIGBUS. */
int commit_load(struct repo *r, const char *key, struct buf *b,
                struct err *err);
/* Pure: payload to bytes and back.  Decoding checks the HMAC under `key`
 * before it looks at the payload; ERR_CORRUPT, ERR_UNSUPPORTED. */
int commit_encode(const uint8_t key[32], enum commit_type type,
                  const struct jv *payload, struct buf *ret, struct err *err);
int commit_decode(const uint8_t key[32], const uint8_t *bytes, size_t len,
                  enum commit_type *ret_type, struct jv **ret_payload,
                  struct err *err);
