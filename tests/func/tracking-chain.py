#!/usr/bin/env python3
"""What other programs do to the chain of images under a disk, between points
and during one: each point is right and says why it was read as it was."""

import os

import images
import tap
from causes import FULL, INCREMENTAL, backup, finish, goes_on, one_disk
from lab import Lab
from qmpsock import QmpError
from tap import check, equal, test
from tidemark import OK, WARNING
from vm import Disk, slow_disk

M = 1 << 20


def write(lab, pattern=0x21):
    lab.vm.io("vda", "write -P 0x%x 1M 192k" % pattern,
              "write -P 0x%x 9M 64k" % (pattern + 1), "write -z 2M 128k")


def overlay(lab, name="ov"):
    """An external snapshot: the disk goes on in a new image on top."""
    path = "%s/%s.qcow2" % (lab.dir, name)
    d = lab.disks[0]
    images.sh("qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", d.path,
              "-F", d.format, path, "16M")
    call = lab.vm.qmp.call
    call("blockdev-add", driver="qcow2", node_name=name, backing=None,
         discard="unmap", file={"driver": "file", "filename": path})
    call("blockdev-snapshot", node=d.node, overlay=name)
    lab.below = (d.path, d.format, d.node)
    d.path, d.format, d.node = path, "qcow2", name


def commit_back(lab, job="cm"):
    """The disk goes on in the image below; returns the overlay's node."""
    d = lab.disks[0]
    lab.vm.qmp.call("block-commit", job_id=job, device=d.node,
                    auto_dismiss=False)
    finish(lab, job, pivot=True)
    d.path, d.format, d.node = lab.below


def new_target(lab, name="mt", fmt="qcow2"):
    path = "%s/%s.%s" % (lab.dir, name, fmt)
    images.make(path, fmt, "16M")
    lab.vm.qmp.call("blockdev-add", driver=fmt, node_name=name,
                    discard="unmap",
                    file={"driver": "file", "filename": path})
    return path


def based_disk():
    """A machine whose image has a backing file, and one point."""
    at = tap.tempdir("based")
    base = images.make(at + "/base.qcow2", "qcow2", "16M")
    images.sh("qemu-io", "-f", "qcow2", "-c", "write -P 0x51 4M 4M", base)
    images.sh("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F",
              "qcow2", at + "/vda.qcow2", "16M")
    lab = Lab([Disk("vda", at + "/vda.qcow2", "qcow2")])
    lab.base = base
    lab.vm.io("vda", "write -P 0x11 0 1M")
    lab.backup()
    return lab


# -- between points -----------------------------------------------------------


@test("an overlay on top knows nothing of what was tracked below")
def snapshot():
    lab = one_disk()
    write(lab)
    overlay(lab)
    write(lab, 0x31)
    backup(lab, FULL, "backing chain changed")
    goes_on(lab)


@test("an overlay committed back between two points leaves tracking right")
def snapshot_and_commit():
    for fmt in ("qcow2", "raw"):
        lab = one_disk(fmt)
        write(lab)
        overlay(lab)
        write(lab, 0x31)
        lab.vm.io("vda", "write -z 12M 512k", "discard 0 256k")
        commit_back(lab)
        write(lab, 0x41)
        backup(lab, INCREMENTAL, base=lab.order[0])
        goes_on(lab)
        lab.vm.kill()


@test("a point on the overlay, then committed back: the older bitmap is right")
def commit_after_a_point():
    lab = one_disk()
    overlay(lab)
    write(lab, 0x31)
    backup(lab, FULL, "backing chain changed")
    write(lab, 0x41)
    backup(lab, INCREMENTAL)
    lab.vm.io("vda", "write -z 12M 512k")
    commit_back(lab)
    write(lab, 0x51)
    backup(lab, INCREMENTAL, note="image of an earlier point",
           base=lab.order[0])
    goes_on(lab)


@test("an overlay thrown away: back to the image of an earlier point")
def overlay_discarded():
    lab = one_disk()
    write(lab)
    overlay(lab)
    lab.vm.io("vda", "write -P 0x31 4M 4M")
    backup(lab, FULL, "backing chain changed")
    lab.vm.quit()
    d = lab.disks[0]
    d.path, d.format, d.node = lab.below
    lab.vm.start()
    backup(lab, INCREMENTAL, note="image of an earlier point",
           base=lab.order[0])
    goes_on(lab)


