#!/usr/bin/env python3
"""Power cuts under a repository that is at work, on file systems of this kernel.

A cut is the file system's own shutdown without flushing its log: what had not
reached the disk never will.  btrfs has none; its disk is cloned at that moment,
and the clone is what a cut would have left.  After the next mount every point that was reported
as committed is whole, nothing half-made shows, and work goes on.

    CRASH_CUTS=1000 python3 tests/crash/powercut.py ext4     more cuts
"""

import os
import random
import subprocess
import threading
import time

import crash
import tap
from crash import OK, Repo, SHUTDOWN, newest
from tap import check, skip, test

CUTS = int(os.environ.get("CRASH_CUTS") or 40)
SEED = int(os.environ.get("CRASH_SEED") or random.randrange(1 << 32))
NO_MOUNTS = crash.own_mounts()


class Disk:
    """A file system in a file in memory, mounted through a loop device."""

    def __init__(self, mkfs, size, options=""):
        if NO_MOUNTS:
            skip(NO_MOUNTS)
        self.dir = tap.tempdir("disk")
        self.options = "loop,noatime" + options
        self.image, self.mnt = self.dir + "/mem/image", self.dir + "/mnt"
        for d in ("mem", "mnt"):
            os.mkdir(self.dir + "/" + d)
        self.must("mount", "-t", "tmpfs", "-o", "size=2g", "none",
                  self.dir + "/mem")
        tap.cleanup(self.must, "umount", self.dir + "/mem")
        self.make(mkfs, size)

    def make(self, mkfs, size):
        with open(self.image, "wb") as f:
            f.truncate(size)
        try:
            self.must(*mkfs, self.image)
        except FileNotFoundError:
            skip("%s is not installed" % mkfs[0])
        self.mounted = False
        tap.cleanup(self.umount)
        try:
            self.mount()
        except RuntimeError as e:
            skip("cannot mount: %s" % e)

    @staticmethod
    def must(*cmd):
        r = subprocess.run(cmd, stdin=subprocess.DEVNULL, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if r.returncode != 0:
            raise RuntimeError("%s: %s" % (" ".join(cmd), r.stdout.strip()))

    def mount(self):
        self.must("mount", "-o", self.options, self.image, self.mnt)
        self.mounted = True

    def umount(self):
        if self.mounted:
            self.must("umount", self.mnt)
        self.mounted = False

    def cut(self):
        self.must(SHUTDOWN, self.mnt)


class ClonedDisk(Disk):
    """A disk in a file on xfs, which can be cloned while it is written."""

    def __init__(self, mkfs, size, options=""):
        self.below = Disk(["mkfs.xfs", "-q", "-f"], 1 << 30)
        self.dir = self.below.dir
        self.options = "loop,noatime" + options
        self.image, self.mnt = self.below.mnt + "/image", self.dir + "/top"
        os.mkdir(self.mnt)
        self.make(mkfs, size)

    def cut(self):
        self.must("cp", "--reflink=always", self.image, self.image + ".cut")

    def mount(self):
        if os.path.exists(self.image + ".cut"):
            os.replace(self.image + ".cut", self.image)
        super().mount()


class Work:
    """Backups of two machines, forgetting and collections, until the power is
    gone; each command's words count from when they were printed."""

    def __init__(self, repo, rng, seed):
        self.repo, self.rng, self.seed = repo, rng, seed
        self.stop = threading.Event()
        self.committed = threading.Event()
        self.bad = []
        self.thread = threading.Thread(target=self.main)
        self.thread.start()

    def one(self):
        machine = self.rng.choice("mn")
        what = self.rng.randrange(10)
        old = newest(self.repo, machine)[:-2]
        if what == 0 and old:
            return self.repo.run("forget", *old[:3])
        if what <= 2:
            return self.repo.run("gc")
        self.seed += 1
        r = self.repo.run("put", machine, str(self.seed))
        if r.code == OK:
            self.committed.set()
        return r

    def main(self):
        while not self.stop.is_set():
            r = self.one()
            if r.code != OK and not self.stop.is_set():
                self.bad.append(r)
                return

    def end(self):
        self.stop.set()
        self.committed.set()
        self.thread.join()


def cut_once(disk, repo, rng, seed):
    """Work, cut, mount again.  The seed to go on with."""
    work = Work(repo, rng, seed)
    if rng.randrange(3) == 0:  # at once after the good news
        work.committed.wait(60)
    else:
        time.sleep(rng.uniform(0, 0.15))
    work.stop.set()  # from here on failures are no wonder
    with repo.lock:
        before = dict(repo.points)
    disk.cut()
    work.end()
    # What was reported later does not count: it is on a disk that nobody will see,
    # or a file system that was being shut down has answered a late fsync() with
    # success, which a machine without power cannot (xfs did, once in 40).
    repo.points = before
    for r in work.bad:
        check(False, "worked until the cut", r)
    disk.umount()
    disk.mount()
    return work.seed + 1


def cuts(disk):
    rng = random.Random(SEED)
    tap.diag("CRASH_SEED=%d" % SEED)
    repo = Repo(disk.mnt + "/repo", options=())
    seed = 1
    for i in range(CUTS):
        seed = cut_once(disk, repo, rng, seed)
        what = "after power cut %d" % (i + 1)
        if not repo.settle(what, "m", str(seed)):
            return
    tap.diag("%d power cuts; %d points were committed" %
             (CUTS, len(repo.points)))


def ext4_disk(options=""):
    return Disk(["mkfs.ext4", "-q", "-F"], 128 << 20, options)


def xfs_disk():
    return Disk(["mkfs.xfs", "-q", "-f"], 320 << 20)


@test("power cuts on ext4")
def ext4():
    cuts(ext4_disk())


@test("power cuts on ext4 that writes data back when it likes")
def ext4_writeback():
    cuts(ext4_disk(",data=writeback"))


@test("power cuts on xfs")
def xfs():
    cuts(xfs_disk())


@test("power cuts on btrfs")
def btrfs():
    cuts(ClonedDisk(["mkfs.btrfs", "-q", "-f"], 256 << 20))


def cuts_hurt(disk):
    """A program that does not sync must be caught by the same cuts."""
    repo = Repo(disk.mnt + "/repo", options=())
    repo.put("m", "1")
    repo.options = ["--no-fsync"]
    repo.put("m", "2")
    disk.cut()
    disk.umount()
    disk.mount()
    r = repo.run("check")
    check(r.code != OK or len(r.of("point")) == 1,
          "without fsync the second point is lost", r)


@test("these cuts are real: without fsync, points are lost")
def real():
    cuts_hurt(ext4_disk())
    cuts_hurt(xfs_disk())


tap.main()
