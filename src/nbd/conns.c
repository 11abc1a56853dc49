#include "conns.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <libnbd.h>

#include "cleanup.h"
#include "err.h"
#include "io.h"

#define BLOCK_MIN_MAX 65536 /* the protocol's own limit */

int
nbd_conns_init(struct nbd_conns *cs, const char *socket,
               const char *export_name, unsigned timeout_ms, struct err *err)
{
    *cs = (struct nbd_conns){.cancel_fd = -1,
                             .timeout_ms = timeout_ms,
                             .block_min = 1,
                             .block_max = NBD_PAYLOAD_MAX};
    cs->socket = strdup(socket);
    cs->export_name = strdup(export_name);
    if (cs->socket == NULL || cs->export_name == NULL)
        return err_set(err, ERR_SYSTEM, "no memory for an NBD connection");
    nbd_conns_begin(cs);
    return 0;
}

void
nbd_conns_begin(struct nbd_conns *cs)
{
    cs->until = deadline_in(cs->timeout_ms);
}

/* libnbd's words; the error belongs to this thread's last failed call. */
static const char *
nbd_words(void)
{
    const char *text = nbd_get_error();

    return text != NULL ? text : "no reason given";
}

/* Prepare a poll slot; false when the connection is over. */
static bool
poll_slot(const struct nbd_conn *c, struct pollfd *fd)
{
    unsigned dir;

    *fd = (struct pollfd){.fd = -1};
    if (nbd_aio_is_dead(c->h) != 0 || nbd_aio_is_closed(c->h) != 0)
        return false;
    dir = nbd_aio_get_direction(c->h);
    fd->fd = nbd_aio_get_fd(c->h);
    if (dir & LIBNBD_AIO_DIRECTION_READ)
        fd->events |= POLLIN;
    if (dir & LIBNBD_AIO_DIRECTION_WRITE)
        fd->events |= POLLOUT;
    return fd->fd >= 0;
}

/* One notification only: the first may change the state so that the second
 * would be wrong.  The next poll() reports again what is still true. */
static int
notify(struct nbd_conn *c, const struct pollfd *fd)
{
    if (fd->revents & (POLLIN | POLLHUP | POLLERR | POLLNVAL))
        return nbd_aio_notify_read(c->h);
    if (fd->revents & POLLOUT)
        return nbd_aio_notify_write(c->h);
    return 0;
}

static int
closed(const struct nbd_conns *cs, struct err *err)
{
    return err_set(err, ERR_CLOSED,
                   "export '%s': the server closed the connection",
                   cs->export_name);
}

/* Whether all that the peer said was read and it has hung up.  libnbd closes
 * its descriptor before it says that something is wrong, and has one error for
 * "hung up" and "makes no sense". */
