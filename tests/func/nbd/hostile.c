#include "hostile.h"

#include <endian.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io.h"
#include "server.h"

enum { OPT_GO = 7, OPT_STRUCTURED = 8, OPT_SET_META = 10 };
enum { REP_ACK = 1, REP_INFO = 3, REP_META = 4 };
enum { CMD_READ = 0, CMD_DISC = 2, CMD_STATUS = 7 };
enum { CHUNK_NONE = 0, CHUNK_DATA = 1, CHUNK_STATUS = 5, CHUNK_ERROR = 32769 };

#define CONTEXT_ID 7
#define DATA_MAX (1u << 20)

struct session {
    const struct hostile *h;
    int fd;
    bool first;
};

struct request {
    uint16_t type;
    uint64_t cookie, off;
    uint32_t len;
};

/* Big-endian words, one after the other. */
struct out {
    uint8_t v[256];
    size_t n;
};

static void
put(struct out *o, uint64_t value, unsigned bytes)
{
    while (bytes-- > 0)
        o->v[o->n++] = (uint8_t)(value >> (8 * bytes));
}

static uint64_t
get(const uint8_t *p, unsigned bytes)
{
    uint64_t v = 0;

    while (bytes-- > 0)
        v = v << 8 | *p++;
    return v;
}

static bool
send_all(int fd, const void *data, size_t len)
{
    const uint8_t *p = data;

    while (len > 0) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

        if (n <= 0)
            return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}

static bool
send_out(int fd, const struct out *o)
{
    return send_all(fd, o->v, o->n);
}

static bool
recv_all(int fd, void *data, size_t len)
{
    return len == 0 || recv(fd, data, len, MSG_WAITALL) == (ssize_t)len;
}

/* ---- negotiation ---- */

static bool
option_reply(int fd, uint32_t opt, uint32_t type, const struct out *data)
{
    struct out o = {0};

    put(&o, 0x3e889045565a9, 8);
    put(&o, opt, 4);
    put(&o, type, 4);
    put(&o, data != NULL ? data->n : 0, 4);
    return send_out(fd, &o) && (data == NULL || send_out(fd, data));
}

static bool
send_info(const struct session *s)
{
    const struct hostile *h = s->h;
    struct out info = {0}, blocks = {0};

    put(&info, 0, 2);
    put(&info, s->first || h->later_size == 0 ? h->size : h->later_size, 8);
    put(&info, 0x0103, 2); /* read-only, multi-conn */
    put(&blocks, 3, 2);
    put(&blocks, h->block_min, 4);
    put(&blocks, h->block_pref, 4);
    put(&blocks, h->block_max, 4);
    return option_reply(s->fd, OPT_GO, REP_INFO, &info) &&
           (h->block_max == 0 ||
            option_reply(s->fd, OPT_GO, REP_INFO, &blocks)) &&
           option_reply(s->fd, OPT_GO, REP_ACK, NULL);
}

/* Grant the one context that was asked for. */
static bool
grant(const struct session *s, const uint8_t *data, uint32_t len)
{
    uint32_t name = (uint32_t)get(data, 4);
    const uint8_t *query = data + 4 + name + 4;
    struct out o = {0};
    uint32_t n;

    if (len < 4 + name + 8)
        return false;
    n = (uint32_t)get(query, 4);
    put(&o, CONTEXT_ID, 4);
    for (uint32_t i = 0; i < n && i < 100; i++)
        put(&o, query[4 + i] ^ (s->h->greet == GREET_OTHER_CTX ? 1 : 0), 1);
    return option_reply(s->fd, OPT_SET_META, REP_META, &o) &&
           option_reply(s->fd, OPT_SET_META, REP_ACK, NULL);
}

static bool
negotiate(const struct session *s)
{
    static const char hello[] = "NBDMAGICIHAVEOPT\0\3";
    uint8_t head[16], data[8192];

    if (!send_all(s->fd, hello, 18) || !recv_all(s->fd, head, 4))
        return false;
    for (;;) {
        uint32_t opt, len;

        if (!recv_all(s->fd, head, 16) || s->h->greet == GREET_HANG_UP)
            return false;
        opt = (uint32_t)get(head + 8, 4);
        len = (uint32_t)get(head + 12, 4);
        if (len > sizeof data || !recv_all(s->fd, data, len))
            return false;
        if (opt == OPT_GO)
            return send_info(s);
        if (opt == OPT_SET_META ? !grant(s, data, len)
                                : !option_reply(s->fd, opt, REP_ACK, NULL))
            return false;
    }
}

/* ---- transmission ---- */

static void
put_chunk(struct out *o, unsigned done, unsigned type, uint64_t cookie,
          uint64_t len)
{
    put(o, 0x668e33ef, 4);
    put(o, done, 2);
    put(o, type, 2);
    put(o, cookie, 8);
    put(o, len, 4);
}

static bool
send_error(int fd, const struct request *q)
{
    struct out o = {0};

    put_chunk(&o, 1, CHUNK_ERROR, q->cookie, 6);
    put(&o, 5, 4); /* EIO */
    put(&o, 0, 2);
    return send_out(fd, &o);
}

static bool
send_none(int fd, const struct request *q)
{
    struct out o = {0};

    put_chunk(&o, 1, CHUNK_NONE, q->cookie, 0);
    return send_out(fd, &o);
}

