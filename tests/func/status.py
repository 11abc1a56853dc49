#!/usr/bin/env python3
"""`tidemark status`: ages, tracking, proof; the exit status for monitoring; the
file for Prometheus."""

import os
import re
import time

import images
import tap
from fleet import Fleet
from history import History
from lab import Lab
from tap import check, equal, need, test
from tidemark import FAILED, OK, USAGE, WARNING

HOUR = 3600


def states(r):
    return {m["machine"]: m["state"] for m in r.json()["machines"]}


# -- the text format, strictly as its specification says ---------------------

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"'
SAMPLE = re.compile(r"(%s)(?:\{(%s(?:,%s)*)\})? (-?[0-9]+(?:\.[0-9]+)?)"
                    % (NAME, LABEL, LABEL))
ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


def exposition(text):
    """{(name, ((label, value), ...)): number}; raises what is wrong."""
    need(text.endswith("\n"), "the last line ends")
    samples, types, helps, now, done = {}, {}, set(), None, set()
    for line in text[:-1].split("\n"):
        if line.startswith("#"):
            m = re.fullmatch(r"# (HELP|TYPE) (%s) (.+)" % NAME, line)
            need(m, "a comment that is no HELP or TYPE: " + line)
            word, name, rest = m.groups()
            if name != now:
                need(name not in done, "two groups of " + name)
                done.add(now)
                now = name
            if word == "TYPE":
                need(name not in types, "two types of " + name)
                need(rest in ("gauge", "counter", "untyped"), "type " + rest)
                types[name] = rest
            else:
                need(name not in helps, "two HELP of " + name)
                need(re.fullmatch(r"(?:[^\\]|\\\\|\\n)*", rest), "HELP " + rest)
                helps.add(name)
            continue
        m = SAMPLE.fullmatch(line)
        need(m, "not a sample: " + line)
        need(m.group(1) == now, "a sample outside of its group: " + line)
        need(now in types and now in helps, "no TYPE or HELP before " + line)
        labels = tuple((k, re.sub(r'\\[\\"n]', lambda e: ESCAPES[e.group()], v))
                       for k, v in re.findall(LABEL, m.group(2) or ""))
        need(len({k for k, _ in labels}) == len(labels), "a label twice")
        key = (m.group(1), labels)
        need(key not in samples, "a sample twice: " + line)
        samples[key] = float(m.group(m.lastindex))
    return samples


# -- tests -------------------------------------------------------------------

@test("ok, too old, twice as old, no point: 0, 1, 5, 5")
def ages():
    h = History()
    now = int(time.time())
    for name, hours in (("fresh", 1), ("old", 30), ("dead", 60)):
        h.add(name, now - (hours + 100) * HOUR, writes=[(0, 4, 1)])
        h.add(name, now - hours * HOUR, writes=[(0, 4, 2)])
    h.add("future", now + 2 * HOUR, writes=[(0, 4, 3)])
    h.make()
    r = h.tm.run("status", "--json")
    equal(r.code, FAILED, "exit status", r)
    equal(states(r), {"fresh": "ok", "old": "warning", "dead": "critical",
                      "future": "warning"}, "states", r)
    ages = {m["machine"]: m.get("age_s", 0) for m in r.json()["machines"]}
    check(abs(ages["old"] - 30 * HOUR) < 600, "age", ages)
    cases = [(["fresh"], OK, "OK"), (["old"], WARNING, "WARNING"),
             (["fresh", "dead"], FAILED, "CRITICAL"),
             (["future"], WARNING, "WARNING"),
             (["nobody"], FAILED, "CRITICAL"),
             (["old", "--max-age", "31h"], OK, "OK"),
             (["fresh", "--max-age", "20m"], FAILED, "CRITICAL")]
    for args, code, word in cases:
        r = h.tm.run("status", *args)
        equal(r.code, code, " ".join(args), r)
        check(r.out.startswith("TIDEMARK %s - " % word), "the first line", r)
    r = h.tm.run("status", "old", "--quiet")
    equal(len(r.out.splitlines()), 1, "one line for a plug-in", r)
    check("old: last good point" in r.out and "should be" in r.out,
          "it says what and how much", r)
    equal(h.tm.run("status", "--max-age", "soon").code, USAGE, "a bad age")


