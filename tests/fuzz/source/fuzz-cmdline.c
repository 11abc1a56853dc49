/* Anybody's command line: an absolute path or none. */
#include <stdint.h>
#include <stdlib.h>

#include "holder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *path = holder_qmp((const char *)data, size);

    if (path != NULL && path[0] != '/')
        abort();
    free(path);
    return 0;
}
