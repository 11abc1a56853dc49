/* Key slots, the paper key, and who may remove what. */
#include "tap.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "buf.h"
#include "guarded.h"
#include "hash.h"
#include "io.h"
#include "keyring.h"
#include "keyslot.h"
#include "paper.h"
#include "passphrase.h"
#include "rand.h"
#include "tmpdir.h"

DEFINE_CLEANUP(struct repo *, repo_close)
DEFINE_CLEANUP(struct keyring *, keyring_close)

#define CHUNK 65536

static void
make(char dir[TMPDIR_MAX], const char *passphrase)
{
    tmpdir_make(dir);
    CHECK_OK(encrypted_init(dir, CHUNK, passphrase, ERR_ABORT), ERR_ABORT);
}

#define COSTLY_MEM (64u << 20)

static void
make_costly(char dir[TMPDIR_MAX], const char *passphrase)
{
    struct answers a = {.fresh = passphrase};
    const struct repo_init_opts opts = {.chunk_size = CHUNK,
                                        .encrypt = true,
                                        .passphrase = answer_with,
                                        .arg = &a,
                                        .kdf_ops = CHEAP_OPS,
                                        .kdf_mem = COSTLY_MEM};
    char id[33];

    tmpdir_make(dir);
    CHECK_OK(repo_init_with(dir, &opts, id, ERR_ABORT), ERR_ABORT);
}

static int
open_keys(const char *dir, const char *passphrase, struct keyring **ret,
          struct err *err)
{
    struct answers a = {.first = passphrase};

    if (keyring_open(dir, NULL, ret, err) < 0)
        return -1;
    return passphrase == NULL ? 0 : keyring_unlock(*ret, answer_with, &a, err);
}

static int
add_key(const char *dir, const char *with, const char *passphrase,
        const char *label, char slot[17], struct err *err)
{
    CLEANUP(keyring_closep) struct keyring *k = NULL;
    struct answers a = {.fresh = passphrase};
    const struct key_new new = {answer_with, &a, label, CHEAP_OPS, CHEAP_MEM};

    if (open_keys(dir, with, &k, err) < 0)
        return -1;
    return keyring_add(k, &new, slot, err);
}

static int
remove_key(const char *dir, const char *with, const char *slot, struct err *err)
{
    CLEANUP(keyring_closep) struct keyring *k = NULL;
    char gone[17];

    if (open_keys(dir, with, &k, err) < 0)
        return -1;
    return keyring_remove(k, slot, gone, err);
}

static bool
opens(const char *dir, const char *passphrase)
{
    CLEANUP(repo_closep) struct repo *r = NULL;

    return encrypted_open(dir, passphrase, &r, NULL) == 0;
}

static void
slot_of(const char *dir, size_t i, char slot[17])
{
    CLEANUP(keyring_closep) struct keyring *k = NULL;

    CHECK_OK(keyring_open(dir, NULL, &k, ERR_ABORT), ERR_ABORT);
    CHECK(i < keyring_size(k));
    (void)strcpy(slot, keyring_at(k, i)->slot);
}

static void
path_of(const char *dir, const char *slot, char path[400])
{
    (void)snprintf(path, 400, "%s/key/%s", dir, slot);
}

static void
expect(const struct err *err, enum err_code code, const char *words)
{
    CHECK(err->code == code);
    CHECK(strstr(err->msg, words) != NULL);
    if (err->code != code || strstr(err->msg, words) == NULL)
        printf("# %d: %s\n", (int)err->code, err->msg);
}

/* -- opening ----------------------------------------------------------------*/

/* The right passphrase opens; a wrong one says how many slots were tried; none
 * says that it is encrypted. */
static void
test_open(void)
{
    CLEANUP(repo_closep) struct repo *r = NULL;
    struct answers a = {.first = "wrong", .second = "right"};
    struct repo_open_opts opts = {.unlock = answer_with, .arg = &a};
    struct err none = ERR_INIT, wrong = ERR_INIT;
    char dir[TMPDIR_MAX], slot[17];

    make(dir, "right");
    CHECK_OK(add_key(dir, "right", "also right", "b", slot, ERR_ABORT),
             ERR_ABORT);
    CHECK_OK(encrypted_open(dir, "right", &r, ERR_ABORT), ERR_ABORT);
    CHECK(repo_encrypted(r));
    repo_close(TAKE_PTR(r));
    CHECK(opens(dir, "also right"));
    CHECK(repo_open(dir, NULL, &r, &none) < 0);
    expect(&none, ERR_KEY, "is encrypted and no passphrase was given");
    CHECK(encrypted_open(dir, "wrong", &r, &wrong) < 0);
    expect(&wrong, ERR_KEY,
           "wrong passphrase: it opens none of the 2 key slots");
    CHECK_OK(repo_open_with(dir, &opts, &r, ERR_ABORT), ERR_ABORT);
    CHECK(a.asked == 2); /* asked again after the wrong one */
    tmpdir_remove(dir);
}

