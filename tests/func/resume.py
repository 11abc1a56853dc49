#!/usr/bin/env python3
"""A backup that was cut off: what was durable is not read again, and what comes
out is right whatever the guest wrote meanwhile."""

import json
import os
import signal
import subprocess

import images
import tap
from lab import Lab
from tap import cleanup, check, equal, need, skip, test, wait_for
from tidemark import BUSY, OK, WARNING
from vm import Disk, slow_disk

INTEROP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..",
                       "interop", "read-repo.py")
MiB = 1 << 20
SIZE = 32 * MiB
RATE = 8 * MiB


def noise(lab, name, at, length, seed=0):
    """Write bytes that do not compress and are nowhere else."""
    path = "%s/noise-%s-%d-%d" % (lab.dir, name, at, seed)
    with open(path, "wb") as f:
        f.write(images.noise("%s %s %d %d" % (lab.dir, name, at, seed),
                             length))
    lab.vm.io(name, "write -s %s %d %d" % (path, at, length))
    os.unlink(path)


def slow_lab(checkpoint="2097152,600000", full=True, rate=RATE, **kw):
    """Two full disks, qcow2 and raw, of which the first is read slowly."""
    dir = tap.tempdir("slow")
    path = images.make(dir + "/vda.qcow2", "qcow2", SIZE)
    disk, args = slow_disk("vda", path, "qcow2", rate)
    raw = images.make(dir + "/vdb.raw", "raw", 4 * MiB)
    lab = Lab([disk, Disk("vdb", raw, "raw")], args, **kw)
    lab.tm.env["TIDEMARK_CHECKPOINT"] = checkpoint
    if full:
        noise(lab, "vda", 0, SIZE)
        noise(lab, "vdb", 0, 4 * MiB)
    return lab


def start(lab, *args):
    """A backup that has committed a part of it; with its event."""
    run = lab.tm.start("backup", lab.vm.address, "--json", *args)
    for line in iter(run.line, ""):
        event = json.loads(line)
        # of both disks: the other one is small and quick
        if event.get("event") == "checkpoint" and event["done"] > 6 * MiB:
            return run, event
    need(False, "a part became durable", run.wait())


def cut(lab, *args):
    """Cut a backup off by kill -9 once a part of it is durable."""
    run, event = start(lab, *args)
    run.kill()
    check(0 < event["done"] < event["size"], "a part of it", event)
    return event


def next_backup(lab, *args):
    """The next run, after the dead one's lock is gone."""
    r = None

    def not_busy():
        nonlocal r, refs
        refs = lab.reference()
        r = lab.tm.run("backup", lab.vm.address, "--json", *args)
        return r.code != BUSY
    refs = None
    wait_for("the lock of the dead run", not_busy, 60)
    check(r.code in (OK, WARNING), "the next run commits", r)
    need(r.committed, "the next run commits", r)
    r.point = r.committed["point"]
    lab.refs[r.point] = refs
    lab.order.append(r.point)
    equal(lab.vm.leftovers(), [], "leftovers")
    equal(os.listdir(lab.tm.scratch), [], "scratch")
    return r


def write_around(lab, event, seed=7):
    """Below and behind what is done, data, zeroes and discards."""
    done = event["done"]
    lab.vm.io("vda", "write -P 0x%x 128k 192k" % (0x41 + seed),
              "write -z 1M 256k", "discard 1500k 128k",
              "write -P 0x%x %d 300k" % (0x51 + seed, SIZE - 3 * MiB),
              "write -z %d 256k" % (SIZE - MiB))
    lab.vm.io("vdb", "write -P 0x%x 64k 70k" % (0x61 + seed),
              "write -z 3M 128k")
    return done


def resumed(lab, r, event, what, word="unfinished"):
    """Less was read than a whole disk, and it says why."""
    d = r.disk("vda")
    need(d, "vda is in the point", r)
    check(d.get("resumed_bytes", 0) > 0, what + ": went on", d)
    check(d["read_bytes"] <= SIZE - d["resumed_bytes"] + MiB,
          what + ": what was durable is not read again", d)
    check(word in d.get("note", ""), what + ": note", d)
    lab.restores(r.point)


def hidden(lab, n):
    equal(len(lab.tm.points()), n, "points that are told")


