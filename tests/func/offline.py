#!/usr/bin/env python3
"""Machines that are shut off: their images, their bitmaps, and never a guess.

A machine goes on and off; every point is compared with what qemu-img reads from
the images at that moment."""

import os
import socket
import stat
import struct
import subprocess

import images
import tap
from offlab import NAMES, Off, daemons, fill, ours, slow_lab, start_slow
from offlab import wait_event
from tap import check, cleanup, equal, need, skip, test
from tidemark import BUSY, FAILED, OK, Tidemark, UNREACHABLE, USAGE, WARNING
from vm import Disk, slow_disk

SURE = (OK, WARNING)


# -- on and off ---------------------------------------------------------------

@test("on, off, on and off again stays incremental, with the same names")
def on_and_off():
    lab = Off([("vda", "qcow2", "64M"), ("vdb", "qcow2", "16M")], start=True)
    lab.vm.io("vda", "write -P 0x11 0 8M")
    lab.vm.io("vdb", "write -P 0x12 1M 1M")
    lab.tracking(lab.backup(), vda="full", vdb="full")
    for i in range(3):
        lab.vm.io("vda", "write -P 0x%x %dM 200k" % (0x20 + i, 9 + i))
        lab.vm.quit()
        r = lab.off()
        equal(r.committed["machine"], "web1", "the machine")
        lab.tracking(r, vda="incremental", vdb="incremental")
        check(r.disk("vda")["read_bytes"] < 2 << 20, "only what changed", r)
        lab.write("vda", "write -P 0x%x %dM 300k" % (0x30 + i, 20 + i),
                  "discard 0 64k")
        lab.write("vdb", "write -z %dM 128k" % i)
        r = lab.off()
        lab.tracking(r, vda="incremental", vdb="incremental")
        check(0 < r.disk("vda")["dirty_bytes"] < 2 << 20, "what changed", r)
        lab.vm.start()
        lab.vm.io("vdb", "write -P 0x%x %dk 64k" % (0x40 + i, 128 * i))
        r = lab.backup()
        lab.tracking(r, vda="incremental", vdb="incremental")
        check(r.disk("vda")["read_bytes"] < 2 << 20, "only what changed", r)
    lab.all_restore()
    lab.restores(formats=("qcow2",))
    lab.verifies()
    show = lab.tm.ok("show", "web1@%s" % lab.order[1], "--json").json()
    equal(show["capture"], "offline", "capture")
    check("query-block" in show["config"]["qemu"] and
          "command-line" in show["config"], "the configuration is carried on")
    equal(lab.tm.ok("show", "web1@latest", "--json").json()["capture"],
          "pull", "capture of a machine that runs")


@test("--offline: the socket when somebody listens there, else the images")
def fallback():
    lab = Off([("vda", "qcow2", "16M")], start=True)
    lab.vm.io("vda", "write -P 0x11 0 1M")
    lab.backup("--offline", lab.address)
    lab.vm.quit()
    lab.write("vda", "write -P 0x12 1M 64k")
    r = lab.off("--offline", lab.address, address=lab.vm.address)
    lab.tracking(r, vda="incremental")
    check(not os.path.exists(lab.vm.qmp_path), "there was no socket")
    s = socket.socket(socket.AF_UNIX)
    s.bind(lab.vm.qmp_path)
    s.close()
    lab.tracking(lab.off("--offline", lab.address, address=lab.vm.address),
                 vda="incremental")
    lab.vm.start()
    r = lab.backup("--offline", lab.address)
    lab.tracking(r, vda="incremental")
    equal(r.committed["consistency"], "crash", "consistency")
    # a second machine on the image has no socket that anybody listens on
    r = lab.tm.run("backup", "qmp:/nowhere/at.all", "--offline", lab.address)
    equal(r.code, BUSY, "in use", r)
    check("/nowhere/at.all" in r.err and lab.vm.qmp_path in r.err,
          "both are said", r)
    for args in ((lab.vm.address, "--offline", "qmp:/x"),
                 (lab.vm.address, "--offline", "file:relative.raw"),
                 (lab.address, "--offline", lab.address)):
        equal(lab.tm.run("backup", *args).code, USAGE, str(args))
    lab.all_restore()