/* A host that has not the memory for a guess knows nothing of the passphrase,
 * and nobody is told that it is wrong, or asked for it again. */
static void
test_no_memory(void)
{
    struct answers a = {.first = "right", .second = "right"};
    struct rlimit before, little = {0};
    struct err err = ERR_INIT;
    char dir[TMPDIR_MAX];
    CLEANUP(keyring_closep) struct keyring *k = NULL;
    FILE *f = fopen("/proc/self/statm", "re");
    unsigned long pages = 0;

    make_costly(dir, "right");
    CHECK_OK(keyring_open(dir, NULL, &k, ERR_ABORT), ERR_ABORT);
    CHECK(f != NULL && fscanf(f, "%lu", &pages) == 1);
    (void)fclose(f);
    CHECK(getrlimit(RLIMIT_AS, &before) == 0);
    little.rlim_cur = pages * 4096 + COSTLY_MEM / 2;
    little.rlim_max = before.rlim_max;
    CHECK(setrlimit(RLIMIT_AS, &little) == 0);
    CHECK(keyring_unlock(k, answer_with, &a, &err) < 0);
    CHECK(setrlimit(RLIMIT_AS, &before) == 0);
    expect(&err, ERR_SYSTEM, "key derivation with 64 MiB");
    CHECK(a.asked == 1);
    tmpdir_remove(dir);
}

/* Passphrases are bytes: none is cut, changed or empty. */
static void
test_passphrases(void)
{
    static char longest[SECRET_PASSPHRASE_MAX + 2];
    static const char *const good[] = {"x", "gr\xc3\xbc\xc3\x9f", " blanks ",
                                       longest};
    struct err err = ERR_INIT;
    char dir[TMPDIR_MAX], slot[17];

    memset(longest, 'l', SECRET_PASSPHRASE_MAX);
    make(dir, "right");
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        CHECK_OK(add_key(dir, "right", good[i], NULL, slot, ERR_ABORT),
                 ERR_ABORT);
        CHECK(opens(dir, good[i]));
    }
    longest[SECRET_PASSPHRASE_MAX - 1] = 'm';
    CHECK(!opens(dir, longest));
    longest[SECRET_PASSPHRASE_MAX] = 'l';
    CHECK(add_key(dir, "right", longest, NULL, slot, &err) < 0);
    expect(&err, ERR_USAGE, "a passphrase has 1 to 1024 bytes");
    err_clear(&err);
    CHECK(add_key(dir, "right", "", NULL, slot, &err) < 0);
    expect(&err, ERR_USAGE, "a passphrase has 1 to 1024 bytes");
    err_clear(&err);
    CHECK(add_key(dir, "right", "y", "two\nlines", slot, &err) < 0);
    expect(&err, ERR_USAGE, "a label is printable text");
    tmpdir_remove(dir);
}

/* A repository that is not encrypted has no keys, and init without an answer
 * makes nothing. */
static void
test_plain(void)
{
    CLEANUP(keyring_closep) struct keyring *k = NULL;
    struct err err = ERR_INIT;
    char dir[TMPDIR_MAX], sub[TMPDIR_MAX + 8];

    tmpdir_make(dir);
    (void)snprintf(sub, sizeof sub, "%s/sub", dir);
    CHECK(encrypted_init(sub, CHUNK, NULL, &err) < 0);
    expect(&err, ERR_KEY, "no new passphrase was given");
    CHECK(access(sub, F_OK) < 0);
    CHECK_OK(repo_init(sub, CHUNK, NULL, ERR_ABORT), ERR_ABORT);
    err_clear(&err);
    CHECK(keyring_open(sub, NULL, &k, &err) < 0);
    expect(&err, ERR_USAGE, "is not encrypted and has no keys");
    tmpdir_remove(dir);
}

/* -- losing, damaging, exchanging -------------------------------------------*/