@test("killed in the first backup: the next goes on, writes meanwhile are seen")
def first():
    lab = slow_lab()
    event = cut(lab)
    hidden(lab, 0)
    equal(images.sh("python3", INTEROP, lab.tm.repo), "",
          "what another reader lists")
    write_around(lab, event)
    r = next_backup(lab)
    resumed(lab, r, event, "first backup")
    equal(r.disk("vda")["tracking"], "full", "tracking")
    equal(r.disk("vda")["reason"], "first backup", "reason")
    hidden(lab, 1)
    lab.verifies()
    r = lab.backup()
    lab.tracking(r, vda="incremental", vdb="incremental")
    check("resumed_bytes" not in r.disk("vda"), "nothing to go on from", r)
    lab.all_restore()


@test("killed in an incremental backup: both bitmaps count")
def incremental():
    lab = slow_lab(full=False)
    lab.backup()
    noise(lab, "vda", 0, SIZE)
    noise(lab, "vdb", 0, 4 * MiB)
    event = cut(lab)
    write_around(lab, event)
    r = next_backup(lab)
    resumed(lab, r, event, "incremental")
    lab.tracking(r, vda="incremental")
    lab.tracking(lab.backup(), vda="incremental", vdb="incremental")
    lab.all_restore()
    lab.verifies()


@test("killed again and again: every run goes on")
def again():
    lab = slow_lab()
    last = 0
    for i in range(3):
        event = cut(lab)
        check(event["done"] > last, "further than before",
              "%s after %d" % (event, last))
        last = event["done"]
        write_around(lab, event, i)
    r = next_backup(lab)
    resumed(lab, r, event, "third")
    hidden(lab, 1)
    lab.verifies()


@test("killed, then gc and prune: what is durable stays until it is taken over")
def collected():
    lab = slow_lab()
    event = cut(lab)
    for command in (["gc"], ["prune", "--keep-last", "1"], ["gc"]):
        lab.tm.ok(*command)
    lab.verifies()
    write_around(lab, event)
    r = next_backup(lab)
    resumed(lab, r, event, "after a collection")
    lab.tm.ok("gc")
    lab.restores(r.point)
    lab.verifies()


@test("its machine removed: what the unfinished run stored goes")
def removed():
    lab = slow_lab()
    cut(lab)
    lab.tm.ok("prune", "--remove", "--remove-last", lab.vm.name)
    lab.tm.ok("gc")
    equal(images_of(lab.tm.repo), [], "packs left")
    r = next_backup(lab)
    check("resumed_bytes" not in r.disk("vda"), "read from the start", r)
    lab.restores(r.point)


def images_of(repo):
    """All packs with data."""
    return [os.path.join(d, f) for d, _, files in os.walk(repo + "/data")
            for f in files]


@test("stopped by a signal: a last part becomes durable")
def interrupted():
    lab = slow_lab()
    run, event = start(lab)
    os.kill(run.proc.pid, signal.SIGINT)
    r = run.wait(60)
    check(r.code not in (OK, WARNING), "not a success", r)
    equal(lab.vm.leftovers(), [], "leftovers")
    write_around(lab, event)
    r = next_backup(lab)
    resumed(lab, r, event, "after SIGINT")


@test("QEMU killed after us: persistent bitmaps are gone, read in full, right")
def qemu_too():
    lab = slow_lab()
    event = cut(lab)
    lab.vm.kill()
    lab.vm.start()
    write_around(lab, event)
    r = next_backup(lab)
    check("resumed_bytes" not in r.disk("vda"), "nothing is believed", r)
    lab.restores(r.point)
    lab.tracking(lab.backup(), vda="incremental")


@test("QEMU ends in order after us: the qcow2 disk goes on, the raw one not")
def qemu_restarts():
    lab = slow_lab()
    event = cut(lab)
    # what the dead run left must go first, or QEMU does not end
    lab.tm.run("doctor", lab.vm.address)
    lab.vm.quit()
    lab.vm.start()
    write_around(lab, event)
    r = next_backup(lab)
    resumed(lab, r, event, "qcow2")
    check("resumed_bytes" not in r.disk("vdb"), "raw: from the start", r)


