"""One machine, one repository, and reference copies of every point.

The oracle of the func tests: a machine that runs no guest (-S) writes only what
the test writes, so a plain copy of each disk just before a backup is exactly
what the point must hold.
"""

import os
import shutil

import images
import tap
from tidemark import OK, Tidemark, WARNING
from vm import Disk, QemuVM


class Lab:
    def __init__(self, disks, args=(), size="64M", start=True, **kw):
        """disks: (name, format) or (name, format, size) for new images, or a
        ready Disk."""
        self.dir = tap.tempdir("lab")
        self.disks = [self._disk(d, size) for d in disks]
        self.vm = QemuVM(self.disks, args, **kw)
        self.tm = Tidemark()
        self.tm.init()
        self.refs = {}  # point id -> {disk name: raw file}
        self.order = []  # point ids
        self.copies = 0
        if start:
            self.vm.start()

    def _disk(self, d, size):
        if isinstance(d, Disk):
            return d
        name, fmt = d[0], d[1]
        path = "%s/%s.%s" % (self.dir, name, fmt)
        images.make(path, fmt, d[2] if len(d) > 2 else size)
        return Disk(name, path, fmt)

    def disk(self, name):
        return next(d for d in self.disks if d.name == name)

    def reference(self, skip=()):
        """Copy all disks as they are now: {name: raw file}."""
        self.vm.flush()
        self.copies += 1
        refs = {}
        for d in self.disks:
            if d.name in skip:
                continue
            out = "%s/ref%d-%s.raw" % (self.dir, self.copies, d.name)
            refs[d.name] = images.copy_raw(d.path, d.format, out)
        return refs

    def backup(self, *args, codes=(OK, WARNING), skip=(), **kw):
        """Reference copies, then a backup that has to commit.  Returns the
        Result; `.point` is the new point's id."""
        refs = self.reference(skip)
        r = self.tm.ok("backup", self.vm.address, "--json", *args,
                       codes=codes, **kw)
        tap.need(r.committed, "backup --json ends with the committed object",
                 r)
        r.point = r.committed["point"]
        self.refs[r.point] = refs
        self.order.append(r.point)
        left = self.vm.leftovers()
        tap.check(not left, "a backup leaves nothing in QEMU", left)
        tap.equal(os.listdir(self.tm.scratch), [], "scratch files left")
        return r

    def tracking(self, r, **want):
        """Check how the disks were read: tracking(r, vda="incremental")."""
        for name, how in want.items():
            d = r.disk(name)
            if tap.check(d is not None, "%s is in the point" % name, r):
                tap.equal(d["tracking"], how, "tracking of " + name,
                          "reason: %s" % d.get("reason"))

    def restores(self, point=None, formats=("raw",)):
        """A point (default: the newest) restores to its reference copies."""
        point = point or self.order[-1]
        good = True
        for fmt in formats:
            good &= self._restores(point, fmt)
        return good

    def _restores(self, point, fmt):
        to = "%s/out-%s" % (self.dir, fmt)
        shutil.rmtree(to, ignore_errors=True)
        r = self.tm.run("restore", "%s@%s" % (self.vm.name, point), "--to",
                        to, "--format", fmt)
        if not tap.equal(r.code, OK, "restore of %s as %s" % (point, fmt), r):
            return False
        good = True
        for name, ref in self.refs[point].items():
            path = "%s/%s.%s" % (to, name, fmt)
            if not tap.check(os.path.exists(path), path + " exists", r):
                good = False
                continue
            raw = path
            if fmt == "qcow2":
                good &= tap.equal(images.check_qcow2(path), "", path)
                raw = images.copy_raw(path, fmt, path + ".raw")
            good &= tap.equal(images.same(raw, ref), "", "%s of %s as %s"
                              % (name, point, fmt))
        tap.check(os.path.exists(to + "/machine.json"), "machine.json exists")
        shutil.rmtree(to, ignore_errors=True)
        return good

    def all_restore(self, formats=("raw",)):
        for point in self.order:
            self.restores(point, formats)

    def verifies(self):
        r = self.tm.run("verify", "--json")
        return tap.equal(r.code, OK, "verify", r)
