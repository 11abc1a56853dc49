/* source/holder.h - is an image in use, and by whom?
 *
 * QEMU and its tools mark what they do with an image by read locks on single
 * bytes of it (QEMU's block/file-posix.c): byte 100 + n stands for a permission
 * that is used, 200 + n for one that others must not use.  We look at those
 * bytes, and hold them for images that our storage daemon only reads.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct err;

/* Open the image and check that nobody writes to it and, with `write`, that
 * nobody else relies on its content.  Without `write`, *ret_fd keeps others from
 * writing until it is closed; with it, it holds nothing.  ERR_LOCKED says who
 * has the image and how to back it up instead.  A storage daemon whose run under
 * `run_base` was killed gets a while to end. */
int holder_check(const char *path, bool write, const char *run_base,
                 int *ret_fd, struct err *err);

/* Pure: the path of a QMP socket on a command line (words that end in NUL), or
 * NULL; malloc'd. */
char *holder_qmp(const char *words, size_t len);
