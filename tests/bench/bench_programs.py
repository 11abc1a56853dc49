"""Programs in C that measure themselves on synthetic repositories."""
import json
import shutil
import subprocess

from bench_data import GIB
from measure import Failed

MEMORY_TO_REBUILD = 14 * GIB   # for 100 million chunks; see README.md


def call(options, program, *args):
    """What one of the programs printed, as an object."""
    path = options.program.parent / "tests/bench" / program
    done = subprocess.run([str(a) for a in (path, *args)], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=options.timeout, check=False)
    if done.returncode != 0:
        raise Failed(f"{program} {args[0]}: exit status {done.returncode}: "
                     f"{done.stderr.strip()[-600:]}")
    return json.loads(done.stdout)


def available_memory():
    with open("/proc/meminfo", encoding="ascii") as f:
        facts = dict(line.split(":") for line in f)
    return int(facts["MemAvailable"].split()[0]) * 1024


class Index:
    """Workload E: the index of very many chunks."""

    ROWS = (("merged in, s", "merge_s"), ("segments", "segments"),
            ("bytes per chunk", "bytes_per_chunk"), ("open, s", "open_s"),
            ("misses/s, cold", "cold_miss"), ("hits/s, cold", "cold_hit"),
            ("misses/s", "miss"), ("hits/s, first", "first_hit"),
            ("hits/s", "hit"), ("memory of its own, KiB", "anon_kib"),
            ("mapped files in memory, KiB", "file_kib"),
            ("made again from packs, s", "rebuild_s"),
            ("peak of that, KiB", "peak_kib"))

    def __init__(self, bench):
        self.bench = bench
        self.counts = ((1000000,) if bench.options.quick else
                       (10000000, 100000000))

    def measure(self):
        found = [self.one(n) for n in self.counts]
        self.bench.tables["index"] = [
            ["chunks", *(f"{n:,}" for n in self.counts)],
            *([label, *(f"{r[key]:,}" if key in r else "-" for r in found)]
              for label, key in self.ROWS)]

    def one(self, n):
        options, path = self.bench.options, self.bench.work / "index"
        options.progress(f"an index of {n} chunks")
        try:
            found = call(options, "bench-index", "make", path, n)
            found.update(call(options, "bench-index", "ask", path, n))
            if n < self.counts[-1] or available_memory() > MEMORY_TO_REBUILD:
                again = call(options, "bench-index", "rebuild", path, n)
                found.update({key: again[key]
                              for key in ("rebuild_s", "peak_kib")})
            else:
                self.bench.skip(f"index of {n}: made again from packs",
                                "too little memory is free")
            return found
        finally:
            shutil.rmtree(path, ignore_errors=True)


class Points:
    """Workload G: many points of one large disk are forgotten and collected."""

    def __init__(self, bench):
        self.bench = bench
        self.points, self.gib, self.keep = (
            (50, 16, 5) if bench.options.quick else (1000, 1024, 100))

    def measure(self):
        options, path = self.bench.options, self.bench.work / "points"
        options.progress(f"{self.points} points of {self.gib} GiB")
        try:
            made = call(options, "bench-points", "make", path, self.points,
                        self.gib)
            done = call(options, "bench-points", "gc", path, self.keep)
        finally:
            shutil.rmtree(path, ignore_errors=True)
        if done["live"] != self.keep:
            raise Failed(f"{done['live']} points live, {self.keep} expected")
        self.bench.tables["prune and gc"] = [
            ["points", f"{self.points}"], ["disk, GiB", f"{self.gib}"],
            ["points kept", f"{self.keep}"],
            ["entries of maps changed", f"{made['changed']:,}"],
            ["index records", f"{made['records']:,}"],
            ["forget, s", f"{done['forget_s']}"],
            ["collect, s", f"{done['gc_s']}"],
            ["packs", f"{done['packs']:,}"],
            ["packs removed", f"{done['packs_removed']:,}"],
            ["MiB before", f"{done['bytes_before'] >> 20:,}"],
            ["MiB removed", f"{done['bytes_removed'] >> 20:,}"],
            ["MiB copied", f"{done['bytes_copied'] >> 20:,}"],
            ["memory of its own, peak, KiB", f"{done['anon_kib']:,}"],
            ["peak with mapped files, KiB", f"{done['peak_kib']:,}"]]
