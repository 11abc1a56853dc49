"""A machine that can be off: the lab of tests of `file:` addresses."""

import json
import os

import images
import tap
from lab import Lab
from tap import equal, need
from tidemark import OK


class Off(Lab):
    """A lab whose machine can be off; `stated` adds to the address."""

    def __init__(self, disks, start=False, **kw):
        super().__init__(disks, start=start, **kw)

    @property
    def address(self):
        return "file:" + ",".join(d.path for d in self.disks)

    def write(self, name, *commands):
        """As a guest that ran would have: by a tool that knows bitmaps."""
        d = self.disk(name)
        for c in commands:
            images.sh("qemu-io", "-f", d.format, "-c", c, d.path)

    def now(self):
        self.copies += 1
        refs = {}
        for d in self.disks:
            out = "%s/ref%d-%s.raw" % (self.dir, self.copies, d.name)
            refs[d.name] = images.copy_raw(d.path, d.format, out)
        return refs

    def off(self, *args, address=None, codes=(OK,), names=None, env=None):
        """A backup of the machine while it is off, that has to commit.
        names: what its disks are called in the point."""
        refs = self.now()
        r = self.tm.ok("backup", address or self.address, "--json", *args,
                       codes=codes, env=env)
        tap.need(r.committed, "backup --json ends with the committed object",
                 r)
        r.point = r.committed["point"]
        self.refs[r.point] = {(names or {}).get(n, n): ref
                              for n, ref in refs.items()}
        self.order.append(r.point)
        equal(r.committed["consistency"], "offline", "consistency", r)
        equal(os.listdir(self.tm.scratch), [], "scratch files left")
        equal(daemons(self.tm), [], "storage daemons left")
        for d in self.disks:
            if d.format == "qcow2":
                equal(images.check_qcow2(d.path), "", d.path)
        return r


def daemons(tm):
    """Processes of storage daemons that have a socket in tm's run directory."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as f:
                words = f.read()
        except OSError:
            continue
        if words and (tm.run_dir + "/").encode() in words and \
                b"qsd.sock" in words and b"--chardev" in words:
            found.append(int(pid))
    return found


def bitmaps(path):
    info = json.loads(images.sh("qemu-img", "info", "-U", "-f", "qcow2",
                                "--output=json", path))
    return info["format-specific"]["data"].get("bitmaps", [])


def ours(path):
    return [b for b in bitmaps(path) if b["name"].startswith("tidemark-")]


def fill(lab, name, at, length, seed):
    """Bytes that do not compress, without a machine."""
    path = "%s/noise" % lab.dir
    with open(path, "wb") as f:
        f.write(images.noise(seed, length))
    lab.write(name, "write -s %s %d %d" % (path, at, length))


def slow_lab(mib=48):
    """An off backup that lasts: much that does not compress, one thread, the
    highest level.  A first point is there."""
    lab = Off([("vda", "qcow2", "64M"), ("vdb", "raw", "4M")])
    lab.off("--name", "web1", names={"vda": "disk0", "vdb": "disk1"})
    fill(lab, "vda", 0, mib << 20, "slow")
    return lab


SLOW = ("--threads", "1", "--compress", "19")


def start_slow(lab):
    return lab.tm.start("backup", lab.address, "--json", *SLOW)


def wait_event(run, name):
    while True:
        line = run.line()
        need(line, "an event '%s' comes" % name, run)
        if json.loads(line).get("event") == name:
            return


NAMES = {"vda": "disk0", "vdb": "disk1"}
