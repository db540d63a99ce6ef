#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: every domain document in libvirt's own test suite gives its disks or a reason; the disks are
those that another XML reader finds.

usage: test-domain-corpus.py XML-TOOL SUITE FOLDER   (trixie qemuxmlconfdata, bookworm qemuxml2argvdata)
"""
import pathlib
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

from conformance import Tap, fetch

tool, suite, folder = sys.argv[1:4]
documents = sorted((fetch(suite, 'source', 'libvirt') / 'tests' / folder).glob('*.xml'))
run = subprocess.run([tool, 'domains', *documents], capture_output=True, text=True)
rows = [line.split('\t') for line in run.stdout.splitlines()]

tap = Tap()
tap.check(run.returncode == 0 and len(rows) == len(documents) > 500,
          f'{len(documents)} documents, none crashes', run.returncode, run.stderr[-2000:])


def targets(path):
    root = ElementTree.parse(path).getroot()
    domain = root if root.tag == 'domain' else root.find('domain')
    if domain is None:
        return None
    found = [disk.find('target') for disk in domain.findall('devices/disk')]
    return ['' if target is None else target.get('dev', '').removeprefix('ioemu:') for target in found]


wrong, refused = [], []
for path, verdict, *rest in rows:
    try:
        expected = targets(path)
    except ElementTree.ParseError:
        expected = None
    name = pathlib.Path(path).name
    if verdict == 'refused':
        refused.append(f'{name}: {rest[0]}')
        # What we refuse must be odd: broken, two disks of one name, one without, or marked so.
        odd = expected is None or '' in expected or len(set(expected)) < len(expected)
        if not odd and 'type=' not in rest[0] and 'device=' not in rest[0] and 'uuid' not in rest[0] \
                and 'source' not in rest[0]:
            wrong.append(f'{name} refused: {rest[0]}')
    elif rest != expected:
        wrong.append(f'{name}: {rest} instead of {expected}')
tap.check(not wrong, 'targets are those that ElementTree finds', *wrong[:20])
tap.check(len(refused) < len(rows) / 50, f'{len(refused)} refused, each with a reason', *refused)
for line in refused:
    print('#', line)
tap.done()
