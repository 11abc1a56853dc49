#!/usr/bin/env python3
"""Tidemark killed while a guest is running, perhaps frozen: the guest goes on
and the next run is incremental and right."""

import subprocess
import time

import guestvm
import tap
from tap import check, equal, test
from tidemark import BUSY, OK, Tidemark, WARNING

KILLS = 8


@test("killed at growing times: the guest thaws, next run incremental, right")
def killed():
    tm = Tidemark()
    tm.init()
    dir = tap.tempdir("guest")
    g = guestvm.writer(dir)
    tm.ok("backup", g.address, codes=(OK, WARNING))
    g.wait_records(g.records() + 200)
    began = time.monotonic()
    tm.ok("backup", g.address, codes=(OK, WARNING))
    whole = time.monotonic() - began
    for i in range(KILLS):
        run = tm.start("backup", g.address)
        try:
            run.proc.wait(whole * (i + 0.5) / KILLS)
        except subprocess.TimeoutExpired:
            pass
        run.kill()
        # only a thawed guest gets further
        g.wait_records(g.records() + 100, timeout=60)

    def commits():
        nonlocal low, r
        low = g.records()
        r = tm.run("backup", g.address, "--json")
        return r.code != BUSY
    low = r = None
    tap.wait_for("the lock of the dead run", commits, 30)
    high = g.records() + 1
    check(r.code in (OK, WARNING), "the next run commits", r)
    equal({d["tracking"] for d in r.committed["disks"]}, {"incremental"},
          "tracking", r)
    equal(r.committed["consistency"], "filesystem", "consistency", r)
    equal(g.leftovers(), [], "leftovers")
    g.kill()
    tm.ok("restore", "web1@latest", "--to", dir + "/out", "--format", "raw")
    c = guestvm.check(dir + "/out", "raw")
    check(c.ok and c.clean, "the restored disks are right", c.console)
    check(low <= c.last <= high, "%d <= %d <= %d" % (low, c.last, high))


tap.main()
