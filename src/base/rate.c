#include "rate.h"

uint64_t
rate_turn(struct rate *r, uint64_t now_us, size_t len, uint64_t per_second)
{
    uint64_t at = r->next_us > now_us ? r->next_us : now_us;

    r->next_us = at + (uint64_t)((double)len * 1e6 / (double)per_second);
    return at;
}
