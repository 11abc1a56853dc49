/* store/mapping.h - files in memory, where a page that cannot be read is an
 * error and not the end of the process.
 *
 * The kernel sends SIGBUS to whoever touches a mapped page that the disk does not
 * give (a bad sector, a network file system that is gone, a file that became
 * shorter).  A handler puts a page of zeroes there and notes it: the reader goes
 * on, its checksums fail, and mapping_check() says why.
 *
 * The handler is installed with the first mapping and leaves every other SIGBUS
 * to whoever handled it before.  Threads: all functions from any thread; a
 * mapping is not freed while somebody reads it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct err;

/* Map `len` > 0 bytes of `fd` for reading; `name` is what messages call it. */
int mapping_new(int fd, size_t len, const char *name, const uint8_t **ret,
                struct err *err);
void mapping_free(const uint8_t *data, size_t len);

/* 0, or -1 when a page of it could not be read.  *err is replaced then: what it
 * may hold (a checksum that fails) is only the consequence. */
int mapping_check(const uint8_t *data, struct err *err);