/* One slot lost or damaged loses nothing; all lost: the paper key opens. */
static void
test_damage(void)
{
    CLEANUP(keyring_closep) struct keyring *k = NULL;
    CLEANUP_GUARDED struct secret *paper = guarded_alloc(sizeof *paper);
    CLEANUP(repo_closep) struct repo *r = NULL;
    struct answers a = {.kind = SECRET_PAPER_KEY};
    const struct repo_open_opts opts = {.unlock = answer_with, .arg = &a};
    char dir[TMPDIR_MAX], slot[17], path[400];
    struct err err = ERR_INIT;
    struct stat st;

    make(dir, "one");
    slot_of(dir, 0, slot);
    path_of(dir, slot, path);
    CHECK_OK(open_keys(dir, "one", &k, ERR_ABORT), ERR_ABORT);
    keyring_export(k, paper);
    CHECK_OK(add_key(dir, "one", "two", NULL, slot, ERR_ABORT), ERR_ABORT);
    CHECK(stat(path, &st) == 0 && truncate(path, st.st_size - 10) == 0);
    CHECK(opens(dir, "two"));
    CHECK(encrypted_open(dir, "one", &r, &err) < 0);
    expect(&err, ERR_KEY, "none of the 1 key slots that were tried");
    expect(&err, ERR_KEY, "the key slot does not end with its SHA-256");
    path_of(dir, slot, path);
    CHECK(unlink(path) == 0);
    err_clear(&err);
    CHECK(encrypted_open(dir, "two", &r, &err) < 0);
    expect(&err, ERR_KEY, "none of its 1 key slots can be used");
    expect(&err, ERR_KEY, "--paper-key-fd");
    a.first = paper->text;
    a.len = paper->len;
    CHECK_OK(repo_open_with(dir, &opts, &r, ERR_ABORT), ERR_ABORT);
    tmpdir_remove(dir);
}

static void
copy_file(const char *from, const char *to)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    CLEANUP_CLOSE int fd =
        open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    CHECK_OK(io_read_file(from, 65536, &b, ERR_ABORT), ERR_ABORT);
    CHECK(fd >= 0 && io_write_full(fd, b.data, b.len) == 0);
}

static void
problem_of(const char *dir, const char *slot, const char *words)
{
    CLEANUP(keyring_closep) struct keyring *k = NULL;
    bool found = false;

    CHECK_OK(keyring_open(dir, NULL, &k, ERR_ABORT), ERR_ABORT);
    for (size_t i = 0; i < keyring_size(k); i++) {
        const struct key_info *e = keyring_at(k, i);

        if (strcmp(e->slot, slot) != 0)
            continue;
        found = true;
        CHECK(strstr(e->problem, words) != NULL);
        if (strstr(e->problem, words) == NULL)
            printf("# '%s'\n", e->problem);
    }
    CHECK(found);
}

/* Slots and format objects of another repository, and slots under other names,
 * are known for what they are, though the passphrases are the same. */
static void
test_exchanged(void)
{
    char a[TMPDIR_MAX], b[TMPDIR_MAX], sa[17], sb[17], from[400], to[400];
    CLEANUP(repo_closep) struct repo *r = NULL;
    struct err err = ERR_INIT;

    make(a, "same");
    make(b, "same");
    slot_of(a, 0, sa);
    slot_of(b, 0, sb);
    path_of(b, sb, from);
    path_of(a, sb, to);
    copy_file(from, to);
    CHECK(opens(a, "same"));
    problem_of(a, sb, "it, or the format object, was exchanged");
    path_of(a, sa, from);
    path_of(a, "0123456789abcdef", to);
    CHECK(rename(from, to) == 0);
    problem_of(a, "0123456789abcdef", "under a wrong name");
    CHECK(encrypted_open(a, "same", &r, &err) < 0);
    expect(&err, ERR_KEY, "none of its 2 key slots can be used");
    CHECK(rename(to, from) == 0);
    CHECK(opens(a, "same"));
    (void)snprintf(from, sizeof from, "%s/format", b);
    (void)snprintf(to, sizeof to, "%s/format", a);
    copy_file(from, to);
    CHECK(unlink((path_of(a, sb, from), from)) == 0);
    problem_of(a, sa, "it, or the format object, was exchanged");
    err_clear(&err);
    CHECK(encrypted_open(a, "same", &r, &err) < 0);
    expect(&err, ERR_KEY, "was exchanged");
    tmpdir_remove(a);
    tmpdir_remove(b);
}

/* `text` with the first `from` made `to` (of equal length), and a second line
 * that fits. */
