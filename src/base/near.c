#include "near.h"

#include <string.h>

#define WORD_MAX 32u /* longer words are nobody's typing error */

/* Levenshtein distance. */
size_t
near_distance(const char *a, const char *b)
{
    size_t la = strlen(a), lb = strlen(b), row[WORD_MAX + 1];

    if (la > WORD_MAX || lb > WORD_MAX)
        return WORD_MAX;
    for (size_t j = 0; j <= lb; j++)
        row[j] = j;
    for (size_t i = 1; i <= la; i++) {
        size_t diagonal = row[0];

        row[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);

            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[lb];
}

void
near_init(struct near *n, const char *word)
{
    size_t limit = strlen(word) / 3 + 1; /* further away is no likeness */

    *n = (struct near){.word = word, .distance = limit < 3 ? limit : 3};
}

void
near_take(struct near *n, const char *candidate)
{
    size_t d = near_distance(n->word, candidate);

    if (d < n->distance || (d == n->distance && n->best == NULL)) {
        n->distance = d;
        n->best = candidate;
    }
}
