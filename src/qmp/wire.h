/* qmp/wire.h - bytes over a non-blocking stream socket, by a deadline.
 *
 * The result is a word, not an error: only the caller knows which command it
 * was and what the user should look at.
 */
#pragma once

#include <stddef.h>

#include "clock.h"

enum wire {
    WIRE_OK,
    WIRE_TIMEOUT,
    WIRE_CLOSED, /* the peer went away */
    WIRE_FAILED, /* errno says why */
};

/* All `len` bytes.  After anything but WIRE_OK a part may have been sent. */
enum wire wire_send(int fd, const void *data, size_t len,
                    struct deadline until);

/* 1 .. max bytes, as soon as there are some.  What has already arrived is read
 * even when the deadline has passed. */
enum wire wire_recv(int fd, void *data, size_t max, size_t *ret_len,
                    struct deadline until);
