"""The workloads: what is measured, in which order, and what must be true.

All cases of a *group* do the same thing to the same data; in every round
each is run once, and the order turns round from one round to the next.
"""
import contextlib
import os
import shutil
import subprocess

import bench_data as data
import bench_peers as peers
from bench_data import GIB, MIB, TIB
from bench_tidemark import TidemarkDisk
from measure import (Case, Failed, Job, run, summary, touch_memory,
                     wait_until_quiet)

ERRORS = (Failed, OSError, subprocess.TimeoutExpired)


class Bench:
    """Everything that one run of the benchmark has, and finds out."""

    def __init__(self, options, work, sockets, stack):
        self.options, self.work, self.sockets = options, work, sockets
        self.stack = stack      # closes what was started, last first
        self.groups, self.not_measured, self.problems = {}, [], []
        self.tables = {}        # of programs that measure themselves
        self.no_tidemark = (None if options.program.exists() else
                            f"{options.program} does not exist")
        self.no_virtnbd = peers.missing_for_virtnbd()
        if not self.no_virtnbd:
            try:
                self.libvirt = self.opened(peers.Libvirt(sockets))
            except ERRORS as e:
                self.no_virtnbd = f"libvirtd does not start: {e}"
        for what, reason in (("tidemark", self.no_tidemark),
                             ("virtnbdbackup", self.no_virtnbd)):
            if reason:
                self.skip(what, reason)

    def opened(self, thing):
        self.stack.callback(thing.close)
        return thing

    def skip(self, what, reason):
        self.options.progress(f"not measured: {what}: {reason}")
        self.not_measured.append({"what": what, "reason": reason})

    def folder(self, name):
        """An empty directory."""
        path = self.work / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path

    def measure(self, group, cases, touch, rounds=None, before=None):
        """Run every case in every round; a case that fails is dropped.

        touch: bytes that a case may bring into the page cache.
        """
        cases, found = list(cases), {c.name: [] for c in cases}
        for number in range(rounds or self.options.runs):
            if before:
                before(number)
            for case in cases[::-1] if number % 2 else list(cases):
                try:
                    sample = self.once(group, case, number, touch)
                    found[case.name].append(sample)
                except ERRORS as e:
                    cases.remove(case)
                    self.problems.append(f"{group}: {case.name}: {e}")
                    self.skip(f"{group}: {case.name}", f"failed: {e}")
        self.groups[group] = {
            name: summary(s) for name, s in found.items() if s}

    def once(self, group, case, number=0, touch=0):
        job = case.prepare(number)
        log = self.work / "log"
        log.write_bytes(b"")
        if job.reads:
            data.warm(job.reads)
        os.sync()
        wait_until_quiet(self.options.settle)
        touch_memory(touch)     # last: the host takes free memory back
        sample = run(job, log, self.options.timeout)
        if case.finish:
            case.finish(number, job, sample, log)
        self.options.progress(f"{group}, round {number + 1}: {case.name}: "
                              f"{sample.wall:.2f} s")
        return sample


