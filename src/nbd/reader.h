/* nbd/reader.h - reading one NBD export: extents and pipelined reads.
 *
 * libnbd's synchronous calls never time out (measured: a stopped server hangs
 * nbd_pread for ever), so everything here goes through its asynchronous API
 * and a deadline that is renewed by progress: when no reply comes for
 * `timeout_ms` the reader is dead and says so.
 *
 * Contexts: a block status request answers for every context its connection
 * negotiated, and base:allocation on a full 1 TiB disk is a walk through all
 * of its metadata.  So each context has a connection of its own: dirty extents
 * are asked for the whole disk, allocation only where it matters.
 *
 * The server is not trusted: sizes, lengths and flags are checked; extents must
 * cover exactly what was asked, without gap or overlap; a missing context is an
 * error, never "nothing dirty".
 *
 * Threads: a reader belongs to one thread; nbd_reader_cancel() may be called
 * from any thread (not from a signal handler).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct nbd_reader;

struct nbd_reader_opts {
    const char *socket; /* Unix socket path */
    const char *export_name;
    const char *dirty_context; /* "qemu:dirty-bitmap:NAME", or NULL */
    unsigned connections; /* for reads; 1 if the server has no multi-conn */
    unsigned in_flight;   /* reads at once over all connections */
    unsigned timeout_ms;
    /* Bytes, a power of two, or 0: no request to read crosses a multiple of it,
     * because the server answers such wrongly. */
    unsigned grain;
};

/* Connect and negotiate.  Fails when base:allocation or the dirty context is
 * not granted.  Options' strings are not kept. */
int nbd_reader_open(const struct nbd_reader_opts *opts, struct nbd_reader **ret,
                    struct err *err);

/* NULL is fine.  Waits for half a second at most, so that a healthy server has
 * seen us leave before an export is deleted. */
void nbd_reader_close(struct nbd_reader *r);

uint64_t nbd_reader_size(const struct nbd_reader *r); /* bytes */

/* A run of bytes of one kind. */
struct nbd_extent {
    uint64_t off, len;
    bool flag; /* dirty: changed; zero: reads as zeroes */
};

struct nbd_extents {
    struct nbd_extent *v; /* ascending, adjoining, neighbours differ */
    size_t n, cap;
};
void nbd_extents_done(struct nbd_extents *e);

/* On success replace `ret` by the extents of [off, off + len): dirty ones (needs the dirty
 * context; an unknown flag counts as dirty) or zero ones (an unknown flag
 * counts as not zero).  They cover the range exactly.  ERR_REMOTE and
 * ERR_PROTOCOL leave a reader that still reads; other errors mean it is dead. */
int nbd_reader_dirty(struct nbd_reader *r, uint64_t off, uint64_t len,
                     struct nbd_extents *ret, struct err *err);
int nbd_reader_zero(struct nbd_reader *r, uint64_t off, uint64_t len,
                    struct nbd_extents *ret, struct err *err);

/* Called once for every read that was started, from inside nbd_reader_read(),
 * nbd_reader_wait() or, for what is left, nbd_reader_close(): error 0 and the
 * buffer is filled, or an errno value and the buffer holds nothing of use.  It
 * must not call the reader. */
typedef void (*nbd_read_fn)(void *arg, int error);

/* Start reading [off, off + len) into `buf`, which must stay until `done` was
 * called; waits for room when `in_flight` reads are under way, and for a read
 * under way that overlaps (QEMU 7.0 to 9.1 aborts over two of those).  len is
 * 1 to NBD_READ_MAX.  -1: the reader is dead, or the range is not on the disk
 * (ERR_USAGE); `done` will not be called for this read. */
#define NBD_READ_MAX (32u << 20)
int nbd_reader_read(struct nbd_reader *r, void *buf, uint64_t off, size_t len,
                    nbd_read_fn done, void *arg, struct err *err);

/* Wait until at most `n` reads are under way.  -1: the reader is dead; every
 * read under way has got its `done` with an error before this returns. */
int nbd_reader_wait(struct nbd_reader *r, unsigned n, struct err *err);

/* Make every present and later wait fail with ERR_CANCELED. */
void nbd_reader_cancel(struct nbd_reader *r);
