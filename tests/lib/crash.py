"""What the tests of tests/crash share: running the driver, and knowing which
points must be there.

    repo = Repo(dir)                 # makes a repository
    repo.put("m", 1)                 # a point that must be there from now on
    repo.killed_at(40, "put", "m", 2)
    repo.settle("after the kill", "m", 3)
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading

import tap

BUILD = os.path.join(os.environ.get("TIDEMARK_TEST_BUILD", "build"), "tests",
                     "crash")
DRIVER = os.path.join(BUILD, "crash-driver")
KILLAT = os.path.join(BUILD, "killat")
SHUTDOWN = os.path.join(BUILD, "fs-shutdown")
JUMPS = os.path.join(BUILD, "libclock-jumps.so")

OK, FAILED, DAMAGE, REFUSED, KILLED = 0, 1, 2, 3, 137
TIMEOUT = 120  # of one command; they take milliseconds


class Result:
    def __init__(self, args, code, out, err):
        self.args, self.code = args, code
        self.lines, self.err = out.splitlines(), err

    def of(self, word):
        """What follows `word` in the lines that begin with it."""
        n = len(word) + 1
        return [l[n:] for l in self.lines if l.startswith(word + " ")]

    def __str__(self):
        return "%s\nexit %d\n%s\n%s" % (" ".join(self.args), self.code,
                                        "\n".join(self.lines), self.err)


def spawn(*args, **kw):
    """Start a command whose output is taken."""
    return subprocess.Popen([str(a) for a in args], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, **kw)


def finish(p, timeout=TIMEOUT):
    """Wait for what spawn() started."""
    try:
        out, err = p.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        p.kill()
        out, err = p.communicate()
        err += "\nkilled: it took longer than %d s" % timeout
    code = p.returncode if p.returncode >= 0 else 128 - p.returncode
    return Result(p.args, code, out, err)


def run(*args, **kw):
    return finish(spawn(*args, **kw))


class Repo:
    """A repository, and what its users were told."""

    def __init__(self, path, options=("--no-fsync",), make=True):
        self.path, self.options = path, list(options)
        self.points = {}        # id: "machine seed" of what was committed
        self.doubt = set()      # "machine seed" that may be there
        self.forgotten = set()  # ids that may be gone
        self.lock = threading.Lock()
        if make:
            tap.need(self.run("init").code == OK, "init")

    def copy(self, path):
        """The same in another directory."""
        other = Repo(path, self.options, make=False)
        shutil.copytree(self.path, path)
        other.points, other.doubt = dict(self.points), set(self.doubt)
        other.forgotten = set(self.forgotten)
        return other

    def command(self, cmd, *args, options=()):
        return [DRIVER, *self.options, *options, cmd, self.path, *args]

    def note(self, cmd, args, r):
        """Learn from a command, however it ended."""
        with self.lock:
            for line in r.of("committed"):
                id, rest = line.split(" ", 1)
                self.points[id] = rest
            if cmd in ("put", "settle") and r.code != REFUSED:
                self.doubt.add("%s %s" % tuple(args))
            if cmd == "forget":
                self.forgotten.update(args)
        return r

    def run(self, cmd, *args, options=(), before=(), **kw):
        if cmd == "forget":
            with self.lock:
                self.forgotten.update(args)
        r = run(*before, *self.command(cmd, *args, options=options), **kw)
        return self.note(cmd, args, r)

    def spawn(self, cmd, *args, options=(), before=(), **kw):
        if cmd == "put":
            with self.lock:
                self.doubt.add("%s %s" % args)
        return spawn(*before, *self.command(cmd, *args, options=options), **kw)

    def put(self, machine, seed, **kw):
        r = self.run("put", machine, seed, **kw)
        tap.check(r.code == OK, "put %s %s" % (machine, seed), r)
        return r.of("committed")[0].split()[0] if r.code == OK else None

    def forget(self, *ids, **kw):
        r = self.run("forget", *ids, **kw)
        return tap.check(r.code == OK, "forget", r)

    def gc(self, **kw):
        r = self.run("gc", **kw)
        tap.check(r.code == OK, "gc", r)
        return r

    def killed_at(self, n, cmd, *args, **kw):
        """Run it and kill it before its nth system call; n = 0 counts."""
        return self.run(cmd, *args, before=(KILLAT, n), **kw)

    def judge(self, r, what):
        """The points in the output of check or settle are those that must be
        there, and no others."""
        found = {}
        for line in r.of("point"):
            id, rest = line.split(" ", 1)
            found[id] = rest
        if not tap.check(r.code == OK, what, r):
            return False
        good = True
        for id, rest in self.points.items():
            if id not in self.forgotten:
                good &= tap.check(found.get(id) == rest, "%s: point %s %s is "
                                  "there" % (what, id, rest), r)
        for id, rest in found.items():
            good &= tap.check(id in self.points or rest in self.doubt,
                              "%s: nobody made %s %s" % (what, id, rest), r)
        return good

    def check(self, what, **kw):
        return self.judge(self.run("check", **kw), what)

    def settle(self, what, machine, seed, **kw):
        r = self.run("settle", machine, seed, **kw)
        return self.judge(r, what) and r


def wait_stopped(p, timeout=60):
    """Wait until a command of spawn() is stopped; False when it ended before."""
    def gone_or_stopped():
        try:
            return os.waitid(os.P_PID, p.pid, os.WSTOPPED | os.WEXITED |
                             os.WNOWAIT | os.WNOHANG)
        except ChildProcessError:
            return True
    info = tap.wait_for("a stop", gone_or_stopped, timeout)
    return info is not True and info.si_code == os.CLD_STOPPED


def newest(repo, machine):
    """Ids of the machine's points, oldest first, as they were committed."""
    return [i for i, rest in repo.points.items()
            if rest.split()[0] == machine and i not in repo.forgotten]


def calls(r):
    """How many system calls killat counted."""
    m = re.search(r"killat: (\d+) calls", r.err)
    return int(m.group(1)) if m else 0


def memory_dir(name):
    """A directory in memory where that is possible: kills need no disk."""
    if os.environ.get("TMPDIR") or not os.access("/dev/shm", os.W_OK):
        return tap.tempdir(name)
    dir = tempfile.mkdtemp(prefix="tm-%s-" % name, dir="/dev/shm")
    tap.cleanup(shutil.rmtree, dir, True)
    return dir


def own_mounts():
    """Run the rest in a mount namespace of its own, so that mounts and loop
    devices go with the process however it ends.  The reason when it cannot."""
    if os.environ.get("CRASH_OWN_MOUNTS") == "1":
        return None
    if os.getuid() != 0:
        return "mounting needs root"
    r = subprocess.run(["unshare", "--mount", "--propagation", "private",
                        "true"], capture_output=True, text=True)
    if r.returncode != 0:
        return "no mount namespace: " + r.stderr.strip()
    os.environ["CRASH_OWN_MOUNTS"] = "1"
    sys.stdout.flush()
    os.execvp("unshare", ["unshare", "--mount", "--propagation", "private",
                          sys.executable, *sys.argv])
