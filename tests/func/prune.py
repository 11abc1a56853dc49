#!/usr/bin/env python3
"""Removing points: which ones the rules keep, that nothing else goes, and that
what stays is whole after a collection."""

import datetime
import os
import random
import time

import tap
from history import History
from tap import check, equal, need, test
from tidemark import OK, REPOSITORY, USAGE, WARNING

DAY = 86400


def utc(text):
    t = datetime.datetime.strptime(text, "%Y-%m-%d %H:%M")
    return int(t.replace(tzinfo=datetime.timezone.utc).timestamp())


# -- the rules, as one would read them out ----------------------------------

def period(rule, when):
    t = datetime.datetime.fromtimestamp(when, datetime.timezone.utc)
    return {"hourly": (t.year, t.month, t.day, t.hour),
            "daily": (t.year, t.month, t.day),
            "weekly": tuple(t.isocalendar())[:2],
            "monthly": (t.year, t.month),
            "yearly": t.year}[rule]


def kept_by(points, rules):
    """Indexes of points that stay; `points` oldest first."""
    stay = set(range(len(points) - rules.get("last", 0), len(points)))
    for rule in ("hourly", "daily", "weekly", "monthly", "yearly"):
        seen = []
        for i in reversed(range(len(points))):
            p = period(rule, points[i].when)
            if p not in seen and len(seen) < rules.get(rule, 0):
                seen.append(p)
                stay.add(i)
    for i, p in enumerate(points):
        if set(p.tags) & set(rules.get("tags", [])):
            stay.add(i)
    return {i for i in stay if i >= 0}


def options(rules):
    out = []
    for name, value in rules.items():
        if name == "tags":
            for tag in value:
                out += ["--keep-tag", tag]
        else:
            out += ["--keep-" + name, value]
    return out


