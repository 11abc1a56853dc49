/* Units leave in the order they came, whatever the order they finish in, and
 * never more than allowed exist. */
#include "units.h"

#include "err.h"
#include "tap.h"

#define ROUNDS 20000

/* A small generator: the same numbers on every run. */
static uint32_t
next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* The oracle: a plain array of what is under way, in order. */
struct oracle {
    struct unit *v[64];
    bool finished[64];
    uint64_t index[64];
    size_t n;
};

static size_t
count_busy(const struct oracle *o)
{
    size_t n = 0;

    for (size_t i = 0; i < o->n; i++)
        n += !o->finished[i];
    return n;
}

static void
add(struct units *u, struct oracle *o, uint64_t *index, bool zero)
{
    struct unit *unit = NULL;
    struct err err = ERR_INIT;

    if (zero)
        CHECK_OK(units_add_zero(u, *index, 3, &err), &err);
    else
        CHECK_OK(units_add(u, *index, 2, 100, &unit, &err), &err);
    o->v[o->n] = unit;
    o->finished[o->n] = zero;
    o->index[o->n++] = *index;
    *index += 5;
}

static void
finish_some(struct units *u, struct oracle *o, uint32_t r)
{
    size_t i = o->n > 0 ? r % o->n : 0;

    if (o->n == 0 || o->finished[i])
        return;
    units_finish(u, o->v[i]);
    o->finished[i] = true;
}

static void
pop_and_compare(struct units *u, struct oracle *o)
{
    struct unit *unit = units_pop(u);

    CHECK((unit != NULL) == (o->n > 0 && o->finished[0]));
    if (unit == NULL)
        return;
    CHECK(unit->index == o->index[0] && unit->finished && unit->buf == NULL);
    o->n--;
    memmove(o->v, o->v + 1, o->n * sizeof o->v[0]);
    memmove(o->finished, o->finished + 1, o->n * sizeof o->finished[0]);
    memmove(o->index, o->index + 1, o->n * sizeof o->index[0]);
    free(unit);
}

static void
test_order_is_kept_in_any_order_of_finishing(void)
{
    struct units u;
    struct oracle o = {.n = 0};
    uint32_t state = 1;
    uint64_t index = 0;

    CHECK_OK(units_init(&u, 128, 8, 20, ERR_ABORT), ERR_ABORT);
    for (int i = 0; i < ROUNDS; i++) {
        uint32_t r = next_random(&state);
        bool zero = r % 3 == 0;

        CHECK(units_room(&u, false) == (o.n < 20));
        CHECK(units_room(&u, true) == (o.n < 20 && count_busy(&o) < 8));
        if (r % 2 == 0 && units_room(&u, !zero))
            add(&u, &o, &index, zero);
        if (r % 5 < 3)
            finish_some(&u, &o, next_random(&state));
        if (r % 7 < 3)
            pop_and_compare(&u, &o);
        CHECK(units_empty(&u) == (o.n == 0));
        CHECK(units_idle(&u) == (count_busy(&o) == 0));
        CHECK(u.n_bufs <= 8);
    }
    units_done(&u);
}

static void
test_a_buffer_is_made_only_when_needed(void)
{
    struct units u;
    struct unit *unit;

    CHECK_OK(units_init(&u, 128, 8, 20, ERR_ABORT), ERR_ABORT);
    for (uint64_t i = 0; i < 50; i++) {
        CHECK_OK(units_add(&u, i, 1, 128, &unit, ERR_ABORT), ERR_ABORT);
        units_finish(&u, unit);
        CHECK(units_pop(&u) == unit);
        free(unit);
    }
    CHECK(u.n_bufs == 1);
    units_done(&u);
}

static void
test_done_frees_what_never_finished(void)
{
    struct units u;
    struct unit *unit;

    CHECK_OK(units_init(&u, 128, 2, 20, ERR_ABORT), ERR_ABORT);
    CHECK_OK(units_add(&u, 0, 1, 128, &unit, ERR_ABORT), ERR_ABORT);
    CHECK_OK(units_add(&u, 1, 1, 128, &unit, ERR_ABORT), ERR_ABORT);
    units_finish(&u, unit);
    CHECK(units_pop(&u) == NULL);
    units_done(&u);
}

int
main(int argc, char **argv)
{
    static const struct tap_test tests[] = {
        TEST(test_order_is_kept_in_any_order_of_finishing),
        TEST(test_a_buffer_is_made_only_when_needed),
        TEST(test_done_frees_what_never_finished),
    };

    return tap_run(argc, argv, tests, sizeof tests / sizeof tests[0]);
}
