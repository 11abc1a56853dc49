"""Run one command and say what it, and everything it started, cost.

The command runs under a supervisor: this file, executed as a script.  The
supervisor is a "child subreaper", so a helper that turns itself into a daemon
(virtnbdrestore does that with qemu-nbd) is still waited for and its CPU time
still counted.  Wall time ends when the command itself exits; what its helpers
do after that is "tail".
"""
import ctypes
import json
import mmap
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
TICK_S = 0.05       # between two looks at the memory of the process tree
QUIET = 0.2         # CPUs busy with other work that do no harm
TAIL_LIMIT_S = 30   # helpers that live longer than this are ended
CLOCK_HZ = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
LIBC = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """A command that had to work did not."""


@dataclass
class Sample:
    """One measured run."""
    wall: float         # s, start of the command to its exit
    cpu: float          # s, user + system of the whole process tree
    user: float
    system: float
    peak_rss: int       # bytes, see README.md
    tail: float         # s, helpers still running after the exit
    sync: float         # s, to make the written files durable afterwards
    server_cpu: float   # s, user + system of the servers it read from
    servers: dict       # the same, by name
    foreign: float      # CPUs kept busy by everything else meanwhile
    size: int           # bytes more in the target, allocated
    extra: dict = field(default_factory=dict)

    def durable(self):
        return self.wall + self.tail + self.sync


@dataclass
class Job:
    """One command, ready to be measured."""
    cmd: list
    target: Path                # the directory that it fills
    servers: dict = field(default_factory=dict)
    reads: object = None        # the image to have in the page cache


@dataclass
class Case:
    """One program doing one thing, once per round."""
    name: str
    prepare: object             # (round) -> Job
    finish: object = None       # (round, job, sample, log), may raise Failed


def process_cpu(pid):
    """User + system seconds of a process, all its threads."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        raise Failed(f"process {pid} is gone") from None
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_HZ


def machine_busy():
    """Busy CPU seconds of the whole machine since boot."""
    with open("/proc/stat", encoding="ascii") as f:
        v = [int(x) for x in f.readline().split()[1:9]]
    return (sum(v) - v[3] - v[4]) / CLOCK_HZ


def wait_until_quiet(limit):
    """Give other work on the machine up to `limit` seconds to end."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        busy = machine_busy()
        time.sleep(0.5)
        if machine_busy() - busy < QUIET * 0.5:
            return


def sync_directory(path):
    """Seconds until everything in the file system of `path` is durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        start = time.monotonic()
        if LIBC.syncfs(fd) != 0:
            raise OSError(ctypes.get_errno(), "syncfs", str(path))
        return time.monotonic() - start
    finally:
        os.close(fd)


def allocated(path):
    """Bytes allocated below `path`: holes of sparse files do not count."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return total


def touch_memory(size):
    """Have `size` bytes of memory that are free and really there.

    In a virtual machine a page that the host has not given yet, or has taken
    back while it was free, costs the first program that touches it up to ten
    times what it costs the next one.  Without this, the first program to fill
    the page cache pays for the others.
    """
    with open("/proc/meminfo", encoding="ascii") as f:
        facts = dict(line.split(":") for line in f)
    size = min(size, int(facts["MemAvailable"].split()[0]) * 1024 // 2)
    mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
              | mmap.MAP_POPULATE).close()


def log_tail(path):
    lines = Path(path).read_text(errors="replace").strip().splitlines()
    return "\n".join(lines[-8:])


def run(job, log, timeout):
    """Run the command of `job`; its output goes to the file `log`."""
    held = allocated(job.target)
    before = {n: process_cpu(pid) for n, pid in job.servers.items()}
    busy, started = machine_busy(), time.monotonic()
    report = supervise(job.cmd, log, timeout)
    span = time.monotonic() - started
    if report["rc"] != 0:
        raise Failed(f"{job.cmd[0]} ended with {report['rc']}: "
                     f"{log_tail(log)}")
    after = {n: process_cpu(p) - before[n] for n, p in job.servers.items()}
    served, cpu = sum(after.values()), report["user"] + report["sys"]
    foreign = machine_busy() - busy - cpu - report["own"] - served
    return Sample(wall=report["wall"], cpu=cpu,
                  user=report["user"], system=report["sys"],
                  peak_rss=report["peak_rss"], tail=report["tail"],
                  sync=sync_directory(job.target), server_cpu=served,
                  servers=after, foreign=max(0.0, foreign) / span,
                  size=allocated(job.target) - held)