@test("two repositories and one machine that is off: each tracks for itself")
def two_repositories():
    lab = Off([("vda", "qcow2", "16M")])
    other = Tidemark()
    other.init()
    lab.write("vda", "write -P 0x11 0 1M")
    for i in range(3):
        r = lab.off("--name", "web1", names=NAMES)
        lab.tracking(r, disk0="full" if i == 0 else "incremental")
        lab.write("vda", "write -P 0x%x %dM 64k" % (0x20 + i, 2 + i))
        r = other.ok("backup", lab.address, "--json", "--name", "web1")
        equal(r.disk("disk0")["tracking"],
              "full" if i == 0 else "incremental", "the other", r)
        equal(len(ours(lab.disk("vda").path)), 2, "bitmaps")
    lab.all_restore()


# -- names --------------------------------------------------------------------

@test("the machine's name: asked for when no point tells it")
def machine_name():
    lab = Off([("vda", "qcow2", "16M"), ("vdb", "qcow2", "16M")])
    r = lab.tm.run("backup", lab.address)
    equal(r.code, USAGE, "no name", r)
    check("--name" in r.err, "and how to give it", r)
    lab.off("--name", "a", names=NAMES)
    equal(lab.off(names=NAMES).committed["machine"], "a", "known now")
    lab.off("--name", "b", names=NAMES)
    r = lab.tm.run("backup", lab.address)
    equal(r.code, USAGE, "two machines", r)
    # one image with the name is enough, and the disk keeps its own
    r = lab.tm.ok("backup", "file:" + lab.disk("vdb").path, "--name", "a",
                  "--json", codes=SURE)
    equal([d["disk"] for d in r.committed["disks"]], ["disk1"], "its name", r)


@test("an image that is not named any more is a warning, one that is excluded not")
def image_forgotten():
    lab = Off([("vda", "qcow2", "16M"), ("vdb", "raw", 8 << 20)])
    r = lab.off("--name", "web1")
    config = lab.tm.ok("show", "web1@latest", "--json").json()["config"]
    equal(list(config["qemu"]), ["query-named-block-nodes"],
          "nothing but its images is described: the rest is the daemon's")
    # the raw disk's bitmap went with the storage daemon
    disks = lab.tm.run("status", "--json").json()["machines"][0]["disks"]
    equal([d["tracked"] for d in disks], [True, False], "tracked", disks)
    lab.off("--exclude", "disk1")
    lab.off("--name", "web1")
    first = "file:" + lab.disk("vda").path
    r = lab.tm.ok("backup", first, codes=(WARNING,))
    check("disk 'disk1' of the previous point is not in this one" in r.err,
          "it says which", r)
    lab.tm.ok("backup", first)


@test("disks that QEMU describes at length keep their names, too")
def described():
    dir = tap.tempdir("described")
    path = images.make(dir + "/vda.qcow2", "qcow2", "8M")
    disk, args = slow_disk("vda", path, "qcow2", 1 << 30)
    lab = Off([disk], args=args, start=True)
    lab.vm.io("vda", "write -P 0x11 0 1M")
    lab.backup()
    lab.vm.quit()
    lab.write("vda", "write -P 0x12 1M 64k")
    r = lab.off()
    equal(r.committed["machine"], "web1", "the machine")
    lab.tracking(r, vda="incremental")
    lab.all_restore()


@test("disk=NAME, format= and commas in an address")
def stated():
    lab = Off([])
    path = images.make(lab.dir + "/a,b.img", "qcow2", "8M")
    more = images.make(lab.dir + "/disk1", "raw", 4 << 20)
    address = "file:%s,format=qcow2,disk=root,%s,format=raw" % (
        path.replace(",", ",,"), more)
    r = lab.tm.ok("backup", address, "--name", "x", "--json")
    equal([(d["disk"], d["format"]) for d in r.committed["disks"]],
          [("root", "qcow2"), ("disk1", "raw")], "disks", r)
    for bad in ("file:" + more, "file:%s,format=vmdk" % more,
                "file:%s,format=raw,disk=" % more, "file:relative.raw",
                "file:%s,format=raw,%s,format=raw" % (more, more),
                "file:", "file:,"):
        r = lab.tm.run("backup", bad, "--name", "x")
        equal(r.code, USAGE, bad, r)
    link = lab.dir + "/link.raw"
    os.symlink(more, link)
    r = lab.tm.run("backup", "file:%s,%s,format=raw" % (link, more),
                   "--name", "x")
    equal(r.code, USAGE, "one image under two names", r)


