/* source/source.h - what gives disks: one machine, its inventory, and points.
 *
 * The handover (ARCHITECTURE.md) seen from the job:
 *
 *     source_open        connect, take the machine's lock, look, change nothing
 *     source_recover     remove what a dead run left behind
 *     source_tracking    per disk and generation: can this bitmap be believed?
 *     source_begin       one instant for all disks; NBD exports stand ready
 *     source_watch       again and again while the exports are read
 *     source_release     exports, nodes, jobs, scratch gone; bitmaps stay
 *     source_settle      after the repository has (or has not) committed
 *     source_close       always safe: does what is left to do of the above
 *
 * Until source_settle(committed) the old bitmaps go on recording, so a run that
 * dies at any place costs nothing but its own work.
 * Threads: a source belongs to one thread.  source_open() forks (the guard,
 * qmp/guard.h): call it before the process has threads.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct jv;
struct source;

enum quiesce { QUIESCE_AUTO, QUIESCE_REQUIRE, QUIESCE_OFF };

/* How a point is taken (qemu.md 1.3): chosen by what QEMU can do. */
enum rung {
    RUNG_NONE,     /* cannot be done safely; see source_refusal() */
    RUNG_SNAPSHOT, /* backup job's filter + snapshot-access node, QEMU 7.1+ */
    RUNG_OVERLAY,  /* qcow2 scratch over the disk, QEMU 5.2 to 7.0 */
};

struct source_opts {
    enum quiesce quiesce;
    unsigned hold_ms;     /* longest freeze; 0: 10000 */
    const char *scratch;  /* directory for scratch files; NULL: default */
    uint64_t scratch_max; /* bytes that they may take; 0: no bound */
    const char *run_dir;  /* locks and sockets; NULL: default */
    bool look_only;       /* for doctor: no lock, no guard */
    /* "file:...": what to read when the QMP socket of a qmp: machine is not
     * there or refuses, because the machine is off; or NULL. */
    const char *offline;
    /* What the disks of a machine that is off were called: by image file. */
    const struct source_known *known;
    size_t n_known;
};

struct source_known {
    const char *file; /* absolute, links resolved */
    const char *name;
};

/* MACHINE is "qmp:/path.sock", "qmp:/path.sock,agent=/path.sock", or for a
 * machine that is off "file:/disk0.qcow2,..." (source/address.h). */
int source_open(const char *machine, const struct source_opts *opts,
                struct source **ret, struct err *err);
void source_close(struct source *s); /* NULL is fine */

struct source_disk {
    const char *name;   /* stable: qdev id, else device, else node name */
    const char *node;   /* node name of the format node; changes at restart */
    const char *format; /* driver of that node: "qcow2", "raw", ... */
    const char *file;   /* image file or URI, for people */
    uint64_t size;      /* bytes */
    bool persistent;    /* a bitmap here would survive a shutdown of QEMU */
    bool iothread;
    const char *skip;      /* NULL: belongs into a backup.  Else why not:
                           "no medium", "read-only", "CD-ROM", ... */
    const struct jv *info; /* chain, filters, drivers: stored with the point */
};

const char *source_name(const struct source *s); /* QEMU's -name, or NULL */
const char *source_uuid(const struct source *s); /* NULL when not set */
size_t source_n_disks(const struct source *s);
const struct source_disk *source_disk(const struct source *s, size_t i);
enum rung source_rung(const struct source *s);
/* The machine is off, and a storage daemon of our own has its images. */
bool source_offline(const struct source *s);
/* Why RUNG_NONE; "" otherwise. */
const char *source_refusal(const struct source *s);

/* The machine's configuration as captured: command line, query-* answers,
 * firmware variables; an object owned by the caller. */
int source_config(struct source *s, struct jv **ret, struct err *err);

/* What a person should know of this machine before a backup: version, rung,
 * features, disks, bitmaps, leftovers, agent, warnings; owned by the caller. */
int source_doctor(struct source *s, struct jv **ret, struct err *err);

/* Remove what dead runs left in QEMU and in the run and scratch directories;
 * thaw a guest that such a run froze; continue a machine that its full scratch
 * stopped.  *ret_done (owned by the caller): array of strings, what was done. */
int source_recover(struct source *s, struct jv **ret_done, struct err *err);

enum tracking {
    TRACKING_OK,
    TRACKING_MISSING,      /* no such bitmap on this disk */
    TRACKING_INCONSISTENT, /* QEMU crashed while it was open */
    TRACKING_NOT_RECORDING,
    TRACKING_BUSY,        /* another job or export uses it */
    TRACKING_GRANULARITY, /* not a power of two that we can use */
};

/* Bitmap "tidemark-<repo16>-<generation>" on disk `disk`.  `repo_id` is the
 * 32-digit id, of which the first 16 digits are used. */
