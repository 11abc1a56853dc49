/* What a bitmap may be believed for, and the reason that fits when it may not:
 * every way in which a disk can be elsewhere than it was. */
#include "why.h"

#include "err.h"
#include "jv.h"
#include "repo.h"
#include "tap.h"

#define SIZE (1u << 20)
#define CHUNK REPO_CHUNK_DEFAULT

/* Where a disk is: host, process, chain.  Images from the top, "name:mtime",
 * separated by blanks; "+name" is a filter. */
struct where {
    const char *host, *boot;
    int pid, start;
    const char *chain;
};

#define HERE "h1", "b1", 100, 5000
#define RESTARTED "h1", "b1", 101, 6000
#define REBOOTED "h1", "b2", 100, 5000
#define MOVED "h2", "b3", 7, 70
#define NOWHERE NULL, NULL, 0, 0

static struct jv *
chain(const char *text)
{
    struct jv *list = jv_array();
    CLEANUP_FREE char *copy = strdup(text);
    char *save = NULL;

    for (char *w = strtok_r(copy, " ", &save); w != NULL;
         w = strtok_r(NULL, " ", &save)) {
        char *colon = strchr(w, ':');
        struct jv *e = jv_object();

        if (colon != NULL)
            *colon = '\0';
        CHECK(jv_set_str(e, "driver", "qcow2") == 0);
        if (w[0] != '+')
            CHECK(jv_set_str(e, "image", w) == 0);
        if (colon != NULL) {
            CHECK(jv_set_int(e, "mtime_ns", atoi(colon + 1)) == 0);
            CHECK(jv_set_int(e, "inode", atoi(colon + 1)) == 0);
        }
        CHECK(jv_add(list, e) == 0);
    }
    return list;
}

static struct jv *
info(const struct where *w)
{
    struct jv *in = jv_object();
    struct jv *o = jv_build("{s:s}", "driver", "qcow2");

    if (w->host != NULL)
        CHECK(jv_set_str(in, "host", w->host) == 0 &&
              jv_set_str(in, "boot", w->boot) == 0);
    if (w->pid != 0)
        CHECK(jv_set_int(in, "pid", w->pid) == 0 &&
              jv_set_int(in, "start", w->start) == 0);
    CHECK(jv_set(o, "instance", in) == 0);
    if (w->chain != NULL)
        CHECK(jv_set(o, "chain", chain(w->chain)) == 0);
    return o;
}

struct trust {
    const char *what;
    struct where then, now;
    enum why why;
};

static const struct trust trusts[] = {
    {"nothing changed", {HERE, "a"}, {HERE, "a"}, WHY_INCREMENTAL},
    {"restarted", {HERE, "a:1"}, {RESTARTED, "a:2"}, WHY_INCREMENTAL},
    {"renamed while off", {HERE, "a"}, {RESTARTED, "b"}, WHY_INCREMENTAL},
    {"renamed, rebooted", {HERE, "a"}, {REBOOTED, "b"}, WHY_INCREMENTAL},
    {"another host", {HERE, "a c:1"}, {MOVED, "b c:1"}, WHY_INCREMENTAL},
    {"carried over by a mirror", {HERE, "a"}, {HERE, "b"}, WHY_PIVOT},
    {"process not known", {NOWHERE, "a"}, {NOWHERE, "b"}, WHY_PIVOT},
    {"filter added", {HERE, "a c"}, {HERE, "+t a +t c"}, WHY_INCREMENTAL},
    {"backing file as it was",
     {HERE, "a c:1"},
     {RESTARTED, "a c:1"},
     WHY_INCREMENTAL},
    {"backing file changed", {HERE, "a c:1"}, {RESTARTED, "a c:2"}, WHY_CHAIN},
    {"backing file's time not known",
     {HERE, "a c:1"},
     {HERE, "a c"},
     WHY_INCREMENTAL},
    {"another backing file", {HERE, "a c"}, {HERE, "a d"}, WHY_CHAIN},
    {"streamed", {HERE, "a c"}, {HERE, "a"}, WHY_CHAIN},
    {"rebased onto something", {HERE, "a"}, {RESTARTED, "a c"}, WHY_CHAIN},
    {"in the middle", {HERE, "a c d"}, {HERE, "a d"}, WHY_CHAIN},
    {"old record", {HERE, NULL}, {HERE, "a"}, WHY_INCREMENTAL},
};