# -- formats ------------------------------------------------------------------

@test("a raw disk in which a guest wrote a qcow2 header is stored as raw bytes")
def guest_header():
    lab = Off([("vda", "raw", 8 << 20)])
    for backing in ("/etc/passwd", "json:{\"driver\":\"file\",\"filename\":"
                    "\"/etc/passwd\"}"):
        fake = lab.dir + "/fake.qcow2"
        images.sh("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b",
                  backing, "-F", "raw", fake, "1M")
        with open(fake, "rb") as f:
            header = f.read()
        with open(lab.disk("vda").path, "r+b") as f:
            f.write(header)
            f.seek(3 << 20)
            f.write(images.noise("guest", 5000))
        r = lab.off("--name", "web1", names=NAMES)
        equal(r.disk("disk0")["size"], 8 << 20, "size", r)
        equal(r.committed["warnings"], [], "warnings", r)
        lab.restores()
        out = lab.dir + "/out-header"
        lab.tm.ok("restore", "web1@latest", "--to", out, "--format", "raw",
                  "--overwrite")
        with open(out + "/disk0.raw", "rb") as f:
            equal(f.read(len(header)), header, "the header, byte for byte")


@test("a raw disk that is off is read in full each time, with its reason")
def raw():
    lab = Off([("vda", "raw", 8 << 20)])
    lab.write("vda", "write -P 0x11 0 1M")
    lab.off("--name", "web1", names=NAMES)
    lab.write("vda", "write -P 0x12 4M 64k")
    r = lab.off(names=NAMES)
    equal(r.disk("disk0")["reason"], "raw disk of a machine that is off",
          "reason", r)
    equal(r.committed["warnings"], [], "nothing to be alarmed of", r)
    equal(r.disk("disk0")["new_bytes"], 64 << 10, "what is new")
    lab.all_restore()


@test("qcow2 version 2 keeps no bitmap: full each time, with its reason")
def version_2():
    lab = Off([])
    path = images.make(lab.dir + "/vda.qcow2", "qcow2", "8M", "compat=0.10")
    lab.disks.append(Disk("vda", path, "qcow2"))
    lab.write("vda", "write -P 0x11 0 1M")
    lab.off("--name", "web1", names=NAMES)
    r = lab.off(names=NAMES)
    equal(r.disk("disk0")["reason"],
          "image of a machine that is off cannot keep a bitmap", "reason", r)
    images.sh("qemu-img", "amend", "-f", "qcow2", "-o", "compat=1.1", path)
    lab.off(codes=SURE, names=NAMES)
    lab.tracking(lab.off(names=NAMES), disk0="incremental")
    lab.all_restore()


@test("sizes that are no multiple of anything")
def odd_sizes():
    lab = Off([("vda", "raw", (1 << 20) + 1), ("vdb", "raw", 511),
               ("vdc", "raw", (3 << 16) + 512), ("vdd", "qcow2", 1049088),
               ("vde", "qcow2", 512)])
    names = {"vd" + c: "disk%d" % i for i, c in enumerate("abcde")}
    for d in lab.disks:
        if d.format == "raw":
            with open(d.path, "r+b") as f:
                f.write(images.noise(d.name, os.path.getsize(d.path)))
    fill(lab, "vdd", 1 << 20, 512, "tail")
    lab.off("--name", "web1", names=names)
    fill(lab, "vdd", 512, 512, "more")
    r = lab.off(names=names)
    lab.tracking(r, disk3="incremental", disk4="incremental")
    lab.all_restore(formats=("raw", "qcow2"))


