#include "image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "child.h"
#include "cleanup.h"
#include "clock.h"
#include "err.h"
#include "io.h"
#include "outfile.h"
#include "writer.h"

#define SECTOR 512
#define CREATE_MS 60000 /* qemu-img create */
#define READY_MS 30000  /* qemu-nbd until it listens */
#define STOP_MS 300000  /* qemu-nbd until its last metadata are written */
#define NBD_TIMEOUT_MS 120000
#define NBD_IN_FLIGHT 16
#define EXPORT_NAME "disk"

struct image {
    struct outfile file;
    bool qcow2;
    uint64_t size, virtual_size;
    unsigned n_workers;
    /* qcow2 */
    char socket[sizeof((struct sockaddr_un *)NULL)->sun_path];
    struct child server;
    struct nbd_writer **writers; /* by worker; opened on first use */
};

/* -- qcow2 ------------------------------------------------------------------*/

static int
create_qcow2(const char *path, uint64_t size, struct err *err)
{
    CLEANUP(child_done) struct child c = CHILD_INIT;
    char text[24];
    const char *argv[] = {"qemu-img", "create",     "-q", "-f", "qcow2",
                          "-o",       "compat=1.1", path, text, NULL};

    (void)snprintf(text, sizeof text, "%" PRIu64, size);
    if (child_start(argv, &c, err) < 0)
        return -1;
    return child_wait(&c, CREATE_MS, err);
}

static int
start_server(struct image *im, const char *path, struct err *err)
{
    char clients[12];
    /* Unsafe caching: nothing counts before the fsync at the end. */
    const char *argv[] = {"qemu-nbd",
                          "-f",
                          "qcow2",
                          "--cache=unsafe",
                          "--discard=unmap",
                          "-t",
                          "-e",
                          clients,
                          "-x",
                          EXPORT_NAME,
                          "-k",
                          im->socket,
                          path,
                          NULL};

    (void)snprintf(clients, sizeof clients, "%u", im->n_workers + 1);
    return child_start(argv, &im->server, err);
}

static int
open_writer(struct image *im, unsigned worker, struct err *err)
{
    struct nbd_writer *w;

    if (nbd_writer_open(im->socket, EXPORT_NAME, NBD_IN_FLIGHT, NBD_TIMEOUT_MS,
                        &w, err) < 0)
        return -1;
    im->writers[worker] = w;
    if (nbd_writer_size(w) != im->virtual_size)
        return err_set(err, ERR_PROTOCOL,
                       "'qemu-nbd' exports %" PRIu64 " bytes instead of "
                       "%" PRIu64,
                       nbd_writer_size(w), im->virtual_size);
    return 0;
}

/* The socket appears when the server listens; until then connecting fails. */
static int
wait_ready(struct image *im, struct err *err)
{
    struct deadline d = deadline_in(READY_MS);

    for (;;) {
        struct err why = ERR_INIT;

        if (access(im->socket, F_OK) == 0 && open_writer(im, 0, &why) == 0)
            return 0;
        if (child_ended(&im->server, 10)) {
            if (child_wait(&im->server, 0, err) == 0)
                (void)err_set(err, ERR_CLOSED, "'qemu-nbd' ended early");
            return -1;
        }
        if (deadline_left(d) == 0 || im->writers[0] != NULL) {
            (void)err_set(&why, ERR_TIMEOUT,
                          "'qemu-nbd' did not listen within %d s",
                          READY_MS / 1000);
            return err_copy(err, &why);
        }
    }
}

static int
make_qcow2(struct image *im, const struct image_opts *opts, struct err *err)
{
    CLEANUP_FREE char *path = NULL;
    int len = snprintf(im->socket, sizeof im->socket, "%s/%u", opts->sock_dir,
                       opts->number);

    if (len < 0 || (size_t)len >= sizeof im->socket)
        return err_set(err, ERR_USAGE, "socket path '%s/%u' is too long",
                       opts->sock_dir, opts->number);
    im->writers = calloc(im->n_workers, sizeof(struct nbd_writer *));
    if (im->writers == NULL ||
        asprintf(&path, "%s/%s", opts->dir, im->file.partial) < 0)
        return err_set_errno(err, ENOMEM, "image of '%s'", opts->name);
    if (create_qcow2(path, im->virtual_size, err) < 0)
        return -1;
    if (start_server(im, path, err) < 0)
        return -1;
    return wait_ready(im, err);
}