class MainDisk:
    """Workloads A (full, restore) and B (incremental), on one disk."""

    PARTS = ("full", "restore", "incremental")

    def __init__(self, bench):
        self.bench, self.rounds = bench, {}
        self.size = 512 * MIB if bench.options.quick else 4 * GIB
        self.region = (12 if bench.options.quick else 100) * MIB
        self.image = bench.work / "disk.qcow2"
        bench.options.progress("making the image")
        data.mixed_image(self.image, self.size)
        self.touch = self.size * 3 // 4  # half of it is data; some room
        self.tidemark, self.virtnbd = [], []
        if not bench.no_tidemark:
            self.tidemark = [TidemarkDisk(
                bench, "tm", self.image,
                {"tidemark zstd-1": 1, "tidemark --compress 0": 0})]
        if not bench.no_virtnbd:
            self.virtnbd = [
                peers.VirtNbdDisk(bench, "plain", self.image, "virtnbdbackup"),
                peers.VirtNbdDisk(bench, "z", self.image, "virtnbdbackup -z",
                                  compress=True)]
        self.disks = self.tidemark + self.virtnbd

    def full(self):
        cases = [case for disk in self.disks for case in disk.full_cases()]
        cases += self.converts("out", [
            ("qemu-img convert to raw", "raw", ()),
            ("qemu-img convert -c zstd", "qcow2",
             ("-c", "-o", "compression_type=zstd"))])
        with contextlib.ExitStack() as stack:
            try:
                cases.append(self.nbdcopy(stack))
            except ERRORS as e:
                self.bench.skip("full: nbdcopy to null:", str(e))
            self.bench.measure("full", cases, self.touch)
        shutil.rmtree(self.bench.work / "out", ignore_errors=True)

    def nbdcopy(self, stack):
        if not shutil.which("nbdcopy"):
            raise Failed("nbdcopy is not installed")
        export = peers.QemuNbd(self.bench.sockets, self.image)
        stack.callback(export.close)
        return Case("nbdcopy to null: (only reads)", lambda _: Job(
            peers.nbdcopy_null(export.uri), self.bench.folder("out"),
            export.servers(), self.image))

    def converts(self, folder, wanted):
        def case(name, image_format, options):
            def prepare(_):
                target = self.bench.folder(folder)
                return Job(peers.convert(
                    self.image, target / "copy", image_format, *options),
                    target, {}, self.image)
            return Case(name, prepare)
        return [case(*each) for each in wanted]

    def restore(self):
        self.ensure_full()
        cases = [case for disk in self.tidemark
                 for case in disk.restore_cases(("qcow2", "raw"))]
        cases += [case for disk in self.virtnbd
                  for case in disk.restore_cases()]
        cases += self.converts("restored", [
            ("qemu-img convert to qcow2 (plain copy)", "qcow2", ()),
            ("qemu-img convert to raw (plain copy)", "raw", ())])
        self.bench.measure("restore", cases, self.touch)
        shutil.rmtree(self.bench.work / "restored", ignore_errors=True)

    def ensure_full(self):
        for disk in self.disks:
            disk.ensure_full()

    def dirty(self, number):
        """The same writes to every machine."""
        self.rounds[number] = data.Writes(
            self.bench.folder("writes"), self.size, number, self.region)
        for disk in self.disks:
            disk.write(self.rounds[number])

    def incremental(self):
        self.ensure_full()
        cases = [case for disk in self.disks
                 for case in disk.inc_cases(self.rounds.get)]
        self.bench.measure("incremental", cases, 8 * self.region,
                           before=self.dirty)
        # What comes back after the last increment is the disk as it is now.
        cases = [case for disk in self.disks for case in disk.restore_cases()]
        self.bench.measure("restore after the increments", cases, self.touch,
                           rounds=1)
        shutil.rmtree(self.bench.work / "restored", ignore_errors=True)


class Scale:
    """Workload C: the same 64 blocks, on a small and on a large disk."""

    SIZES = {"10 GiB": 10 * GIB, "1 TiB": TIB}

    def __init__(self, bench):
        self.bench, self.rounds, self.disks = bench, {}, {}
        blocks = 512 if bench.options.quick else 4096
        for label, size in self.SIZES.items():
            short = label.replace(" ", "")
            image = bench.work / f"scale-{short}.qcow2"
            bench.options.progress(f"making the image of {label}")
            data.sparse_image(image, size, blocks)
            self.disks[label] = []
            if not bench.no_tidemark:
                self.disks[label].append(TidemarkDisk(
                    bench, f"t{short}", image, {f"tidemark, {label}": 1}))
            if not bench.no_virtnbd:
                self.disks[label].append(peers.VirtNbdDisk(
                    bench, f"v{short}", image, f"virtnbdbackup, {label}"))

    def dirty(self, number):
        for label, disks in self.disks.items():
            writes = data.Writes(self.bench.folder("writes"),
                                 self.SIZES[label], number)
            self.rounds[number] = writes
            for disk in disks:
                disk.write(writes)

    def measure(self):
        disks = [disk for group in self.disks.values() for disk in group]
        full = [case for disk in disks for case in disk.full_cases()]
        self.bench.measure("scale, full", full, GIB, rounds=1)
        inc = [case for disk in disks
               for case in disk.inc_cases(self.rounds.get)]
        self.bench.measure("scale, incremental", inc, GIB // 4,
                           before=self.dirty)
