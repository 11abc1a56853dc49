/* source/source_internal.h - shared by the files of this folder only. */
#pragma once

#include "address.h"
#include "guard.h"
#include "inventory.h"
#include "latency.h"
#include "qmp.h"
#include "rundir.h"
#include "scratch.h"
#include "source.h"

#define NAME_MAX_LEN 32      /* node names: QEMU takes 31 bytes */
#define BITMAP_NAME_MAX 128  /* ours: 9 + 16 + 1 + 32 */
#define PREFIX "tidemark-"   /* of everything of ours in QEMU */
#define GRANULARITY 65536    /* dirty bitmap, copy-before-write, chunk alike */
#define END_TIMEOUT_MS 30000 /* for one export, job or node to go away */

/* What this QEMU can do, from its schema and where only that tells, its
 * version (qemu.md 6). */
struct features {
    bool snapshot_access;    /* blockdev-add driver=snapshot-access, 7.0 */
    bool export_node_bitmap; /* bitmaps: [{node, name}], 7.1 */
    bool filter_name;        /* blockdev-backup filter-node-name, 4.2 */
    bool export_add;         /* block-export-add, 5.2 */
    bool blockdev_create;    /* 3.0 */
    bool nodes_flat;         /* 5.0 */
    bool on_cbw_error;       /* blockdev-backup on-cbw-error, 10.1 */
    bool block_graph;        /* x-debug-query-block-graph */
    bool iothread_nbd_safe;  /* 9.0 */
    bool latency_histogram;  /* block-latency-histogram-set, 4.0 */
    bool snapshot_status;    /* block status of snapshot-access is right, 8.0 */
};

/* Pure: the rung for these features; `iothread_disk` names a disk with an
 * iothread or is NULL.  `refusal` gets the reason for RUNG_NONE, else "". */
enum rung rung_choose(const struct features *f, const char *iothread_disk,
                      bool force_overlay, char *refusal, size_t len);

/* What stands in QEMU for one disk of the capture in progress. */
struct capture_disk {
    size_t disk;              /* index in the inventory */
    char *base;               /* bitmap name, or NULL */
    char *fresh;              /* bitmap name */
    char *rest;               /* bitmap name, or NULL */
    char dirty[NAME_MAX_LEN]; /* temporary bitmap */
    char job[NAME_MAX_LEN];
    char filter[NAME_MAX_LEN];
    char snap[NAME_MAX_LEN];    /* snapshot-access node; overlay: unused */
    char scratch[NAME_MAX_LEN]; /* node the old data goes to */
    char file[NAME_MAX_LEN];    /* overlay: file node below it */
    char export_id[NAME_MAX_LEN];
    char paint[NAME_MAX_LEN]; /* null-co node that canaries are painted on */
    char paint_bitmap[NAME_MAX_LEN];
    char paint_export[NAME_MAX_LEN];
    bool painted;
    bool ended;  /* nothing of it stands in QEMU any more */
    bool failed; /* its scratch could not take a guest's old data */
    char context[64];
    char older[NAME_MAX_LEN]; /* temporary bitmap: copy of `rest` */
    char rest_context[64];
    char *path; /* scratch file */
    bool persistent;
};

struct capture {
    struct capture_disk *v;
    size_t n;
    char *socket;
    uint64_t scratch_reserve; /* free bytes below which we give up */
    bool server;              /* we started QEMU's NBD server */
    bool taken;               /* the transaction happened */
    bool broken;              /* the instant is lost; see broken_why */
    bool committed;           /* settled so */
    bool scratch_stop;        /* our scratch stopped the guest */
    bool keep;                /* a partial point needs the new bitmaps */
    char broken_why[256];
};

/* What a dead run has left, as its journal says. */
struct standing_disk {
    struct source_want want; /* borrows from the journal */
    uint64_t canaries[8];
};
struct standing {
    struct jv *capture, *instant;
    struct standing_disk *v;
    size_t n;
};
void standing_done(struct standing *st);

struct offline; /* offline.c */

