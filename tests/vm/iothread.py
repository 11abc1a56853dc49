#!/usr/bin/env python3
"""A running guest whose disks have iothreads: backed up where QEMU can do it
(9.0), else refused before anything is touched, and the rest can be had."""

import glob
import os

import guestvm
import images
import tap
from tap import check, equal, test
from tidemark import FAILED, OK, Tidemark, WARNING

THREADS = {"vda": "io0", "vdc": "io1"}  # vdb stays in the main loop


def machine():
    """The writer, with two of its three disks in threads of their own."""
    disks = guestvm.new_disks(tap.tempdir("guest"))
    args = []
    for d in disks:
        if d.name in THREADS:
            d.device += ",iothread=" + THREADS[d.name]
            args += ["-object", "iothread,id=" + THREADS[d.name]]
    g = guestvm.Writer(disks, args=args).start()
    g.wait_records(150)
    return g


def safe(g):
    return g.qmp.call("query-version")["qemu"]["major"] >= 9


def objects(tm):
    """What is in the repository, by name."""
    return sorted(glob.glob(tm.repo + "/**", recursive=True))


@test("disks with iothreads under load: full, incremental, one instant")
def backed_up():
    tm = Tidemark()
    tm.init()
    g = machine()
    if not safe(g):
        tap.skip("QEMU below 9.0")
    points = []
    for i in range(4):
        low = g.records()
        r = tm.ok("backup", g.address, "--json")
        high = g.records() + 1
        for d in r.committed["disks"]:
            equal(d["tracking"], "incremental" if i else "full",
                  "tracking of " + d["disk"], r)
        equal(g.leftovers(), [], "leftovers")
        g.wait_records(high + 100)  # neither frozen, paused nor dead
        points.append((r.committed["point"], low, high))
    g.kill()
    equal(tm.run("verify").code, OK, "verify")
    for point, low, high in points:
        to = tap.tempdir("boot")
        tm.ok("restore", "web1@" + point, "--to", to, "--format", "raw")
        c = guestvm.check(to, "raw")
        check(c.ok, "records, slots and counters are right", c.console)
        check(c.clean, "e2fsck finds nothing", c.console)
        check(low <= c.last <= high, "the instant: %d <= %d <= %d"
              % (low, c.last, high))
        check(0 <= c.b - c.c <= 1, "one instant: B %d, C %d" % (c.b, c.c))
        tap.diag("%s: %s" % (point[:12], c.line))


@test("below 9.0: refused with the reason, untouched, and --exclude helps")
def refused():
    tm = Tidemark()
    tm.init()
    g = machine()
    if safe(g):
        tap.skip("QEMU 9.0 or newer")
    before = objects(tm)
    nodes = [n["node-name"] for n in g.nodes()]
    r = tm.run("backup", g.address, "--json")
    equal(r.code, FAILED, "refused", r)
    check("iothread" in r.err and "9.0" in r.err and "--exclude vda" in r.err,
          "the reason and the way out", r)
    equal(g.leftovers(), [], "leftovers")
    equal(g.bitmaps(), {}, "bitmaps")
    equal([n["node-name"] for n in g.nodes()], nodes, "nodes")
    equal(objects(tm), before, "the repository")
    equal(os.listdir(tm.scratch), [], "scratch")
    g.wait_records(g.records() + 50)
    for how in ("full", "incremental"):
        r = tm.ok("backup", g.address, "--json", "--exclude", "vda",
                  "--exclude", "vdc", codes=(OK, WARNING))
        equal([(d["disk"], d["tracking"]) for d in r.committed["disks"]],
              [("vdb", how)], "disks", r)
        g.wait_records(g.records() + 50)
    equal(g.leftovers(), [], "leftovers")
    g.kill()
    to = tap.tempdir("r")
    tm.ok("restore", "web1@latest", "--to", to, "--format", "qcow2")
    equal(images.check_qcow2(to + "/vdb.qcow2"), "", "vdb")


tap.main()
