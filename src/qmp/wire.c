#include "wire.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/types.h>

/* WIRE_OK when the socket may be ready (or has an error to collect). */
static enum wire
ready(int fd, short events, struct deadline until)
{
    struct pollfd p = {.fd = fd, .events = events};
    int n;

    do
        n = poll(&p, 1, deadline_left(until));
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return WIRE_FAILED;
    return n == 0 ? WIRE_TIMEOUT : WIRE_OK;
}

/* What the errno of a socket call means: WIRE_OK is "wait and try again". */
static enum wire
classify(int e)
{
    if (e == EAGAIN || e == EWOULDBLOCK || e == EINTR)
        return WIRE_OK;
    if (e == EPIPE || e == ECONNRESET)
        return WIRE_CLOSED;
    return WIRE_FAILED;
}

enum wire
wire_send(int fd, const void *data, size_t len, struct deadline until)
{
    const char *p = data;

    while (len > 0) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        enum wire w;

        if (n >= 0) {
            p += n;
            len -= (size_t)n;
            continue;
        }
        w = classify(errno);
        if (w == WIRE_OK)
            w = ready(fd, POLLOUT, until);
        if (w != WIRE_OK)
            return w;
    }
    return WIRE_OK;
}

enum wire
wire_recv(int fd, void *data, size_t max, size_t *ret_len,
          struct deadline until)
{
    for (;;) {
        ssize_t n = recv(fd, data, max, MSG_DONTWAIT);
        enum wire w;

        if (n > 0) {
            *ret_len = (size_t)n;
            return WIRE_OK;
        }
        if (n == 0)
            return WIRE_CLOSED;
        w = classify(errno);
        if (w == WIRE_OK)
            w = ready(fd, POLLIN, until);
        if (w != WIRE_OK)
            return w;
    }
}
