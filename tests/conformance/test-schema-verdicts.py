#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: our schemas accept and refuse exactly what the schemas of libvirt 11.3 do, shown on 20,000
generated documents (xmlgen.py) that lie around the borders of the format.

usage: test-schema-verdicts.py RNG-VERDICTS [COUNT [SEED]]
"""
import collections
import subprocess
import sys
import tempfile

from conformance import Tap, fetch
from xmlgen import Generator

program = sys.argv[1]
count = int(sys.argv[2]) if len(sys.argv) > 2 else 20000
seed = int(sys.argv[3]) if len(sys.argv) > 3 else 11

schemas = fetch('trixie', 'deb-only', 'libvirt-common') / 'usr/share/libvirt/schemas'
generator = Generator(seed)
documents = [generator.document() for _ in range(count)]

# What a <domain> holds is libvirt's to judge, so here only documents that it accepts, or refuses for
# something outside of it.
DOMAIN = """<domain type='kvm'><name>vm</name><memory>1024</memory><os><type>hvm</type></os><devices>
<disk type='file' device='disk'><source file='/a'/><target dev='vda'/></disk></devices></domain>"""
for inside in (DOMAIN, '<name>c</name>' + DOMAIN, DOMAIN + '<disks><disk name="vda"/></disks>', DOMAIN + DOMAIN,
               DOMAIN + '<disks/>', '<parent>' + DOMAIN + '</parent>', DOMAIN.replace('domain', 'Domain'),
               DOMAIN.replace("<domain type='kvm'", "<domain type='kvm' xmlns='urn:x'")):
    documents.append(f'<domaincheckpoint>{inside}</domaincheckpoint>')
documents.append(f'<domainbackup>{DOMAIN}</domainbackup>')
count = len(documents)
with tempfile.NamedTemporaryFile() as file:
    file.write(b''.join(doc.encode() + b'\0' for doc in documents))
    file.flush()
    run = subprocess.run([program, file.name, str(schemas)], capture_output=True, text=True)
rows = run.stdout.splitlines()

tap = Tap()
tap.check(run.returncode == 0 and len(rows) == count, f'{count} documents were judged by both', run.stderr[-2000:])
differ = [(row, doc) for row, doc in zip(rows, documents) if ' differ ' in row]
tap.check(not differ, 'every verdict is the same', f'{len(differ)} differ',
          *(f'{row}\n  {doc!r}' for row, doc in differ[:10]))
verdicts = collections.Counter(tuple(row.split()[:2]) for row in rows)
print('#', ', '.join(f'{kind} {verdict}: {n}' for (kind, verdict), n in sorted(verdicts.items())))
for kind in ('domainbackup', 'domaincheckpoint'):
    yes, no = verdicts[kind, '1'], verdicts[kind, '0']
    tap.check(min(yes, no) > (yes + no) / 5, f'{kind}: neither verdict is rare ({yes} valid, {no} not)')
lost = sum(1 for row in rows if row.split()[0].startswith('domain') and row.split()[1:] == ['0', '0'])
tap.check(lost == 0, 'every refusal names a line', f'{lost} do not')
tap.done()
