"""Points without a machine: histories of repositories for tests of what deals
with points only.

    h = History()
    h.add("web1", when, writes=[(first, count, value)], tags=["a"])
    h.make()
    h.points[i].id, .disk() ...
"""

import os
import struct
import subprocess

import images
import tap
from tidemark import BUILD, OK, Tidemark

CHUNK = 16 << 10
MAKER = BUILD + "/tests/func/make-history"
MASK = (1 << 64) - 1


def content(value):
    """What make-history.c fills a chunk with."""
    if value == 0:
        return bytes(CHUNK)
    x = (value * 0x9e3779b97f4a7c15 | 1) & MASK
    words = []
    for _ in range(CHUNK // 8):
        x ^= x << 13 & MASK
        x ^= x >> 7
        x ^= x << 17 & MASK
        words.append(x)
    return struct.pack("<%dQ" % len(words), *words)


class Point:
    def __init__(self, machine, when, size, values, tags):
        self.machine, self.when, self.size = machine, when, size
        self.values, self.tags = values, tags
        self.id = None

    @property
    def name(self):
        return "%s@%s" % (self.machine, self.id)

    def disk(self):
        n = -(-self.size // CHUNK)
        return b"".join(content(self.values.get(i, 0))
                        for i in range(n))[:self.size]


class History:
    def __init__(self):
        self.tm = Tidemark()
        self.tm.init("--chunk-size", CHUNK)
        self.points = []
        self._lines = []

    def add(self, machine, when, writes=(), size=256 * CHUNK, tags=()):
        """`when`: seconds since 1970 UTC."""
        last = [p for p in self.points if p.machine == machine]
        values = dict(last[-1].values) if last else {}
        for first, count, value in writes:
            for i in range(count):
                values[first + i] = value + i if value else 0
        self.points.append(Point(machine, when, size, values, list(tags)))
        self._lines.append("%s %d %s %d %s" % (
            machine, when, ",".join(tags) or "-", size,
            " ".join("%d+%d=%d" % w for w in writes)))

    def make(self):
        """Write all points that were added; once."""
        r = subprocess.run([MAKER, self.tm.repo], text=True,
                           input="\n".join(s.rstrip() for s in self._lines)
                           + "\n", stdout=subprocess.PIPE, timeout=120)
        tap.equal(r.returncode, 0, "make-history")
        ids = r.stdout.split()
        tap.equal(len(ids), len(self.points), "points made")
        for p, i in zip(self.points, ids):
            p.id = i

    def of(self, machine):
        return [p for p in self.points if p.machine == machine]

    def ids(self):
        return {p["point"] for p in self.tm.points()}

    def restores(self, p):
        """The point's disk is what was written."""
        to = tap.tempdir("r")
        r = self.tm.run("restore", p.name, "--to", to, "--format", "raw")
        if not tap.equal(r.code, OK, "restore of " + p.name, r):
            return
        ref = to + "/ref"
        with open(ref, "wb") as f:
            f.write(p.disk())
        tap.equal(images.same(to + "/vda.raw", ref), "", "disk of " + p.name)
        os.unlink(ref)
