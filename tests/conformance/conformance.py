# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the conformance tests share: TAP, and what they compare with."""
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Tap:
    """Prints TAP; leave with done()."""

    def __init__(self):
        self.count = self.failed = 0

    def check(self, good, name, *why):
        self.count += 1
        self.failed += not good
        print(f'{"ok" if good else "not ok"} {self.count} - {name}')
        if not good:
            for line in why:
                print('\n'.join('# ' + part for part in str(line).splitlines()))
        sys.stdout.flush()

    def skip(self, name, why):
        self.count += 1
        print(f'ok {self.count} - {name} # SKIP {why}')

    def done(self):
        print(f'1..{self.count}')
        sys.exit(1 if self.failed else 0)


def skip_all(why):
    print(f'1..0 # SKIP {why}')
    sys.exit(0)


def fetch(*args):
    """The folder that scripts/fetch-debian.sh makes; skips the test where it cannot be had."""
    run = subprocess.run([ROOT / 'scripts/fetch-debian.sh', *args], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
    if run.returncode == 77:
        skip_all(run.stderr.strip().splitlines()[-1] if run.stderr.strip() else 'not available')
    if run.returncode != 0:
        sys.exit(f'fetch-debian.sh {args}: {run.stderr}')
    return pathlib.Path(run.stdout.strip())


def shared():
    """The folder of test vectors that are not part of this tree, or None."""
    for place in (os.environ.get('TMK_SHARED'), ROOT.parent / 'shared'):
        if place and (pathlib.Path(place) / 'vectors').is_dir():
            return pathlib.Path(place)
    return None