@test("the configuration says which machines count, and how old is old")
def configured():
    h = History()
    now = int(time.time())
    h.add("web1", now - 5 * HOUR, writes=[(0, 4, 1)])
    h.add("db", now - 5 * HOUR, writes=[(0, 4, 2)])
    h.add("retired", now - 900 * HOUR, writes=[(0, 4, 3)])
    h.make()
    conf = h.tm.dir + "/t.conf"
    with open(conf, "w") as f:
        f.write("[defaults]\nmax-age = 6h\n[repository r]\npath = %s\n"
                "[repository gone]\npath = %s/gone\n"
                "[machine web1]\nsource = qmp:/none\nrepository = r\n"
                "[machine database]\nname = db\nsource = qmp:/none\n"
                "repository = r\nmax-age = 4h\n"
                "[machine new]\nsource = qmp:/none\nrepository = r\n"
                "[machine lost]\nsource = qmp:/none\nrepository = gone\n"
                % (h.tm.repo, h.tm.dir))
    os.chmod(conf, 0o644)
    env = {"TIDEMARK_CONFIG": conf, "TIDEMARK_REPO": ""}
    r = h.tm.run("status", "--json", env=env)
    equal(r.code, FAILED, "exit status", r)
    equal(states(r), {"web1": "ok", "database": "warning", "new": "critical",
                      "retired": "ok", "lost": "critical"}, "states", r)
    text = {m["machine"]: m["text"] for m in r.json()["machines"]}
    equal(text["new"], "no point", "what is wrong")
    check("gone" in text["lost"], "a repository that cannot be read", text)
    m = {m["machine"]: m for m in r.json()["machines"]}
    check(not m["retired"]["configured"], "it is not configured any more")
    r = h.tm.run("status", "web1", env=env)
    equal(r.code, OK, "one machine: other repositories do not matter", r)
    r = h.tm.run("status", "retired", env=env)
    equal(r.code, FAILED, "asked for, it is judged", r)
    r = h.tm.run("status", "--repo", "r", "database", env=env)
    equal(r.code, WARNING, "one repository by name", r)
    r = h.tm.run("status", "--repo", h.tm.repo, "--json", env=env)
    equal(states(r)["retired"], "critical",
          "of a repository by path the configuration says nothing", r)
    with open(conf, "w") as f:
        f.write("[machine web1]\nsource = qmp:/none\n")
    r = h.tm.run("status", "--json", env={"TIDEMARK_CONFIG": conf})
    equal(states(r), {"web1": "ok", "db": "ok", "retired": "ok"},
          "machines of TIDEMARK_REPO", r)
    equal([m["machine"] for m in r.json()["machines"] if m["configured"]],
          ["web1"], "configured", r)


@test("tracking and proof: what the next backup can be, and since when")
def tracking():
    lab = Lab([("vda", "qcow2"), ("vdb", "raw")])
    lab.vm.io("vda", "write -P 0x11 0 1M")
    lab.backup()
    lab.vm.io("vda", "write -P 0x12 0 64k")
    lab.backup()
    r = lab.tm.run("status", "--json")
    equal(r.code, OK, "exit status", r)
    m = r.json()["machines"][0]
    disks = {d["disk"]: d for d in m["disks"]}
    equal((disks["vda"]["tracked"], disks["vda"]["persistent"]), (True, True),
          "vda", disks)
    equal((disks["vdb"]["tracked"], disks["vdb"]["persistent"]), (True, False),
          "a raw disk is tracked until the machine is off", disks)
    equal(disks["vda"]["tracking"], "incremental", "the last backup")
    points = lab.tm.points()
    equal(disks["vda"]["full_time"], points[0]["time"], "the last full read")
    equal(disks["vda"]["full_reason"],
          points[0]["disks"][0]["reason"], "and why")
    equal(m["verified"], None, "never verified")
    lab.tm.ok("verify")
    m = lab.tm.run("status", "--json").json()["machines"][0]
    check(m["verified"], "verified", m)
    r = lab.tm.run("status")
    check("incremental until power-off" in r.out, "the table", r)


