/* source/address.h - the text that names a machine. */
#pragma once

struct err;

struct address {
    char *qmp;   /* path of the QMP socket */
    char *agent; /* path of the guest agent's socket, or NULL */
};

/* Parse "qmp:/path.sock[,agent=/path.sock]"; a comma inside a path is written
 * twice, as on QEMU's command line.  Paths must be absolute, so that a backup
 * from cron means the same as one from a shell.  0: free with address_done(). */
int address_parse(const char *text, struct address *ret, struct err *err);
void address_done(struct address *a);
