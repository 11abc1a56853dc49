#include "identity.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "buf.h"
#include "cleanup.h"
#include "err.h"
#include "io.h"
#include "jv.h"
#include "source_internal.h"

#define SMALL_FILE 4096
#define START_FIELD 22 /* proc(5) */

int
identity_start(const char *stat, size_t len, uint64_t *ret)
{
    const char *end = stat + len;
    const char *p = memrchr(stat, ')', len);
    uint64_t v = 0;

    /* Behind the name follows field 3. */
    for (unsigned field = 2; p != NULL && field < START_FIELD; field++) {
        p = memchr(p, ' ', (size_t)(end - p));
        if (p != NULL)
            p++;
    }
    if (p == NULL || p == end || *p < '0' || *p > '9')
        return -1;
    for (; p < end && *p >= '0' && *p <= '9'; p++) {
        if (v > (INT64_MAX - 9) / 10)
            return -1;
        v = v * 10 + (uint64_t)(*p - '0');
    }
    *ret = v;
    return 0;
}

/* FNV-1a: half of the bits of the id are lost, so that a point does not give
 * away what machine-id(5) wants kept. */
void
identity_host(const char *id, size_t len, char out[17])
{
    static const char salt[] = "tidemark";
    uint64_t h = 0xcbf29ce484222325u;

    out[0] = '\0';
    while (len > 0 && (id[len - 1] == '\n' || id[len - 1] == ' '))
        len--;
    if (len == 0)
        return;
    for (size_t i = 0; i < sizeof salt - 1; i++)
        h = (h ^ (uint8_t)salt[i]) * 0x100000001b3u;
    for (size_t i = 0; i < len; i++)
        h = (h ^ (uint8_t)id[i]) * 0x100000001b3u;
    (void)snprintf(out, 17, "%016" PRIx64, h);
}

static struct jv *
instance(const struct source *s)
{
    CLEANUP(buf_done) struct buf id = BUF_INIT;
    CLEANUP(buf_done) struct buf boot = BUF_INIT;
    CLEANUP(buf_done) struct buf stat = BUF_INIT;
    CLEANUP_JV struct jv *o = jv_object();
    char path[64], host[17];
    uint64_t start;
    unsigned uid, gid;
    int pid, r = 0;

    qmp_peer(s->qmp, &uid, &gid, &pid);
    (void)snprintf(path, sizeof path, "/proc/%d/stat", pid);
    if (io_read_file("/etc/machine-id", SMALL_FILE, &id, NULL) == 0) {
        identity_host((const char *)id.data, id.len, host);
        r |= host[0] != '\0' ? jv_set_str(o, "host", host) : 0;
    }
    if (io_read_file("/proc/sys/kernel/random/boot_id", SMALL_FILE, &boot,
                     NULL) == 0 &&
        buf_str(&boot) != NULL) {
        boot.data[strcspn(buf_str(&boot), "\n")] = '\0';
        r |= jv_set_str(o, "boot", (const char *)boot.data);
    }
    if (pid > 0 && io_read_file(path, SMALL_FILE, &stat, NULL) == 0 &&
        identity_start((const char *)stat.data, stat.len, &start) == 0) {
        r |= jv_set_int(o, "pid", pid);
        r |= jv_set_int(o, "start", (int64_t)start);
    }
    if (s->uuid != NULL)
        r |= jv_set_str(o, "uuid", s->uuid);
    return r < 0 ? NULL : TAKE_PTR(o);
}

/* Without the device number, which is another one after each boot. */
static int
stamp(struct jv *entry)
{
    const char *image = jv_get_str(entry, "image");
    struct stat st;

    if (image == NULL || image[0] != '/' || stat(image, &st) < 0 ||
        !S_ISREG(st.st_mode))
        return 0;
    return jv_set_int(entry, "bytes", st.st_size) |
           jv_set_int(entry, "inode", (int64_t)st.st_ino) |
           jv_set_int(entry, "mtime_ns",
                      (int64_t)st.st_mtim.tv_sec * 1000000000 +
                          st.st_mtim.tv_nsec);
}

/* The chain once more, with stamps. */
static struct jv *
stamped(const struct jv *chain)
{
    CLEANUP_JV struct jv *list = jv_array();

    for (size_t i = 0; i < jv_size(chain); i++) {
        const struct jv *from = jv_at(chain, i);
        CLEANUP_JV struct jv *entry = jv_object();

        for (void *it = jv_first(from); it != NULL; it = jv_next(from, it))
            if (jv_set(entry, jv_key(it), jv_ref(jv_value(it))) < 0)
                return NULL;
        if (stamp(entry) < 0 || jv_add(list, TAKE_PTR(entry)) < 0)
            return NULL;
    }
    return TAKE_PTR(list);
}

int
identity_fill(struct source *s, struct err *err)
{
    CLEANUP_JV struct jv *in = instance(s);

    for (size_t i = 0; i < s->inv.n; i++) {
        struct jv *info = s->inv.disks[i].info;
        const struct jv *chain = jv_get(info, "chain");

        if (chain == NULL)
            continue; /* no medium */
        if (in == NULL || jv_set(info, "instance", jv_ref(in)) < 0 ||
            jv_set(info, "chain", stamped(chain)) < 0)
            return err_set_errno(err, ENOMEM, "disk '%s'",
                                 s->inv.disks[i].name);
    }
    return 0;
}
