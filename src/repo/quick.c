#include "quick.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "err.h"

#define SLOTS_MIN 4096u

struct slot {
    uint32_t segment; /* number + 1; 0: empty */
    uint32_t no;
};

struct quick {
    const uint8_t **records; /* by segment, NULL: not entered */
    uint32_t n_segments;
    struct slot *slots;
    uint32_t n_slots; /* power of two, at least twice n */
    uint32_t n;
};

int
quick_new(struct quick **ret, struct err *err)
{
    struct quick *q = calloc(1, sizeof *q);

    if (q == NULL)
        return err_set_errno(err, ENOMEM, "index");
    *ret = q;
    return 0;
}

void
quick_free(struct quick *q)
{
    if (q == NULL)
        return;
    free(q->records);
    free(q->slots);
    free(q);
}

static const uint8_t *
prefix_of(const struct quick *q, const struct slot *s)
{
    return q->records[s->segment - 1] + (size_t)s->no * SEGMENT_RECORD_LEN;
}

/* Ids are keyed hashes: any bits of them are as good as a hash. */
static uint32_t
first_slot(const struct quick *q, const uint8_t *prefix)
{
    return get_le32(prefix + 4) & (q->n_slots - 1);
}

static void
insert(struct quick *q, struct slot s)
{
    uint32_t i = first_slot(q, prefix_of(q, &s));

    while (q->slots[i].segment != 0)
        i = (i + 1) & (q->n_slots - 1);
    q->slots[i] = s;
}

static int
grow_slots(struct quick *q, uint32_t n, struct err *err)
{
    uint32_t n_slots = q->n_slots == 0 ? SLOTS_MIN : q->n_slots;
    struct slot *old = q->slots;
    uint32_t n_old = q->n_slots;

    while (n_slots < 2 * n)
        n_slots *= 2;
    if (n_slots == q->n_slots)
        return 0;
    q->slots = calloc(n_slots, sizeof *q->slots);
    if (q->slots == NULL) {
        q->slots = old;
        return err_set_errno(err, ENOMEM, "index of %u records", n);
    }
    q->n_slots = n_slots;
    for (uint32_t i = 0; i < n_old; i++)
        if (old[i].segment != 0)
            insert(q, old[i]);
    free(old);
    return 0;
}

static int
grow_segments(struct quick *q, uint32_t no, struct err *err)
{
    uint32_t n = q->n_segments == 0 ? 64 : q->n_segments;
    const uint8_t **v;

    while (n <= no)
        n *= 2;
    if (n == q->n_segments)
        return 0;
    v = realloc(q->records, n * sizeof *v);
    if (v == NULL)
        return err_set_errno(err, ENOMEM, "%u index segments", n);
    memset(v + q->n_segments, 0, (n - q->n_segments) * sizeof *v);
    q->records = v;
    q->n_segments = n;
    return 0;
}

int
quick_add(struct quick *q, uint32_t no, const struct segment *s,
          struct err *err)
{
    if (s->n_records > QUICK_SEGMENT_MAX ||
        s->n_records > QUICK_RECORDS_MAX - q->n ||
        segment_check_records(s, NULL) < 0)
        return 0;
    if (grow_segments(q, no, err) < 0 ||
        grow_slots(q, q->n + s->n_records, err) < 0)
        return -1;
    q->records[no] = s->records;
    for (uint32_t i = 0; i < s->n_records; i++)
        insert(q, (struct slot){no + 1, i});
    q->n += s->n_records;
    return 1;
}

int
quick_find(const struct quick *q, const struct chunk_id *id,
           uint32_t *ret_segment, uint32_t *ret_no)
{
    uint32_t i;

    if (q->n == 0)
        return 0;
    i = first_slot(q, id->b);
    for (; q->slots[i].segment != 0; i = (i + 1) & (q->n_slots - 1)) {
        if (memcmp(prefix_of(q, &q->slots[i]), id->b, SEGMENT_PREFIX) != 0)
            continue;
        *ret_segment = q->slots[i].segment - 1;
        *ret_no = q->slots[i].no;
        return 1;
    }
    return 0;
}