static void
rewrite(const char *path, const char *from, const char *to)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    CLEANUP_CLOSE int fd = -1;
    char hex[65], *at, *end;
    uint8_t sum[32];

    CHECK_OK(io_read_file(path, 65536, &b, ERR_ABORT), ERR_ABORT);
    at = strstr(buf_str(&b), from);
    CHECK(at != NULL && strlen(from) == strlen(to));
    if (at == NULL)
        return;
    memcpy(at, to, strlen(to));
    end = strchr((char *)b.data, '\n') + 1;
    CHECK_OK(
        hash_sha256(b.data, (size_t)(end - (char *)b.data), sum, ERR_ABORT),
        ERR_ABORT);
    hex_encode(sum, sizeof sum, hex);
    memcpy(end + 7, hex, 64);
    CHECK(unlink(path) == 0);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && io_write_full(fd, b.data, b.len) == 0);
}

/* A changed format object is named by its slots; and where the slot is made to
 * agree, it does not open: what it is bound to is inside the encryption. */
static void
test_format_changed(void)
{
    char dir[TMPDIR_MAX], slot[17], format[TMPDIR_MAX + 8], path[400];
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    char old[65], sum[65];
    CLEANUP(repo_closep) struct repo *r = NULL;
    struct err err = ERR_INIT;

    make(dir, "right");
    slot_of(dir, 0, slot);
    path_of(dir, slot, path);
    (void)snprintf(format, sizeof format, "%s/format", dir);
    CHECK_OK(io_read_file(format, 65536, &b, ERR_ABORT), ERR_ABORT);
    (void)snprintf(old, sizeof old, "%s", strstr(buf_str(&b), "sha256 ") + 7);
    rewrite(format, "\"chunk_size\":65536", "\"chunk_size\":32768");
    problem_of(dir, slot, "was made for another format object");
    buf_done(&b);
    CHECK_OK(io_read_file(format, 65536, &b, ERR_ABORT), ERR_ABORT);
    (void)snprintf(sum, sizeof sum, "%s", strstr(buf_str(&b), "sha256 ") + 7);
    rewrite(path, old, sum);
    problem_of(dir, slot, "");
    CHECK(encrypted_open(dir, "right", &r, &err) < 0);
    expect(&err, ERR_KEY, "wrong passphrase");
    tmpdir_remove(dir);
}

/* Any change of a slot, with a checksum that fits: it is refused, or does not
 * open; never another master key. */
static void
test_every_bit(void)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    struct repo_format f = {.id = "00112233445566778899aabbccddeeff"};
    const struct kdf_cost cost = {CHEAP_OPS, CHEAP_MEM};
    struct secret pass = {.len = 4, .text = "pass"};
    uint8_t master[32] = {1, 2, 3}, back[32], sum[32];
    struct key_slot s, t;
    size_t line, opened = 0;
    char hex[65];

    CHECK_OK(key_slot_wrap(&f, &pass, "label", &cost, master, &s, ERR_ABORT),
             ERR_ABORT);
    CHECK_OK(key_slot_encode(&s, &b, ERR_ABORT), ERR_ABORT);
    CHECK_OK(key_slot_decode(b.data, b.len, &t, ERR_ABORT), ERR_ABORT);
    CHECK_OK(key_slot_unwrap(&t, &pass, back, ERR_ABORT), ERR_ABORT);
    CHECK(memcmp(master, back, sizeof master) == 0);
    line = (size_t)((uint8_t *)memchr(b.data, '\n', b.len) + 1 - b.data);
    for (size_t bit = 0; bit < 8 * (line - 1); bit++) {
        b.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK(key_slot_decode(b.data, b.len, &t, NULL) < 0);
        CHECK_OK(hash_sha256(b.data, line, sum, ERR_ABORT), ERR_ABORT);
        hex_encode(sum, sizeof sum, hex);
        memcpy(b.data + line + 7, hex, 64);
        if (key_slot_decode(b.data, b.len, &t, NULL) == 0 &&
            key_slot_unwrap(&t, &pass, back, NULL) == 0) {
            CHECK(memcmp(master, back, sizeof master) == 0);
            opened++;
        }
        b.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    /* Upper-case hex digits are the same number, and nothing else opens. */
    CHECK(opened < 400);
    for (size_t cut = 0; cut < b.len; cut++)
        CHECK(key_slot_decode(b.data, cut, &t, NULL) < 0);
}

/* One whole slot: the key by the reference implementation of Argon2, wrapped by
 * tests/lib/aesgcm.py. */
