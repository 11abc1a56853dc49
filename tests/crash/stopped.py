#!/usr/bin/env python3
"""Processes stopped (SIGSTOP) in the middle while others forget and collect, by
a clock that jumps: what goes on afterwards is refused, or right."""

import os
import shutil
import signal

import crash
import tap
from crash import OK, REFUSED, Repo
from tap import check, need, test

# Places at which a command is stopped; more operations are sampled evenly.
PLACES = int(os.environ.get("CRASH_PLACES") or 40)


def history(dir):
    repo = Repo(dir + "/template")
    for seed in range(1, 6):
        repo.put("m", seed)
        if seed < 3:
            repo.put("n", seed)
    return repo


def month(repo, what):
    """A month passes: the old points go, others come, two collections run; the
    clock jumps, and the collectors find every heartbeat still."""
    jumps = dict(os.environ, LD_PRELOAD=crash.JUMPS)

    repo.forget(*crash.newest(repo, "m"), env=jumps)
    repo.gc(env=jumps)
    repo.put("n", 3, env=jumps)
    repo.forget(crash.newest(repo, "n")[0], env=jumps)
    repo.gc(env=jumps)
    repo.check(what + ", meanwhile")


def places(repo, dir, cmd, *args, options=()):
    """File operations of a command at which to stop it."""
    r = repo.copy(dir + "/count").run(cmd, *args, options=options)
    n = int(r.of("operations")[0])
    need(n > 20, "%s has %d operations" % (cmd, n), r)
    return range(1, n + 1, -(-n // PLACES))


def stop_at(repo, n, cmd, *args, options=(), meanwhile=month):
    """Run `cmd`, stop it before its nth operation, go on after a month."""
    what = "%s stopped at %d" % (cmd, n)
    p = repo.spawn(cmd, *args, options=["--stop-at", str(n), *options])
    tap.cleanup(p.kill)
    if crash.wait_stopped(p):
        meanwhile(repo, what)
        p.send_signal(signal.SIGCONT)
    return what, repo.note(cmd, args, crash.finish(p))


def stops(dir, repo, cmd, *args, options=(), judge):
    """At all places; the results, counted by exit status."""
    counts = {}
    for n in places(repo, dir, cmd, *args, options=options):
        mine = repo.copy("%s/%d" % (dir, n))
        what, r = stop_at(mine, n, cmd, *args, options=options)
        judge(mine, what, r)
        if mine.settle(what, "m", 60):
            shutil.rmtree(mine.path)
        counts[r.code] = counts.get(r.code, 0) + 1
    tap.diag("%s: exit statuses %s" % (cmd, counts))
    return counts


def commits_or_not(repo, what, r):
    """A writer: its point is there whole, or it said that it is not."""
    if r.code != OK:
        check(not r.of("committed"), what + ": refused and yet committed", r)
        repo.doubt.discard("m 6")
    elif r.of("committed"):
        repo.check(what + ": what it committed")


@test("a stopped incremental backup, whose base is forgotten and collected")
def incremental():
    dir = crash.memory_dir("incr")
    counts = stops(dir, history(dir), "put", "m", 6, judge=commits_or_not)
    check(counts.get(REFUSED), "some were fenced")
    check(counts.get(OK), "some were not hurt")


@test("a stopped full backup of what the repository has")
def full():
    dir = crash.memory_dir("full")
    stops(dir, history(dir), "put", "m", 6, options=["--full"],
          judge=commits_or_not)


@test("a stopped reader gets the right bytes or an error")
def reader():
    def right_or_error(repo, what, r):
        check("other bytes" not in r.err and "zeroes and data" not in r.err,
              what, r)

    for options in ([], ["--pin"]):
        dir = crash.memory_dir("read")
        stops(dir, history(dir), "check", options=options,
              judge=right_or_error)


@test("a stopped collector, overtaken by others, does no harm later")
def collector():
    def still_whole(repo, what, r):
        repo.check(what + ", afterwards")
        check(r.code in (OK, REFUSED), what + ": ends, or knows that it was "
              "fenced", r)

    dir = crash.memory_dir("gc")
    repo = history(dir)
    repo.killed_at(200, "put", "m", 30)
    repo.forget(*crash.newest(repo, "m")[:3])
    counts = stops(dir, repo, "gc", judge=still_whole)
    check(counts.get(OK), "some came to their end")


tap.main()
