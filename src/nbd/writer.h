/* nbd/writer.h - writing to one NBD export, pipelined.
 *
 * The mirror of reader.h with the same rules on deadlines and errors.  Used to
 * fill qcow2 images through QEMU's own programs: nothing else here parses or
 * writes qcow2.
 * Threads: a writer belongs to one thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct err;
struct nbd_writer;

/* Connect to export `export_name` on a Unix socket.  ERR_UNSUPPORTED when it is
 * read-only. */
int nbd_writer_open(const char *socket, const char *export_name,
                    unsigned in_flight, unsigned timeout_ms,
                    struct nbd_writer **ret, struct err *err);
uint64_t nbd_writer_size(const struct nbd_writer *w);

/* Start writing a copy of `len` bytes (at most NBD_WRITE_MAX) at `off`; waits
 * for room, and for writes under way that overlap, so that the later one wins.
 * A failed write makes this and every later call fail. */
#define NBD_WRITE_MAX (32u << 20)
int nbd_writer_write(struct nbd_writer *w, const void *buf, uint64_t off,
                     size_t len, struct err *err);

/* Start writing zeroes; the server may punch a hole. */
int nbd_writer_zero(struct nbd_writer *w, uint64_t off, uint64_t len,
                    struct err *err);

/* Wait for all writes, then FLUSH.  After 0 the server has them on disk. */
int nbd_writer_flush(struct nbd_writer *w, struct err *err);

/* NULL is fine.  Does not wait for writes; see nbd_writer_flush().  Waits for
 * half a second at most for a healthy server to see us leave. */
void nbd_writer_close(struct nbd_writer *w);
