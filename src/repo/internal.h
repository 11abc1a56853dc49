/* repo/internal.h - what the files of this folder share.  Not for other
 * folders; they use repo.h.
 *
 * Lock order: session lock, then page lock, then index lock.
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
#define REPO_ID_LEN 16   /* bytes of a repository's id */
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

/* For the small objects: commit objects and records. */
struct commit_keys {
    uint8_t mac[32];  /* authenticates all bytes */
    uint8_t seal[32]; /* encrypts the payload, if `sealed` */
    uint8_t repo[REPO_ID_LEN];
    bool sealed;
};

/* All derived from the secret of the format object or, when the repository is
 * encrypted, from its master key: HKDF-Expand (RFC 5869) with the labels of
 * docs/format.md. */
struct repo_keys {
    uint8_t id[4][32];   /* by enum frame_kind; [0] is not used */
    uint8_t seal[4][32]; /* the same; each frame has a key made from its id */
    uint8_t repo[REPO_ID_LEN];
    bool sealed; /* frames are encrypted */
    struct commit_keys commit;
};

/* Lives in guarded memory, for its keys. */
struct repo {
    /* never changed after repo_open() */
    struct store *store;
    char id[33];
    uint32_t chunk_size;
    char read_only[64]; /* why this program may not write here, or "" */
    struct repo_keys keys;

    pthread_rwlock_t index_lock;
    struct catalog *catalog; /* protected by index_lock */

    _Atomic unsigned fruitless; /* readings of the index without news */
    _Atomic uint64_t reloaded_us;

    pthread_mutex_t page_lock;
    struct frame_ctx *page_ctx; /* protected by page_lock */
#ifdef TIDEMARK_MUTANTS
    bool mutant_frozen; /* the index is not read again */
#endif
};

/* Open the directory at `path` and read its format object, with the words for
 * what is no repository. */
struct repo_format;
int repo_open_format(const char *path, const struct file_ops *ops,
                     struct store **ret, struct repo_format *ret_format,
                     struct err *err);

const struct commit_keys *repo_key_commit(const struct repo *r);
/* -1 when a feature forbids this program to write here. */
int repo_may_write(const struct repo *r, struct err *err);

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
    bool condemned;  /* the pack will be removed; what is needed is copied */
    bool bad;        /* the pack or the frame failed a verification */
};

/* 1 found, 0 not, -1 the index is damaged where the id would be. The record
 * matches 16 of the 32 bytes: frame_decode() proves the rest.  A record whose
 * pack is gone is the answer (`absent`) only where no other record is.  The
 * answer for an id changes only with a reload. */
int index_find(struct repo *r, const struct chunk_id *id, struct locator *ret,
               struct err *err);

/* The same for a writer: only a record that may be reused counts, one whose pack
 * is there, not condemned, not bad, and whose frame is not bad.  1, 0, -1. */
int index_find_reusable(struct repo *r, const struct chunk_id *id,
                        struct locator *ret, struct err *err);

/* Every record of `id`, the best first (there and good, condemned, bad, absent);
 * at most `max`, *ret_n of them. */
#define INDEX_COPIES_MAX 8
int index_find_all(struct repo *r, const struct chunk_id *id,
                   struct locator *ret, size_t max, size_t *ret_n,
                   struct err *err);

/* Which packs are there is asked again.  A new session needs that: what was seen
 * before it registered may have been removed, and by now no commit object may say
 * so any more. */
void index_look_again(struct repo *r);

/* The frame at this place does not prove good: no writer of this process reuses
 * it from now on. */
void index_frame_failed(struct repo *r, const struct locator *l);

/* The pack could not be opened: it is gone.  Look again (index_find, after an
 * index_reload if that gives nothing else). */
void index_pack_lost(struct repo *r, uint32_t pack);

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
/* Is any pack that counts not there (or empty)?  Looks at each once. */
bool index_pack_missing(struct repo *r);
/* Array of {"object": key, "problem": text}; owned by the caller. */
struct jv *index_problems(struct repo *r);

/* Read and prove the frame of `id`, plaintext of exactly `len` bytes, from any
 * record that has it; reads the index again when none has. */
int frame_read(struct repo *r, struct frame_ctx *ctx, const struct chunk_id *id,
               void *buf, uint32_t len, struct err *err);

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
    /* Records: the same frame around other objects (docs/format.md 9.1). */
    COMMIT_FORGET = 3,
    COMMIT_CONDEMNED = 4,
    COMMIT_BAD = 5,
    COMMIT_PACKS = 6,
    COMMIT_VERIFIED = 7,
};

#define COMMIT_LEN_MAX (64u << 20)   /* of the object */
#define COMMIT_JSON_MAX (256u << 20) /* of its payload, decompressed */

/* "commit/<sid>.<k>" */
void commit_key(const char *sid, unsigned k, char key[REPO_KEY_MAX]);
/* All bytes of a commit object, appended to `b`.  Read, not mapped: a sector that
 * cannot be read is an error then and no SIGBUS. */
int commit_load(struct repo *r, const char *key, struct buf *b,
                struct err *err);
/* Payload to bytes and back.  Decoding is pure and checks the HMAC
 * before it looks at the payload; ERR_CORRUPT, ERR_UNSUPPORTED. */
