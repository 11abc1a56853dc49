/* Commit objects: as they are, and signed again with the right key, because
 * what is authentic is not yet sane. */
#include <stdlib.h>
#include <string.h>

#include "hash.h"
#include "internal.h"
#include "jv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct commit_keys plain, sealed = {.sealed = true};

static void
decode(const struct commit_keys *keys, const uint8_t *data, size_t size)
{
    enum commit_type type;
    struct jv *j = NULL;

    if (commit_decode(keys, data, size, &type, &j, NULL) == 0 &&
        !jv_is_object(j))
        abort();
    jv_free(j);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct hasher *h;
    uint8_t *copy;

    decode(&plain, data, size);
    decode(&sealed, data, size);
    if (size < HASH_LEN)
        return 0;
    if (h == NULL && hasher_new(plain.mac, &h, NULL) < 0)
        abort();
    copy = malloc(size);
    if (copy == NULL)
        abort();
    memcpy(copy, data, size);
    if (hasher_id(h, copy, size - HASH_LEN, copy + size - HASH_LEN, NULL) < 0)
        abort();
    decode(&plain, copy, size);
    decode(&sealed, copy, size);
    free(copy);
    return 0;
}
