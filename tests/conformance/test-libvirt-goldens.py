#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: libvirt 11.3's own test documents come out as libvirt writes them, to the byte.

Backups: all of domainbackupxml2xml. Checkpoints: those whose output libvirt's test does not itself
patch up; its out-documents must come out unchanged when read as existing checkpoints.

usage: test-libvirt-goldens.py XML-TOOL
"""
import subprocess
import sys

from conformance import Tap, fetch
from goldens import check_folder, same

tool = sys.argv[1]
tests = fetch('trixie', 'source', 'libvirt') / 'tests'
tap = Tap()
check_folder(tap, tool, tests / 'domainbackupxml2xmlin', tests / 'domainbackupxml2xmlout')

# 'size' shows a number that is output only, and the 'internal' ones are whole qemu status documents.
for name in ('empty', 'sample', 'disk-default', 'redefine'):
    source = tests / 'qemudomaincheckpointxml2xmlout' / f'{name}.xml'
    run = subprocess.run([tool, 'checkpoint', source, 'redefine'], capture_output=True, text=True)
    same(tap, run, source, f'checkpoint {name}')
for name in ('disk-invalid', 'name-invalid'):
    source = tests / 'qemudomaincheckpointxml2xmlin' / f'{name}.xml'
    run = subprocess.run([tool, 'checkpoint', source], capture_output=True, text=True)
    tap.check(run.returncode == 1 and f'{name}.xml:' in run.stderr, f'checkpoint {name} is refused',
              run.stderr)
tap.done()
