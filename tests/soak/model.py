"""What each disk must hold: bytes that only the test writes, and the order in
which it wrote them.

    m = Model({"vda": 1 << 24})
    m.begin()                        # a backup may start now
    m.write("vda", 4096, data)       # applied, and kept in the order
    m.match(restored, lo, hi)        # is it one state between op lo and op hi?

The instant of a backup cannot be seen from outside.  But it is one: all disks
of its point must be as they were after the same operation, and that operation
lies between those which had ended before the program was started and those
which had begun when it said that the instant was taken.
"""

import hashlib

BLOCK = 4096


def rounded(size):
    """QEMU shows whole sectors."""
    return (size + 511) // 512 * 512


def padded(data):
    return data + bytes(rounded(len(data)) - len(data))


def digest(data):
    return hashlib.sha1(padded(bytes(data))).hexdigest()


class Op:
    """Bytes written at an offset, after the disk got a size (or None)."""

    def __init__(self, disk, off=0, data=b"", size=None, how="write"):
        self.disk, self.off, self.data, self.size = disk, off, data, size
        self.how = how

    def apply(self, to):
        if self.size is not None:
            del to[self.size:]
            to.extend(bytes(self.size - len(to)))
        to[self.off:self.off + len(self.data)] = self.data

    def blocks(self):
        first = self.off // BLOCK
        return range(first, (self.off + len(self.data) + BLOCK - 1) // BLOCK)

    def __str__(self):
        size = "" if self.size is None else " size %d" % self.size
        return "%s %s %d+%d%s" % (self.how, self.disk, self.off,
                                  len(self.data), size)


class Differences:
    """The blocks in which a changing disk is not as a fixed one."""

    def __init__(self, state, want):
        self.state, self.want = state, want
        self.all()

    def all(self):
        self.bad = set()
        n = max(len(self.state), len(self.want))
        step = 256 * BLOCK
        for off in range(0, n, step):
            if self.state[off:off + step] != self.want[off:off + step]:
                self.some(range(off // BLOCK, (off + step) // BLOCK))

    def some(self, blocks):
        for i in blocks:
            a, b = i * BLOCK, (i + 1) * BLOCK
            if self.state[a:b] != self.want[a:b]:
                self.bad.add(i)
            else:
                self.bad.discard(i)

    def apply(self, op):
        op.apply(self.state)
        if op.size is not None:
            self.all()
        else:
            self.some(op.blocks())

    def __str__(self):
        if len(self.state) != len(self.want):
            return "size %d, not %d" % (len(self.want), len(self.state))
        at = sorted(self.bad)
        return "%d blocks of 4 KiB, the first at %s" % (
            len(at), ", ".join(str(i * BLOCK) for i in at[:12]))


class Model:
    def __init__(self, sizes):
        self.disks = {name: bytearray(size) for name, size in sizes.items()}
        self.begin()

    def begin(self):
        """Forget the order so far; what follows can be matched."""
        self.start = {name: bytes(d) for name, d in self.disks.items()}
        self.ops = []

    @property
    def now(self):
        """Number of operations since begin()."""
        return len(self.ops)

    def _do(self, op):
        op.apply(self.disks[op.disk])
        self.ops.append(op)

    def write(self, disk, off, data, how="write"):
        self._do(Op(disk, off, bytes(data), how=how))

    def resize(self, disk, size):
        self._do(Op(disk, size=size))

    def reset(self, disk, data):
        """The whole disk is something else."""
        self._do(Op(disk, 0, bytes(data), len(data)))

    def match(self, got, lo, hi):
        """got: {name: bytes}.  The number of the operation after which all
        disks were like that, and ""; or None and how they differ at best."""
        diff = {}
        for name, want in got.items():
            state = bytearray(self.start[name])
            for op in self.ops[:lo]:
                if op.disk == name:
                    op.apply(state)
            diff[name] = Differences(state, padded(want))
        best, table = (0, "", None), []
        for k in range(lo, hi + 1):
            if k > lo and self.ops[k - 1].disk in diff:
                diff[self.ops[k - 1].disk].apply(self.ops[k - 1])
            total = sum(len(d.bad) for d in diff.values())
            table.append("%d: %s" % (k, " ".join(
                "%s %d" % (n, len(d.bad)) for n, d in diff.items())))
            if total == 0:
                return k, ""
            if best[2] is None or total < best[0]:
                bad = {n: sorted(d.bad) for n, d in diff.items() if d.bad}
                best = total, "after operation %d of %d to %d: %s" % (
                    k, lo, hi, "; ".join("%s differs in %s" % (n, diff[n])
                                         for n in bad)), bad
        return None, "\n".join([best[1]] + [
            self.history(n, b[0], got[n]) for n, b in best[2].items()]
            + ["blocks that differ, by operation:"] + table
            + ["operations:"] + ["%d: %s" % (i + 1, op)
                                 for i, op in enumerate(self.ops[:hi])])

    def history(self, name, block, got):
        """For people: when did this block hold what was restored?"""
        a, b = block * BLOCK, (block + 1) * BLOCK
        state = bytearray(self.start[name])
        when, writers = [], []
        for k in range(len(self.ops) + 1):
            if k > 0 and self.ops[k - 1].disk == name:
                op = self.ops[k - 1]
                op.apply(state)
                if op.size is not None or block in op.blocks():
                    writers.append("%d: %s" % (k, op))
            if state[a:b] == got[a:b]:
                when.append(k)
        return "%s at %d is as after operations %s; written by %s" % (
            name, a, when, ", ".join(writers) or "none")
