/* Collection of a damaged repository: it refuses before anything is deleted, and
 * says what to do. */
#include "tap.h"

#include <fcntl.h>

#include "gc_model.h"

struct first_key {
    char key[REPO_KEY_MAX];
    unsigned skip;
};

static int
take_key(void *arg, const char *key, uint64_t len)
{
    struct first_key *f = arg;

    (void)len;
    (void)snprintf(f->key, sizeof f->key, "%s", key);
    return f->skip-- == 0;
}

static void
some_key(struct model *m, const char *kind, unsigned skip, char *key)
{
    struct first_key f = {.skip = skip};

    CHECK(store_list(m->r->store, kind, take_key, &f, ERR_ABORT) == 1);
    (void)snprintf(key, REPO_KEY_MAX, "%s", f.key);
}

static void
spoil(struct model *m, const char *key, uint64_t off)
{
    char path[512];
    int fd;
    uint8_t c;

    (void)snprintf(path, sizeof path, "%s/%s", m->t.path, key);
    fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    if (pread(fd, &c, 1, (off_t)off) == 1) { /* else it ends before */
        c ^= 0x55;
        CHECK(pwrite(fd, &c, 1, (off_t)off) == 1);
    }
    (void)close(fd);
}

static void
take_away(struct model *m, const char *key)
{
    char path[512];

    (void)snprintf(path, sizeof path, "%s/%s", m->t.path, key);
    CHECK(unlink(path) == 0);
}

/* It says what to do, and deletes nothing. */
static void
check_refused(struct model *m, const char *words)
{
    static const char *const kinds[] = {"commit", "data", "meta", "index",
                                        "forget"};
    unsigned before[ARRAY_SIZE(kinds)];
    struct err err = ERR_INIT;
    struct repo_gc_report rep;

    model_reopen(m);
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        before[i] = model_count(m, kinds[i]);
    CHECK(model_gc(m, NULL, false, &rep, &err) < 0);
    if (strstr(err.msg, words) == NULL) {
        printf("# said: %s\n", err.msg);
        CHECK(false);
    }
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        CHECK(model_count(m, kinds[i]) == before[i]);
    CHECK(model_count(m, "session") == 0);
}

#define ADVICE "nothing was deleted; run: tidemark check --repair"

static void
test_damaged_objects_are_refused(void)
{
    static const struct {
        const char *kind;
        bool missing;
        uint64_t off;
        const char *says;
    } damage[] = {
        {"commit", false, 100, "put this object back from another copy"},
        {"index", false, 80, ADVICE},
        {"index", false, 1500, ADVICE},
        {"index", true, 0, ADVICE},
        {"meta", true, 0, ""},
    };

    for (size_t i = 0; i < ARRAY_SIZE(damage); i++) {
        char key[REPO_KEY_MAX];
        struct model m;

        model_chain(&m);
        model_forget(&m, 0);
        some_key(&m, damage[i].kind, 0, key);
        if (damage[i].missing)
            take_away(&m, key);
        else
            spoil(&m, key, damage[i].off);
        printf("# %s\n", key);
        check_refused(&m, damage[i].says);
        model_end(&m);
    }
}

/* Every page is needed, so is every chunk's pack. */
static void
test_missing_packs_are_refused(void)
{
    struct model m;
    unsigned n;

    model_chain(&m);
    n = model_count(&m, "data");
    model_end(&m);
    for (unsigned i = 0; i < n; i += 3) {
        char key[REPO_KEY_MAX];

        model_begin(&m);
        model_backup(&m, "vm", 0, 1, MODEL_CHUNKS);
        model_backup(&m, "other", 3, 1, 2);
        model_forget(&m, 1);
        if (i < model_count(&m, "data") - 1) {
            some_key(&m, "data", 0, key);
            take_away(&m, key);
            /* Perhaps only the forgotten point needs it. */
            if (strstr(key, m.points[0].id) != NULL)
                check_refused(&m, "whose pack is not there");
        }
        model_end(&m);
    }
}

static void
test_damaged_condemned_list_is_refused(void)
{
    struct pack_set *set = pack_set_new();
    struct jv *payload = jv_object();
    struct pack_name name = {.class = PACK_DATA, .seq = 1};
    static const char key[] = "gc/00112233445566778899aabbccddeeff.condemned";
    struct model m;

    model_chain(&m);
    model_forget(&m, 0);
    CHECK_OK(pack_set_add(set, &name, ERR_ABORT), ERR_ABORT);
    CHECK(jv_set(payload, "packs", pack_set_to_json(set)) == 0);
    CHECK_OK(record_write(m.r, key, COMMIT_CONDEMNED, payload, ERR_ABORT),
             ERR_ABORT);
    spoil(&m, key, 40);
    check_refused(&m, ADVICE);
    pack_set_free(set);
    jv_free(payload);
    model_end(&m);
}

