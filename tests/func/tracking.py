#!/usr/bin/env python3
"""Every way tracking can be lost ends in a right point that says why.

What happens to the images and bitmaps; what happens to the chain below them is
in tracking-chain.py."""

import os
import shutil

import images
import tap
from causes import FULL, INCREMENTAL, backup, goes_on, one_disk, ours
from lab import Lab
from tap import check, equal, test
from tidemark import BUSY, OK, WARNING
from vm import Disk, slow_disk

M = 1 << 20


def write(lab, pattern=0x21):
    """What a guest changes: old data, free space, zeroes over data."""
    lab.vm.io("vda", "write -P 0x%x 1M 192k" % pattern,
              "write -P 0x%x 9M 64k" % (pattern + 1), "write -z 2M 128k")


def restart(lab):
    equal(lab.vm.quit(), 0, "exit status of QEMU")
    lab.vm.start()


# -- ends of QEMU -------------------------------------------------------------


@test("crash: the bitmap was in use, so it is inconsistent")
def crash():
    lab = one_disk()
    restart(lab)
    write(lab)
    lab.vm.kill()
    lab.vm.start()
    backup(lab, FULL, "inconsistent after crash")
    goes_on(lab)


@test("crash before the bitmap was ever written: it is missing")
def crash_of_the_first_session():
    lab = one_disk()
    write(lab)
    lab.vm.kill()
    lab.vm.start()
    backup(lab, FULL, "missing after restart")
    goes_on(lab)


@test("a clean shutdown on a full disk loses the bitmap")
def full_disk():
    if os.geteuid() != 0:
        tap.skip("a file system of its own needs root")
    at = tap.tempdir("small")
    images.sh("mount", "-t", "tmpfs", "-o", "size=24m", "tidemark", at)
    tap.cleanup(images.sh, "umount", at)
    path = images.make(at + "/vda.qcow2", "qcow2", "16M")
    lab = Lab([Disk("vda", path, "qcow2")])
    lab.vm.io("vda", "write -P 0x11 0 4M")
    lab.backup()
    write(lab)
    lab.vm.flush()
    with open(at + "/filler", "wb", buffering=0) as f:
        try:
            while True:
                f.write(bytes(4096))
        except OSError:
            pass
    equal(lab.vm.quit(), 0, "exit status of QEMU")
    check("No space left" in lab.vm.log(), "its log", lab.vm.log())
    os.unlink(at + "/filler")
    lab.vm.start()
    backup(lab, FULL, "no room at the shutdown")
    goes_on(lab)
    lab.vm.kill()


@test("a raw disk remembers nothing over a restart")
def raw_restart():
    lab = one_disk("raw")
    write(lab)
    backup(lab, INCREMENTAL)
    write(lab, 0x31)
    restart(lab)
    backup(lab, FULL, "raw disk after restart")
    goes_on(lab)


@test("qcow2 version 2 has no room for a bitmap")
def version_2():
    path = images.make(tap.tempdir("v2") + "/vda.qcow2", "qcow2", "16M",
                       "compat=0.10")
    lab = Lab([Disk("vda", path, "qcow2")])
    lab.vm.io("vda", "write -P 0x11 0 4M")
    lab.backup()
    write(lab)
    backup(lab, INCREMENTAL)
    write(lab, 0x31)
    restart(lab)
    backup(lab, FULL, "bitmap was not persistent")
    goes_on(lab)


@test("a persistent bitmap is believed after a clean restart")
def clean_restart():
    lab = one_disk()
    write(lab)
    restart(lab)
    write(lab, 0x31)
    backup(lab, INCREMENTAL, base=lab.order[-1])
    goes_on(lab)


# -- sizes --------------------------------------------------------------------


@test("a disk that grew, and one that shrank")
def resized():
    for fmt in ("raw", "qcow2"):
        lab = one_disk(fmt)
        for size in (20 * M, 14 * M):
            lab.vm.qmp.call("block_resize", node_name="vda-node", size=size)
            write(lab)
            backup(lab, FULL, "resized")
        goes_on(lab)
        lab.vm.kill()


@test("shrunk and grown again between two points")
def shrunk_and_grown():
    for fmt in ("raw", "qcow2"):
        lab = one_disk(fmt)
        for size in (4 * M, 16 * M):
            lab.vm.qmp.call("block_resize", node_name="vda-node", size=size)
        backup(lab, FULL, "cut by a resize")
        goes_on(lab)
        lab.vm.kill()


@test("resized while the machine was off, and back")
def resized_offline():
    lab = one_disk()
    lab.vm.quit()
    images.sh("qemu-img", "resize", "-f", "qcow2", "--shrink",
              lab.disks[0].path, "8M")
    images.sh("qemu-img", "resize", "-f", "qcow2", lab.disks[0].path, "16M")
    lab.vm.start()
    backup(lab, FULL, "cut by a resize")
    goes_on(lab)


# -- other images -------------------------------------------------------------


def other_image(path, fmt):
    images.make(path, fmt, "16M")
    images.sh("qemu-io", "-f", fmt, "-c", "write -P 0x66 5M 2M", path)


