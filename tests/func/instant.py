#!/usr/bin/env python3
"""What a guest writes after the instant stays out of the point.

QEMU 7.2 tells the block status of the live disk for what it has saved, so
zeroes that were written meanwhile are the hard case (source_got.grain).
"""

import os
import signal

import images
import tap
from lab import Lab
from tap import check, equal, test
from tidemark import OK, WARNING

K, M = 1 << 10, 1 << 20
PLACES = (0, M, 2 * M + 64 * K, 4 * M)
ROUNDS = 3


def fill(lab, name, round):
    """Runs of data, too short to be asked whether they are zero."""
    path = lab.dir + "/noise"
    for at in PLACES:
        with open(path, "wb") as f:
            f.write(images.noise("%s %d %d" % (name, round, at), 512 * K))
        lab.vm.io(name, "write -s %s %d 512k" % (path, at))


def held_backup(lab, act, env):
    """A backup that is stopped at its instant while act() writes."""
    refs = lab.reference()
    run = lab.tm.start("backup", lab.vm.address, "--json", env=env)
    line = " "
    while line and '"instant"' not in line:
        line = run.line()
    os.killpg(run.proc.pid, signal.SIGSTOP)
    try:
        act()
    finally:
        os.killpg(run.proc.pid, signal.SIGCONT)
    r = run.wait()
    if check(r.code in (OK, WARNING) and r.committed, "it commits", r):
        lab.refs[r.committed["point"]] = refs
        lab.restores(r.committed["point"])


def story(*commands, env=None):
    """Each command, after the instant, on some clusters of what is dirty:
    the first, one in the middle, two, a part of one, all of a run."""
    lab = Lab([("vda", "qcow2", "8M"), ("vdb", "raw", "8M")])
    lab.backup()
    ranges = ((0, 64 * K), (M + 128 * K, 64 * K), (M + 256 * K, 128 * K),
              (2 * M + 96 * K, 4 * K), (4 * M, 512 * K))
    for i in range(ROUNDS):
        for d in lab.disks:
            fill(lab, d.name, i)

        def act():
            for d in lab.disks:
                for c in commands:
                    for off, length in ranges:
                        lab.vm.io(d.name, "%s %d %d" % (c, off, length))
        held_backup(lab, act, env)
    equal(lab.vm.leftovers(), [], "leftovers")


@test("zeroes that the guest writes after the instant stay out")
def zeroes():
    story("write -z")


@test("so do zeroes that free the space, and discards")
def unmapped():
    story("write -z -u", "discard")


@test("so does data, and zeroes over it")
def data():
    story("write -P 0x77", "write -z")


@test("the overlay way of taking a point keeps them out, too")
def overlay():
    story("write -P 0x77", "write -z", env={"TIDEMARK_PULL": "overlay"})


tap.main()
