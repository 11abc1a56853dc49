#include "format.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "err.h"
#include "hash.h"
#include "jv.h"
#include "rand.h"

#define FORMAT_MAGIC "tidemark repository"
#define FORMAT_MAJOR 1
#define FORMAT_JSON_DEPTH 8
#define SUM_PREFIX "sha256 "
#define SUM_LINE_LEN (sizeof SUM_PREFIX - 1 + 2 * HASH_LEN + 1)

DEFINE_CLEANUP(struct hasher *, hasher_free)

/* -- encoding ---------------------------------------------------------------*/

static struct jv *
format_to_json(const struct repo_format *f)
{
    char secret[2 * FORMAT_SECRET_LEN + 1];

    hex_encode(f->secret, sizeof f->secret, secret);
    return jv_build("{s:s, s:i, s:[], s:[], s:[], s:s, s:I, s:s, s:s, s:s}",
                    "magic", FORMAT_MAGIC, "major", FORMAT_MAJOR, "compat",
                    "ro_compat", "incompat", "id", f->id, "chunk_size",
                    (int64_t)f->chunk_size, "hash", "hmac-sha256", "cipher",
                    "none", "secret", secret);
}

int
format_encode(const struct repo_format *f, struct buf *ret, struct err *err)
{
    CLEANUP_JV struct jv *j = format_to_json(f);
    CLEANUP_FREE char *text = j != NULL ? jv_text(j, true) : NULL;
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    char hex[2 * HASH_LEN + 1];
    uint8_t sum[HASH_LEN];

    if (text == NULL)
        return err_set_errno(err, ENOMEM, "text of the format object");
    if (buf_printf(&b, "%s\n", err, text) < 0 ||
        hash_sha256(b.data, b.len, sum, err) < 0)
        return -1;
    hex_encode(sum, sizeof sum, hex);
    if (buf_printf(&b, SUM_PREFIX "%s\n", err, hex) < 0)
        return -1;
    return buf_append(ret, b.data, b.len, err);
}

/* -- decoding ---------------------------------------------------------------*/

static int
check_sum(const uint8_t *bytes, size_t len, size_t line, struct err *err)
{
    char hex[2 * HASH_LEN + 1] = "";
    uint8_t want[HASH_LEN], sum[HASH_LEN];
    const uint8_t *p = bytes + line;

    if (len - line == SUM_LINE_LEN && p[SUM_LINE_LEN - 1] == '\n' &&
        memcmp(p, SUM_PREFIX, sizeof SUM_PREFIX - 1) == 0)
        memcpy(hex, p + sizeof SUM_PREFIX - 1, sizeof hex - 1);
    if (!hex_decode(hex, want, sizeof want))
        return err_set(err, ERR_CORRUPT,
                       "the format object does not end with its SHA-256; "
                       "restore it from a copy of the repository");
    if (hash_sha256(bytes, line, sum, err) < 0)
        return -1;
    if (!hash_equal(sum, want))
        return err_set(err, ERR_CORRUPT,
                       "the format object fails its SHA-256; restore it from "
                       "a copy of the repository");
    return 0;
}

static int
check_text(const struct jv *j, const char *key, const char *want,
           struct err *err)
{
    const char *s = jv_get_str(j, key);

    if (s == NULL)
        return err_set(err, ERR_CORRUPT, "the format object has no '%s'", key);
    if (strcmp(s, want) != 0)
        return err_set(err, ERR_UNSUPPORTED,
                       "the repository uses %s '%.40s', which is not known; "
                       "use a newer tidemark",
                       key, s);
    return 0;
}

/* This program knows no optional feature yet, so each one is unknown. */
static int
check_features(const struct jv *j, struct repo_format *f, struct err *err)
{
    const struct jv *incompat = jv_get(j, "incompat");
    const struct jv *ro = jv_get(j, "ro_compat");
    const char *name;

    if (!jv_is_array(incompat) || !jv_is_array(ro))
        return err_set(err, ERR_CORRUPT,
                       "the format object has no lists of features");
    if (jv_size(incompat) > 0) {
        name = jv_str(jv_at(incompat, 0));
        return err_set(err, ERR_UNSUPPORTED,
                       "the repository uses the feature '%.40s', which is not "
                       "known; use a newer tidemark",
                       name != NULL ? name : "?");
    }
    if (jv_size(ro) > 0) {
        name = jv_str(jv_at(ro, 0));
        (void)snprintf(f->read_only, sizeof f->read_only, "%s",
                       name != NULL ? name : "?");
    }
    return 0;
}

