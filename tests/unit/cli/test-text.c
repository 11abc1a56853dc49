/* Escaping, tables and the arithmetic of progress: pure functions. */
#include <unistd.h>

#include "cleanup.h"
#include "err.h"
#include "progress.h"
#include "table.h"
#include "tap.h"
#include "text.h"

#define MIB (UINT64_C(1) << 20)

static void
check_escape(const char *raw, const char *want)
{
    CLEANUP_FREE char *got = text_escape(raw);

    CHECK_STR(got, want);
}

static void
test_escape(void)
{
    text_utf8(true);
    check_escape("", "");
    check_escape("web1 'x' \\ ~", "web1 'x' \\ ~");
    check_escape("\033[2J\a\r\n\t\177", "\\x1b[2J\\x07\\x0d\\n\\t\\x7f");
    check_escape("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\xa7",
                 "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\xa7");
    check_escape("\xc2\x9b", "\\xc2\\x9b");          /* C1: CSI */
    check_escape("\xe2\x80\xae", "\\xe2\\x80\\xae"); /* right to left */
    check_escape("\xef\xbb\xbf", "\\xef\\xbb\\xbf"); /* invisible */
    check_escape("\xc0\x9b", "\\xc0\\x9b");          /* too long a form */
    check_escape("\xed\xa0\x80", "\\xed\\xa0\\x80"); /* surrogate */
    check_escape("\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80");
    check_escape("a\xe2\x82", "a\\xe2\\x82"); /* cut short */
    text_utf8(false);
    check_escape("\xc3\xbc", "\\xc3\\xbc");
    text_utf8(true);
}

/* Every byte string comes out as bytes that a terminal only shows. */
static void
test_escape_every_byte_pair(void)
{
    for (unsigned a = 1; a < 256; a++)
        for (unsigned b = 1; b < 256; b++) {
            char raw[3] = {(char)a, (char)b, '\0'}, out[16];

            (void)text_escape_to(raw, out, sizeof out);
            for (const char *p = out; *p != '\0'; p++)
                if ((unsigned char)*p < 0x20 || *p == 0x7f)
                    CHECK(!"control character");
            if (strstr(out, "\xc2\x9b") != NULL)
                CHECK(!"C1 control character");
        }
}

/* Text that does not fit is cut, never through an escape or a character. */
static void
test_escape_cut(void)
{
    char buf[8];

    CHECK_STR(text_escape_to("abcdefghij", buf, 4), "abc");
    CHECK_STR(text_escape_to("ab\033", buf, 6), "ab");
    CHECK_STR(text_escape_to("ab\033", buf, 7), "ab\\x1b");
    CHECK_STR(text_escape_to("a\xe2\x82\xac", buf, 4), "a");
    CHECK_STR(text_escape_to("abc", buf, 1), "");
    CHECK(text_columns("a\xe2\x82\xac") == 2);
}

static void
test_duration(void)
{
    char buf[TEXT_DURATION_MAX];

    CHECK_STR(text_duration(0, buf), "0:00");
    CHECK_STR(text_duration(59, buf), "0:59");
    CHECK_STR(text_duration(754, buf), "12:34");
    CHECK_STR(text_duration(3723, buf), "1:02:03");
    CHECK_STR(text_duration(172799, buf), "47:59:59");
    CHECK_STR(text_duration(259200, buf), "3 days");
    CHECK_STR(text_age(7, buf), "7 s");
    CHECK_STR(text_age(120, buf), "2 min");
    CHECK_STR(text_age(7199, buf), "119 min");
    CHECK_STR(text_age(93600, buf), "26:00 h");
    CHECK_STR(text_age(273601, buf), "3 days 4 h");
}

static void
test_table(void)
{
    CLEANUP(table_freep) struct table *t = table_new("A|>SIZE|NOTE");
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    struct err err = ERR_INIT;

    table_text(t, "x\n");
    table_size(t, 65536);
    table_text(t, NULL);
    table_text(t, "long \xc3\xbc");
    table_count(t, 7);
    table_text(t, "n");
    CHECK(table_rows(t) == 2);
    CHECK_OK(table_print(t, 1, f, &err), &err);
    (void)fclose(f);
    CHECK_STR(text, " A           SIZE  NOTE\n"
                    " x\\n     64.0 KiB  -\n"
                    " long \xc3\xbc         7  n\n");
    free(text);
}

/* -- progress ---------------------------------------------------------------*/

static void
test_rate_and_time_left(void)
{
    struct progress p = PROGRESS_INIT;
    uint64_t left = 0;

    for (uint64_t s = 0; s <= 10; s++)
        progress_update(&p, 5000 + s * 1000, "read", s * 10 * MIB, 200 * MIB);
    CHECK(p.rate > 9.99 * (double)MIB && p.rate < 10.01 * (double)MIB);
    CHECK(progress_left(&p, &left) && left == 10);
    CHECK(progress_percent(&p) == 50);
}

