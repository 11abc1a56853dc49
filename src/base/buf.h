/* base/buf.h - a growing byte buffer.
 *
 * Every function that grows it can fail and says so; there is no xmalloc here.
 * `data` is not NUL-terminated unless buf_str() was called.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct err;

struct buf {
    uint8_t *data;
    size_t len;
    size_t cap;
};

#define BUF_INIT \
    {            \
        0        \
    }

/* Make room for `more` bytes behind len. */
int buf_reserve(struct buf *b, size_t more, struct err *err);

/* Append `len` bytes. */
int buf_append(struct buf *b, const void *data, size_t len, struct err *err);

/* Append formatted text (without its NUL). */
int buf_printf(struct buf *b, const char *fmt, struct err *err, ...)
    __attribute__((format(printf, 2, 4)));

/* Drop the first `n` bytes (n <= len) and keep the rest. */
void buf_consume(struct buf *b, size_t n);

/* Put a NUL behind the data (not counted in len) and return it as text that
 * lives until the buffer changes; NULL when there is no memory. */
char *buf_str(struct buf *b);

/* Free the memory; the buffer is empty and usable again.  For CLEANUP(). */
void buf_done(struct buf *b);
