"""What may happen to the images of a machine that is off."""

import os
import shutil

import images
from runs import Run
from tidemark import OK, WARNING
from world import Broken

KEPT = 2  # older copies per disk


class Copy:
    """A disk's images and how tracking stood when they were copied."""

    def __init__(self, steps, d, dir):
        self.chain, self.backing = list(d.chain), d.backing
        self.dir = dir
        self.lied = {x for x in steps.ledger.lied if x[0] == d.name}
        os.mkdir(dir)
        for path, _ in d.chain:
            images.sh("cp", "--sparse=always", path, dir + "/")

    def back(self, d):
        for path, _ in d.chain:
            os.unlink(path)
        for path, _ in self.chain:
            images.sh("cp", "--sparse=always",
                      self.dir + "/" + os.path.basename(path), path)
        d.chain, d.backing = list(self.chain), self.backing
        d.settle()


class Off:
    def __init__(self, steps):
        self.s, self.w, self.ledger = steps, steps.w, steps.ledger

    def happened(self, what, d):
        self.w.say("off: %s of %s" % (what, d.name))
        self.ledger.happened(what, [d.name])

    def one(self, rng):
        acts = [self.save, self.save, self.roll_back, self.roll_back,
                self.resize, self.replace, self.bitmap, self.write_outside,
                self.internal, self.commit, self.move]
        if "file:" in self.w.can:
            acts += [self.backup] * 6
        rng.choice(acts)(rng, rng.choice(self.w.disks))

    def save(self, rng, d):
        copies = self.w.copies.setdefault(d.name, [])
        if len(copies) >= KEPT:
            shutil.rmtree(copies.pop(rng.randrange(KEPT)).dir)
        self.w.names += 1
        copies.append(Copy(self.s, d, "%s/copy-%d" % (self.w.dir,
                                                      self.w.names)))
        self.w.say("off: copy %d of %s" % (len(copies), d.name))

    def roll_back(self, rng, d):
        copies = self.w.copies.get(d.name)
        if not copies:
            return self.save(rng, d)
        copy = rng.choice(copies)
        copy.back(d)
        d.internal = None
        self.happened("rollback", d)
        self.ledger.lied |= copy.lied
        self.w.reread([d])
        return None

    def resize(self, rng, d):
        path, fmt = d.chain[-1]
        old = len(self.w.model.disks[d.name])
        size = self.s.other_size(rng, d.name)
        for n in [size, old][:rng.randint(1, 2)]:
            if not self.w.try_tool("qemu-img", "resize", "--shrink", "-q",
                                   "-f", fmt, path, str(n)):
                return
            self.happened("resize", d)
            self.w.resized(d, n)

    def replace(self, rng, d):
        """Another disk of the same size under the same name."""
        size = len(self.w.model.disks[d.name])
        fmt = d.chain[-1][1]
        for path, _ in d.chain:
            os.unlink(path)
        path = d.chain[0][0]
        images.make(path, fmt, size)
        images.sh("qemu-io", "-f", fmt, "-c", "write -P 0x%x 64k 256k"
                  % rng.randint(1, 255), path)
        d.chain, d.backing, d.internal = [(path, fmt)], None, None
        d.settle()
        self.happened("another disk", d)
        self.w.reread([d])

    def bitmap(self, rng, d):
        repo = rng.choice(sorted(self.w.repos))
        names = self.w.stored_bitmaps(d, repo)
        if not names:
            return
        path, fmt = d.chain[-1]
        name = rng.choice(names)

        def tool(*what):
            return self.w.try_tool("qemu-img", "bitmap", *what, "-f", fmt,
                                   path, name)
        kind = rng.choice(["--clear", "--remove", "--disable", "lie"])
        self.happened("bitmap " + kind, d)
        if kind != "lie":
            if tool(kind) and kind == "--clear":
                self.ledger.lied.add((d.name, repo))
        elif "--audit" in self.w.can and tool("--disable"):
            self.write_outside(rng, d)
            if tool("--enable"):
                self.ledger.lied.add((d.name, repo))

    def write_outside(self, rng, d):
        """By another program; into a raw disk unseen."""
        path, fmt = d.chain[-1]
        size = len(self.w.model.disks[d.name])
        off = rng.randrange(0, size // 512 - 8) * 512
        pattern = rng.randint(1, 255)
        if self.w.try_tool("qemu-io", "-f", fmt, "-c",
                           "write -P %d %d 4096" % (pattern, off), path):
            self.w.model.write(d.name, off, bytes([pattern]) * 4096)

    def internal(self, rng, d):
        """An internal snapshot, and the next time back to it, which QEMU
        refuses while there are bitmaps."""
        path, fmt = d.chain[-1]
        if fmt != "qcow2":
            return
        if d.internal != path:
            if self.w.try_tool("qemu-img", "snapshot", "-c", "s", path):
                d.internal = path
        elif self.w.try_tool("qemu-img", "snapshot", "-a", "s", path):
            self.happened("internal snapshot", d)
            self.w.reread([d])
        else:
            self.w.try_tool("qemu-img", "snapshot", "-d", "s", path)
            d.internal = None

    def commit(self, rng, d):
        if len(d.chain) < 2:
            return
        path, fmt = d.chain[-1]
        self.happened("commit", d)
        images.sh("qemu-img", "commit", "-q", "-d", "-f", fmt, path)
        os.unlink(path)
        d.chain.pop()
        d.settle()

    def move(self, rng, d):
        """As on another host: other paths, nothing in the run directory."""
        if len(d.chain) > 1:
            return
        path, fmt = d.chain[0]
        new = self.w.new_path(d, fmt)
        os.rename(path, new)
        d.chain, d.internal = [(new, fmt)], None
        d.settle()
        self.happened("move", d)
        self.w.names += 1
        run_dir = "%s/r%d" % (self.w.dir, self.w.names)
        os.mkdir(run_dir)
        self.w.tm.env["TIDEMARK_RUN_DIR"] = run_dir

    def backup(self, rng, _):
        """Of the images, without a QEMU."""
        repo = self.s.repo(rng)
        back = self.s.backups
        args, env = back.options(rng, repo, offline=True)
        address = "file:" + ",".join("%s,format=%s,disk=%s" % (
            *d.chain[-1], d.name) for d in self.w.disks)
        at = self.w.model.now
        r = Run(self.w, ["backup", address, "--name", "web1", "--json"] + args,
                env).result()
        self.w.say("offline backup: exit %d" % r.code)
        back.judge(repo, args, r, (OK, WARNING), at, at)
        if os.listdir(self.w.tm.scratch):
            raise Broken("left in scratch after an offline backup")
