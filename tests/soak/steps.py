"""What may happen to a machine between and during backups.

Each method of Steps that begins with step_ is one step; its weight stands in
WEIGHTS.  A step gets random numbers of its own, so that how long something
took changes nothing of the steps behind it.
"""

import os
import signal
import time

import images
from off import Off
from runs import DEADLINE, INTERRUPTED, Backups, Ledger
from tidemark import BUSY, FAILED, OK, REPOSITORY, UNREACHABLE, WARNING
from world import Broken

K, M = 1 << 10, 1 << 20
SURE = (OK, WARNING)


class Steps:
    def __init__(self, world):
        self.w = world
        self.ledger = Ledger([d.name for d in world.disks], world.repos)
        self.backups = Backups(world, self.ledger)

    def names(self, which=None):
        return [d.name for d in self.w.disks if which is None or which(d)]

    # -- guest operations ----------------------------------------------------

    def place(self, rng, limit=1 * M):
        """(disk, offset, length), often where things have edges."""
        d = rng.choice(self.w.disks)
        size = len(self.w.model.disks[d.name])
        unit = rng.choice([512, 4 * K, 64 * K])
        length = min(size, unit * rng.randint(1, max(1, min(limit // unit,
                                                            40))))
        where = rng.random()
        if where < 0.1:
            off = size - length
        elif where < 0.2:
            off = 0
        else:
            off = rng.randrange(0, size - length + 1)
            off -= off % unit
        return d.name, off // 512 * 512, length

    def guest_op(self, rng, discards=True):
        name, off, length = self.place(rng)
        kind = rng.random()
        if kind < 0.45:
            self.w.write(name, off, length, rng.randint(1, 255))
        elif kind < 0.65:
            self.w.write_noise(name, off, length, rng.random())
        elif kind < 0.85:
            self.w.zero(name, off, length, rng.random() < 0.5)
        elif kind < 0.95 and discards:
            self.w.discard(name, off, length)
        else:
            self.w.guest(name, "flush")

    def step_writes(self, rng):
        for _ in range(rng.randint(1, 8)):
            self.guest_op(rng)

    def step_same_again(self, rng):
        """Written with what is there already."""
        name, off, length = self.place(rng, 256 * K)
        data = bytes(self.w.model.disks[name][off:off + length])
        path = self.w.dir + "/noise"
        with open(path, "wb") as f:
            f.write(data)
        self.w.guest(name, "write -s %s %d %d" % (path, off, length))
        self.w.model.write(name, off, data)

    def other_size(self, rng, name):
        size = len(self.w.model.disks[name])
        by = 512 * rng.choice([1, 127, 128, 129, 2048, 4096, 8192])
        if size > 20 * M or (rng.random() < 0.5 and size - by > 1 * M):
            return size - by
        return size + by

    def resize_live(self, rng, d):
        size = self.other_size(rng, d.name)
        if not self.w.try_qmp("block_resize", node_name=d.node, size=size):
            return False
        self.w.resized(d, size)
        self.ledger.happened("resized", [d.name])
        return True

    def step_resize(self, rng):
        """Once, or there and back again, which no size shows."""
        d = rng.choice(self.w.disks)
        size = len(self.w.model.disks[d.name])
        if self.resize_live(rng, d) and rng.random() < 0.6:
            if rng.random() < 0.5:
                self.guest_op(rng)
            if self.w.try_qmp("block_resize", node_name=d.node, size=size):
                self.w.resized(d, size)

    # -- chains of images ----------------------------------------------------

    def step_snapshot(self, rng):
        d = rng.choice(self.w.disks)
        if len(d.chain) > 2:
            return self.step_commit(rng, d)
        path = self.w.new_path(d, "qcow2")
        node = os.path.basename(path).replace(".", "-")
        if self.w.try_qmp("blockdev-snapshot-sync", node_name=d.node,
                          snapshot_file=path, snapshot_node_name=node,
                          format="qcow2"):
            d.chain.append((path, "qcow2"))
            d.node = node
            self.ledger.happened("snapshot", [d.name])

    def meanwhile(self, rng):
        """What happens while a block job is ready."""
        def act():
            for _ in range(rng.randint(0, 3)):
                self.guest_op(rng, discards=False)
            if rng.random() < 0.5:
                self.backup_or_refusal(rng)
        return act

    def step_commit(self, rng, d=None):
        d = d or rng.choice(self.w.disks)
        if len(d.chain) < 2:
            return
        to = rng.randrange(len(d.chain) - 1)
        base = self.w.node_of(d.chain[to][0])
        self.ledger.happened("commit", [d.name])
        if self.w.run_job(d, "commit", True, "block-commit",
                          self.meanwhile(rng), device=d.node, base_node=base):
            self.drop(d.chain[to + 1:])
            d.chain = d.chain[:to + 1]
            d.node = base
            self.ledger.happened("commit", [d.name])
            self.grown(d)

    def grown(self, d):
        """A base that is larger than what was committed to it stays so."""
        self.w.vm.io(d.name, "flush")
        data = self.w.content(d, share=True)
        if len(data) > len(self.w.model.disks[d.name]):
            self.w.model.reset(d.name, data)

    def step_stream(self, rng):
        d = rng.choice(self.w.disks)
        if len(d.chain) < 2:
            return
        below = {}
        if d.backing:
            below = {"base_node": self.w.node_of(d.backing)}
        self.ledger.happened("stream", [d.name])
        if self.w.run_job(d, "stream", False, "block-stream",
                          self.meanwhile(rng) if rng.random() < 0.3
                          else lambda: None, device=d.node, **below):
            self.drop(d.chain[:-1])
            d.chain = d.chain[-1:]
            self.ledger.happened("stream", [d.name])

    def step_mirror(self, rng):
        d = rng.choice(self.w.disks)
        fmt = rng.choice(["qcow2", "raw"])
        path = self.w.new_path(d, fmt)
        node = os.path.basename(path).replace(".", "-")
        self.ledger.happened("mirror", [d.name])
        if self.w.run_job(d, "mirror", True, "drive-mirror",
                          self.meanwhile(rng), device=d.node, target=path,
                          node_name=node, format=fmt, sync="full"):
            self.drop(d.chain)
            d.chain, d.node, d.backing = [(path, fmt)], node, None
            self.ledger.happened("mirror", [d.name])

    def drop(self, chain):
        for path, _ in chain:
            os.unlink(path)

    # -- foreign hands on bitmaps --------------------------------------------

    def step_foreign(self, rng, during=None):
        """during: the repository of a backup that goes on."""
        repo = rng.choice(sorted(self.w.repos))
        found = [(d, b) for d in self.w.disks
                 for b in self.w.our_bitmaps(d, repo)]
        if not found:
            return
        d, bitmap = rng.choice(found)
        self.meddle(rng, repo, d, bitmap, repo == during)

    def meddle(self, rng, repo, d, bitmap, in_use):
        """What only an audit of all can tell must not happen between the
        choice of a base and the instant."""
        kinds = ["remove"]
        if not in_use:
            kinds.append("disable")
        if "--audit" in self.w.can and not in_use:
            kinds += ["clear", "again", "lie", "lie"]
        kind = rng.choice(kinds)
        self.w.say("%s of %s on %s" % (kind, bitmap, d.name))

        def call(what, **args):
            return self.w.try_qmp("block-dirty-bitmap-" + what, node=d.node,
                                  name=bitmap, **args)
        self.ledger.happened(kind, [d.name], [repo])
        if kind in ("clear", "disable", "remove"):
            if call(kind) and kind == "clear":
                self.ledger.lied.add((d.name, repo))  # see below
        elif kind == "again":
            # On disks of a few MiB the guest soon overwrites the places of all
            # canaries, and then only an audit of all is certain.
            if call("remove") and call("add", persistent=(
                    d.chain[-1][1] == "qcow2" and rng.random() < 0.8)):
                self.ledger.lied.add((d.name, repo))
        elif call("disable"):
            size = len(self.w.model.disks[d.name])
            off = rng.randrange(0, size // 4096) * 4096
            self.w.write_noise(d.name, off, 4096, rng.random())
            if call("enable"):
                self.ledger.lied.add((d.name, repo))

    def step_other_bitmap(self, rng):
        """A bitmap of somebody else comes, and goes the next time."""
        d = rng.choice(self.w.disks)
        name = "checkpoint-%d" % rng.randint(1, 3)
        there = [b["name"] for b in self.w.vm.bitmaps().get(d.node, [])]
        what = "add" if name not in there else rng.choice(["clear", "remove",
                                                           "disable"])
        self.w.try_qmp("block-dirty-bitmap-" + what, node=d.node, name=name)

    # -- backups -------------------------------------------------------------

    def repo(self, rng):
        return rng.choice(["A", "A", "B"])

    def step_backup(self, rng):
        repo = self.repo(rng)
        args, env = self.backups.options(rng, repo)
        self.backups.quiet(repo, args, env)

    def backup_or_refusal(self, rng):
        """While another program's job runs."""
        repo = self.repo(rng)
        args, env = self.backups.options(rng, repo)
        r = self.backups.quiet(repo, args, env, codes=(*SURE, FAILED, BUSY))
        if r.code not in SURE and not r.err.strip():
            raise Broken("a refusal without words: %s" % r)

    def drive(self, rng, run, act, until=lambda: False, most=60):
        """Act while the run goes on; it is stopped now and then, so that even
        the shortest one has a middle.  Operations before the end of which the
        instant was taken: their number."""
        hi = None
        self.w.unpause = lambda: run.signal(signal.SIGCONT)
        for _ in range(most):
            if run.ended() or until():
                break
            stopped = rng.random() < 0.6
            if stopped:
                run.signal(signal.SIGSTOP)
            for _ in range(rng.randint(1, 4)):
                act()
            if stopped:
                run.signal(signal.SIGCONT)
            if hi is None and run.says("instant"):
                hi = self.w.model.now
            time.sleep(rng.uniform(0, 0.03))
        return hi

    def step_backup_while_writing(self, rng):
        repo = self.repo(rng)
        args, env = self.backups.options(rng, repo)
        lo = self.w.model.now
        run = self.backups.start(args, env)
        gc = None
        if rng.random() < 0.2:
            gc = self.w.tm.start("gc", "--repo", self.w.repos[repo])
        hi = self.drive(rng, run, lambda: self.guest_op(rng))
        r = run.result()
        self.backups.judge(repo, args, r, SURE, lo,
                           self.w.model.now if hi is None else hi)
        self.backups.check_clean()
        if gc is not None:
            r = gc.wait(DEADLINE)
            if r.code not in (*SURE, BUSY):
                raise Broken("gc beside a backup: %s" % r)

    def disturb(self, rng, run, repo):
        """One act of a machine that is not left in peace.  No node is asked
        for before the instant: QEMU 7.2 ends with an assertion when a qcow2
        file is being made meanwhile (qcow2_get_specific_info)."""
        kind = rng.random()
        if kind < 0.8 or not run.says("instant"):
            return self.guest_op(rng)
        if kind < 0.9:
            return self.resize_live(rng, rng.choice(self.w.disks))
        return self.step_foreign(rng, repo)

    def step_backup_disturbed(self, rng):
        """Resizes and foreign hands during the copy: right, or refused."""
        repo = self.repo(rng)
        args, env = self.backups.options(rng, repo)
        lo = self.w.model.now
        run = self.backups.start(args, env)
        hi = self.drive(rng, run, lambda: self.disturb(rng, run, repo))
        # what happened during the run may be after its instant
        causes = {k: list(v) for k, v in self.ledger.causes.items()}
        lied = set(self.ledger.lied)
        r = run.result()
        self.ledger.lied -= lied
        self.backups.judge(repo, args, r, (*SURE, FAILED), lo,
                           self.w.model.now if hi is None else hi)
        self.ledger.causes = causes
        self.ledger.lied |= lied
        self.backups.quiet(repo, self.safe(repo))

    def safe(self, repo):
        """Options that leave nothing out."""
        args = ["--repo", self.w.repos[repo]]
        if "--audit" in self.w.can and any(r == repo
                                           for _, r in self.ledger.lied):
            args += ["--audit", "all"]
        return args

    def killed_run(self, rng, signum, codes):
        repo = self.repo(rng)
        args, env = self.backups.options(rng, repo)
        lo = self.w.model.now
        run = self.backups.start(args, env)
        lines, moment = rng.randint(0, 6), time.monotonic() + rng.uniform(
            0, 0.4)

        def until():
            return run.lines() >= lines and time.monotonic() > moment
        hi = self.drive(rng, run, lambda: self.guest_op(rng), until)
        run.signal(signum)
        r = run.result()
        done = self.backups.judge(repo, args, r, codes, lo,
                                  self.w.model.now if hi is None else hi)
        return repo, lo, done, args

    def resume(self, repo, lo, args):
        """The instant of the dead run, when it had come to one."""
        r = self.backups.quiet(repo, ["--repo", self.w.repos[repo],
                                      "--resume"], lo=lo, first=args,
                               codes=(*SURE, FAILED))
        if r.code == FAILED and "no instant can be finished" not in r.err:
            raise Broken("a resume that fails: %s" % r)

    def after(self, rng, repo, lo, done, args):
        """The next one needs nobody's help."""
        if "--resume" in self.w.can and not done and rng.random() < 0.5:
            self.resume(repo, lo, args)
        args = self.safe(repo)
        for _ in range(rng.randint(0, 2)):
            self.guest_op(rng)
        self.backups.quiet(repo, args)

    def step_backup_killed(self, rng):
        got = self.killed_run(rng, signal.SIGKILL, (*SURE, -signal.SIGKILL))
        if rng.random() < 0.7:
            self.after(rng, *got)

    def step_backup_interrupted(self, rng):
        before = self.w.vm.leftovers()
        got = self.killed_run(rng, signal.SIGINT,
                              (*SURE, INTERRUPTED, -signal.SIGINT))
        self.backups.check_clean(before=before)
        self.after(rng, *got)

    def step_backup_twice(self, rng):
        first, second = self.repo(rng), self.repo(rng)
        a, b = self.safe(first), self.safe(second)
        lo = self.w.model.now
        runs = [(first, a, self.backups.start(a))]
        time.sleep(rng.uniform(0, 0.1))
        runs.append((second, b, self.backups.start(b)))
        self.drive(rng, runs[0][2], lambda: self.guest_op(rng), most=5)
        results = [run.result() for _, _, run in runs]
        if not any(r.code in SURE for r in results):
            raise Broken("two at once, and none commits: %s\n%s"
                         % tuple(results))
        self.two_points(runs, results, lo)
        self.backups.check_clean()

    def two_points(self, runs, results, lo):
        """Into one repository, both may be there when the first is judged."""
        hi = self.w.model.now
        for (repo, args, _), r in zip(runs, results):
            if r.code not in (*SURE, BUSY):
                raise Broken("two at once: %s" % r)
            if r.committed:
                self.backups.check_tracking(repo, args, r)
                point = r.committed["point"]
                self.ledger.committed(repo, point, self.backups.check_point(
                    repo, point, args, lo, hi))

    def step_backup_scratch_full(self, rng):
        if not self.w.mounted:
            return
        repo = self.repo(rng)
        lo = self.w.model.now
        args = self.safe(repo)
        run = self.backups.start(args + ["--scratch", self.w.small])
        hi = self.drive(rng, run, lambda: self.w.write_noise(
            *self.place(rng, 4 * M), rng.random()))
        r = run.result()
        self.backups.judge(repo, args, r, (*SURE, FAILED), lo,
                           self.w.model.now if hi is None else hi)
        if r.code == FAILED and not any(w in r.err for w in ("scratch",
                                                             "space")):
            raise Broken("a full scratch is not named: %s" % r)
        if os.listdir(self.w.small):
            raise Broken("left in the small scratch")
        self.backups.check_clean()
        self.backups.quiet(repo, args)

    def step_backup_repo_full(self, rng):
        if not self.w.mounted:
            return
        before = self.w.vm.leftovers()
        ballast = os.path.dirname(self.w.repos["B"]) + "/ballast"
        vfs = os.statvfs(os.path.dirname(ballast))
        room = vfs.f_bavail * vfs.f_frsize - rng.choice([0, 8 * K, 64 * K,
                                                         512 * K, 2 * M])
        with open(ballast, "wb") as f:
            os.posix_fallocate(f.fileno(), 0, max(4096, room))
        try:
            self.w.write_noise(*self.place(rng, 2 * M), rng.random())
            lo, args = self.w.model.now, self.safe("B")
            r = self.backups.start(args).result()
            self.backups.judge("B", args, r, (*SURE, REPOSITORY, FAILED), lo,
                               lo)
            if r.code not in SURE and "space" not in r.err.lower():
                raise Broken("a full repository is not named: %s" % r)
            self.backups.check_clean(before=before)
        finally:
            os.unlink(ballast)
        self.backups.quiet("B", args)

    def step_backup_qemu_dies(self, rng):
        """Killed or shut down while the backup runs."""
        repo = self.repo(rng)
        args, env = self.backups.options(rng, repo)
        lo = self.w.model.now
        run = self.backups.start(args, env)
        moment = time.monotonic() + rng.uniform(0, 0.4)
        hi = self.drive(rng, run, lambda: self.guest_op(rng),
                        lambda: time.monotonic() > moment)
        hi = self.w.model.now if hi is None else hi
        clean = rng.random() < 0.4
        if clean:
            self.w.stop()
        else:
            self.w.vm.kill()
        r = run.result()
        self.backups.judge(repo, args, r, (*SURE, FAILED, UNREACHABLE), lo, hi)
        for path in os.listdir(self.w.tm.scratch):
            self.w.say("scratch of the dead: " + path)
        if not clean:
            self.w.killed()
        # a shutdown may have met a busy bitmap, too
        self.ledger.happened("QEMU ended during a backup", self.names())
        self.w.start()
        self.backups.quiet(repo, self.safe(repo))

    # -- repositories --------------------------------------------------------

    def step_prune(self, rng):
        repo = self.repo(rng)
        args = ["--repo", self.w.repos[repo]]
        tm = self.w.tm
        if not self.ledger.points[repo]:
            return
        cmd = ["prune", "--keep-last", str(rng.randint(1, 3))] + args
        r = tm.run(*cmd, *(["--gc"] if rng.random() < 0.5 else []))
        if r.code not in SURE:
            raise Broken("prune: %s" % r)
        left = self.backups.listed(repo)
        if not left or not all(self.ledger.known(repo, p) for p in left):
            raise Broken("left after a prune: %s" % left)
        self.ledger.removed(repo, left)
        for what in ("gc", "verify"):
            if rng.random() < 0.5:
                r = tm.run(what, *args)
                if r.code != OK:
                    raise Broken("%s: %s" % (what, r))

    def step_old_point(self, rng):
        self.backups.old_point(rng, self.repo(rng))

    # -- off and on ----------------------------------------------------------

    def step_restart(self, rng):
        self.w.stop()
        self.ledger.happened("restart", self.names(self.forgets))
        acts = Off(self)
        for _ in range(rng.choice([0, 0, 1, 1, 2, 3])):
            acts.one(rng)
        self.ledger.happened("restart", self.names(self.forgets))
        self.w.start(other_socket=rng.random() < 0.2)

    def forgets(self, d):
        """Is the disk's format unable to keep a bitmap while QEMU is off?"""
        path, fmt = d.chain[-1]
        if fmt != "qcow2":
            return True
        return "compat: 0.10" in images.sh("qemu-img", "info", "-f", fmt, path)

    def step_kill_qemu(self, rng):
        for _ in range(rng.randint(0, 3)):
            self.guest_op(rng)
        self.w.killed()
        self.ledger.happened("QEMU killed", self.names())
        self.w.start(other_socket=rng.random() < 0.2)


WEIGHTS = {
    "writes": 14, "same_again": 1, "resize": 3, "snapshot": 3, "commit": 3,
    "stream": 1, "mirror": 2, "foreign": 4, "other_bitmap": 1, "backup": 9,
    "backup_while_writing": 6, "backup_disturbed": 3, "backup_killed": 6,
    "backup_interrupted": 2, "backup_twice": 2, "backup_scratch_full": 2,
    "backup_repo_full": 2, "backup_qemu_dies": 2, "prune": 3, "old_point": 2,
    "restart": 7, "kill_qemu": 2,
}