static void
test_known_slot(void)
{
    static const char text[] =
        "{\"cipher\":\"aes-256-gcm\",\"format\":\"000102030405060708090a0b0c0d"
        "0e0f101112131415161718191a1b1c1d1e1f\",\"kdf\":\"argon2id13\","
        "\"label\":\"safe\",\"magic\":\"tidemark key\",\"mem\":1048576,"
        "\"nonce\":\"000102030405060708090a0b\",\"ops\":3,\"repository\":"
        "\"00112233445566778899aabbccddeeff\",\"salt\":"
        "\"73616c7473616c7473616c7473616c74\",\"slot\":\"0123456789abcdef\","
        "\"time_ns\":1795260313441102739,\"version\":1,\"wrapped\":"
        "\"d7c86985c7a514260706464db8b8fcd36d8f6e092d17b28e2bf2385a06d12ea9da37"
        "cade64ebadfe0c70ed9ef1a9a6ad\"}\nsha256 "
        "ec8e44019043f33c480f5df60c7d72177574d959788eaf6882fe22f3a97bdf78\n";
    struct secret pass = {.len = 13, .text = "correct horse"};
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    uint8_t master[32];
    struct key_slot s;

    CHECK_OK(
        key_slot_decode((const uint8_t *)text, strlen(text), &s, ERR_ABORT),
        ERR_ABORT);
    CHECK_OK(key_slot_unwrap(&s, &pass, master, ERR_ABORT), ERR_ABORT);
    for (unsigned i = 0; i < sizeof master; i++)
        CHECK(master[i] == i);
    CHECK_OK(key_slot_encode(&s, &b, ERR_ABORT), ERR_ABORT);
    CHECK_STR(buf_str(&b), text);
}

/* -- adding and removing ----------------------------------------------------*/

static void
test_remove(void)
{
    char dir[TMPDIR_MAX], one[17], two[17];
    struct err err = ERR_INIT;

    make(dir, "one");
    slot_of(dir, 0, one);
    CHECK(remove_key(dir, "one", one, &err) < 0);
    expect(&err, ERR_USAGE, "is the last one that can be used");
    CHECK_OK(add_key(dir, "one", "two", "second", two, ERR_ABORT), ERR_ABORT);
    err_clear(&err);
    CHECK(remove_key(dir, "one", one, &err) < 0);
    expect(&err, ERR_USAGE, "give that of one that stays");
    err_clear(&err);
    CHECK(remove_key(dir, "one", "abc", &err) < 0);
    expect(&err, ERR_NOT_FOUND, "no key slot 'abc'");
    one[6] = '\0'; /* the beginning of its name is enough */
    CHECK_OK(remove_key(dir, "two", one, ERR_ABORT), ERR_ABORT);
    CHECK(!opens(dir, "one") && opens(dir, "two"));
    err_clear(&err);
    CHECK(remove_key(dir, "two", two, &err) < 0);
    expect(&err, ERR_USAGE, "is the last one that can be used");
    tmpdir_remove(dir);
}

/* There is an end to adding, and it locks nobody out: a passphrase can be changed
 * at the limit, and what several added at once opens. */
static void
test_many(void)
{
    CLEANUP(keyring_closep) struct keyring *k = NULL, *late = NULL;
    struct answers a = {.fresh = "more"};
    const struct key_new new = {answer_with, &a, NULL, CHEAP_OPS, CHEAP_MEM};
    struct err err = ERR_INIT;
    char dir[TMPDIR_MAX], slot[17];

    make(dir, "one");
    CHECK_OK(open_keys(dir, "one", &k, ERR_ABORT), ERR_ABORT);
    for (unsigned i = 1; i < 63; i++)
        CHECK_OK(keyring_add(k, &new, slot, ERR_ABORT), ERR_ABORT);
    CHECK_OK(open_keys(dir, "one", &late, ERR_ABORT), ERR_ABORT);
    CHECK_OK(keyring_add(k, &new, slot, ERR_ABORT), ERR_ABORT);
    CHECK(keyring_size(k) == 64);
    CHECK(keyring_add(k, &new, slot, &err) < 0);
    expect(&err, ERR_USAGE, "has 64 key slots");
    CHECK(opens(dir, "one"));
    a.fresh = "two";
    CHECK_OK(keyring_passwd(k, &new, slot, ERR_ABORT), ERR_ABORT);
    CHECK(opens(dir, "two") && !opens(dir, "one"));
    a.fresh = "late";
    CHECK_OK(keyring_add(late, &new, slot, ERR_ABORT), ERR_ABORT);
    CHECK(keyring_size(late) == 65 && opens(dir, "late") && opens(dir, "two"));
    tmpdir_remove(dir);
}

