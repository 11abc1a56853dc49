/* Points as JSON and by name. */
#include "cleanup.h"
#include "err.h"
#include "jv.h"
#include "point.h"
#include "repo.h"
#include "tap.h"

DEFINE_CLEANUP(struct point *, point_free)

#define SID "00112233445566778899aabbccddeeff"
#define SID2 "10112233445566778899aabbccddeeff"

static char *
copy_of(const char *s)
{
    char *copy = strdup(s);

    if (copy == NULL)
        abort();
    return copy;
}

static struct point *
sample(void)
{
    struct point *p = point_new();
    struct point_disk *d = calloc(2, sizeof *d);

    if (p == NULL || d == NULL)
        abort();
    (void)strcpy(p->id, SID);
    (void)strcpy(p->parent, SID2);
    p->seq = 7;
    p->machine = copy_of("wéb 1@home");
    p->lineage = copy_of(SID2);
    p->time_ns = -5;
    p->consistency = copy_of("filesystem");
    p->freeze_ms = 12;
    p->capture = copy_of("pull");
    p->tags = calloc(2, sizeof *p->tags);
    if (p->tags == NULL)
        abort();
    p->tags[0] = copy_of("before-upgrade");
    p->tags[1] = copy_of("v1.2_x");
    p->n_tags = 2;
    p->config.b[3] = 9;
    p->config_len = 100;
    for (unsigned i = 0; i < 2; i++) {
        d[i].name = copy_of(i == 0 ? "vda" : "vdb");
        d[i].size = 1000000 + i;
        d[i].chunk_size = 65536;
        d[i].root.b[31] = 1;
        d[i].format = copy_of("qcow2");
        d[i].generation = i == 0 ? copy_of(SID) : NULL;
        d[i].persistent = i == 0;
        d[i].tracking = copy_of("full");
        d[i].reason = copy_of("new disk");
        d[i].read_bytes = 1;
        d[i].dirty_bytes = 2;
        d[i].new_bytes = 3;
        d[i].stored_bytes = 4;
        d[i].source = i == 0 ? jv_build("{s:s}", "node", "drive0") : NULL;
    }
    p->disks = d;
    p->n_disks = 2;
    return p;
}

static struct jv *
sample_json(void)
{
    CLEANUP(point_freep) struct point *p = sample();
    uint8_t prev[32] = {1, 2, 3};

    return point_to_json(p, prev, ERR_ABORT);
}

/* What is written reads back, every field. */
static void
test_round_trip(void)
{
    CLEANUP_JV struct jv *j = sample_json();
    CLEANUP_JV struct jv *again = NULL;
    CLEANUP(point_freep) struct point *p = NULL;
    struct err err = ERR_INIT;
    uint8_t prev[32];
    bool has_prev;

    CHECK_OK(point_from_json(j, &p, prev, &has_prev, &err), &err);
    if (p == NULL)
        return;
    CHECK(has_prev && prev[0] == 1 && prev[2] == 3 && prev[3] == 0);
    CHECK_STR(p->machine, "wéb 1@home");
    CHECK(p->seq == 7 && p->time_ns == -5 && p->freeze_ms == 12);
    CHECK(p->config.b[3] == 9 && p->config_len == 100 && p->n_disks == 2);
    CHECK(p->n_tags == 2 && point_has_tag(p, "v1.2_x"));
    CHECK(!point_has_tag(p, "v1.2"));
    CHECK(point_disk(p, "vdb") == &p->disks[1]);
    CHECK(point_disk(p, "vdc") == NULL);
    CHECK(p->disks[1].generation == NULL && p->disks[1].source == NULL);
    CHECK_STR(p->disks[0].generation, SID);
    CHECK_STR(jv_get_str(p->disks[0].source, "node"), "drive0");
    again = point_to_json(p, prev, &err);
    CHECK(jv_equal(j, again));
}

/* Fields of later versions do not disturb. */
static void
test_unknown_field(void)
{
    CLEANUP_JV struct jv *j = sample_json();
    CLEANUP(point_freep) struct point *p = NULL;
    uint8_t prev[32];
    bool has_prev;

    (void)jv_set_str(j, "colour", "green");
    CHECK(point_from_json(j, &p, prev, &has_prev, NULL) == 0);
}

static void
refused(struct jv *j, const char *word)
{
    struct point *p = NULL;
    struct err err = ERR_INIT;
    uint8_t prev[32];
    bool has_prev;

    CHECK(point_from_json(j, &p, prev, &has_prev, &err) < 0);
    CHECK(p == NULL && err.code == ERR_FORMAT);
    if (strstr(err.msg, word) == NULL)
        CHECK_STR(err.msg, word);
}