@test("a backing file is opened as the header says, never as it looks")
def backing():
    lab = Off([])
    base = lab.dir + "/base.img"
    # a raw base whose first bytes are those of a qcow2 image
    images.make(base, "qcow2", "1M")
    with open(base, "r+b") as f:
        f.truncate(8 << 20)
    top = lab.dir + "/vda.qcow2"
    images.sh("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F",
              "raw", top, "8M")
    lab.disks.append(Disk("vda", top, "qcow2"))
    lab.write("vda", "write -P 0x11 4M 64k")
    lab.off("--name", "web1", names=NAMES)
    lab.write("vda", "write -P 0x12 5M 64k")
    lab.tracking(lab.off(names=NAMES), disk0="incremental")
    # two deep, the lower one relative to its overlay
    low = images.make(lab.dir + "/low.qcow2", "qcow2", "8M")
    images.sh("qemu-io", "-f", "qcow2", "-c", "write -P 0x21 0 1M", low)
    mid = lab.dir + "/mid.qcow2"
    images.sh("qemu-img", "create", "-q", "-f", "qcow2", "-b", "low.qcow2",
              "-F", "qcow2", mid)
    deep = lab.dir + "/deep.qcow2"
    images.sh("qemu-img", "create", "-q", "-f", "qcow2", "-b", "mid.qcow2",
              "-F", "qcow2", deep)
    lab.disks[0] = Disk("vda", deep, "qcow2")
    lab.off("--name", "deep", names=NAMES)
    point = lab.order.pop()
    out = lab.dir + "/deep-out"
    lab.tm.ok("restore", "deep@latest", "--to", out, "--format", "raw")
    equal(images.same(out + "/disk0.raw", lab.refs[point]["disk0"]), "",
          "two deep")
    lab.all_restore()


@test("disks that share a backing file; an image and its own backing file")
def shared_backing():
    lab = Off([])
    base = images.make(lab.dir + "/base.qcow2", "qcow2", "8M")
    images.sh("qemu-io", "-f", "qcow2", "-c", "write -P 0x21 0 1M", base)
    for name in ("vda", "vdb"):
        top = "%s/%s.qcow2" % (lab.dir, name)
        images.sh("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F",
                  "qcow2", top)
        lab.disks.append(Disk(name, top, "qcow2"))
    lab.write("vdb", "write -P 0x22 64k 64k")
    lab.off("--name", "web1", names=NAMES)
    lab.write("vda", "write -P 0x23 128k 64k")
    lab.tracking(lab.off(names=NAMES), disk0="incremental",
                 disk1="incremental")
    lab.all_restore()
    refused(lab, base, USAGE, "another disk",
            address="file:%s,%s" % (base, lab.disk("vda").path))


def refused(lab, path, code, *words, address=None):
    r = lab.tm.run("backup", address or "file:" + path, "--name", "web1")
    equal(r.code, code, path, r)
    for w in words:
        check(w in r.err, "'%s' is said" % w, r)
    equal(daemons(lab.tm), [], "storage daemons left")


@test("a backing file whose format nobody states is refused, with the fix")
def no_format():
    lab = Off([])
    base = images.make(lab.dir + "/base.raw", "raw", 4 << 20)
    top = lab.dir + "/vda.qcow2"
    # qemu-img 6.1 and later do not write such a header any more: take the
    # backing format's extension out
    images.sh("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F",
              "raw", top, "4M")
    with open(top, "r+b") as f:
        data = f.read(65536)
        at = data.index(struct.pack(">I", 0xE2792ACA))
        f.seek(at)
        f.write(struct.pack(">I", 0x12345678))
    refused(lab, top, FAILED, base, "rebase -u")
    images.sh("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b",
              base, top)
    lab.tm.ok("backup", "file:" + top, "--name", "web1")
    loop = lab.dir + "/loop.qcow2"
    images.make(loop, "qcow2", "4M")
    images.sh("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b",
              loop, loop)
    refused(lab, loop, USAGE, "backing file")
    mid = lab.dir + "/mid.qcow2"
    images.make(mid, "qcow2", "4M")
    for image in (loop, mid):
        images.sh("qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "qcow2",
                  "-b", mid, image)
    refused(lab, loop, FAILED, "more than")
    remote = lab.dir + "/remote.qcow2"
    images.sh("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b",
              "nbd://127.0.0.1:1/x", "-F", "raw", remote, "4M")
    refused(lab, remote, FAILED, "no local file")


@test("images that cannot be opened: words that name them")
def broken_images():
    lab = Off([])
    refused(lab, lab.dir + "/none.qcow2", UNREACHABLE, "No such file")
    refused(lab, lab.dir, UNREACHABLE, address="file:%s/x.raw" % lab.dir)
    path = images.make(lab.dir + "/zero.qcow2", "raw", 1 << 20)
    refused(lab, path, FAILED, path)
    os.mkfifo(lab.dir + "/fifo.raw")
    refused(lab, lab.dir + "/fifo.raw", USAGE, "neither")


