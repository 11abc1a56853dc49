#!/usr/bin/env python3
"""A bitmap that looks healthy and lies: the audit finds it, and the same run
becomes a full read of the same instant."""

import os

import tap
from lab import Lab
from tap import check, equal, test
from tidemark import FAILED, OK, WARNING


# More than there are canaries, whose blocks are read anyway.
PLACES = ["write -P 0x32 %dM 64k" % at for at in range(10, 22, 2)]


def lie(lab, disk, *commands):
    """Guest writes that the bitmap of the last point does not see: what a
    program does that disables it for a while."""
    node = disk + "-node"
    ours = [b["name"] for b in lab.vm.bitmaps()[node]
            if b["name"].startswith("tidemark-")]
    equal(len(ours), 1, "one bitmap of ours")
    call = lab.vm.qmp.call
    call("block-dirty-bitmap-disable", node=node, name=ours[0])
    lab.vm.io(disk, *commands)
    call("block-dirty-bitmap-enable", node=node, name=ours[0])


def new_lab(size="24M", **kw):
    lab = Lab([("vda", "qcow2", size), ("vdb", "raw", "8M")], **kw)
    lab.vm.io("vda", "write -P 0x11 0 4M", "write -P 0x12 9M 3M")
    lab.vm.io("vdb", "write -P 0x21 1M 2M")
    lab.backup()
    return lab


def wait_instant(run):
    line = run.line()
    while line and '"instant"' not in line:
        line = run.line()
    check(line, "the instant was told")


def caught(lab, r, disk="vda"):
    lab.tracking(r, **{disk: "full"})
    equal(r.code, WARNING, "a warning", r)
    check("audit failed" in r.disk(disk)["reason"], "the reason", r)
    check(any("audit failed" in w and disk in w
              for w in r.committed["warnings"]), "said aloud", r)


@test("one missed chunk is found at once by --audit all")
def found():
    lab = new_lab()
    lab.vm.io("vda", "write -P 0x31 1M 64k")
    lie(lab, "vda", *PLACES)
    r = lab.backup("--audit", "all")
    caught(lab, r)
    check(any(" %d " % (at << 20) in r.disk("vda")["reason"] for at in range(10, 22)),
          "the place", r)
    lab.tracking(r, vdb="incremental")
    plan = next(e for e in r.events if e.get("event") == "plan")
    equal(plan["disks"][0]["tracking"], "incremental", "was planned", r)
    lab.restores()
    lab.vm.io("vda", "write -P 0x33 2M 64k")
    r = lab.backup("--audit", "all")
    equal(r.code, OK, "good again", r)
    lab.tracking(r, vda="incremental")
    d = r.disk("vda")
    equal(d["audited_chunks"] * 65536 + d["dirty_bytes"], 24 << 20,
          "all but the dirty ones", r)
    equal(r.disk("vda")["audit_bound"], 1, "bound")
    lab.all_restore()


@test("missed zeroes, and data where the base has none")
def zeroes():
    for command in ("write -z 2M 1M", "discard 3M 1M", "write -P 0x44 20M 1M"):
        lab = new_lab()
        lie(lab, "vda", command)
        r = lab.backup("--audit", "all")
        caught(lab, r)
        lab.restores()


@test("by default a missed chunk is found within the bound")
def walks_round():
    lab = new_lab()
    lie(lab, "vda", *PLACES)
    for run in range(1, 11):
        r = lab.backup("--audit", "10%")
        if r.disk("vda")["tracking"] == "full":
            break
        equal(r.disk("vda")["audit_bound"], 10, "the bound", r)
    caught(lab, r)
    lab.restores()


@test("off is off, and says so; nonsense is refused")
def off():
    lab = new_lab()
    lie(lab, "vda", *PLACES)
    r = lab.tm.ok("backup", lab.vm.address, "--json", "--audit", "off")
    equal(r.disk("vda")["audit_bound"], 0, "no audit", r)
    equal(r.disk("vda")["audited_chunks"], 0, "no audit", r)
    for nonsense in ("0%", "101%", "5", "some", "", "-1%"):
        r = lab.tm.run("backup", lab.vm.address, "--audit", nonsense)
        equal(r.code, 2, "--audit '%s'" % nonsense, r)
    r = lab.tm.ok("backup", lab.vm.address, "--audit", "all",
                  codes=(OK, WARNING))
    check("audit failed" in r.err + r.out, "told to people", r)
    lab.vm.io("vda", "write -P 0x35 0 4k")
    r = lab.tm.ok("backup", lab.vm.address, "--audit", "50%")
    check("is found within 2 runs" in r.out, "the bound is told", r)


@test("a bitmap that was caught is not believed by the run after a failure")
def not_believed():
    lab = new_lab("512M")
    lab.vm.io("vda", "write -P 0x51 16M 300M")
    lab.backup()
    lie(lab, "vda", *PLACES)
    run = lab.tm.start("backup", lab.vm.address, "--json", "--audit", "all")
    wait_instant(run)
    os.rename(lab.tm.repo + "/commit", lab.tm.repo + "/aside")
    with open(lab.tm.repo + "/commit", "w"):
        pass
    r = run.wait()
    os.unlink(lab.tm.repo + "/commit")
    os.rename(lab.tm.repo + "/aside", lab.tm.repo + "/commit")
    check(r.code not in (OK, WARNING), "it could not commit", r)
    r = lab.backup("--audit", "off")
    lab.tracking(r, vda="full", vdb="incremental")
    lab.restores()


@test("killed while it audits: the next run is incremental and right")
def killed():
    lab = new_lab("512M")
    lab.vm.io("vda", "write -P 0x51 16M 200M")
    lab.backup()
    run = lab.tm.start("backup", lab.vm.address, "--json", "--audit", "all")
    wait_instant(run)
    run.kill()
    lab.vm.io("vda", "write -P 0x52 17M 64k")
    r = lab.backup()
    lab.tracking(r, vda="incremental", vdb="incremental")
    lab.restores()


@test("QEMU killed under an audit: a clear error, then a full read")
def machine_killed():
    lab = new_lab("512M")
    lab.vm.io("vda", "write -P 0x51 16M 200M")
    lab.backup()
    run = lab.tm.start("backup", lab.vm.address, "--json", "--audit", "all")
    wait_instant(run)
    lab.vm.kill()
    r = run.wait()
    if not check(r.code not in (OK, WARNING), "failed", r):
        return
    lab.vm.start()
    r = lab.backup()
    lab.tracking(r, vda="full", vdb="full")
    lab.restores()


@test("an encrypted repository, odd sizes and small chunks")
def other_shapes():
    lab = Lab([("vda", "qcow2", "5242368"), ("vdb", "raw", "3M")])
    lab.tm.repo += "-16K"
    lab.tm.env["TIDEMARK_REPO"] = lab.tm.repo
    lab.tm.env["TIDEMARK_PASSPHRASE_COMMAND"] = "echo a good passphrase"
    lab.tm.ok("init", lab.tm.repo, "--chunk-size", "16K", "--encrypt")
    lab.vm.io("vda", "write -P 0x11 0 5242368")
    lab.backup()
    lie(lab, "vda", "write -P 0x12 512K 4M")
    r = lab.backup("--audit", "all")
    caught(lab, r)
    lab.restores()
    r = lab.backup("--audit", "all")
    d = r.disk("vda")
    equal(d["audit_bytes"] + d["dirty_bytes"], 5242368, "all of it", r)


tap.main()
