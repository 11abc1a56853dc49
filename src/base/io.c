#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "clock.h"
#include "err.h"

int
io_write_full(int fd, const void *buf, size_t len)
{
    const uint8_t *p = buf;

    while (len > 0) {
        ssize_t n = write(fd, p, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

int
io_pwrite_full(int fd, const void *buf, size_t len, uint64_t off)
{
    const uint8_t *p = buf;

    while (len > 0) {
        ssize_t n = pwrite(fd, p, len, (off_t)off);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        p += n;
        off += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

ssize_t
io_pread_full(int fd, void *buf, size_t len, uint64_t off)
{
    uint8_t *p = buf;
    size_t done = 0;

    while (done < len) {
        ssize_t n = pread(fd, p + done, len - done, (off_t)(off + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

int
io_read_file(const char *path, size_t max, struct buf *b, struct err *err)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t total = 0;

    if (fd < 0)
        return err_set_errno(err, errno, "open '%s'", path);
    for (;;) {
        ssize_t n;

        if (buf_reserve(b, 65536, err) < 0)
            return -1;
        n = read(fd, b->data + b->len, 65536);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set_errno(err, errno, "read '%s'", path);
        if (n == 0)
            return 0;
        b->len += (size_t)n;
        total += (size_t)n;
        if (total > max)
            return err_set(err, ERR_FORMAT, "'%s' is larger than %zu bytes",
                           path, max);
    }
}

int
io_sync_dir(const char *path)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return -1;
    return fsync(fd);
}

int
io_connect_unix(const char *path, unsigned timeout_ms, struct err *err)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    struct deadline until = deadline_in(timeout_ms);
    CLEANUP_CLOSE int fd = -1;

    if (strlen(path) >= sizeof sa.sun_path)
        return err_set(err, ERR_USAGE,
                       "socket path '%s' is longer than %zu bytes", path,
                       sizeof sa.sun_path - 1);
    memcpy(sa.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set_errno(err, errno, "make a socket for '%s'", path);
    for (;;) {
        if (connect(fd, (struct sockaddr *)&sa, sizeof sa) == 0)
            return TAKE_FD(fd);
        if (errno == EINTR)
            continue;
        /* A Unix socket whose backlog is full answers EAGAIN, not
         * EINPROGRESS: there is nothing to poll for, so look again. */
        if (errno != EAGAIN || deadline_left(until) == 0)
            break;
        (void)poll(NULL, 0, 20);
    }
    if (errno == EAGAIN)
        return err_set(err, ERR_TIMEOUT,
                       "connect to '%s': no answer within %u ms; is another "
                       "program connected to it?",
                       path, timeout_ms);
    return err_set_errno(err, errno, "connect to '%s'", path);
}
