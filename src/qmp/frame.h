/* qmp/frame.h - cutting a byte stream into lines, for QMP and the guest agent.
 *
 * Pure: bytes in, lines out; no socket and no clock, so that it can be fuzzed.
 * Input that was not asked for yet stays in the buffer: a command that is sent
 * never throws away events that have arrived.  Each byte is looked at once,
 * however small the pieces are in which it comes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"

struct err;

/* Fields are frame.c's own. */
struct frame {
    struct buf in;
    size_t start;   /* first byte that was not handed out */
    size_t scanned; /* start .. scanned holds no end of a line */
    size_t max;     /* bytes of a line, without its end */
    bool marked;    /* frame_marked(): the bytes at start follow a 0xFF */
};

void frame_init(struct frame *f, size_t max);
void frame_done(struct frame *f);

/* Forget everything that was buffered. */
void frame_reset(struct frame *f);

/* Append input.  The caller takes all lines out before it adds more; then no
 * more than `max` + `len` bytes are ever held.  -1: ERR_PROTOCOL when a line
 * is longer than `max`, or no memory. */
int frame_add(struct frame *f, const void *data, size_t len, struct err *err);

/* The next line without its "\n" or "\r\n", valid until the next call.  1: *ret
 * is set (*ret_len may be 0), 0: not complete, -1: ERR_PROTOCOL, longer than
 * `max`. */
int frame_line(struct frame *f, const char **ret, size_t *ret_len,
               struct err *err);

/* As frame_line(), but only a line that stands directly behind a 0xFF byte;
 * everything else is dropped, too long lines included.  1 or 0. */
int frame_marked(struct frame *f, const char **ret, size_t *ret_len);

/* The bytes that wait in the buffer. */
size_t frame_pending(const struct frame *f, const uint8_t **ret);
