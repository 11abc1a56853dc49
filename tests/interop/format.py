"""A reader written from docs/format.md alone gets every disk back, and notices
damage."""

import filecmp
import glob
import os
import subprocess
import sys

from tap import check, equal, main, need, tempdir, test

READER = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                      "read-repo.py")
MAKE_SAMPLE = os.path.join(os.environ["TIDEMARK_TEST_BUILD"],
                           "tests/interop/make-sample")


def read(*args):
    return subprocess.run([sys.executable, READER, *args], timeout=120,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def sample():
    top = tempdir("sample")
    subprocess.run([MAKE_SAMPLE, top], check=True, timeout=120)
    return top


def points(top):
    r = read(top + "/repo")
    need(r.returncode == 0, "the reader lists points", r.stderr)
    return [line.split() for line in r.stdout.decode().splitlines()]


@test("every disk of every point, and the configuration, read back equal")
def reads_all():
    top = sample()
    listed = points(top)
    equal([p[1:3] for p in listed], [["web1", "1"], ["web1", "2"]], "points")
    for p in listed:
        for disk in ("vda", "vdb", "empty"):
            out = top + "/out"
            r = read(top + "/repo", p[0], disk, out)
            need(r.returncode == 0, "read %s" % disk, r.stderr)
            check(filecmp.cmp("%s/%s.%s" % (top, p[0], disk), out, False),
                  "%s of point %s differs" % (disk, p[2]))
        r = read(top + "/repo", p[0], "--config")
        with open(top + "/config", "rb") as f:
            equal(r.stdout, f.read(), "configuration")


def flip(path, offset):
    with open(path, "r+b") as f:
        f.seek(offset)
        old = f.read(1)
        f.seek(offset)
        f.write(bytes([old[0] ^ 1]))


def all_read(top, ids):
    return all(read(top + "/repo", i, *what).returncode == 0
               for i in ids for what in (("vda", top + "/out"),
                                         ("vdb", top + "/out"),
                                         ("--config",)))


@test("one changed byte in any object is noticed")
def notices_damage():
    top = sample()
    listed = points(top)
    for kind in ("format", "commit/*", "index/*", "data/*/*", "meta/*/*"):
        path = sorted(glob.glob(top + "/repo/" + kind))[0]
        flip(path, 200)  # in packs: in the payload of the first frame
        check(not all_read(top, [p[0] for p in listed]),
              "%s: damage was not noticed" % kind)
        flip(path, 200)
    check(all_read(top, [p[0] for p in listed]), "undamaged again")


main()
