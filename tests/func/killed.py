#!/usr/bin/env python3
"""Tidemark killed at many moments: the machine is as before, the next run is
incremental and right, and nothing piles up."""

import os
import signal
import subprocess
import time

import images
import tap
from lab import Lab
from tap import check, equal, skip, test, wait_for
from tidemark import BUSY, OK, UNREACHABLE, WARNING
from vm import Disk, slow_disk

MOMENTS = 25
FILES = "fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat"
TALK = "sendto,sendmsg,write,writev"


def slow_lab(rate=24 << 20):
    """Two disks, one read slowly, with a first point."""
    dir = tap.tempdir("slow")
    path = images.make(dir + "/vda.qcow2", "qcow2", "32M")
    disk, args = slow_disk("vda", path, "qcow2", rate)
    raw = images.make(dir + "/vdb.raw", "raw", 16 << 20)
    lab = Lab([disk, Disk("vdb", raw, "raw")], args)
    lab.vm.io("vda", "write -P 0x11 0 8M")
    lab.vm.io("vdb", "write -P 0x21 0 2M")
    lab.backup()
    return lab


def churn(lab, i):
    lab.vm.io("vda", "write -P 0x%x %dk 3M" % (0x20 + i % 200, 128 * i),
              "discard %dk 64k" % (256 * i))
    lab.vm.io("vdb", "write -P 0x%x %dk 100k" % (0x30 + i % 200, 64 * i))


def adopt(lab, refs):
    """A killed run may have committed: then its point must be right too."""
    for p in lab.tm.points():
        if p["point"] not in lab.refs:
            lab.refs[p["point"]] = refs
            lab.order.append(p["point"])
            lab.restores(p["point"])


def survive(lab, i, kill, incremental=True):
    """Change something, run kill(lab) which ends a backup half way, then back
    up and compare."""
    churn(lab, i)
    refs = lab.reference()
    kill(lab)
    lab.vm.io("vda", "write -P 0x99 %dk 64k" % (64 * i))
    # the dead run's guard may need a moment to see that its parent is gone
    r = None

    def not_busy():
        nonlocal r, after
        after = lab.reference()
        r = lab.tm.run("backup", lab.vm.address, "--json")
        return r.code != BUSY
    after = None
    wait_for("the lock of the dead run", not_busy, 30)
    adopt_new = r.committed["point"] if r.committed else None
    if adopt_new:
        lab.refs[adopt_new] = after
        lab.order.append(adopt_new)
    adopt(lab, refs)
    what = "after kill %d" % i
    if not check(r.code in (OK, WARNING), what + ": next run commits", r):
        return
    if incremental:
        lab.tracking(r, vda="incremental", vdb="incremental")
    equal(lab.vm.leftovers(), [], what + ": leftovers")
    equal(os.listdir(lab.tm.scratch), [], what + ": scratch")
    lab.restores(adopt_new)


@test("killed after growing times, whole process group")
def by_time():
    lab = slow_lab()
    churn(lab, 0)
    began = time.monotonic()
    lab.backup()
    whole = time.monotonic() - began
    for i in range(MOMENTS):
        def kill(lab):
            run = lab.tm.start("backup", lab.vm.address)
            try:
                run.proc.wait(whole * 1.2 * i / MOMENTS)
            except subprocess.TimeoutExpired:
                pass
            run.kill()
        survive(lab, i + 1, kill)
    lab.verifies()


@test("killed at each line of its progress, whole process group")
def by_event():
    lab = slow_lab()
    churn(lab, 0)
    lines = lab.backup().out.count("\n")
    check(lines >= 1, "the program tells events")
    for i in range(min(lines, MOMENTS)):
        def kill(lab):
            run = lab.tm.start("backup", lab.vm.address, "--json")
            for _ in range(i + 1):
                run.line()
            run.kill()
        survive(lab, i + 1, kill)