@test("read-only images: raw ones are read, qcow2 ones refused with the reason")
def read_only():
    if os.geteuid() != 0:
        skip("a read-only mount needs root")
    lab = Off([("vda", "qcow2", "8M"), ("vdb", "raw", 1 << 20)])
    lab.off("--name", "web1", names=NAMES)
    images.sh("mount", "--bind", lab.dir, lab.dir)
    cleanup(lambda: images.sh("umount", lab.dir))
    images.sh("mount", "-o", "remount,ro,bind", lab.dir)
    refused(lab, lab.disk("vda").path, UNREACHABLE, "writable")
    r = lab.tm.ok("backup", "file:" + lab.disk("vdb").path, "--name", "web1",
                  "--json", codes=(WARNING,))
    equal(r.disk("disk1")["reason"], "raw disk of a machine that is off",
          "reason", r)


# -- in use -------------------------------------------------------------------

@test("an image in use by a running QEMU is refused with the way to do it right")
def in_use():
    lab = Off([("vda", "qcow2", "16M"), ("vdb", "raw", 8 << 20)], start=True)
    lab.backup()
    for d in lab.disks:
        before = lab.vm.bitmaps()
        for command in ("backup", "doctor"):
            args = ("--name", "web1") if command == "backup" else ()
            r = lab.tm.run(command, "file:" + d.path, *args)
            equal(r.code, BUSY, "%s of %s" % (command, d.name), r)
            for w in ("pid %d" % lab.vm.proc.pid, "qmp:" + lab.vm.qmp_path,
                      d.path):
                check(w in r.err, "'%s' is said" % w, r)
        equal(lab.vm.bitmaps(), before, "bitmaps of the machine")
    lab.tracking(lab.backup(), vda="incremental", vdb="incremental")
    lab.vm.quit()
    lab.disks[1] = Disk("vdb", lab.disks[1].path, "raw")
    lab.vm.disks = lab.disks
    lab.tracking(lab.off(), vda="incremental", vdb="full")


@test("a machine that is started while its images are read does not start")
def started_meanwhile():
    lab = slow_lab()
    run = start_slow(lab)
    wait_event(run, "instant")
    for d in lab.disks:
        r = subprocess.run(["qemu-io", "-f", d.format, "-c", "write 0 512",
                            d.path], capture_output=True, text=True)
        check("lock" in r.stderr + r.stdout, "%s is locked" % d.name,
              r.stdout, r.stderr)
    equal(run.wait().code, OK, "and the backup commits")
    lab.write("vda", "write -P 1 0 512")
    lab.write("vdb", "write -P 1 0 512")


@test("two runs at once: one works, the other says so")
def two_runs():
    lab = slow_lab()
    run = start_slow(lab)
    wait_event(run, "instant")
    for path in (lab.address, "file:" + lab.disk("vdb").path,
                 "file:" + ",".join(d.path for d in reversed(lab.disks))):
        r = lab.tm.run("backup", path, "--name", "other")
        equal(r.code, BUSY, path, r)
        check("another run" in r.err, "by whom", r)
    other = Tidemark()  # of another run directory: the image lock itself
    other.init()
    r = other.run("backup", lab.address, "--name", "web1")
    equal(r.code, BUSY, "another host's run, as it were", r)
    equal(run.wait().code, OK, "the first one")
    lab.tracking(lab.off(names=NAMES), disk0="incremental")
    lab.all_restore()


@test("doctor looks at images and changes nothing")
def doctor():
    lab = Off([("vda", "qcow2", "16M"), ("vdb", "raw", 1 << 20)])
    lab.off("--name", "web1", names=NAMES)
    before = []
    for d in lab.disks:
        with open(d.path, "rb") as f:
            before.append(f.read())
    r = lab.tm.ok("doctor", lab.address, "--json", codes=SURE).json()
    equal(r["capture"], "offline", "capture", r)
    equal([d["persistent"] for d in r["disks"]], [True, False], "persistent")
    equal(len(r["disks"][0]["bitmaps"]), 1, "bitmaps", r)
    for d, data in zip(lab.disks, before):
        with open(d.path, "rb") as f:
            check(f.read() == data, "%s is as before" % d.name)