def supervised(cmd, report_fd, timeout):
    """`cmd` under a supervisor; timeout 0: neither deadline nor watch."""
    return [sys.executable, "-I", "-S", __file__, str(report_fd),
            str(timeout), *(str(c) for c in cmd)]


def supervise(cmd, log, timeout):
    rfd, wfd = os.pipe()
    with open(log, "ab") as out, open(rfd, "rb") as reader:
        try:
            child = subprocess.Popen(
                supervised(cmd, wfd, timeout), stdin=subprocess.DEVNULL,
                stdout=out, stderr=out, pass_fds=[wfd])
        finally:
            os.close(wfd)
        try:
            text = reader.read()
        finally:
            child.terminate()
            child.wait()
    if not text:
        raise Failed(f"{cmd[0]}: no report: {log_tail(log)}")
    return json.loads(text)


def check(cmd, timeout=600, stdin=None):
    """Run a command that is not measured; its standard output."""
    done = subprocess.run(
        [str(c) for c in cmd], stdout=subprocess.PIPE, input=stdin, stderr=subprocess.STDOUT, timeout=timeout, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(str(c) for c in cmd)}: exit status "
                     f"{done.returncode}: {done.stdout.strip()[-600:]}")
    return done.stdout


def stop(child, timeout=15):
    """End a process that we started, by its PID."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(timeout)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def wait_for(condition, what, timeout=30):
    """Poll until `condition()` is true."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"{what}: nothing after {timeout} s")
        time.sleep(0.02)


def summary(samples):
    """Medians, and the spread of the wall time."""
    def median(name):
        return statistics.median(getattr(s, name) for s in samples)
    walls = [s.wall for s in samples]
    return {
        "runs": len(samples), "wall": median("wall"),
        "wall_min": min(walls), "wall_max": max(walls),
        "durable": statistics.median(s.durable() for s in samples),
        "cpu": median("cpu"), "user": median("user"),
        "system": median("system"), "server_cpu": median("server_cpu"),
        "peak_rss": max(s.peak_rss for s in samples),
        "size": int(median("size")), "foreign": median("foreign"),
        "samples": [asdict(s) for s in samples],
    }


# The supervisor.

def descendants():
    """Processes below this one: {pid: resident bytes}."""
    parent, resident = {}, {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8",
                      errors="replace") as f:
                fields = f.read().rpartition(")")[2].split()
        except OSError:
            continue
        parent[int(entry)] = int(fields[1])
        resident[int(entry)] = int(fields[21]) * PAGE
    found, grew = {os.getpid()}, True
    while grew:
        new = {p for p, up in parent.items() if up in found} - found
        grew = bool(new)
        found |= new
    found.discard(os.getpid())
    return {p: resident[p] for p in found if p in resident}


def end_all():
    for pid in descendants():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


class Watch(threading.Thread):
    """Looks at the memory of the tree, and at the deadline."""

    def __init__(self, timeout):
        super().__init__(daemon=True)
        self.deadline = time.monotonic() + timeout
        self.peak = 0
        self.done = threading.Event()

    def run(self):
        while not self.done.wait(TICK_S):
            self.peak = max(self.peak, sum(descendants().values()))
            if time.monotonic() > self.deadline:
                end_all()


def reap(main_pid, watch, stopping):
    """Wait for every descendant.  (status, end of main, end of all, rss)"""
    status, main_end, rss = 0, 0.0, 0
    while True:
        if stopping.is_set():
            end_all()
        try:
            pid, st, usage = os.wait4(-1, 0)
        except ChildProcessError:
            return status, main_end, time.monotonic(), rss
        rss = max(rss, usage.ru_maxrss * 1024)
        if pid == main_pid:
            status = os.waitstatus_to_exitcode(st)
            main_end = time.monotonic()
            watch.deadline = min(watch.deadline, main_end + TAIL_LIMIT_S)


def supervisor(report_fd, timeout, cmd):
    stopping, watch = threading.Event(), Watch(timeout)
    signal.signal(signal.SIGTERM, lambda *_: (stopping.set(), end_all()))
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    os.set_inheritable(report_fd, False)
    start = time.monotonic()
    pid = os.posix_spawnp(cmd[0], cmd, os.environ)
    if timeout:
        watch.start()
    status, main_end, all_end, rss = reap(pid, watch, stopping)
    if timeout:
        watch.done.set()
        watch.join()
    usage, own = os.times(), time.process_time()
    os.write(report_fd, json.dumps({
        "rc": status, "wall": main_end - start, "tail": all_end - main_end,
        "user": usage.children_user, "sys": usage.children_system,
        "own": own, "peak_rss": max(rss, watch.peak)}).encode())


if __name__ == "__main__":
    supervisor(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
