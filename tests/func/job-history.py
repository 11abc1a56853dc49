#!/usr/bin/env python3
"""Every run is in the history: how it ended, why its disks were read as they
were, what it said, and that it died."""

import os
import signal
import subprocess

import images
import tap
from lab import Lab
from tap import check, equal, test, wait_for
from tidemark import BUSY, FAILED, OK, UNREACHABLE, WARNING
from vm import Disk, slow_disk

KEY = 7  # exit status


def runs(lab, *args):
    return lab.tm.ok("history", "--json", "--last", "all", *args).json()["runs"]


def one(lab, run):
    return lab.tm.ok("history", "--run", run["id"], "--json").json()


def texts(run):
    return [line["text"] for line in run["log"]]


def slow_lab():
    """A disk whose copy takes a few seconds."""
    dir = tap.tempdir("slow")
    path = images.make(dir + "/vda.qcow2", "qcow2", "32M")
    disk, args = slow_disk("vda", path, "qcow2", 4 << 20)
    lab = Lab([disk], args)
    lab.vm.io("vda", "write -P 0x11 0 24M")
    return lab


def until_copying(lab, run):
    """Read its events until the instant was taken."""
    while True:
        line = run.line()
        tap.need(line, "the run goes on until its instant")
        if '"instant"' in line:
            return


@test("success: figures, reasons, points, newest first")
def success():
    lab = Lab([("vda", "qcow2"), ("vdb", "raw")])
    lab.vm.io("vda", "write -P 0x11 0 8M")
    first = lab.backup()
    lab.vm.io("vda", "write -P 0x12 1M 1M")
    lab.backup()
    lab.verifies()
    lab.tm.ok("gc", "--dry-run")
    got = runs(lab)
    equal([r["command"] for r in got], ["verify", "backup", "backup"],
          "what is recorded")
    old = one(lab, got[2])
    equal(old["machine"], lab.vm.name, "machine")
    equal(old["target"], lab.vm.address, "target")
    equal(old["point"], first.point, "point")
    equal(old["tracking"], "full", "tracking")
    equal(old["repository"], os.path.realpath(lab.tm.repo), "repository")
    equal(old["result"]["disks"], first.committed["disks"], "the whole result")
    equal([d["reason"] for d in old["plan"]["disks"]],
          [d["reason"] for d in first.committed["disks"]], "reasons")
    equal(old["read_bytes"],
          sum(d["read_bytes"] for d in first.committed["disks"]), "read")
    check(any('"instant"' in t for t in texts(old)), "events are in the log",
          old["log"])
    equal(got[1]["tracking"], "incremental", "the second backup")
    equal([r["id"] for r in runs(lab, lab.vm.name)],
          [r["id"] for r in got[1:]], "runs of the machine")
    equal(runs(lab, "--failed"), [], "nothing failed")
    table = lab.tm.ok("history").out
    check("web" in table or lab.vm.name in table, "the table", table)
    text = lab.tm.ok("history", "--run", got[2]["id"]).out
    check("log:" in text and first.point in text, "a run for people", text)


@test("failure: QEMU killed, and a machine that is not there")
def failure():
    lab = slow_lab()
    run = lab.tm.start("backup", lab.vm.address, "--json")
    until_copying(lab, run)
    lab.vm.kill()
    r = run.wait()
    again = lab.tm.run("backup", lab.vm.address)
    got = runs(lab, "--failed")
    equal([x["exit_status"] for x in got], [again.code, r.code], "statuses")
    equal(again.code, UNREACHABLE, "nobody there", again)
    for x in got:
        equal(x["state"], "failed", "state")
        check(x["error"] and x["error"] in r.err + again.err, "error", x)
    full = one(lab, got[1])
    equal(full["plan"]["disks"][0]["tracking"], "full", "plan of the failed run")
    check(full["point"] is None and full["result"] is None, "no point", full)
    check(any(full["error"] in t for t in texts(full)), "error in the log")


@test("kill -9: died, with its log; the next run does not wait for it")
def died():
    lab = slow_lab()
    run = lab.tm.start("backup", lab.vm.address, "--json")
    until_copying(lab, run)

    def flushed():
        now = runs(lab)[0]
        return now["state"] == "running" and now["phase"] == "read"
    wait_for("progress in the history", flushed, 60)
    run.kill()
    got = runs(lab)[0]
    equal(got["state"], "died", "state")
    full = one(lab, got)
    equal(full["state"], "died", "state of the one")
    check(full["end"] and full["exit_status"] is None, "its end", full)
    check(any('"plan"' in t for t in texts(full)) and
          any('"instant"' in t for t in texts(full)), "its log", full["log"])
    equal(full["plan"]["disks"][0]["tracking"], "full", "its plan")
    wait_for("the next run", lambda: lab.tm.run(
        "backup", lab.vm.address).code != BUSY, 60)
    states = [r["state"] for r in runs(lab) if r["exit_status"] != BUSY]
    equal(states, ["done", "died"], "states")


