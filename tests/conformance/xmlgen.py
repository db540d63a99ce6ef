# SPDX-License-Identifier: LGPL-2.1-or-later
"""Random <domainbackup> and <domaincheckpoint> documents: mostly right, often wrong in one place.

Each starts from what the format allows (as tidemark-domainbackup(7) describes it, not as any schema
does) and then suffers none to three mutations, with values chosen to lie close to where a datatype's
border is. The same seed gives the same documents.
"""
import random

HEX = '0123456789abcdefABCDEF'


class Element:
    def __init__(self, name, attrs=None, children=None, text=''):
        self.name, self.attrs = name, dict(attrs or {})
        self.children, self.text = list(children or []), text

    def all(self):
        yield self
        for child in self.children:
            yield from child.all()

    def write(self, rng):
        attrs = list(self.attrs.items())
        if rng.random() < 0.3:
            rng.shuffle(attrs)
        head = self.name + ''.join(f' {k}="{escape(v)}"' for k, v in attrs)
        if not self.children and not self.text:
            return f'<{head}/>' if rng.random() < 0.8 else f'<{head}></{self.name}>'
        space = rng.choice(['', '\n', '  ', '<!-- c -->', '\n<?pi x?>\n']) if self.children else ''
        inner = space.join([''] + [child.write(rng) for child in self.children] + [''])
        text = self.text if self.text.startswith('<![CDATA[') else escape(self.text)
        return f'<{head}>{text}{inner}</{self.name}>'


def escape(value):
    for a, b in (('&', '&amp;'), ('<', '&lt;'), ('"', '&quot;'), ('\n', '&#10;'), ('\t', '&#9;'),
                 ('\r', '&#13;')):
        value = value.replace(a, b)
    return value


