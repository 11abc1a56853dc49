#include "fake-source.h"

#include <stdio.h>
#include <string.h>

#include "err.h"
#include "jv.h"

struct fake fake;

struct source {
    int unused;
};
static struct source the_source;

void
fake_reset(void)
{
    memset(&fake, 0, sizeof fake);
    fake.name = "fake";
    fake.rung = RUNG_SNAPSHOT;
    fake.instant.time_ns = 1795000000000000000;
    fake.instant.thaw_confirmed = true;
}

int
source_open(const char *machine, const struct source_opts *opts,
            struct source **ret, struct err *err)
{
    *ret = &the_source;
    return 0;
}

void
source_close(struct source *s)
{
    fake.n_close += s != NULL;
}

const char *
source_name(const struct source *s)
{
    return fake.name;
}

const char *
source_uuid(const struct source *s)
{
    return NULL;
}

size_t
source_n_disks(const struct source *s)
{
    return fake.n;
}

const struct source_disk *
source_disk(const struct source *s, size_t i)
{
    return &fake.disks[i];
}

enum rung
source_rung(const struct source *s)
{
    return fake.rung;
}

bool
source_offline(const struct source *s)
{
    return fake.offline;
}

int
source_finish(struct source *s, struct err *err)
{
    return 0;
}

const char *
source_refusal(const struct source *s)
{
    return fake.rung == RUNG_NONE ? "QEMU is too old: refused" : "";
}

int
source_config(struct source *s, struct jv **ret, struct err *err)
{
    *ret = jv_build("{s:s}", "command_line", "fake -m 1");
    return *ret != NULL ? 0 : -1;
}

int
source_doctor(struct source *s, struct jv **ret, struct err *err)
{
    *ret = jv_build("{s:s}", "rung", "fake");
    return *ret != NULL ? 0 : -1;
}

int
source_recover(struct source *s, struct jv **ret_done, struct err *err)
{
    *ret_done = jv_array();
    return *ret_done != NULL ? 0 : -1;
}

enum tracking
source_tracking(const struct source *s, size_t disk, const char *repo_id,
                const char *generation)
{
    return strcmp(fake.bitmaps[disk].generation, generation) == 0
               ? fake.bitmaps[disk].state
               : TRACKING_MISSING;
}

int
source_forget(struct source *s, size_t disk, const char *repo_id,
              const char *generation, struct err *err)
{
    fake.bitmaps[disk].generation[0] = '\0';
    return 0;
}

bool
source_has_bitmaps(const struct source *s, size_t disk, const char *repo_id)
{
    return fake.foreign[disk] || fake.bitmaps[disk].generation[0] != '\0';
}

int
source_begin(struct source *s, const char *repo_id,
             const struct source_want *want, size_t n, struct source_got *got,
             struct source_instant *ret, struct err *err)
{
    for (size_t i = 0; i < n; i++) {
        size_t d = want[i].disk;

        got[i] = fake.got[d];
        if (want[i].base == NULL)
            got[i].dirty_context = NULL;
        (void)snprintf(fake.base[d], sizeof fake.base[d], "%s",
                       want[i].base != NULL ? want[i].base : "");
        (void)snprintf(fake.generation[d], sizeof fake.generation[d], "%s",
                       want[i].generation);
        fake.n_canaries[d] = 0;
        for (size_t k = 0; k < want[i].n_canaries && k < FAKE_CANARIES; k++)
            fake.canaries[d][fake.n_canaries[d]++] = want[i].canaries[k];
    }
    *ret = fake.instant;
    fake.n_begin++;
    return 0;
}

int
source_watch(struct source *s, unsigned timeout_ms, struct err *err)
{
    fake.n_watch++;
    if (fake.watch_fails_after != 0 &&
        fake.n_watch >= (unsigned)fake.watch_fails_after)
        return err_set(err, ERR_NO_SPACE, "scratch is full");
    return 0;
}

uint64_t
source_scratch_bytes(const struct source *s)
{
    return 0;
}

int
source_release(struct source *s, struct err *err)
{
    fake.n_release++;
    return fake.release_fails
               ? err_set(err, ERR_TIMEOUT, "an export did not go")
               : 0;
}

void
source_keep(struct source *s, bool yes)
{
    fake.n_kept += yes;
}

int
source_settle(struct source *s, bool committed, struct err *err)
{
    fake.n_settled += committed;
    fake.n_undone += !committed;
    if (fake.settle_fails)
        return err_set(err, ERR_TIMEOUT, "a bitmap did not go");
    for (size_t i = 0; committed && i < fake.n; i++) {
        memcpy(fake.bitmaps[i].generation, fake.generation[i], 33);
        fake.bitmaps[i].state = TRACKING_OK;
    }
    return 0;
}

const char *
source_scratch(const struct source *s)
{
    return "/var/tmp";
}

void
source_impact_begin(struct source *s)
{
}

int
source_impact_look(struct source *s, struct guest_io *ret)
{
    return -1;
}

int
source_standing(struct source *s, const char *repo_id,
                const struct source_want **ret, size_t *ret_n, struct err *err)
{
    return err_set(err, ERR_NOT_FOUND, "no instant can be finished");
}

int
source_adopt(struct source *s, struct source_got *got,
             struct source_instant *ret, struct err *err)
{
    return err_set(err, ERR_NOT_FOUND, "no instant can be finished");
}

bool
source_hold(struct source *s)
{
    return false;
}
