/* Any text as the address of a machine: what is taken keeps the rules. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "address.h"
#include "err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
require(int cond)
{
    if (!cond)
        abort();
}

static void
check_images(const struct address *a)
{
    for (size_t i = 0; i < a->n_images; i++) {
        const struct address_image *v = &a->images[i];

        require(v->path[0] == '/');
        require(strcmp(v->format, "raw") == 0 ||
                strcmp(v->format, "qcow2") == 0);
        require(v->name == NULL ||
                (v->name[0] != '\0' && strchr(v->name, '/') == NULL));
        for (size_t k = 0; k < i; k++)
            require(strcmp(v->path, a->images[k].path) != 0);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct address a = {0};
    struct err e = ERR_INIT;
    char *text = strndup((const char *)data, size);

    require(text != NULL);
    if (address_parse(text, &a, &e) < 0) {
        require(e.code == ERR_USAGE && a.qmp == NULL && a.images == NULL);
        free(text);
        return 0;
    }
    require((a.qmp != NULL) != (a.n_images > 0));
    require(a.qmp == NULL || a.qmp[0] == '/');
    require(a.agent == NULL || (a.agent[0] == '/' && a.qmp != NULL));
    check_images(&a);
    address_done(&a);
    free(text);
    return 0;
}
