#!/usr/bin/env python3
"""Broken surroundings: full file systems, dead sockets, disks with errors."""

import os
import socket
import subprocess
import threading

import images
import tap
from lab import Lab
from tap import check, cleanup, equal, need, skip, test
from tidemark import FAILED, OK, REPOSITORY, Tidemark, UNREACHABLE, USAGE
from tidemark import WARNING
from vm import Disk

SURE = (OK, WARNING)


def tmpfs(size):
    """A small file system of its own, unmounted when the test ends."""
    if os.geteuid() != 0:
        skip("mounting a tmpfs needs root")
    path = tap.tempdir("tmpfs")
    r = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=" + size, "tmpfs",
                        path], capture_output=True, text=True)
    if r.returncode != 0:
        skip("no tmpfs here: " + r.stderr.strip())
    cleanup(lambda: images.sh("umount", path))
    return path


def noise(lab, name, at, length):
    """Write bytes that do not compress."""
    path = "%s/noise-%s-%d" % (lab.dir, name, at)
    with open(path, "wb") as f:
        f.write(images.noise("%s %d %d" % (lab.dir, at, length), length))
    lab.vm.io(name, "write -s %s %d %d" % (path, at, length))


@test("a repository that fills up: nothing committed, nothing left, goes on")
def repository_full():
    lab = Lab([("vda", "qcow2"), ("vdb", "raw")])
    where = tmpfs("12m")
    lab.tm.repo = where + "/repo"
    lab.tm.env["TIDEMARK_REPO"] = lab.tm.repo
    lab.tm.init()
    noise(lab, "vda", 0, 4 << 20)
    lab.backup()
    noise(lab, "vda", 8 << 20, 16 << 20)
    for again in range(2):
        r = lab.tm.run("backup", lab.vm.address, "--json")
        check(r.code in (REPOSITORY, FAILED), "the backup fails", r)
        check("space" in (r.err + r.out).lower(), "and says why", r)
        equal(lab.vm.leftovers(), [], "leftovers")
        equal(os.listdir(lab.tm.scratch), [], "scratch")
    equal([p["point"] for p in lab.tm.points()], lab.order, "points")
    lab.restores()
    images.sh("mount", "-o", "remount,size=100m", where)
    lab.tracking(lab.backup(), vda="incremental", vdb="incremental")
    lab.all_restore()
    lab.verifies()


@test("an unreachable machine: exit 3, at once and after a while")
def unreachable():
    tm = Tidemark()
    tm.init()
    path = tm.dir + "/sock"
    r = tm.run("backup", "qmp:" + path)
    equal(r.code, UNREACHABLE, "no socket", r)
    check(path in r.err, "the error names the socket", r)
    with open(path, "w") as f:
        f.write("no socket\n")
    equal(tm.run("backup", "qmp:" + path).code, UNREACHABLE, "a plain file")
    os.unlink(path)
    s = socket.socket(socket.AF_UNIX)
    s.bind(path)
    s.close()
    equal(tm.run("backup", "qmp:" + path).code, UNREACHABLE, "nobody listens")


def server(path, answer):
    """Accept, send `answer`, and say nothing more."""
    s = socket.socket(socket.AF_UNIX)
    s.bind(path)
    s.listen(4)
    held = []

    def serve():
        while True:
            try:
                conn, _ = s.accept()
                held.append(conn)
                conn.sendall(answer)
            except OSError:
                return
    threading.Thread(target=serve, daemon=True).start()
    cleanup(s.close)


@test("a socket that is no QMP monitor: exit 3 within the deadline")
def wrong_socket():
    tm = Tidemark()
    tm.init()
    for name, answer in (("silent", b""), ("text", b"hello\r\n"),
                         ("json", b'{"return": {}}\n'),
                         ("noise", images.noise("x", 70000)),
                         ("endless", b"[" * (4 << 20))):
        path = "%s/%s" % (tm.dir, name)
        server(path, answer)
        r = tm.run("doctor", "qmp:" + path, timeout=120)
        equal(r.code, UNREACHABLE, name, r)


@test("addresses that are none: exit 2")
def addresses():
    tm = Tidemark()
    tm.init()
    for address in ("", "nonsense", "qmp:", "qmp:relative.sock",
                    "qmp:/x,agent=", "qmp:/x,color=red", "ftp:/x"):
        r = tm.run("backup", address)
        check(r.code in (USAGE, UNREACHABLE), "address %r" % address, r)
        check(r.err.strip(), "with words", r)