/* The last sector of the image may reach beyond the disk. */
static int
write_tail(struct nbd_writer *w, const void *data, uint64_t off, size_t len,
           struct err *err)
{
    size_t padded = (len + SECTOR - 1) / SECTOR * SECTOR;
    CLEANUP_FREE uint8_t *buf = calloc(1, padded);

    if (buf == NULL)
        return err_set_errno(err, ENOMEM, "sector buffer");
    memcpy(buf, data, len);
    return nbd_writer_write(w, buf, off, padded, err);
}

static int
write_qcow2(struct image *im, unsigned worker, const void *data, uint64_t off,
            size_t len, struct err *err)
{
    if (im->writers[worker] == NULL && open_writer(im, worker, err) < 0)
        return -1;
    if (len % SECTOR != 0)
        return write_tail(im->writers[worker], data, off, len, err);
    return nbd_writer_write(im->writers[worker], data, off, len, err);
}

static int
stop_server(struct image *im, struct err *err)
{
    for (unsigned i = 0; i < im->n_workers; i++) {
        if (im->writers[i] == NULL)
            continue;
        if (nbd_writer_flush(im->writers[i], err) < 0)
            return -1;
        nbd_writer_close(TAKE_PTR(im->writers[i]));
    }
    return child_stop(&im->server, STOP_MS, err);
}

/* -- either -----------------------------------------------------------------*/

static int
fill_in(struct image *im, const struct image_opts *opts, struct err *err)
{
    im->file = (struct outfile)OUTFILE_INIT;
    im->server = (struct child)CHILD_INIT;
    im->qcow2 = opts->qcow2;
    im->size = opts->size;
    im->virtual_size = opts->size;
    im->n_workers = opts->n_workers;
    if (opts->qcow2)
        im->virtual_size = (opts->size + SECTOR - 1) / SECTOR * SECTOR;
    if (opts->size > INT64_MAX - SECTOR)
        return err_set(err, ERR_FORMAT, "size %" PRIu64 " is impossible",
                       opts->size);
    if (outfile_make(opts->dir_fd, opts->name, opts->overwrite, &im->file,
                     err) < 0)
        return -1;
    if (im->qcow2)
        return make_qcow2(im, opts, err);
    if (ftruncate(im->file.fd, (off_t)im->size) != 0)
        return err_set_errno(err, errno, "make '%s' %" PRIu64 " bytes long",
                             im->file.partial, im->size);
    return 0;
}

int
image_make(const struct image_opts *opts, struct image **ret, struct err *err)
{
    struct image *im = calloc(1, sizeof *im);

    if (im == NULL)
        return err_set_errno(err, ENOMEM, "image '%s'", opts->name);
    if (fill_in(im, opts, err) < 0) {
        image_free(im);
        return err_wrap(err, "image '%s'", opts->name);
    }
    *ret = im;
    return 0;
}

uint64_t
image_virtual_size(const struct image *im)
{
    return im->virtual_size;
}

int
image_write(struct image *im, unsigned worker, const void *data, uint64_t off,
            size_t len, struct err *err)
{
    if (len > im->size || off > im->size - len)
        return err_set(err, ERR_FORMAT,
                       "%zu bytes at offset %" PRIu64 " are outside of image "
                       "'%s'",
                       len, off, im->file.name);
    if (im->qcow2) {
        if (write_qcow2(im, worker, data, off, len, err) < 0)
            return err_wrap(err, "write to image '%s'", im->file.name);
        return 0;
    }
    if (io_pwrite_full(im->file.fd, data, len, off) < 0)
        return err_set_errno(err, errno,
                             "write %zu bytes at offset %" PRIu64 " of '%s'",
                             len, off, im->file.partial);
    return 0;
}

int
image_finish(struct image *im, struct err *err)
{
    if (im->qcow2 && stop_server(im, err) < 0)
        return err_wrap(err, "finish image '%s'", im->file.name);
    return outfile_publish(&im->file, err);
}

void
image_free(struct image *im)
{
    if (im == NULL)
        return;
    for (unsigned i = 0; im->writers != NULL && i < im->n_workers; i++)
        nbd_writer_close(im->writers[i]);
    free(im->writers);
    child_done(&im->server);
    if (im->socket[0] != '\0')
        (void)unlink(im->socket);
    outfile_done(&im->file);
    free(im);
}
