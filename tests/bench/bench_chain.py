"""Workload F: does it matter how many increments a point was built from?

The disk of a paused QEMU is backed up whole, then 50 times a hundredth of its
blocks is written and backed up.  Both ends of the chain are restored, in turn.
"""
import shutil

from bench_archives import raw_image
from bench_data import BLOCK, GIB, Writes, same_contents
from bench_tidemark import (NAME, Machine, Repository, committed,
                            restored_image)
from measure import Case, Failed, Job, check

INCREMENTS = 50
LIMIT = 1.2     # times the restore of the first full backup


class Chain:
    """One machine, one repository, 51 points."""

    def __init__(self, bench):
        self.bench = bench
        self.size = GIB // 8 if bench.options.quick else GIB
        self.image = bench.work / "chain.raw"
        bench.options.progress("making the chain's image")
        raw_image(self.image, self.size)
        self.first = bench.work / "chain.first.raw"
        shutil.copyfile(self.image, self.first)
        self.machine = bench.opened(
            Machine(bench.sockets, "chain", self.image, "raw"))
        self.repository = Repository(bench.options.program,
                                     bench.work / "repo-chain", self.machine)

    def fill(self):
        self.repository.create()
        log = self.bench.work / "log"
        for number in range(INCREMENTS + 1):
            if number > 0:
                self.machine.write(Writes(
                    self.bench.folder("writes"), self.size, number,
                    blocks=self.size // BLOCK // 100))
            log.write_text(check(self.repository.backup()))
            disk = committed(log)["disks"][0]
            if number > 0 and disk["read_bytes"] > self.size // 10:
                raise Failed(f"increment {number} was none: {disk}")
        self.bench.options.progress(f"{INCREMENTS} increments are made")

    def case(self, label, spec, original):
        def prepare(_):
            target = self.bench.folder("restored")
            return Job(self.repository.restore(target, "raw", spec), target)

        def finish(number, job, sample, _log):
            if number == 0:
                same_contents(original, restored_image(job.target), "raw",
                              "raw")
                sample.extra["verified"] = True
        return Case(label, prepare, finish)

    def measure(self):
        self.fill()
        self.bench.measure("chain, restore", [
            self.case("tidemark: first full", f"{NAME}@latest~{INCREMENTS}",
                      self.first),
            self.case(f"tidemark: after {INCREMENTS} increments",
                      f"{NAME}@latest", self.image)], self.size)
        shutil.rmtree(self.bench.work / "restored", ignore_errors=True)


def missed(groups):
    """A chain that costs more than it may."""
    walls = [case["durable"]
             for case in groups.get("chain, restore", {}).values()]
    if len(walls) != 2 or walls[1] <= LIMIT * walls[0]:
        return []
    return [f"chain: a point after {INCREMENTS} increments takes "
            f"{walls[1] / walls[0]:.2f} times as long to restore as the first"]