@test("a running QEMU without image locks is seen all the same")
def without_locks():
    if os.geteuid() != 0:
        skip("needs to see other processes' files")
    lab = Off([])
    path = images.make(lab.dir + "/vda.qcow2", "qcow2", "8M")
    lab.disks.append(Disk("vda", path, "qcow2", file="driver=file,filename=%s,"
                          "locking=off" % path))
    lab.vm.start()
    r = lab.tm.run("backup", lab.address, "--name", "web1")
    equal(r.code, BUSY, "in use", r)
    check("qmp:" + lab.vm.qmp_path in r.err, "the way to do it right", r)


@test("QEMU crashed, the machine is off: full with that reason, then tracked")
def crashed():
    lab = Off([("vda", "qcow2", "16M")], start=True)
    lab.vm.io("vda", "write -P 0x11 0 1M")
    lab.backup()
    lab.vm.quit()
    lab.vm.start()
    lab.vm.io("vda", "write -P 0x12 2M 64k", "flush")
    lab.vm.kill()
    r = lab.off(codes=SURE)
    check("inconsistent" in r.disk("vda")["reason"], "the reason", r)
    lab.write("vda", "write -P 0x13 3M 64k")
    lab.tracking(lab.off(), vda="incremental")
    lab.vm.start()
    lab.vm.io("vda", "write -P 0x14 4M 64k")
    lab.tracking(lab.backup(), vda="incremental")
    lab.all_restore()


@test("resized while it is off: full with that reason, then tracked")
def resized():
    lab = Off([("vda", "qcow2", "16M")])
    lab.off("--name", "web1", names=NAMES)
    images.sh("qemu-img", "resize", "-q", "-f", "qcow2",
              lab.disk("vda").path, "24M")
    lab.write("vda", "write -P 0x13 20M 64k")
    r = lab.off(codes=SURE, names=NAMES)
    equal(r.disk("disk0")["reason"], "resized", "the reason", r)
    images.sh("qemu-img", "resize", "-q", "--shrink", "-f", "qcow2",
              lab.disk("vda").path, "8M")
    images.sh("qemu-img", "resize", "-q", "-f", "qcow2",
              lab.disk("vda").path, "24M")
    r = lab.off(codes=SURE, names=NAMES)
    lab.tracking(r, disk0="full")
    check("cut by a resize" in r.disk("disk0")["reason"], "the reason", r)
    lab.tracking(lab.off(names=NAMES), disk0="incremental")
    lab.all_restore()


# -- a full file system -------------------------------------------------------

@test("a full file system loses the bitmap, and that is said")
def full():
    if os.geteuid() != 0:
        skip("mounting a tmpfs needs root")
    lab = Off([])
    small = tap.tempdir("small")
    images.sh("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small)
    cleanup(lambda: images.sh("umount", small))
    path = images.make(small + "/vda.qcow2", "qcow2", "64M")
    lab.disks.append(Disk("vda", path, "qcow2"))
    lab.write("vda", "write -P 0x11 0 2M")
    with open(small + "/fill", "wb", buffering=0) as f:
        try:
            while True:
                f.write(b"x" * 4096)
        except OSError:
            pass
    r = lab.tm.ok("backup", lab.address, "--name", "web1", "--json",
                  codes=(WARNING,))
    check(any("could not be stored" in w for w in r.committed["warnings"]),
          "the warning", r)
    os.unlink(small + "/fill")
    r = lab.off(codes=SURE, names=NAMES)
    lab.tracking(r, disk0="full")
    check(r.disk("disk0")["reason"], "a reason", r)
    lab.tracking(lab.off(names=NAMES), disk0="incremental")
    lab.all_restore()


# -- block devices ------------------------------------------------------------

@test("a block device as a raw disk")
def block_device():
    if os.geteuid() != 0:
        skip("a loop device needs root")
    lab = Off([("vda", "raw", 8 << 20)])
    lab.write("vda", "write -P 0x11 1M 1M")
    r = subprocess.run(["losetup", "--find", "--show", lab.disk("vda").path],
                       capture_output=True, text=True)
    if r.returncode != 0:
        skip("no loop device here: " + r.stderr.strip())
    dev = r.stdout.strip()
    cleanup(lambda: images.sh("losetup", "--detach", dev))
    need(stat.S_ISBLK(os.stat(dev).st_mode), "a block device")
    lab.off("--name", "web1", address="file:%s,format=raw" % dev, names=NAMES)
    lab.all_restore()


tap.main()
