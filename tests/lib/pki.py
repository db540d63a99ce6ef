# SPDX-License-Identifier: LGPL-2.1-or-later
"""Certificates, made with openssl."""
from __future__ import annotations

import os

from lab import Lab


def make_authority(lab: Lab, name: str) -> str:
    """A folder with an authority, and a server and a client that it vouches for."""
    folder = lab.path(name)
    os.mkdir(folder)

    def openssl(*words: str) -> None:
        lab.tool("openssl", *words, cwd=folder)

    new_key = ("-newkey", "rsa:2048", "-nodes")
    openssl("req", "-x509", *new_key, "-keyout", "ca-key.pem", "-out", "ca-cert.pem", "-days", "2",
            "-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign")
    for role in ("server", "client"):
        lab.file(f"{name}/{role}.ext", "basicConstraints=CA:FALSE\n"
                 "keyUsage=critical,digitalSignature,keyEncipherment\n"
                 f"extendedKeyUsage={role}Auth\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n")
        openssl("req", *new_key, "-keyout", f"{role}-key.pem", "-out", f"{role}.csr",
                "-subj", f"/CN={role}")
        openssl("x509", "-req", "-in", f"{role}.csr", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem",
                "-CAcreateserial", "-days", "2", "-extfile", f"{role}.ext",
                "-out", f"{role}-cert.pem")
    return folder
