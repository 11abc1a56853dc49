#include "buf.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"

int
buf_reserve(struct buf *b, size_t more, struct err *err)
{
    size_t want, cap;
    uint8_t *p;

    if (__builtin_add_overflow(b->len, more, &want))
        return err_set_errno(err, ENOMEM, "buffer of %zu and %zu bytes", b->len,
                             more);
    if (want <= b->cap)
        return 0;
    cap = b->cap < 256 ? 256 : b->cap;
    while (cap < want)
        if (__builtin_mul_overflow(cap, (size_t)2, &cap))
            cap = want;
    p = realloc(b->data, cap);
    if (p == NULL)
        return err_set_errno(err, ENOMEM, "buffer of %zu bytes", cap);
    b->data = p;
    b->cap = cap;
    return 0;
}

int
buf_append(struct buf *b, const void *data, size_t len, struct err *err)
{
    if (len == 0)
        return 0;
    if (buf_reserve(b, len, err) < 0)
        return -1;
    memcpy(b->data + b->len, data, len);
    b->len += len;
    return 0;
}

int
buf_printf(struct buf *b, const char *fmt, struct err *err, ...)
{
    va_list ap, again;
    int n;

    va_start(ap, err);
    va_copy(again, ap);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || buf_reserve(b, (size_t)n + 1, err) < 0) {
        va_end(again);
        return n < 0 ? err_set_errno(err, errno, "format text") : -1;
    }
    (void)vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, again);
    va_end(again);
    b->len += (size_t)n;
    return 0;
}

void
buf_consume(struct buf *b, size_t n)
{
    if (n >= b->len) {
        b->len = 0;
        return;
    }
    memmove(b->data, b->data + n, b->len - n);
    b->len -= n;
}

char *
buf_str(struct buf *b)
{
    if (buf_reserve(b, 1, NULL) < 0)
        return NULL;
    b->data[b->len] = '\0';
    return (char *)b->data;
}

void
buf_done(struct buf *b)
{
    free(b->data);
    b->data = NULL;
    b->len = b->cap = 0;
}
