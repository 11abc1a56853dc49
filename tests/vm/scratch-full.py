#!/usr/bin/env python3
"""The scratch space fills up under a guest that writes: the backup breaks, the
guest does not."""

import os

import guestvm
import images
import tap
from tap import check, cleanup, equal, skip, test
from tidemark import FAILED, OK, Tidemark, WARNING
from vm import slow_disk


def below_throttle(disks):
    """The devices get a throttle node each, as Proxmox and libvirt do: QEMU's
    errors then name that node and not the backup's filter."""
    for d in disks:
        a = d.args()
        i = a.index("-device")
        a[i + 1] = a[i + 1].replace("drive=" + d.node, "drive=top-" + d.name)
        a[i:i] = ["-blockdev", "driver=throttle,node-name=top-%s,"
                  "throttle-group=top,file=%s" % (d.name, d.node)]
        d.args = lambda a=a: list(a)
    return ["-object", "throttle-group,id=top,x-iops-total=100000"]


@test("scratch full: exit 5, the guest writes on, the next run is incremental")
def scratch_full():
    run("4m")


@test("the same below a throttle node, with so little room that QEMU stops")
def scratch_full_throttled():
    run("1m", below_throttle)


def run(room, change=None):
    if os.geteuid() != 0:
        skip("mounting a tmpfs needs root")
    small = tap.tempdir("scratch")
    images.sh("mount", "-t", "tmpfs", "-o", "size=" + room, "tmpfs", small)
    cleanup(lambda: images.sh("umount", small))

    tm = Tidemark()
    tm.init()
    dir = tap.tempdir("guest")
    # a fourth disk, read slowly, makes the backup last while the guest, which
    # does not know it, writes at full speed to the others
    path = images.make(dir + "/vdd.raw", "raw", 16 << 20)
    slow, args = slow_disk("vdd", path, "raw", 1 << 20)
    disks = guestvm.new_disks(dir)
    if change:
        args = args + change(disks)
    g = guestvm.Writer(disks + [slow], args=args).start()
    g.wait_records(300)
    tm.ok("backup", g.address, codes=(OK, WARNING))
    g.wait_records(g.records() + 300)
    g.io("vdd", "write -P 0x11 0 12M")

    r = tm.run("backup", g.address, "--scratch", small, "--json")
    equal(r.code, FAILED, "exit status", r)
    check("scratch" in r.err + r.out, "the error names the scratch space", r)
    equal(g.leftovers(), [], "leftovers")
    equal(os.listdir(small), [], "scratch files")
    equal(g.qmp.call("query-status")["status"], "running", "the machine")
    tap.diag("QEMU: " + ", ".join(
        "%s %d.%06d" % (e["event"], e["timestamp"]["seconds"],
                        e["timestamp"]["microseconds"])
        for e in g.qmp.events if e["event"] in ("STOP", "RESUME",
                                                "BLOCK_IO_ERROR")))
    g.wait_records(g.records() + 200)
    check("FAILED" not in g.serial(), "the guest saw no error")

    low = g.records()
    r = tm.ok("backup", g.address, "--json", codes=(OK, WARNING))
    equal({d["tracking"] for d in r.committed["disks"]}, {"incremental"},
          "tracking", r)
    high = g.records() + 1
    g.kill()
    tm.ok("restore", "web1@latest", "--to", dir + "/out", "--format", "raw")
    c = guestvm.check(dir + "/out", "raw")
    check(c.ok and c.clean, "the restored disks are right", c.console)
    check(low <= c.last <= high, "%d <= %d <= %d" % (low, c.last, high))


tap.main()
