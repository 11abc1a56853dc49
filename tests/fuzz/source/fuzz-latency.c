/* One device of query-blockstats, twice: counters and what came between. */
#include <stdint.h>
#include <stdlib.h>

#include "jv.h"
#include "latency.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check(const struct latency *l)
{
    uint64_t half = latency_quantile_us(l, 500);

    if (half > latency_quantile_us(l, 990))
        abort();
    if (!l->has_bins && latency_slower(l, 1) > l->n)
        abort();
    (void)latency_slower(l, UINT64_MAX);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP_JV struct jv *j = NULL;
    struct guest_io io, zero = {0};

    if (jv_parse(data, size, 8, &j, NULL) < 0)
        return 0;
    latency_parse(j, &io);
    (void)latency_owner(j);
    for (size_t i = 0; i < GUEST_OPS; i++) {
        struct latency d = latency_since(&io.op[i], &zero.op[i]);

        check(&io.op[i]);
        check(&d);
        latency_add(&d, &io.op[i]);
    }
    return 0;
}