@test("another image of the same size and name")
def replaced():
    for fmt in ("raw", "qcow2"):
        lab = one_disk(fmt)
        lab.vm.quit()
        other_image(lab.dir + "/new", fmt)
        os.rename(lab.dir + "/new", lab.disks[0].path)
        lab.vm.start()
        backup(lab, FULL, "replaced by another image")
        goes_on(lab)
        lab.vm.kill()


@test("another image under another file name")
def replaced_elsewhere():
    lab = one_disk()
    lab.vm.quit()
    lab.disks[0].path = lab.dir + "/other.qcow2"
    other_image(lab.disks[0].path, "qcow2")
    lab.vm.start()
    backup(lab, FULL, "replaced by another image")
    goes_on(lab)


@test("two disks that changed places")
def swapped():
    lab = Lab([("vda", "qcow2", "16M"), ("vdb", "qcow2", "16M")])
    lab.vm.io("vda", "write -P 0x11 0 4M")
    lab.vm.io("vdb", "write -P 0x12 2M 4M")
    lab.backup()
    lab.vm.quit()
    a, b = lab.disks
    a.path, b.path = b.path, a.path
    lab.vm.start()
    r = backup(lab, FULL, "replaced by another image")
    check("replaced" in r.disk("vdb")["reason"], "vdb as well", r)
    goes_on(lab)


@test("an image that was moved with its bitmap stays incremental")
def renamed():
    lab = one_disk()
    write(lab)
    lab.vm.quit()
    new = lab.dir + "/moved.qcow2"
    os.rename(lab.disks[0].path, new)
    lab.disks[0].path = new
    lab.vm.start()
    write(lab, 0x31)
    backup(lab, INCREMENTAL, note="another name", base=lab.order[-1])
    goes_on(lab)


# -- another host -------------------------------------------------------------


def elsewhere(lab):
    """From now on Tidemark sees another machine-id."""
    path = lab.dir + "/machine-id"
    with open(path, "w") as f:
        f.write("00000000000000000000000000000001\n")
    lab.tm.wrap = ["unshare", "--mount", "sh", "-c",
                   "mount --bind %s /etc/machine-id && exec \"$@\"" % path,
                   "sh"]
    r = lab.tm.run("--version")
    if r.code != OK:
        tap.skip("another machine-id needs root and mount namespaces")


@test("on another host, without its bitmap")
def moved():
    lab = one_disk("raw")
    write(lab)
    restart(lab)
    elsewhere(lab)
    backup(lab, FULL, "moved to another host")
    goes_on(lab)


@test("on another host, with its image and bitmap: incremental")
def moved_with_bitmap():
    lab = one_disk()
    write(lab)
    restart(lab)
    elsewhere(lab)
    backup(lab, INCREMENTAL, note="moved to another host")
    goes_on(lab)


@test("a machine with another UUID under the same name is warned of")
def other_uuid():
    a, b = ("%08d-0000-4000-8000-000000000000" % i for i in (1, 2))
    lab = one_disk(args=["-uuid", a])
    lab.vm.quit()
    lab.vm.args = ["-uuid", b]
    lab.vm.start()
    write(lab)
    r = lab.backup()
    equal(r.code, WARNING, "exit status", r)
    check(any(a in w and b in w for w in r.committed["warnings"]),
          "the warning names both", r)
    lab.restores()
    equal(lab.backup().committed["warnings"], [], "the next run's warnings")


# -- older copies -------------------------------------------------------------


def keep_copy(lab):
    """A copy of the image, taken while the machine is off."""
    lab.vm.quit()
    shutil.copyfile(lab.disks[0].path, lab.dir + "/copy")
    lab.vm.start()


def roll_back(lab):
    lab.vm.quit()
    shutil.copyfile(lab.dir + "/copy", lab.disks[0].path)
    lab.vm.start()


@test("rolled back to a copy from inside the generation: incremental")
def rolled_back_inside():
    lab = one_disk()
    write(lab)
    keep_copy(lab)
    write(lab, 0x31)
    roll_back(lab)
    write(lab, 0x41)
    backup(lab, INCREMENTAL, base=lab.order[-1])
    goes_on(lab)


@test("rolled back to a copy of an earlier point's time: incremental to that")
def rolled_back_before():
    lab = one_disk()
    write(lab)
    keep_copy(lab)
    lab.vm.io("vda", "write -P 0x31 5M 1M", "write -z 12M 1M")
    backup(lab, INCREMENTAL)
    write(lab, 0x41)
    backup(lab, INCREMENTAL)
    roll_back(lab)
    backup(lab, INCREMENTAL, note="older copy", base=lab.order[0])
    goes_on(lab)


@test("rolled back to a copy of a point that the repository has forgotten")
def rolled_back_outside():
    lab = one_disk()
    keep_copy(lab)
    write(lab, 0x31)
    backup(lab, INCREMENTAL)
    lab.tm.ok("prune", "--keep-last", 1, "--quiet")
    del lab.order[0]
    roll_back(lab)
    backup(lab, FULL, "not in this repository")
    goes_on(lab)


