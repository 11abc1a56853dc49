#!/usr/bin/env python3
"""diff and stats against what was written: every range, every byte."""

import random

import tap
from history import CHUNK, History
from tap import check, equal, test
from tidemark import REPOSITORY, USAGE

BEGIN = 1790000000
FRAME = 72  # bytes of a frame's header


def history(seed, sizes=(300 * CHUNK,)):
    h = History()
    rng = random.Random(seed)
    for i in range(10):
        machine = rng.choice(["web1", "db1"])
        h.add(machine, BEGIN + 3600 * i, size=rng.choice(sizes),
              writes=[(rng.randrange(280), rng.randrange(1, 20),
                       rng.randrange(4) and 1 + rng.randrange(2000))
                      for _ in range(4)])
    h.make()
    return h


def chunk(p, i):
    """What chunk i of a point holds, as something that can be compared: the
    value and how much of it is there."""
    length = max(0, min(CHUNK, p.size - i * CHUNK))
    value = p.values.get(i, 0)
    return (value, length) if value and length else 0


def ranges(a, b):
    """[(offset, length, zero)], joined."""
    out = []
    for i in range(-(-b.size // CHUNK)):
        if chunk(a, i) == chunk(b, i):
            continue
        off, zero = i * CHUNK, chunk(b, i) == 0
        length = min(CHUNK, b.size - off)
        if out and out[-1][0] + out[-1][1] == off and out[-1][2] == zero:
            out[-1] = (out[-1][0], out[-1][1] + length, zero)
        else:
            out.append((off, length, zero))
    return out


@test("diff lists exactly what differs, also after a resize")
def diff():
    sizes = (300 * CHUNK, 300 * CHUNK - 5, 40 * CHUNK, 5000 * CHUNK)
    for seed in range(3):
        h = history(seed, sizes)
        for a in h.points[::2]:
            for b in h.points:
                r = h.tm.ok("diff", a.name, b.name, "--json")
                last = r.events[-1]
                got = [(e["offset"], e["length"], e["zero"]) for e in r.events
                       if e["event"] == "extent"]
                want = ranges(a, b)
                equal(got, want, "from %s to %s" % (a.name, b.name))
                equal(last["event"], "diff", "last line")
                d = last["disks"][0]
                equal((d["extents"], d["changed_bytes"], d["zero_bytes"],
                       d["size"], d["from_size"]),
                      (len(want), sum(x[1] for x in want),
                       sum(x[1] for x in want if x[2]), b.size, a.size),
                      "summary")


@test("diff for people, of one disk, and of what is not there")
def diff_words():
    h = History()
    h.add("web1", BEGIN, writes=[(0, 4, 1)])
    h.add("web1", BEGIN + 60, writes=[(1, 1, 9), (3, 1, 0)])
    h.make()
    r = h.tm.ok("diff", "web1@latest~1", "web1@latest", "--disk", "vda")
    rows = [line.split() for line in r.out.splitlines()]
    check(["vda", str(CHUNK), str(CHUNK), "data"] in rows, "data", r)
    check(["vda", str(3 * CHUNK), str(CHUNK), "zeroes"] in rows, "zeroes", r)
    r = h.tm.run("diff", "web1@latest", "web1@latest", "--disk", "sda")
    equal(r.code, REPOSITORY, "no such disk", r)
    r = h.tm.run("diff", "web1@latest", "web2@latest")
    equal(r.code, REPOSITORY, "no such machine", r)
    r = h.tm.run("diff", "web1@latest")
    equal(r.code, USAGE, "one point", r)


def data(p):
    return sum(c[1] for c in (chunk(p, i) for i in
                              range(-(-p.size // CHUNK))) if c)


def chunks(p):
    return {c for c in (chunk(p, i) for i in range(-(-p.size // CHUNK)))
            if c}


def listed(h):
    return sorted(h.points, key=lambda p: (p.machine, p.when))


@test("stats count every byte as the points were written")
def stats():
    for seed in range(3):
        h = history(seed, (300 * CHUNK, 300 * CHUNK - 5))
        st = h.tm.ok("stats", "--json").json()
        got = [p for m in st["machines"] for p in m["points"]]
        before = set()
        for p, g in zip(listed(h), got):
            own = chunks(p)
            for q in h.points:
                if q is not p:
                    own -= chunks(q)
            equal(g["point"], p.id, "order")
            equal((g["size"], g["data_bytes"]), (p.size, data(p)), "data")
            equal(g["unique_bytes"],
                  sum(c[1] for c in chunks(p) - before), "unique")
            # Contents are random, so every frame is stored raw.
            equal(g["stored_bytes"], sum(c[1] + FRAME for c in
                                         chunks(p) - before), "stored")
            check(g["freed_bytes"] >= sum(c[1] + FRAME for c in own),
                  "freed: data", g)
            before |= chunks(p)
        for m in st["machines"]:
            mine = [p for p in h.points if p.machine == m["machine"]]
            own = set().union(*map(chunks, mine)) - set().union(
                *[chunks(p) for p in h.points if p not in mine])
            equal(m["n_points"], len(mine), "points of a machine")
            check(m["freed_bytes"] > sum(c[1] + FRAME for c in own), "freed")
        all_ = st["all"]
        equal(all_["unique_bytes"], sum(c[1] for c in before), "all: unique")
        equal(all_["freed_bytes"], all_["stored_bytes"] + all_["meta_bytes"],
              "all: freed")


@test("removing a point frees in gc what stats said")
def freed():
    h = history(5)
    st = h.tm.ok("stats", "--json").json()
    p = st["machines"][0]["points"][1]
    one = h.tm.ok("stats", "%s@%s" % (p["machine"], p["point"]),
                  "--json").json()
    equal(one["machines"][0]["points"], [p], "one point")
    h.tm.ok("prune", "--remove", "%s@%s" % (p["machine"], p["point"]))
    after = h.tm.ok("stats", "--json").json()
    equal(after["all"]["freed_bytes"],
          st["all"]["freed_bytes"] - p["freed_bytes"], "what is needed now")
    check(after["unreferenced_bytes"] >= p["freed_bytes"], "unreferenced")
    h.tm.ok("gc", "--rewrite", 1, "--quiet")
    last = h.tm.ok("stats", "--json").json()
    check(last["pack_bytes"] <= st["pack_bytes"] - p["freed_bytes"]
          + (1 << 14), "packs are smaller", last, st)
    equal(last["all"], after["all"], "and nothing else changed")


@test("stats of one machine, of nobody, of an empty repository")
def stats_words():
    h = History()
    equal(h.tm.ok("stats", "--json").json()["machines"], [], "empty")
    h.tm.ok("stats")
    h.add("web1", BEGIN, writes=[(0, 4, 1)])
    h.add("db1", BEGIN, writes=[(0, 4, 1)])
    h.make()
    st = h.tm.ok("stats", "web1", "--json").json()
    equal([m["machine"] for m in st["machines"]], ["web1"], "one machine")
    equal(st["machines"][0]["unique_bytes"], 0, "db1 had it before")
    r = h.tm.ok("stats")
    check("(all)" in r.out and "web1@" in r.out, "tables", r)
    r = h.tm.run("stats", "nobody")
    equal(r.code, REPOSITORY, "no such machine", r)


tap.main()
