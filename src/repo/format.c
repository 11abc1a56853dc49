#include "format.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "hash.h"
#include "jv.h"
#include "rand.h"
#include "twoline.h"

#define FORMAT_MAGIC "tidemark repository"
#define FORMAT_MAJOR 1
#define CIPHER_NONE "none"
#define CIPHER_GCM "aes-256-gcm"

DEFINE_CLEANUP(struct hasher *, hasher_free)

/* -- encoding ---------------------------------------------------------------*/

static struct jv *
format_to_json(const struct repo_format *f)
{
    CLEANUP_JV struct jv *j =
        jv_build("{s:s, s:i, s:[], s:[s], s:[], s:s, s:I, s:s, s:s}", "magic",
                 FORMAT_MAGIC, "major", FORMAT_MAJOR, "compat", "ro_compat",
                 FORMAT_COLLECT, "incompat", "id", f->id, "chunk_size",
                 (int64_t)f->chunk_size, "hash", "hmac-sha256", "cipher",
                 f->encrypted ? CIPHER_GCM : CIPHER_NONE);
    char hex[2 * FORMAT_SECRET_LEN + 1];

    if (f->encrypted)
        hex_encode(f->check, sizeof f->check, hex);
    else
        hex_encode(f->secret, sizeof f->secret, hex);
    if (j == NULL || jv_set_str(j, f->encrypted ? "check" : "secret", hex) < 0)
        return NULL;
    return TAKE_PTR(j);
}

int
format_encode(const struct repo_format *f, struct buf *ret, struct err *err)
{
    CLEANUP_JV struct jv *j = format_to_json(f);

    if (j == NULL)
        return err_set_errno(err, ENOMEM, "text of the format object");
    return twoline_encode(j, ret, err);
}

/* -- decoding ---------------------------------------------------------------*/

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

/* This program knows one ro-compat feature, and no other. */
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
    for (size_t i = 0; i < jv_size(ro); i++) {
        name = jv_str(jv_at(ro, i));
        if (name != NULL && strcmp(name, FORMAT_COLLECT) == 0) {
            f->collect = true;
            continue;
        }
        (void)snprintf(f->read_only, sizeof f->read_only, "%s",
                       name != NULL ? name : "?");
    }
    return 0;
}

static int
check_cipher(const struct jv *j, struct repo_format *f, struct err *err)
{
    const char *cipher = jv_get_str(j, "cipher");
    const char *key;

    f->encrypted = cipher != NULL && strcmp(cipher, CIPHER_GCM) == 0;
    if (!f->encrypted && check_text(j, "cipher", CIPHER_NONE, err) < 0)
        return -1;
    key = jv_get_str(j, f->encrypted ? "check" : "secret");
    if (key == NULL ||
        !hex_decode(key, f->encrypted ? f->check : f->secret,
                    f->encrypted ? sizeof f->check : sizeof f->secret))
        return err_set(err, ERR_CORRUPT, "the format object has no valid %s",
                       f->encrypted ? "check" : "secret");
    return 0;
}

static int
check_values(const struct jv *j, struct repo_format *f, struct err *err)
{
    const char *id = jv_get_str(j, "id");
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
    return check_cipher(j, f, err);
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
        check_text(j, "hash", "hmac-sha256", err) < 0)
        return -1;
    return check_values(j, f, err);
}

int
format_decode(const uint8_t *bytes, size_t len, struct repo_format *ret,
              struct err *err)
{
    CLEANUP_JV struct jv *j = NULL;
    struct repo_format f = {0};
    struct err why = ERR_INIT;

    if (len > FORMAT_LEN_MAX)
        return err_set(err, ERR_FORMAT,
                       "this is no Tidemark repository: a format object has "
                       "at most %u bytes",
                       FORMAT_LEN_MAX);
    if (twoline_decode(bytes, len, FORMAT_MAGIC, "the format object", &j, f.sum,
                       &why) < 0)
        return why.code == ERR_FORMAT
                   ? err_set(err, ERR_FORMAT, "this is no Tidemark repository")
                   : err_copy(err, &why);
    if (decode_json(j, &f, err) < 0)
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

static int
derive_sealing(struct hasher *h, struct repo_keys *k, struct err *err)
{
    if (derive(h, "tidemark data encryption", k->seal[FRAME_DATA], err) < 0 ||
        derive(h, "tidemark map encryption", k->seal[FRAME_MAP], err) < 0 ||
        derive(h, "tidemark blob encryption", k->seal[FRAME_BLOB], err) < 0)
        return -1;
    return derive(h, "tidemark record encryption", k->commit.seal, err);
}

int
format_keys(const struct repo_format *f,
            const uint8_t master[FORMAT_SECRET_LEN], struct repo_keys *ret,
            struct err *err)
{
    CLEANUP(hasher_freep) struct hasher *h = NULL;

    if (hasher_new(f->encrypted ? master : f->secret, &h, err) < 0 ||
        derive(h, "tidemark data id", ret->id[FRAME_DATA], err) < 0 ||
        derive(h, "tidemark map id", ret->id[FRAME_MAP], err) < 0 ||
        derive(h, "tidemark blob id", ret->id[FRAME_BLOB], err) < 0 ||
        derive(h, "tidemark commit", ret->commit.mac, err) < 0)
        return -1;
    if (!hex_decode(f->id, ret->repo, sizeof ret->repo))
        return err_set(err, ERR_USAGE, "repository id '%s'", f->id);
    memcpy(ret->commit.repo, ret->repo, sizeof ret->repo);
    ret->sealed = ret->commit.sealed = f->encrypted;
    return f->encrypted ? derive_sealing(h, ret, err) : 0;
}

int
format_master_check(const uint8_t master[FORMAT_SECRET_LEN],
                    uint8_t ret[FORMAT_CHECK_LEN], struct err *err)
{
    CLEANUP(hasher_freep) struct hasher *h = NULL;
    uint8_t key[HASH_LEN];

    if (hasher_new(master, &h, err) < 0 ||
        derive(h, "tidemark key check", key, err) < 0)
        return -1;
    memcpy(ret, key, FORMAT_CHECK_LEN);
    return 0;
}

/* -- features added after init ----------------------------------------------*/

int
format_feature(const char *key, char *read_only, size_t len, struct err *err)
{
    const char *name = key + strlen("feature/");

    if (strncmp(name, "compat.", strlen("compat.")) == 0)
        return 0;
    if (strcmp(name, "ro-compat." FORMAT_COLLECT) == 0)
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
