/* Temporary files that dead writers left.
 *
 * Nobody can tell them from those of the living, but a writer whose temporary
 * file is gone writes it again (store.h), unless its directory is gone, too: so
 * those below a session's own directory wait for that session's end.  Listed at
 * the beginning, removed at the end: what is made meanwhile stays.
 */
#include "gc.h"

#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "jv.h"
#include "log.h"
#include "store.h"

#define TEMPS_MAX 100000u /* more wait for the next collection */

static int
note_temp(void *arg, const char *name, uint64_t len)
{
    struct jv *list = arg;

    (void)len;
    if (jv_size(list) >= TEMPS_MAX)
        return 1;
    return jv_add(list, jv_string(name));
}

int
gc_note_temps(struct gc *g, struct err *err)
{
    g->temps = jv_array();
    if (g->temps == NULL)
        return err_set_errno(err, ENOMEM, "temporary files");
    return store_list_temps(g->r->store, note_temp, g->temps, err) < 0 ? -1 : 0;
}

/* "data/<sid>/..." of a session that may still write there. */
static bool
is_of_living(const struct gc *g, const char *name)
{
    char sid[REPO_SID_TEXT] = "";

    if (strncmp(name, "data/", 5) != 0 && strncmp(name, "meta/", 5) != 0)
        return false;
    (void)strncpy(sid, name + 5, REPO_SID_TEXT - 1);
    return strcmp(sid, g->sid) == 0 || !gc_is_leftover(g, sid);
}

void
gc_remove_temps(struct gc *g)
{
    struct err err = ERR_INIT;

    for (size_t i = 0; i < jv_size(g->temps); i++) {
        const char *name = jv_str(jv_at(g->temps, i));

        if (!is_of_living(g, name) &&
            store_delete_temp(g->r->store, name, &err) < 0)
            log_debug("collection: %s", err.msg);
    }
}
