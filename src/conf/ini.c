#include "ini.h"

#include <stdbool.h>
#include <string.h>

#include "err.h"

static bool
is_space(char c)
{
    return c == ' ' || c == '\t';
}

/* Cut spaces at both ends, in place. */
static char *
trim(char *s)
{
    size_t n = strlen(s);

    while (n > 0 && is_space(s[n - 1]))
        s[--n] = '\0';
    while (is_space(*s))
        s++;
    return s;
}

/* Control characters would end up in names, messages and commands. */
static int
check_bytes(const char *s, size_t len, struct err *err)
{
    for (size_t i = 0; i < len; i++)
        if (((unsigned char)s[i] < 0x20 && s[i] != '\t') || s[i] == 0x7f)
            return err_set(err, ERR_USAGE,
                           "a control character (0x%02x); this is a text file",
                           (unsigned char)s[i]);
    return 0;
}

/* "[word]" or "[word name]". */
static int
parse_section(char *s, struct ini_line *ret, struct err *err)
{
    size_t n = strlen(s);
    char *word, *name;

    if (s[n - 1] != ']')
        return err_set(err, ERR_USAGE, "'%s' has no ']' at its end", s);
    s[n - 1] = '\0';
    word = trim(s + 1);
    name = word + strcspn(word, " \t");
    if (*name != '\0') {
        *name++ = '\0';
        name = trim(name);
    }
    if (*word == '\0')
        return err_set(err, ERR_USAGE, "a section without a name");
    ret->kind = INI_SECTION;
    ret->word = word;
    ret->text = name;
    return 0;
}

static int
parse_key(char *s, struct ini_line *ret, struct err *err)
{
    char *eq = strchr(s, '=');

    if (eq == NULL)
        return err_set(
            err, ERR_USAGE,
            "'%s' is no 'key = value', no [section] and no # comment", s);
    *eq = '\0';
    ret->kind = INI_KEY;
    ret->word = trim(s);
    ret->text = trim(eq + 1);
    if (*ret->word == '\0')
        return err_set(err, ERR_USAGE, "there is no key before '='");
    return 0;
}

/* One line of `len` bytes, without its end. */
static int
parse_line(const char *p, size_t len, unsigned number, ini_fn fn, void *arg,
           struct err *err)
{
    struct ini_line line = {.number = number};
    char buf[INI_LINE_MAX + 1], *s;

    if (len > 0 && p[len - 1] == '\r')
        len--;
    if (len > INI_LINE_MAX)
        return err_set(err, ERR_USAGE, "the line is longer than %u bytes",
                       INI_LINE_MAX);
    if (check_bytes(p, len, err) != 0)
        return -1;
    memcpy(buf, p, len);
    buf[len] = '\0';
    s = trim(buf);
    if (*s == '\0' || *s == '#' || *s == ';')
        return 0;
    if ((*s == '[' ? parse_section : parse_key)(s, &line, err) != 0)
        return -1;
    return fn(arg, &line, err);
}

int
ini_parse(const char *file, const void *text, size_t len, ini_fn fn, void *arg,
          struct err *err)
{
    static const char bom[] = "\xef\xbb\xbf";
    const char *p = text, *end = p + len;

    if (len > INI_FILE_MAX)
        return err_set(err, ERR_USAGE, "%s: is larger than %u bytes", file,
                       INI_FILE_MAX);
    if (len >= 3 && memcmp(p, bom, 3) == 0)
        p += 3;
    for (unsigned number = 1; p < end; number++) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));

        if (stop == NULL)
            stop = end;
        if (parse_line(p, (size_t)(stop - p), number, fn, arg, err) != 0)
            return err_wrap(err, "%s:%u", file, number);
        p = stop < end ? stop + 1 : end;
    }
    return 0;
}