class Generator:
    def __init__(self, seed):
        self.rng = random.Random(seed)

    def maybe(self, p=0.5):
        return self.rng.random() < p

    def pick(self, *values):
        return self.rng.choice(values)

    def hexes(self, n):
        return ''.join(self.rng.choice(HEX) for _ in range(n))

    # --- values; `odd_` ones may be wrong ---

    def target(self):
        return self.pick('vd', 'sd', 'hd', 'fd', 'xvd', 'ubd') + self.pick('a', 'b', 'c', 'aa', '1',
                                                                           'extra_disk', 'Z9')

    def odd_target(self):
        return self.pick('ioemu:hda', 'ioemu:', 'vd', 'vda ', ' vda', 'vd-a', 'VDA', 'mmcblk0', 'nvme0n1',
                         'xvdb', 'fda', 'ubd0', 'xd0', 'vda\n', 'vdä', '', 'hd_', 'ioemu:ioemu:hda',
                         'vda.b', 'gda', 'kvda', '/path', '/', '/x', 'sdzzzzzzzzzzzzzzzzzzzzzz')

    def path(self):
        return self.pick('/a', '/path/to/file', '/dev/block', '/p/a b', '/é', '//x', 'C:\\x', '/.')

    def odd_path(self):
        return self.pick('/', '', 'relative', './x', 'C:\\', 'C:x', 'CC:\\x', '/a\nb', '/a\tb', ' /a', '/a ',
                         '/ ', '/\n', '/\r', 'c:\\é', '1:\\x', '\\x', '/' + 'x' * 300)

    def uuid(self):
        groups = [self.hexes(n) for n in (8, 4, 4, 4, 12)]
        return ''.join(groups) if self.maybe(0.3) else '-'.join(groups)

    def odd_uuid(self):
        good = self.uuid()
        return self.pick(good[:-1], good + '0', ' ' + good, good + ' ', good.replace('-', ''), good[1:],
                         good.replace('-', '_'), 'g' + good[1:], '', '{' + good + '}', good[:9] + good[10:],
                         self.hexes(31) + '-', self.hexes(36))

    def number(self):
        return self.pick('0', '1', '10809', '65535', '65536', '4294967295', '007', '128', '256')

    def odd_number(self):
        return self.pick('', ' 1', '1 ', '+1', '-1', '1.0', '0x10', '4294967296', '18446744073709551615',
                         '18446744073709551616', 'one', '1e3', '00000000000000000000001', '٣', '-0', '1\n',
                         '9223372036854775808', '9' * 40, '0' * 30, '4294967300')

    def group(self):
        return self.hexes(self.rng.randint(1, 4))

    def ipv6(self):
        kind = self.rng.randrange(5)
        if kind == 0:
            return ':'.join(self.group() for _ in range(self.rng.choice([6, 7, 8, 8, 8, 9])))
        if kind == 1:
            left = ':'.join(self.group() for _ in range(self.rng.randint(0, 7)))
            right = ':'.join(self.group() for _ in range(self.rng.randint(0, 7)))
            return left + '::' + right
        if kind == 2:
            return ':'.join(self.group() for _ in range(self.rng.randint(0, 7))) + ':' + self.ipv4()
        if kind == 3:
            left = ':'.join(self.group() for _ in range(self.rng.randint(0, 6)))
            middle = ''.join(self.group() + ':' for _ in range(self.rng.randint(0, 6)))
            return left + '::' + middle + self.ipv4()
        text = list(self.ipv6())
        if self.maybe():  # a group that is too long
            text.insert(self.rng.randrange(len(text) + 1), self.hexes(self.rng.randint(1, 3)))
        for _ in range(self.rng.randint(1, 2)):
            i = self.rng.randrange(len(text) + 1)
            if self.maybe() and i < len(text):
                del text[i]
            else:
                text.insert(i, self.pick(':', '.', 'g', '0', 'f', '%', '1'))
        return ''.join(text)

    def ipv4(self):
        return '.'.join(self.pick('0', '1', '9', '10', '99', '127', '192', '199', '249', '255', '256', '260',
                                  '300', '01', '00', '1000') if self.maybe(0.3)
                        else str(self.rng.randrange(256)) for _ in range(self.pick(4, 4, 4, 4, 4, 3, 5)))

    def host(self):
        return self.pick('localhost', 'a.example', '10.0.0.1', '::1', '::', 'fe80::1', 'a-b', '-', '.',
                         self.ipv6(), self.ipv6(), self.ipv4())

    def odd_host(self):
        return self.pick('', ' ', 'local host', 'a_b', 'localhost ', ':', ':::', '1::2::3', '[::1]', 'fe80::1%eth0',
                         '1.2.3', 'é', 'host/', self.ipv6(), self.ipv6(), self.ipv6())

    def word(self):
        return self.pick('', 'x', '1525889631', 'blah', 'a b', ' ', '<&>', "it's", 'é', 'full', 'a\nb')

    def image_format(self):
        return self.pick('qcow2', 'raw', 'qcow', 'qed', 'vmdk', 'vdi', 'vpc', 'vhd', 'luks', 'cow', 'bochs',
                         'cloop', 'dmg', 'iso', 'fat', 'dir', 'ploop')

    # --- <domainbackup> ---

    def seclabel(self):
        label = Element('seclabel')
        if self.maybe():
            label.attrs['model'] = self.pick('dac', 'selinux', '')
        kind = self.rng.randrange(4)
        if kind == 0:
            label.attrs['relabel'] = 'no'
        elif kind == 1:
            label.attrs['labelskip'] = 'yes'
        else:
            if self.maybe():
                label.attrs['relabel'] = 'yes'
            for _ in range(self.pick(1, 1, 1, 2)):
                label.children.append(Element('label', text=self.word()))
        return label

    def encryption(self):
        secret = Element('secret', {'type': 'passphrase'})
        if self.maybe():
            secret.attrs['uuid'] = self.uuid()
        else:
            secret.attrs['usage'] = self.word()
        enc = Element('encryption', {'format': 'luks'}, [secret])
        if self.maybe(0.3):
            enc.attrs['engine'] = 'qemu'
        if self.maybe(0.4):
            cipher = Element('cipher', {'name': 'aes', 'size': self.number()})
            if self.maybe():
                cipher.attrs.update(mode='xts', hash='sha256')
            ivgen = Element('ivgen', {'name': self.pick('plain64', '')})
            if self.maybe():
                ivgen.attrs['hash'] = 'sha256'
            enc.children += [cipher, ivgen]
            if self.maybe(0.2):
                self.rng.shuffle(enc.children)
        return enc

    def image(self, name, attr):
        image = Element(name, {attr: self.path()})
        for _ in range(self.pick(0, 0, 0, 1, 2)):
            image.children.append(self.seclabel())
        if self.maybe(0.3):
            image.children.insert(self.rng.randint(0, len(image.children)), self.encryption())
        return image

    def backup_disk(self, pull):
        disk = Element('disk', {'name': self.target()})
        if self.maybe(0.3):
            disk.attrs['backupmode'] = self.pick('full', 'incremental')
        if disk.attrs.get('backupmode') != 'full' and self.maybe(0.3):
            disk.attrs['incremental'] = self.word()
        if pull and self.maybe(0.3):
            disk.attrs['exportname'] = self.word()
        if pull and self.maybe(0.3):
            disk.attrs['exportbitmap'] = self.word()
        if self.maybe(0.2):
            disk.attrs['backup'] = 'no'
            return disk
        if self.maybe(0.3):
            disk.attrs['backup'] = 'yes'
        kind = self.pick(None, 'file', 'file', 'block')
        if kind:
            disk.attrs['type'] = kind
        has_image = self.maybe(0.8) if kind else pull and self.maybe(0.3)
        if has_image:
            attr = 'dev' if kind == 'block' else 'file'
            disk.children.append(self.image('scratch' if pull else 'target', attr))
        if (kind or has_image) and self.maybe(0.4):
            driver = Element('driver', {'type': 'qcow2' if pull else self.image_format()})
            disk.children.insert(self.rng.randint(0, len(disk.children)), driver)
        return disk

    def server(self):
        server = Element('server')
        if self.maybe(0.3):
            server.attrs['tls'] = self.pick('yes', 'no')
        kind = self.pick('tcp', 'tcp', 'unix', 'fd', None, None)
        if kind:
            server.attrs['transport'] = kind
        if kind == 'unix':
            server.attrs['socket'] = self.path()
        elif kind == 'fd':
            server.attrs['fdgroup'] = self.word()
        else:
            server.attrs['name'] = self.host()
            if self.maybe():
                server.attrs['port'] = self.number()
        return server

    def backup(self):
        root = Element('domainbackup')
        pull = self.maybe()
        if pull:
            root.attrs['mode'] = 'pull'
            root.children.append(self.server())
        elif self.maybe():
            root.attrs['mode'] = 'push'
        if self.maybe():
            root.children.append(Element('incremental', text=self.word()))
        if self.maybe(0.85):
            disks = [self.backup_disk(pull) for _ in range(self.rng.choice([1, 1, 1, 2, 3]))]
            root.children.append(Element('disks', children=disks))
        self.rng.shuffle(root.children)
        return root

    # --- <domaincheckpoint> ---

    def checkpoint_name(self):
        return self.pick('c1', '1525889631', 'a.b', '-', '_x', 'a-b', 'A..', 'x' * 100)

    def odd_name(self):
        return self.pick('', '.', '..', '.a', 'a/b', '../escape', 'a b', ' a', 'a\n', 'é', 'a:b', 'a%', '\ta')

    def checkpoint_disk(self):
        disk = Element('disk', {'name': self.target() if self.maybe(0.8) else self.path()})
        if self.maybe(0.2):
            disk.attrs['checkpoint'] = 'no'
            return disk
        if self.maybe():
            disk.attrs['checkpoint'] = 'bitmap'
        if self.maybe(0.4):
            disk.attrs['bitmap'] = self.word()
        if self.maybe(0.2):
            disk.attrs['size'] = self.number()
        return disk

    def checkpoint(self):
        root = Element('domaincheckpoint')
        if self.maybe(0.8):
            root.children.append(Element('name', text=self.checkpoint_name()))
        if self.maybe(0.3):
            root.children.append(Element('description', text=self.word()))
        if self.maybe(0.3):
            root.children.append(Element('creationTime', text=self.number()))
        if self.maybe(0.3):
            root.children.append(Element('parent', children=[
                Element('name', text=self.checkpoint_name())]))
        if self.maybe(0.8):
            disks = [self.checkpoint_disk() for _ in range(self.rng.choice([1, 1, 2, 3]))]
            root.children.append(Element('disks', children=disks))
        self.rng.shuffle(root.children)
        return root

    # --- mutations ---

    def odd_value(self, old):
        return self.pick(self.odd_target, self.odd_path, self.odd_uuid, self.odd_number, self.odd_host,
                         self.odd_name, self.word, self.target, self.path, self.number, self.image_format,
                         lambda: self.pick('yes', 'no', 'push', 'pull', 'tcp', 'unix', 'fd', 'rdma', 'file', 'block',
                                           'network', 'full', 'incremental', 'bitmap', 'luks', 'qemu',
                                           'passphrase', 'YES', 'on'),
                         lambda: ' ' + old, lambda: old + ' ', lambda: ' ' + old + '\n', lambda: old.upper(),
                         lambda: old + 'x', lambda: old[1:], lambda: old.replace('a', '  a'))()

    def odd_like(self, name, old):
        """A wrong value of the right kind, so that it is the datatype that must tell."""
        kinds = {'file': self.odd_path, 'dev': self.odd_path, 'socket': self.odd_path, 'uuid': self.odd_uuid,
                 'port': self.odd_number, 'size': self.odd_number}
        if name in kinds:
            return kinds[name]()
        if name == 'name':
            return self.pick(self.odd_target, self.odd_host, self.odd_path)()
        return self.odd_value(old)

    def mutate(self, root):
        everything = list(root.all())
        element = self.rng.choice(everything)
        kind = self.rng.randrange(13)
        if kind <= 3 and element.attrs:
            name = self.rng.choice(list(element.attrs))
            element.attrs[name] = (self.odd_like if self.maybe(0.6) else
                                   lambda n, o: self.odd_value(o))(name, element.attrs[name])
        elif kind == 4 and element.attrs:
            del element.attrs[self.rng.choice(list(element.attrs))]
        elif kind == 5:
            donor = self.rng.choice(everything)
            name = self.rng.choice(list(donor.attrs) or ['mode'])
            element.attrs.setdefault(name, donor.attrs.get(name, 'pull'))
        elif kind == 6:
            name = self.pick('backup', 'backupmode', 'incremental', 'type', 'exportname', 'exportbitmap', 'state',
                             'index', 'checkpoint', 'bitmap', 'size', 'tls', 'transport', 'name', 'port', 'socket',
                             'fdgroup', 'file', 'dev', 'mode', 'hash', 'relabel', 'labelskip', 'model', 'bogus',
                             'xml:lang', 'engine', 'uuid', 'usage', 'format')
            element.attrs[name] = self.odd_value('') if self.maybe(0.3) else self.pick(
                'yes', 'no', 'file', 'block', 'full', 'incremental', 'qemu', 'luks', 'tcp', 'unix', '/a', '1', 'x')
        elif kind == 7 and element.children:
            del element.children[self.rng.randrange(len(element.children))]
        elif kind == 8 and element.children:
            element.children.append(self.rng.choice(element.children))
            if self.maybe():
                self.rng.shuffle(element.children)
        elif kind == 9:
            parts = [self.seclabel, self.encryption, self.server, self.checkpoint_disk,
                     lambda: self.backup_disk(self.maybe()),
                     lambda: self.image(self.pick('target', 'scratch'), self.pick('file', 'dev')),
                     lambda: Element('driver', {'type': self.image_format()}),
                     lambda: Element('incremental', text='x'), lambda: Element('disks'),
                     lambda: Element('privateData'), lambda: Element('bogus'),
                     lambda: Element('name', text=self.checkpoint_name())]
            element.children.insert(self.rng.randint(0, len(element.children)), self.rng.choice(parts)())
        elif kind == 10:
            element.name = self.rng.choice(everything).name if self.maybe() else self.pick(
                'disk', 'disks', 'target', 'scratch', 'server', 'driver', 'Disk', 'name')
        elif kind == 11:
            element.text = self.pick(' ', '\n', 'text', '<![CDATA[x]]>', '<![CDATA[]]>', self.word(),
                                     self.odd_number(), self.odd_name(), self.number())
        else:
            for child in element.all():
                if child is not element and self.maybe(0.5):
                    self.rng.shuffle(child.children)
            self.rng.shuffle(element.children)

    def document(self):
        root = self.backup() if self.maybe(0.6) else self.checkpoint()
        for _ in range(self.rng.choice([0, 0, 1, 1, 1, 2, 3])):
            self.mutate(root)
        text = root.write(self.rng)
        wrapped = self.rng.random()
        if wrapped < 0.02:
            text = '<?xml version="1.0"?>\n' + text
        elif wrapped < 0.03:
            head = text.index('>') if '/>' not in text[:text.index('>') + 1] else text.index('/>')
            text = text[:head] + ' xmlns="urn:x"' + text[head:]
        elif wrapped < 0.04:
            cut = self.rng.randrange(len(text))
            text = text[:cut] + self.pick('<', '&', '', '\x01') + text[cut + 1:]
        return text