int commit_encode(const struct commit_keys *keys, enum commit_type type,
                  const struct jv *payload, struct buf *ret, struct err *err);
int commit_decode(const struct commit_keys *keys, const uint8_t *bytes,
                  size_t len, enum commit_type *ret_type,
                  struct jv **ret_payload, struct err *err);

/* -- records ----------------------------------------------------------------*/

/* Read one record: ERR_NOT_FOUND, ERR_CORRUPT (also when the type or the object
 * it says it is are not these). */
int record_read(struct repo *r, const char *key, enum commit_type type,
                struct jv **ret_payload, struct err *err);
/* Create it exclusively and durably; "object" is added to the payload. */
int record_write(struct repo *r, const char *key, enum commit_type type,
                 struct jv *payload, struct err *err);

/* Forgotten points: ids, sorted; owned by the caller.  Those that a collection
 * has removed count, too, as read by the last index_reload(). */
struct id_list {
    char (*v)[REPO_SID_TEXT];
    size_t n, cap;
};
void id_list_done(struct id_list *l);
int id_list_add(struct id_list *l, const char *id, struct err *err);
void id_list_sort(struct id_list *l); /* and make each one single */
bool id_list_has(const struct id_list *l, const char *id); /* sorted */
bool id_text_valid(const char *s); /* 32 lower-case hex digits; NULL: no */
int forgotten_list(struct repo *r, struct id_list *ret, struct err *err);

/* -- live sessions ----------------------------------------------------------*/

/* What a session object says. */
struct session_info {
    char sid[REPO_SID_TEXT];
    char what[8]; /* "put", "pin", "gc"; anything else counts as "put" */
    char host[64], machine[256];
    char scope[128]; /* in which its pid means something */
    int64_t pid;
    uint64_t beat;       /* highest number seen, 0: none */
    struct id_list pins; /* of "pin": the points */
    bool ended;          /* its commit object exists, of whatever type */
};
struct session_list {
    struct session_info *v; /* by sid */
    size_t n;
};
void session_list_done(struct session_list *l);
/* All objects under session/, with what beat/ and commit/ say of them. */
int session_list_read(struct repo *r, struct session_list *ret,
                      struct err *err);

/* Register any kind of session and beat for it until freed; the parts that
 * repo_session_begin(), repo_pin_new() and repo_gc() share. */
struct registration;
int registration_new(struct repo *r, const char *what, const char *machine,
                     const struct id_list *pins, bool beat,
                     struct registration **ret, struct err *err);
const char *registration_sid(const struct registration *g);
/* Remove the session object (unless `keep`) and the beats. */
void registration_free(struct registration *g, bool keep);

/* Between two heartbeats; tests set it before they begin anything. */
extern uint64_t repo_beat_ns;

/* Boot and pid name space of this process, as text; "" when unknown. */
void session_scope(char *ret, size_t size);
/* Its process belonged to this scope and is not there any more.  False says
 * nothing: then only the heartbeat tells. */
bool session_is_dead(const struct session_info *s);

/* Pure: what a session object's bytes say; what cannot be understood counts as
 * "put".  ret->pins is owned by the caller. */
int session_info_parse(const char *sid, const void *text, size_t len,
                       struct session_info *ret, struct err *err);

/* One writer per machine: ERR_LOCKED when another session of `machine` than
 * `sid` is alive.  Takes up to 80 seconds when it finds one that does not beat,
 * unless that is a process of this host which is gone. */
int session_only_one(struct repo *r, const char *sid, const char *machine,
                     struct err *err);

/* Exclusively create commit/<sid>.1 of type ABORT: 1 fenced, 0 it had ended in
 * another way before, -1. */
int session_fence(struct repo *r, const char *sid, const char *why,
                  struct err *err);

/* -- sets of packs, as in condemned lists and "gone" --------------------------*/

struct pack_name;
struct pack_set;                     /* grows only */
struct pack_set *pack_set_new(void); /* NULL without memory */
void pack_set_free(struct pack_set *s);
int pack_set_add(struct pack_set *s, const struct pack_name *n,
                 struct err *err);
bool pack_set_has(const struct pack_set *s, const struct pack_name *n);
size_t pack_set_n(const struct pack_set *s);
const struct pack_name *pack_set_at(const struct pack_set *s, size_t i);
/* {"<sid>": {"data": [[first, last], ...], "meta": [...]}} and back. */
struct jv *pack_set_to_json(const struct pack_set *s); /* NULL: no memory */
int pack_set_from_json(struct pack_set *s, const struct jv *j, struct err *err);
/* "data/<sid>/<seq>" to a name; false when it is none. */
bool pack_name_parse(const char *key, struct pack_name *ret);

/* The machine's newest point, by number and id, of the commit objects that were
 * read; with *sid not "", the newest before *seq and *sid.  It may be gone. */
bool index_newest(struct repo *r, const char *machine, uint64_t *seq,
                  char sid[REPO_SID_TEXT]);

/* What collections have said so far: packs and segments that do not count any
 * more, commit objects that do not (their point is removed). */
int index_gone(struct repo *r, struct pack_set *packs, struct jv *segments,
               struct id_list *removed, struct err *err);
