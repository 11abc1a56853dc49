#include "audit.h"

#define SHARE_ALL 10000u

struct audit
audit_choose(unsigned share, uint64_t round, uint32_t chunk_size)
{
    struct audit a = {.round = round, .granule = 1};

    if (share > 0)
        a.period = (SHARE_ALL + share - 1) / share;
    if (chunk_size < AUDIT_GRANULE)
        a.granule = AUDIT_GRANULE / chunk_size;
    return a;
}

/* Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators",
 * OOPSLA 2014, the mixing function of SplitMix64. */
static uint64_t
mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* The chosen granule of a block; scattered, because what is missed lies often at
 * equal distances. */
static uint64_t
chosen(const struct audit *a, uint64_t block)
{
    uint64_t place = (mix(block) % a->period + a->round % a->period);

    return block * a->period + place % a->period;
}

bool
audit_next(const struct audit *a, uint64_t n_chunks, uint64_t index,
           uint64_t *ret_index, uint64_t *ret_n)
{
    uint64_t block, start;

    if (a->period == 0 || index >= n_chunks)
        return false;
    block = index / a->granule / a->period;
    start = chosen(a, block) * a->granule;
    if (start + a->granule <= index)
        start = chosen(a, block + 1) * a->granule;
    if (start >= n_chunks)
        return false; /* the last block is a short one */
    *ret_index = start;
    *ret_n = n_chunks - start < a->granule ? n_chunks - start : a->granule;
    return true;
}
