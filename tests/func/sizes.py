#!/usr/bin/env python3
"""Disks whose size fits nothing: the tail is neither lost nor invented."""

import tap
from lab import Lab
from tap import check, test
from vm import Disk

K = 1 << 10
M = 1 << 20


def story(fmt, size):
    """Write the first and the last sector, full, then the last sector again
    and one in the middle, incremental; both points are right."""
    lab = Lab([("vda", fmt, size)])
    sectors = (size + 511) // 512
    last = (sectors - 1) * 512
    lab.vm.io("vda", "write -P 0x11 0 512")
    lab.vm.io("vda", "write -P 0x12 %d 512" % last)
    lab.backup()
    lab.restores(formats=("raw", "qcow2"))
    lab.vm.io("vda", "write -P 0x13 %d 512" % last)
    lab.vm.io("vda", "write -P 0x14 %d 512" % (sectors // 2 * 512 - 512
                                               if sectors > 1 else 0))
    r = lab.backup()
    lab.tracking(r, vda="incremental")
    check(r.disk("vda")["size"] in (size, sectors * 512), "size", r)
    lab.restores(formats=("raw", "qcow2"))
    lab.vm.io("vda", "write -z %d 512" % last)
    lab.backup()
    lab.all_restore()
    lab.vm.kill()


@test("one sector")
def one_sector():
    story("raw", 512)
    story("qcow2", 512)


@test("one sector less than a chunk, and one more")
def around_a_chunk():
    for size in (64 * K - 512, 64 * K, 64 * K + 512):
        story("raw", size)
        story("qcow2", size)


@test("raw images whose length is no multiple of a sector")
def odd_bytes():
    for size in (1, 513, 513 * 1001, 5 * M + 1):
        story("raw", size)


@test("100 MiB and one sector")
def large():
    story("qcow2", 100 * M + 512)
    story("raw", 100 * M + 512)


@test("64 map entries and one chunk more (a new level of the map)")
def map_level():
    story("raw", 64 * 64 * K + 512)
    story("qcow2", 64 * 64 * 64 * K + 64 * K)


@test("a disk that grew is read in full, with the reason, and is right")
def resized():
    lab = Lab([("vda", "raw", 8 * M), ("vdb", "raw", 8 * M)])
    lab.vm.io("vda", "write -P 0x11 0 8M")
    lab.backup()
    lab.vm.qmp.call("block_resize", node_name="vda-node", size=12 * M)
    lab.vm.io("vda", "write -P 0x12 11M 1M")
    r = lab.backup()
    lab.tracking(r, vda="full", vdb="incremental")
    check("size" in r.disk("vda")["reason"], "the reason says resized", r)
    lab.all_restore()


@test("a disk that shrank and grew back between two backups is right")
def shrunk_and_grown():
    lab = Lab([("vda", "raw", 8 * M)])
    lab.vm.io("vda", "write -P 0x11 0 8M")
    lab.backup()
    lab.vm.qmp.call("block_resize", node_name="vda-node", size=4 * M)
    lab.vm.qmp.call("block_resize", node_name="vda-node", size=8 * M)
    lab.backup()
    lab.all_restore()


@test("other chunk sizes")
def chunk_sizes():
    for chunk in ("16K", "1M"):
        lab = Lab([("vda", "qcow2", 10 * M + 512)])
        lab.tm.repo += "-" + chunk
        lab.tm.env["TIDEMARK_REPO"] = lab.tm.repo
        lab.tm.init("--chunk-size", chunk)
        lab.vm.io("vda", "write -P 0x11 0 3M", "write -P 0x12 %d 512"
                  % (10 * M))
        lab.backup()
        lab.vm.io("vda", "write -P 0x13 100k 1k", "write -P 0x14 %d 512"
                  % (10 * M))
        lab.tracking(lab.backup(), vda="incremental")
        lab.all_restore()
        lab.vm.kill()


tap.main()