def by_syscall(lab, calls, incremental=True):
    """Kill at the Nth of some system calls, N spread over a whole run."""
    trace = lab.dir + "/trace"
    probe = subprocess.run(["strace", "-o", "/dev/null", "true"],
                           capture_output=True, text=True)
    if probe.returncode != 0:
        skip("strace does not work here: " + probe.stderr.strip()[-100:])
    churn(lab, 0)
    lab.backup(wrap=[
        "strace", "-f", "-qq", "-o", trace, "-e", "trace=" + calls])
    with open(trace) as f:
        total = sum("(" in line and "resumed" not in line for line in f)
    check(total > 0, "the run makes such calls")
    tap.diag("%d calls" % total)
    step = max(1, total // MOMENTS)
    for i, n in enumerate(range(1, total + 1, step)):
        def kill(lab):
            run = lab.tm.start("backup", lab.vm.address, wrap=[
                "strace", "-f", "-qq", "-o", "/dev/null", "-e",
                "trace=" + calls, "-e",
                "inject=%s:signal=SIGKILL:when=%d" % (calls, n)])
            run.wait()
        survive(lab, i + 1, kill, incremental)


@test("killed at each change of a file")
def by_file():
    by_syscall(slow_lab(200 << 20), FILES)


@test("killed at messages to QEMU")
def by_message():
    by_syscall(slow_lab(200 << 20), TALK)


@test("SIGINT and SIGTERM: cleaned up before the end, next run incremental")
def asked_to_end():
    lab = slow_lab(1 << 20)
    for i, signum in enumerate((signal.SIGINT, signal.SIGTERM)):
        churn(lab, i)
        run = lab.tm.start("backup", lab.vm.address)
        wait_for("the instant", lab.vm.filters)
        os.kill(run.proc.pid, signum)
        r = run.wait(60)
        check(r.code not in (OK, WARNING), "not a success", r)
        equal(lab.vm.leftovers(), [], "leftovers")
        equal(os.listdir(lab.tm.scratch), [], "scratch")
        lab.tracking(lab.backup(), vda="incremental", vdb="incremental")
        lab.restores()


@test("QEMU killed under a backup: it fails in time and names the machine")
def qemu_dies():
    lab = slow_lab(1 << 20)
    churn(lab, 1)
    run = lab.tm.start("backup", lab.vm.address, "--json")
    wait_for("the instant", lab.vm.filters)
    lab.vm.kill()
    r = run.wait(120)
    check(r.code not in (OK, WARNING), "not a success", r)
    check(not r.committed, "nothing committed", r)
    equal(os.listdir(lab.tm.scratch), [], "scratch")
    lab.vm.start()
    lab.backup()
    lab.all_restore()


@test("QEMU stopped under a backup: a deadline ends it, the next run is right")
def qemu_stops():
    """The reply that never comes.  Nothing can be cleaned up in a QEMU that
    does not listen: the next run does, once it goes on."""
    lab = slow_lab(1 << 20)
    churn(lab, 1)
    run = lab.tm.start("backup", lab.vm.address, "--json")
    wait_for("the instant", lab.vm.filters)
    os.kill(lab.vm.proc.pid, signal.SIGSTOP)
    try:
        r = run.wait(180)
    finally:
        os.kill(lab.vm.proc.pid, signal.SIGCONT)
    check(r.code not in (OK, WARNING), "not a success", r)
    check("no answer" in r.err, "it says that a deadline passed", r)
    lab.tracking(lab.backup(), vda="incremental", vdb="incremental")
    lab.all_restore()


@test("QEMU silent for longer than any deadline, then awake: cleaned up at once")
def qemu_sleeps():
    """The next run is not needed to take things down: a new connection is
    tried when the old one is of no more use."""
    lab = slow_lab(1 << 20)
    churn(lab, 1)
    run = lab.tm.start("backup", lab.vm.address, "--debug")
    wait_for("the instant", lab.vm.filters)
    os.kill(lab.vm.proc.pid, signal.SIGSTOP)
    try:
        # a command's deadline passes
        for line in iter(run.proc.stderr.readline, ""):
            if "trying a new connection" in line:
                break
    finally:
        os.kill(lab.vm.proc.pid, signal.SIGCONT)
    r = run.wait(120)
    check(r.code not in (OK, WARNING), "not a success", r)
    equal(lab.vm.leftovers(), [], "leftovers")
    lab.tracking(lab.backup(), vda="incremental", vdb="incremental")


@test("QEMU stopped before a backup: exit 3 within the deadline")
def qemu_stopped():
    lab = slow_lab()
    os.kill(lab.vm.proc.pid, signal.SIGSTOP)
    try:
        r = lab.tm.run("backup", lab.vm.address, timeout=60)
    finally:
        os.kill(lab.vm.proc.pid, signal.SIGCONT)
    equal(r.code, UNREACHABLE, "exit status", r)
    lab.tracking(lab.backup(), vda="incremental", vdb="incremental")


tap.main()
