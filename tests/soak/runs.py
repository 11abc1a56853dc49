"""Backups of the soak: run, hurt, and judged.

A run commits nothing or a point that equals the model.  A disk is read in full
only when something has happened to its tracking since the last point.
"""

import os
import signal
import subprocess
import time

import tap
from model import digest
from tidemark import BINARY, BUSY, OK, Result, WARNING
from world import Broken, soon

INTERRUPTED = 130
DEADLINE = 120
OTHERS = ("job commit", "job mirror", "job stream")  # the soak's own


class Run:
    """A backup that goes on while the test writes."""

    def __init__(self, world, args, env=None):
        world.names += 1
        self.base = "%s/run-%d" % (world.dir, world.names)
        self.began = time.monotonic()
        with open(self.base + ".out", "wb") as out, \
                open(self.base + ".err", "wb") as err:
            self.proc = subprocess.Popen(
                [BINARY] + args, stdin=subprocess.DEVNULL, stdout=out,
                stderr=err, env=dict(world.tm.env, **(env or {})),
                start_new_session=True)
        tap.cleanup(self.signal, signal.SIGKILL)

    def signal(self, signum):
        if self.proc.poll() is None:
            os.killpg(self.proc.pid, signum)

    def text(self, end=".out"):
        with open(self.base + end, errors="replace") as f:
            return f.read()

    def lines(self):
        return self.text().count("\n")

    def says(self, event):
        return '"event":"%s"' % event in self.text().replace(" ", "")

    def ended(self):
        return self.proc.poll() is not None

    def result(self):
        try:
            code = self.proc.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self.proc.wait(30)
            raise Broken("a backup did not end:\n" + self.text()
                         + self.text(".err"))
        r = Result(code, self.text(), self.text(".err"),
                   time.monotonic() - self.began)
        for end in (".out", ".err"):
            os.unlink(self.base + end)
        return r


class Ledger:
    """Points that must be there, and what has happened to tracking."""

    def __init__(self, disks, repos):
        self.points = {r: [] for r in repos}  # [(id, {disk: digest})]
        self.causes = {(d, r): ["first"] for d in disks for r in repos}
        self.lied = set()  # (disk, repo): only an audit of all can tell

    def happened(self, what, disks, repos=None):
        for (d, r), causes in self.causes.items():
            if d in disks and (repos is None or r in repos):
                causes.append(what)

    def committed(self, repo, point, digests):
        self.points[repo].append((point, digests))
        for d in digests:
            self.causes[d, repo] = []
            self.lied.discard((d, repo))

    def known(self, repo, point):
        return any(p == point for p, _ in self.points[repo])

    def removed(self, repo, left):
        """After a prune only these ids are left."""
        def newest(points):
            return {d: p for p, digests in points for d in digests}
        before = newest(self.points[repo])
        self.points[repo] = [p for p in self.points[repo] if p[0] in left]
        after = newest(self.points[repo])
        for d, p in before.items():
            if after.get(d) != p:
                self.happened("point removed", [d], [repo])