/* passwd: another passphrase, the same label, the same master key. */
static void
test_passwd(void)
{
    CLEANUP(keyring_closep) struct keyring *k = NULL;
    struct answers a = {.fresh = "new"};
    const struct key_new new = {answer_with, &a, NULL, CHEAP_OPS, CHEAP_MEM};
    char dir[TMPDIR_MAX], slot[17];

    make(dir, "old");
    CHECK_OK(open_keys(dir, "old", &k, ERR_ABORT), ERR_ABORT);
    CHECK_OK(keyring_passwd(k, &new, slot, ERR_ABORT), ERR_ABORT);
    CHECK(opens(dir, "new") && !opens(dir, "old"));
    keyring_close(TAKE_PTR(k));
    CHECK_OK(keyring_open(dir, NULL, &k, ERR_ABORT), ERR_ABORT);
    CHECK(keyring_size(k) == 1);
    CHECK_STR(keyring_at(k, 0)->label, "first");
    tmpdir_remove(dir);
}

/* A process that was killed between its mark and the end hinders nobody from
 * opening, and the next removal of that slot ends what it began. */
static void
test_removal_was_killed(void)
{
    char dir[TMPDIR_MAX], one[17], two[17], path[400];
    struct err err = ERR_INIT;
    int fd;

    make(dir, "one");
    slot_of(dir, 0, one);
    CHECK_OK(add_key(dir, "one", "two", NULL, two, ERR_ABORT), ERR_ABORT);
    (void)snprintf(path, sizeof path, "%s/key/%s.remove-0123456789abcdef", dir,
                   one);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && close(fd) == 0);
    CHECK(opens(dir, "one") && opens(dir, "two"));
    CHECK(remove_key(dir, "one", two, &err) < 0);
    expect(&err, ERR_LOCKED, "would be the last");
    CHECK(opens(dir, "two"));
    CHECK_OK(remove_key(dir, "two", one, ERR_ABORT), ERR_ABORT);
    CHECK(access(path, F_OK) < 0);
    CHECK(!opens(dir, "one") && opens(dir, "two"));
    tmpdir_remove(dir);
}

/* Two processes, each with its own passphrase, remove each other's slot at the
 * same time, and two more add: never is none left, and nothing that was added
 * is lost. */
static void
test_at_once(void)
{
    static const char *const names[2] = {"one", "two"};

    for (unsigned round = 0; round < 25; round++) {
        char dir[TMPDIR_MAX], slot[2][17], ignored[17];
        pid_t pid[4];
        unsigned removed = 0, status_bad = 0;

        make(dir, names[0]);
        slot_of(dir, 0, slot[0]);
        CHECK_OK(add_key(dir, names[0], names[1], NULL, slot[1], ERR_ABORT),
                 ERR_ABORT);
        (void)fflush(stdout);
        for (unsigned i = 0; i < 4; i++) {
            pid[i] = fork();
            if (pid[i] != 0)
                continue;
            if (i < 2)
                _exit(remove_key(dir, names[i], slot[1 - i], NULL) == 0);
            _exit(round % 2 == 0 && add_key(dir, names[i % 2], "added", NULL,
                                            ignored, NULL) == 0);
        }
        for (unsigned i = 0; i < 4; i++) {
            int status = 0;

            CHECK(waitpid(pid[i], &status, 0) == pid[i]);
            status_bad += !WIFEXITED(status);
            if (i < 2)
                removed += WIFEXITED(status) && WEXITSTATUS(status) == 1;
            else if (WIFEXITED(status) && WEXITSTATUS(status) == 1)
                CHECK(opens(dir, "added"));
        }
        CHECK(status_bad == 0);
        CHECK(opens(dir, "one") || opens(dir, "two") || opens(dir, "added"));
        if (round % 2 != 0)
            CHECK(removed <= 1);
        tmpdir_remove(dir);
    }
}

/* -- paper ------------------------------------------------------------------*/

static const char repo_hex[] = "00112233445566778899aabbccddeeff";

static size_t
make_paper(uint8_t master[32], char text[PAPER_TEXT_MAX])
{
    size_t len;

    for (unsigned i = 0; i < 32; i++)
        master[i] = (uint8_t)(i * 37 + 11);
    paper_encode(repo_hex, master, text, &len);
    return len;
}