@test("committed down while the machine was off")
def offline_commit():
    lab = one_disk()
    overlay(lab)
    write(lab, 0x31)
    backup(lab, FULL, "backing chain changed")
    write(lab, 0x41)
    lab.vm.quit()
    d = lab.disks[0]
    images.sh("qemu-img", "commit", "-q", "-f", "qcow2", d.path)
    d.path, d.format, d.node = lab.below
    lab.vm.start()
    backup(lab, INCREMENTAL, note="image of an earlier point",
           base=lab.order[0])
    goes_on(lab)


@test("streamed: the image holds all that was below")
def stream():
    lab = based_disk()
    write(lab)
    backup(lab, INCREMENTAL)
    lab.vm.qmp.call("block-stream", job_id="st", device="vda-node",
                    auto_dismiss=False)
    finish(lab, "st")
    write(lab, 0x31)
    backup(lab, FULL, "backing chain changed")
    goes_on(lab)


@test("mirrored to another image and switched over")
def pivot():
    lab = one_disk()
    path = new_target(lab)
    lab.vm.qmp.call("blockdev-mirror", job_id="mi", device="vda-node",
                    target="mt", sync="full", auto_dismiss=False)
    write(lab)
    finish(lab, "mi", pivot=True)
    lab.disks[0].path = path
    write(lab, 0x31)
    backup(lab, FULL, "moved to another image")
    goes_on(lab)


@test("a bitmap that somebody carried to the new image is not believed")
def pivot_with_bitmap():
    lab = one_disk()
    call = lab.vm.qmp.call
    name = [b["name"] for b in lab.vm.bitmaps()["vda-node"]][0]
    path = new_target(lab)
    call("blockdev-mirror", job_id="mi", device="vda-node", target="mt",
         sync="full", auto_dismiss=False)
    tap.wait_for("ready", lambda: any(j["status"] == "ready"
                                      for j in call("query-jobs")))
    call("block-dirty-bitmap-add", node="mt", name=name, granularity=65536,
         persistent=True)
    call("block-dirty-bitmap-merge", node="mt", target=name,
         bitmaps=[{"node": "vda-node", "name": name}])
    # what is written after the merge is in the old bitmap only
    call("block-dirty-bitmap-disable", node="mt", name=name)
    write(lab)
    finish(lab, "mi", pivot=True)
    call("block-dirty-bitmap-enable", node="mt", name=name)
    lab.disks[0].path = path
    backup(lab, FULL, "moved to another image")
    goes_on(lab)


@test("another file put under a running disk")
def reopened():
    lab = one_disk("raw")
    call = lab.vm.qmp.call
    path = images.make(lab.dir + "/other.raw", "raw", "16M")
    images.sh("qemu-io", "-f", "raw", "-c", "write -P 0x66 5M 2M", path)
    call("blockdev-add", driver="file", node_name="other", filename=path,
         discard="unmap")
    call("blockdev-reopen", options=[{
        "driver": "raw", "node-name": "vda-node", "discard": "unmap",
        "file": "other"}])
    lab.disks[0].path = path
    backup(lab, FULL, "moved to another image")
    goes_on(lab)


@test("a backing file that was written while the machine was off")
def backing_written():
    lab = based_disk()
    lab.vm.quit()
    images.sh("qemu-io", "-f", "qcow2", "-c", "write -P 0x52 6M 64k", lab.base)
    lab.vm.start()
    backup(lab, FULL, "backing chain changed")
    goes_on(lab)


@test("a backing file that was exchanged for another")
def backing_exchanged():
    lab = based_disk()
    lab.vm.quit()
    other = os.path.dirname(lab.base) + "/other.qcow2"
    images.make(other, "qcow2", "16M")
    images.sh("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b",
              other, lab.disks[0].path)
    lab.vm.start()
    backup(lab, FULL, "backing chain changed")
    goes_on(lab)


@test("a chain that is as it was stays incremental over a restart")
def chain_kept():
    lab = based_disk()
    write(lab)
    lab.vm.quit()
    lab.vm.start()
    write(lab, 0x31)
    backup(lab, INCREMENTAL, base=lab.order[0])
    goes_on(lab)


# -- during a backup ----------------------------------------------------------


def slow_lab():
    path = images.make(tap.tempdir("slow") + "/vda.qcow2", "qcow2", "16M")
    disk, args = slow_disk("vda", path, "qcow2", 4 * M)
    lab = Lab([disk], args)
    lab.vm.io("vda", "write -P 0x11 0 6M")
    return lab


