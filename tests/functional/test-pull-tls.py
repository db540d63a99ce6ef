#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Proves: a pull with tls='yes' is read by clients of the right authority or key, and by nobody
else; TLS without credentials and credentials without TLS are refused; nothing of it stays.

The certificates are made here with openssl, the clients are libnbd's."""
import os
import secrets
import socket
import struct

from backup import checkpoint_xml
from lab import Lab, Vm, main, test
from pki import make_authority
from push import refused


def folder_of(lab: Lab, name: str, *files: str) -> str:
    """A folder of links to `files`."""
    folder = lab.path(name)
    os.mkdir(folder)
    for path in files:
        os.symlink(path, os.path.join(folder, os.path.basename(path)))
    return folder


def make_psk(lab: Lab, name: str) -> str:
    os.mkdir(lab.path(name))
    return lab.file(f"{name}/keys.psk", f"reader:{secrets.token_hex(32)}\n")


class Pull:
    """A pull of one disk with TLS, on a unix socket or on TCP."""

    def __init__(self, lab: Lab, tls: str = " tls='yes'", tcp: bool = False) -> None:
        self.lab = lab
        self.vda = lab.disk("vda", "8M")
        self.vm: Vm = lab.vm([self.vda])
        self.vm.writer(self.vda).random_ops(lab.rng, 10)
        self.before = self.vm.inventory()
        self.socket = os.path.join(lab.sockets, "nbd")
        self.port = 20000 + os.getpid() % 20000
        self.tcp = tcp
        self.document = self.text(tls)

    def text(self, tls: str) -> str:
        place = (f"transport='tcp' name='127.0.0.1' port='{self.port}'" if self.tcp
                 else f"transport='unix' socket='{self.socket}'")
        return (f"<domainbackup mode='pull'><server {place}{tls}/><disks><disk name='vda'"
                f" type='file'><scratch file='{self.lab.path('scratch')}'/></disk></disks>"
                "</domainbackup>")

    def tidemark(self, verb: str, *more: object, **how):
        return self.lab.tidemark(verb, "--qmp", self.vm.address, *more, **how)

    def begin(self, *options: object, **how):
        return self.tidemark("begin", *options, self.lab.file("pull.xml", self.document),
                             self.lab.file("c.xml", checkpoint_xml("c1")), **how)

    def uri(self, query: str, scheme: str = "nbds") -> str:
        """`query`: what says who we are."""
        user = "reader@" if "psk" in query else ""
        if self.tcp:
            return f"{scheme}://{user}127.0.0.1:{self.port}/vda?{query}"
        return f"{scheme}+unix://{user}/vda?socket={self.socket}&{query}"

    def reads(self, query: str) -> None:
        raw = self.lab.fresh(".raw")
        self.lab.tool("nbdcopy", self.uri(query), raw)
        self.lab.compare(raw, self.vda.model, "raw")

    def is_kept_out(self, query: str, scheme: str = "nbds") -> None:
        result = self.lab.tool("nbdinfo", "--size", self.uri(query, scheme), check=False)
        assert result.rc != 0 and not result.out.strip(), result

    def plain_is_kept_out(self) -> None:
        self.is_kept_out("", "nbd")

    def end(self, verb: str = "end") -> None:
        self.tidemark(verb)
        self.vm.assert_clean()
        after = self.vm.inventory()
        assert after["objects"] == self.before["objects"], after
        assert not os.path.exists(self.socket) and not os.path.exists(self.lab.path("scratch"))


def with_certificates(pull: Pull) -> None:
    lab = pull.lab
    good, bad = make_authority(lab, "good"), make_authority(lab, "bad")
    nobody = folder_of(lab, "nobody", f"{good}/ca-cert.pem")
    # Knows the server's authority, and shows a certificate of another one.
    stranger = folder_of(lab, "stranger", f"{good}/ca-cert.pem", f"{bad}/client-cert.pem",
                         f"{bad}/client-key.pem")
    # The other way round: the client does not believe the server. (On a unix socket libnbd does not
    # ask who that is.)
    sceptic = folder_of(lab, "sceptic", f"{bad}/ca-cert.pem", f"{good}/client-cert.pem",
                        f"{good}/client-key.pem")
    begun = pull.begin("--tls-x509", os.path.relpath(good))
    assert "tls='yes'" in begun.out and "TLSx509" not in begun.out, begun.out
    internal = "".join(open(os.path.join(where, name), encoding="utf-8").read()
                       for where, _, names in os.walk(lab.state) for name in names
                       if name == "job.json")
    assert "<TLSx509 alias='tmk-" in internal, internal
    pull.reads(f"tls-certificates={good}")
    for folder in (bad, nobody, stranger, *([sceptic] if pull.tcp else [])):
        pull.is_kept_out(f"tls-certificates={folder}")
    pull.plain_is_kept_out()
    pull.reads(f"tls-certificates={good}")
    pull.end()


