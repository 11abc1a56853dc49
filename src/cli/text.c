#include "text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool utf8;

void
text_utf8(bool on)
{
    utf8 = on;
}

/* Decode one character of valid, shortest-form UTF-8.  Returns its length, 0
 * when the bytes are none. */
static size_t
decode(const unsigned char *s, uint32_t *ret)
{
    size_t n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t c;

    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    c = s[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0;
    *ret = c;
    return n;
}

/* C1 controls, direction overrides, invisible and line-breaking characters:
 * no name needs them, and each can make a line look like another. */
static bool
harmful(uint32_t c)
{
    return (c >= 0x80 && c < 0xa0) || c == 0xad || c == 0x61c ||
           (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
           (c >= 0x2060 && c <= 0x206f) || c == 0xfeff ||
           (c >= 0xfff0 && c <= 0xfffb) || (c >= 0xe0000 && c <= 0xe0fff);
}

/* Write the escape of the first character of `s` to `out` (16 bytes are
 * enough); returns how many bytes of `s` it stands for. */
static size_t
escape_one(const unsigned char *s, char *out)
{
    uint32_t c;
    size_t n;

    if (s[0] >= 0x20 && s[0] < 0x7f) {
        out[0] = (char)s[0];
        out[1] = '\0';
        return 1;
    }
    n = s[0] >= 0x80 && utf8 ? decode(s, &c) : 0;
    if (n > 0 && !harmful(c)) {
        memcpy(out, s, n);
        out[n] = '\0';
        return n;
    }
    n = n > 0 ? n : 1;
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '\n')
            (void)snprintf(out, TEXT_ESCAPE_MAX + 1, "\\n");
        else if (s[i] == '\t')
            (void)snprintf(out, TEXT_ESCAPE_MAX + 1, "\\t");
        else
            (void)snprintf(out, TEXT_ESCAPE_MAX + 1, "\\x%02x", s[i]);
        out += strlen(out);
    }
    return n;
}

char *
text_escape_to(const char *s, char *buf, size_t len)
{
    const unsigned char *p = (const unsigned char *)s;
    char one[4 * TEXT_ESCAPE_MAX + 1];
    size_t pos = 0;

    while (*p != '\0') {
        size_t used = escape_one(p, one), n = strlen(one);

        if (n >= len - pos)
            break;
        memcpy(buf + pos, one, n);
        pos += n;
        p += used;
    }
    buf[pos] = '\0';
    return buf;
}

char *
text_escape(const char *s)
{
    size_t len = strlen(s) * TEXT_ESCAPE_MAX + 1;
    char *buf = malloc(len);

    return buf == NULL ? NULL : text_escape_to(s, buf, len);
}

size_t
text_columns(const char *s)
{
    size_t n = 0;

    for (; *s != '\0'; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

char *
text_duration(uint64_t s, char *buf)
{
    uint64_t h = s / 3600, m = s / 60 % 60;

    if (s >= 2 * 86400)
        (void)snprintf(buf, TEXT_DURATION_MAX, "%" PRIu64 " days", s / 86400);
    else if (h > 0)
        (void)snprintf(buf, TEXT_DURATION_MAX,
                       "%" PRIu64 ":%02" PRIu64 ":%02" PRIu64, h, m, s % 60);
    else
        (void)snprintf(buf, TEXT_DURATION_MAX, "%" PRIu64 ":%02" PRIu64, m,
                       s % 60);
    return buf;
}

char *
text_age(uint64_t s, char *buf)
{
    uint64_t h = s / 3600, m = s / 60;

    if (s < 120)
        (void)snprintf(buf, TEXT_DURATION_MAX, "%" PRIu64 " s", s);
    else if (h < 2)
        (void)snprintf(buf, TEXT_DURATION_MAX, "%" PRIu64 " min", m);
    else if (h < 48)
        (void)snprintf(buf, TEXT_DURATION_MAX, "%" PRIu64 ":%02" PRIu64 " h", h,
                       m % 60);
    else
        (void)snprintf(buf, TEXT_DURATION_MAX, "%" PRIu64 " days %" PRIu64 " h",
                       h / 24, h % 24);
    return buf;
}