@test("a disk that cannot be read fails the point unless it is excluded")
def read_errors():
    dir = tap.tempdir("bad")
    good = images.make(dir + "/good.qcow2", "qcow2", "16M")
    bad = images.make(dir + "/bad.raw", "raw", 16 << 20)
    images.sh("qemu-io", "-f", "raw", "-c", "write -P 0x31 0 16M", bad)
    broken = Disk("vdb", bad, "raw", file="driver=blkdebug,"
                  "image.driver=file,image.filename=%s,"
                  "inject-error.0.event=none,inject-error.0.iotype=read,"
                  "inject-error.0.sector=%d" % (bad, (9 << 20) // 512))
    lab = Lab([Disk("vda", good, "qcow2"), broken])
    lab.vm.io("vda", "write -P 0x11 0 1M")
    r = lab.tm.run("backup", lab.vm.address, "--json")
    equal(r.code, FAILED, "exit status", r)
    check("vdb" in r.err + r.out, "the error names the disk", r)
    equal(lab.tm.points(), [], "points")
    equal(lab.vm.leftovers(), [], "leftovers")
    equal(lab.vm.bitmaps(), {}, "bitmaps")
    lab.backup("--exclude", "vdb", skip=("vdb",))
    lab.restores()


@test("a repository that is none, missing, or damaged: exit 4, with words")
def repository_trouble():
    lab = Lab([("vda", "qcow2", "8M")])
    lab.vm.io("vda", "write -P 0x11 0 1M")
    lab.backup()
    empty = lab.dir + "/empty"
    os.mkdir(empty)
    for repo in (lab.dir + "/missing", empty):
        for cmd in (["backup", lab.vm.address], ["points"], ["verify"]):
            r = lab.tm.run(*cmd, "--repo", repo)
            equal(r.code, REPOSITORY, "%s with %s" % (cmd[0], repo), r)
            check(repo in r.err, "the error names it", r)
    r = lab.tm.run("init", lab.tm.repo)
    check(r.code in (REPOSITORY, FAILED), "init over a repository", r)
    lab.restores()


def biggest(repo):
    paths = [os.path.join(b, n) for b, _, names in os.walk(repo)
             for n in names]
    return max(paths, key=os.path.getsize)


@test("a repository that lost its 'format': never told to make a new one")
def lost_format():
    lab = Lab([("vda", "qcow2", "16M")])
    lab.backup()
    os.unlink(lab.tm.repo + "/format")
    r = lab.tm.run("points")
    equal(r.code, REPOSITORY, "exit status", r)
    check("damaged or missing" in r.err and "init" not in r.err, "words", r)


@test("verify finds a flipped byte and a cut file; restore refuses them")
def damage():
    lab = Lab([("vda", "qcow2", "16M")])
    noise(lab, "vda", 0, 2 << 20)
    lab.backup()
    lab.verifies()
    path = biggest(lab.tm.repo)
    with open(path, "rb") as f:
        whole = f.read()
    middle = len(whole) // 2
    for what, data in (
            ("flipped", whole[:middle] + bytes([whole[middle] ^ 4])
             + whole[middle + 1:]),
            ("cut", whole[:middle]), ("empty", b"")):
        os.chmod(path, 0o600)
        with open(path, "wb") as f:
            f.write(data)
        r = lab.tm.run("verify", "--json")
        equal(r.code, FAILED, what + ": verify", r)
        r = lab.tm.run("restore", "web1@latest", "--to", lab.dir + "/" + what)
        check(r.code not in SURE, what + ": restore", r)
    with open(path, "wb") as f:
        f.write(whole)
    lab.verifies()
    lab.restores()


@test("the machine is off limits while the agent's socket is given as QMP")
def swapped_sockets():
    lab = Lab([("vda", "qcow2", "8M")], agent=True)
    r = lab.tm.run("backup", "qmp:" + lab.vm.agent_path, timeout=120)
    equal(r.code, UNREACHABLE, "exit status", r)


@test("restore into a full file system fails and leaves no half disk")
def restore_full():
    lab = Lab([("vda", "qcow2", "64M")])
    noise(lab, "vda", 0, 12 << 20)
    lab.backup()
    where = tmpfs("6m")
    r = lab.tm.run("restore", "web1@latest", "--to", where + "/x",
                   "--format", "raw")
    check(r.code not in SURE, "restore fails", r)
    if os.path.isdir(where + "/x"):
        check("vda.raw" not in os.listdir(where + "/x"),
              "no file under the final name", os.listdir(where + "/x"))


tap.main()
