# SPDX-License-Identifier: LGPL-2.1-or-later
"""libvirt's own way of testing <domainbackup>: a domain that has the disks a document names and one
more, each with a file /fake/TARGET.qcow2, and the suffix SUFFIX."""
import difflib
import pathlib
import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree


def check_backup(tap, tool, source, expected):
    names = [disk.get('name') for disk in ElementTree.parse(source).getroot().iter('disk')]
    disks = ''.join(f"<disk type='file' device='disk'><driver type='qcow2'/>"
                    f"<source file='/fake/{name}.qcow2'/><target dev='{name}'/></disk>"
                    for name in names + ['vdextradisk'])
    with tempfile.NamedTemporaryFile('w', suffix='.xml') as domain:
        domain.write(f'<domain><devices>{disks}</devices></domain>')
        domain.flush()
        internal = ['internal'] if 'internal' in source.name else []
        run = subprocess.run([tool, 'backup', source, domain.name, 'SUFFIX', *internal],
                             capture_output=True, text=True)
    same(tap, run, expected, source.name)


def same(tap, run, expected, name):
    want = expected.read_text(encoding='utf-8')
    tap.check(run.returncode == 0 and run.stdout == want, name, run.stderr,
              ''.join(difflib.unified_diff(want.splitlines(True), run.stdout.splitlines(True),
                                           'expected', 'ours')))


def check_folder(tap, tool, inputs, outputs):
    for source in sorted(pathlib.Path(inputs).glob('*.xml')):
        check_backup(tap, tool, source, pathlib.Path(outputs) / source.name)
