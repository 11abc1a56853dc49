/* tests/lib/tap.h - a test harness in one header (TAP on stdout).
 *
 *     static void test_something(void) { CHECK(1 + 1 == 2); }
 *     int main(int argc, char **argv)
 *     {
 *         static const struct tap_test tests[] = {TEST(test_something)};
 *         return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
 *     }
 *
 * A failed CHECK prints where and fails the test; the test goes on.  Arguments
 * select tests by a shell pattern: test-pack 'test_commit_*'.
 */
#pragma once

#include <fnmatch.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tap_test {
    const char *name;
    void (*fn)(void);
};
#define TEST(fn) \
    {            \
#fn, fn  \
    }

static int tap_failures; /* of the running test */
static const char *tap_skipped;

#define CHECK(cond)                                                           \
    do {                                                                      \
        if (!(cond)) {                                                        \
            printf("# %s:%d: CHECK(%s) failed\n", __FILE__, __LINE__, #cond); \
            tap_failures++;                                                   \
        }                                                                     \
    } while (0)
#define CHECK_OK(call, err)                                        \
    do {                                                           \
        if ((call) != 0) {                                         \
            printf("# %s:%d: %s: %s\n", __FILE__, __LINE__, #call, \
                   (err)->msg);                                    \
            tap_failures++;                                        \
        }                                                          \
    } while (0)
#define CHECK_STR(a, b)                                               \
    do {                                                              \
        const char *a_ = (a), *b_ = (b);                              \
        if (a_ == NULL || strcmp(a_, b_) != 0) {                      \
            printf("# %s:%d: '%s' is not '%s'\n", __FILE__, __LINE__, \
                   a_ ? a_ : "(null)", b_);                           \
            tap_failures++;                                           \
        }                                                             \
    } while (0)
/* Leave the test; the reason says what cannot exist here. */
#define SKIP(reason)            \
    do {                        \
        tap_skipped = (reason); \
        return;                 \
    } while (0)

static inline int
tap_run(int argc, char **argv, const struct tap_test *tests, size_t n)
{
    int failed = 0;

    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    printf("1..%zu\n", n);
    for (size_t i = 0; i < n; i++) {
        bool run = argc < 2;

        for (int a = 1; a < argc; a++)
            run |= fnmatch(argv[a], tests[i].name, 0) == 0;
        tap_failures = 0;
        tap_skipped = run ? NULL : "not asked for";
        if (run)
            tests[i].fn();
        printf("%s %zu - %s%s%s\n", tap_failures ? "not ok" : "ok", i + 1,
               tests[i].name, tap_skipped ? " # SKIP " : "",
               tap_skipped ? tap_skipped : "");
        failed += tap_failures != 0;
    }
    return failed != 0;
}