/* Points of before there were tags have none; bad lists are refused. */
static void
test_tags(void)
{
    static const char *const wrong[] = {
        "{}",
        "7",
        "[7]",
        "[\"\"]",
        "[\"UPPER\"]",
        "[\"a b\"]",
        "[\"a\",\"b\",\"a\"]",
        "[\"012345678901234567890123456789012\"]"};
    CLEANUP_JV struct jv *j = sample_json();
    CLEANUP_JV struct jv *many = jv_array();
    CLEANUP(point_freep) struct point *p = NULL;
    uint8_t prev[32];
    bool has_prev;

    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct jv *v = NULL;

        (void)jv_parse(wrong[i], strlen(wrong[i]), 4, &v, ERR_ABORT);
        (void)jv_set(j, "tags", v);
        refused(j, "tag");
    }
    for (int i = 0; i <= POINT_TAGS_MAX; i++) {
        char word[8];

        (void)snprintf(word, sizeof word, "t%d", i);
        (void)jv_add(many, jv_string(word));
    }
    (void)jv_set(j, "tags", jv_ref(many));
    refused(j, "tags");
    (void)jv_del(j, "tags");
    CHECK(point_from_json(j, &p, prev, &has_prev, NULL) == 0);
    CHECK(p != NULL && p->n_tags == 0);
}

/* Each field gone, and each field of another type, is refused by name. */
static void
test_each_field(void)
{
    static const char *const top[] = {
        "id",      "parent",     "prev",        "seq",       "machine",
        "lineage", "time_ns",    "consistency", "freeze_ms", "capture",
        "config",  "config_len", "disks"};
    static const char *const disk[] = {
        "name",        "size",       "chunk_size",  "root",   "format",
        "generation",  "persistent", "tracking",    "reason", "read_bytes",
        "dirty_bytes", "new_bytes",  "stored_bytes"};

    for (size_t i = 0; i < ARRAY_SIZE(top); i++) {
        CLEANUP_JV struct jv *j = sample_json();

        (void)jv_del(j, top[i]);
        refused(j, top[i]);
        (void)jv_set(j, top[i], jv_real(1.5));
        refused(j, top[i]);
    }
    for (size_t i = 0; i < ARRAY_SIZE(disk); i++) {
        CLEANUP_JV struct jv *j = sample_json();
        CLEANUP_JV struct jv *d = jv_ref(jv_at(jv_get(j, "disks"), 1));

        (void)jv_del(d, disk[i]);
        refused(j, disk[i]);
        (void)jv_set(d, disk[i], jv_array());
        refused(j, disk[i]);
    }
}

struct hostile {
    const char *field, *json, *word;
};

static const struct hostile bad_top[] = {
    {"id", "\"00112233445566778899AABBCCDDEEFF\"", "id"},
    {"id", "\"00112233445566778899aabbccddeeff00\"", "id"},
    {"id", "\"\"", "id"},
    {"parent", "\"" SID "\"", "parent"},
    {"parent", "\"\"", "'parent' and 'prev'"},
    {"prev", "\"\"", "'parent' and 'prev'"},
    {"prev", "\"00\"", "prev"},
    {"seq", "0", "seq"},
    {"seq", "-1", "seq"},
    {"machine", "\"\"", "machine"},
    {"machine", "\"..\"", "machine"},
    {"machine", "\"a/b\"", "machine"},
    {"machine", "\"a\\u001b[2J\"", "machine"},
    {"machine", "\"a\\u202eb\"", "machine"},
    {"lineage", "\"zz\"", "lineage"},
    {"consistency", "\"\"", "consistency"},
    {"capture", "\"pull \"", "capture"},
    {"freeze_ms", "-1", "freeze_ms"},
    {"config", "\"00\"", "config"},
    {"config_len", "0", "config"},
    {"config_len", "16777217", "config"},
    {"disks", "{}", "disks"},
    {"disks", "[5]", "disk 0"},
};
static const struct hostile bad_disk[] = {
    {"name", "\"vda\"", "two disks"},
    {"name", "\"/etc/passwd\"", "name"},
    {"size", "4611686018427387905", "disk size"},
    {"size", "9223372036854775808", "size"},
    {"size", "0", "root"},
    {"chunk_size", "65535", "chunk size"},
    {"chunk_size", "8192", "chunk size"},
    {"chunk_size", "4294967296", "chunk_size"},
    {"chunk_size", "4295032832", "chunk_size"},
    {"root", "\"12\"", "root"},
    {"format", "\"\"", "format"},
    {"generation", "\"../../x\"", "generation"},
    {"reason", "\"a\\nb\"", "reason"},
    {"stored_bytes", "4611686018427387905", "stored_bytes"},
};

