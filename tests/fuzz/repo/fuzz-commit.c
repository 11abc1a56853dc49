/* Commit objects: as they are, and signed again with the right key, because
 * what is authentic is not yet sane. */
#include <stdlib.h>
#include <string.h>

#include "hash.h"
#include "internal.h"
#include "jv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t key[HASH_LEN];

static void
decode(const uint8_t *data, size_t size)
{
    enum commit_type type;
    struct jv *j = NULL;

    if (commit_decode(key, data, size, &type, &j, NULL) == 0 &&
        !jv_is_object(j))
        abort();
    jv_free(j);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct hasher *h;
    uint8_t *copy;

    decode(data, size);
    if (size < HASH_LEN)
        return 0;
    if (h == NULL && hasher_new(key, &h, NULL) < 0)
        abort();
    copy = malloc(size);
    if (copy == NULL)
        abort();
    memcpy(copy, data, size);
    if (hasher_id(h, copy, size - HASH_LEN, copy + size - HASH_LEN, NULL) < 0)
        abort();
    decode(copy, size);
    free(copy);
    return 0;
}
