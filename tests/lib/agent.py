# SPDX-License-Identifier: LGPL-2.1-or-later
"""A guest agent without a guest: it speaks the protocol on a unix socket and does as the test says."""
from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable

FREEZE, THAW = "guest-fsfreeze-freeze", "guest-fsfreeze-thaw"


class Agent(threading.Thread):
    """Serves one client at a time, as QEMU's socket does, until close().

    frozen     whether the file systems are
    log        (monotonic time, command) of each one that came
    does       command → what to do before it is answered
    refuses    command → the error it is answered with
    mute       commands that are never answered
    greeting   sent to each client first: what another one has not read
    """

    def __init__(self, path: str, systems: int = 2) -> None:
        super().__init__(daemon=True)
        self.path, self.systems, self.frozen = path, systems, False
        self.log: list[tuple[float, str]] = []
        self.does: dict[str, Callable[[], None]] = {}
        self.refuses: dict[str, str] = {}
        self.mute: set[str] = set()
        self.greeting = b""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(4)
        self._closing = False
        self.start()

    def commands(self) -> list[str]:
        """What was asked for, without the greetings."""
        return [name for _, name in self.log if not name.startswith("guest-sync")]

    def frozen_for(self) -> float:
        """Seconds from the last freeze to the thaw after it."""
        return ([at for at, name in self.log if name == THAW][-1]
                - [at for at, name in self.log if name == FREEZE][-1])

    def close(self) -> None:
        self._closing = True
        with socket.socket(socket.AF_UNIX) as knock:
            knock.connect(self.path)
        self.join(10)
        self._listener.close()
        os.unlink(self.path)

    def run(self) -> None:
        while True:
            client, _ = self._listener.accept()
            with client:
                if self._closing:
                    return
                try:
                    self._serve(client)
                except OSError:
                    pass  # it went

    def _serve(self, client: socket.socket) -> None:
        if self.greeting:
            client.sendall(self.greeting)
        with client.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line.rpartition(b"\xff")[2])
                name = message["execute"]
                self.log.append((time.monotonic(), name))
                if name in self.does:
                    self.does[name]()
                reply = self._answer(name, message)
                if name not in self.mute:
                    client.sendall(reply)

    def _answer(self, name: str, message: dict) -> bytes:
        if name in self.refuses:
            return json.dumps({"error": {"class": "GenericError",
                                         "desc": self.refuses[name]}}).encode() + b"\n"
        value = self.systems
        if name == "guest-sync-delimited":
            return b"\xff" + json.dumps({"return": message["arguments"]["id"]}).encode() + b"\n"
        if name == FREEZE:
            assert not self.frozen
            self.frozen = True
        elif name == THAW:
            value, self.frozen = self.systems if self.frozen else 0, False
        return json.dumps({"return": value}).encode() + b"\n"
