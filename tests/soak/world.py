"""One machine with four disks, two repositories, and the model of the disks.

Everything that the steps of the soak need to act on the machine and to look at
it.  What a step does to a disk it does to the model, too; where the effect is
not certain (QEMU killed, a discard) the model is read from the image.
"""

import json
import os
import re
import shutil
import subprocess
import time

import images
import tap
from model import Model, rounded
from qmpsock import QmpError
from tidemark import BINARY, Tidemark
from vm import Disk, QemuVM

M = 1 << 20
SCRATCH_SMALL = "1m"
REPO_ROOM = 400  # MiB


class Broken(Exception):
    """What must never happen has happened."""


class SoakDisk(Disk):
    """chain: (path, format) of the snapshots, the active one last; `backing`
    is an image below all of them that never changes."""

    def __init__(self, name, path, fmt, backing=None):
        super().__init__(name, path, fmt)
        self.chain = [(path, fmt)]
        self.backing = backing
        self.internal = None  # path that has an internal snapshot

    def settle(self):
        """As QEMU will open it when it starts the next time."""
        self.path, self.format = self.chain[-1]
        self.node = self.name + "-node"


def mount_tmpfs(dir, size):
    os.mkdir(dir)
    if os.geteuid() != 0:
        return False
    r = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=" + size, "tmpfs",
                        dir], capture_output=True)
    if r.returncode == 0:
        tap.cleanup(images.sh, "umount", "-l", dir)
    return r.returncode == 0


