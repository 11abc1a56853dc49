#!/usr/bin/env python3
"""Eight writers, a collector, somebody who forgets, readers, and an enemy who
kills and stops them: every committed point is whole, at any time.

    python3 tests/crash/soak.py --minutes 10
    CRASH_SEED=1234 python3 tests/crash/soak.py

The seed repeats the choices, not the moments.
"""

import os
import random
import signal
import sys
import threading
import time

import crash
import tap
from crash import KILLED, OK, REFUSED, Repo
from tap import check, need, test

SECONDS = float(os.environ.get("CRASH_SECONDS") or 40)
SEED = int(os.environ.get("CRASH_SEED") or random.randrange(1 << 32))
if "--minutes" in sys.argv:
    at = sys.argv.index("--minutes")
    SECONDS = 60 * float(sys.argv[at + 1])
    del sys.argv[at:at + 2]

WRITERS = 8
BEAT = ["--beat", "300"]    # ms
FENCE = ["--fence", "3000"]  # far above, so that only the dead are fenced


class Soak:
    def __init__(self, repo):
        self.repo = repo
        self.end = time.monotonic() + SECONDS
        self.failed = threading.Event()
        self.lock = threading.Lock()
        self.counts = {}

    def count(self, what):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1

    def goes_on(self):
        return time.monotonic() < self.end and not self.failed.is_set()

    def must(self, cond, text, *details):
        if not check(cond, text, *details):
            self.failed.set()

    def run(self, rng, cmd, *args, kill=0.0, stop=0.0, options=()):
        """Run it, perhaps kill or stop it on its way.  The result, and whether
        anything was done to it."""
        if cmd == "forget":
            with self.repo.lock:
                self.repo.forgotten.update(args)
        p = self.repo.spawn(cmd, *args, options=BEAT + list(options))
        fate = rng.random()
        hurt = None
        if fate < kill + stop:
            time.sleep(rng.uniform(0, 0.08))
            hurt = "killed" if fate < kill else "stopped"
            p.send_signal(signal.SIGKILL if fate < kill else signal.SIGSTOP)
            if hurt == "stopped":
                time.sleep(rng.uniform(0, 8))
                p.send_signal(signal.SIGCONT)
        r = self.repo.note(cmd, args, crash.finish(p))
        self.count("%s %s" % (cmd, hurt if hurt else "exit %d" % r.code))
        return r, hurt

    def writer(self, machine, rng):
        seed = 0
        while self.goes_on():
            seed += 1
            r, hurt = self.run(rng, "put", machine, str(seed), kill=0.25,
                               stop=0.01,
                               options=["--slow", str(rng.randrange(3))])
            self.must(hurt or r.code == OK, "a backup that nobody hurt", r)

    def forgetter(self, rng):
        while self.goes_on():
            with self.repo.lock:
                old = crash.newest(self.repo, "w%d" % rng.randrange(WRITERS))
            if old[:-3]:
                r, hurt = self.run(rng, "forget", *old[:-3], kill=0.1)
                self.must(hurt or r.code == OK, "forget", r)
            time.sleep(rng.uniform(0, 0.3))

    def collector(self, rng):
        while self.goes_on():
            r, hurt = self.run(rng, "gc", kill=0.2, stop=0.05, options=FENCE)
            self.must(hurt or r.code in (OK, REFUSED), "gc", r)

    def reader(self, rng):
        while self.goes_on():
            r, hurt = self.run(rng, "check", kill=0.1, options=["--pin"])
            self.must(hurt or r.code == OK, "read under a pin", r)
            time.sleep(rng.uniform(0, 0.5))


@test("writers, collectors and readers, killed and stopped at random")
def soak():
    dir = crash.memory_dir("soak")
    repo = Repo(dir + "/repo")
    s = Soak(repo)
    tap.diag("CRASH_SEED=%d, %d s" % (SEED, SECONDS))
    jobs = [(s.writer, ("w%d" % i,)) for i in range(WRITERS)]
    jobs += [(s.forgetter, ()), (s.collector, ()), (s.collector, ()),
             (s.reader, ())]
    threads = [threading.Thread(target=fn, args=(*args, random.Random(SEED + i)))
               for i, (fn, args) in enumerate(jobs)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for what, n in sorted(s.counts.items()):
        tap.diag("%6d %s" % (n, what))
    need(not s.failed.is_set(), "no surprises")
    tap.diag("%d points committed, %d of them forgotten" %
             (len(repo.points), len(repo.forgotten & set(repo.points))))
    check(len(repo.points) > WRITERS, "work was done")
    repo.check("at the end")
    repo.settle("at the end", "w0", 100000)


tap.main()