enum tracking source_tracking(const struct source *s, size_t disk,
                              const char *repo_id, const char *generation);

/* True when QEMU has any bitmap of this repository on the disk. */
bool source_has_bitmaps(const struct source *s, size_t disk,
                        const char *repo_id);

/* Remove that bitmap, which is not believed any more. */
int source_forget(struct source *s, size_t disk, const char *repo_id,
                  const char *generation, struct err *err);

/* Let QEMU count from now on how long the guest's requests take; until
 * source_release().  What it cannot count is not known, which is no error. */
void source_impact_begin(struct source *s);

/* The counters (latency.h) of all disks as they are now; `ret` has an entry for
 * each of source_n_disks().  -1: QEMU did not say. */
struct guest_io;
int source_impact_look(struct source *s, struct guest_io *ret);

struct source_want {
    size_t disk;            /* index */
    const char *base;       /* generation of the base, or NULL for full */
    const char *generation; /* new, 32 hex digits */
    /* Blocks of 64 KiB that the new bitmap is born with (canaries): one that
     * lacks them later was cleared, cut or replaced by somebody. */
    const uint64_t *canaries;
    size_t n_canaries;
    /* Generation before `base` whose bitmap is exported as well, for what an
     * unfinished run had not copied; NULL: none. */
    const char *rest;
    const char *note; /* kept in the journal for source_standing(), or NULL */
};

struct source_got {
    const char *socket; /* NBD Unix socket */
    const char *export_name;
    const char *dirty_context; /* NULL without base */
    bool persistent;           /* of the new bitmap */
    bool tracked;              /* false: no new bitmap could be added */
    const char *rest_context;  /* NULL without rest */
    /* Raw file with what the guest has overwritten since the instant, at its own
     * offsets, or NULL.  With a grain "zero" in the export's status is not to be
     * believed there: it may be that of the live disk. */
    const char *scratch;
    unsigned grain; /* not 0: no read may cross a multiple of it */
};

struct source_instant {
    int64_t time_ns;      /* wall clock at the transaction */
    bool filesystem;      /* consistent: frozen across the instant */
    uint64_t freeze_ms;   /* 0: not frozen */
    unsigned filesystems; /* frozen */
    char note[256];       /* why not file system consistent; "" */
    bool thaw_confirmed;
    uint64_t transaction_us; /* how long QEMU took */
};

/* Take the point: prepare, freeze, one transaction, thaw, export.  `got` has
 * one entry per want (strings live until source_release()).  -1: nothing of it
 * remains in QEMU (or what could not be removed is named in *err). */
int source_begin(struct source *s, const char *repo_id,
                 const struct source_want *want, size_t n,
                 struct source_got *got, struct source_instant *ret,
                 struct err *err);

/* What a dead run wanted of the instant that QEMU still holds whole; *ret is freed
 * by the caller, its strings live as long as the source.  Instead of
 * source_recover() and source_begin(); changes nothing.  ERR_NOT_FOUND: there is
 * none, or not all of it stands. */
int source_standing(struct source *s, const char *repo_id,
                    const struct source_want **ret, size_t *ret_n,
                    struct err *err);
/* Take it over: as after source_begin() with these wants. */
int source_adopt(struct source *s, struct source_got *got,
                 struct source_instant *ret, struct err *err);
/* source_close() leaves the instant in QEMU for a later source_standing().  Nobody
 * watches its scratch space meanwhile.  False: it cannot, it is broken or of a
 * machine that is off. */
bool source_hold(struct source *s);

/* Look at QEMU for up to `timeout_ms`: events, scratch space.  -1: the point is
 * broken (scratch full, job ended, QEMU gone); the guest has been continued if
 * our scratch had stopped it, and the exports are gone. */
int source_watch(struct source *s, unsigned timeout_ms, struct err *err);

/* The directory for scratch files: the one that was given, else one with room
 * (scratch.h). */
const char *source_scratch(const struct source *s);

/* Bytes that the scratch files take now. */
uint64_t source_scratch_bytes(const struct source *s);

/* All reads are done: remove exports, snapshot nodes, jobs and scratch. */
int source_release(struct source *s, struct err *err);

/* A partial point of this instant is durable: when the run ends without a whole
 * one, source_settle() keeps the new bitmaps and those of this run's bases.
 * false: none is any more. */
void source_keep(struct source *s, bool yes);

/* committed: remove the old bitmaps (all of this repository on these disks but
 * the new ones).  Not committed: remove the new ones.  -1: a bitmap is left
 * behind; the next run's source_recover() removes it. */
int source_settle(struct source *s, bool committed, struct err *err);

/* After source_settle(): close the images of a machine that is off, and look
 * whether the new bitmaps are stored in them.  -1: not all are, and the next
 * backup will read such a disk in full.  Nothing to do for one that runs. */
int source_finish(struct source *s, struct err *err);
