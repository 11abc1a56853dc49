/* source/config.c - the machine's configuration, for whoever rebuilds it.
 *
 * What QEMU was started with, and what it says of itself.  A question that this
 * QEMU does not know, or a file we may not read, is left out: a configuration
 * with a gap is worth more than no backup.  Firmware variables in flash are a
 * disk of the machine and part of the point itself.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"
#include "err.h"
#include "io.h"
#include "jv.h"
#include "source_internal.h"

#define CMDLINE_MAX (1u << 20)

#define IMAGES "query-named-block-nodes"

static const char *const questions[] = {
    "query-version",
    "query-name",
    "query-uuid",
    "query-status",
    "query-kvm",
    "query-cpus-fast",
    "query-memory-size-summary",
    "query-memory-devices",
    "query-block",
    IMAGES,
    "query-iothreads",
    "query-chardev",
    "query-vnc",
    "query-spice",
    "query-pci",
    "query-tpm",
    "query-rx-filter",
    "query-migrate-capabilities",
};

/* /proc/PID/cmdline: words that end in NUL.  /proc files have no size, so read
 * to the end. */
static struct jv *
command_line(int pid)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    CLEANUP_JV struct jv *words = jv_array();
    char path[64];

    (void)snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
    if (pid <= 0 || io_read_file(path, CMDLINE_MAX, &b, NULL) < 0 ||
        buf_str(&b) == NULL)
        return NULL;
    for (size_t at = 0; at < b.len;) {
        const char *word = (const char *)b.data + at;

        if (jv_add(words, jv_string(word)) < 0)
            return NULL;
        at += strlen(word) + 1;
    }
    return TAKE_PTR(words);
}

static void
add_guest(struct source *s, struct jv *config)
{
    struct jv *info = NULL;

    if (s->guard != NULL && guard_guest_info(s->guard, &info, NULL) == 0)
        (void)jv_set(config, "guest", info);
}

int
source_config(struct source *s, struct jv **ret, struct err *err)
{
    CLEANUP_JV struct jv *config = jv_object();
    struct jv *qemu = jv_object(), *words = NULL;
    unsigned uid, gid;
    int pid;

    if (config == NULL || jv_set(config, "qemu", qemu) < 0)
        return err_set_errno(err, ENOMEM, "machine configuration");
    qmp_peer(s->qmp, &uid, &gid, &pid);
    if (s->off == NULL) /* its own, not the machine's */
        words = command_line(pid);
    if (words != NULL && jv_set(config, "command-line", words) < 0)
        return err_set_errno(err, ENOMEM, "machine configuration");
    for (size_t i = 0; i < ARRAY_SIZE(questions); i++) {
        struct err why = ERR_INIT;
        struct jv *answer = NULL;

        /* What else it is asked a storage daemon would tell of itself. */
        if (!qmp_schema_command(s->schema, questions[i]) ||
            (s->off != NULL && strcmp(questions[i], IMAGES) != 0))
            continue;
        if (qmp_call(s->qmp, questions[i], NULL, QMP_TIMEOUT_MS, &answer,
                     &why) < 0) {
            if (why.code != ERR_REMOTE)
                return err_copy(err, &why);
            continue;
        }
        if (jv_set(qemu, questions[i], answer) < 0)
            return err_set_errno(err, ENOMEM, "machine configuration");
    }
    add_guest(s, config);
    *ret = TAKE_PTR(config);
    return 0;
}
