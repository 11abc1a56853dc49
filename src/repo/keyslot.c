#include "keyslot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "bytes.h"
#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "guarded.h"
#include "jv.h"
#include "rand.h"
#include "secret.h"
#include "twoline.h"

#define MAGIC "tidemark key"
#define VERSION 1
#define KDF_NAME "argon2id13"
#define CIPHER_NAME "aes-256-gcm"
#define AAD_PREFIX "tidemark key slot"
#define AAD_FIXED (sizeof AAD_PREFIX + REPO_ID_LEN + 16 + 8 + 8 + 16 + 32 + 8)
#define AAD_MAX (AAD_FIXED + KEY_LABEL_MAX)

DEFINE_CLEANUP(struct aead *, aead_free)

/* -- bytes ------------------------------------------------------------------*/

int
key_label_check(const char *label, struct err *err)
{
    if (strlen(label) > KEY_LABEL_MAX)
        return err_set(err, ERR_USAGE, "a label has at most %d bytes",
                       KEY_LABEL_MAX);
    for (const char *p = label; *p != '\0'; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return err_set(err, ERR_USAGE, "a label is printable text");
    return 0;
}

int
key_slot_encode(const struct key_slot *s, struct buf *ret, struct err *err)
{
    char salt[2 * sizeof s->salt + 1], nonce[2 * sizeof s->nonce + 1];
    char wrapped[2 * sizeof s->wrapped + 1], sum[2 * sizeof s->format_sum + 1];
    CLEANUP_JV struct jv *j = NULL;

    hex_encode(s->salt, sizeof s->salt, salt);
    hex_encode(s->nonce, sizeof s->nonce, nonce);
    hex_encode(s->wrapped, sizeof s->wrapped, wrapped);
    hex_encode(s->format_sum, sizeof s->format_sum, sum);
    j = jv_build("{s:s, s:i, s:s, s:s, s:s, s:I, s:s, s:I, s:I, s:s, s:s, s:s, "
                 "s:s, s:s}",
                 "magic", MAGIC, "version", VERSION, "repository", s->repo,
                 "slot", s->name, "label", s->label, "time_ns", s->time_ns,
                 "kdf", KDF_NAME, "ops", (int64_t)s->cost.ops, "mem",
                 (int64_t)s->cost.mem, "salt", salt, "cipher", CIPHER_NAME,
                 "nonce", nonce, "wrapped", wrapped, "format", sum);
    if (j == NULL)
        return err_set_errno(err, ENOMEM, "text of a key slot");
    return twoline_encode(j, ret, err);
}

static bool
is_text(const struct jv *j, const char *key, const char *want)
{
    const char *s = jv_get_str(j, key);

    return s != NULL && strcmp(s, want) == 0;
}

static int
check_kind(const struct jv *j, struct err *err)
{
    uint64_t version;

    if (!is_text(j, "magic", MAGIC))
        return err_set(err, ERR_FORMAT, "this is no key slot");
    if (!jv_get_uint(j, "version", &version))
        return err_set(err, ERR_CORRUPT, "the key slot has no version");
    if (version != VERSION || !is_text(j, "kdf", KDF_NAME) ||
        !is_text(j, "cipher", CIPHER_NAME))
        return err_set(err, ERR_UNSUPPORTED,
                       "key slot version %" PRIu64 " with kdf '%.40s' and "
                       "cipher '%.40s' is not known; use a newer tidemark",
                       version,
                       jv_get_str(j, "kdf") ? jv_get_str(j, "kdf") : "",
                       jv_get_str(j, "cipher") ? jv_get_str(j, "cipher") : "");
    return 0;
}

static bool
get_hex(const struct jv *j, const char *key, uint8_t *data, size_t len)
{
    const char *s = jv_get_str(j, key);

    return s != NULL && hex_decode(s, data, len);
}

/* Hex as text, in lower case. */
static bool
get_name(const struct jv *j, const char *key, char *text, size_t bytes)
{
    uint8_t b[16];

    if (!get_hex(j, key, b, bytes))
        return false;
    hex_encode(b, bytes, text);
    return true;
}

int
key_slot_decode(const uint8_t *bytes, size_t len, struct key_slot *ret,
                struct err *err)
{
    CLEANUP_JV struct jv *j = NULL;
    struct key_slot s = {0};
    const char *label;

    if (twoline_decode(bytes, len, MAGIC, "the key slot", &j, NULL, err) < 0 ||
        check_kind(j, err) < 0)
        return -1;
    label = jv_get_str(j, "label");
    if (!get_name(j, "repository", s.repo, REPO_ID_LEN) ||
        !get_name(j, "slot", s.name, 8) || label == NULL ||
        key_label_check(label, NULL) < 0 ||
        !jv_get_int(j, "time_ns", &s.time_ns) ||
        !jv_get_uint(j, "ops", &s.cost.ops) ||
        !jv_get_uint(j, "mem", &s.cost.mem) ||
        !get_hex(j, "salt", s.salt, sizeof s.salt) ||
        !get_hex(j, "nonce", s.nonce, sizeof s.nonce) ||
        !get_hex(j, "wrapped", s.wrapped, sizeof s.wrapped) ||
        !get_hex(j, "format", s.format_sum, sizeof s.format_sum))
        return err_set(err, ERR_CORRUPT,
                       "the key slot lacks a member or has a wrong one");
    (void)strcpy(s.label, label);
    if (kdf_check_cost(&s.cost, err) < 0)
        return err_wrap(err, "the key slot");
    *ret = s;
    return 0;
}

/* -- wrapping ---------------------------------------------------------------*/

static size_t
put_aad(const struct key_slot *s, uint8_t aad[AAD_MAX])
{
    uint8_t *p = aad;
    size_t label = strlen(s->label);

    memcpy(p, AAD_PREFIX, sizeof AAD_PREFIX); /* with its NUL */
    p += sizeof AAD_PREFIX;
    (void)hex_decode(s->repo, p, REPO_ID_LEN);
    p += REPO_ID_LEN;
    memcpy(p, s->name, 16);
    put_le64(p + 16, s->cost.ops);
    put_le64(p + 24, s->cost.mem);
    memcpy(p + 32, s->salt, sizeof s->salt);
    memcpy(p + 48, s->format_sum, sizeof s->format_sum);
    put_le64(p + 80, (uint64_t)s->time_ns);
    memcpy(p + 88, s->label, label);
    return AAD_FIXED + label;
}

static int
derive(const struct key_slot *s, const struct secret *passphrase,
       uint8_t kek[KDF_KEY_LEN], struct err *err)
{
    if (passphrase->len == 0 || passphrase->len > SECRET_PASSPHRASE_MAX)
        return err_set(err, ERR_USAGE, "a passphrase has 1 to %d bytes",
                       SECRET_PASSPHRASE_MAX);
    return kdf_derive(passphrase->text, passphrase->len, s->salt, &s->cost, kek,
                      err);
}

int
key_slot_wrap(const struct repo_format *f, const struct secret *passphrase,
              const char *label, const struct kdf_cost *cost,
              const uint8_t master[KEY_MASTER_LEN], struct key_slot *ret,
              struct err *err)
{
    CLEANUP(aead_freep) struct aead *aead = NULL;
    struct key_slot s = {.cost = *cost, .time_ns = clock_wall_ns()};
    uint8_t kek[KDF_KEY_LEN], aad[AAD_MAX], name[8];
    struct aead_params p = {kek, s.nonce, aad, 0};
    int r;

    if (key_label_check(label, err) < 0 || aead_new(&aead, err) < 0 ||
        aead_nonce(s.nonce, err) < 0)
        return -1;
    memcpy(s.repo, f->id, sizeof s.repo);
    memcpy(s.format_sum, f->sum, sizeof s.format_sum);
    (void)strcpy(s.label, label);
    rand_bytes(name, sizeof name);
    hex_encode(name, sizeof name, s.name);
    rand_bytes(s.salt, sizeof s.salt);
    p.aad_len = put_aad(&s, aad);
    if (derive(&s, passphrase, kek, err) < 0)
        return -1;
    r = aead_seal(aead, &p, master, KEY_MASTER_LEN, s.wrapped, err);
    wipe(kek, sizeof kek);
    if (r == 0)
        *ret = s;
    return r;
}

int
key_slot_unwrap(const struct key_slot *s, const struct secret *passphrase,
                uint8_t master[KEY_MASTER_LEN], struct err *err)
{
    CLEANUP(aead_freep) struct aead *aead = NULL;
    uint8_t kek[KDF_KEY_LEN], aad[AAD_MAX];
    struct aead_params p = {kek, s->nonce, aad, put_aad(s, aad)};
    struct err why = ERR_INIT;
    int r;

    if (aead_new(&aead, err) < 0 || derive(s, passphrase, kek, err) < 0)
        return -1;
    r = aead_open(aead, &p, s->wrapped, sizeof s->wrapped, master, &why);
    wipe(kek, sizeof kek);
    if (r < 0 && why.code == ERR_CORRUPT)
        return err_set(err, ERR_KEY, "the passphrase does not open key slot %s",
                       s->name);
    return r < 0 ? err_copy(err, &why) : 0;
}