static void
test_a_bitmap_is_believed_on_the_ground_it_began_on(void)
{
    for (size_t i = 0; i < sizeof trusts / sizeof trusts[0]; i++) {
        const struct trust *t = &trusts[i];
        CLEANUP_JV struct jv *then = info(&t->then);
        CLEANUP_JV struct jv *now = info(&t->now);
        enum why got = why_distrust(then, now);

        CHECK(got == t->why);
        if (got != t->why)
            printf("# in case '%s': %s\n", t->what, why_text(got));
    }
    CHECK(why_distrust(NULL, NULL) == WHY_INCREMENTAL);
}

struct missing {
    const char *what;
    struct where then, now;
    bool persistent;
    const char *format;
    bool has_bitmaps, was_other;
    enum why why;
};

static const struct missing missings[] = {
    {"removed", {HERE, "a"}, {HERE, "a"}, 1, "qcow2", 0, 0, WHY_REMOVED},
    {"removed from raw", {HERE, "a"}, {HERE, "a"}, 0, "raw", 0, 0, WHY_REMOVED},
    {"restarted",
     {HERE, "a:1"},
     {RESTARTED, "a:1"},
     1,
     "qcow2",
     0,
     0,
     WHY_MISSING},
    {"rebooted", {HERE, "a"}, {REBOOTED, "a"}, 1, "qcow2", 0, 0, WHY_MISSING},
    {"raw, restarted",
     {HERE, "a"},
     {RESTARTED, "a"},
     0,
     "raw",
     0,
     0,
     WHY_RAW_RESTART},
    {"v2, restarted",
     {HERE, "a"},
     {RESTARTED, "a"},
     0,
     "qcow2",
     0,
     0,
     WHY_RESTART},
    {"other file of the same name",
     {HERE, "a:1"},
     {RESTARTED, "a:2"},
     1,
     "qcow2",
     0,
     0,
     WHY_REPLACED},
    {"other image",
     {HERE, "a"},
     {RESTARTED, "b"},
     1,
     "qcow2",
     0,
     0,
     WHY_REPLACED},
    {"other raw image",
     {HERE, "a"},
     {RESTARTED, "b"},
     0,
     "raw",
     0,
     0,
     WHY_REPLACED},
    {"image of another disk",
     {HERE, "a"},
     {HERE, "a"},
     1,
     "qcow2",
     1,
     1,
     WHY_REPLACED},
    {"point not known",
     {HERE, "a"},
     {RESTARTED, "a"},
     1,
     "qcow2",
     1,
     0,
     WHY_FOREIGN},
    {"mirror", {HERE, "a"}, {HERE, "b"}, 1, "qcow2", 0, 0, WHY_PIVOT},
    {"overlay", {HERE, "a"}, {HERE, "b a"}, 1, "qcow2", 0, 0, WHY_CHAIN},
    {"overlay, restarted",
     {HERE, "a"},
     {RESTARTED, "b a"},
     1,
     "qcow2",
     0,
     0,
     WHY_CHAIN},
    {"committed", {HERE, "b a"}, {HERE, "a"}, 1, "qcow2", 0, 0, WHY_CHAIN},
    {"host", {HERE, "a"}, {MOVED, "a"}, 1, "qcow2", 0, 0, WHY_MOVED},
    {"host, raw", {HERE, "a"}, {MOVED, "b"}, 0, "raw", 0, 0, WHY_MOVED},
    {"old record, raw",
     {NOWHERE, NULL},
     {HERE, "a"},
     0,
     "raw",
     0,
     0,
     WHY_RAW_RESTART},
    {"old record", {NOWHERE, NULL}, {HERE, "a"}, 1, "qcow2", 0, 0, WHY_MISSING},
};

