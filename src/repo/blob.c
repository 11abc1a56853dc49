#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "cleanup.h"
#include "err.h"
#include "internal.h"

int
repo_get_blob(struct repo *r, const struct chunk_id *id, uint64_t len,
              uint8_t **ret, struct err *err)
{
    CLEANUP_FREE uint8_t *data = NULL;

    if (len > REPO_BLOB_MAX)
        return err_set(err, ERR_FORMAT,
                       "blob of %" PRIu64 " bytes, at most %u are allowed", len,
                       REPO_BLOB_MAX);
    data = malloc(len + 1);
    if (data == NULL)
        return err_set_errno(err, ENOMEM, "blob of %" PRIu64 " bytes", len);
    if (len > 0 && page_get(r, id, data, len, err) < 0)
        return -1;
    data[len] = '\0'; /* blobs are text: spare the callers a copy */
    *ret = TAKE_PTR(data);
    return 0;
}
