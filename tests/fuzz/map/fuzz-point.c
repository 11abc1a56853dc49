/* Any text as the point in a commit object.  What is accepted must be written
 * again as it was read, and be found by its own name. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"
#include "jv.h"
#include "point.h"
#include "repo.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
find(struct point *p, const uint8_t *data, size_t size)
{
    struct point_list l = {&p, 1};
    const struct point *found = NULL;
    char spec[POINT_NAME_MAX + 64];

    (void)snprintf(spec, sizeof spec, "%s@%s", p->machine, p->id);
    if (point_find(&l, spec, &found, NULL) < 0 || found != p)
        abort();
    (void)snprintf(spec, sizeof spec, "%s@%.*s", p->machine,
                   size < 40 ? (int)size : 40, (const char *)data);
    (void)point_find(&l, spec, &found, NULL);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct jv *j = NULL, *again = NULL;
    struct point *p = NULL, *q = NULL;
    uint8_t prev[32];
    bool has_prev;

    if (jv_parse(data, size, JV_DEPTH_MAX, &j, NULL) < 0)
        return 0;
    if (point_from_json(j, &p, prev, &has_prev, NULL) == 0) {
        again = point_to_json(p, has_prev ? prev : NULL, NULL);
        if (again == NULL ||
            point_from_json(again, &q, prev, &has_prev, NULL) < 0)
            abort();
        find(p, data, size);
    }
    point_free(p);
    point_free(q);
    jv_free(again);
    jv_free(j);
    return 0;
}
