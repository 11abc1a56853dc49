#include "size.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int
size_parse(const char *text, uint64_t *ret)
{
    static const char units[] = "BKMGTP";
    const char *unit;
    unsigned shift = 0;
    double v;
    char *end;

    if (*text < '0' || *text > '9')
        return -1;
    v = strtod(text, &end);
    /* strtod() also takes "0x10", "1e3" and "infinity" */
    if ((size_t)(end - text) != strspn(text, "0123456789."))
        return -1;
    if (*end != '\0') {
        char c = *end >= 'a' && *end <= 'z' ? (char)(*end - 32) : *end;

        unit = strchr(units, c);
        if (unit == NULL)
            return -1;
        shift = 10 * (unsigned)(unit - units);
        end++;
        if (shift > 0 && (strcmp(end, "iB") == 0 || strcmp(end, "B") == 0))
            end += strlen(end);
        if (*end != '\0')
            return -1;
    }
    v *= (double)(UINT64_C(1) << shift);
    if (!(v >= 0) || v >= 9.2e18)
        return -1;
    *ret = (uint64_t)v;
    return 0;
}

char *
size_text(uint64_t bytes, char *buf)
{
    static const char *const names[] = {"B",   "KiB", "MiB", "GiB",
                                        "TiB", "PiB", "EiB"};
    double v = (double)bytes;
    size_t i = 0;

    while (v >= 1023.95 && i + 1 < sizeof names / sizeof names[0]) {
        v /= 1024;
        i++;
    }
    if (i == 0)
        (void)snprintf(buf, SIZE_TEXT_MAX, "%" PRIu64 " B", bytes);
    else
        (void)snprintf(buf, SIZE_TEXT_MAX, "%.1f %s", v, names[i]);
    return buf;
}