/* The rate follows a change, but not at once. */
static void
test_rate_forgets_slowly(void)
{
    struct progress p = PROGRESS_INIT;
    uint64_t done = 0, now = 0;

    for (int i = 0; i < 20; i++)
        progress_update(&p, now += 1000, "read", done += 10 * MIB, 0);
    progress_update(&p, now += 1000, "read", done, 0);
    CHECK(p.rate > 8.0 * (double)MIB);
    for (int i = 0; i < 60; i++)
        progress_update(&p, now += 1000, "read", done += MIB, 0);
    CHECK(p.rate < 1.1 * (double)MIB);
}

/* No promise from one second's impression, without total, or when nothing
 * moves. */
static void
test_no_time_left(void)
{
    struct progress p = PROGRESS_INIT;
    uint64_t left;

    progress_update(&p, 1000, "read", 0, 100 * MIB);
    CHECK(!progress_left(&p, &left));
    progress_update(&p, 2000, "read", MIB, 100 * MIB);
    CHECK(!progress_left(&p, &left));
    progress_update(&p, 4000, "read", 3 * MIB, 100 * MIB);
    CHECK(progress_left(&p, &left));
    progress_update(&p, 6000, "read", 3 * MIB, 0);
    CHECK(!progress_left(&p, &left));
    p = (struct progress)PROGRESS_INIT;
    for (uint64_t i = 0; i < 10; i++)
        progress_update(&p, 1000 + i * 1000, "read", 0, 100 * MIB);
    CHECK(!progress_left(&p, &left));
}

/* A phase, and a job that starts over (a full read after a failed audit),
 * begin a new measurement. */
static void
test_starting_over(void)
{
    struct progress p = PROGRESS_INIT;

    progress_update(&p, 0, "read", 0, 100);
    progress_update(&p, 5000, "read", 90, 100);
    progress_update(&p, 6000, "verify", 10, 100);
    CHECK(p.rate == 0 && p.start_ms == 6000);
    progress_update(&p, 7000, "verify", 50, 100);
    progress_update(&p, 8000, "verify", 0, 100);
    CHECK(p.rate == 0 && p.done == 0);
}

/* 100 % means done; more than all is all; big numbers do not overflow. */
static void
test_percent(void)
{
    struct progress p = PROGRESS_INIT;

    progress_update(&p, 0, "read", 999999, 1000000);
    CHECK(progress_percent(&p) == 99);
    progress_update(&p, 1, "read", 2000000, 1000000);
    CHECK(progress_percent(&p) == 100 && p.done == 1000000);
    progress_update(&p, 2, "read2", UINT64_MAX / 2, UINT64_MAX);
    CHECK(progress_percent(&p) == 50 || progress_percent(&p) == 49);
    progress_update(&p, 3, "none", 5, 0);
    CHECK(progress_percent(&p) == 0);
}

static void
test_line(void)
{
    struct progress p = PROGRESS_INIT;
    char buf[PROGRESS_LINE_MAX];

    for (uint64_t s = 0; s <= 10; s++)
        progress_update(&p, s * 1000, "read", s * 10 * MIB, 200 * MIB);
    CHECK_STR(progress_line(&p, 200, false, buf),
              "read   50 %  100.0 MiB of 200.0 MiB  10.0 MiB/s  0:10 left");
    p.scratch = 3 * MIB;
    CHECK_STR(progress_line(&p, 200, false, buf),
              "read   50 %  100.0 MiB of 200.0 MiB  10.0 MiB/s  0:10 left  "
              "scratch 3.0 MiB");
    p.scratch = 0;
    CHECK_STR(
        progress_line(&p, 75, true, buf),
        "read  [######-------]   50 %  100.0 MiB of 200.0 MiB  10.0 MiB/s  "
        "0:10 left");
    CHECK_STR(progress_line(&p, 40, true, buf),
              "read   50 %  100.0 MiB of 200.0 MiB");
    CHECK_STR(progress_line(&p, 12, true, buf), "read   50 %");
    CHECK_STR(progress_line(&p, 3, true, buf), "");
    p = (struct progress)PROGRESS_INIT;
    progress_update(&p, 0, "prepare", 0, 0);
    CHECK_STR(progress_line(&p, 80, true, buf), "prepare");
}

/* Whatever the width, the line fits it. */
static void
test_line_fits(void)
{
    struct progress p = PROGRESS_INIT;
    char buf[PROGRESS_LINE_MAX];

    for (uint64_t s = 0; s <= 10; s++)
        progress_update(&p, s * 1000, "restore", s * 1000 * MIB,
                        UINT64_C(1) << 60);
    for (size_t w = 0; w < 400; w++) {
        (void)progress_line(&p, w, true, buf);
        CHECK(text_columns(buf) <= w);
    }
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_escape),
        TEST(test_escape_every_byte_pair),
        TEST(test_escape_cut),
        TEST(test_duration),
        TEST(test_table),
        TEST(test_rate_and_time_left),
        TEST(test_rate_forgets_slowly),
        TEST(test_no_time_left),
        TEST(test_starting_over),
        TEST(test_percent),
        TEST(test_line),
        TEST(test_line_fits),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
