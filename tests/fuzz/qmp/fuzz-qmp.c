/* Framing: however the bytes are cut into pieces, the lines are the same. */
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "frame.h"
#include "jv.h"

#define LINE_MAX_ 64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The oracle: the line at *data, or false at the end or at one too long. */
static bool
expected(const uint8_t **data, size_t *left, size_t *ret_len)
{
    const uint8_t *nl = *left > 0 ? memchr(*data, '\n', *left) : NULL;
    size_t len;

    if (nl == NULL)
        return false;
    len = (size_t)(nl - *data);
    *left -= len + 1;
    if (len > 0 && (*data)[len - 1] == '\r')
        len--;
    *ret_len = len;
    return len <= LINE_MAX_;
}

/* Take all lines; false after an error, which must be the right one. */
static bool
take(struct frame *f, const uint8_t **at, size_t *left)
{
    struct err err = ERR_INIT;
    const char *line;
    size_t len;
    int r;

    while ((r = frame_line(f, &line, &len, &err)) == 1) {
        CLEANUP_JV struct jv *j = NULL;
        const uint8_t *start = *at;
        size_t want = 0;

        if (!expected(at, left, &want) || want != len ||
            memcmp(start, line, len) != 0)
            abort();
        *at = start + want + (start[want] == '\r') + 1;
        (void)jv_parse(line, len, 8, &j, NULL);
    }
    if (r < 0 && err.code != ERR_PROTOCOL)
        abort();
    return r == 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *at = data;
    size_t left = size, done = 0;
    struct frame f;

    frame_init(&f, LINE_MAX_);
    while (done < size) {
        size_t piece = 1 + data[done] % 23;

        if (piece > size - done)
            piece = size - done;
        if (frame_add(&f, data + done, piece, NULL) < 0)
            abort(); /* never, as long as all lines are taken out */
        done += piece;
        if (!take(&f, &at, &left))
            break;
        if (frame_pending(&f, NULL) > LINE_MAX_ + 1)
            abort();
    }
    frame_done(&f);
    return 0;
}
