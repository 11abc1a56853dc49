#!/usr/bin/env python3
"""Several at once: two writers of one machine, writers on two hosts, clocks that
jump by ten years."""

import os
import random
import subprocess
import threading

import crash
import tap
from crash import OK, REFUSED, Repo
from tap import check, equal, need, skip, test

NO_MOUNTS = crash.own_mounts()
BEAT = ["--beat", "200"]  # ms, so that rivals need not be watched for a minute


@test("two backups of one machine at once: each point that is made is whole")
def rivals():
    dir = crash.memory_dir("rivals")
    repo = Repo(dir + "/repo")
    repo.put("m", 1)
    counts = {}
    for i in range(6):
        seeds = (10 + 2 * i, 11 + 2 * i)
        ps = [repo.spawn("put", "m", str(s), options=BEAT + ["--slow", "2"])
              for s in seeds]
        rs = [repo.note("put", ("m", str(s)), crash.finish(p))
              for s, p in zip(seeds, ps)]
        for r in rs:
            check(r.code in (OK, REFUSED), "commits or is refused", r)
            counts[r.code] = counts.get(r.code, 0) + 1
        repo.check("after rivals %d" % i)
    tap.diag("exit statuses: %s" % counts)
    check(counts.get(REFUSED), "one of two at once was refused")
    repo.settle("after the rivals", "m", 60)


class Host:
    """Another host as far as the program can see: a mount of the directory
    elsewhere, another name, processes with numbers of their own."""

    def __init__(self, name, shared):
        self.name, self.mnt = name, tap.tempdir(name)
        subprocess.run(["mount", "--bind", shared, self.mnt], check=True)
        tap.cleanup(subprocess.run, ["umount", self.mnt])

    def before(self):
        return ["unshare", "--uts", "--pid", "--fork", "--kill-child", "sh",
                "-c", 'hostname "$0" && exec "$@"', self.name]

    def repo(self, repo):
        """The same repository under this host's path."""
        mine = Repo(self.mnt + "/repo", repo.options, make=False)
        mine.points, mine.doubt = repo.points, repo.doubt
        mine.forgotten, mine.lock = repo.forgotten, repo.lock
        return mine


def backups(host, repo, machine, n):
    mine = host.repo(repo)
    for seed in range(1, n + 1):
        r = mine.run("put", machine, str(seed), options=BEAT,
                     before=host.before())
        check(r.code == OK, "%s on %s" % (machine, host.name), r)
        if seed % 3 == 0:
            r = mine.run("forget", crash.newest(mine, machine)[0],
                         before=host.before())
            check(r.code == OK, "forget on " + host.name, r)


@test("writers on two hosts and a collector on each")
def hosts():
    if NO_MOUNTS:
        skip(NO_MOUNTS)
    shared = crash.memory_dir("hosts")
    repo = Repo(shared + "/repo")
    two = [Host("alpha", shared), Host("beta", shared)]
    done = threading.Event()
    collected = []

    def collect(host):
        while not done.is_set():
            r = host.repo(repo).run("gc", options=BEAT + ["--fence", "3000"],
                                    before=host.before())
            check(r.code in (OK, REFUSED), "gc on " + host.name, r)
            collected.append(r)
            done.wait(0.05)

    writers = [threading.Thread(target=backups, args=(two[i % 2], repo,
                                                      "vm%d" % i, 8))
               for i in range(6)]
    collectors = [threading.Thread(target=collect, args=(h,)) for h in two]
    for t in writers + collectors:
        t.start()
    for t in writers:
        t.join()
    done.set()
    for t in collectors:
        t.join()
    tap.diag("%d points, %d collections" % (len(repo.points), len(collected)))
    equal(len(repo.points), 48, "every backup was committed")
    for h in two:
        h.repo(repo).check("seen from " + h.name)
    repo.settle("at the end", "vm1", 60)


def story(repo, env):
    """A sequence of everything; what it came to, without ids."""
    said = []

    def tell(r):
        check(r.code == OK, "step %d" % len(said), r)
        said.append([l for l in r.lines
                     if not l.startswith(("committed", "forgotten",
                                          "operations"))])
        return r

    def jump():
        """Files as if made long ago, or in the future."""
        years = 10 * 366 * 86400
        for base, dirs, names in os.walk(repo.path):
            for name in names if env else ():
                when = os.stat(base + "/" + name).st_mtime
                when += random.choice((-years, years))
                os.utime(base + "/" + name, (when, when))

    for seed in range(1, 9):
        tell(repo.run("put", "m", str(seed), env=env))
        jump()
        tell(repo.run("put", "n", str(seed), env=env))
        if seed % 3 == 0:
            repo.forget(*crash.newest(repo, "m")[:2], env=env)
            jump()
            tell(repo.run("gc", env=env))
    return said


@test("clocks that jump by ten years change nothing")
def clocks():
    dir = crash.memory_dir("clocks")
    repo = Repo(dir + "/jumping")
    want = story(Repo(dir + "/calm"), None)
    got = story(repo, dict(os.environ, LD_PRELOAD=crash.JUMPS))
    equal(got, want, "the same results")
    need(repo.check("after the jumps"), "check")
    repo.settle("after the jumps", "m", 60)
    years = {p for p in subprocess.run(
        ["date", "+%Y"], env=dict(os.environ, LD_PRELOAD=crash.JUMPS),
        stdout=subprocess.PIPE, text=True).stdout.split()}
    check(not years & {subprocess.run(["date", "+%Y"], text=True,
                                      stdout=subprocess.PIPE).stdout.strip()},
          "the clock does jump", years)


tap.main()
