"""The unix socket of the control service."""

import os
import shutil
import socket
import tempfile
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase

from vmtpd.gateway.unix import SocketInUse, UnixSocket


class Reactor:
    """Binds a socket as a reactor does, and says under which umask."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, int]] = []
        self.stopped = 0

    def listenUNIX(
        self, path: str, factory: object, backlog: int = 50, mode: int = 0o666, wantPID: int = 0
    ) -> "Reactor":
        """Note what is asked."""
        umask = os.umask(0)
        os.umask(umask)
        self.asked.append((path, mode, umask))
        return self

    def stopListening(self) -> Deferred[None]:
        """Stop."""
        self.stopped += 1
        return succeed(None)


class UnixSocketTests(SynchronousTestCase):
    """When the socket is made, and when it is not."""

    def setUp(self) -> None:
        """A service, not started."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        self.path = os.path.join(folder, "control")
        self.reactor = Reactor()
        self.service = UnixSocket(cast(Any, self.reactor), self.path, Factory())

    def test_for_owner_and_group(self) -> None:
        """At no moment can others open the socket."""
        before = os.umask(0o022)
        self.addCleanup(os.umask, before)
        self.service.startService()
        self.assertEqual(self.reactor.asked, [(self.path, 0o660, 0o077)])
        self.assertEqual(os.umask(0o022), 0o022)
        self.successResultOf(self.service.stopService())
        self.assertEqual(self.reactor.stopped, 1)

    def test_stale(self) -> None:
        """A socket that a dead daemon left is replaced."""
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(self.path)
        self.service.startService()
        self.assertFalse(os.path.exists(self.path))
        self.assertEqual(len(self.reactor.asked), 1)

    def test_alive(self) -> None:
        """A socket that is answered is left alone, and the start refused."""
        with socket.socket(socket.AF_UNIX) as alive:
            alive.bind(self.path)
            alive.listen(1)
            error = self.assertRaises(SocketInUse, self.service.startService)
        self.assertIn("is vmtpd running already?", str(error))
        self.assertEqual(self.reactor.asked, [])
        self.assertTrue(os.path.exists(self.path))

    def test_something_else(self) -> None:
        """A file in the socket's place is never removed."""
        with open(self.path, "w") as file:
            file.write("precious")
        self.assertIn("not a socket", str(self.assertRaises(SocketInUse, self.service.startService)))
        self.assertTrue(os.path.exists(self.path))

    def test_stopped_before_started(self) -> None:
        """A service that never listened stops at once."""
        self.successResultOf(self.service.stopService())
        self.assertEqual(self.reactor.stopped, 0)
