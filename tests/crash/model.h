/* tests/crash/model.h - synthetic machines: what a disk held at a seed.
 *
 * A point is judged without a reference copy: its configuration says of which
 * machine and seed it is, and these say what every byte of the disk was then.
 * About an eighth of the chunks changes from one seed to the next.  Contents
 * come from a small pool that machines share in part, so that chunks disappear
 * and come back: what a collector has just condemned is wanted again.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define MODEL_CHUNK (16u << 10)
#ifndef MODEL_CHUNKS
#define MODEL_CHUNKS 150u /* more than a page of a map */
#endif
#define MODEL_SIZE (MODEL_CHUNKS * (uint64_t)MODEL_CHUNK - 5000)
#define MODEL_BACK 64u /* a chunk has changed within so many seeds */
#define MODEL_POOL 400u

static inline uint64_t
model_mix(uint64_t a, uint64_t b)
{
    uint64_t x = a * 0x9e3779b97f4a7c15u ^ (b + 0x7f4a7c15u);

    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static inline uint64_t
model_machine(const char *name)
{
    uint64_t h = 1;

    for (; *name != '\0'; name++)
        h = model_mix(h, (uint8_t)*name);
    return h;
}

static inline uint32_t
model_len(uint64_t index)
{
    uint64_t rest = MODEL_SIZE - index * MODEL_CHUNK;

    return rest < MODEL_CHUNK ? (uint32_t)rest : MODEL_CHUNK;
}

/* Which content chunk `index` has at `seed`; 0: zeroes. */
static inline uint64_t
model_value(uint64_t machine, uint64_t index, uint64_t seed)
{
    uint64_t born = seed, v;

    while (born > 0 && seed - born < MODEL_BACK &&
           model_mix(model_mix(machine, index), born) % 8 != 0)
        born--;
    v = model_mix(model_mix(machine, index + 1000), born);
    if (v % 6 == 0)
        return 0;
    v = 1 + (v >> 8) % MODEL_POOL;
    return v > MODEL_POOL / 2 ? v : model_mix(machine, v) | 1;
}

static inline void
model_fill(uint64_t value, uint8_t *data, size_t len)
{
    uint64_t x = value;

    if (value == 0) {
        memset(data, 0, len);
        return;
    }
    for (size_t i = 0; i < len; i += sizeof x) {
        size_t part = len - i < sizeof x ? len - i : sizeof x;

        if (value % 3 != 0 || i % 128 == 0) { /* a third compresses well */
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
        }
        memcpy(data + i, &x, part);
    }
}
