#!/usr/bin/env python3
"""A full backup and incrementals of three disks; each point restores right."""

import os
import shutil

import images
import tap
from lab import Lab
from tap import check, equal, test
from tidemark import FAILED, OK, USAGE


def churn(lab, round):
    """What a guest may do between two backups."""
    vm = lab.vm
    at = round * 3
    vm.io("vda", "write -P 0x%x %dM 300k" % (0x10 + round, at),
          "write -P 0x55 %dk 4k" % (20000 + 100 * round))
    # written again with what it held: dirty, but nothing new
    vm.io("vda", "write -P 0x11 1M 256k")
    # zeroes over data, in three ways
    vm.io("vda", "write -z %dM 128k" % (at + 1), "discard 0 64k",
          "write -P 0 %dk 64k" % (640 * round))
    vm.io("vdb", "write -P 0x%x 63M 1M" % (0x20 + round),
          "write -P 0x%x 1000k 1k" % (0x30 + round))
    vm.io("vdc", "write -P 0x%x %dM 1000k" % (0x40 + round, at),
          "discard %dM 512k" % (at - 3))


def first(lab):
    lab.vm.io("vda", "write -P 0x11 0 4M", "write -P 0x12 32M 1M")
    lab.vm.io("vdb", "write -P 0x21 0 1M")
    lab.vm.io("vdc", "write -P 0x31 5M 2M", "write -P 0x32 40M 100k")


def three_disks():
    return Lab([("vda", "qcow2"), ("vdb", "qcow2"), ("vdc", "raw")])


@test("each point of a chain restores byte for byte, as raw and as qcow2")
def chain():
    lab = three_disks()
    first(lab)
    r = lab.backup()
    lab.tracking(r, vda="full", vdb="full", vdc="full")
    check(r.disk("vda")["reason"], "a full read has a reason")
    lab.restores(formats=("raw", "qcow2"))
    for i in range(1, 4):
        churn(lab, i)
        r = lab.backup()
        lab.tracking(r, vda="incremental", vdb="incremental",
                     vdc="incremental")
        check(r.disk("vdb")["read_bytes"] < 8 << 20,
              "an incremental reads little of vdb", r)
        lab.restores(formats=("raw", "qcow2"))
    lab.all_restore()
    lab.verifies()
    # and from a machine that is gone
    lab.vm.kill()
    lab.all_restore()
    equal([p["point"] for p in lab.tm.points("web1")], lab.order,
          "points, oldest first")


@test("nothing written: the incremental reads and stores next to nothing")
def idle():
    lab = three_disks()
    first(lab)
    lab.backup()
    r = lab.backup()
    for d in r.committed["disks"]:
        equal(d["new_bytes"], 0, "new bytes of " + d["disk"], r)
        check(d["dirty_bytes"] <= 1 << 20, "dirty bytes of " + d["disk"], r)
    lab.restores()


@test("the same data again is read but not stored")
def same_again():
    lab = three_disks()
    first(lab)
    lab.backup()
    lab.vm.io("vda", "write -P 0x11 0 4M")
    r = lab.backup()
    check(r.disk("vda")["dirty_bytes"] >= 4 << 20, "4 MiB are dirty", r)
    equal(r.disk("vda")["new_bytes"], 0, "new bytes", r)
    lab.restores()


@test("--full reads everything and the next run is incremental")
def full_again():
    lab = three_disks()
    first(lab)
    lab.backup()
    churn(lab, 1)
    r = lab.backup("--full")
    lab.tracking(r, vda="full", vdc="full")
    churn(lab, 2)
    lab.tracking(lab.backup(), vda="incremental", vdc="incremental")
    lab.all_restore()