static void
test_a_missing_bitmap_has_its_cause(void)
{
    static char generation[] = "0123456789abcdef0123456789abcdef";

    for (size_t i = 0; i < sizeof missings / sizeof missings[0]; i++) {
        const struct missing *m = &missings[i];
        CLEANUP_JV struct jv *then = info(&m->then);
        CLEANUP_JV struct jv *now = info(&m->now);
        const struct point_disk d = {.size = SIZE,
                                     .chunk_size = CHUNK,
                                     .generation = generation,
                                     .persistent = m->persistent,
                                     .source = then};
        const struct source_disk disk = {
            .size = SIZE, .format = m->format, .info = now};
        const struct why_facts f = {.newest = &d,
                                    .n_points = 1,
                                    .disk = &disk,
                                    .chunk_size = CHUNK,
                                    .state = TRACKING_MISSING,
                                    .has_bitmaps = m->has_bitmaps,
                                    .was_other = m->was_other};
        enum why got = why_full(&f);

        CHECK(got == m->why);
        if (got != m->why)
            printf("# in case '%s': %s\n", m->what, why_text(got));
        CHECK(!why_expected(got));
    }
}

/* What is said when an older point is the base, and when the newest one is but
 * not all is as it was. */
static void
test_notes(void)
{
    static char generation[] = "0123456789abcdef0123456789abcdef";
    static const struct {
        struct where then, now;
        bool older, untracked;
        enum tracking state;
        const char *part; /* of the note */
    } t[] = {
        {{HERE, "a"}, {HERE, "a"}, 0, 0, TRACKING_OK, NULL},
        {{HERE, "a"}, {RESTARTED, "a"}, 0, 0, TRACKING_OK, NULL},
        {{HERE, "a"}, {RESTARTED, "b"}, 0, 0, TRACKING_OK, "another name"},
        {{HERE, "a"}, {MOVED, "a"}, 0, 0, TRACKING_OK, "another host"},
        {{HERE, "a"}, {RESTARTED, "a"}, 1, 0, TRACKING_MISSING, "older copy"},
        {{HERE, "a"}, {HERE, "a"}, 1, 0, TRACKING_MISSING, "removed"},
        {{HERE, "b a"}, {HERE, "a"}, 1, 0, TRACKING_MISSING, "image of an ear"},
        {{HERE, "b"}, {HERE, "a"}, 1, 0, TRACKING_MISSING, "image of an earli"},
        {{HERE, "a"}, {HERE, "a"}, 1, 0, TRACKING_INCONSISTENT, "cannot be"},
        {{HERE, "a"}, {HERE, "a"}, 1, 1, TRACKING_MISSING, "had not begun"},
    };

    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        CLEANUP_JV struct jv *then = info(&t[i].then);
        CLEANUP_JV struct jv *now = info(&t[i].now);
        const struct point_disk d = {.size = SIZE,
                                     .generation =
                                         t[i].untracked ? NULL : generation,
                                     .source = then};
        const struct point_disk old = {.size = SIZE, .generation = generation};
        const struct source_disk disk = {.size = SIZE, .info = now};
        const struct why_facts f = {
            .newest = &d, .disk = &disk, .state = t[i].state};
        const char *note = why_note(&f, t[i].older ? &old : &d);

        if (t[i].part == NULL)
            CHECK_STR(note, "");
        else
            CHECK(strstr(note, t[i].part) != NULL);
        if (t[i].part != NULL && strstr(note, t[i].part) == NULL)
            printf("# %zu: %s\n", i, note);
    }
}

static void
test_another_uuid_is_seen(void)
{
    CLEANUP_JV struct jv *s = jv_build("{s:{s:s}}", "instance", "uuid", "aaaa");
    struct point_disk d = {.source = s};
    const struct point p = {.disks = &d, .n_disks = 1};

    CHECK(why_other_uuid(&p, "aaaa") == NULL);
    CHECK(why_other_uuid(&p, NULL) == NULL);
    CHECK_STR(why_other_uuid(&p, "bbbb"), "aaaa");
    d.source = NULL;
    CHECK(why_other_uuid(&p, "bbbb") == NULL);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_a_bitmap_is_believed_on_the_ground_it_began_on),
        TEST(test_a_missing_bitmap_has_its_cause),
        TEST(test_notes),
        TEST(test_another_uuid_is_seen),
    };

    return tap_run(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
