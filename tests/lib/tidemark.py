"""Running the program under test.

    tm = Tidemark(repo)
    r = tm.run("backup", vm.address, "--json")
    r.code, r.out, r.err, r.events, r.committed
"""

import json
import os
import signal
import subprocess
import time

import tap
from qmpsock import check_path

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.environ.get("TIDEMARK_TEST_BUILD",
                       os.path.normpath(HERE + "/../../build"))
BINARY = os.environ.get("TIDEMARK_TEST_BINARY", BUILD + "/tidemark")

# Exit status, as documented in tidemark(1).
OK, WARNING, USAGE, UNREACHABLE, REPOSITORY, FAILED, BUSY = range(7)

# Sanitizers and valgrind make the program several times slower.
TIMEOUT = 300


class Result:
    def __init__(self, code, out, err, seconds):
        self.code, self.out, self.err = code, out, err
        self.seconds = seconds
        self.events = []
        for line in out.splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                self.events.append(value)

    @property
    def committed(self):
        """The last line of a successful `backup --json`, else None."""
        last = self.events[-1] if self.events else {}
        return last if last.get("event") == "committed" else None

    def json(self):
        """All of the output as one JSON value."""
        return json.loads(self.out)

    def disk(self, name):
        """What the committed object says of one disk."""
        for d in (self.committed or {}).get("disks", []):
            if d["disk"] == name:
                return d
        return None

    def __str__(self):
        return "exit %s after %.1f s\n%s%s" % (self.code, self.seconds,
                                               self.out, self.err)


class Running:
    """A started program; its process group can be killed."""

    def __init__(self, proc):
        self.proc = proc
        self.began = time.monotonic()
        tap.cleanup(self.kill)

    def line(self):
        """The next line of its output, "" at the end."""
        return self.proc.stdout.readline()

    def kill(self, signum=signal.SIGKILL):
        """Signal all of the group; the program is waited for after SIGKILL."""
        if self.proc.poll() is None:
            os.killpg(self.proc.pid, signum)
            if signum == signal.SIGKILL:
                self.proc.communicate(timeout=30)

    def wait(self, timeout=TIMEOUT):
        try:
            out, err = self.proc.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return Result(self.proc.returncode, out, err,
                      time.monotonic() - self.began)


class Tidemark:
    def __init__(self, repo=None, wrap=()):
        """Locks and sockets are in a directory of this object's own."""
        self.dir = tap.tempdir("tm")
        self.repo = repo or self.dir + "/repo"
        self.run_dir = check_path(self.dir + "/run")
        self.scratch = self.dir + "/scratch"
        self.state = self.dir + "/state"
        self.wrap = list(wrap)
        os.mkdir(self.run_dir)
        os.mkdir(self.scratch)
        self.env = dict(os.environ, TIDEMARK_REPO=self.repo,
                        TIDEMARK_RUN_DIR=self.run_dir,
                        TIDEMARK_SCRATCH=self.scratch,
                        TIDEMARK_STATE=self.state, LC_ALL="C")

    def start(self, *args, env=None, wrap=None):
        """Start in a process group of its own and do not wait."""
        proc = subprocess.Popen(
            list(wrap or self.wrap) + [BINARY] + [str(a) for a in args],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, errors="replace",
            env=dict(self.env, **(env or {})), start_new_session=True)
        return Running(proc)

    def run(self, *args, timeout=TIMEOUT, env=None, wrap=None):
        return self.start(*args, env=env, wrap=wrap).wait(timeout)

    def ok(self, *args, codes=(OK,), **kw):
        """Run, and end the test unless the exit status is one of `codes`."""
        r = self.run(*args, **kw)
        tap.need(r.code in codes, "tidemark %s: exit %d, want %s"
                 % (" ".join(str(a) for a in args), r.code, list(codes)), r)
        return r

    def init(self, *args):
        return self.ok("init", self.repo, *args)

    def points(self, name=None):
        args = [name] if name else []
        return self.ok("points", *args, "--json").json()["points"]
