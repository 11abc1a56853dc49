#!/usr/bin/env python3
"""The shape of what --json prints: programs depend on it."""

import json
import re

import tap
from lab import Lab
from tap import check, equal, test
from tidemark import OK, USAGE, WARNING

COMMITTED = {"event": str, "machine": str, "point": str, "consistency": str,
             "freeze_ms": int, "disks": list, "warnings": list}
DISK = {"disk": str, "tracking": str, "reason": str, "size": int,
        "read_bytes": int, "dirty_bytes": int, "new_bytes": int,
        "stored_bytes": int}


def shape(value, fields, what):
    for name, kind in fields.items():
        check(type(value.get(name)) is kind,
              "%s: %s is %s" % (what, name, kind.__name__), value)


def small():
    lab = Lab([("vda", "qcow2", "8M"), ("vdb", "raw", "8M")])
    lab.vm.io("vda", "write -P 0x11 0 1M")
    return lab


@test("backup: every line is an object with an event, the last is committed")
def backup():
    lab = small()
    for expected in ("full", "incremental"):
        r = lab.backup()
        for line in r.out.splitlines():
            value = json.loads(line)
            check(isinstance(value.get("event"), str), "event in " + line)
        shape(r.committed, COMMITTED, "committed")
        check(re.fullmatch(r"[0-9a-f]{32}", r.point), "point is 32 hex digits",
              r.point)
        check(r.committed["consistency"] in ("filesystem", "crash"),
              "consistency")
        equal(len(r.committed["disks"]), 2, "disks")
        for d in r.committed["disks"]:
            shape(d, DISK, "disk")
            equal(d["size"], 8 << 20, "size")
            equal(d["tracking"], expected, "tracking of " + d["disk"])
            check((d["reason"] != "") == (expected == "full"),
                  "a reason exactly when full", d)
            check(d["new_bytes"] >= d["stored_bytes"] >= 0
                  or d["stored_bytes"] <= d["new_bytes"] + (1 << 16),
                  "stored is not more than new", d)
    equal(r.code in (OK, WARNING), True, "exit status", r)
    equal(r.code == WARNING, bool(r.committed["warnings"]),
          "a warning exactly when exit 1", r)


@test("points, show, verify and restore give one JSON object")
def others():
    lab = small()
    lab.backup()
    points = lab.tm.ok("points", "--json").json()
    equal(len(points["points"]), 1, "points")
    p = points["points"][0]
    shape(p, {"machine": str, "point": str, "seq": int, "consistency": str,
              "disks": list}, "point")
    show = lab.tm.ok("show", "web1@latest", "--json").json()
    equal(show["point"], p["point"], "show: point")
    check("machine" in show, "show: machine", show)
    verify = lab.tm.ok("verify", "--json").json()
    shape(verify, {"points": int, "chunks": int, "bytes": int,
                   "problems": list}, "verify")
    r = lab.tm.ok("restore", "web1@latest", "--to", lab.dir + "/r", "--json")
    check(r.events, "restore: JSON", r)
    with open(lab.dir + "/r/machine.json") as f:
        check(isinstance(json.load(f), dict), "machine.json is an object")


@test("errors go to stderr with words, and leave stdout to JSON")
def errors():
    lab = small()
    for args, code in ((["points", "--bogus"], USAGE), (["bogus"], USAGE),
                       ([], USAGE), (["backup"], USAGE)):
        r = lab.tm.run(*args)
        equal(r.code, code, "exit status of %s" % args, r)
        check(r.err.strip(), "words on stderr", r)
    r = lab.tm.run("show", "web1@latest", "--json")
    check(r.code not in (OK, WARNING), "no points yet", r)
    check(r.err.strip() or r.events, "words", r)


@test("--help and --version say something and end with 0")
def help_texts():
    lab = small()
    for args in (["--help"], ["--version"], ["backup", "--help"],
                 ["restore", "--help"]):
        r = lab.tm.run(*args)
        equal(r.code, OK, "exit status of %s" % args, r)
        check(r.out.strip(), "on stdout", r)


tap.main()
