#!/usr/bin/env python3
"""Backups, forgetting and collections killed before each of their system calls:
every committed point is whole, and what was begun is cleaned up."""

import concurrent.futures
import os
import random
import shutil

import crash
import tap
from crash import KILLED, OK, Repo
from tap import check, need, test

# Kills of one command; more calls than these are sampled evenly.
AT_MOST = int(os.environ.get("CRASH_KILLS") or 400)
SEED = int(os.environ.get("CRASH_SEED") or random.randrange(1 << 32))


def history(dir):
    """Two machines with some points."""
    repo = Repo(dir + "/template")
    for seed in range(1, 5):
        repo.put("m", seed)
        if seed < 3:
            repo.put("n", seed)
    return repo


def sweep(repo, dir, cmd, *args, after=None):
    """Kill `cmd` before each call, each time from the same state."""
    total = crash.calls(repo.copy(dir + "/count").killed_at(0, cmd, *args))
    need(total > 50, "%s makes %d calls" % (cmd, total))
    places = range(1, total + 1, -(-total // AT_MOST))

    def one(n):
        mine = repo.copy("%s/%d" % (dir, n))
        r = mine.killed_at(n, cmd, *args)
        what = "%s killed at call %d" % (cmd, n)
        if r.code not in (KILLED, OK):
            check(False, what + ": ended otherwise", r)
        if after:
            after(mine, what)
        good = mine.settle(what, "m", 60)
        if good or not os.environ.get("TIDEMARK_TEST_KEEP"):
            shutil.rmtree(mine.path)
        return r.code == KILLED, bool(good)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = list(pool.map(one, places))
    tap.diag("%s: %d calls, %d killed, %d survived well" %
             (cmd, total, sum(k for k, _ in results),
              sum(g for _, g in results)))
    check(sum(k for k, _ in results) >= len(results) * 9 // 10,
          "most runs were killed")


@test("a first backup killed anywhere leaves nothing and no other point hurt")
def first():
    dir = crash.memory_dir("first")
    sweep(history(dir), dir, "put", "new", 1)


@test("an incremental backup killed anywhere")
def incremental():
    dir = crash.memory_dir("incr")
    sweep(history(dir), dir, "put", "m", 5)


@test("forgetting killed anywhere: the point is there or it is not")
def forget():
    dir = crash.memory_dir("forget")
    repo = history(dir)
    sweep(repo, dir, "forget", *crash.newest(repo, "m")[:2])


def garbage(dir):
    """A repository with everything that a collection removes: forgotten points,
    packs half dead, the remains of a killed backup."""
    repo = history(dir)
    ids = crash.newest(repo, "m")
    repo.killed_at(200, "put", "m", 30)
    repo.forget(ids[0], ids[1], ids[3])
    return repo


@test("a collection killed anywhere")
def collect():
    dir = crash.memory_dir("gc")
    sweep(garbage(dir), dir, "gc")


@test("a collection killed, and the one that goes on killed, too")
def collect_twice():
    rng = random.Random(SEED)
    dir = crash.memory_dir("gc2")
    repo = garbage(dir)
    total = crash.calls(repo.copy(dir + "/first").killed_at(0, "gc"))
    tap.diag("CRASH_SEED=%d" % SEED)

    def again(mine, what):
        for _ in range(rng.randrange(1, 4)):
            mine.killed_at(rng.randrange(1, max(2, total)), "gc")
            mine.check(what + ", and again")

    global AT_MOST
    was, AT_MOST = AT_MOST, AT_MOST // 3
    try:
        sweep(repo, dir, "gc", after=again)
    finally:
        AT_MOST = was


tap.main()