static int
check_values(const struct jv *j, struct repo_format *f, struct err *err)
{
    const char *id = jv_get_str(j, "id");
    const char *secret = jv_get_str(j, "secret");
    uint8_t id_bytes[16];
    uint64_t size;

    if (id == NULL || !hex_decode(id, id_bytes, sizeof id_bytes))
        return err_set(err, ERR_CORRUPT, "the format object has no valid id");
    hex_encode(id_bytes, sizeof id_bytes, f->id);
    if (!jv_get_uint(j, "chunk_size", &size) || size < REPO_CHUNK_MIN ||
        size > REPO_CHUNK_MAX || (size & (size - 1)) != 0)
        return err_set(err, ERR_CORRUPT,
                       "the format object has no valid chunk_size: a power of "
                       "two from %u to %u",
                       REPO_CHUNK_MIN, REPO_CHUNK_MAX);
    f->chunk_size = (uint32_t)size;
    if (secret == NULL || !hex_decode(secret, f->secret, sizeof f->secret))
        return err_set(err, ERR_CORRUPT,
                       "the format object has no valid secret");
    return 0;
}

static int
decode_json(const struct jv *j, struct repo_format *f, struct err *err)
{
    const char *m = jv_get_str(j, "magic");
    uint64_t major;

    if (m == NULL || strcmp(m, FORMAT_MAGIC) != 0)
        return err_set(err, ERR_FORMAT, "this is no Tidemark repository");
    if (!jv_get_uint(j, "major", &major) || major == 0)
        return err_set(err, ERR_CORRUPT, "the format object has no 'major'");
    if (major != FORMAT_MAJOR)
        return err_set(err, ERR_UNSUPPORTED,
                       "the repository has format %" PRIu64 ", this program "
                       "knows %d; use a newer tidemark",
                       major, FORMAT_MAJOR);
    if (check_features(j, f, err) < 0 ||
        check_text(j, "hash", "hmac-sha256", err) < 0 ||
        check_text(j, "cipher", "none", err) < 0)
        return -1;
    return check_values(j, f, err);
}

int
format_decode(const uint8_t *bytes, size_t len, struct repo_format *ret,
              struct err *err)
{
    const uint8_t *end;
    CLEANUP_JV struct jv *j = NULL;
    struct repo_format f = {0};

    if (len > FORMAT_LEN_MAX)
        return err_set(err, ERR_FORMAT,
                       "this is no Tidemark repository: a format object has "
                       "at most %u bytes",
                       FORMAT_LEN_MAX);
    end = len > 0 ? memchr(bytes, '\n', len) : NULL;
    if (end == NULL || memmem(bytes, (size_t)(end - bytes), FORMAT_MAGIC,
                              sizeof FORMAT_MAGIC - 1) == NULL)
        return err_set(err, ERR_FORMAT, "this is no Tidemark repository");
    if (check_sum(bytes, len, (size_t)(end + 1 - bytes), err) < 0 ||
        jv_parse(bytes, (size_t)(end - bytes), FORMAT_JSON_DEPTH, &j, err) <
            0 ||
        decode_json(j, &f, err) < 0)
        return -1;
    *ret = f;
    return 0;
}

/* -- keys -------------------------------------------------------------------*/

/* HKDF-Expand of one block is HMAC(PRK, info || 0x01); the secret is already
 * uniform, so it is the PRK. */
static int
derive(struct hasher *h, const char *label, uint8_t ret[HASH_LEN],
       struct err *err)
{
    uint8_t info[64];
    size_t len = strlen(label);

    memcpy(info, label, len);
    info[len] = 1;
    return hasher_id(h, info, len + 1, ret, err);
}

int
format_keys(const struct repo_format *f, struct repo_keys *ret, struct err *err)
{
    CLEANUP(hasher_freep) struct hasher *h = NULL;

    if (hasher_new(f->secret, &h, err) < 0 ||
        derive(h, "tidemark data id", ret->id[FRAME_DATA], err) < 0 ||
        derive(h, "tidemark map id", ret->id[FRAME_MAP], err) < 0 ||
        derive(h, "tidemark blob id", ret->id[FRAME_BLOB], err) < 0)
        return -1;
    return derive(h, "tidemark commit", ret->commit, err);
}

/* -- features added after init ----------------------------------------------*/

int
format_feature(const char *key, char *read_only, size_t len, struct err *err)
{
    const char *name = key + strlen("feature/");

    if (strncmp(name, "compat.", strlen("compat.")) == 0)
        return 0;
    if (strncmp(name, "ro-compat.", strlen("ro-compat.")) == 0) {
        (void)snprintf(read_only, len, "%s", name + strlen("ro-compat."));
        return 0;
    }
    return err_set(err, ERR_UNSUPPORTED,
                   "the repository uses the feature '%.40s', which is not "
                   "known; use a newer tidemark",
                   name);
}
