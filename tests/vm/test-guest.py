#!/usr/bin/env python3
"""A running Linux under load: every point is one instant of three disks, is
consistent for the file system, and boots."""

import guestvm
import images
import tap
from tap import check, equal, test
from tidemark import OK, Tidemark, WARNING


class Point:
    def __init__(self, result, low, high):
        self.id = result.committed["point"]
        self.low, self.high = low, high


def backup(g, tm, *args, codes=(OK, WARNING)):
    """A point, with the records between which its instant must lie: those that
    were complete before the run, and at most one more than after it."""
    low = g.records()
    r = tm.ok("backup", g.address, "--json", *args, codes=codes)
    high = g.records() + 1
    equal(g.leftovers(), [], "leftovers")
    g.wait_records(high + 150)  # neither frozen nor paused
    return r, Point(r, low, high)


def boots(tm, point, fmt):
    """Restore, boot for the first time, and look."""
    to = tap.tempdir("boot")
    tm.ok("restore", "web1@" + point.id, "--to", to, "--format", fmt)
    if fmt == "qcow2":
        for name in guestvm.SIZES:
            equal(images.check_qcow2("%s/%s.qcow2" % (to, name)), "", name)
    c = guestvm.check(to, fmt)
    check(c.ok, "records, slots and counters are right", c.console)
    check(c.clean, "e2fsck finds nothing", c.console)
    check(point.low <= c.last <= point.high, "the instant: %d <= %d <= %d"
          % (point.low, c.last, point.high))
    check(0 <= c.b - c.c <= 1, "one instant: B %d, C %d" % (c.b, c.c))
    tap.diag("%s: %s" % (point.id[:12], c.line))


@test("full and three incrementals of a running guest, frozen for the instant")
def frozen():
    tm = Tidemark()
    tm.init()
    g = guestvm.writer(tap.tempdir("guest"))
    g.wait_records(150)
    points = []
    for i in range(4):
        r, p = backup(g, tm, codes=(OK,))
        points.append(p)
        equal(r.committed["consistency"], "filesystem", "consistency", r)
        check(r.committed["freeze_ms"] < 10000, "short freeze", r)
        tap.diag("frozen for %d ms" % r.committed["freeze_ms"])
        for d in r.committed["disks"]:
            equal(d["tracking"], "incremental" if i else "full",
                  "tracking of " + d["disk"], r)
    g.kill()
    equal(tm.run("verify").code, OK, "verify")
    for i, p in enumerate(points):
        boots(tm, p, "raw" if i % 2 else "qcow2")


@test("without an agent: crash-consistent, the journal makes it whole")
def crash():
    tm = Tidemark()
    tm.init()
    g = guestvm.writer(tap.tempdir("guest"))
    g.wait_records(150)
    points = []
    for _ in range(2):
        r, p = backup(g, tm, "--quiesce", "off")
        points.append(p)
        equal(r.committed["consistency"], "crash", "consistency")
    g.kill()
    for p in points:
        boots(tm, p, "qcow2")


@test("incremental again after the guest's machine was started anew")
def restarted():
    tm = Tidemark()
    tm.init()
    g = guestvm.writer(tap.tempdir("guest"))
    backup(g, tm)
    g.quit()
    g.start()
    g.wait_records(1)
    r, p = backup(g, tm)
    tracking = {d["disk"]: d["tracking"] for d in r.committed["disks"]}
    equal(tracking, {"vda": "incremental", "vdb": "incremental",
                     "vdc": "full"}, "tracking (vdc is raw)", r)
    r, last = backup(g, tm)
    equal({d["tracking"] for d in r.committed["disks"]}, {"incremental"},
          "tracking", r)
    g.kill()
    boots(tm, p, "raw")
    boots(tm, last, "qcow2")


tap.main()