static bool
send_extents(int fd, const struct request *q, unsigned done, uint32_t id,
             const uint32_t *v, size_t n)
{
    struct out o = {0};

    put_chunk(&o, done, CHUNK_STATUS, q->cookie, 4 + 4 * n);
    put(&o, id, 4);
    for (size_t i = 0; i < n; i++)
        put(&o, v[i], 4);
    return send_out(fd, &o);
}

static bool
answer_status(const struct session *s, const struct request *q)
{
    uint32_t v[4] = {q->len, 0, q->len, 0};
    int fd = s->fd;

    switch (s->h->status) {
    case STATUS_GOOD:
        break;
    case STATUS_SHORT:
        v[0] = q->len < 65536 ? q->len : 65536;
        v[1] = (q->off / 65536) % 2;
        break;
    case STATUS_LONG:
        v[0] = UINT32_MAX;
        break;
    case STATUS_EMPTY:
        v[0] = 0;
        break;
    case STATUS_UNALIGNED:
        v[0] = 100;
        break;
    case STATUS_NONE:
        return send_none(fd, q);
    case STATUS_TWICE:
        if (!send_extents(fd, q, 0, CONTEXT_ID, v, 2))
            return false;
        break;
    case STATUS_WRONG_ID:
        return send_extents(fd, q, 1, CONTEXT_ID + 1, v, 2);
    case STATUS_BEHIND:
        return send_extents(fd, q, 1, CONTEXT_ID, v, 4);
    case STATUS_HALF_PAIR:
        return send_extents(fd, q, 1, CONTEXT_ID, v, 3);
    case STATUS_ERROR:
        return send_error(fd, q);
    }
    return send_extents(fd, q, 1, CONTEXT_ID, v, 2);
}

static bool
send_data(int fd, const struct request *q, unsigned done, uint64_t off,
          uint32_t len)
{
    static const uint8_t zeroes[DATA_MAX];
    struct out o = {0};

    put_chunk(&o, done, CHUNK_DATA, q->cookie, 8 + (uint64_t)len);
    put(&o, off, 8);
    return send_out(fd, &o) && send_all(fd, zeroes, len);
}

static bool
send_words(int fd, uint64_t a, uint64_t b, uint64_t c)
{
    struct out o = {0};

    put(&o, a, 4);
    put(&o, b, 4);
    put(&o, c, 8);
    return send_out(fd, &o);
}

static bool
answer_read(const struct session *s, const struct request *q)
{
    struct request other = *q;
    struct out o = {0};

    other.cookie += 1000;
    switch (s->h->read) {
    case READ_GOOD:
        break;
    case READ_HALF:
        return send_data(s->fd, q, 1, q->off, q->len / 2);
    case READ_NOTHING:
        return send_none(s->fd, q);
    case READ_DATA_ERROR:
        return send_data(s->fd, q, 0, q->off, q->len) && send_error(s->fd, q);
    case READ_OUTSIDE:
        return send_data(s->fd, q, 1, q->off - 1, q->len);
    case READ_WRONG_COOKIE:
        return send_data(s->fd, &other, 1, q->off, q->len);
    case READ_AFTER_DONE:
        if (!send_data(s->fd, q, 1, q->off, q->len))
            return false;
        break;
    case READ_TOO_LONG:
        put_chunk(&o, 1, CHUNK_DATA, q->cookie, UINT32_MAX);
        put(&o, q->off, 8);
        return send_out(s->fd, &o);
    case READ_SIMPLE:
        return send_words(s->fd, 0x67446698, 0, q->cookie);
    case READ_BAD_MAGIC:
        return send_words(s->fd, 0xdeadbeef, 0, q->cookie);
    case READ_SILENT:
        return true;
    }
    return send_data(s->fd, q, 1, q->off, q->len);
}

static void
serve(const struct session *s)
{
    uint8_t head[28];

    while (recv_all(s->fd, head, sizeof head)) {
        struct request q = {.type = (uint16_t)get(head + 6, 2),
                            .cookie = get(head + 8, 8),
                            .off = get(head + 16, 8),
                            .len = (uint32_t)get(head + 24, 4)};

        if (q.type == CMD_READ && q.len <= DATA_MAX) {
            if (!answer_read(s, &q))
                return;
        } else if (q.type == CMD_STATUS) {
            if (!answer_status(s, &q))
                return;
        } else {
            return;
        }
    }
}

static void *
session_thread(void *arg)
{
    struct session *s = arg;
    uint8_t byte;

    if (s->h->greet == GREET_SILENT)
        (void)recv(s->fd, &byte, 1, MSG_WAITALL);
    else if (s->h->greet == GREET_GARBAGE)
        (void)send_all(s->fd, "220 mail.example ESMTP ready, go on\r\n", 37);
    else if (negotiate(s))
        serve(s);
    (void)close(s->fd);
    free(s);
    return NULL;
}

static void
accept_loop(int listener, void *arg)
{
    for (bool first = true;; first = false) {
        struct session *s = calloc(1, sizeof *s);
        pthread_t thread;

        if (s == NULL)
            _exit(1);
        *s = (struct session){
            .h = arg, .fd = accept(listener, NULL, NULL), .first = first};
        if (s->fd < 0 || pthread_create(&thread, NULL, session_thread, s) != 0)
            _exit(1);
        (void)pthread_detach(thread);
    }
}

void
server_hostile(struct server *s, const struct hostile *h)
{
    struct hostile copy = *h;

    server_fork(s, accept_loop, &copy);
}
