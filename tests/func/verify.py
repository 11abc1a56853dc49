#!/usr/bin/env python3
"""Damage: found, told exactly, never built on, healed by the next backup."""

import os
import signal
import time

import images
import tap
from lab import Lab
from tap import check, equal, need, test
from tidemark import FAILED, OK, USAGE, WARNING

CHUNK = 64 << 10


def noise(lab, name, at, length):
    """Write bytes that do not compress."""
    path = "%s/noise-%s-%d" % (lab.dir, name, at)
    with open(path, "wb") as f:
        f.write(images.noise("%s %d %d" % (lab.dir, at, length), length))
    lab.vm.io(name, "write -s %s %d %d" % (path, at, length))


def objects(repo, kind):
    return sorted(os.path.join(b, n)
                  for b, _, names in os.walk(os.path.join(repo, kind))
                  for n in names if not n.startswith("."))


def flip(path, *places):
    os.chmod(path, 0o600)
    with open(path, "r+b") as f:
        for at in places:
            f.seek(at)
            byte = f.read(1)
            f.seek(at)
            f.write(bytes([byte[0] ^ 0x40]))


def two_points():
    lab = Lab([("vda", "qcow2", "16M")])
    noise(lab, "vda", 0, 4 << 20)
    lab.backup()
    lab.vm.io("vda", "write -P 0x21 8M 128k")
    lab.tracking(lab.backup(), vda="incremental")
    return lab


def verify(lab, *args, code=OK):
    r = lab.tm.run("verify", "--json", *args)
    equal(r.code, code, "verify " + " ".join(args), r)
    need(r.events, "a result", r)
    return r.json()


def all_verified(lab):
    return [p["verified"] for p in lab.tm.points()]


@test("flipped bytes: found, and healed by the next incremental")
def heal():
    lab = two_points()
    equal(all_verified(lab), [None, None], "never verified")
    verify(lab)
    check(all(all_verified(lab)), "verified now", all_verified(lab))
    pack = max(objects(lab.tm.repo, "data"), key=os.path.getsize)
    flip(pack, 10 * CHUNK, 11 * CHUNK, 30 * CHUNK)
    v = verify(lab, code=FAILED)
    check(2 <= v["bad_chunks"] <= 3, "bad chunks", v)
    points = {p.get("point") for p in v["problems"]} - {None}
    equal(len(points), 2, "both points are hit", v["problems"])
    equal(len(objects(lab.tm.repo, "bad")), 1, "noted")
    bad = v["bad_chunks"]

    lab.vm.io("vda", "write -P 0x22 9M 64k")
    r = lab.backup()
    lab.tracking(r, vda="incremental")
    equal(r.committed["healed_chunks"], bad, "healed", r)
    v = verify(lab)
    check(any("that points need of it is good" in n for n in v["notes"]),
          "a note", v)
    check(all(all_verified(lab)), "verified", all_verified(lab))
    lab.all_restore()
    r = lab.backup()
    equal(r.committed["healed_chunks"], 0, "nothing is left to heal", r)
    lab.tm.ok("gc", "--rewrite", "1")
    v = verify(lab)
    equal(v["notes"], [], "a collection takes the damaged pack away")
    equal(objects(lab.tm.repo, "bad"), [], "and the list of what was bad")
    lab.all_restore()


@test("a lost pack: noted, healed; what is not needed is no damage")
def lost_pack():
    lab = two_points()
    pack = max(objects(lab.tm.repo, "data"), key=os.path.getsize)
    os.rename(pack, lab.dir + "/aside")
    v = verify(lab, "--structure", code=FAILED)
    check(v["bad_chunks"] >= 60, "bad chunks", v)
    equal(v["packs_read"], 0, "no pack was read", v)
    r = lab.backup()
    lab.tracking(r, vda="incremental")
    equal(r.committed["healed_chunks"], v["bad_chunks"], "healed", r)
    v = verify(lab)
    check(any("missing" in n for n in v["notes"]), "a note", v)
    lab.all_restore()


@test("a damaged map of the base costs a full read, by itself")
def damaged_map():
    lab = two_points()
    verify(lab)
    packs = objects(lab.tm.repo, "meta")
    for pack in packs:
        size = os.path.getsize(pack)
        flip(pack, *range(64 + 72 + 8, size - 64 - 300, 97))
    lab.vm.io("vda", "write -P 0x31 1M 64k", "write -P 0x32 15M 64k")
    r = lab.backup()
    check(r.code == WARNING, "a warning", r)
    lab.tracking(r, vda="full")
    check("damaged" in r.disk("vda")["reason"], "the reason", r)
    equal(r.committed["disks"][0]["disk"], "vda", "disk")
    lab.restores()
    verify(lab, code=FAILED)
    lab.backup()
    lab.restores()


@test("damage deep in a map is met during the copy: the disk is read in full")
def damaged_leaf():
    lab = Lab([("vda", "qcow2", "64M"), ("vdb", "raw", "8M")])
    lab.vm.io("vdb", "write -P 0x44 0 1M")
    for at in range(0, 64, 2):  # several leaves of 4 MiB
        lab.vm.io("vda", "write -P %d %dM 64k" % (at + 1, at))
    lab.backup()
    pack = max(objects(lab.tm.repo, "meta"), key=os.path.getsize)
    with open(pack, "rb") as f:
        whole = f.read()
    frames, at = [], whole.find(b"TMFR")
    while at >= 0:
        frames.append(at)
        at = whole.find(b"TMFR", at + 72)
    # Pages are put from left to right.  Those with a canary are met before:
    # four of the sixteen at most, so that six hold one without.
    leaves = [f for f in frames if whole[f + 5] == 2][:16]
    hit = False
    for i in range(6):
        flip(pack, leaves[i] + 80)
        lab.vm.io("vda", "write -P 0x77 %dM 64k" % (4 * i + 1))
        r = lab.backup()
        if r.disk("vda")["tracking"] == "full":
            plan = next(e for e in r.events if e.get("event") == "plan")
            hit |= plan["disks"][0]["tracking"] == "incremental"
            check("damaged" in r.disk("vda")["reason"], "the reason", r)
            lab.restores()  # nothing of it relies on the damaged page
        flip(pack, leaves[i] + 80)
    check(hit, "one of the pages was met only during the copy")
    lab.all_restore()
    verify(lab)


