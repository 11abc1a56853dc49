"""TAP output for tests in Python, the counterpart of tap.h.

    from tap import test, check, equal, main

    @test("a point restores to what the disk held")
    def restores():
        check(cmp(a, b), "vda differs")

    main()

A failed check says where, fails its test, and the test goes on; an exception
fails the test with its traceback.  skip(reason) leaves the test.  What a test
registers with cleanup() is undone in reverse order when it ends, whatever
happened.  Arguments of the program select tests by a shell pattern of the
function name: `chain.py 'restores*'`.
"""

import atexit
import fnmatch
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback

_tests = []
_failures = []
_cleanups = []
_root = None


class Skip(Exception):
    """Raised by skip(); carries the reason."""


class Fatal(Exception):
    """Raised by need(): the rest of the test makes no sense."""


def test(rule):
    """Register a function as a test that proves `rule`."""
    def register(fn):
        _tests.append((fn.__name__, rule, fn))
        return fn
    return register


def diag(text):
    for line in str(text).rstrip("\n").split("\n"):
        print("#   " + line, flush=True)


def _where():
    """file:line of the nearest caller that is a test, not this library."""
    here = os.path.dirname(os.path.abspath(__file__))
    for frame in reversed(traceback.extract_stack()):
        if os.path.dirname(os.path.abspath(frame.filename)) != here:
            return "%s:%d" % (os.path.basename(frame.filename), frame.lineno)
    return "?"


def check(cond, text, *details):
    """Fail the test unless `cond`; returns it, so that a test can stop."""
    if not cond:
        _failures.append(text)
        print("# %s: failed: %s" % (_where(), text), flush=True)
        for d in details:
            diag(d)
    return bool(cond)


def equal(got, want, text, *details):
    return check(got == want, "%s: got %r, want %r" % (text, got, want),
                 *details)


def need(cond, text, *details):
    """Like check(), but the test ends here when it fails."""
    if not check(cond, text, *details):
        raise Fatal(text)


def skip(reason):
    raise Skip(reason)


def wait_for(what, condition, timeout=60):
    """Poll until condition() is true; returns its value."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError("waited %d s for: %s" % (timeout, what))
        time.sleep(0.01)


def cleanup(fn, *args):
    _cleanups.append((fn, args))


def run_cleanups():
    while _cleanups:
        fn, args = _cleanups.pop()
        try:
            fn(*args)
        except Exception:  # a clean-up must not hide the others
            check(False, "clean-up failed", traceback.format_exc())


def tempdir(name="t"):
    """A directory of its own, with a path short enough for sockets."""
    global _root
    if _root is None:
        _root = tempfile.mkdtemp(prefix="tm-")
        os.chmod(_root, 0o700)
        atexit.register(_drop_root)
    return tempfile.mkdtemp(prefix=name + "-", dir=_root)


def _drop_root():
    if os.environ.get("TIDEMARK_TEST_KEEP"):
        print("# kept: " + _root, flush=True)
    else:
        shutil.rmtree(_root, ignore_errors=True)


def _selected(name):
    patterns = sys.argv[1:]
    return not patterns or any(fnmatch.fnmatch(name, p) for p in patterns)


def _one(number, name, rule, fn):
    _failures.clear()
    reason = None
    if not _selected(name):
        print("ok %d - %s # SKIP not asked for" % (number, rule), flush=True)
        return True
    try:
        fn()
    except Skip as e:
        reason = str(e)
    except Fatal:
        pass
    except Exception:
        check(False, "exception", traceback.format_exc())
    finally:
        run_cleanups()
    print("%s %d - %s%s" % ("not ok" if _failures else "ok", number, rule,
                            " # SKIP " + reason
                            if reason and not _failures else ""), flush=True)
    return not _failures


def _interrupted(signum, frame):
    raise SystemExit("ended by signal %d" % signum)


def main():
    """Run what was registered; exit 0 when all passed.  A SIGTERM (Meson's at a
    timeout) still runs the clean-ups, so that no QEMU stays behind."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupted)
    print("TAP version 13\n1..%d" % len(_tests), flush=True)
    good = True
    for i, (name, rule, fn) in enumerate(_tests):
        good &= _one(i + 1, name, rule, fn)
    sys.exit(0 if good else 1)