@test("one of the two bitmaps is gone or cleared: only the other is believed")
def bitmaps():
    for how in ("own", "base", "own cleared", "base cleared"):
        lab = slow_lab(full=False)
        lab.backup()
        (node, base), = generations(lab, "vda")
        noise(lab, "vda", 0, SIZE)
        event = cut(lab)
        own = next(n for _, n in generations(lab, "vda") if n != base)
        lab.vm.io("vda", "write -P 0x33 300k 100k")
        name = own if how.startswith("own") else base
        lab.vm.qmp.call("block-dirty-bitmap-clear" if "cleared" in how
                   else "block-dirty-bitmap-remove", node=node, name=name)
        write_around(lab, event)
        r = next_backup(lab)
        d = r.disk("vda")
        if how == "own":
            check("resumed_bytes" not in d, how, d)
            equal(d["tracking"], "incremental", how)
        elif how == "own cleared":
            equal(d["tracking"], "incremental", how)
        else:
            check(d.get("resumed_bytes", 0) > 0, how, d)
            equal(d["tracking"], "full", how)
            check(d["reason"] != "", how + ": reason", d)
        lab.restores(r.point)
        lab.tracking(lab.backup(), vda="incremental")
        lab.vm.kill()


def generations(lab, disk):
    """(node, name) of our bitmaps on the disk."""
    path = lab.disk(disk).path
    nodes = [n["node-name"] for n in lab.vm.nodes()
             if path in n.get("file", "")]
    return [(n, b["name"]) for n in nodes
            for b in lab.vm.bitmaps().get(n, [])
            if b["name"].count("-") == 2 and len(b["name"]) > 50]


@test("packs of the unfinished run cut short or gone: their chunks are read again")
def damaged():
    for how in ("cut", "gone", "flipped"):
        lab = slow_lab()
        event = cut(lab)
        packs = sorted(images_of(lab.tm.repo), key=os.path.getsize)
        path = packs[-1]
        if how == "gone":
            os.unlink(path)
        elif how == "cut":
            os.truncate(path, os.path.getsize(path) // 2)
        else:
            with open(path, "r+b") as f:
                f.seek(os.path.getsize(path) // 2)
                byte = f.read(1)
                f.seek(-1, os.SEEK_CUR)
                f.write(bytes([byte[0] ^ 0x10]))
            check(lab.tm.run("verify").code != OK, "verify sees it")
        write_around(lab, event)
        r = next_backup(lab)
        lab.restores(r.point)
        lab.vm.kill()


@test("encrypted repository")
def encrypted():
    lab = slow_lab()
    secret = lab.dir + "/secret"
    with open(secret, "w") as f:
        f.write("correct horse")
    lab.tm.repo = lab.tm.env["TIDEMARK_REPO"] = lab.dir + "/sealed"
    lab.tm.env["TIDEMARK_PASSPHRASE_COMMAND"] = "cat " + secret
    lab.tm.init("--encrypt", "--kdf-memory", "64M")
    event = cut(lab)
    write_around(lab, event)
    r = next_backup(lab)
    resumed(lab, r, event, "encrypted")
    lab.verifies()


@test("the repository goes away in the middle: the next run goes on")
def repository_lost():
    lab = slow_lab()
    run, event = start(lab)
    away = lab.tm.repo + ".away"
    os.rename(lab.tm.repo, away)
    r = run.wait(120)
    check(r.code not in (OK, WARNING), "not a success", r)
    equal(lab.vm.leftovers(), [], "leftovers")
    os.rename(away, lab.tm.repo)
    write_around(lab, event)
    r = next_backup(lab)
    resumed(lab, r, event, "repository back")
    lab.verifies()


@test("the repository fills up in the middle: the next run goes on")
def repository_full():
    if os.geteuid() != 0:
        skip("mounting a tmpfs needs root")
    path = tap.tempdir("tmpfs")
    p = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs",
                        path], capture_output=True, text=True)
    if p.returncode != 0:
        skip("no tmpfs here: " + p.stderr.strip())
    cleanup(lambda: images.sh("umount", path))
    lab = slow_lab()
    lab.tm.repo = lab.tm.env["TIDEMARK_REPO"] = path + "/repo"
    lab.tm.init()
    run, event = start(lab)
    r = run.wait(120)
    check(r.code not in (OK, WARNING), "not a success", r)
    equal(lab.vm.leftovers(), [], "leftovers")
    images.sh("mount", "-o", "remount,size=100m", path)
    write_around(lab, event)
    r = next_backup(lab)
    resumed(lab, r, event, "room again")
    lab.verifies()


@test("a backup with checkpoints that ends well: only the point is left")
def whole():
    lab = slow_lab(rate=64 * MiB)
    refs = lab.reference()
    run, event = start(lab)
    lab.vm.io("vda", "write -P 0x77 0 1M", "write -P 0x78 %d 1M"
              % (SIZE - MiB))
    r = run.wait()
    need(r.committed, "it commits", r)
    lab.refs[r.committed["point"]] = refs
    lab.order.append(r.committed["point"])
    hidden(lab, 1)
    lab.restores()
    lab.tm.ok("gc")
    lab.verifies()
    lab.restores()
    lab.tracking(lab.backup(), vda="incremental", vdb="incremental")
    lab.restores()