/* A forget that nobody with the key has written removes nothing. */
static void
test_forged_forget_is_refused(void)
{
    char key[REPO_KEY_MAX];
    struct model m;

    model_chain(&m);
    (void)snprintf(key, sizeof key, "forget/%s", m.points[0].id);
    CHECK_OK(store_put(m.r->store, key, "x", 1, ERR_ABORT), ERR_ABORT);
    check_refused(&m, "nothing was deleted");
    model_end(&m);
}

/* A frame that must be copied and is damaged ends the collection; all packs are
 * still there. */
static void
test_bad_survivor_ends_it(void)
{
    struct model m;
    unsigned n;

    model_begin(&m);
    model_backup(&m, "vm", 0, 1, MODEL_CHUNKS);
    model_backup(&m, "vm", 0, 2, MODEL_CHUNKS / 2);
    model_forget(&m, 0);
    n = model_count(&m, "data");
    for (unsigned i = 0; i < n; i++) {
        char key[REPO_KEY_MAX];

        some_key(&m, "data", i, key);
        if (strstr(key, m.points[0].id) == NULL)
            continue;
        for (uint64_t off = 64 + 72; off < 1000; off += 60)
            spoil(&m, key, off);
    }
    check_refused(&m, "run: tidemark check --repair");
    model_end(&m);
}

/* Two writers at once store the same: when one copy is damaged, the other one
 * is taken. */
static void
test_other_copy_is_taken(void)
{
    struct repo_gc_report rep;
    struct repo_session *a, *b;
    uint64_t values[MODEL_CHUNKS];
    struct model m;
    unsigned n;

    model_begin(&m);
    a = model_session(&m);
    b = model_session(&m);
    model_values(&m, values, 0, 1, MODEL_CHUNKS);
    for (unsigned i = 0; i < MODEL_CHUNKS; i++)
        model_put(b, values[i]);
    CHECK_OK(model_commit(&m, a, "a", values, ERR_ABORT), ERR_ABORT);
    CHECK_OK(model_commit(&m, b, "b", values, ERR_ABORT), ERR_ABORT);
    repo_session_free(a);
    repo_session_free(b);
    model_backup(&m, "c", 0, 2, MODEL_CHUNKS / 2);
    model_forget(&m, 0);
    model_forget(&m, 1);
    n = model_count(&m, "data");
    for (unsigned i = 0; i < n; i++) {
        char key[REPO_KEY_MAX];

        some_key(&m, "data", i, key);
        for (uint64_t off = 64 + 72; off < 900; off += 60)
            if (strstr(key, m.points[0].id) != NULL)
                spoil(&m, key, off);
    }
    model_collect(&m, NULL, &rep);
    CHECK(rep.points_removed == 2 && rep.bytes_copied > 0);
    CHECK(model_check(&m) && model_clean(&m));
    model_end(&m);
}

/* What goes from a segment into the next one is as it was when the segment was
 * checked, which may have been hours ago. */
struct late_damage {
    struct model_clock clock;
    struct model *m;
    char key[REPO_KEY_MAX];
    unsigned done;
};

static void
damage_late(void *arg, const char *phase, uint64_t done, uint64_t total)
{
    struct late_damage *d = arg;
    uint64_t len = 0;

    (void)done;
    (void)total;
    if (strcmp(phase, "index") != 0 || d->done++ > 0)
        return;
    CHECK(store_size(d->m->r->store, d->key, &len, ERR_ABORT) == 1);
    for (unsigned i = 1; i <= 4; i++) /* ids of the last records */
        spoil(d->m, d->key,
              len - SEGMENT_SHA_LEN - (uint64_t)i * SEGMENT_RECORD_LEN + 8);
}

static void
test_segment_damaged_while_it_is_used_ends_it(void)
{
    struct model m;
    struct late_damage d = {.m = &m};
    struct repo_gc_opts opts = {.now_ns = model_now,
                                .sleep_ns = model_sleep,
                                .progress = damage_late,
                                .arg = &d};
    struct err err = ERR_INIT;
    struct repo_gc_report rep;
    unsigned n, n_index;

    model_begin(&m);
    model_backup(&m, "vm", 0, 1, MODEL_CHUNKS);
    model_backup(&m, "vm", 0, 2, MODEL_CHUNKS / 2);
    model_forget(&m, 0);
    some_key(&m, "index", 0, d.key);
    n = model_count(&m, "data");
    n_index = model_count(&m, "index");
    CHECK(repo_gc_limited(m.r, &opts, &model_limits, &rep, &err) < 0);
    printf("# said: %s\n", err.msg);
    CHECK(d.done > 0 && strstr(err.msg, ADVICE) != NULL);
    CHECK(model_count(&m, "data") == n);
    CHECK(model_count(&m, "index") == n_index);
    model_end(&m);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_damaged_objects_are_refused),
        TEST(test_missing_packs_are_refused),
        TEST(test_damaged_condemned_list_is_refused),
        TEST(test_forged_forget_is_refused),
        TEST(test_bad_survivor_ends_it),
        TEST(test_other_copy_is_taken),
        TEST(test_segment_damaged_while_it_is_used_ends_it),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