@test("check --repair saves what is good, and makes lost segments again")
def repair():
    lab = two_points()
    pack = max(objects(lab.tm.repo, "data"), key=os.path.getsize)
    flip(pack, 10 * CHUNK, os.path.getsize(pack) - 10)
    verify(lab, code=FAILED)
    os.unlink(max(objects(lab.tm.repo, "index"), key=os.path.getsize))
    r = lab.tm.run("check")
    equal(r.code, FAILED, "check", r)
    before = objects(lab.tm.repo, "")
    r = lab.tm.run("check", "--repair", "--dry-run")
    equal(r.code, FAILED, "check --repair --dry-run", r)
    check("would: make 'index/" in r.out, "says what it would do", r)
    check("would: copy " in r.out, "says what it would copy", r)
    equal(objects(lab.tm.repo, ""), before, "a dry run adds nothing")
    r = lab.tm.run("check", "--repair", "--json")
    equal(r.code, FAILED, "one chunk is lost", r)
    did = r.json()["repair"]
    equal(did["segments_rebuilt"], 1, "segments", r)
    equal(did["frames_lost"], 1, "frames lost", r)
    check(did["frames_copied"] > 50, "frames copied", r)
    os.rename(pack, lab.dir + "/aside")  # nothing needs it any more
    v = verify(lab, code=FAILED)
    equal(v["bad_chunks"], 1, "one chunk is lost")
    r = lab.backup()
    equal(r.committed["healed_chunks"], 1, "the machine still has it", r)
    verify(lab)
    lab.all_restore()
    r = lab.tm.run("check", "--repair")
    equal(r.code, OK, "nothing is left to repair", r)


@test("an encrypted repository is proven, repaired and healed the same way")
def encrypted():
    lab = Lab([("vda", "qcow2", "16M")])
    lab.tm.repo = lab.dir + "/sealed"
    lab.tm.env["TIDEMARK_REPO"] = lab.tm.repo
    lab.tm.env["TIDEMARK_PASSPHRASE_COMMAND"] = "echo a good passphrase"
    lab.tm.init("--encrypt", "--kdf-memory", "64M")
    noise(lab, "vda", 0, 2 << 20)
    lab.backup()
    pack = max(objects(lab.tm.repo, "data"), key=os.path.getsize)
    flip(pack, 10 * CHUNK, os.path.getsize(pack) - 10)
    v = verify(lab, code=FAILED)
    equal(v["bad_chunks"], 1, "bad chunks", v)
    os.unlink(max(objects(lab.tm.repo, "index"), key=os.path.getsize))
    r = lab.tm.run("check", "--repair", "--json")
    did = r.json()["repair"]
    equal([did["segments_rebuilt"], did["frames_copied"], did["frames_lost"]],
          [1, 31, 1], "repaired", r)
    os.unlink(pack)
    r = lab.backup()
    equal(r.committed["healed_chunks"], 1, "healed", r)
    verify(lab)
    lab.all_restore()


@test("stopped and resumed; a sample walks round")
def resume():
    lab = Lab([("vda", "qcow2", "16M")])
    for i in range(4):
        noise(lab, "vda", i << 20, 1 << 20)
        lab.backup()
    run = lab.tm.start("verify", "--limit-rate", "300K", "--threads", "1")
    tap.wait_for("a session of verify",
                 lambda: objects(lab.tm.repo, "session"))
    time.sleep(5)
    run.proc.send_signal(signal.SIGINT)
    r = run.wait()
    check(r.code == 130, "interrupted", r)
    equal(all_verified(lab), [None] * 4, "no point is verified as a whole")
    v = verify(lab, "--resume")
    check(v["packs_skipped"] > 0, "packs were left out", v)
    equal(v["packs_skipped"] + v["packs_read"], v["packs"], "all packs", v)
    check(all(all_verified(lab)), "verified", all_verified(lab))
    equal(verify(lab, "--resume")["packs_skipped"], 0, "it had ended")
    packs = v["packs"]
    read = 0
    while read < packs:
        v = verify(lab, "--sample", "30%")
        check(0 < v["packs_read"] < packs, "some packs", v)
        read += v["packs_read"]
    equal(len(objects(lab.tm.repo, "verified")), 1, "one record")


@test("options that contradict each other")
def usage():
    lab = Lab([("vda", "qcow2", "8M")], start=False)
    for args in (["verify", "--structure", "--sample", "5%"],
                 ["verify", "--sample", "5%", "--resume"],
                 ["verify", "--sample", "5"], ["verify", "--sample", "0%"],
                 ["verify", "--limit-rate", "fast"], ["check", "--dry-run"]):
        equal(lab.tm.run(*args).code, USAGE, " ".join(args))
    verify(lab, "--read-only")
    equal(objects(lab.tm.repo, "verified"), [], "no record")


tap.main()
