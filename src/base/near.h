/* base/near.h - "did you mean": how much two words differ. */
#pragma once

#include <stddef.h>

/* Letters that are exchanged, added or left out between two short words; a word
 * that is too long to be a typing error is far from everything. */
size_t near_distance(const char *a, const char *b);

/* The best of words, one at a time: near_take() each, then near_best(). */
struct near {
    const char *word;
    const char *best; /* the one that is like it, or NULL */
    size_t distance;
};

void near_init(struct near *n, const char *word);
void near_take(struct near *n, const char *candidate);
