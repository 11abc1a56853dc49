/* Lines of an INI file: what is taken, what is refused, and in which line. */
#include <string.h>

#include "cleanup.h"
#include "err.h"
#include "ini.h"
#include "tap.h"

static char seen[16384];

static int
collect(void *arg, const struct ini_line *l, struct err *err)
{
    size_t n = strlen(seen);

    if (strcmp(l->word, "refused") == 0)
        return err_set(err, ERR_USAGE, "not this one");
    (void)snprintf(seen + n, sizeof seen - n, "%u%c%s|%s\n", l->number,
                   l->kind == INI_SECTION ? 's' : 'k', l->word, l->text);
    return 0;
}

static int
parse(const char *text, size_t len, struct err *err)
{
    seen[0] = '\0';
    err_clear(err);
    return ini_parse("f.conf", text, len, collect, NULL, err);
}

static void
test_sections_keys_and_comments(void)
{
    static const char text[] = "\n# c\n  ; d = e\n[a]\n[b  two words ]\nk=v\n"
                               "\tk2 \t=  a = b # no comment ; this \t\n"
                               "empty =\n\n";
    struct err err = ERR_INIT;

    CHECK_OK(parse(text, sizeof text - 1, &err), &err);
    CHECK_STR(seen, "4sa|\n5sb|two words\n6kk|v\n"
                    "7kk2|a = b # no comment ; this\n8kempty|\n");
}

static void
test_ends_of_lines_and_bom(void)
{
    static const char text[] = "\xef\xbb\xbf[a]\r\nk = v\r\nlast = no newline";
    struct err err = ERR_INIT;

    CHECK_OK(parse(text, sizeof text - 1, &err), &err);
    CHECK_STR(seen, "1sa|\n2kk|v\n3klast|no newline\n");
    CHECK_OK(parse("", 0, &err), &err);
    CHECK_STR(seen, "");
}

static void
test_bytes_above_ascii_stay(void)
{
    static const char text[] = "[m \xc3\xa4]\nk = \xff\n";
    struct err err = ERR_INIT;

    CHECK_OK(parse(text, sizeof text - 1, &err), &err);
    CHECK_STR(seen, "1sm|\xc3\xa4\n2kk|\xff\n");
}

#define CASE(text_, words_)                                          \
    {                                                                \
        .text = (text_), .len = sizeof(text_) - 1, .words = (words_) \
    }

static void
test_errors_name_file_and_line(void)
{
    static const struct {
        const char *text;
        size_t len;
        const char *words;
    } cases[] = {
        CASE("\n\n[a\n", "f.conf:3: '[a' has no ']' at its end"),
        CASE("[]", "f.conf:1: a section without a name"),
        CASE("[  ]", "f.conf:1: a section without a name"),
        CASE("[a]\nnothing\n", "f.conf:2: 'nothing' is no 'key = value', no "
                               "[section] and no # comment"),
        CASE("[a]\n = v\n", "f.conf:2: there is no key before '='"),
        CASE("[a]\nk = a\0b\n", "f.conf:2: a control character (0x00); this is "
                                "a text file"),
        CASE("[a]\nk = \x1b[2J\n", "f.conf:2: a control character (0x1b); this "
                                   "is a text file"),
        CASE("k = \x7f\n", "f.conf:1: a control character (0x7f); this is a "
                           "text file"),
        CASE("a = b\nrefused = 1\n", "f.conf:2: not this one"),
    };
    struct err err = ERR_INIT;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CHECK(parse(cases[i].text, cases[i].len, &err) == -1);
        CHECK(err.code == ERR_USAGE);
        CHECK_STR(err.msg, cases[i].words);
    }
}

static void
test_limits(void)
{
    CLEANUP_FREE char *text = calloc(1, INI_FILE_MAX + 1);
    struct err err = ERR_INIT;

    memset(text, 'x', INI_FILE_MAX + 1);
    memcpy(text, "k=", 2);
    text[INI_LINE_MAX] = '\n';
    text[INI_LINE_MAX + 1] = '\0';
    CHECK_OK(parse(text, INI_LINE_MAX + 1, &err), &err);
    CHECK(strlen(seen) == INI_LINE_MAX + 3);
    text[INI_LINE_MAX] = 'x';
    text[INI_LINE_MAX + 1] = '\n';
    CHECK(parse(text, INI_LINE_MAX + 2, &err) == -1);
    CHECK_STR(err.msg, "f.conf:1: the line is longer than 4096 bytes");
    memset(text, '\n', INI_FILE_MAX + 1);
    CHECK_OK(parse(text, INI_FILE_MAX, &err), &err);
    CHECK(parse(text, INI_FILE_MAX + 1, &err) == -1);
    CHECK_STR(err.msg, "f.conf: is larger than 1048576 bytes");
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_sections_keys_and_comments),
        TEST(test_ends_of_lines_and_bom),
        TEST(test_bytes_above_ascii_stay),
        TEST(test_errors_name_file_and_line),
        TEST(test_limits),
    };

    return tap_run(argc, argv, tests, ARRAY_SIZE(tests));
}
