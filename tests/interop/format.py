"""A reader written from docs/format.md alone gets every disk back, and notices
damage."""

import filecmp
import glob
import os
import shutil
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


def sample(*how):
    top = tempdir("sample")
    subprocess.run([MAKE_SAMPLE, top, *how], check=True, timeout=120)
    return top


def points(top):
    r = read(top + "/repo")
    need(r.returncode == 0, "the reader lists points", r.stderr)
    return [line.split() for line in r.stdout.decode().splitlines()]


def read_all(top, listed, *how):
    for p in listed:
        for disk in ("vda", "vdb", "empty"):
            out = top + "/out"
            r = read(top + "/repo", *how, p[0], disk, out)
            need(r.returncode == 0, "read %s" % disk, r.stderr)
            check(filecmp.cmp("%s/%s.%s" % (top, p[0], disk), out, False),
                  "%s of point %s differs" % (disk, p[2]))
        r = read(top + "/repo", *how, p[0], "--config")
        with open(top + "/config", "rb") as f:
            equal(r.stdout, f.read(), "configuration")


@test("every disk of every point, and the configuration, read back equal")
def reads_all():
    top = sample()
    listed = points(top)
    equal([p[1:3] for p in listed], [["web1", "1"], ["web1", "2"]], "points")
    read_all(top, listed)


@test("an encrypted repository, with nothing but its paper key")
def reads_encrypted():
    top = sample("encrypted")
    key = ("--paper", top + "/paper")
    r = read(top + "/repo")
    check(r.returncode != 0 and b"encrypted" in r.stderr, "no key", r.stderr)
    r = read(top + "/repo", *key)
    need(r.returncode == 0, "the reader lists points", r.stderr)
    ids = [line.split()[0] for line in r.stdout.decode().splitlines()]
    equal(len(ids), 2, "points")
    for p in ids:           # vda is more than Python deciphers in short time
        for disk in ("vdb", "empty"):
            out = top + "/out"
            r = read(top + "/repo", *key, p, disk, out)
            need(r.returncode == 0, "read %s" % disk, r.stderr)
            check(filecmp.cmp("%s/%s.%s" % (top, p, disk), out, False),
                  "%s of point %s differs" % (disk, p))
        r = read(top + "/repo", *key, p, "--config")
        with open(top + "/config", "rb") as f:
            equal(r.stdout, f.read(), "configuration")
    r = read(top + "/repo", *key, "--check")
    check(r.returncode == 0, "chains", r.stderr)


@test("an encrypted repository, with its passphrase")
def reads_with_passphrase():
    top = sample("encrypted")

    def listed(text):
        with open(top + "/passphrase", "wb") as f:
            f.write(text)
        return read(top + "/repo", "--passphrase", top + "/passphrase")
    r = listed(b"sample")
    need(r.returncode == 0, "the reader lists points", r.stderr)
    equal(len(r.stdout.splitlines()), 2, "points")
    point = r.stdout.split()[0].decode()
    r = read(top + "/repo", "--passphrase", top + "/passphrase", point,
             "--config")
    with open(top + "/config", "rb") as f:
        equal(r.stdout, f.read(), "configuration")
    r = listed(b"Sample")
    check(r.returncode != 0 and b"no key slot opens" in r.stderr, "another",
          r.stderr)
    slot = glob.glob(top + "/repo/key/*")[0]
    os.rename(slot, os.path.join(os.path.dirname(slot), "0123456789abcdef"))
    r = listed(b"sample")
    check(r.returncode != 0 and b"is of another place" in r.stderr, "renamed",
          r.stderr)


@test("the same from the tables of packs, without any index segment")
def reads_without_index():
    top = sample()
    listed = points(top)
    shutil.rmtree(top + "/repo/index")
    read_all(top, listed, "--no-index")


def checks(top):
    r = read(top + "/repo", "--check")
    return r.returncode, r.stderr.decode()


def remove(pattern):
    found = glob.glob(pattern)
    equal(len(found), 1, "files like %s" % pattern)
    os.unlink(found[0])


@test("after forgetting and collecting, what is left reads back equal")
def reads_collected():
    top = sample("collected")
    listed = points(top)
    equal([p[2] for p in listed], ["3"], "points")
    equal(checks(top), (0, ""), "chain")
    check(glob.glob(top + "/repo/data/*/*"), "there are packs")
    read_all(top, listed)
    read_all(top, listed, "--no-index")


@test("a point that somebody took away is missed, one that was collected is not")
def checks_chain():
    top = sample("collected")
    last = points(top)[0][0]
    second = [i for i in os.listdir(top + "/repo/forget") if i != last]
    equal(len(second), 1, "forgotten, not collected")
    remove("%s/repo/commit/%s.1" % (top, second[0]))
    code, text = checks(top)
    check(code != 0 and "its parent %s is missing" % second[0] in text,
          "a missing parent is reported: %s" % text)


@test("a record under another name is no record")
def refuses_renamed_record():
    top = sample()
    path = glob.glob(top + "/repo/packs/*-1")[0]
    ids = [p[0] for p in points(top)]
    name = "%s/repo/commit/%s.2" % (top, ids[0])
    shutil.copy(path, name)
    code, text = checks(top)
    check(code != 0 and "is of type 6" in text, "reported: %s" % text)
    os.unlink(name)
    equal(checks(top), (0, ""), "chain")


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