def data_files(repo):
    return {os.path.join(root, n) for root, _, names in os.walk(repo + "/data")
            for n in names}


@test("damage that is known makes an older point the last good one")
def damaged():
    lab = Lab([("vda", "qcow2")])
    lab.vm.io("vda", "write -P 0x11 0 1M")
    good = lab.backup().point
    old = data_files(lab.tm.repo)
    noise = lab.dir + "/noise"
    with open(noise, "wb") as f:
        f.write(images.noise(lab.dir, 1 << 20))
    lab.vm.io("vda", "write -s %s 8M 1M" % noise)
    lab.backup()
    new = max(data_files(lab.tm.repo) - old, key=os.path.getsize)
    os.chmod(new, 0o600)
    with open(new, "r+b") as f:
        f.seek(500 << 10)
        byte = f.read(1)
        f.seek(-1, 1)
        f.write(bytes([byte[0] ^ 1]))
    equal(lab.tm.run("status").code, OK, "nobody knows of it yet")
    equal(lab.tm.run("verify").code, FAILED, "found")
    r = lab.tm.run("status", "--json")
    m = r.json()["machines"][0]
    equal((m["point"], m["damaged"]), (good, 1), "the good one", r)
    equal(r.code, WARNING, "exit status", r)
    lab.backup()
    equal(lab.tm.run("status").code, OK, "healed by the next backup")


@test("the file for Prometheus is valid, complete, readable, and one step")
def prometheus():
    h = History()
    now = int(time.time())
    h.add("web1", now - HOUR, writes=[(0, 4, 1)])
    h.make()
    f = Fleet(2, repo='odd"na\\me')
    f.start("vm01")
    f.extra["vm01"] = 'name = we"b\\1 {x="y"}'
    f.write(tail='[machine zw\\ei"]\nsource = qmp:/none\n')
    r = f.run("vm01", "--json")
    need(r.code in (OK, WARNING), "a point", r)
    out = f.dir + "/tidemark.prom"
    with open(out, "w") as old:
        old.write("old text that is much longer " * 1000)
    r = f.tm.run("status", "--prometheus", out)
    equal(r.code, FAILED, "exit status", r)
    with open(out) as text:
        s = exposition(text.read())
    equal(os.stat(out).st_mode & 0o777, 0o644, "the collector may read it")
    equal([n for n in os.listdir(f.dir) if n.startswith("tidemark.prom.")], [],
          "no temporary file is left")
    repo = ("repository", 'odd"na\\me')

    def value(name, machine, *more):
        return s.get((name, (("machine", machine), repo) + more))

    equal(value("tidemark_machine_state", "vm01"), 0, "vm01", s)
    equal(value("tidemark_machine_state", "vm02"), 2, "vm02", s)
    equal(value("tidemark_machine_state", 'zw\\ei"'), 2, "an odd name", s)
    taken = value("tidemark_last_good_point_timestamp_seconds", "vm01")
    check(taken and abs(taken - now) < 3600, "when", taken)
    check(value("tidemark_last_good_point_timestamp_seconds", "vm02") is None,
          "no point, no time")
    equal(value("tidemark_disk_tracked", "vm01", ("disk", "vda")), 1, "vda", s)
    equal(value("tidemark_max_age_seconds", "vm01"), 26 * HOUR, "max age")
    equal(s.get(("tidemark_repository_readable", (repo,))), 1, "repository", s)
    before = os.stat(out).st_ino
    r = f.tm.run("status", "--prometheus", out)
    check(os.stat(out).st_ino != before, "it is replaced, not written over")
    r = f.tm.run("status", "--prometheus", f.dir + "/none/x.prom")
    check(r.code not in (OK, WARNING) and "x.prom" in r.err,
          "a file that cannot be written", r)


tap.main()
