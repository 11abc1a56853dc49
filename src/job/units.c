#include "units.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "err.h"

int
units_init(struct units *u, size_t buf_bytes, unsigned max_bufs,
           unsigned max_units, struct err *err)
{
    *u = (struct units){
        .buf_bytes = buf_bytes, .max_bufs = max_bufs, .max_units = max_units};
    u->tail = &u->head;
    u->idle = calloc(max_bufs, sizeof *u->idle);
    return u->idle != NULL ? 0
                           : err_set_errno(err, ENOMEM, "%u buffers", max_bufs);
}

void
units_done(struct units *u)
{
    while (u->head != NULL) {
        struct unit *unit = u->head;

        u->head = unit->next;
        free(unit->buf);
        free(unit);
    }
    for (unsigned i = 0; i < u->n_idle; i++)
        free(u->idle[i]);
    free(u->idle);
    *u = (struct units){0};
    u->tail = &u->head;
}

bool
units_room(const struct units *u, bool buffer)
{
    return u->n_units < u->max_units &&
           (!buffer || u->n_idle > 0 || u->n_bufs < u->max_bufs);
}

static void
append(struct units *u, struct unit *unit)
{
    assert(unit->index >= u->next_index);
    u->next_index = unit->index + unit->n;
    *u->tail = unit;
    u->tail = &unit->next;
    u->n_units++;
}

int
units_add(struct units *u, uint64_t index, unsigned n, size_t bytes,
          struct unit **ret, struct err *err)
{
    struct unit *unit =
        calloc(1, sizeof *unit + 2 * (size_t)n * sizeof unit->ids[0]);
    uint8_t *buf = NULL;

    assert(units_room(u, true) && bytes <= u->buf_bytes);
    if (unit != NULL && u->n_idle > 0) {
        buf = u->idle[--u->n_idle];
    } else if (unit != NULL) {
        buf = malloc(u->buf_bytes);
        u->n_bufs += buf != NULL;
    }
    if (buf == NULL) {
        free(unit);
        return err_set_errno(err, ENOMEM, "buffer of %zu bytes", u->buf_bytes);
    }
    unit->index = index;
    unit->n = n;
    unit->bytes = bytes;
    unit->buf = buf;
    unit->base = unit->ids + n;
    append(u, unit);
    *ret = unit;
    return 0;
}

int
units_add_zero(struct units *u, uint64_t index, uint64_t n, struct err *err)
{
    struct unit *unit;

    assert(units_room(u, false));
    unit = calloc(1, sizeof *unit);
    if (unit == NULL)
        return err_set_errno(err, ENOMEM, "run of zero chunks");
    unit->index = index;
    unit->n = n;
    unit->zero = true;
    unit->finished = true;
    append(u, unit);
    return 0;
}

void
units_finish(struct units *u, struct unit *unit)
{
    assert(!unit->finished && unit->buf != NULL);
    u->idle[u->n_idle++] = unit->buf;
    unit->buf = NULL;
    unit->finished = true;
}

struct unit *
units_pop(struct units *u)
{
    struct unit *unit = u->head;

    if (unit == NULL || !unit->finished)
        return NULL;
    u->head = unit->next;
    if (u->head == NULL)
        u->tail = &u->head;
    u->n_units--;
    unit->next = NULL;
    return unit;
}

bool
units_empty(const struct units *u)
{
    return u->head == NULL;
}

bool
units_idle(const struct units *u)
{
    return u->n_idle == u->n_bufs;
}