@test("restore refuses to replace files, and replaces them with --overwrite")
def overwrite():
    lab = three_disks()
    first(lab)
    lab.backup()
    churn(lab, 1)
    lab.backup()
    to = lab.dir + "/to"
    old, new = lab.order
    args = ["--to", to, "--format", "qcow2"]
    lab.tm.ok("restore", "web1@" + old, *args)
    before = images.copy_raw(to + "/vda.qcow2", "qcow2", lab.dir + "/before")
    r = lab.tm.run("restore", "web1@" + new, *args)
    check(r.code not in (OK, 1), "refused without --overwrite", r)
    check("overwrite" in r.err + r.out, "the error names the way out", r)
    images.copy_raw(to + "/vda.qcow2", "qcow2", lab.dir + "/after")
    equal(images.same(before, lab.dir + "/after"), "", "untouched")
    lab.tm.ok("restore", "web1@" + new, *args, "--overwrite")
    for name, ref in lab.refs[new].items():
        raw = images.copy_raw("%s/%s.qcow2" % (to, name), "qcow2",
                              lab.dir + "/over")
        equal(images.same(raw, ref), "", name + " after --overwrite")


@test("one disk of a point can be restored alone")
def one_disk():
    lab = three_disks()
    first(lab)
    lab.backup()
    to = lab.dir + "/one"
    lab.tm.ok("restore", "web1@latest", "--to", to, "--format", "raw",
              "--disk", "vdb")
    check("vdb.raw" in os.listdir(to), "vdb is there")
    check("vda.raw" not in os.listdir(to), "vda is not")
    equal(images.same(to + "/vdb.raw", lab.refs[lab.order[0]]["vdb"]), "",
          "vdb")
    r = lab.tm.run("restore", "web1@latest", "--to", to, "--disk", "vdz")
    check(r.code in (USAGE, FAILED), "an unknown disk is refused", r)


@test("--exclude and --disk choose the disks of a point")
def choose():
    lab = three_disks()
    first(lab)
    r = lab.backup("--exclude", "vdb", skip=("vdb",))
    equal([d["disk"] for d in r.committed["disks"]], ["vda", "vdc"], "disks")
    r = lab.backup("--disk", "vda", skip=("vdb", "vdc"))
    equal([d["disk"] for d in r.committed["disks"]], ["vda"], "disks")
    lab.all_restore()
    # a disk that comes back to the machine's points is right again
    churn(lab, 1)
    r = lab.backup()
    equal(len(r.committed["disks"]), 3, "all disks")
    lab.tracking(r, vdb="full")
    lab.restores()


@test("two repositories track the same machine without disturbing each other")
def two_repositories():
    lab = three_disks()
    first(lab)
    lab.backup()
    other = lab.dir + "/other"
    lab.tm.ok("init", other)
    refs = lab.reference()
    r = lab.tm.ok("backup", lab.vm.address, "--repo", other, "--json")
    equal(r.disk("vda")["tracking"], "full", "first into the other one")
    churn(lab, 1)
    # both keep a bitmap: what leftovers() counts is one per repository
    refs = lab.reference()
    r = lab.tm.ok("backup", lab.vm.address, "--json")
    equal(r.disk("vda")["tracking"], "incremental", "first repository")
    r = lab.tm.ok("backup", lab.vm.address, "--repo", other, "--json")
    equal(r.disk("vda")["tracking"], "incremental", "second repository")
    for repo in (lab.tm.repo, other):
        to = lab.dir + "/two"
        shutil.rmtree(to, ignore_errors=True)
        lab.tm.ok("restore", "web1@latest", "--repo", repo, "--to", to,
                  "--format", "raw")
        for name, ref in refs.items():
            equal(images.same("%s/%s.raw" % (to, name), ref), "",
                  "%s from %s" % (name, repo))


@test("the overlay way of taking a point (older QEMU) is as right")
def overlay():
    lab = three_disks()
    lab.tm.env["TIDEMARK_PULL"] = "overlay"
    first(lab)
    lab.backup()
    for i in range(1, 3):
        churn(lab, i)
        lab.tracking(lab.backup(), vda="incremental", vdc="incremental")
    lab.all_restore()


@test("points are found as latest, latest~N and by the start of their id")
def revisions():
    lab = three_disks()
    first(lab)
    lab.backup()
    churn(lab, 1)
    lab.backup()
    old, new = lab.order
    for spec, want in (("latest", new), ("latest~1", old), (old[:12], old)):
        r = lab.tm.ok("show", "web1@" + spec, "--json")
        equal(r.json()["point"], want, "web1@" + spec)
    r = lab.tm.run("show", "web1@latest~7")
    check(r.code not in (OK, 1), "a point that is not there", r)


tap.main()
