/* conf/ini.h - lines of an INI file, from bytes.
 *
 *     # comment            (also ;)       a line of its own, never behind a value
 *     [machine web1]                      a word, and perhaps a name
 *     before = systemctl stop x; sync     everything behind '=' up to the line's end
 *
 * No quoting, no escapes, no continued lines: what stands there is the value.
 * Why not a library: the one that Debian has (inih 55, measured) cuts section
 * names at 50 bytes and lines at 200 without a word, takes " ;" in a command for
 * a comment, and gives no line numbers to whoever has to name them.
 *
 * Pure: no files, no clock; memory is one line.
 */
#pragma once

#include <stddef.h>

struct err;

#define INI_FILE_MAX (1u << 20)
#define INI_LINE_MAX 4096u /* bytes, without its end */

enum ini_kind { INI_SECTION, INI_KEY };

/* Texts live until the function returns. */
struct ini_line {
    enum ini_kind kind;
    unsigned number;  /* from 1 */
    const char *word; /* of a section, or the key */
    const char *text; /* the section's name, or the value; may be "" */
};

/* An error that it returns gets "FILE:LINE: " before its words. */
typedef int (*ini_fn)(void *arg, const struct ini_line *line, struct err *err);

/* Give every section and key to `fn`, in their order.  -1 (ERR_USAGE: somebody
 * has to edit the file) with "FILE:LINE: ..." at the first that is wrong. */
int ini_parse(const char *file, const void *text, size_t len, ini_fn fn,
              void *arg, struct err *err);
