/* source/source_internal.h - shared by the files of this folder only. */
#pragma once

#include "address.h"
#include "guard.h"
#include "inventory.h"
#include "qmp.h"
#include "rundir.h"
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
    bool scratch_stop;        /* our scratch stopped the guest */
    char broken_why[256];
};

struct source {
    struct address at;
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
    struct capture cap;
};

/* Look at QEMU again: nodes, disks, iothreads. */
int source_look(struct source *s, struct err *err);

/* End what capture has standing in QEMU and on disk; goes on after a failure
 * and reports the first. */
int capture_end(struct source *s, struct err *err);
void capture_done(struct capture *c);

/* Event handler of the QMP connection while a capture stands. */
void capture_event(void *arg, const char *name, const struct jv *data);

/* Paint the canaries of one disk; the NBD server must run. */
int paint_disk(struct source *s, struct capture_disk *d, const uint64_t *blocks,
               size_t n, struct err *err);

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
