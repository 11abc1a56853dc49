#!/usr/bin/env python3
"""A point holds its instant, whatever the guest does to the disk right after
it, while the old data is still being read."""

import images
import tap
from lab import Lab
from tap import check, test
from tidemark import OK, WARNING
from vm import slow_disk

M = 1 << 20


def story(fmt, command, first):
    """Every fourth of the data is overwritten right after the instant, in
    pieces that are no whole unit of reading."""
    path = images.make(tap.tempdir("slow") + "/vda." + fmt, fmt, "16M")
    disk, args = slow_disk("vda", path, fmt, 8 * M)
    lab = Lab([disk], args)
    lab.vm.io("vda", "write -P 0x11 0 6M")
    if not first:
        lab.backup()
        lab.vm.io("vda", "write -P 0x12 0 6M")
    refs = lab.reference()
    run = lab.tm.start("backup", lab.vm.address, "--json")
    tap.wait_for("the instant", lab.vm.filters)
    for k in range(24):
        lab.vm.io("vda", "%s %dk 128k" % (command, k * 256))
    r = run.wait()
    check(r.code in (OK, WARNING) and r.committed, "it commits", r)
    lab.order.append(r.committed["point"])
    lab.refs[lab.order[-1]] = refs
    lab.restores()
    lab.backup()
    lab.all_restore()
    lab.vm.kill()


@test("zeroed right after the instant")
def zeroed():
    for fmt in ("qcow2", "raw"):
        for first in (True, False):
            story(fmt, "write -z", first)


@test("discarded right after the instant")
def discarded():
    for fmt in ("qcow2", "raw"):
        for first in (True, False):
            story(fmt, "discard", first)


@test("overwritten right after the instant")
def overwritten():
    for fmt in ("qcow2", "raw"):
        for first in (True, False):
            story(fmt, "write -P 0x44", first)


tap.main()
