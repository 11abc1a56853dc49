/* tests/sim/prng.h - numbers that depend on a seed only (xorshift64*). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct prng {
    uint64_t x;
};

static inline struct prng
prng_seeded(uint64_t seed)
{
    /* splitmix64: neighbouring seeds must not give alike runs */
    uint64_t z = seed + 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (struct prng){(z ^ (z >> 31)) | 1};
}

static inline uint64_t
prng_next(struct prng *p)
{
    p->x ^= p->x >> 12;
    p->x ^= p->x << 25;
    p->x ^= p->x >> 27;
    return p->x * 0x2545f4914f6cdd1du;
}

/* 0 .. n - 1 */
static inline unsigned
prng_below(struct prng *p, unsigned n)
{
    return (unsigned)((prng_next(p) >> 33) % n);
}

/* True once in `n`; never for 0. */
static inline bool
prng_once_in(struct prng *p, unsigned n)
{
    return n > 0 && prng_below(p, n) == 0;
}
