/* What the history reads back: text of a log becomes one entry per line, whatever
 * it is; the line of a process in /proc gives a time or none. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "jv.h"

#define SIZE_MAX_TRIED (64u << 10)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t
count_lines(const uint8_t *data, size_t size)
{
    size_t n = size > 0 && data[size - 1] != '\n';

    for (size_t i = 0; i < size; i++)
        n += data[i] == '\n';
    return n;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP_JV struct jv *log = jv_array();
    CLEANUP_FREE char *text = NULL;
    int64_t start = 0;

    if (size > SIZE_MAX_TRIED || log == NULL)
        return 0;
    if (lines_parse((const char *)data, size, log) < 0 ||
        jv_size(log) != count_lines(data, size))
        abort();
    for (size_t i = 0; i < jv_size(log); i++)
        if (jv_get_str(jv_at(log, i), "text") == NULL)
            abort();
    text = strndup((const char *)data, size);
    if (text != NULL && process_parse_start(text, &start) && start <= 0)
        abort();
    return 0;
}
