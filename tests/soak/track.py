#!/usr/bin/env python3
"""Whatever happens to a machine and its bitmaps, each point is the model's.

    tests/soak/track.py                         # some fixed seeds, few steps
    tests/soak/track.py --minutes 30            # a random seed, printed
    tests/soak/track.py --minutes 30 --seed 7
    tests/soak/track.py --steps 200 --seed 7

A seed repeats the steps and their choices, not the moments of kills.  After a
failure the images, the repositories and the log of all steps are kept.
"""

import collections
import os
import random
import shutil
import sys
import tempfile
import time
import traceback

sys.path.append(os.path.dirname(os.path.abspath(__file__)) + "/../lib")

import tap
from steps import WEIGHTS, Steps
from world import World

SHORT_SEEDS = (1, 2, 3)
SHORT_STEPS = 25
SHOWN = 30


def option(name, convert):
    """Take "--name VALUE" off the command line."""
    if name not in sys.argv:
        return None
    at = sys.argv.index(name)
    value = convert(sys.argv[at + 1])
    del sys.argv[at:at + 2]
    return value


MINUTES = option("--minutes", float)
STEPS = option("--steps", int)
SEED = option("--seed", int)


class Soak:
    def __init__(self, seed):
        self.seed = seed
        self.step = 0
        self.recent = collections.deque(maxlen=SHOWN)
        self.log = None

    def say(self, text):
        line = "%5d %s" % (self.step, text)
        self.recent.append(line)
        if self.log is not None:
            self.log.write(line + "\n")
            self.log.flush()

    def one(self, steps):
        """The seed and the number of a step decide everything in it."""
        self.step += 1
        rng = random.Random("%d %d" % (self.seed, self.step))
        name = rng.choices(list(WEIGHTS), WEIGHTS.values())[0]
        self.say(name)
        steps.w.model.begin()
        steps.backups.count("step " + name)
        getattr(steps, "step_" + name)(rng)

    def run(self, until):
        world = steps = None
        try:
            world = World(self.say)
            self.log = open(world.dir + "/steps.log", "w")
            steps = Steps(world)
            while not until(self.step):
                self.one(steps)
            for repo in world.repos:
                steps.backups.quiet(repo, steps.safe(repo))
        except Exception:
            self.failed(world)
        finally:
            if self.log:
                self.log.close()
        return steps

    def failed(self, world):
        os.environ["TIDEMARK_TEST_KEEP"] = "1"
        tap.check(False, "seed %d, step %d" % (self.seed, self.step),
                  "the last steps:\n" + "\n".join(self.recent),
                  traceback.format_exc())
        if world is not None:
            tap.diag("kept: " + world.dir)
            shutil.copytree(os.path.dirname(world.repos["B"]),
                            world.dir + "/kept-b", symlinks=True,
                            ignore_dangling_symlinks=True)


def soak(seed, until):
    began = time.monotonic()
    s = Soak(seed)
    steps = s.run(until)
    tap.diag("seed %d: %d steps in %d s" % (seed, s.step,
                                            time.monotonic() - began))
    if steps is None:
        return
    for what, n in sorted(steps.backups.counts.items()):
        tap.diag("%6d %s" % (n, what))
    points = sum(len(p) for p in steps.ledger.points.values())
    tap.check(points > 0, "points were committed")


def in_memory():
    """Kills need no disk; what is fast, is tried more often."""
    if not os.environ.get("TMPDIR") and os.access("/dev/shm", os.W_OK):
        os.environ["TMPDIR"] = "/dev/shm"
        tempfile.tempdir = None


def main():
    in_memory()
    if MINUTES is None and STEPS is None:
        for seed in [SEED] if SEED is not None else SHORT_SEEDS:
            tap.test("seed %d: %d random steps" % (seed, SHORT_STEPS))(
                lambda seed=seed: soak(seed, lambda n: n >= SHORT_STEPS))
        return tap.main()
    seed = SEED if SEED is not None else random.randrange(1 << 32)
    end = time.monotonic() + (MINUTES or 1e9) * 60
    print("# --seed %d" % seed, flush=True)
    tap.test("seed %d" % seed)(lambda: soak(
        seed, lambda n: time.monotonic() > end
        or (STEPS is not None and n >= STEPS)))
    return tap.main()


main()