def tries(lab):
    """What another program may try while a backup holds its instant; each is
    refused by QEMU or harmless."""
    call = lab.vm.qmp.call
    new_target(lab)
    images.sh("qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b",
              lab.disks[0].path, "-F", "qcow2", lab.dir + "/ov.qcow2", "16M")
    call("blockdev-add", driver="qcow2", node_name="ov", backing=None,
         file={"driver": "file", "filename": lab.dir + "/ov.qcow2"})
    node = lab.disks[0].node
    return [("blockdev-snapshot", dict(node=node, overlay="ov")),
            ("blockdev-snapshot", dict(node=lab.vm.filters()[0],
                                       overlay="ov")),
            ("block-stream", dict(job_id="st", device=node,
                                  auto_dismiss=False)),
            ("block-commit", dict(job_id="cm", device=node,
                                  auto_dismiss=False)),
            ("blockdev-mirror", dict(job_id="mi", device=node, target="mt",
                                     sync="full", auto_dismiss=False))]


def settle(lab):
    """End the jobs that the test could start."""
    call = lab.vm.qmp.call
    for name in ("st", "cm", "mi"):
        if any(j["id"] == name for j in call("query-jobs")):
            try:
                call("job-cancel", id=name)
            except QmpError:
                pass
            tap.wait_for("the end of " + name, lambda: any(
                j["id"] == name and j["status"] == "concluded"
                for j in call("query-jobs")))
            call("job-dismiss", id=name)


def attempt(lab, i):
    """The i-th of them; true when QEMU did it."""
    command, args = tries(lab)[i]
    try:
        lab.vm.qmp.call(command, **args)
    except QmpError as e:
        tap.diag("%s is refused: %s" % (command, e.desc))
        return False
    if command == "blockdev-snapshot":
        d = lab.disks[0]
        d.path, d.node = lab.dir + "/ov.qcow2", "ov"
    return True


def survives(lab, action):
    """QEMU 7.2 does not survive every job of another program below a backup's
    filter, and ends at once or a little later.  The next point is right all
    the same."""
    try:
        action()
    except (EOFError, OSError):
        tap.diag("QEMU ended by itself")
        lab.vm.kill()
        lab.vm.start()


def interfere(i):
    lab = slow_lab()
    refs = lab.reference()
    run = lab.tm.start("backup", lab.vm.address, "--json")
    tap.wait_for("the instant", lab.vm.filters)
    done = attempt(lab, i)
    survives(lab, lambda: lab.vm.io("vda", "write -P 0x31 1M 192k",
                                    "write -P 0x32 9M 64k"))
    r = run.wait()
    if r.committed:
        lab.order.append(r.committed["point"])
        lab.refs[lab.order[-1]] = refs
        lab.restores()
    else:
        check(done, "a refused command breaks no backup", r)
    survives(lab, lambda: settle(lab))
    survives(lab, lab.vm.flush)
    lab.backup()
    lab.all_restore()
    goes_on(lab)


@test("a snapshot of the disk while a backup runs")
def snapshot_during():
    interfere(0)


@test("a snapshot of our filter while a backup runs")
def filter_snapshot_during():
    interfere(1)


@test("a stream while a backup runs")
def stream_during():
    interfere(2)


@test("a commit while a backup runs")
def commit_during():
    interfere(3)


@test("a mirror while a backup runs")
def mirror_during():
    interfere(4)


@test("a backup while another program's mirror runs")
def during_a_mirror():
    lab = one_disk()
    call = lab.vm.qmp.call
    path = new_target(lab)
    call("blockdev-mirror", job_id="mi", device="vda-node", target="mt",
         sync="full", auto_dismiss=False)
    tap.wait_for("ready", lambda: any(j["status"] == "ready"
                                      for j in call("query-jobs")))
    write(lab)
    refs = lab.reference()
    r = lab.tm.run("backup", lab.vm.address, "--json")
    if r.committed:
        lab.order.append(r.committed["point"])
        lab.refs[lab.order[-1]] = refs
        lab.restores()
    else:
        check("vda" in r.err + r.out, "a clear refusal", r)
        equal(lab.vm.filters(), [], "nothing is left")
    write(lab, 0x31)
    finish(lab, "mi", pivot=True)
    lab.disks[0].path = path
    write(lab, 0x41)
    backup(lab, FULL, "moved to another image")
    goes_on(lab)


tap.main()