static void
test_paper(void)
{
    static const char alphabet[] = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    uint8_t master[32], back[32];
    char text[PAPER_TEXT_MAX], repo[33];
    size_t len = make_paper(master, text), changed = 0;
    char *lines = strstr(text, "\n1 ") + 1;

    CHECK_OK(paper_decode(text, len, repo, back, ERR_ABORT), ERR_ABORT);
    CHECK_STR(repo, repo_hex);
    CHECK(memcmp(master, back, 32) == 0);
    /* Every wrong character, one at a time, is known by its line. */
    for (char *p = lines; *p != '\0'; p++) {
        char old = *p;
        unsigned line = 1;

        for (const char *q = lines; q < p; q++)
            line += *q == '\n';
        if (strchr(alphabet, old) == NULL || p[-1] == '\n')
            continue;
        for (const char *c = alphabet; *c != '\0'; c++) {
            struct err err = ERR_INIT;
            char words[40];

            if (*c == old)
                continue;
            *p = *c;
            (void)snprintf(words, sizeof words, "line %u of the paper key",
                           line);
            CHECK(paper_decode(text, len, repo, back, &err) < 0);
            expect(&err, ERR_KEY, words);
            changed++;
        }
        *p = old;
    }
    CHECK(changed == 4 * 19 * 31);
}

/* As people write: capitals, no blanks, lines in another order, remarks. */
static void
test_paper_by_hand(void)
{
    uint8_t master[32], back[32];
    char text[PAPER_TEXT_MAX], hand[2 * PAPER_TEXT_MAX], repo[33], *line[4];
    size_t len = make_paper(master, text), n = 0;
    struct err err = ERR_INIT;

    for (unsigned i = 0; i < 4; i++) {
        char mark[4] = {'\n', (char)('1' + i), ' ', '\0'};

        line[i] = strstr(text, mark) + 1;
    }
    n += (size_t)sprintf(hand,
                         "Of the repository on nas1:\n"
                         "Repository  %.8s-%.8s %s\r\n",
                         repo_hex, repo_hex + 8, repo_hex + 16);
    for (unsigned i = 4; i-- > 0;) {
        n += (size_t)sprintf(hand + n, "  %u ", i + 1);
        for (const char *p = line[i] + 2; *p != '\n'; p++)
            if (*p != ' ')
                hand[n++] = (char)(*p >= 'a' && *p <= 'z' ? *p - 32 : *p);
        n += (size_t)sprintf(hand + n, "\r\n");
    }
    CHECK_OK(paper_decode(hand, n, repo, back, ERR_ABORT), ERR_ABORT);
    CHECK(memcmp(master, back, 32) == 0);
    /* Two lines for each other, a missing one, another repository's. */
    line[0][0] = '2';
    line[1][0] = '1';
    CHECK(paper_decode(text, len, repo, back, &err) < 0);
    expect(&err, ERR_KEY, "line 2 of the paper key does not fit");
    line[0][0] = '1';
    err_clear(&err);
    CHECK(paper_decode(text, len, repo, back, &err) < 0);
    expect(&err, ERR_KEY, "line 1 of the paper key does not fit");
    line[1][0] = '#';
    err_clear(&err);
    CHECK(paper_decode(text, len, repo, back, &err) < 0);
    expect(&err, ERR_KEY, "line 2 of the paper key is missing");
    line[1][0] = '2';
    *strstr(text, "0011") = '1';
    err_clear(&err);
    CHECK(paper_decode(text, len, repo, back, &err) < 0);
    expect(&err, ERR_KEY, "line 1 of the paper key does not fit");
}

/* -- memory -----------------------------------------------------------------*/

#define MASK 0x5a

/* Does any memory of this process hold the bytes `masked` ^ MASK? */
static unsigned
find_in_memory(const uint8_t *masked, size_t len)
{
    CLEANUP_CLOSE int mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
    FILE *maps = fopen("/proc/self/maps", "re");
    const size_t page_len = 4096 + 64; /* secrets lie across pages, too */
    uint8_t *page = mmap(NULL, page_len, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned found = 0;
    char line[512];

    CHECK(mem >= 0 && maps != NULL);
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL) {
        unsigned long from, to;
        char mode[8] = "";

        if (sscanf(line, "%lx-%lx %7s", &from, &to, mode) != 3 ||
            mode[0] != 'r' || strstr(line, "[v") != NULL ||
            to - from > 1ul << 30) /* the sanitizers' own */
            continue;
        for (unsigned long at = from; at < to; at += 4096) {
            ssize_t n;

            if (at + page_len > (uintptr_t)page && at < (uintptr_t)page + 8192)
                continue; /* what was read is no finding */
            n = pread(mem, page, page_len, (off_t)at);
            for (ssize_t i = 0; i + (ssize_t)len <= n; i++) {
                size_t k = 0;

                while (k < len && page[(size_t)i + k] == (masked[k] ^ MASK))
                    k++;
                found += k == len;
            }
        }
    }
    if (maps != NULL)
        (void)fclose(maps);
    (void)munmap(page, page_len);
    return found;
}

