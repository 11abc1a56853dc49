#include "canary.h"

#include "cleanup.h"
#include "err.h"
#include "log.h"
#include "reader.h"
#include "repo.h"
#include "source.h"

#define TIMEOUT_MS 30000

DEFINE_CLEANUP(struct nbd_reader *, nbd_reader_close)

static int
check_block(struct nbd_reader *r, uint64_t block, bool *ret_alive,
            struct err *err)
{
    CLEANUP(nbd_extents_done) struct nbd_extents e = {0};
    uint64_t off = block * POINT_CANARY_SIZE, size = nbd_reader_size(r);
    uint64_t len =
        size - off < POINT_CANARY_SIZE ? size - off : POINT_CANARY_SIZE;

    /* Behind the end: the disk is smaller than the point's, which nobody
     * believes anyway. */
    if (off >= size) {
        *ret_alive = false;
        return 0;
    }
    if (nbd_reader_dirty(r, off, len, &e, err) < 0)
        return -1;
    for (size_t i = 0; i < e.n; i++)
        *ret_alive &= e.v[i].flag;
    return 0;
}

int
canary_check(const struct source_got *got, const struct point_disk *base,
             bool *ret_alive, struct err *err)
{
    const struct nbd_reader_opts opts = {.socket = got->socket,
                                         .export_name = got->export_name,
                                         .dirty_context = got->dirty_context,
                                         .connections = 1,
                                         .in_flight = 1,
                                         .timeout_ms = TIMEOUT_MS};
    CLEANUP(nbd_reader_closep) struct nbd_reader *r = NULL;

    *ret_alive = true;
    if (base->n_canaries == 0)
        return 0;
    if (nbd_reader_open(&opts, &r, err) < 0)
        return -1;
    for (size_t i = 0; i < base->n_canaries; i++)
        if (check_block(r, base->canaries[i], ret_alive, err) < 0)
            return -1;
    if (!*ret_alive)
        log_debug("export '%s': canaries are gone", got->export_name);
    return 0;
}
