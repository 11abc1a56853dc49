#include "address.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "err.h"

static const char usage[] =
    "write qmp:/path.sock or qmp:/path.sock,agent=/path.sock";

/* One piece up to a single comma; "**p" is left behind it. */
static char *
take_piece(const char **p)
{
    char *piece = malloc(strlen(*p) + 1), *to = piece;
    const char *s = *p;

    if (piece == NULL)
        return NULL;
    while (*s != '\0') {
        if (*s == ',') {
            if (s[1] != ',')
                break;
            s++;
        }
        *to++ = *s++;
    }
    *to = '\0';
    *p = s;
    return piece;
}

static int
take_path(const char **p, const char *text, char **ret, struct err *err)
{
    CLEANUP_FREE char *path = take_piece(p);

    if (path == NULL)
        return err_set_errno(err, ENOMEM, "machine '%s'", text);
    if (path[0] != '/')
        return err_set(err, ERR_USAGE,
                       "machine '%s': '%s' is not an absolute path; %s", text,
                       path, usage);
    *ret = TAKE_PTR(path);
    return 0;
}

int
address_parse(const char *text, struct address *ret, struct err *err)
{
    CLEANUP_FREE char *qmp = NULL;
    CLEANUP_FREE char *agent = NULL;
    const char *p = text;

    if (strncmp(p, "qmp:", 4) != 0)
        return err_set(err, ERR_USAGE, "machine '%s' is not understood; %s",
                       text, usage);
    p += 4;
    if (take_path(&p, text, &qmp, err) < 0)
        return -1;
    while (*p == ',') {
        p++;
        if (strncmp(p, "agent=", 6) != 0 || agent != NULL)
            return err_set(err, ERR_USAGE,
                           "machine '%s': '%s' is not understood; %s", text, p,
                           usage);
        p += 6;
        if (take_path(&p, text, &agent, err) < 0)
            return -1;
    }
    ret->qmp = TAKE_PTR(qmp);
    ret->agent = TAKE_PTR(agent);
    return 0;
}

void
address_done(struct address *a)
{
    free(a->qmp);
    free(a->agent);
    a->qmp = a->agent = NULL;
}
