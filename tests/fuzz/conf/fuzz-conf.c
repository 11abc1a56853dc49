/* A configuration of any bytes: one that holds together, or an error that names
 * the file. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "conf.h"
#include "err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int
any(const void *arg, const char *value, struct err *err)
{
    return strcmp(value, "bad") == 0 ? err_set(err, ERR_USAGE, "bad") : 0;
}

static const struct conf_key keys[] = {
    {"path", CONF_IN(CONF_REPOSITORY), false, any, NULL},
    {"source", CONF_IN(CONF_MACHINE), false, any, NULL},
    {"disks", CONF_IN(CONF_MACHINE), false, any, NULL},
    {"repository", CONF_IN(CONF_MACHINE) | CONF_IN(CONF_DEFAULTS), false, any,
     NULL},
    {"exclude", CONF_IN(CONF_MACHINE) | CONF_IN(CONF_DEFAULTS), true, any,
     NULL},
    {NULL, 0, false, NULL, NULL},
};

/* What conf_check() promises. */
static void
check(const struct conf *c)
{
    const struct conf_section *s;

    for (size_t i = 0; (s = conf_at(c, CONF_REPOSITORY, i)) != NULL; i++)
        if (conf_get(s, "path") == NULL ||
            conf_find(c, CONF_REPOSITORY, conf_name(s)) != s)
            abort();
    for (size_t i = 0; (s = conf_at(c, CONF_MACHINE, i)) != NULL; i++) {
        const struct conf_section *r = conf_repository_of(s);

        if (conf_get(s, "source") == NULL && conf_get(s, "disks") == NULL)
            abort();
        if ((conf_get(s, "repository") != NULL) != (r != NULL))
            abort();
        for (size_t k = 0; conf_nth(s, "exclude", k) != NULL; k++)
            if (strpbrk(conf_nth(s, "exclude", k), "\n\r\x7f") != NULL)
                abort();
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conf *c = NULL;
    struct err e = ERR_INIT;

    if (conf_parse("F", data, size, keys, &c, &e) == 0) {
        check(c);
        conf_free(c);
        return 0;
    }
    if (e.code != ERR_USAGE || strncmp(e.msg, "F:", 2) != 0 || c != NULL)
        abort();
    return 0;
}
