#!/usr/bin/env python3
"""What a restart of QEMU, clean or not, does to tracking."""

import tap
from lab import Lab
from tap import check, equal, test
from vm import Disk


def two_disks():
    lab = Lab([("vda", "qcow2"), ("vdb", "raw")])
    lab.vm.io("vda", "write -P 0x11 0 4M")
    lab.vm.io("vdb", "write -P 0x21 0 4M")
    lab.backup()
    return lab


def nearly_nothing_stored(r):
    """A full read of a disk that the repository knows stores only what is
    new: a few chunks and map pages."""
    for d in r.committed["disks"]:
        check(d["new_bytes"] <= 1 << 20, "little is new on " + d["disk"], r)


@test("QEMU killed before it ever stored the bitmap: full, then incremental")
def killed_at_first():
    lab = two_disks()
    lab.vm.flush()
    lab.vm.kill()
    lab.vm.start()
    lab.vm.io("vda", "write -P 0x12 1M 64k")
    r = lab.backup()
    lab.tracking(r, vda="full", vdb="full")
    check(r.disk("vda")["reason"], "vda has a reason", r)
    check(r.disk("vdb")["reason"], "vdb has a reason", r)
    nearly_nothing_stored(r)
    lab.vm.io("vda", "write -P 0x13 2M 64k")
    lab.vm.io("vdb", "write -P 0x23 2M 64k")
    lab.tracking(lab.backup(), vda="incremental", vdb="incremental")
    lab.all_restore()


@test("QEMU killed with a stored bitmap: inconsistent, full, incremental again")
def killed_later():
    lab = two_disks()
    lab.vm.quit()
    lab.vm.start()
    lab.vm.io("vda", "write -P 0x12 1M 64k")
    lab.vm.flush()
    lab.vm.kill()
    lab.vm.start()
    r = lab.backup()
    lab.tracking(r, vda="full", vdb="full")
    check("inconsistent" in r.disk("vda")["reason"]
          or "crash" in r.disk("vda")["reason"], "the reason says so", r)
    nearly_nothing_stored(r)
    inconsistent = [b for maps in lab.vm.bitmaps().values() for b in maps
                    if b.get("inconsistent")]
    equal(inconsistent, [], "inconsistent bitmaps left")
    lab.vm.io("vda", "write -P 0x13 2M 64k")
    lab.tracking(lab.backup(), vda="incremental", vdb="incremental")
    lab.all_restore()


@test("after a clean restart qcow2 stays incremental; raw says why it cannot")
def clean_restart():
    lab = two_disks()
    lab.vm.io("vda", "write -P 0x12 1M 64k")
    lab.vm.io("vdb", "write -P 0x22 1M 64k")
    lab.vm.quit()
    lab.vm.start()
    lab.vm.io("vda", "write -P 0x13 2M 64k")
    lab.vm.io("vdb", "write -P 0x23 2M 64k")
    r = lab.backup()
    lab.tracking(r, vda="incremental", vdb="full")
    check("raw" in r.disk("vdb")["reason"]
          or "restart" in r.disk("vdb")["reason"], "the reason says so", r)
    lab.vm.io("vdb", "write -P 0x24 3M 64k")
    lab.tracking(lab.backup(), vda="incremental", vdb="incremental")
    lab.all_restore()


@test("an image written to while QEMU was off is not believed")
def written_outside():
    """qemu-io keeps a qcow2's bitmaps up to date; a raw disk has none."""
    import images
    lab = two_disks()
    lab.vm.quit()
    images.sh("qemu-io", "-f", "qcow2", "-c", "write -P 0x77 3M 64k",
              lab.disk("vda").path)
    images.sh("qemu-io", "-f", "raw", "-c", "write -P 0x78 3M 64k",
              lab.disk("vdb").path)
    lab.vm.start()
    lab.backup()
    lab.all_restore()


@test("another image behind the same disk name is read in full")
def other_image():
    import images
    lab = two_disks()
    lab.vm.quit()
    d = lab.disk("vda")
    images.make(d.path, "qcow2", "64M")
    images.sh("qemu-io", "-f", "qcow2", "-c", "write -P 0x66 8M 1M", d.path)
    lab.vm.start()
    r = lab.backup()
    lab.tracking(r, vda="full")
    lab.all_restore()


@test("a bitmap removed or cleared by others is noticed")
def meddled():
    lab = two_disks()
    for what in ("remove", "clear"):
        node, name = [(n, b["name"]) for n, maps in lab.vm.bitmaps().items()
                      for b in maps if n == "vda-node"][0]
        lab.vm.io("vda", "write -P 0x%x 5M 64k" % len(what))
        lab.vm.qmp.call("block-dirty-bitmap-" + what, node=node, name=name)
        r = lab.backup(codes=(0, 1))
        lab.tracking(r, vda="full")
        check(r.disk("vda")["reason"], "with a reason", r)
    lab.all_restore()


@test("a bitmap that was disabled for a while is not believed")
def disabled():
    lab = two_disks()
    node, name = [(n, b["name"]) for n, maps in lab.vm.bitmaps().items()
                  for b in maps if n == "vda-node"][0]
    lab.vm.qmp.call("block-dirty-bitmap-disable", node=node, name=name)
    lab.vm.io("vda", "write -P 0x33 6M 64k")
    lab.tracking(lab.backup(), vda="full")
    lab.all_restore()


@test("a point rolled away from the repository: its bitmap is not a base")
def repository_rolled_back():
    import shutil
    lab = two_disks()
    kept = lab.dir + "/old-repository"
    shutil.copytree(lab.tm.repo, kept, symlinks=True)
    lab.vm.io("vda", "write -P 0x12 7M 64k")
    lost = lab.backup()
    shutil.rmtree(lab.tm.repo)
    shutil.copytree(kept, lab.tm.repo, symlinks=True)
    lab.order.remove(lost.point)
    r = lab.backup()
    lab.tracking(r, vda="full")
    lab.all_restore()


tap.main()