/* Values that a field may not have. */
static void
test_hostile_values(void)
{
    for (size_t i = 0; i < ARRAY_SIZE(bad_top); i++) {
        CLEANUP_JV struct jv *j = sample_json();
        struct jv *v;

        if (jv_parse(bad_top[i].json, strlen(bad_top[i].json), 8, &v, NULL) ==
            0) {
            (void)jv_set(j, bad_top[i].field, v);
            refused(j, bad_top[i].word);
        }
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad_disk); i++) {
        CLEANUP_JV struct jv *j = sample_json();
        CLEANUP_JV struct jv *d = jv_ref(jv_at(jv_get(j, "disks"), 1));
        struct jv *v;

        if (jv_parse(bad_disk[i].json, strlen(bad_disk[i].json), 8, &v, NULL) ==
            0) {
            (void)jv_set(d, bad_disk[i].field, v);
            refused(j, bad_disk[i].word);
        }
    }
    refused(NULL, "id");
}

static void
test_names(void)
{
    char text[POINT_NAME_MAX + 2];

    CHECK(point_name_ok("web1") && point_name_ok("a b") && point_name_ok("ü"));
    CHECK(point_name_ok("日本語") && point_name_ok("\xf0\x9f\x92\xbe"));
    CHECK(point_name_ok("...") && point_name_ok("a@b~2"));
    CHECK(!point_name_ok(NULL) && !point_name_ok("") && !point_name_ok("."));
    CHECK(!point_name_ok("..") && !point_name_ok("a/b"));
    CHECK(!point_name_ok("a\tb") && !point_name_ok("\x7f"));
    CHECK(!point_name_ok("\xc2\x85"));         /* C1 control */
    CHECK(!point_name_ok("\xc0\xaf"));         /* overlong '/' */
    CHECK(!point_name_ok("\xe0\x80\xaf"));     /* overlong '/' */
    CHECK(!point_name_ok("\xed\xa0\x80"));     /* surrogate */
    CHECK(!point_name_ok("\xf4\x90\x80\x80")); /* beyond U+10FFFF */
    CHECK(!point_name_ok("\x80") && !point_name_ok("a\xc3"));
    CHECK(!point_name_ok("\xff") && !point_name_ok("\xe2\x80\x8b"));
    memset(text, 'a', sizeof text);
    text[POINT_NAME_MAX + 1] = '\0';
    CHECK(!point_name_ok(text));
    text[POINT_NAME_MAX] = '\0';
    CHECK(point_name_ok(text));
}

/* What a reader would refuse is not written. */
static void
test_not_written(void)
{
    CLEANUP(point_freep) struct point *p = sample();
    struct err err = ERR_INIT;

    free(p->disks[1].tracking);
    p->disks[1].tracking = NULL;
    CHECK(point_to_json(p, NULL, &err) == NULL);
    CHECK(strstr(err.msg, "disk 1") && strstr(err.msg, "tracking"));
    point_free(NULL);
}

/* -- finding ----------------------------------------------------------------*/

static const struct {
    const char *machine, *id;
    uint64_t seq;
    int64_t time_ns;
} known[] = {
    {"db@x", "aaaa0000000000000000000000000000", 1, 0},
    /* 2026-11-19T18:00:07.5Z, 2026-11-20T03:00:00Z, 2026-11-20T18:00:07Z,
     * and one whose clock was years ahead, before the last */
    {"web1", "1f3a9c00000000000000000000000000", 1, 1795111207500000000},
    {"web1", "1f3a9d00000000000000000000000000", 2, 1795143600000000000},
    {"web1", "20260000000000000000000000000000", 3, 2000000000000000000},
    {"web1", "cafe0000000000000000000000000000", 4, 1795197607000000000},
    {"web11", "bbbb0000000000000000000000000000", 1, 1},
};

static struct point_list
known_list(void)
{
    struct point_list l = {0};

    l.v = calloc(ARRAY_SIZE(known), sizeof(struct point *));
    if (l.v == NULL)
        abort();
    for (; l.n < ARRAY_SIZE(known); l.n++) {
        struct point *p = l.v[l.n] = point_new();

        if (p == NULL)
            abort();
        p->machine = copy_of(known[l.n].machine);
        (void)strcpy(p->id, known[l.n].id);
        p->seq = known[l.n].seq;
        p->time_ns = known[l.n].time_ns;
    }
    return l;
}

