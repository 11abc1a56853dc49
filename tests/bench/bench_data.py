"""What is backed up: images and writes, the same for every program.

Everything comes from seeds, so two runs of the benchmark see the same bytes.
"""
import array
import itertools
import random
from pathlib import Path

from measure import Failed, check

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
BLOCK = 64 * KIB
SEED = "tidemark-bench-1"


class Text:
    """Words with the frequencies of a natural language (Zipf), in phrases.

    zstd -1 brings 64 KiB of it to about 40 %, close to English prose.  No
    64 KiB of it come twice, so that deduplication finds nothing.
    """

    def __init__(self, seed):
        rng = random.Random(f"{SEED} words {seed}")
        syllables = [c + v for c in "bcdfghklmnprstvw" for v in "aeiou"]
        words = ["".join(rng.choices(syllables, k=rng.randint(1, 4)))
                 for _ in range(20000)]
        zipf = list(itertools.accumulate(1 / (k + 2.7) for k in range(20000)))
        ends = [" "] * 8 + [", ", ", ", ". ", ".\n"]
        self.phrases = [
            (" ".join(rng.choices(words, cum_weights=zipf,
                                  k=rng.randint(2, 5)))
             + rng.choice(ends)).encode() for _ in range(65536)]

    def mib(self, rng):
        """1 MiB of text."""
        picks = array.array("H", rng.randbytes(2 * 80000))
        text = b"".join(map(self.phrases.__getitem__, picks))
        if len(text) < MIB:
            raise Failed("the text generator's phrases are too short")
        return text[:MIB]


def mixed_image(path, size):
    """A qcow2 image: a quarter random, a quarter text, half never written."""
    raw = Path(f"{path}.raw")
    text, rng = Text("image"), random.Random(f"{SEED} image")
    stripe = min(256 * MIB, size)
    with open(raw, "wb") as f:
        f.truncate(size)
        for start in range(0, size, stripe):
            f.seek(start)
            for _ in range(stripe // 4 // MIB):
                f.write(rng.randbytes(MIB))
            for _ in range(stripe // 4 // MIB):
                f.write(text.mib(rng))
    to_qcow2(raw, path)


def sparse_image(path, size, blocks):
    """A qcow2 image with `blocks` written 64 KiB blocks all over it."""
    raw = Path(f"{path}.raw")
    rng = random.Random(f"{SEED} sparse")
    with open(raw, "wb") as f:
        f.truncate(size)
        for index in rng.sample(range(size // BLOCK), blocks):
            f.seek(index * BLOCK)
            f.write(rng.randbytes(BLOCK))
    to_qcow2(raw, path)


def to_qcow2(raw, path):
    try:
        check(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path])
    finally:
        raw.unlink()


class Writes:
    """The writes of one round: [(offset, length, file of the bytes)]."""

    def __init__(self, folder, size, round_no, region=0, blocks=64):
        rng = random.Random(f"{SEED} writes {size} {round_no}")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        start = (size // 3) // MIB * MIB
        taken = range(start // BLOCK, (start + region) // BLOCK)
        free = [b for b in rng.sample(range(size // BLOCK),
                                      min(size // BLOCK, blocks + len(taken)))
                if b not in taken][:blocks]
        self.list = []
        for number, index in enumerate(sorted(free)):
            self.add(folder / f"block{number}", index * BLOCK,
                     rng.randbytes(BLOCK))
        if region:
            self.add(folder / "region", start, region_bytes(rng, region))
        self.bytes = sum(length for _, length, _ in self.list)

    def add(self, path, offset, data):
        path.write_bytes(data)
        self.list.append((offset, len(data), path))

    def commands(self):
        """The same as qemu-io commands, as text for HMP."""
        return [f"write -s {path} {offset} {length}"
                for offset, length, path in self.list] + ["flush"]


def region_bytes(rng, size):
    """Half random, half text, like the image."""
    text = Text("region")
    return b"".join(rng.randbytes(MIB) if i % 2 else text.mib(rng)
                    for i in range(size // MIB))


def warm(path):
    """Read an image once, so that everybody finds it in the page cache."""
    with open(path, "rb", buffering=0) as f:
        while f.read(8 * MIB):
            pass


def same_contents(image, restored, restored_format, image_format="qcow2"):
    """Compare a disk in use with what came back from a backup of it."""
    check(["qemu-img", "compare", "-U", "-f", image_format, "-F",
           restored_format,
           image, restored])
