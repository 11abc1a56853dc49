#include "tap.h"

#include "err.h"
#include "jv.h"

static struct jv *
parse(const char *text)
{
    struct jv *j = NULL;
    struct err e = ERR_INIT;

    CHECK_OK(jv_parse(text, strlen(text), 8, &j, &e), &e);
    return j;
}

static void
test_paths_and_types(void)
{
    CLEANUP_JV struct jv *j =
        parse("{\"a\":{\"b\":{\"s\":\"x\",\"n\":-5,\"t\":true}},\"l\":[1,2]}");
    int64_t n = 0;
    uint64_t u = 9;

    CHECK_STR(jv_get_str(j, "a.b.s"), "x");
    CHECK(jv_get_int(j, "a.b.n", &n) && n == -5);
    CHECK(!jv_get_uint(j, "a.b.n", &u) && u == 9);
    CHECK(jv_get_bool(j, "a.b.t", false));
    CHECK(jv_get_bool(j, "a.b.none", true));
    CHECK(jv_get_str(j, "a.b.n") == NULL);
    CHECK(jv_get_str(j, "a.x.y.z") == NULL);
    CHECK(jv_get_str(NULL, "a") == NULL);
    CHECK(jv_size(jv_get(j, "l")) == 2 && jv_size(NULL) == 0);
    CHECK(jv_at(jv_get(j, "l"), 2) == NULL);
}

static void
test_depth_limit(void)
{
    struct jv *j = NULL;
    struct err e = ERR_INIT;
    char deep[100];

    memset(deep, '[', 9);
    memset(deep + 9, ']', 9);
    CHECK(jv_parse(deep, 18, 8, &j, &e) == -1 && e.code == ERR_FORMAT);
    CHECK_STR(e.msg, "JSON is nested deeper than 8 levels");
    err_clear(&e);
    CHECK_OK(jv_parse("[\"[[[[[[[[[[\\\"[[[[\"]", 20, 8, &j, &e), &e);
    jv_free(j);
}

static void
test_refuses(void)
{
    static const char *const bad[] = {
        "", "{", "{\"a\":1,\"a\":2}", "[1]x", "nul", "\"\\u0000\"", "\"\xff\"",
    };
    struct jv *j = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        CHECK(jv_parse(bad[i], strlen(bad[i]), 8, &j, NULL) == -1);
}

static void
test_build_and_print(void)
{
    CLEANUP_JV struct jv *j = jv_build("{s:s, s:I, s:b, s:[s]}", "z", "q", "a",
                                       (int64_t)1 << 40, "b", 1, "l", "x");
    char *text = jv_text(j, true);

    CHECK_STR(text,
              "{\"a\":1099511627776,\"b\":true,\"l\":[\"x\"],\"z\":\"q\"}");
    free(text);
}

static void
test_set_reports_missing_memory(void)
{
    CLEANUP_JV struct jv *o = jv_object();

    CHECK(jv_set(o, "k", NULL) == -1);
    CHECK(jv_add(o, jv_int(1)) == -1);
    CHECK(jv_set_str(o, "k", "v") == 0 && jv_del(o, "k") == 0);
}

static void
test_bad_utf8_is_replaced(void)
{
    CLEANUP_JV struct jv *s = jv_string("disk\xff\x1b");

    CHECK_STR(jv_str(s), "disk?\x1b");
}

static void
test_iteration(void)
{
    CLEANUP_JV struct jv *j = parse("{\"a\":1,\"b\":2,\"c\":3}");
    unsigned n = 0;

    for (void *it = jv_first(j); it != NULL; it = jv_next(j, it)) {
        CHECK(jv_equal(jv_get(j, jv_key(it)), jv_value(it)));
        n++;
    }
    CHECK(n == 3);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_paths_and_types),
        TEST(test_depth_limit),
        TEST(test_refuses),
        TEST(test_build_and_print),
        TEST(test_set_reports_missing_memory),
        TEST(test_bad_utf8_is_replaced),
        TEST(test_iteration),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
