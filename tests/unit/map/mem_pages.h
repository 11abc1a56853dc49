/* tests/unit/map/mem_pages.h - a page store in memory, and small helpers. */
#pragma once

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "map_page.h"

/* -- pages in memory --------------------------------------------------------*/

struct mem_page {
    struct chunk_id id;
    uint8_t data[MAP_PAGE_LEN];
};

struct mem {
    struct mem_page *v;
    size_t n, cap;
    size_t puts, gets; /* calls since the test looked last */
};

/* Not a good hash, but none of these tests is an attacker. */
static inline void
mem_id(const uint8_t *data, struct chunk_id *ret)
{
    for (unsigned k = 0; k < 4; k++) {
        uint64_t h = 0x9e3779b97f4a7c15u * (k + 1);

        for (unsigned i = 0; i < MAP_PAGE_LEN; i++)
            h = (h ^ data[i]) * 0x100000001b3u + k;
        h ^= h >> 29;
        memcpy(ret->b + 8 * k, &h, sizeof h);
    }
}

static inline struct mem_page *
mem_find(const struct mem *m, const struct chunk_id *id)
{
    for (size_t i = m->n; i-- > 0;)
        if (chunk_id_equal(&m->v[i].id, id))
            return &m->v[i];
    return NULL;
}

static inline int
mem_get(void *arg, const struct chunk_id *id, void *data, struct err *err)
{
    struct mem *m = arg;
    const struct mem_page *p = mem_find(m, id);

    m->gets++;
    if (p == NULL)
        return err_set(err, ERR_NOT_FOUND, "no such page");
    memcpy(data, p->data, MAP_PAGE_LEN);
    return 0;
}

static inline void
mem_add(struct mem *m, const struct chunk_id *id, const void *data)
{
    if (m->n == m->cap) {
        m->cap = m->cap == 0 ? 64 : 2 * m->cap;
        m->v = realloc(m->v, m->cap * sizeof *m->v);
        if (m->v == NULL)
            abort();
    }
    m->v[m->n].id = *id;
    memcpy(m->v[m->n++].data, data, MAP_PAGE_LEN);
}

static inline int
mem_put(void *arg, const void *data, struct chunk_id *ret_id, struct err *err)
{
    struct mem *m = arg;

    m->puts++;
    mem_id(data, ret_id);
    if (mem_find(m, ret_id) == NULL)
        mem_add(m, ret_id, data);
    return 0;
}

static inline struct map_pages
pages_of(struct mem *m)
{
    m->puts = m->gets = 0;
    return (struct map_pages){mem_get, mem_put, m};
}

static inline void
mem_done(struct mem *m)
{
    free(m->v);
}

/* -- helpers ----------------------------------------------------------------*/

static uint64_t rng_state = 88172645463325252u;

static inline uint64_t
rng(uint64_t below)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return rng_state % below;
}

static inline struct chunk_id
id_of(uint64_t v)
{
    struct chunk_id id = {0};

    memcpy(id.b, &v, sizeof v);
    return id;
}

static inline uint64_t
value_of(const struct chunk_id *id)
{
    uint64_t v;

    memcpy(&v, id->b, sizeof v);
    return v;
}

struct change {
    uint64_t index, value;
};

static inline struct chunk_id
apply(struct mem *m, uint64_t size, uint32_t chunk_size,
      const struct chunk_id *base, const struct change *v, size_t n)
{
    struct map_pages pages = pages_of(m);
    struct chunk_id root = {0};
    struct map_writer *w;

    (void)map_writer_over(&pages, size, chunk_size, base, &w, ERR_ABORT);
    for (size_t i = 0; i < n; i++) {
        struct chunk_id id = id_of(v[i].value);

        (void)map_writer_set(w, v[i].index, &id, ERR_ABORT);
    }
    (void)map_writer_finish(w, &root, ERR_ABORT);
    map_writer_free(w);
    return root;
}
