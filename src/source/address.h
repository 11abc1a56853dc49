/* source/address.h - the text that names a machine. */
#pragma once

#include <stddef.h>

struct err;

#define ADDRESS_IMAGES_MAX 256

/* One image of a machine that is off. */
struct address_image {
    char *path;
    char *format; /* "raw" or "qcow2" */
    char *name;   /* of the disk, or NULL when it was not stated */
};

struct address {
    char *qmp;   /* path of the QMP socket; NULL: the machine is off */
    char *agent; /* path of the guest agent's socket, or NULL */
    struct address_image *images;
    size_t n_images; /* 0 with `qmp` */
};

/* Parse "qmp:/path.sock[,agent=/path.sock]" or
 * "file:/disk0.qcow2[,format=raw|qcow2][,disk=NAME][,/disk1...]"; a comma inside
 * a path is written twice, as on QEMU's command line.  Paths must be absolute,
 * so that a backup from cron means the same as one from a shell.  The format of
 * an image is stated, or its name ends in .qcow2 or .raw: its first bytes are
 * the guest's and say nothing.  0: free with address_done(). */
int address_parse(const char *text, struct address *ret, struct err *err);
void address_done(struct address *a);
