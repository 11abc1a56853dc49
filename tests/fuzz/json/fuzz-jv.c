/* The JSON door: whatever comes in, a value or an error. */
#include <stdint.h>
#include <stdlib.h>

#include "err.h"
#include "jv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct jv *j = NULL;
    struct err e = ERR_INIT;

    if (jv_parse(data, size, 16, &j, &e) < 0) {
        if (e.code == ERR_NONE || j != NULL)
            abort();
        return 0;
    }
    free(jv_text(j, true));
    jv_free(j);
    return 0;
}