@test("stopped by a signal: canceled")
def canceled():
    lab = slow_lab()
    run = lab.tm.start("backup", lab.vm.address, "--json")
    until_copying(lab, run)
    run.kill(signal.SIGTERM)
    equal(run.wait().code, 130, "exit status")
    equal(runs(lab)[0]["state"], "canceled", "state")


@test("two backups at once are two runs, and a parent has children")
def together():
    lab = slow_lab()
    other = Lab([("vda", "raw", "4M")])
    run = lab.tm.start("backup", lab.vm.address, "--json")
    until_copying(lab, run)
    check(runs(lab)[0]["state"] == "running", "the first one runs")
    lab.tm.ok("backup", other.vm.address, "--name", "other",
              codes=(OK, WARNING), env={"TIDEMARK_RUN_PARENT": "1"})
    equal(run.wait().code, OK, "the first one commits")
    got = runs(lab)
    equal([r["state"] for r in got], ["done", "done"], "states")
    equal([c["id"] for c in one(lab, got[1])["children"]], [got[0]["id"]],
          "children of the first")


@test("a history that cannot be written costs one warning")
def not_written():
    lab = Lab([("vda", "raw", "4M")])
    with open(lab.dir + "/file", "w"):
        pass
    r = lab.tm.ok("backup", lab.vm.address, "--json", codes=(WARNING,),
                  env={"TIDEMARK_STATE": lab.dir + "/file/state"})
    check(r.committed, "the point is committed", r)
    equal(r.err.count("history could not be written"), 1, "one warning", r)
    # held by somebody who does not let go
    lab.backup()
    db = lab.tm.state + "/history.db"
    holder = subprocess.Popen(
        ["python3", "-c", "import sqlite3, sys\n"
         "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
         "c.execute('BEGIN EXCLUSIVE'); print('held', flush=True)\n"
         "sys.stdin.read()", db],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    tap.cleanup(lambda: (holder.stdin.close(), holder.wait(30)))
    equal(holder.stdout.readline(), "held\n", "the lock is held")
    r = lab.tm.ok("backup", lab.vm.address, "--json", codes=(WARNING,))
    check(r.committed, "the point is committed", r)
    equal(r.err.count("history could not be written"), 1, "one warning", r)
    equal(r.err.count("warning"), 1, "and no other", r)


@test("no passphrase gets into it")
def secrets():
    lab = Lab([("vda", "raw", "4M")])
    tm = lab.tm
    right, wrong = "correct-horse-4711", "battery-staple-0815"
    tm.env["TIDEMARK_PASSPHRASE_COMMAND"] = "echo " + right
    tm.env["TIDEMARK_REPO"] = tm.dir + "/secret"
    tm.ok("init", tm.dir + "/secret", "--encrypt", "--kdf-memory", "64M")
    tm.ok("backup", lab.vm.address, "--debug", codes=(OK, WARNING))
    r = tm.run("verify", "--passphrase-command", "echo " + wrong)
    equal(r.code, KEY, "a wrong passphrase", r)
    equal([x["state"] for x in runs(lab)], ["failed", "done"], "states")
    for name in os.listdir(tm.state):
        with open(tm.state + "/" + name, "rb") as f:
            bytes_ = f.read()
        for word in (right, wrong):
            check(word.encode() not in bytes_, "no passphrase in " + name)


@test("a damaged history is moved aside with a warning")
def damaged():
    lab = Lab([("vda", "raw", "4M")])
    lab.backup()
    with open(lab.tm.state + "/history.db", "r+b") as f:
        f.write(b"junk" * 100)
    r = lab.tm.run("history")
    equal(r.code, FAILED, "reading says so", r)
    check("damaged" in r.err, "in words", r)
    r = lab.tm.ok("check", codes=(WARNING,))
    check("the history was damaged" in r.err, "warning", r)
    equal(len(runs(lab)), 1, "a new one has begun")
    lab.backup(codes=(OK,))


tap.main()
