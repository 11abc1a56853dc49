#include "log.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

static log_fn log_sink;
static void *log_arg;

void
log_to(log_fn fn, void *arg)
{
    log_sink = fn;
    log_arg = arg;
}

void
log_debug(const char *fmt, ...)
{
    char line[4096];
    va_list ap;

    if (log_sink == NULL)
        return;
    va_start(ap, fmt);
    (void)vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    log_sink(log_arg, line);
}