@test(timeout=120)
def test_certificates(lab: Lab) -> None:
    lab.need("nbdcopy", "nbdinfo", "openssl")
    pull = Pull(lab)
    with_certificates(pull)
    good = lab.path("good")
    lab.tidemark("checkpoint", "delete", "--qmp", pull.vm.address, "c1")
    slow = pull.begin("--tls-x509", good)
    assert "dh-params.pem" in slow.err, slow.err
    pull.end("abort")
    lab.tool("openssl", "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048",
             "-out", f"{good}/dh-params.pem")
    fast = pull.begin("--tls-x509", good)
    assert "dh-params.pem" not in fast.err, fast.err
    pull.reads(f"tls-certificates={good}")
    pull.end("abort")


@test(timeout=120)
def test_pre_shared_keys(lab: Lab) -> None:
    lab.need("nbdcopy", "nbdinfo")
    pull = Pull(lab)
    good, bad = make_psk(lab, "good"), make_psk(lab, "bad")
    for given in (good, os.path.dirname(good)):
        pull.begin("--tls-psk", given)
        pull.reads(f"tls-psk-file={good}")
        pull.is_kept_out(f"tls-psk-file={bad}")
        pull.plain_is_kept_out()
        pull.end()
        lab.tidemark("checkpoint", "delete", "--qmp", pull.vm.address, "c1")


@test(timeout=120)
def test_certificates_on_tcp(lab: Lab) -> None:
    lab.need("nbdcopy", "nbdinfo", "openssl")
    with_certificates(Pull(lab, tcp=True))


@test(timeout=120)
def test_pre_shared_keys_on_tcp(lab: Lab) -> None:
    lab.need("nbdcopy", "nbdinfo")
    pull = Pull(lab, tcp=True)
    good, bad = make_psk(lab, "good"), make_psk(lab, "bad")
    begun = pull.begin("--tls-psk", good)
    assert f"port='{pull.port}'" in begun.out and "transport='tcp'" in begun.out, begun.out
    pull.reads(f"tls-psk-file={good}")
    pull.is_kept_out(f"tls-psk-file={bad}")
    pull.plain_is_kept_out()
    pull.end()


@test(timeout=120)
def test_client_stuck_in_the_handshake(lab: Lab) -> None:
    """One that asks for TLS and then says nothing: neither the guest nor the end minds."""
    keys = make_psk(lab, "keys")
    for tcp in (False, True):
        pull = Pull(lab, tcp=tcp)
        pull.begin("--tls-psk", keys)
        client = (socket.create_connection(("127.0.0.1", pull.port)) if tcp
                  else socket.socket(socket.AF_UNIX))
        with client:
            if not tcp:
                client.connect(pull.socket)
            assert client.recv(18, socket.MSG_WAITALL)[:8] == b"NBDMAGIC"
            client.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", 5, 0))  # STARTTLS
            assert client.recv(20, socket.MSG_WAITALL)[12:16] == b"\0\0\0\1"  # ACK
            pull.end()
        pull.vm.close()


@test(timeout=120)
def test_killed(lab: Lab) -> None:
    """Whoever comes next takes the credentials away too."""
    pull = Pull(lab)
    keys = make_psk(lab, "keys")
    trace = pull.begin("--tls-psk", keys, "--no-guard", env={"TIDEMARK_TEST_TRACE": "1"}).err
    pull.end("abort")
    names = [line.split(" ")[2] for line in trace.splitlines() if line.startswith("testpoint ")]
    made = names.index("qmp:object-add:done") + 1
    started = names.index("qmp:nbd-server-start:done") + 1
    for step in (made, started):
        pull.begin("--tls-psk", keys, "--no-guard", rc=-9,
                   env={"TIDEMARK_TEST_KILL_AT": str(step)})
        assert [one for one in pull.vm.inventory()["objects"] if one.endswith("-tls")]
        pull.end("abort")


@test(timeout=120)
def test_refusals(lab: Lab) -> None:
    pull = Pull(lab)
    vm, yes, no = pull.vm, pull.document, pull.text("")
    keys = make_psk(lab, "keys")
    refused(vm, yes, "tls='yes'", "--tls-x509")
    for without in (no, pull.text(" tls='no'")):
        refused(vm, without, "does not ask for TLS", "tls='yes'", options=("--tls-psk", keys))
    push = "<domainbackup/>"
    refused(vm, push, "does not ask for TLS", "pull", options=("--tls-psk", keys))
    refused(vm, yes, "not both", options=("--tls-psk", keys, "--tls-x509", lab.dir))

    absent = lab.path("absent")
    refused(vm, yes, f"'{absent}/ca-cert.pem'", options=("--tls-x509", absent))
    refused(vm, yes, f"'{absent}'", "keys.psk", options=("--tls-psk", absent))
    refused(vm, yes, f"'{absent}/keys.psk'", options=("--tls-psk", f"{absent}/keys.psk"))
    partial = lab.path("partial")
    os.mkdir(partial)
    for missing in ("ca-cert.pem", "server-cert.pem", "server-key.pem"):
        refused(vm, yes, f"'{partial}/{missing}'", options=("--tls-x509", partial))
        lab.file(f"partial/{missing}", "")
        refused(vm, yes, f"'{partial}/{missing}'", "empty", options=("--tls-x509", partial))
        lab.file(f"partial/{missing}", "no certificate\n")
    refused(vm, yes, f"{partial}/server-cert.pem", options=("--tls-x509", partial))
    other = lab.file("psk.txt", "reader:00\n")
    refused(vm, yes, f"'{other}'", "keys.psk", options=("--tls-psk", other))


main()
