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

/* Connect to export `export_name` on a Unix socket. */
int nbd_writer_open(const char *socket, const char *export_name,
                    unsigned in_flight, unsigned timeout_ms,
                    struct nbd_writer **ret, struct err *err);
uint64_t nbd_writer_size(const struct nbd_writer *w);

/* Start writing a copy of `len` bytes (at most 32 MiB) at `off`.  A failed
 * write makes this or a later call fail. */
int nbd_writer_write(struct nbd_writer *w, const void *buf, uint64_t off,
                     size_t len, struct err *err);

/* Start writing zeroes; the server may punch a hole. */
int nbd_writer_zero(struct nbd_writer *w, uint64_t off, uint64_t len,
                    struct err *err);

/* Wait for all writes, then FLUSH.  After 0 the server has them on disk. */
int nbd_writer_flush(struct nbd_writer *w, struct err *err);

void nbd_writer_close(struct nbd_writer *w); /* NULL is fine; never blocks */
