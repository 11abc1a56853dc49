/* source/rundir.h - locks, journal, and directories of one run on this host.
 *
 * Three things outlive a run that is killed: what it put into QEMU, its scratch
 * files, and perhaps a frozen guest.  So that the next run knows what it may
 * clean up, a run holds a lock per machine (flock: the kernel drops it with the
 * process) and writes down in the locked file what it is about to make, before
 * it makes it.  The lock file stays; an empty one says that the last run ended
 * in order.  After a reboot the directory is empty, and so is QEMU.
 *
 * Scratch files lie in a directory of their own per run, locked in the same
 * way: whoever can take the lock knows that the owner is dead.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct err;
struct jv;
struct rundir;

#define RUN_ID_LEN 8 /* hex digits */

/* Take the machine's lock.  `qmp_path` identifies the machine.  ERR_LOCKED
 * names the pid that holds it. */
int rundir_open(const char *run_dir, const char *qmp_path, struct rundir **ret,
                struct err *err);

/* A machine may have several QMP sockets: take the lock of the QEMU process
 * `pid` too.  ERR_LOCKED when another run works on it over another socket. */
int rundir_lock_process(struct rundir *r, int pid, struct err *err);

/* Drop the lock.  `clean` says that this run left nothing anywhere: its
 * directories go, and the journal is emptied unless it is a dead run's that
 * nobody has cleared away yet.  Not clean: journal and NBD socket stay, by
 * which the next run knows what is ours.  NULL is fine. */
void rundir_close(struct rundir *r, bool clean);

/* What the dead run left is gone: forget its journal. */
void rundir_recovered(struct rundir *r);

/* This run's random id, RUN_ID_LEN hex digits. */
const char *rundir_id(const struct rundir *r);

/* The journal that a dead run left (borrowed), or NULL. */
const struct jv *rundir_dead(const struct rundir *r);

/* Be the dead run: its id, directories and journal are this run's from now on.
 * *ret_dir is its scratch directory. */
int rundir_adopt(struct rundir *r, const char **ret_dir, struct err *err);

/* Leave the scratch directory where it is when closed (not clean). */
void rundir_hold(struct rundir *r);

/* Note a fact before making it true: a string under `key`. */
int rundir_note(struct rundir *r, const char *key, const char *value,
                struct err *err);

/* Make this run's private directory for the NBD socket, accessible to
 * uid:gid.  Path is short enough for a socket name behind it. */
int rundir_sockets(struct rundir *r, unsigned uid, unsigned gid,
                   const char **ret_dir, struct err *err);

/* Make and lock this run's directory in the scratch area `scratch`: ours, but
 * uid may reach the files in it that it owns. */
int rundir_scratch(struct rundir *r, const char *scratch, unsigned uid,
                   const char **ret_dir, struct err *err);
/* Remove the scratch directory and what is in it now. */
void rundir_scratch_end(struct rundir *r);

/* Remove socket directories and scratch directories of dead runs, but for those of
 * instants that still stand in another machine's QEMU; their paths are added to `done` (array of strings). */
void rundir_sweep(struct rundir *r, const char *scratch, struct jv *done);

/* Default directories: option, else environment, else the system's place. */
const char *rundir_default(const char *option);
const char *rundir_scratch_default(const char *option);
