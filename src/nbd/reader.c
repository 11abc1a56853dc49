#include "reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <libnbd.h>

#include "cleanup.h"
#include "reader-int.h"

#define IN_FLIGHT_MAX 1024 /* the slots are searched one by one */

static int
errno_of(enum err_code code)
{
    if (code == ERR_TIMEOUT)
        return ETIMEDOUT;
    if (code == ERR_CANCELED)
        return ECANCELED;
    if (code == ERR_CLOSED)
        return ENOTCONN;
    return code == ERR_PROTOCOL ? EPROTO : EIO;
}

/* Connections first: after that no callback of libnbd runs any more. */
static void
die(struct nbd_reader *r)
{
    nbd_conns_drop(&r->cs);
    reader_abandon(r, errno_of(r->dead.code));
}

int
reader_turn(struct nbd_reader *r, struct err *err)
{
    int ret = nbd_conns_turn(&r->cs, &r->dead);

    reader_reap(r);
    if (ret == 0)
        return 0;
    die(r);
    return err_copy(err, &r->dead);
}

int
reader_begin(struct nbd_reader *r, struct err *err)
{
    if (r->dead.code != ERR_NONE)
        return err_copy(err, &r->dead);
    nbd_conns_begin(&r->cs);
    return nbd_conns_over(&r->cs) ? reader_turn(r, err) : 0;
}

static int
check_opts(const struct nbd_reader_opts *o, struct err *err)
{
    if (o->connections == 0 || o->connections > NBD_CONNS_MAX - 1)
        return err_set(err, ERR_USAGE, "%u NBD connections, not 1 to %d",
                       o->connections, NBD_CONNS_MAX - 1);
    if (o->in_flight == 0 || o->in_flight > IN_FLIGHT_MAX)
        return err_set(err, ERR_USAGE, "%u NBD reads at once, not 1 to %d",
                       o->in_flight, IN_FLIGHT_MAX);
    return 0;
}

static int
connect_all(struct nbd_reader *r, const struct nbd_reader_opts *o,
            struct err *err)
{
    unsigned n_reads = o->connections;
    struct nbd_conn *c;

    if (nbd_conns_add(&r->cs, LIBNBD_CONTEXT_BASE_ALLOCATION, &r->alloc, err) <
        0)
        return -1;
    r->alloc->reads = true;
    if (r->dirty_context != NULL &&
        nbd_conns_add(&r->cs, r->dirty_context, &r->dirty, err) < 0)
        return -1;
    if (nbd_can_multi_conn(r->alloc->h) != 1)
        n_reads = 1;
    for (unsigned i = 1; i < n_reads; i++) {
        if (nbd_conns_add(&r->cs, NULL, &c, err) < 0)
            return -1;
        c->reads = true;
    }
    return 0;
}

static int
set_up(struct nbd_reader *r, const struct nbd_reader_opts *o, struct err *err)
{
    if (check_opts(o, err) < 0)
        return -1;
    if (o->dirty_context != NULL)
        r->dirty_context = strdup(o->dirty_context);
    r->slots = calloc(o->in_flight, sizeof *r->slots);
    if (r->slots == NULL || (o->dirty_context && r->dirty_context == NULL))
        return err_set(err, ERR_SYSTEM, "no memory for an NBD reader");
    r->in_flight = o->in_flight;
    r->grain = o->grain;
    r->cs.cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (r->cs.cancel_fd < 0)
        return err_set_errno(err, errno, "eventfd");
    return connect_all(r, o, err);
}

DEFINE_CLEANUP(struct nbd_reader *, nbd_reader_close)

int
nbd_reader_open(const struct nbd_reader_opts *opts, struct nbd_reader **ret,
                struct err *err)
{
    CLEANUP(nbd_reader_closep) struct nbd_reader *r = calloc(1, sizeof *r);

    if (r == NULL)
        return err_set(err, ERR_SYSTEM, "no memory for an NBD reader");
    if (nbd_conns_init(&r->cs, opts->socket, opts->export_name,
                       opts->timeout_ms, err) < 0)
        return -1;
    if (set_up(r, opts, err) < 0)
        return -1;
    *ret = TAKE_PTR(r);
    return 0;
}

void
nbd_reader_close(struct nbd_reader *r)
{
    if (r == NULL)
        return;
    if (r->n_busy > r->n_finished)
        nbd_conns_drop(&r->cs);
    reader_abandon(r, ECANCELED);
    reader_deliver(r);
    nbd_conns_done(&r->cs);
    free(r->slots);
    free(r->dirty_context);
    free(r);
}

uint64_t
nbd_reader_size(const struct nbd_reader *r)
{
    return r->cs.size;
}

void
nbd_reader_cancel(struct nbd_reader *r)
{
    uint64_t one = 1;

    /* The flag before the event: who is woken must see it.  The event is never
     * taken back, and a full counter is as readable as any. */
    atomic_store(&r->cs.canceled, true);
    if (write(r->cs.cancel_fd, &one, sizeof one) < 0)
        return;
}
