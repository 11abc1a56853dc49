#!/usr/bin/env python3
"""A backup of a machine that is off, killed: the images are closed in order, or
the next backup says why it reads everything."""

import os
import signal
import subprocess

import images
import tap
from offlab import NAMES, Off, bitmaps, daemons, fill, ours, slow_lab
from offlab import SLOW, start_slow, wait_event
from tap import check, equal, need, test, wait_for
from tidemark import BUSY, FAILED, OK, UNREACHABLE, WARNING

SURE = (OK, WARNING)
MOMENTS = 12


def openable(lab):
    """Nobody holds the images a moment after a kill."""
    wait_for("the storage daemon's end", lambda: not daemons(lab.tm), 60)
    for d in lab.disks:
        lab.write(d.name, "read 0 512")
        if d.format == "qcow2":
            equal(images.check_qcow2(d.path), "", "qemu-img check")


@test("kill -9 at each event: images in order, the next run incremental")
def killed():
    lab = slow_lab(8)
    r = lab.off(names=NAMES)
    lines = r.out.count("\n")
    for i in range(min(lines, 12)):
        fill(lab, "vda", 0, 8 << 20, "kill %d" % i)
        run = start_slow(lab)
        for _ in range(i + 1):
            run.line()
        run.kill()
        if i % 2 == 0:  # else the next run has to wait for the daemon itself
            openable(lab)
            check(all("in-use" not in b["flags"]
                      for b in bitmaps(lab.disk("vda").path)),
                  "bitmaps are stored in order", i)
            lab.write("vda", "write -P 0x%x %dk 64k" % (0x40 + i, 64 * i))
        again(lab, "event %d" % i)
    lab.verifies()


def again(lab, what):
    """The next run: incremental and right."""
    r = None

    def not_busy():
        nonlocal r
        r = lab.tm.run("backup", lab.address, "--json")
        return r.code != BUSY
    wait_for("the lock of the dead run", not_busy, 60)
    need(r.code in SURE, "%s: the next run commits" % what, r)
    lab.tracking(r, disk0="incremental")
    equal(len(ours(lab.disk("vda").path)), 1, "%s: bitmaps of ours" % what)
    point = r.committed["point"]
    lab.refs[point] = {NAMES[n]: p for n, p in lab.now().items()}
    lab.restores(point)
    equal(os.listdir(lab.tm.scratch), [], "%s: scratch" % what)
    equal(daemons(lab.tm), [], "%s: storage daemons" % what)
    for d in lab.disks:
        if d.format == "qcow2":
            equal(images.check_qcow2(d.path), "", what)


@test("kill -9 after growing times, from the start to after the commit")
def by_time():
    lab = slow_lab(2)
    whole = lab.off(names=NAMES).seconds
    for i in range(MOMENTS):
        wait_for("the end", lambda: not daemons(lab.tm), 60)
        fill(lab, "vda", i << 20, 2 << 20, "time %d" % i)
        run = lab.tm.start("backup", lab.address)
        try:
            run.proc.wait(whole * 1.3 * i / MOMENTS)
        except subprocess.TimeoutExpired:
            pass
        run.kill()
        again(lab, "moment %d" % i)
    lab.verifies()


@test("SIGTERM: nothing committed, images in order, the next run incremental")
def terminated():
    lab = slow_lab()
    run = start_slow(lab)
    wait_event(run, "instant")
    run.proc.send_signal(signal.SIGTERM)
    r = run.wait()
    check(r.code not in SURE, "interrupted", r)
    equal(daemons(lab.tm), [], "storage daemons left")
    equal(len(ours(lab.disk("vda").path)), 1, "the old bitmap")
    lab.tracking(lab.off(names=NAMES), disk0="incremental")
    lab.all_restore()


@test("--hold has nothing to hold when the machine is off: cleared away at once")
def hold():
    lab = slow_lab()
    run = lab.tm.start("backup", lab.address, "--json", "--hold", *SLOW)
    wait_event(run, "instant")
    away = lab.tm.repo + ".away"
    os.rename(lab.tm.repo, away)
    r = run.wait(120)
    check(r.code not in SURE, "nothing is committed", r)
    check("is held" not in r.out + r.err, "no promise that cannot be kept", r)
    equal(daemons(lab.tm), [], "storage daemons left")
    equal(os.listdir(lab.tm.scratch), [], "scratch")
    os.rename(away, lab.tm.repo)
    equal(len(ours(lab.disk("vda").path)), 1, "the old bitmap")
    r = lab.tm.run("backup", lab.address, "--json", "--resume")
    check(r.code not in SURE and "without --resume" in r.err, "--resume", r)
    lab.tracking(lab.off(names=NAMES), disk0="incremental")
    lab.all_restore()


@test("kill -9 of the storage daemon: the next run is full, with its reason")
def daemon_killed():
    lab = slow_lab()
    run = start_slow(lab)
    wait_event(run, "instant")
    pids = daemons(lab.tm)
    equal(len(pids), 1, "one storage daemon")
    os.kill(pids[0], signal.SIGKILL)
    r = run.wait()
    check(r.code not in SURE, "nothing is committed", r)
    check("storage daemon" in r.out + r.err, "by whose end", r)
    r = lab.off(codes=SURE, names=NAMES)
    lab.tracking(r, disk0="full")
    check("inconsistent" in r.disk("disk0")["reason"], "the reason", r)
    lab.tracking(lab.off(names=NAMES), disk0="incremental")
    lab.all_restore()


@test("a storage daemon that hangs: an end within deadlines, and words")
def daemon_hangs():
    lab = slow_lab()
    run = start_slow(lab)
    wait_event(run, "instant")
    pids = daemons(lab.tm)
    os.kill(pids[0], signal.SIGSTOP)
    r = run.wait()
    check(r.code not in SURE, "nothing is committed", r)
    check("answer" in r.err or "time" in r.err, "words", r)
    equal(daemons(lab.tm), [], "it is ended")
    lab.tracking(lab.off(codes=SURE, names=NAMES), disk0="full")
    lab.all_restore()


@test("a storage daemon that is missing, fails or ends at once: clear words")
def daemon_missing():
    lab = Off([("vda", "qcow2", "8M")])
    script = lab.dir + "/qsd"

    def run(text, *words):
        with open(script, "w") as f:
            f.write("#!/bin/sh\n" + text)
        os.chmod(script, 0o755)
        r = lab.tm.run("backup", lab.address, "--name", "web1",
                       env={"TIDEMARK_QSD": script})
        check(r.code in (UNREACHABLE, FAILED), "exit status", r)
        for w in ("storage daemon",) + words:
            check(w in r.err, "'%s' is said" % w, r)
    run("echo no such library >&2; exit 3", "no such library", "status 3")
    run("exit 0", "ended at once")
    r = lab.tm.run("backup", lab.address, "--name", "web1",
                   env={"TIDEMARK_QSD": lab.dir + "/nothing"})
    check("install QEMU" in r.err, "not there", r)
    equal(ours(lab.disk("vda").path), [], "nothing in the image")


tap.main()