static void
test_find(void)
{
    static const struct {
        const char *spec, *id;
    } t[] = {
        {"web1", "cafe"},
        {"web1@latest", "cafe"},
        {"web1@latest~0", "cafe"},
        {"web1@latest~1", "2026"},
        {"web1@latest~3", "1f3a9c"},
        {"web1@1f3a9c", "1f3a9c"},
        {"web1@1F3A9D", "1f3a9d"},
        {"web1@2026", "2026"}, /* digits, not a year */
        {"web1@cafe0000000000000000000000000000", "cafe"},
        {"web1@2026-11-20", "cafe"},
        {"web1@2026-11-20T18:00", "cafe"},
        {"web1@2026-11-20T18:00Z", "cafe"},
        {"web1@2026-11-20T18:00:07Z", "cafe"},
        {"web1@2026-11-20T18:00:06", "1f3a9d"},
        {"web1@2026-11-20T17:59", "1f3a9d"},
        {"web1@2026-11-20T02:59", "1f3a9c"},
        {"web1@2026-11-19T18:00:07", "1f3a9c"},
        {"web1@2026-11-19", "1f3a9c"},
        {"web1@2190-01-01", "cafe"}, /* the number counts, not the time */
        {"web11", "bbbb"},
        {"web11@latest", "bbbb"},
        {"db@x", "aaaa"},
        {"db@x@latest", "aaaa"},
        {"db@x@1970-01-01", "aaaa"},
    };
    CLEANUP(point_list_done) struct point_list l = known_list();

    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        const struct point *p = NULL;
        struct err err = ERR_INIT;

        CHECK_OK(point_find(&l, t[i].spec, &p, &err), &err);
        if (p == NULL || strncmp(p->id, t[i].id, strlen(t[i].id)) != 0)
            CHECK_STR(t[i].spec, p == NULL ? "not found" : p->id);
    }
}

static const struct {
    const char *spec;
    enum err_code code;
    const char *word;
} not_found[] = {
    {"web2", ERR_NOT_FOUND, "'db@x', 'web1', 'web11'"},
    {"web", ERR_NOT_FOUND, "no machine 'web'"},
    {"", ERR_NOT_FOUND, "no machine ''"},
    {"@latest", ERR_NOT_FOUND, "no machine ''"},
    {"web2@latest", ERR_NOT_FOUND, "no machine 'web2'"},
    {"web1@latest~4", ERR_NOT_FOUND, "newest of 4 is cafe00000000 of 2026"},
    {"web1@dead", ERR_NOT_FOUND, "see: tidemark points web1"},
    {"web1@2026-11-18", ERR_NOT_FOUND, "has no point '2026-11-18'"},
    {"web1@1f3a", ERR_USAGE, "1f3a9c00000000000000000000000000, 1f3a9d"},
    {"web1@1f3", ERR_USAGE, "4 or more digits"},
    {"web1@", ERR_USAGE, "4 or more digits"},
    {"web1@latest~", ERR_USAGE, "number"},
    {"web1@latest~-1", ERR_USAGE, "number"},
    {"web1@latest~9999999999", ERR_USAGE, "number"},
    {"web1@latest~1x", ERR_USAGE, "number"},
    {"web1@latestx", ERR_NOT_FOUND, "no point 'latestx'"},
    {"web1@2026-13-01", ERR_USAGE, "no time"},
    {"web1@2026-02-29", ERR_USAGE, "no time"},
    {"web1@2026-11-20T", ERR_USAGE, "no time"},
    {"web1@2026-11-20T24:00", ERR_USAGE, "no time"},
    {"web1@2026-11-20T18", ERR_USAGE, "no time"},
    {"web1@2026-11-20T18:0", ERR_USAGE, "no time"},
    {"web1@2026-11-20T18:00:", ERR_USAGE, "no time"},
    {"web1@2026-11-20T18:00:00ZZ", ERR_USAGE, "no time"},
    {"web1@2026-", ERR_USAGE, "no time"},
    {"web1@1f3a9c000000000000000000000000000", ERR_USAGE, "digits"},
};

/* What is not there: the error says what is, and how to see it. */
static void
test_find_errors(void)
{
    CLEANUP(point_list_done) struct point_list l = known_list();
    struct point_list empty = {0};
    const struct point *p = NULL;
    struct err err = ERR_INIT;

    for (size_t i = 0; i < ARRAY_SIZE(not_found); i++) {
        err_clear(&err);
        CHECK(point_find(&l, not_found[i].spec, &p, &err) < 0 && p == NULL);
        CHECK(err.code == not_found[i].code);
        if (strstr(err.msg, not_found[i].word) == NULL)
            CHECK_STR(err.msg, not_found[i].word);
    }
    err_clear(&err);
    CHECK(point_find(&empty, "web1", &p, &err) < 0);
    CHECK(err.code == ERR_NOT_FOUND && strstr(err.msg, "tidemark backup"));
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_round_trip),     TEST(test_unknown_field),
        TEST(test_tags),           TEST(test_each_field),
        TEST(test_hostile_values), TEST(test_names),
        TEST(test_not_written),    TEST(test_find),
        TEST(test_find_errors),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
