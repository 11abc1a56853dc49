/* Records: small authenticated objects beside the commit objects (docs/format.md
 * 9.1).  Each says its own name inside, so that one put under another name is
 * seen.
 */
#include <errno.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "err.h"
#include "internal.h"
#include "jv.h"
#include "store.h"

static int
check_record(const struct jv *payload, const char *key, enum commit_type type,
             enum commit_type want, struct err *err)
{
    const char *object = jv_get_str(payload, "object");

    if (type != want)
        return err_set(err, ERR_CORRUPT, "object of type %d in the place of %d",
                       (int)type, (int)want);
    if (object == NULL || strcmp(object, key) != 0)
        return err_set(err, ERR_CORRUPT, "this is '%.100s' under a wrong name",
                       object != NULL ? object : "?");
    return 0;
}

int
record_read(struct repo *r, const char *key, enum commit_type type,
            struct jv **ret_payload, struct err *err)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    CLEANUP_JV struct jv *j = NULL;
    enum commit_type found;

    if (commit_load(r, key, &b, err) < 0 ||
        commit_decode(repo_key_commit(r), b.data, b.len, &found, &j, err) < 0 ||
        check_record(j, key, found, type, err) < 0)
        return err_wrap(err, "%s", key);
    *ret_payload = TAKE_PTR(j);
    return 0;
}

int
record_write(struct repo *r, const char *key, enum commit_type type,
             struct jv *payload, struct err *err)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;

    if (jv_set_str(payload, "object", key) < 0)
        return err_set_errno(err, ENOMEM, "%s", key);
    if (commit_encode(repo_key_commit(r), type, payload, &b, err) < 0 ||
        store_put(r->store, key, b.data, b.len, err) < 0)
        return err_wrap(err, "%s", key);
    return 0;
}
