# SPDX-License-Identifier: LGPL-2.1-or-later
"""A producer of TAP: `@test` marks a function of one argument, a fresh Lab; `main` runs them.

Command line of a test file: [-l] [-v] [PART OF A NAME…]. Environment:
TMK_TEST_KEEP=1   keep the whole folder of every test, and say where it is
TMK_TEST_LOGS=DIR where the logs of a failed test are kept
TMK_TEST_SEED=N   the seed of Lab.rng, to repeat a failure (it prints the seed it used)
TMK_TEST_SLOW=N   all timeouts of tests are N times as long (sanitizers, emulation, soak runs)
TIDEMARK_SOAK=1   long runs: see `soak`
"""
from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable


class Skip(Exception):
    """Raised by a test that cannot run here; its message is the reason."""


class Timeout(BaseException):
    """A test took too long. Not an Exception, so that no test swallows it."""


_tests: list[tuple[str, Callable, int]] = []


def test(function: Callable | None = None, *, timeout: int = 90):
    """Marks a test; it may take `timeout` seconds, times TMK_TEST_SLOW."""
    def mark(wanted: Callable) -> Callable:
        _tests.append((wanted.__name__.removeprefix("test_").replace("_", " "), wanted, timeout))
        return wanted
    return mark(function) if function else mark


def soak(short: int, long: int) -> int:
    """`short`, or `long` in a soak run: for numbers of rounds."""
    return long if os.environ.get("TIDEMARK_SOAK") == "1" else short


def diag(text: str) -> None:
    """Prints diagnostics, which TAP readers keep and do not count."""
    for line in text.rstrip("\n").splitlines():
        print(f"# {line}")
    sys.stdout.flush()


def _cpu() -> float:
    """Seconds that this process and its children that have ended used."""
    return sum(os.times()[:4])


def _on_alarm(*_args) -> None:
    raise Timeout


def _on_term(*_args) -> None:
    raise SystemExit(143)


def main() -> None:
    """Runs the tests of the file and exits."""
    from lab import Lab  # late: lab.py gives this module's names to tests

    wanted = [word.replace("_", " ") for word in sys.argv[1:] if not word.startswith("-")]
    chosen = [row for row in _tests if not wanted or any(word in row[0] for word in wanted)]
    if "-l" in sys.argv[1:]:
        print("\n".join(name for name, _, _ in chosen))
        sys.exit(0)
    signal.signal(signal.SIGALRM, _on_alarm)
    signal.signal(signal.SIGTERM, _on_term)
    print(f"1..{len(chosen)}", flush=True)
    failed = 0
    for number, (name, function, timeout) in enumerate(chosen, 1):
        begun, used = time.monotonic(), _cpu()
        verdict, suffix = "ok", ""
        seconds = timeout * int(os.environ.get("TMK_TEST_SLOW") or soak(1, 5))
        lab = Lab(name)
        try:
            signal.alarm(seconds)
            try:
                function(lab)
                lab.check_end()
            finally:
                signal.alarm(0)
        except Skip as why:
            suffix = f" # SKIP {why}"
        except Timeout:
            verdict = "not ok"
            diag(f"timeout after {seconds} s\n{traceback.format_exc()}")
        except Exception:  # pylint: disable=broad-except
            verdict = "not ok"
            diag(traceback.format_exc())
        except BaseException:
            lab.close()
            raise
        if verdict == "not ok":
            failed += 1
            diag(lab.keep_logs())
        lab.close()
        print(f"{verdict} {number} - {name}{suffix}", flush=True)
        diag(f"{time.monotonic() - begun:.1f} s, CPU {_cpu() - used:.1f} s")
    sys.exit(1 if failed else 0)
