#include "guarded.h"

#include <sodium.h>

#define ALIGNMENT 64u /* sodium_malloc() aligns the end, not the beginning */

void *
guarded_alloc(size_t len)
{
    size_t whole = (len + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    void *p;

    if (sodium_init() < 0)
        return NULL;
    p = sodium_malloc(whole);
    if (p != NULL)
        sodium_memzero(p, whole);
    return p;
}

void
guarded_free(void *p)
{
    sodium_free(p);
}

void
wipe(void *p, size_t len)
{
    sodium_memzero(p, len);
}
