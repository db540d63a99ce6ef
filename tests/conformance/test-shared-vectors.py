#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: parse, align, format of the shared test vectors gives their expected output to the byte.

usage: test-shared-vectors.py XML-TOOL; the vectors lie in $TMK_SHARED/vectors or ../shared/vectors.
"""
import sys

from conformance import Tap, shared, skip_all
from goldens import check_folder

folder = shared()
if folder is None:
    skip_all('no shared vectors (set TMK_SHARED)')
tap = Tap()
check_folder(tap, sys.argv[1], folder / 'vectors/in', folder / 'vectors/out')
tap.done()