@test("rolled back to a copy from before there was tracking")
def rolled_back_to_nothing():
    lab = one_disk(backup=False)
    keep_copy(lab)
    lab.backup()
    write(lab)
    roll_back(lab)
    backup(lab, FULL, "older or other image")
    goes_on(lab)


@test("a repository rolled back to an older copy")
def old_repository():
    lab = one_disk()
    shutil.copytree(lab.tm.repo, lab.dir + "/repo")
    write(lab)
    lab.backup()
    shutil.rmtree(lab.tm.repo)
    os.rename(lab.dir + "/repo", lab.tm.repo)
    lab.order.pop()
    write(lab, 0x31)
    backup(lab, FULL, "not in this repository")
    goes_on(lab)


# -- other programs -----------------------------------------------------------


def foreign(lab, *commands, writes=True, **more):
    name = ours(lab)
    for c in commands:
        lab.vm.qmp.call("block-dirty-bitmap-" + c, node="vda-node", name=name,
                        **(more if c == "add" else {}))
    if writes:
        write(lab)


@test("cleared by another program")
def cleared():
    lab = one_disk()
    write(lab, 0x31)
    foreign(lab, "clear", writes=False)
    backup(lab, FULL, "was cleared")
    goes_on(lab)


@test("disabled by another program")
def disabled():
    lab = one_disk()
    foreign(lab, "disable")
    backup(lab, FULL, "not recording")
    goes_on(lab)


@test("removed by another program")
def removed():
    for fmt in ("raw", "qcow2"):
        lab = one_disk(fmt)
        foreign(lab, "remove")
        backup(lab, FULL, "removed by another program")
        goes_on(lab)
        lab.vm.kill()


@test("removed and added again by another program")
def added_again():
    lab = one_disk()
    write(lab, 0x31)
    foreign(lab, "remove", "add", persistent=True, granularity=65536)
    backup(lab, FULL, "replaced")
    goes_on(lab)


@test("used by another program's job")
def busy():
    lab = one_disk()
    call = lab.vm.qmp.call
    write(lab)
    call("blockdev-add", driver="null-co", node_name="target", size=16 * M)
    call("blockdev-backup", job_id="theirs", device="vda-node",
         target="target", sync="incremental", bitmap=ours(lab),
         auto_finalize=False, auto_dismiss=True)
    tap.wait_for("their job to be done", lambda: any(
        j["status"] == "pending" for j in call("query-jobs")))
    refs = lab.reference()
    r = lab.tm.ok("backup", lab.vm.address, "--json", codes=(WARNING,))
    d = r.disk("vda")
    equal((d["tracking"], d["reason"]),
          (FULL, "bitmap is in use by another job"), "how it was read", r)
    point = r.committed["point"]
    lab.order.append(point)
    lab.refs[point] = refs
    lab.restores()
    equal([j["id"] for j in call("query-jobs")], ["theirs"], "their job")
    call("job-finalize", id="theirs")
    tap.wait_for("the end of their job", lambda: not call("query-jobs"))
    call("blockdev-del", node_name="target")
    write(lab, 0x31)
    backup(lab, INCREMENTAL, base=point)
    goes_on(lab)


# -- several of us ------------------------------------------------------------


@test("two repositories on one machine, and a restart")
def two_repositories():
    lab = one_disk()
    other = lab.dir + "/other"
    lab.tm.ok("init", other)
    lab.tm.ok("backup", lab.vm.address, "--repo", other, codes=(OK, WARNING))
    write(lab)
    restart(lab)
    write(lab, 0x31)
    backup(lab, INCREMENTAL)
    refs = lab.reference()
    r = lab.tm.ok("backup", lab.vm.address, "--repo", other, "--json")
    equal(r.disk("vda")["tracking"], INCREMENTAL, "the other repository", r)
    lab.tm.ok("restore", "web1@latest", "--repo", other, "--to",
              lab.dir + "/to", "--format", "raw")
    equal(images.same(lab.dir + "/to/vda.raw", refs["vda"]), "",
          "vda from the other repository")
    goes_on(lab)


@test("two runs at once: the second is told so, the first is not disturbed")
def two_runs():
    path = images.make(tap.tempdir("slow") + "/vda.qcow2", "qcow2", "16M")
    disk, args = slow_disk("vda", path, "qcow2", 4 * M)
    lab = Lab([disk], args)
    lab.vm.io("vda", "write -P 0x11 0 6M")
    refs = lab.reference()
    first = lab.tm.start("backup", lab.vm.address, "--json")
    tap.wait_for("the instant", lab.vm.filters)
    write(lab)
    r = lab.tm.run("backup", lab.vm.address, "--json", timeout=60)
    equal(r.code, BUSY, "exit status", r)
    equal(r.events[-1]["code"], "locked", "error code", r)
    r = first.wait()
    tap.need(r.code in (OK, WARNING) and r.committed, "the first commits", r)
    point = r.committed["point"]
    lab.order.append(point)
    lab.refs[point] = refs
    lab.restores()
    backup(lab, INCREMENTAL, base=point)


tap.main()
