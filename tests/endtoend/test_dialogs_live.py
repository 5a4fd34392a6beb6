"""Every dialog, held with a daemon over real sockets: each turn at once, and octet by octet."""

from __future__ import annotations

import contextlib
import socket
import sys

from twisted.trial.unittest import TestCase

from tests.dialog import Dialog, compare, dialogs
from tests.endtoend.peers import Daemon, folder, free_port

CONFIG = """\
[server]
hostname = mx.example.org
data = {folder}/data

[listener lan]
listen = 127.0.0.1:{port}

[limits]
recipients = 5
line-length = 512
errors = 8
stop-within = 2s

[local]
domains = example.org
maildir = {folder}/mail
mailboxes = ann bob

[route default]
smarthost = smtp://127.0.0.1:NOBODY
"""


class DialogTests(TestCase):
    """A daemon as tests/dialogs/README.md says."""

    timeout = 60

    def setUp(self) -> None:
        """Start it."""
        self.daemon = Daemon(folder(self), CONFIG.replace("NOBODY", str(free_port())))
        self.daemon.command = [sys.executable, "-m", "tests.endtoend.small", str(self.daemon.config)]
        self.addCleanup(self.daemon.stop)
        self.daemon.start()

    def hold(self, dialog: Dialog, size: int) -> None:
        """Hold a conversation on a connection of its own, in pieces of `size` octets (0: each turn at once)."""
        with socket.create_connection(("127.0.0.1", self.daemon.port), 10) as made:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = made.makefile("rb")
            for turn in dialog.turns:
                # Who is sent away may find the connection closed while it still speaks.
                with contextlib.suppress(ConnectionError):
                    for at in range(0, len(turn.sent), size or len(turn.sent) or 1):
                        made.sendall(turn.sent[at : at + (size or len(turn.sent))])
                compare(dialog, turn, b"".join(stream.readline() for _ in turn.answers))
            with contextlib.suppress(OSError):
                made.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                self.assertEqual(stream.read(), b"", dialog.name)

    def hold_all(self, size: int) -> None:
        """All of them; the daemon comes out of it unharmed."""
        held = 0
        for dialog in dialogs():
            self.hold(dialog, size)
            held += 1
        self.assertGreater(held, 20)
        assert self.daemon.process is not None
        self.assertNotIn("Traceback", self.daemon.process.output())
        self.assertIn("0 being delivered", self.daemon.ctl("status"))

    def test_whole(self) -> None:
        """A client that sends what it may at once gets each answer, in order."""
        self.hold_all(0)

    def test_split(self) -> None:
        """A client whose octets come one by one gets the same answers."""
        self.hold_all(1)