def three_machines(seed=1, n=60):
    h = History()
    rng = random.Random(seed)
    now = utc("2025-12-20 03:00")
    for i in range(n):
        now += rng.choice([1800, 7200, DAY // 2, DAY, DAY, 3 * DAY, 20 * DAY])
        h.add(rng.choice(["web1", "web1", "db1", "mail"]), now,
              writes=[(rng.randrange(200), rng.randrange(1, 30),
                       rng.randrange(3) and 1 + rng.randrange(10 ** 6))
                      for _ in range(3)],
              tags=["before-upgrade"] if rng.random() < 0.1 else [])
        if now > time.time() - DAY:
            break
    h.make()
    return h


def check_verdicts(h, rules, r):
    seen = set()
    for m in r.json()["machines"]:
        points = h.of(m["machine"])
        want = kept_by(points, rules)
        got = {i for i, p in enumerate(m["points"]) if p["action"] == "keep"}
        equal(got, want, "%s with %s" % (m["machine"], rules))
        equal([p["point"] for p in m["points"]], [p.id for p in points],
              "all points, oldest first")
        equal(m["kept"], len(want), "kept")
        for p in m["points"]:
            check((p["action"] == "keep") == bool(p["rules"]),
                  "a rule exactly when it stays", p)
        seen.add(m["machine"])
    return seen


@test("rules keep what they say, per machine, as a plain reading of them does")
def rules():
    h = three_machines()
    before = h.ids()
    for rules in ({"last": 3}, {"hourly": 5}, {"daily": 4}, {"weekly": 4},
                  {"monthly": 3}, {"yearly": 2}, {"tags": ["before-upgrade"],
                                                  "last": 1},
                  {"last": 1, "daily": 3, "weekly": 2, "monthly": 2,
                   "yearly": 9}):
        r = h.tm.ok("prune", "--dry-run", "--json", *options(rules))
        equal(check_verdicts(h, rules, r), {"web1", "db1", "mail"}, "machines")
        equal(r.json()["dry_run"], True, "dry run")
    r = h.tm.ok("prune", "db1", "mail", "--dry-run", "--json", "--keep-last", 1)
    equal(check_verdicts(h, {"last": 1}, r), {"db1", "mail"}, "those named")
    equal(h.ids(), before, "a dry run removes nothing")


@test("what is pruned is gone, what stays restores after gc, twice")
def prune_and_gc():
    h = three_machines(seed=7)
    size = repo_size(h)
    rules = {"last": 2, "monthly": 3}
    r = h.tm.ok("prune", "--json", *options(rules))
    check_verdicts(h, rules, r)
    stay = [p for m in ("web1", "db1", "mail") for i, p in enumerate(h.of(m))
            if i in kept_by(h.of(m), rules)]
    gone = [p for p in h.points if p not in stay]
    equal(r.json()["removed"], len(gone), "removed")
    equal(h.ids(), {p.id for p in stay}, "points that stay")
    r = h.tm.run("restore", gone[0].name, "--to", h.tm.dir + "/no")
    equal(r.code, REPOSITORY, "a pruned point cannot be restored", r)

    dry = h.tm.ok("gc", "--dry-run", "--json").json()
    equal(repo_size(h), size, "a dry run frees nothing")
    g = h.tm.ok("gc", "--json", "--rewrite", 1).json()
    equal((g["points_removed"], g["points_live"]), (len(gone), len(stay)),
          "points")
    equal(g["points_live"], dry["points_live"], "dry run: points")
    check(g["removed_bytes"] > 0 and repo_size(h) < size, "space is free", g)
    equal(h.tm.run("verify").code, OK, "verify after gc")
    for p in stay:
        h.restores(p)
    g = h.tm.ok("gc", "--json").json()
    equal((g["points_removed"], g["packs_removed"]), (0, 0), "nothing more")
    st = h.tm.ok("stats", "--json").json()
    equal(st["all"]["n_points"], len(stay), "stats after gc")
    h.tm.ok("prune", "--keep-last", 1, "--gc", "--quiet")
    equal(len(h.ids()), 3, "one point of each machine")
    equal(h.tm.run("verify").code, OK, "verify after prune --gc")


def repo_size(h):
    return sum(os.path.getsize(os.path.join(d, f))
               for top in ("data", "meta")
               for d, _, files in os.walk("%s/%s" % (h.tm.repo, top))
               for f in files)


@test("without a rule, or with one that is none, nothing is removed")
def no_rule():
    h = three_machines(n=6)
    before = h.ids()
    for args in ([], ["--gc"], ["--remove-last"], ["--keep-within", "soon"],
                 ["--keep-tag", "A B"], ["--keep-last", "0"], ["--remove"],
                 ["--remove", "web1@latest", "--keep-last", "1"],
                 ["web1@latest", "--keep-last", "1"]):
        r = h.tm.run("prune", *args)
        equal(r.code, USAGE, "exit status of %s" % args, r)
    r = h.tm.run("prune", "nobody", "--keep-last", "1")
    equal(r.code, REPOSITORY, "no such machine", r)
    check("web1" in r.err, "says which there are", r)
    equal(h.ids(), before, "nothing was removed")


@test("the last good point stays whatever the rules say")
def last_good():
    h = History()
    for i in range(4):
        h.add("web1", utc("2026-11-01 00:00") + i * 3600,
              writes=[(10 * i, 5, 100 * i + 1)])
    h.make()
    r = h.tm.ok("prune", "--keep-tag", "none", "--json")
    points = r.json()["machines"][0]["points"]
    equal([p["action"] for p in points], ["remove"] * 3 + ["keep"], "actions")
    equal(points[3]["rules"], ["last good point"], "why")
    last = h.points[3]
    equal(h.ids(), {last.id}, "the newest stays")
    h.restores(last)
    r = h.tm.run("prune", "--remove", last.name)
    equal(r.code, USAGE, "nor by its name", r)
    check("--remove-last" in r.err, "says how", r)
    h.tm.ok("prune", "--keep-tag", "none", "--remove-last")
    equal(h.ids(), set(), "unless told so")
    h.tm.ok("gc")
    equal(repo_size(h), 0, "no packs are left")


@test("points are removed by their names, and only they")
def by_name():
    h = three_machines(seed=3, n=12)
    web = h.of("web1")
    before = h.ids()
    r = h.tm.ok("prune", "--remove", web[1].name, web[0].name, "--dry-run",
                "--json").json()
    equal(r["removed"], 2, "removed")
    equal([m["machine"] for m in r["machines"]], ["web1"], "machines")
    equal(h.ids(), before, "a dry run")
    r = h.tm.ok("prune", web[1].name, "--remove")
    check("not named" in r.out and "gc" in r.out, "table", r)
    equal(h.ids(), before - {web[1].id}, "one less")
    r = h.tm.run("prune", web[1].name, "--remove")
    equal(r.code, REPOSITORY, "it is gone", r)
    h.tm.ok("prune", "--remove", "web1@latest")
    equal(h.ids(), before - {web[1].id, web[-1].id}, "the newest")
    r = h.tm.run("prune", "--remove", "db1")
    equal(r.code, USAGE, "a whole machine", r)
    h.tm.ok("prune", "--remove", "db1", "--remove-last", "--gc")
    check(not [p for p in h.tm.points() if p["machine"] == "db1"], "db1")
    equal(h.tm.run("verify").code, OK, "verify")
    h.restores(web[2])


@test("clocks that cannot be right are refused by name, unless told otherwise")
def clocks():
    now = int(time.time())
    for times, words in (([now - DAY, now + 3 * DAY], "in the future"),
                         ([now - DAY, now - 3 * DAY], "was committed after")):
        h = History()
        h.add("good", now - DAY, writes=[(1, 2, 3)])
        h.add("good", now, writes=[(2, 2, 9)])
        for t in times:
            h.add("web1", t, writes=[(t % 100, 3, t)])
        h.make()
        before = h.ids()
        bad = h.of("web1")[1]
        r = h.tm.run("prune", "--keep-last", "1")
        equal(r.code, REPOSITORY, "refused", r)
        for word in (words, "web1@" + bad.id[:8], "--ignore-clock",
                     "nothing was removed"):
            check(word in r.err, "says '%s'" % word, r)
        equal(h.ids(), before, "also of the machine that is right")
        h.tm.ok("prune", "good", "--keep-last", "1")
        equal(len(h.ids()), 3, "other machines")
        h.tm.ok("prune", "--keep-last", "1", "--ignore-clock")
        equal(h.ids(), {bad.id, h.of("good")[1].id}, "by the order of commits")


def two_points():
    """The second one has a data pack of its own; its path."""
    h = History()
    t = utc("2026-11-01 00:00")
    h.add("web1", t, writes=[(0, 40, 1)])
    h.make()
    packs, first = pack_files(h), h.points
    h._lines, h.points = [], []
    h.add("web1", t + DAY, writes=[(0, 40, 1), (100, 40, 5000)])
    h.make()
    h.points = first + h.points
    fresh = [f for f in pack_files(h) - packs if "/data/" in f]
    need(len(fresh) == 1, "pack of the second point", fresh)
    return h, fresh[0]


@test("a point with known damage is not the last good one")
def damaged():
    for how in ("pack lost", "byte flipped"):
        h, pack = two_points()
        if how == "pack lost":
            os.unlink(pack)
        else:
            with open(pack, "r+b") as f:
                f.seek(5000)
                byte = f.read(1)
                f.seek(5000)
                f.write(bytes([byte[0] ^ 1]))
            r = h.tm.run("prune", "--keep-tag", "none", "--dry-run", "--json")
            equal([p["action"] for p in r.json()["machines"][0]["points"]],
                  ["remove", "keep"], "nobody knows of it yet")
        r = h.tm.run("verify")
        check(r.code not in (OK, WARNING), how + ": verify finds it", r)
        r = h.tm.run("prune", "--keep-tag", "none", "--json")
        points = r.json()["machines"][0]["points"]
        equal([p["action"] for p in points], ["keep", "remove"], how)
        equal(points[0]["rules"], ["last good point"], how + ": why")
        equal(points[1].get("damaged"), True, how + ": damaged")
        equal(h.ids(), {h.points[0].id}, how + ": points")
        h.restores(h.points[0])


@test("by name, the last point that is not damaged does not go")
def damaged_by_name():
    h, pack = two_points()
    os.unlink(pack)
    r = h.tm.run("prune", "--remove", h.points[0].name)
    equal(r.code, USAGE, "the good one", r)
    h.tm.run("prune", "--remove", h.points[1].name)
    equal(h.ids(), {h.points[0].id}, "the damaged one")


def pack_files(h):
    return {os.path.join(d, f) for d, _, files in os.walk(h.tm.repo)
            for f in files if "/data" in d or "/meta" in d}


@test("a point that cannot be read is told of, and stays")
def unreadable():
    h = three_machines(seed=4, n=14)
    web = h.of("web1")
    path = "%s/commit/%s.1" % (h.tm.repo, web[-1].id)
    with open(path, "r+b") as f:
        f.seek(60)
        byte = f.read(1)
        f.seek(60)
        f.write(bytes([byte[0] ^ 1]))
    r = h.tm.run("prune", "web1", "--keep-last", "1", "--json")
    equal(r.code, WARNING, "exit status", r)
    check(web[-1].id in r.err, "named", r)
    check(r.json()["problems"], "problems", r)
    left = {p["point"] for p in h.tm.run("points", "web1",
                                         "--json").json()["points"]}
    equal(left, {web[-2].id}, "the newest that can be read stays")
    check(os.path.exists(path), "what cannot be read stays")
    r = h.tm.run("gc")
    equal(r.code, REPOSITORY, "gc refuses", r)


@test("tags go from the backup to points, show and prune")
def tags():
    from lab import Lab
    lab = Lab([("vda", "qcow2", "8M")])
    lab.vm.io("vda", "write -P 0x11 0 1M")
    first = lab.backup("--tag", "before-upgrade", "--tag", "v1.2",
                       "--tag", "v1.2")
    equal(first.committed["tags"], ["before-upgrade", "v1.2"], "committed")
    second = lab.backup()
    third = lab.backup()
    equal(third.committed["tags"], [], "no tags")
    r = lab.tm.run("backup", lab.vm.address, "--tag", "No Word")
    equal(r.code, USAGE, "a tag that is none", r)
    p = lab.tm.points()[0]
    equal(p["tags"], ["before-upgrade", "v1.2"], "points")
    check("before-upgrade v1.2" in lab.tm.ok("points").out, "points: table")
    check("before-upgrade v1.2" in
          lab.tm.ok("show", "web1@" + first.point).out, "show")
    lab.tm.ok("prune", "--keep-tag", "v1.2", "--keep-last", 1, "--gc")
    equal({p["point"] for p in lab.tm.points()}, {first.point, third.point},
          "points that stay")
    lab.restores(first.point)
    r = lab.backup()
    lab.tracking(r, vda="incremental")
    lab.restores(r.point)
    lab.verifies()


tap.main()
