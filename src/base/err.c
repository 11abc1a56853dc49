#include "err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct err err_abort_;

__attribute__((format(printf, 4, 0))) static int
set_va(struct err *e, enum err_code code, int sys, const char *fmt, va_list ap)
{
    size_t n;

    if (e == NULL)
        return -1;
    if (e->code != ERR_NONE)
        return -1;
    e->code = code;
    e->sys = sys;
    (void)vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    n = strlen(e->msg);
    if (sys != 0 && n < sizeof e->msg)
        (void)snprintf(e->msg + n, sizeof e->msg - n, ": %s", strerror(sys));
    for (char *p = e->msg; *p != '\0'; p++)
        if (*p == '\n' || *p == '\r')
            *p = ' ';
    if (e == &err_abort_) {
        (void)fprintf(stderr, "unexpected error: %s\n", e->msg);
        abort();
    }
    return -1;
}

int
err_set(struct err *e, enum err_code code, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)set_va(e, code, 0, fmt, ap);
    va_end(ap);
    return -1;
}

int
err_set_errno(struct err *e, int sys, const char *fmt, ...)
{
    enum err_code code = ERR_SYSTEM;
    va_list ap;

    if (sys == ENOSPC || sys == EDQUOT)
        code = ERR_NO_SPACE;
    va_start(ap, fmt);
    (void)set_va(e, code, sys, fmt, ap);
    va_end(ap);
    return -1;
}

int
err_wrap(struct err *e, const char *fmt, ...)
{
    char old[ERR_MSG_MAX];
    va_list ap;
    size_t n;

    if (e == NULL || e->code == ERR_NONE)
        return -1;
    memcpy(old, e->msg, sizeof old);
    va_start(ap, fmt);
    (void)vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    n = strlen(e->msg);
    if (n < sizeof e->msg)
        (void)snprintf(e->msg + n, sizeof e->msg - n, ": %s", old);
    return -1;
}

int
err_side(struct err *e, enum err_side side)
{
    if (e != NULL && e->code != ERR_NONE && e->side == ERR_SIDE_NONE)
        e->side = side;
    return -1;
}

void
err_clear(struct err *e)
{
    if (e != NULL) {
        e->code = ERR_NONE;
        e->side = ERR_SIDE_NONE;
        e->sys = 0;
        e->msg[0] = '\0';
    }
}

int
err_copy(struct err *to, const struct err *from)
{
    if (to != NULL && to->code == ERR_NONE)
        *to = *from;
    return -1;
}

const char *
err_code_name(enum err_code code)
{
    switch (code) {
    case ERR_NONE:
        return "none";
    case ERR_SYSTEM:
        return "system";
    case ERR_FORMAT:
        return "format";
    case ERR_CORRUPT:
        return "corrupt";
    case ERR_NOT_FOUND:
        return "not-found";
    case ERR_EXISTS:
        return "exists";
    case ERR_LOCKED:
        return "locked";
    case ERR_PROTOCOL:
        return "protocol";
    case ERR_REMOTE:
        return "remote";
    case ERR_TIMEOUT:
        return "timeout";
    case ERR_CLOSED:
        return "closed";
    case ERR_UNSUPPORTED:
        return "unsupported";
    case ERR_NO_SPACE:
        return "no-space";
    case ERR_CANCELED:
        return "canceled";
    case ERR_KEY:
        return "key";
    case ERR_USAGE:
        return "usage";
    }
    return "unknown";
}
