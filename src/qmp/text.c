#include "text.h"

#include <stdint.h>

#include "log.h"

/* Length of the well-formed UTF-8 character at p that may be shown, or 0. */
static size_t
shown(const uint8_t *p, size_t len)
{
    size_t n = p[0] < 0x80                   ? 1
               : p[0] >= 0xc2 && p[0] < 0xe0 ? 2
               : p[0] >= 0xe0 && p[0] < 0xf0 ? 3
               : p[0] >= 0xf0 && p[0] < 0xf5 ? 4
                                             : 0;

    if (n == 0 || n > len)
        return 0;
    if (n == 1)
        return p[0] >= 0x20 && p[0] != 0x7f;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    if (p[0] == 0xc2 && p[1] < 0xa0)
        return 0; /* C1 controls: CSI in one character */
    /* Direction overrides (U+202A..U+202E) reorder what follows. */
    if (p[0] == 0xe2 && p[1] == 0x80 && p[2] >= 0xaa && p[2] <= 0xae)
        return 0;
    return n;
}

char *
text_clean(const char *text, size_t len, char *out, size_t size)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t o = 0, i = 0;

    while (i < len && p[i] != '\0') {
        size_t n = shown(p + i, len - i);

        if (o + (n == 0 ? 1 : n) >= size)
            break;
        if (n == 0) {
            out[o++] = '?';
            i++;
        }
        while (n-- > 0)
            out[o++] = (char)p[i++];
    }
    out[o] = '\0';
    return out;
}

void
text_trace(const char *who, const char *line, size_t len)
{
    char text[TEXT_LOG_MAX];

    log_debug("%s %s%s", who, text_clean(line, len, text, sizeof text),
              len >= sizeof text ? " ..." : "");
}
