#include "frame.h"

#include <string.h>

#include "err.h"

/* A buffer that one huge reply made large is not kept for ever. */
#define KEEP_MAX (1u << 20)

void
frame_init(struct frame *f, size_t max)
{
    memset(f, 0, sizeof *f);
    f->max = max;
}

void
frame_done(struct frame *f)
{
    buf_done(&f->in);
    frame_reset(f);
}

void
frame_reset(struct frame *f)
{
    f->in.len = 0;
    f->start = f->scanned = 0;
    f->marked = false;
    if (f->in.cap > KEEP_MAX)
        buf_done(&f->in);
}

/* Move what is left to the front.  Only frame_add() does this, not each line
 * that is handed out: many small lines in one read must not cost a move each. */
static void
compact(struct frame *f)
{
    bool marked = f->marked;

    if (f->start == 0)
        return;
    if (f->start == f->in.len) {
        frame_reset(f);
        f->marked = marked;
        return;
    }
    buf_consume(&f->in, f->start);
    f->scanned -= f->start;
    f->start = 0;
}

static int
too_long(const struct frame *f, struct err *err)
{
    return err_set(err, ERR_PROTOCOL, "a message is longer than %zu bytes",
                   f->max);
}

int
frame_add(struct frame *f, const void *data, size_t len, struct err *err)
{
    compact(f);
    if (f->in.len > f->max + 2)
        return too_long(f, err);
    return buf_append(&f->in, data, len, err);
}

/* Hand out start .. end and step over the end of the line. */
static void
take(struct frame *f, size_t end, const char **ret, size_t *ret_len)
{
    size_t len = end - f->start;

    *ret = (const char *)f->in.data + f->start;
    if (len > 0 && f->in.data[end - 1] == '\r')
        len--;
    *ret_len = len;
    f->start = f->scanned = end + 1;
}

int
frame_line(struct frame *f, const char **ret, size_t *ret_len, struct err *err)
{
    const uint8_t *nl = NULL;

    if (f->scanned < f->in.len)
        nl = memchr(f->in.data + f->scanned, '\n', f->in.len - f->scanned);
    if (nl == NULL) {
        f->scanned = f->in.len;
        /* One more byte may be the "\r" of a line of the full length. */
        return f->in.len - f->start > f->max + 1 ? too_long(f, err) : 0;
    }
    take(f, (size_t)(nl - f->in.data), ret, ret_len);
    return *ret_len > f->max ? too_long(f, err) : 1;
}

/* The next '\n' or 0xFF, or the end of the input. */
static size_t
next_stop(const struct frame *f)
{
    size_t i = f->scanned;

    while (i < f->in.len && f->in.data[i] != '\n' && f->in.data[i] != 0xff)
        i++;
    return i;
}

int
frame_marked(struct frame *f, const char **ret, size_t *ret_len)
{
    for (;;) {
        size_t at = next_stop(f);

        if (at - f->start > f->max + 1)
            f->marked = false;
        if (at == f->in.len) {
            f->scanned = at;
            if (!f->marked)
                f->start = at;
            return 0;
        }
        if (f->in.data[at] == '\n' && f->marked) {
            f->marked = false;
            take(f, at, ret, ret_len);
            return 1;
        }
        f->marked = f->in.data[at] == 0xff;
        f->start = f->scanned = at + 1;
    }
}

size_t
frame_pending(const struct frame *f, const uint8_t **ret)
{
    if (f->in.len == f->start)
        return 0;
    if (ret != NULL)
        *ret = f->in.data + f->start;
    return f->in.len - f->start;
}
