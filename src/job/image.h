/* job/image.h - one disk image being filled by a restore.
 *
 * Raw images are written here.  A qcow2 image is made by qemu-img and filled
 * through qemu-nbd, the only code that writes the format.  Either way the image
 * starts all zero, so zero chunks are not written, and it gets its name only
 * when it is complete and durable.
 *
 * Threads: make, finish and free from the main thread (children belong to it);
 * image_write() from worker threads, each under its own number.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct image;

struct image_opts {
    int dir_fd;           /* destination */
    const char *dir;      /* the same as an absolute path */
    const char *name;     /* file name, checked */
    bool qcow2;           /* else raw */
    uint64_t size;        /* bytes */
    bool overwrite;       /* replace the file of that name */
    unsigned n_workers;   /* callers of image_write(), 0 .. n-1 */
    const char *sock_dir; /* private directory for the socket (qcow2) */
    unsigned number;      /* makes the socket's name unique in there */
};

int image_make(const struct image_opts *opts, struct image **ret,
               struct err *err);

/* The size a guest will see: qcow2 counts sectors of 512 bytes. */
uint64_t image_virtual_size(const struct image *im);

/* Write `len` bytes of disk contents at `off`; `data` may go afterwards.  A
 * failure can be reported late, at the latest by image_finish(). */
int image_write(struct image *im, unsigned worker, const void *data,
                uint64_t off, size_t len, struct err *err);

/* Everything was written: make it durable under its name. */
int image_finish(struct image *im, struct err *err);

/* Free; removes an image that was not finished.  NULL is fine. */
void image_free(struct image *im);
