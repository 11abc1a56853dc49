"""The small real Linux guest (tests/lib/guest) as a machine for tests.

    g = writer(dir)            # disks vda (ext4, records), vdb, vdc (counters)
    g.records()                # newest number on the console
    check(restored_disks)      # boots them, returns Check
"""

import os
import re
import subprocess

import images
import tap
from tidemark import BUILD, HERE
from vm import Disk, QemuVM

OUT = BUILD + "/guest"
SIZES = {"vda": 192 << 20, "vdb": 16 << 20, "vdc": 16 << 20}
FORMATS = {"vda": "qcow2", "vdb": "qcow2", "vdc": "raw"}


def build():
    """Make the guest once per build directory."""
    r = subprocess.run([HERE + "/guest/build", OUT], text=True, timeout=600,
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT)
    if r.returncode != 0:
        raise RuntimeError("building the guest failed:\n" + r.stdout)


def boot_args(mode):
    build()
    return ["-no-reboot", "-kernel", OUT + "/vmlinuz", "-initrd",
            OUT + "/initrd.gz", "-append",
            "console=ttyS0 quiet panic=-1 tidemark=" + mode]


class Writer(QemuVM):
    """A guest that writes for ever (guestwork.c)."""

    def __init__(self, disks, agent=True, args=(), **kw):
        super().__init__(disks, boot_args("writer") + list(args), memory=256,
                         stopped=False, agent=agent, **kw)

    def records(self):
        """Number of the newest step that is complete."""
        found = re.findall(r"^REC (\d+)\r?$", self.serial(), re.M)
        return int(found[-1]) if found else 0

    def wait_records(self, atleast, timeout=180):
        def enough(text):
            if "FAILED" in text:
                raise RuntimeError("guest: " + text[-500:])
            return self.records() >= atleast
        self.wait_serial(enough, timeout)
        return self.records()


def new_disks(dir, sizes=SIZES, formats=FORMATS):
    return [Disk(name, images.make("%s/%s.%s" % (dir, name, fmt), fmt,
                                   sizes[name]), fmt)
            for name, fmt in formats.items()]


def writer(dir, **kw):
    """A running writer on new disks, past its first steps."""
    g = Writer(new_disks(dir), **kw).start()
    g.wait_records(20)
    return g


class Check:
    """What a guest says of disks that it booted with."""

    def __init__(self, console):
        self.console = console
        m = re.search(r"^CHECK records=(\d+) last=(\d+) B=(\d+) C=(\d+) ok",
                      console, re.M)
        self.ok = bool(m) and "FAILED" not in console
        self.clean = "FSCK clean" in console
        self.records, self.last, self.b, self.c = (
            [int(x) for x in m.groups()] if m else [0] * 4)
        self.line = m.group(0) if m else console.strip()[-300:]


def check(dir, fmt, names=("vda", "vdb", "vdc")):
    """Boot DIR/vda.FMT, ... for the first time and check what they hold."""
    disks = [Disk(n, "%s/%s.%s" % (dir, n, fmt), fmt) for n in names]
    vm = QemuVM(disks, boot_args("check"), name="check", memory=256,
                stopped=False)
    vm.start()
    console = vm.wait_serial(
        lambda text: text if re.search(r"^(DONE|FAILED)", text, re.M) else "")
    vm.kill()
    return Check(console)
