/* Whether the process of a run still lives.  A process id alone says nothing after
 * a reboot, in another container, or when it is used again, so the boot, the name
 * space and the time at which the process began belong to it. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "io.h"

#define START_FIELD 22
/* Of another container nothing can be asked; a run that wrote nothing for so
 * long counts as dead.  Should it end after all, its end replaces that. */
#define SILENT_MAX_MS (24 * 3600 * 1000LL)

/* Up to len - 1 bytes of a small file; "" when it cannot be read. */
static void
read_text(const char *path, char *buf, size_t len)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? io_pread_full(fd, buf, len - 1, 0) : 0;

    buf[n > 0 ? n : 0] = '\0';
}

bool
process_parse_start(const char *stat, int64_t *ret)
{
    /* The name of the program may hold anything, even ") ". */
    const char *p = strrchr(stat, ')');
    char end;

    for (unsigned field = 2; p != NULL && field < START_FIELD; field++) {
        p = strchr(p, ' ');
        p = p != NULL ? p + 1 : NULL;
    }
    return p != NULL && sscanf(p, "%18" SCNd64 "%c", ret, &end) == 2 &&
           end == ' ' && *ret > 0;
}

static bool
start_of(int64_t pid, int64_t *ret)
{
    char path[48], text[1024];

    (void)snprintf(path, sizeof path, "/proc/%" PRId64 "/stat", pid);
    read_text(path, text, sizeof text);
    return process_parse_start(text, ret);
}

void
process_self(struct history_process *p)
{
    char boot[64], ns[64] = "";
    ssize_t n = readlink("/proc/self/ns/pid", ns, sizeof ns - 1);

    *p = (struct history_process){.pid = getpid()};
    (void)start_of(p->pid, &p->start);
    read_text("/proc/sys/kernel/random/boot_id", boot, sizeof boot);
    boot[strcspn(boot, "\n")] = '\0';
    if (n > 0 && boot[0] != '\0')
        (void)snprintf(p->scope, sizeof p->scope, "%s %s", boot, ns);
}

static size_t
boot_len(const char *scope)
{
    return strcspn(scope, " ");
}

bool
process_is_dead(const struct history_process *p,
                const struct history_process *self, int64_t silent_ms)
{
    int64_t start = 0;

    if (p->scope[0] == '\0' || self->scope[0] == '\0')
        return silent_ms > SILENT_MAX_MS;
    if (boot_len(p->scope) != boot_len(self->scope) ||
        strncmp(p->scope, self->scope, boot_len(p->scope)) != 0)
        return true; /* the host was started anew since */
    if (strcmp(p->scope, self->scope) != 0)
        return silent_ms > SILENT_MAX_MS;
    if (p->pid <= 0 || p->pid > INT_MAX)
        return true;
    if (kill((pid_t)p->pid, 0) < 0 && errno == ESRCH)
        return true;
    return p->start > 0 && start_of(p->pid, &start) && start != p->start;
}
