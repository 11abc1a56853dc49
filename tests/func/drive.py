#!/usr/bin/env python3
"""Machines as people start them: -drive, throttling, read-only, CD-ROM, and
images over backing files."""

import images
import tap
from lab import Lab
from tap import check, equal, test
from tidemark import OK, WARNING
from vm import Disk


class Drive(Disk):
    """-drive if=none plus a device: QEMU makes up the node names."""

    def __init__(self, name, path, fmt, more="",
                 device="virtio-blk-pci"):
        super().__init__(name, path, fmt, device)
        self.more = more

    def args(self):
        return ["-drive", "if=none,id=drive-%s,file=%s,format=%s,discard=unmap"
                "%s" % (self.name, self.path, self.format, self.more),
                "-device", "%s,drive=drive-%s,id=%s"
                % (self.device, self.name, self.name)]


def image(name, fmt="qcow2", size="32M", **kw):
    path = "%s/%s.%s" % (tap.tempdir("img"), name, fmt)
    return images.make(path, fmt, size, **kw)


def full_and_incremental(lab, **tracking):
    """The common story; `tracking` names the disks that are backed up."""
    for n in tracking:
        lab.vm.io(n, "write -P 0x11 0 3M", "write -P 0x12 20M 512k")
    skip = [d.name for d in lab.disks if d.name not in tracking]
    r = lab.backup(skip=skip)
    equal(sorted(d["disk"] for d in r.committed["disks"]), sorted(tracking),
          "disks of the point", r)
    lab.restores()
    for n in tracking:
        lab.vm.io(n, "write -P 0x13 1M 100k", "discard 2M 256k")
    lab.tracking(lab.backup(skip=skip), **tracking)
    lab.all_restore()


@test("-drive with node names that QEMU made up")
def auto_names():
    lab = Lab([Drive("vda", image("a"), "qcow2"),
               Drive("vdb", image("b", "raw"), "raw")])
    full_and_incremental(lab, vda="incremental", vdb="incremental")


@test("disks on different controllers: SCSI, IDE, virtio")
def controllers():
    lab = Lab([Drive("vda", image("a"), "qcow2"),
               Drive("sda", image("b"), "qcow2", device="scsi-hd"),
               Drive("hda", image("c"), "qcow2", device="ide-hd")],
              args=["-device", "virtio-scsi-pci"])
    full_and_incremental(lab, vda="incremental", sda="incremental",
                         hda="incremental")


@test("a throttle group (node above the format node) is no obstacle")
def throttled():
    path = image("a")
    disk = Disk("vda", path, "qcow2")
    disk.args = lambda: [
        "-object", "throttle-group,id=tg0,x-bps-total=500000000",
        "-blockdev", "driver=qcow2,node-name=low,discard=unmap,"
        "file.driver=file,file.filename=%s,file.discard=unmap" % path,
        "-blockdev", "driver=throttle,node-name=top,throttle-group=tg0,"
        "file=low", "-device", "virtio-blk-pci,drive=top,id=vda"]
    lab = Lab([disk, Drive("vdb", image("b"), "qcow2",
                           ",throttling.bps-total=500000000")])
    full_and_incremental(lab, vda="incremental", vdb="incremental")


@test("read-only disks and empty CD-ROM drives are left out")
def left_out():
    ro = image("ro", "raw")
    disk = Drive("vdr", ro, "raw", ",readonly=on")
    lab = Lab([Drive("vda", image("a"), "qcow2"), disk],
              args=["-device", "ide-cd,id=cd0"])
    full_and_incremental(lab, vda="incremental")


@test("an image over backing files restores as one complete disk")
def backing():
    base, mid, top = image("base"), image("x"), image("y")
    images.sh("qemu-io", "-f", "qcow2", "-c", "write -P 0x71 0 8M", base)
    images.sh("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b",
              base, mid)
    images.sh("qemu-io", "-f", "qcow2", "-c", "write -P 0x72 4M 1M", "-c",
              "write -z 5M 1M", mid)
    images.sh("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b",
              mid, top)
    lab = Lab([Drive("vda", top, "qcow2")])
    full_and_incremental(lab, vda="incremental")
    r = lab.tm.ok("restore", "web1@latest", "--to", lab.dir + "/q",
                  "--format", "qcow2")
    info = images.sh("qemu-img", "info", lab.dir + "/q/vda.qcow2")
    check("backing file" not in info, "no backing file", info, r)


@test("the machine's name is QEMU's -name, or --name")
def names():
    lab = Lab([("vda", "qcow2", "8M")], name="db-7")
    r = lab.backup()
    equal(r.committed["machine"], "db-7", "machine")
    r = lab.tm.ok("backup", lab.vm.address, "--name", "other", "--json",
                  codes=(OK, WARNING))
    equal(r.committed["machine"], "other", "machine")
    equal(sorted(p["machine"] for p in lab.tm.points()), ["db-7", "other"],
          "machines")


@test("doctor looks at a machine and changes nothing")
def doctor():
    lab = Lab([("vda", "qcow2", "8M"), ("vdb", "raw", "8M")])
    before = lab.vm.nodes()
    r = lab.tm.ok("doctor", lab.vm.address, "--json", codes=(OK, WARNING))
    check("vda" in r.out and "vdb" in r.out, "the disks are named", r)
    equal(lab.vm.bitmaps(), {}, "bitmaps")
    equal([n["node-name"] for n in lab.vm.nodes()],
          [n["node-name"] for n in before], "nodes")
    equal(lab.vm.leftovers(), [], "leftovers")


tap.main()
