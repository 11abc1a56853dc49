#include "harden.h"

#include <sys/prctl.h>
#include <sys/resource.h>

void
harden_process(void)
{
    static const struct rlimit none = {0, 0};

    (void)setrlimit(RLIMIT_CORE, &none);
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}
