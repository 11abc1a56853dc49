/* codec/guarded.h - memory for keys, over libsodium.
 *
 * Between guard pages, locked against swapping where the limits allow it, left
 * out of core files, wiped when freed.
 */
#pragma once

#include <stddef.h>

/* Zeroed, aligned for any object; NULL without memory.  Whole pages: for few
 * and small things. */
void *guarded_alloc(size_t len);
void guarded_free(void *p); /* NULL is fine */

static inline void
cleanup_guardedp(void *p)
{
    guarded_free(*(void **)p);
}
#define CLEANUP_GUARDED __attribute__((cleanup(cleanup_guardedp)))

/* Overwrite, in a way that no compiler removes. */
void wipe(void *p, size_t len);
