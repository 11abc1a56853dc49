"""Disk images and reference copies."""

import hashlib
import os
import subprocess


def sh(*cmd, timeout=300):
    """Run a program that has to succeed; returns its output."""
    r = subprocess.run(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT, timeout=timeout, text=True)
    if r.returncode != 0:
        raise RuntimeError("%s: exit %d: %s" % (" ".join(cmd), r.returncode,
                                                r.stdout))
    return r.stdout


def make(path, fmt, size, options=""):
    """A blank image.  `size` in bytes or as qemu-img takes it; a raw image may
    have any number of bytes."""
    if fmt == "raw" and isinstance(size, int):
        with open(path, "wb") as f:
            f.truncate(size)
        return path
    cmd = ["qemu-img", "create", "-q", "-f", fmt]
    if options:
        cmd += ["-o", options]
    sh(*cmd, path, str(size))
    return path


def noise(seed, length):
    """Bytes that do not compress, the same for the same seed."""
    return hashlib.shake_128(str(seed).encode()).digest(length)


def copy_raw(path, fmt, out):
    """Copy what an image holds to the raw file `out`, without its lock: the
    owner must not write meanwhile."""
    sh("qemu-img", "convert", "-U", "-f", fmt, "-O", "raw", path, out)
    return out


def same(a, b):
    """Compare two raw files.  "" when equal, else what differs first.  A
    length that QEMU rounded up to whole sectors is equal when the tail is
    zero."""
    la, lb = os.path.getsize(a), os.path.getsize(b)
    if (la + 511) // 512 != (lb + 511) // 512:
        return "lengths %d and %d" % (la, lb)
    step = 1 << 20
    with open(a, "rb") as fa, open(b, "rb") as fb:
        for off in range(0, max(la, lb), step):
            da, db = fa.read(step), fb.read(step)
            n = max(len(da), len(db))
            da, db = da.ljust(n, b"\0"), db.ljust(n, b"\0")
            if da != db:
                at = next(i for i in range(n) if da[i] != db[i])
                return "byte %d is %#x, not %#x" % (off + at, da[at], db[at])
    return ""


def check_qcow2(path):
    """"" when qemu-img finds nothing to complain about."""
    r = subprocess.run(["qemu-img", "check", "-f", "qcow2", path], text=True,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       timeout=300)
    return "" if r.returncode == 0 else r.stdout
