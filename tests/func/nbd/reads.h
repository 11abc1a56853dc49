/* tests/func/nbd/reads.h - reads that count their `done` calls. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "reader.h"
#include "server.h"
#include "tap.h"

struct one_read {
    uint64_t off;
    size_t len;
    uint8_t *buf;
    unsigned n_done;
    int error;
};

static inline void
on_read(void *arg, int error)
{
    struct one_read *o = arg;

    o->n_done++;
    o->error = error;
}

static inline int
start_read(struct nbd_reader *r, struct one_read *o, uint64_t off, size_t len,
           struct err *err)
{
    *o = (struct one_read){.off = off, .len = len, .buf = malloc(len)};
    memset(o->buf, 0xee, len);
    return nbd_reader_read(r, o->buf, off, len, on_read, o, err);
}

/* Read one range to its end; its error. */
static inline int
read_now(struct nbd_reader *r, void *buf, uint64_t off, size_t len)
{
    struct one_read o = {0};
    struct err err = ERR_INIT;

    if (nbd_reader_read(r, buf, off, len, on_read, &o, &err) < 0 ||
        nbd_reader_wait(r, 0, &err) < 0) {
        printf("# read: %s\n", err.msg);
        return -1;
    }
    CHECK(o.n_done == 1);
    return o.error;
}

static inline struct nbd_reader_opts
opts_for(const struct server *s)
{
    return (struct nbd_reader_opts){.socket = s->sock,
                                    .export_name = "",
                                    .connections = 4,
                                    .in_flight = 16,
                                    .timeout_ms = PATIENCE_MS};
}

static inline struct nbd_reader *
open_reader(const struct nbd_reader_opts *o)
{
    struct nbd_reader *r = NULL;
    struct err err = ERR_INIT;

    CHECK_OK(nbd_reader_open(o, &r, &err), &err);
    if (r == NULL) {
        printf("Bail out! no reader\n");
        exit(99);
    }
    return r;
}

/* The code of an opening that must fail. */
static inline enum err_code
open_fails(const struct nbd_reader_opts *o, struct err *err)
{
    struct nbd_reader *r = NULL;

    err_clear(err);
    CHECK(nbd_reader_open(o, &r, err) == -1);
    CHECK(r == NULL);
    nbd_reader_close(r);
    return err->code;
}