struct masked {
    uint8_t passphrase[20];
    uint8_t master[32];
};

static int
answer_masked(void *arg, const struct secret_ask *ask, struct secret *ret,
              struct err *err)
{
    const struct masked *m = arg;

    (void)err;
    if (ask->attempt > 0)
        return 1;
    ret->len = sizeof m->passphrase;
    for (size_t i = 0; i < ret->len; i++)
        ret->text[i] = (char)(m->passphrase[i] ^ MASK);
    return 0;
}

/* In a child, so that no other's memory is searched. */
static int
in_child(void (*fn)(struct masked *m, int fd, const char *dir),
         struct masked *m, int fd, const char *dir)
{
    int status = 0;
    pid_t pid;

    (void)fflush(stdout);
    pid = fork();
    if (pid == 0) {
        fn(m, fd, dir);
        (void)fflush(stdout);
        _exit(tap_failures != 0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

static void
make_masked(struct masked *m, int fd, const char *dir)
{
    const struct repo_init_opts opts = {.chunk_size = CHUNK,
                                        .encrypt = true,
                                        .passphrase = answer_masked,
                                        .arg = m,
                                        .kdf_ops = CHEAP_OPS,
                                        .kdf_mem = 1 << 20};
    struct keyring *k = NULL;
    static struct secret paper;
    char id[33];

    CHECK_OK(repo_init_with(dir, &opts, id, ERR_ABORT), ERR_ABORT);
    CHECK_OK(keyring_open(dir, NULL, &k, ERR_ABORT), ERR_ABORT);
    CHECK_OK(keyring_unlock(k, answer_masked, m, ERR_ABORT), ERR_ABORT);
    keyring_export(k, &paper);
    CHECK_OK(paper_decode(paper.text, paper.len, id, m->master, ERR_ABORT),
             ERR_ABORT);
    for (size_t i = 0; i < sizeof m->master; i++)
        m->master[i] ^= MASK;
    CHECK(io_write_full(fd, m->master, sizeof m->master) == 0);
    keyring_close(k);
}

static void
look_for_secrets(struct masked *m, int fd, const char *dir)
{
    const struct repo_open_opts opts = {.unlock = answer_masked, .arg = m};
    static uint8_t known[32];
    struct rlimit core = {1, 1};
    struct repo *r = NULL;

    (void)fd;
    CHECK_OK(repo_open_with(dir, &opts, &r, ERR_ABORT), ERR_ABORT);
    CHECK(getrlimit(RLIMIT_CORE, &core) == 0 && core.rlim_cur == 0 &&
          core.rlim_max == 0);
    CHECK(prctl(PR_GET_DUMPABLE) == 0);
    CHECK(find_in_memory(m->passphrase, sizeof m->passphrase) == 0);
    CHECK(find_in_memory(m->master, sizeof m->master) == 0);
    /* The search does find what is there. */
    for (size_t i = 0; i < sizeof known; i++)
        known[i] = m->master[i] ^ MASK;
    CHECK(find_in_memory(m->master, sizeof m->master) > 0);
    CHECK(known[0] == (m->master[0] ^ MASK));
    repo_close(r);
}

/* A process that has opened the repository has neither the passphrase nor the
 * master key in its memory any more, and writes no core file. */
static void
test_memory(void)
{
    struct masked m;
    char dir[TMPDIR_MAX];
    int fds[2];

    rand_bytes(&m, sizeof m);
    tmpdir_make(dir);
    CHECK(pipe(fds) == 0);
    CHECK(in_child(make_masked, &m, fds[1], dir) == 0);
    CHECK(read(fds[0], m.master, sizeof m.master) == sizeof m.master);
    CHECK(in_child(look_for_secrets, &m, -1, dir) == 0);
    (void)close(fds[0]);
    (void)close(fds[1]);
    tmpdir_remove(dir);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_open),
        TEST(test_no_memory),
        TEST(test_passphrases),
        TEST(test_plain),
        TEST(test_damage),
        TEST(test_exchanged),
        TEST(test_format_changed),
        TEST(test_known_slot),
        TEST(test_every_bit),
        TEST(test_remove),
        TEST(test_many),
        TEST(test_passwd),
        TEST(test_removal_was_killed),
        TEST(test_at_once),
        TEST(test_paper),
        TEST(test_paper_by_hand),
        TEST(test_memory),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
