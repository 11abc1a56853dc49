/* base/io.h - whole reads and writes on descriptors.
 *
 * errno is left as the failing call set it; the caller knows the file's name
 * and makes the error.  EINTR is retried here.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct buf;
struct err;

/* All `len` bytes or -1. */
int io_write_full(int fd, const void *buf, size_t len);
int io_pwrite_full(int fd, const void *buf, size_t len, uint64_t off);

/* Bytes read (less than `len` only at the end of the file), or -1. */
ssize_t io_pread_full(int fd, void *buf, size_t len, uint64_t off);

/* Append a whole small file of at most `max` bytes to `b`. */
int io_read_file(const char *path, size_t max, struct buf *b, struct err *err);

/* fsync the directory `path`. */
int io_sync_dir(const char *path);

/* A stream Unix socket connected to `path`, close-on-exec and non-blocking,
 * within `timeout_ms`; -1 with *err naming the path and what to check. */
int io_connect_unix(const char *path, unsigned timeout_ms, struct err *err);
