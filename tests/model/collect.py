#!/usr/bin/env python3
"""docs/collect.pml: the protocol keeps every point, each broken variant does not.

    tests/model/collect.py [TEST ...]
    MODEL_FULL=1 tests/model/collect.py   also the largest cast: minutes, 3 GB
"""

import os
import re
import shutil
import subprocess

from tap import check, diag, main, need, skip, tempdir, test

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
MODEL = os.path.join(ROOT, "docs", "collect.pml")
MEMORY_MB = "700"
SECONDS = 600  # a deadline, not an expectation

# Rule left out, and the smallest cast that misses it: writers, collectors,
# readers.
VARIANTS = {
    "NO_WAIT": (1, 1, 0),
    "LIST_FIRST": (1, 1, 0),
    "IGNORE_CONDEMNED": (1, 1, 0),
    "INDEX_FIRST": (1, 1, 0),
    "STALE_BASE": (1, 1, 0),
    "COMMITS_FIRST": (1, 1, 0),
    "UNCOMMITTED": (2, 1, 0),
    "NO_FENCE": (1, 1, 0),
    "FENCE_REMOVED": (1, 2, 0),
    "NO_SECOND_MARK": (1, 1, 0),
    "FORGET_AGAIN": (1, 1, 0),
    "NO_EXCLUSION": (1, 2, 0),
    "NO_PINS": (1, 1, 1),
    "PIN_LATE": (1, 1, 1),
    "NO_TAKEOVER": (1, 1, 0),
    "REMOVE_FIRST": (1, 1, 0),
}


def run(cmd, where, seconds=SECONDS):
    r = subprocess.run(cmd, cwd=where, stdin=subprocess.DEVNULL, text=True,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       timeout=seconds)
    need(r.returncode == 0, "%s failed" % cmd[0], r.stdout[-2000:])
    return r.stdout


def search(cast, *variant, memory=MEMORY_MB):
    """All interleavings: how many errors, how many states."""
    if not shutil.which("spin"):
        skip("spin is not installed")
    where = tempdir("model")
    defs = ["-D%s=%d" % x for x in zip(("WRITERS", "COLLECTORS", "READERS"),
                                       cast)]
    defs += ["-D" + v for v in variant]
    run(["spin", *defs, "-a", MODEL], where)
    run(["gcc", "-w", "-O1", "-DSAFETY", "-DNOCLAIM", "-DCOLLAPSE",
         "-DMEMLIM=" + memory, "-o", "pan", "pan.c"], where)
    said = run(["./pan", "-m200000"], where)
    found = re.search(r"errors: (\d+)", said)
    states = re.search(r"(\d+) states, stored", said)
    need(found and states, "pan did not say what it found", said)
    whole = not re.search(r"out of memory|max search depth|reached -?DMEM|"
                          r"Search not completed", said)
    if found.group(1) == "0":
        need(whole, "the search is not complete", said)
    diag("%s %s: %s states" % (cast, " ".join(variant), states.group(1)))
    return int(found.group(1)), said


def holds(cast, memory=MEMORY_MB):
    errors, said = search(cast, memory=memory)
    check(errors == 0, "a point lost its chunk", said)
    return said


@test("two writers, a collector, a reader: every state keeps every point")
def writers():
    holds((2, 1, 1))


@test("two collectors, a writer: every state keeps every point")
def collectors():
    said = holds((1, 2, 0))
    check("(0 of" in said.split("unreached in proctype collector")[1][:40],
          "a statement of the collector is never reached", said)


@test("two collectors, a writer, a reader: every state keeps every point")
def everybody():
    if not os.environ.get("MODEL_FULL"):
        skip("not asked for")
    holds((1, 2, 1), memory="4000")


def add_variant(name, cast):
    def variant():
        errors, said = search(cast, name)
        check(errors > 0, "the model does not miss the rule", said)
    variant.__name__ = "without_" + name.lower()
    test("without this rule a point is lost: " + name)(variant)


for name, cast in VARIANTS.items():
    add_variant(name, cast)

main()