class Backups:
    def __init__(self, world, ledger):
        self.w, self.ledger = world, ledger
        self.counts = {}

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def options(self, rng, repo, offline=False):
        """Random options of one run, and its environment."""
        args, env = ["--repo", self.w.repos[repo]], {}
        lied = any(r == repo for _, r in self.ledger.lied)
        if "--audit" in self.w.can:
            if lied:
                args += ["--audit", "all"]
            elif rng.random() < 0.5:
                args += ["--audit", rng.choice(["off", "all", "5%", "50%"])]
        if rng.random() < 0.1:
            args.append("--full")
        if rng.random() < 0.15:
            args += ["--threads", "1"]
        if rng.random() < 0.1 and not lied:
            args += ["--exclude", rng.choice(self.w.disks).name]
        if rng.random() < 0.2 and not offline:
            env["TIDEMARK_PULL"] = "overlay"
        return args, env

    def start(self, args, env=None):
        self.w.say("backup %s %s" % (" ".join(args), env or ""))
        return Run(self.w, ["backup", self.w.vm.address, "--json"] + args, env)

    # -- judging -------------------------------------------------------------

    def excluded(self, args):
        return {args[i + 1] for i, a in enumerate(args) if a == "--exclude"}

    def check_tracking(self, repo, args, r):
        for d in r.committed["disks"]:
            name, causes = d["disk"], self.ledger.causes[d["disk"], repo]
            self.count("%s: %s" % (name, d["reason"] or d["tracking"]))
            if d["tracking"] == "incremental":
                # of a lie that the audit need not see: the chunk is marked by
                # other writes; the model tells
                continue
            if not d["reason"]:
                raise Broken("%s is read in full without a reason\n%s"
                             % (name, r))
            if "machine that is off" in d["reason"]:
                continue  # such an image keeps no bitmap
            if not causes and "--full" not in args:
                raise Broken("%s is read in full and nothing happened: %s\n%s"
                             % (name, d["reason"], r))

    def check_point(self, repo, point, args, lo, hi):
        """The point is one state of all disks."""
        got = self.w.restored(repo, point)
        want = {d.name for d in self.w.disks} - self.excluded(args)
        if set(got) != want:
            raise Broken("point %s has disks %s, not %s"
                         % (point, sorted(got), sorted(want)))
        k, why = self.w.model.match(got, lo, hi)
        if k is None:
            raise Broken("point %s in %s is not the model: %s\nimages that "
                         "are not the model either: %s" % (
                             point, repo, why, self.w.images_differ()))
        if hi > lo:
            self.w.say("the instant was after operation %d of %d to %d"
                       % (k, lo, hi))
        return {name: digest(data) for name, data in got.items()}

    def listed(self, repo):
        out = self.w.tm.ok("points", "--json", "--repo", self.w.repos[repo])
        if out.json()["problems"]:
            raise Broken("points of %s: %s" % (repo, out))
        return [p["point"] for p in out.json()["points"]]

    def judge(self, repo, args, r, codes, lo, hi):
        """After a run ended.  Returns whether it committed."""
        self.count("backup exit %s" % r.code)
        if r.code not in codes:
            raise Broken("exit %s, want one of %s\n%s" % (r.code, codes, r))
        new = [p for p in self.listed(repo) if not self.ledger.known(repo, p)]
        if len(new) > 1:
            raise Broken("points that nobody made: %s" % new)
        if r.code in (OK, WARNING):
            if not r.committed or r.committed["point"] not in new:
                raise Broken("exit %d without a point\n%s" % (r.code, r))
            self.check_tracking(repo, args, r)
        elif new and r.code >= 0:
            raise Broken("exit %d, and yet there is point %s\n%s"
                         % (r.code, new[0], r))
        for p in new:
            if r.code < 0:
                self.count("killed, and yet committed")
            try:
                digests = self.check_point(repo, p, args, lo, hi)
            except Broken as e:
                raise Broken("%s\n%s" % (e, r))
            self.ledger.committed(repo, p, digests)
        return bool(new)

    def check_clean(self, repo=None, args=(), before=()):
        """`repo` has a new point.  A dead run into another repository may have
        left bitmaps there: it knows what became of its point.  `before`: what
        such a run had left when one began that failed, perhaps too early to
        take it away."""
        left = [x for x in self.w.vm.leftovers()
                if not x.startswith(("bitmaps of", *OTHERS))
                and x not in before]
        for d in self.w.disks:
            ours = self.w.our_bitmaps(d, repo) if repo else []
            if len(ours) > 1 and d.name not in self.excluded(args):
                left.append("%s: %s" % (d.name, ours))
        if left:
            raise Broken("left in QEMU: %s" % left)
        left = os.listdir(self.w.tm.scratch)
        if left and not before:
            raise Broken("left in scratch: %s" % left)

    def quiet(self, repo, args, env=None, lo=None, codes=(OK, WARNING),
              first=()):
        """A backup that nobody disturbs has to commit.  A run that was killed
        may have a guard that still ends.  `first`: the arguments of the run
        that this one finishes."""
        model = self.w.model

        def attempt():
            at = lo if lo is not None else model.now
            r = self.start(args, env).result()
            if r.code == BUSY:
                return None
            return r, at
        got = soon("the lock", attempt, 30)
        if got is None:
            raise Broken("the machine stays locked")
        r, at = got
        args = [*args, *first]
        done = self.judge(repo, args, r, codes, at, model.now)
        if done:
            self.check_clean(repo, args)
        return r

    def old_point(self, rng, repo):
        """Some older point is still what it was."""
        if not self.ledger.points[repo]:
            return
        point, digests = rng.choice(self.ledger.points[repo])
        got = {n: digest(d) for n, d in self.w.restored(repo, point).items()}
        if got != digests:
            raise Broken("the old point %s of %s has changed: %s" % (
                point, repo, [n for n in digests
                              if got.get(n) != digests[n]]))