@test("a guest that zeroes and trims during a backup: the point has what was")
def zeroed():
    lab = slow_lab(rate=4 * MiB)
    refs = lab.reference()
    run, event = start(lab, "--hold")
    lab.vm.io("vda", "write -z 20M 4M", "write -z -u 28M 2M",
              "discard 26M 1M")
    r = run.wait()
    need(r.committed, "it commits", r)
    lab.refs[r.committed["point"]] = refs
    lab.order.append(r.committed["point"])
    lab.restores()
    lab.tracking(lab.backup(), vda="incremental", vdb="incremental")
    lab.restores()


@test("an audit fails after a part became durable: full read, same instant")
def audited():
    lab = slow_lab(full=False)
    lab.backup()
    (node, name), = generations(lab, "vda")
    lab.vm.qmp.call("block-dirty-bitmap-disable", node=node, name=name)
    noise(lab, "vda", SIZE - 2 * MiB, MiB)
    lab.vm.qmp.call("block-dirty-bitmap-enable", node=node, name=name)
    noise(lab, "vda", 0, SIZE - 4 * MiB)
    noise(lab, "vdb", 0, 4 * MiB)
    r = lab.backup("--audit", "all")
    check(any(e.get("event") == "checkpoint" for e in r.events),
          "a part was durable", r)
    lab.tracking(r, vda="full")
    check("audit" in r.disk("vda")["reason"], "reason", r)
    hidden(lab, 2)
    lab.restores()
    lab.tracking(lab.backup(), vda="incremental", vdb="incremental")
    lab.all_restore()
    lab.verifies()


def audited_granule(block, period):
    """Which of a block's granules the first audit re-reads (job/audit.c)."""
    m = (1 << 64) - 1
    x = (block + 0x9e3779b97f4a7c15) & m
    x = ((x ^ (x >> 30)) * 0xbf58476d1ce4e5b9) & m
    x = ((x ^ (x >> 27)) * 0x94d049bb133111eb) & m
    return block * period + (x ^ (x >> 31)) % period


