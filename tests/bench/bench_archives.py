"""Programs that back up files to a repository: restic and borg, beside Tidemark.

They read the machine's raw image as a file, which one may do only because the
guest is paused; Tidemark reads the same image through the running QEMU.  What
they keep besides the repository (caches) is not measured as stored.
"""
import filecmp
import random
import shutil

from bench_data import BLOCK, GIB, MIB, SEED, Text, Writes
from bench_tidemark import Machine, Repository, note_backup
from measure import Case, Failed, Job, check

IMAGE = "disk.raw"
PASSWORD = "benchmark"
ENCRYPTED = {"init": ["--encrypt"],
             "env": {"TIDEMARK_PASSPHRASE_COMMAND": f"echo {PASSWORD}"}}
GROWTH_LIMIT = 1.15     # of the changed bytes


def raw_image(path, size):
    """Half random, a quarter text, a quarter zeroes, mixed by the MiB."""
    text, rng = Text("archive"), random.Random(f"{SEED} archive")
    kinds = ["random", "random", "text", "zero"] * (size // MIB // 4)
    rng.shuffle(kinds)
    with open(path, "wb") as f:
        for kind in kinds:
            f.write(rng.randbytes(MIB) if kind == "random" else
                    text.mib(rng) if kind == "text" else bytes(MIB))


class Borg:
    """Chunks of 64 KiB at fixed places, as Tidemark's; zstd level 1."""

    def __init__(self, folder, encrypted):
        self.repo, self.base = folder / "repo", folder / "base"
        self.mode = "repokey-blake2" if encrypted else "none"
        self.count = 0

    def command(self, *args, cwd=None):
        change = ["-C", cwd] if cwd else []
        return ["env", *change, f"BORG_BASE_DIR={self.base}",
                f"BORG_PASSPHRASE={PASSWORD}",
                "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes",
                "borg", *args]

    def create(self):
        for path in (self.repo, self.base):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
        check(self.command("init", "-e", self.mode, self.repo))

    def backup(self, image):
        self.count += 1
        return self.command("create", "--chunker-params", "fixed,65536",
                            "--compression", "zstd,1",
                            f"{self.repo}::{self.count}", image)

    def restore(self, target):
        return self.command("extract", "--sparse",
                            f"{self.repo}::{self.count}", cwd=target)

    def verify(self):
        return self.command("check", "--verify-data", self.repo)


class Restic:
    """Chunks of its own making, about 1 MiB; always encrypted; zstd."""

    def __init__(self, folder):
        self.repo, self.cache = folder / "repo", folder / "cache"

    def command(self, *args):
        return ["env", f"RESTIC_PASSWORD={PASSWORD}", "restic", "--quiet",
                "--repo", self.repo, "--cache-dir", self.cache, *args]

    def create(self):
        for path in (self.repo, self.cache):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
        check(self.command("init"))

    def backup(self, image):
        return self.command("backup", image)

    def restore(self, target):
        return self.command("restore", "latest", "--target", target)

    def verify(self):
        return self.command("check", "--read-data")


class Archive:
    """One program and its repository, as cases."""

    def __init__(self, bench, name, program, image):
        self.bench, self.name, self.program = bench, name, program
        self.image, self.repo = image, program.repo
        self.servers = {}

    def init(self):
        self.program.create()

    def command(self):
        return self.program.backup(self.image)

    def note(self, sample, log):
        """What the program said of a backup."""

    def full_case(self):
        def prepare(_):
            self.init()
            return Job(self.command(), self.repo, self.servers, self.image)
        return Case(self.name, prepare,
                    lambda _n, _j, sample, log: self.note(sample, log))

    def next_case(self, writes):
        def finish(number, _job, sample, log):
            self.note(sample, log)
            sample.extra["growth"] = sample.size / writes(number).bytes
        return Case(self.name, lambda _: Job(
            self.command(), self.repo, self.servers, self.image), finish)

    def restore_case(self):
        def prepare(_):
            target = self.bench.folder("restored")
            return Job(self.restore(target), target)

        def finish(_number, job, sample, _log):
            found = [p for p in job.target.rglob("*") if p.is_file() and
                     p.stat().st_size == self.image.stat().st_size]
            if len(found) != 1 or not filecmp.cmp(found[0], self.image, False):
                raise Failed("what was restored is not what was backed up")
            sample.extra["verified"] = True
        return Case(self.name, prepare, finish)

    def restore(self, target):
        return self.program.restore(target)

    def verify_case(self):
        return Case(self.name, lambda _: Job(self.program.verify(), self.repo))


class TidemarkArchive(Archive):
    """The same through the running QEMU that has the image as its disk."""

    def __init__(self, bench, name, machine, repository):
        super().__init__(bench, name, repository, machine.image)
        self.machine, self.servers = machine, machine.servers()
        self.bitmaps = set()    # of the repository that there is

    def init(self):
        self.machine.drop_bitmaps(self.bitmaps)
        self.program.create()
        self.bitmaps = self.machine.bitmaps()   # of the others

    def note(self, sample, log):
        note_backup(sample, log)
        self.bitmaps = self.machine.bitmaps() - self.bitmaps

    def restore(self, target):
        return self.program.restore(target, "raw")


class Archives:
    """Workload D: first and second backup, restore, verification."""

    def __init__(self, bench):
        self.bench, self.rounds = bench, {}
        self.size = GIB // 4 if bench.options.quick else 2 * GIB
        self.image = bench.work / IMAGE
        bench.options.progress("making the image of the archives")
        raw_image(self.image, self.size)
        self.machine = bench.opened(
            Machine(bench.sockets, "archive", self.image, "raw"))
        self.all = [*self.tidemarks(), *self.peers()]

    def tidemarks(self):
        if self.bench.no_tidemark:
            return
        program = self.bench.options.program
        for name, options in (("tidemark", {}),
                              ("tidemark, encrypted", ENCRYPTED)):
            folder = self.bench.folder(name.replace(", ", "-"))
            yield TidemarkArchive(self.bench, name, self.machine, Repository(
                program, folder / "repo", self.machine, **options))

    def peers(self):
        for name, program, make in (
                ("borg", "borg", lambda d: Borg(d, False)),
                ("borg, encrypted", "borg", lambda d: Borg(d, True)),
                ("restic, encrypted", "restic", Restic)):
            if shutil.which(program):
                folder = self.bench.folder(name.replace(", ", "-"))
                yield Archive(self.bench, name, make(folder), self.image)
            else:
                self.bench.skip(name, f"{program} is not installed")

    def dirty(self, number):
        """A hundredth of the disk changes, in random blocks."""
        writes = Writes(self.bench.folder("writes"), self.size, number,
                        blocks=self.size // BLOCK // 100)
        self.rounds[number] = writes
        self.machine.write(writes)

    def measure(self):
        measure = self.bench.measure
        measure("archive, first", [a.full_case() for a in self.all], self.size)
        measure("archive, second",
                [a.next_case(self.rounds.get) for a in self.all], self.size // 8,
                before=self.dirty)
        measure("archive, restore", [a.restore_case() for a in self.all],
                self.size)
        shutil.rmtree(self.bench.work / "restored", ignore_errors=True)
        measure("archive, verify", [a.verify_case() for a in self.all],
                self.size)


def missed(groups):
    """Where Tidemark is not what it wants to be beside the archives."""
    lines = []
    for group, cases in groups.items():
        ours = [n for n in cases if n.startswith("tidemark")]
        if not group.startswith("archive"):
            continue
        for us, them in ((u, t) for u in ours for t in cases if t not in ours
                         and ("encrypted" in t or "encrypted" not in u)):
            if cases[us]["durable"] >= cases[them]["durable"]:
                lines.append(f"{group}: {us} is not faster than {them}")
            if cases[us]["peak_rss"] * 2 > cases[them]["peak_rss"]:
                lines.append(f"{group}: {us} needs more than half the memory "
                             f"of {them}")
        lines += [f"{group}: {us} stored {worst:.2f} times what had changed"
                  for us in ours if (worst := max(
                      s["extra"].get("growth", 0)
                      for s in cases[us]["samples"])) > GROWTH_LIMIT]
    return lines
