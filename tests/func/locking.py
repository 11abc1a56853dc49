#!/usr/bin/env python3
"""Two runs at once on one machine: one works, the other says so."""

import images
import tap
from lab import Lab
from tap import check, equal, test, wait_for
from tidemark import BUSY, OK, WARNING
from vm import slow_disk


def slow_lab():
    path = images.make(tap.tempdir("slow") + "/vda.qcow2", "qcow2", "16M")
    disk, args = slow_disk("vda", path, "qcow2", 2 << 20)
    lab = Lab([disk], args)
    lab.vm.io("vda", "write -P 0x11 0 8M")
    return lab


@test("the second run ends at once with 6 and does not disturb the first")
def second_run():
    lab = slow_lab()
    refs = lab.reference()
    first = lab.tm.start("backup", lab.vm.address, "--json")
    wait_for("the instant", lab.vm.filters)
    r = lab.tm.run("backup", lab.vm.address, timeout=60)
    equal(r.code, BUSY, "exit status", r)
    check(r.err.strip(), "it says why", r)
    check(lab.vm.filters(), "the first still holds its instant")
    r = first.wait()
    check(r.code in (OK, WARNING), "the first commits", r)
    point = r.committed["point"]
    lab.refs[point] = refs
    lab.restores(point)
    equal(lab.vm.leftovers(), [], "leftovers")


@test("a run into another repository waits its turn too")
def other_repository():
    lab = slow_lab()
    other = lab.dir + "/other"
    lab.tm.ok("init", other)
    first = lab.tm.start("backup", lab.vm.address)
    wait_for("the instant", lab.vm.filters)
    r = lab.tm.run("backup", lab.vm.address, "--repo", other, timeout=60)
    equal(r.code, BUSY, "exit status", r)
    check(first.wait().code in (OK, WARNING), "the first commits")


@test("readers are not locked out by a backup")
def readers():
    lab = slow_lab()
    lab.backup()
    lab.vm.io("vda", "write -P 0x12 0 6M")
    first = lab.tm.start("backup", lab.vm.address)
    wait_for("the instant", lab.vm.filters)
    equal(len(lab.tm.points()), 1, "points")
    lab.restores()
    lab.verifies()
    check(first.wait().code in (OK, WARNING), "the backup commits")


tap.main()