def lie(lab, *places):
    """Writes of 512 KiB that the bitmap of the last point does not see."""
    (node, name), = generations(lab, "vda")
    lab.vm.qmp.call("block-dirty-bitmap-disable", node=node, name=name)
    for at in places:
        noise(lab, "vda", at, MiB // 2, 9)
    lab.vm.qmp.call("block-dirty-bitmap-enable", node=node, name=name)
    return name


@test("an audit fails after a part became durable, and the full read is cut off")
def audited_and_cut():
    for how in (signal.SIGKILL, signal.SIGTERM):
        lab = slow_lab(full=False)
        lab.backup()
        early, late = audited_granule(1, 2), audited_granule(14, 2)
        name = lie(lab, (early ^ 1) * MiB, late * MiB)
        noise(lab, "vda", 4 * MiB, 22 * MiB)
        run, event = start(lab, "--audit", "50%")
        wait_for("the audit to fail",
                 lambda: all(n != name for _, n in generations(lab, "vda")), 60)
        os.killpg(run.proc.pid, how)
        r = run.wait(120)
        check(r.code not in (OK, WARNING), "cut off", r)
        r = next_backup(lab, "--audit", "off")
        lab.restores(r.point)
        lab.tracking(lab.backup(), vda="incremental", vdb="incremental")
        lab.all_restore()
        lab.vm.quit()


@test("a backing file was written before the next run: nothing is gone on from")
def backing_written():
    dir = tap.tempdir("based")
    base = images.make(dir + "/base.qcow2", "qcow2", SIZE)
    images.sh("qemu-io", "-f", "qcow2", "-c", "write -P 0x51 0 4M", base)
    images.sh("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F",
              "qcow2", dir + "/vda.qcow2", str(SIZE))
    disk, args = slow_disk("vda", dir + "/vda.qcow2", "qcow2", RATE)
    lab = Lab([disk], args)
    lab.tm.env["TIDEMARK_CHECKPOINT"] = "2097152,600000"
    noise(lab, "vda", 2 * MiB, SIZE - 2 * MiB)
    run, event = start(lab)
    run.kill()
    lab.vm.quit()
    images.sh("qemu-io", "-f", "qcow2", "-c", "write -P 0x52 1M 64k", base)
    lab.vm.start()
    r = next_backup(lab)
    check("resumed_bytes" not in r.disk("vda"), "nothing is gone on from", r)
    lab.restores(r.point)
    lab.verifies()


# -- the same instant --------------------------------------------------------

def wait_free(lab, *args, env=None):
    """Run a backup once the dead run's lock is gone."""
    r = None

    def not_busy():
        nonlocal r
        r = lab.tm.run("backup", lab.vm.address, "--json", *args, env=env)
        return r.code != BUSY
    wait_for("the lock of the dead run", not_busy, 60)
    return r


def same_instant(lab, refs, what, env=None):
    """--resume gives the disks as they were at the dead run's instant."""
    r = wait_free(lab, "--resume", env=env)
    need(r.committed, what + ": it commits", r)
    r.point = r.committed["point"]
    lab.refs[r.point] = refs
    lab.order.append(r.point)
    equal(lab.vm.leftovers(), [], what + ": leftovers")
    equal(os.listdir(lab.tm.scratch), [], what + ": scratch")
    lab.restores(r.point)
    return r


def goes_on(lab):
    lab.tracking(lab.backup(), vda="incremental", vdb="incremental")
    lab.all_restore()
    lab.verifies()


RUNGS = ({}, {"TIDEMARK_PULL": "overlay"})


@test("--resume: the same instant, first and incremental, both rungs")
def finish():
    for env in RUNGS:
        for old in (False, True):
            lab = slow_lab(full=not old)
            lab.tm.env.update(env)
            if old:
                lab.backup()
                noise(lab, "vda", 0, SIZE)
                noise(lab, "vdb", 0, 4 * MiB)
            refs = lab.reference()
            event = cut(lab)
            write_around(lab, event)
            r = same_instant(lab, refs, "%s %s" % (env, old))
            resumed(lab, r, event, "same instant", "instant")
            hidden(lab, 1 + old)
            goes_on(lab)
            lab.vm.quit()


@test("another machine's backup leaves a held instant's scratch alone")
def neighbours():
    lab = slow_lab()
    refs = lab.reference()
    event = cut(lab)
    other = Lab([("vda", "qcow2", "8M")], name="other")
    lab.tm.ok("backup", other.vm.address, codes=(OK, WARNING))
    write_around(lab, event)
    r = same_instant(lab, refs, "after a neighbour's backup")
    resumed(lab, r, event, "neighbour", "instant")


@test("--resume of a run that had made nothing durable: read from the start")
def from_start():
    lab = slow_lab(checkpoint="1000000000,1000000")
    refs = lab.reference()
    run = lab.tm.start("backup", lab.vm.address)
    wait_for("the instant", lambda: len(lab.vm.filters()) == 2)
    wait_for("its exports", lambda: len(
        lab.vm.qmp.call("query-block-exports")) == 2)
    # the journal's last word comes after the exports
    wait_for("its journal", lambda: "time_ns" in journal(lab))
    run.kill()
    write_around(lab, {"done": 0})
    r = same_instant(lab, refs, "from the start")
    check("resumed_bytes" not in r.disk("vda"), "nothing was durable", r)
    goes_on(lab)


def journal(lab):
    text = ""
    for f in os.listdir(lab.tm.run_dir):
        if f.endswith(".lock") and not f.startswith("pid-"):
            with open(os.path.join(lab.tm.run_dir, f)) as file:
                text += file.read()
    return text


@test("--resume of a run that went on from another, killed once more")
def finish_twice():
    lab = slow_lab(full=False)
    lab.backup()
    noise(lab, "vda", 0, SIZE)
    noise(lab, "vdb", 0, 4 * MiB)
    event = cut(lab)
    write_around(lab, event)
    refs = lab.reference()
    # a new instant, based on what the first run has made durable
    wait_for("the lock", lambda: cut_again(lab), 60)
    write_around(lab, event, 20)
    wait_for("the lock", lambda: cut_again(lab, "--resume"), 60)
    write_around(lab, event, 30)
    r = same_instant(lab, refs, "twice")
    resumed(lab, r, event, "twice", "instant")
    goes_on(lab)


def cut_again(lab, *args):
    """cut(), but False while the dead run's lock is held."""
    run = lab.tm.start("backup", lab.vm.address, "--json", *args)
    for line in iter(run.line, ""):
        if json.loads(line).get("event") == "checkpoint":
            run.kill()
            return True
    r = run.wait()
    need(r.code == BUSY, "a part became durable", r)
    return False


def refused(lab, what, *words):
    filters = lab.vm.filters()
    bitmaps = {n: sorted(b["name"] for b in v)
               for n, v in lab.vm.bitmaps().items()}
    r = wait_free(lab, "--resume")
    check(r.code not in (OK, WARNING, BUSY), what + ": refused", r)
    check(any(w in r.err for w in words), what + ": says why", r)
    check("without" in r.err, what + ": says what to do", r)
    equal(lab.vm.filters(), filters, what + ": filters as before")
    equal({n: sorted(b["name"] for b in v)
           for n, v in lab.vm.bitmaps().items()}, bitmaps,
          what + ": bitmaps as before")


@test("--resume refused: nothing changes, and a plain backup goes on")
def refusals():
    lab = slow_lab()
    refused(lab, "no dead run", "no run was cut off")
    event = cut(lab)
    job = lab.vm.qmp.call("query-jobs")[0]["id"]
    lab.vm.qmp.call("job-cancel", id=job)
    refused(lab, "job canceled", "job", "does not hold")
    write_around(lab, event)
    resumed(lab, next_backup(lab), event, "after a refusal")

    noise(lab, "vda", 0, SIZE, 1)
    event = cut(lab)
    other = lab.dir + "/other"
    lab.tm.ok("init", other)
    r = wait_free(lab, "--resume", "--repo", other)
    check("another repository" in r.err, "another repository", r)
    last = next(p for p in lab.tm.points())["point"]
    was = lab.tm.ok("show", "web1@" + last, "--json").json()
    old = next(d["generation"] for d in was["disks"] if d["disk"] == "vda")
    node, name = next(g for g in generations(lab, "vda") if old not in g[1])
    lab.vm.qmp.call("block-dirty-bitmap-remove", node=node, name=name)
    refused(lab, "bitmap removed", "bitmap")
    r = next_backup(lab)
    lab.restores(r.point)

    noise(lab, "vda", 0, SIZE, 2)
    cut(lab)
    lab.vm.kill()
    lab.vm.start()
    refused(lab, "QEMU restarted", "disk", "hold", "job")
    r = next_backup(lab)
    lab.restores(r.point)
    lab.verifies()


@test("--resume: what the repository has lost meanwhile is read again")
def same_and_lost():
    for old in (False, True):
        lab = slow_lab(full=not old)
        if old:
            lab.backup()
            noise(lab, "vda", 0, SIZE)
        refs = lab.reference()
        before = set(images_of(lab.tm.repo)) if old else set()
        event = cut(lab)
        packs = set(images_of(lab.tm.repo)) - before
        os.unlink(max(packs, key=os.path.getsize))
        write_around(lab, event)
        same_instant(lab, refs, "a pack lost")
        lab.verifies()
        lab.vm.quit()


@test("--resume: an audit fails behind what was durable, tracking goes on")
def same_and_audited():
    lab = slow_lab(full=False)
    lab.backup()
    lie(lab, 29 * MiB)
    noise(lab, "vda", 0, 28 * MiB)
    refs = lab.reference()
    event = cut(lab, "--audit", "all")
    write_around(lab, event)
    r = wait_free(lab, "--resume", "--audit", "all")
    need(r.committed, "it commits", r)
    check("audit failed" in r.disk("vda")["reason"], "reason", r)
    check(not any("bitmaps" in w for w in r.committed["warnings"]),
          "its bitmap is there", r)
    lab.refs[r.committed["point"]] = refs
    lab.restores(r.committed["point"])
    goes_on(lab)


@test("--hold: the repository goes away, the instant waits for it")
def hold():
    lab = slow_lab()
    refs = lab.reference()
    run, event = start(lab, "--hold")
    away = lab.tm.repo + ".away"
    os.rename(lab.tm.repo, away)
    r = run.wait(120)
    check(r.code not in (OK, WARNING), "not a success", r)
    equal(len(lab.vm.filters()), 2, "the instant is held")
    os.rename(away, lab.tm.repo)
    write_around(lab, event)
    r = same_instant(lab, refs, "held")
    resumed(lab, r, event, "held", "instant")
    goes_on(lab)


@test("--hold, and then a plain backup: cleared away, gone on from")
def hold_plain():
    lab = slow_lab()
    run, event = start(lab, "--hold")
    away = lab.tm.repo + ".away"
    os.rename(lab.tm.repo, away)
    run.wait(120)
    os.rename(away, lab.tm.repo)
    write_around(lab, event)
    resumed(lab, next_backup(lab), event, "plain")
    goes_on(lab)


tap.main()