static bool
peer_left(const struct nbd_conn *c)
{
    char byte;

    return recv(c->peek_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* A state machine gave up: the peer went away, refused, or made no sense. */
static int
broken(const struct nbd_conns *cs, const struct nbd_conn *c, struct err *err)
{
    int sys = nbd_get_errno();

    if (sys == ENOENT)
        return err_set(err, ERR_NOT_FOUND, "export '%s': %s", cs->export_name,
                       nbd_words());
    if (sys == ENOMEM)
        return err_set(err, ERR_SYSTEM, "export '%s': %s", cs->export_name,
                       nbd_words());
    if (sys == ECONNRESET || sys == EPIPE || peer_left(c))
        return closed(cs, err);
    return err_set(err, ERR_PROTOCOL, "export '%s': %s", cs->export_name,
                   nbd_words());
}

static int
handle_events(struct nbd_conns *cs, const struct pollfd *fds, struct err *err)
{
    for (unsigned i = 0; i < cs->n; i++) {
        struct nbd_conn *c = &cs->v[i];

        if (fds[i].revents == 0)
            continue;
        if (notify(c, &fds[i]) < 0)
            return broken(cs, c, err);
        if (nbd_aio_is_closed(c->h) != 0)
            return closed(cs, err);
    }
    nbd_conns_begin(cs);
    return 0;
}

bool
nbd_conns_over(const struct nbd_conns *cs)
{
    bool over = atomic_load(&cs->canceled);

    for (unsigned i = 0; i < cs->n; i++)
        over |= nbd_aio_is_dead(cs->v[i].h) != 0 ||
                nbd_aio_is_closed(cs->v[i].h) != 0;
    return over;
}

int
nbd_conns_turn(struct nbd_conns *cs, struct err *err)
{
    struct pollfd fds[NBD_CONNS_MAX + 1];
    int n;

    for (unsigned i = 0; i < cs->n; i++)
        if (!poll_slot(&cs->v[i], &fds[i]))
            return closed(cs, err);
    fds[cs->n] = (struct pollfd){.fd = cs->cancel_fd, .events = POLLIN};
    n = poll(fds, cs->n + 1, deadline_left(cs->until));
    if (atomic_load(&cs->canceled))
        return err_set(err, ERR_CANCELED, "export '%s': canceled",
                       cs->export_name);
    if (n < 0 && errno != EINTR)
        return err_set_errno(err, errno, "poll");
    if (n > 0)
        return handle_events(cs, fds, err);
    if (deadline_left(cs->until) > 0)
        return 0;
    return err_set(err, ERR_TIMEOUT,
                   "export '%s': no answer for %u ms; is the server stopped?",
                   cs->export_name, cs->timeout_ms);
}

/* Take the block sizes of a connection into account. */
static int
learn_blocks(struct nbd_conns *cs, struct nbd_handle *h, struct err *err)
{
    int64_t min = nbd_get_block_size(h, LIBNBD_SIZE_MINIMUM);
    int64_t max = nbd_get_block_size(h, LIBNBD_SIZE_MAXIMUM);

    /* 0: the server did not say. */
    if (min < 0 || max < 0 || min > BLOCK_MIN_MAX ||
        (min > 0 && (min & (min - 1)) != 0))
        return err_set(err, ERR_PROTOCOL,
                       "export '%s': the server's block size of %" PRId64
                       " bytes is not a power of two up to %d",
                       cs->export_name, min, BLOCK_MIN_MAX);
    if (min > cs->block_min)
        cs->block_min = (uint32_t)min;
    if (max > 0 && max < cs->block_max)
        cs->block_max = (uint32_t)max;
    cs->block_max -= cs->block_max % cs->block_min;
    if (cs->block_max == 0)
        return err_set(err, ERR_PROTOCOL,
                       "export '%s': the server takes at most %" PRId64
                       " bytes at once, less than its block size of %" PRIu32,
                       cs->export_name, max, cs->block_min);
    return 0;
}

static int
learn_size(struct nbd_conns *cs, struct nbd_handle *h, struct err *err)
{
    int64_t size = nbd_get_size(h);

    if (size < 0)
        return err_set(err, ERR_PROTOCOL,
                       "export '%s': the server says that its size is more "
                       "than 2^63 - 1 bytes",
                       cs->export_name);
    if (cs->n > 1 && (uint64_t)size != cs->size)
        return err_set(err, ERR_PROTOCOL,
                       "export '%s': its size changed from %" PRIu64
                       " to %" PRId64 " bytes between two connections; was "
                       "the disk resized?",
                       cs->export_name, cs->size, size);
    cs->size = (uint64_t)size;
    return 0;
}

static int
learn(struct nbd_conns *cs, struct nbd_handle *h, const char *context,
      struct err *err)
{
    if (context != NULL && nbd_can_meta_context(h, context) != 1)
        return err_set(err, ERR_UNSUPPORTED,
                       "export '%s': context '%s' not granted; does the "
                       "export have it?",
                       cs->export_name, context);
    if (learn_size(cs, h, err) < 0)
        return -1;
    return learn_blocks(cs, h, err);
}

/* Zeroing each buffer before a read costs a pass over memory and would hide
 * what the reader counts itself: answers with holes in them.  Alignment is ours
 * to keep, and the odd end of a disk cannot be aligned at all. */
static int
set_up(struct nbd_handle *h, const char *export_name, const char *context)
{
    uint32_t strict = nbd_get_strict_mode(h) & ~(uint32_t)LIBNBD_STRICT_ALIGN;

    if (nbd_set_export_name(h, export_name) < 0 ||
        nbd_set_strict_mode(h, strict) < 0 ||
        nbd_set_pread_initialize(h, false) < 0)
        return -1;
    return context != NULL ? nbd_add_meta_context(h, context) : 0;
}

static int
connect_one(struct nbd_conns *cs, struct nbd_conn *c, const char *context,
            struct err *err)
{
    int fd;

    if (set_up(c->h, cs->export_name, context) < 0)
        return err_set(err, ERR_USAGE, "export '%s': %s", cs->export_name,
                       nbd_words());
    fd = io_connect_unix(cs->socket, cs->timeout_ms, err);
    if (fd < 0)
        return -1;
    c->peek_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (c->peek_fd < 0) {
        (void)close(fd);
        return err_set_errno(err, errno, "connect to '%s'", cs->socket);
    }
    /* fd is now owned by c->h, also when this fails. */
    nbd_conns_begin(cs);
    if (nbd_aio_connect_socket(c->h, fd) < 0)
        return broken(cs, c, err);
    while (nbd_aio_is_ready(c->h) == 0)
        if (nbd_conns_turn(cs, err) < 0)
            return err_wrap(err, "connection %u to '%s'", cs->n, cs->socket);
    return learn(cs, c->h, context, err);
}

int
nbd_conns_add(struct nbd_conns *cs, const char *context, struct nbd_conn **ret,
              struct err *err)
{
    struct nbd_conn *c = &cs->v[cs->n];

    *c = (struct nbd_conn){.h = nbd_create(), .peek_fd = -1};
    if (c->h == NULL)
        return err_set(err, ERR_SYSTEM, "no memory for an NBD connection");
    cs->n++;
    if (connect_one(cs, c, context, err) < 0)
        return -1;
    *ret = c;
    return 0;
}

void
nbd_conns_drop(struct nbd_conns *cs)
{
    for (unsigned i = 0; i < cs->n; i++) {
        nbd_close(cs->v[i].h);
        if (cs->v[i].peek_fd >= 0)
            (void)close(cs->v[i].peek_fd);
    }
    cs->n = 0;
}

/* Without this QEMU counts the client as connected for a while longer, and
 * refuses to delete the export. */
static void
say_goodbye(struct nbd_conns *cs)
{
    struct deadline until = deadline_in(NBD_GOODBYE_MS);
    struct pollfd fds[NBD_CONNS_MAX];

    for (unsigned i = 0; i < cs->n; i++)
        if (nbd_aio_is_ready(cs->v[i].h) == 1)
            (void)nbd_aio_disconnect(cs->v[i].h, 0);
    for (;;) {
        unsigned n_open = 0;

        for (unsigned i = 0; i < cs->n; i++)
            n_open += poll_slot(&cs->v[i], &fds[i]);
        if (n_open == 0 || deadline_left(until) == 0)
            return;
        if (poll(fds, cs->n, deadline_left(until)) < 0 && errno != EINTR)
            return;
        for (unsigned i = 0; i < cs->n; i++)
            (void)notify(&cs->v[i], &fds[i]);
    }
}

/* Goodbyes are for connections that are not in the middle of something: a
 * buffer of an answer under way may be gone. */
static bool
idle(const struct nbd_conns *cs)
{
    for (unsigned i = 0; i < cs->n; i++)
        if (nbd_aio_is_ready(cs->v[i].h) != 1 ||
            nbd_aio_in_flight(cs->v[i].h) != 0)
            return false;
    return true;
}

void
nbd_conns_done(struct nbd_conns *cs)
{
    if (cs->n > 0 && idle(cs))
        say_goodbye(cs);
    nbd_conns_drop(cs);
    if (cs->cancel_fd >= 0)
        (void)close(cs->cancel_fd);
    free(cs->socket);
    free(cs->export_name);
}