struct source {
    struct address at;
    struct offline *off; /* NULL: the machine runs */
    struct source_opts opts;
    char *scratch;      /* area */
    struct rundir *run; /* NULL when look_only */
    struct qmp *qmp;
    struct qmp_schema *schema;
    struct guard *guard;  /* NULL: no agent, or it did not answer */
    char agent_note[256]; /* why there is none */
    struct features features;
    struct inventory inv;
    struct jv *nodes;          /* query-named-block-nodes as of the last look */
    struct source_disk *disks; /* view of inv */
    char *name, *uuid;
    enum rung rung;
    char refusal[512];
    bool dirty;        /* something of ours may be left in QEMU */
    bool maybe_frozen; /* no thaw was confirmed */
    bool measuring;    /* histograms of ours may be set */
    struct capture cap;
    struct standing standing;
    bool hold; /* the capture outlives this source */
};

/* Look at QEMU again: nodes, disks, iothreads. */
int source_look(struct source *s, struct err *err);

/* -- a machine that is off (offline.c, images.c) -----------------------------*/

/* Take its images: locks, storage daemon, QMP connection. */
int offline_open(struct source *s, const struct address *at, struct err *err);
/* What query-block would say of the images; owned by the caller.  `nodes` may be
 * changed. */
struct jv *offline_blocks(const struct source *s, struct jv *nodes);
/* The stated path instead of what QEMU makes of it. */
int offline_files(struct source *s, struct err *err);
void offline_close(struct source *s);

/* Open the image and its backing files in the storage daemon as `node`. */
int images_open(struct source *s, const char *path, const char *format,
                const char *node, bool write, struct err *err);
/* Was a bitmap stored?  Opens the closed image once more, only to read. */
int images_has_bitmap(struct source *s, const char *path, const char *bitmap,
                      bool *ret, struct err *err);
/* Keep `fd` open until the end: it has the lock of an image. */
int offline_keep(struct source *s, int fd, struct err *err);
/* Is this one of the machine's own images? */
bool offline_has(const struct source *s, const char *path);

/* Features and rung, from what answers at s->qmp. */
int source_probe(struct source *s, struct err *err);

/* End what capture has standing in QEMU and on disk; goes on after a failure
 * and reports the first. */
int capture_end(struct source *s, struct err *err);
void capture_done(struct capture *c);

/* Names of everything that run `run` has for its disk number `no`. */
int capture_name_disk(struct source *s, const char *run, struct capture_disk *d,
                      size_t no, const struct source_want *want,
                      const char *repo_id, struct err *err);
void capture_got(const struct source *s, const struct capture_disk *d,
                 struct source_got *ret);
/* Write down what is about to be captured, and that it was. */
int capture_note(struct source *s, const char *repo_id,
                 const struct source_want *want, size_t n, struct err *err);
int capture_note_instant(struct source *s, const struct source_instant *in,
                         struct err *err);

/* Event handler of the QMP connection while a capture stands. */
void capture_event(void *arg, const char *name, const struct jv *data);

/* Paint the canaries of one disk; the NBD server must run. */
int paint_disk(struct source *s, struct capture_disk *d, const uint64_t *blocks,
               size_t n, struct err *err);

/* Remove our histograms, a dead run's too; how many there were. */
size_t histograms_remove(struct source *s);
/* The same, only when this run has set any. */
void histograms_end(struct source *s);
/* The instant stands (or could not be taken): -1 when a disk of the capture is
 * not any more what the last look saw; the words say what somebody did. */
int still_check(struct source *s, struct err *err);

/* "tidemark-<16 digits of repo>-" */
void bitmap_prefix(const char *repo_id, char out[BITMAP_NAME_MAX]);

/* True when the name is that of a run's own object: "tidemark-<8 hex>-...". */
bool is_run_object(const char *name);

/* Leftovers in QEMU, each as a list of names; arrays owned by the caller. */
struct leftovers {
    struct jv *exports, *jobs, *nodes, *bitmaps; /* bitmaps: {node,name} */
    bool server; /* QEMU's NBD server is a dead run's */
};
int leftovers_find(struct source *s, struct leftovers *ret, struct err *err);
void leftovers_done(struct leftovers *l);
size_t leftovers_count(const struct leftovers *l);

/* Run a command whose failure is described with the disk's name. */
int source_qmp(struct source *s, const char *command, struct jv *args,
               struct err *err);
