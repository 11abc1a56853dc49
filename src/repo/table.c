#include "table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "cleanup.h"
#include "err.h"

#define SLOTS_MIN 1024u
#define EMPTY UINT32_MAX

struct record_table {
    uint32_t max; /* records */
    uint32_t n, cap;
    struct index_record *records;
    uint32_t n_slots; /* power of two, at least twice cap */
    uint32_t *slots;  /* number of a record, or EMPTY */
};

DEFINE_CLEANUP(struct record_table *, record_table_free)

/* Ids are keyed hashes: any bits of them are as good as a hash. */
static uint32_t
first_slot(const struct record_table *t, const uint8_t *prefix)
{
    return get_le32(prefix + 4) & (t->n_slots - 1);
}

static void
insert(struct record_table *t, uint32_t no)
{
    uint32_t i = first_slot(t, t->records[no].prefix);

    while (t->slots[i] != EMPTY)
        i = (i + 1) & (t->n_slots - 1);
    t->slots[i] = no;
}

static int
grow(struct record_table *t, struct err *err)
{
    uint32_t n_slots = t->n_slots == 0 ? SLOTS_MIN : t->n_slots * 2;
    uint32_t cap = n_slots / 2;
    struct index_record *records;
    uint32_t *slots;

    records = realloc(t->records, (size_t)cap * sizeof *records);
    if (records == NULL)
        return err_set_errno(err, ENOMEM, "%u index records", cap);
    t->records = records;
    slots = malloc((size_t)n_slots * sizeof *slots);
    if (slots == NULL)
        return err_set_errno(err, ENOMEM, "%u index records", cap);
    free(t->slots);
    t->slots = slots;
    t->n_slots = n_slots;
    t->cap = cap;
    memset(slots, 0xff, (size_t)n_slots * sizeof *slots);
    for (uint32_t i = 0; i < t->n; i++)
        insert(t, i);
    return 0;
}

int
record_table_new(uint32_t max, struct record_table **ret, struct err *err)
{
    CLEANUP(record_table_freep) struct record_table *t = calloc(1, sizeof *t);

    if (t == NULL)
        return err_set_errno(err, ENOMEM, "index records");
    t->max = max;
    if (grow(t, err) < 0)
        return -1;
    *ret = TAKE_PTR(t);
    return 0;
}

void
record_table_free(struct record_table *t)
{
    if (t == NULL)
        return;
    free(t->records);
    free(t->slots);
    free(t);
}

const struct index_record *
record_table_find(const struct record_table *t, const struct chunk_id *id)
{
    uint32_t i = first_slot(t, id->b);

    for (; t->slots[i] != EMPTY; i = (i + 1) & (t->n_slots - 1)) {
        const struct index_record *r = &t->records[t->slots[i]];

        if (memcmp(r->prefix, id->b, sizeof r->prefix) == 0)
            return r;
    }
    return NULL;
}

int
record_table_add(struct record_table *t, const struct index_record *r,
                 struct err *err)
{
    if (t->n == t->cap && grow(t, err) < 0)
        return -1;
    t->records[t->n] = *r;
    insert(t, t->n);
    t->n++;
    return 0;
}

bool
record_table_full(const struct record_table *t)
{
    return t->n >= t->max;
}

struct index_record *
record_table_all(struct record_table *t, uint32_t *ret_n)
{
    *ret_n = t->n;
    return t->records;
}

void
record_table_clear(struct record_table *t)
{
    t->n = 0;
    memset(t->slots, 0xff, (size_t)t->n_slots * sizeof *t->slots);
}