class World:
    def __init__(self, say):
        self.say = say
        self.dir = tap.tempdir("soak")
        self.names = 0
        self.unpause = lambda: None  # lets a stopped backup go on
        self.copies = {}  # of Off: {disk name: [Copy]}
        self.disks = self._disks()
        self.vm = QemuVM(self.disks, name="web1")
        self.model = Model({d.name: self._size(d) for d in self.disks})
        self.reread(self.disks)
        self.tm = Tidemark()
        self.small = self.dir + "/small"
        self.mounted = mount_tmpfs(self.small, SCRATCH_SMALL)
        b = self.dir + "/b"
        self.mounted &= mount_tmpfs(b, "%dm" % REPO_ROOM)
        self.repos = {"A": self.tm.repo, "B": b + "/repo"}
        self.tm.init()
        self.tm.ok("init", self.repos["B"], "--chunk-size", "16K")
        self.ids = {k: self.tm.ok("points", "--json", "--repo", p)
                    .json()["repository"] for k, p in self.repos.items()}
        text = subprocess.run([BINARY, "backup", "--help"], text=True,
                              capture_output=True).stdout
        self.can = {word for word in ("--audit", "--resume", "file:")
                    if word in text}
        self.vm.start()

    def _disks(self):
        def path(name):
            return self.dir + "/" + name
        base = images.make(path("base.qcow2"), "qcow2", 9 * M)
        images.sh("qemu-io", "-f", "qcow2", "-c", "write -P 0xb1 0 9M", base)
        images.make(path("vda.qcow2"), "qcow2", 12 * M)
        images.make(path("vdb.raw"), "raw", 8 * M + 512 * 3 + 77)
        images.make(path("vdc.qcow2"), "qcow2", 6 * M + 512, "compat=0.10")
        images.make(path("vdd.qcow2"), "qcow2", 10 * M,
                    "backing_file=%s,backing_fmt=qcow2" % base)
        return [SoakDisk("vda", path("vda.qcow2"), "qcow2"),
                SoakDisk("vdb", path("vdb.raw"), "raw"),
                SoakDisk("vdc", path("vdc.qcow2"), "qcow2"),
                SoakDisk("vdd", path("vdd.qcow2"), "qcow2", base)]

    def disk(self, name):
        return next(d for d in self.disks if d.name == name)

    def new_path(self, d, fmt):
        self.names += 1
        return "%s/%s-%d.%s" % (self.dir, d.name, self.names, fmt)

    # -- what images hold ----------------------------------------------------

    def _size(self, d):
        info = images.sh("qemu-img", "info", "-U", "--output=json", "-f",
                         d.format, d.path)
        return rounded(json.loads(info)["virtual-size"])

    def content(self, d, share=False):
        """All bytes of a disk, by qemu-img."""
        out = self.dir + "/content.raw"
        path, fmt = d.chain[-1]
        cmd = ["qemu-img", "convert", "-f", fmt, "-O", "raw", path, out]
        if share:
            cmd.insert(2, "-U")
        images.sh(*cmd)
        with open(out, "rb") as f:
            data = f.read()
        os.unlink(out)
        return data + bytes(rounded(len(data)) - len(data))

    def reread(self, disks):
        """The machine is off: believe the images."""
        for d in disks:
            self.model.reset(d.name, self.content(d))

    def images_differ(self):
        """Is the model itself wrong?  Asked when a point is."""
        out = []
        for d in self.disks:
            if self.vm.alive():
                self.vm.io(d.name, "flush")
            data = self.content(d, share=True)
            if data != bytes(self.model.disks[d.name]):
                out.append(d.name)
        return out

    # -- guest operations ----------------------------------------------------

    def guest(self, name, command):
        """A device would stop the machine on a full scratch (QEMU before 10.1)
        and try again when it goes on."""
        def written():
            self.unpause()
            try:
                self.vm.io(name, command)
                return True
            except RuntimeError as e:
                if "No space left" not in str(e):
                    raise
        try:
            self.vm.io(name, command)
        except RuntimeError as e:
            if "No space left" not in str(e):
                raise
            self.say("a write meets a full scratch")
            if not soon("a write", written, 60):
                raise Broken("the guest's write fails for ever")

    def write(self, name, off, length, pattern):
        data = bytes([pattern]) * length
        self.guest(name, "write -P %d %d %d" % (pattern, off, length))
        self.model.write(name, off, data)

    def write_noise(self, name, off, length, seed):
        data = images.noise(seed, length)
        path = self.dir + "/noise"
        with open(path, "wb") as f:
            f.write(data)
        self.guest(name, "write -s %s %d %d" % (path, off, length))
        self.model.write(name, off, data)

    def zero(self, name, off, length, unmap):
        self.guest(name, "write -z %s%d %d" % ("-u " if unmap else "", off,
                                               length))
        self.model.write(name, off, bytes(length),
                         "unmap" if unmap else "zero")

    def discard(self, name, off, length):
        """Each sector is as it was or zero; the image says which."""
        self.guest(name, "discard %d %d" % (off, length))
        self.guest(name, "flush")
        old = self.model.disks[name]
        new = self.content(self.disk(name), share=True)
        if len(new) != len(old):
            raise Broken("%s: %d bytes after a discard, not %d"
                         % (name, len(new), len(old)))
        for at in range(off, off + length, 512):
            if any(new[at:at + 512]) and new[at:at + 512] != old[at:at + 512]:
                raise Broken("%s: a discard left something else at %d"
                             % (name, at))
        self.model.write(name, off, new[off:off + length], "discard")

    def resized(self, d, size):
        """A disk has another size.  What is new is zero, but for what qcow2
        left in a cluster that an earlier shrinking cut: the image says."""
        old = len(self.model.disks[d.name])
        self.model.resize(d.name, size)
        if size > old:
            if self.vm.alive():
                self.guest(d.name, "flush")
            data = self.content(d, share=True)
            self.model.write(d.name, old, data[old:size], "grown")
            left = old - old % 65536 + 65536
            if any(data[left:size]) and not d.backing:
                raise Broken("%s: grown to %d, and not zero" % (d.name, size))

    # -- life of the machine -------------------------------------------------

    def stop(self):
        self.vm.quit()
        for d in self.disks:
            d.settle()

    def killed(self):
        """QEMU is dead, in whatever state."""
        self.vm.kill()
        for d in self.disks:
            d.settle()
        self.reread(self.disks)

    def start(self, other_socket=False):
        if other_socket:
            self.names += 1
            self.vm.qmp_path = "%s/q%d.sock" % (self.vm.dir, self.names)
        self.vm.start()

    def try_qmp(self, command, **args):
        """The answer, or None when QEMU refuses."""
        try:
            self.vm.qmp.call(command, timeout=60, **args)
            return True
        except QmpError as e:
            self.say("QEMU refuses %s: %s" % (command, e.desc))
            return None

    def try_tool(self, *cmd):
        """Whether a program succeeded."""
        r = subprocess.run(cmd, stdin=subprocess.DEVNULL, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           timeout=120)
        if r.returncode != 0:
            self.say("%s: %s" % (" ".join(cmd[:2]), r.stdout.strip()[-200:]))
        return r.returncode == 0

    def node_of(self, path):
        for n in self.vm.nodes():
            if n.get("file") == path and n["drv"] in ("qcow2", "raw"):
                return n["node-name"]
        raise Broken("QEMU has no node for " + path)

    def run_job(self, d, id, ready, command, meanwhile=lambda: None, **args):
        """Start a block job, wait until it is ready (or done), do something,
        complete it.  False: QEMU refused, or it failed."""
        self.vm.qmp.events.clear()
        if not self.try_qmp(command, job_id=id, **args):
            return False

        def told(event):
            self.vm.qmp.call("query-block-jobs")  # takes what has come
            return any(e["event"] == event and e["data"].get("device") == id
                       for e in self.vm.qmp.events)
        soon("a job", lambda: ready and told("BLOCK_JOB_READY")
             or told("BLOCK_JOB_COMPLETED"))
        meanwhile()
        if ready and not told("BLOCK_JOB_COMPLETED"):
            self.vm.qmp.call("block-job-complete", device=id)
        if not soon("its end", lambda: told("BLOCK_JOB_COMPLETED")):
            raise Broken("job %s does not end" % command)
        end = [e["data"] for e in self.vm.qmp.events
               if e["event"] == "BLOCK_JOB_COMPLETED"][-1]
        if "error" in end:
            self.say("job %s: %s" % (command, end["error"]))
        return "error" not in end

    # -- bitmaps -------------------------------------------------------------

    def our_bitmaps(self, d, repo):
        """Names of our bitmaps on the disk's node, for one repository."""
        prefix = "tidemark-%s-" % self.ids[repo][:16]
        return [b["name"] for b in self.vm.bitmaps().get(d.node, [])
                if b["name"].startswith(prefix)]

    def stored_bitmaps(self, d, repo):
        """The same in the image of a machine that is off."""
        path, fmt = d.chain[-1]
        if fmt != "qcow2":
            return []
        text = images.sh("qemu-img", "info", "-f", fmt, path)
        return sorted(set(re.findall("name: (tidemark-%s-[0-9a-f]+)"
                                     % self.ids[repo][:16], text)))

    # -- restoring -----------------------------------------------------------

    def restored(self, repo, point):
        """{disk name: bytes} of a point."""
        to = self.dir + "/out"
        r = self.tm.run("restore", "web1@" + point, "--to", to, "--format",
                        "raw", "--repo", self.repos[repo])
        if r.code != 0:
            raise Broken("restore of %s from %s:\n%s" % (point, repo, r))
        got = {}
        for name in os.listdir(to):
            if name.endswith(".raw"):
                with open(to + "/" + name, "rb") as f:
                    got[name[:-4]] = f.read()
        shutil.rmtree(to)
        return got


def soon(what, condition, timeout=60):
    """Poll; the value, or None when it took too long."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    return None
