"""A unix socket as a service: for its owner and group alone, and never taken from a daemon that still answers.

*Failures*: `SocketInUse` at start, with a sentence; CannotListenError where the folder cannot be written.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed

if TYPE_CHECKING:
    from twisted.internet.interfaces import IListeningPort, IReactorUNIX
    from twisted.internet.protocol import Factory


class SocketInUse(Exception):
    """Another process listens on the socket, or something that is no socket stands in its place."""


class UnixSocket(Service):
    """Listens on a unix socket of mode 0660 while it runs."""

    def __init__(self, reactor: IReactorUNIX, path: str, factory: Factory[Any]) -> None:
        self._reactor = reactor
        self._path = path
        self._factory = factory
        self._port: IListeningPort | None = None

    def startService(self) -> None:
        """Make the socket, in the place of one that a dead daemon left behind."""
        _clear(self._path)
        # The reactor sets the mode after it made the socket; at no moment may it be open to all.
        before = os.umask(0o077)
        try:
            self._port = self._reactor.listenUNIX(self._path, self._factory, mode=0o660)
        finally:
            os.umask(before)
        super().startService()

    def stopService(self) -> Deferred[None]:
        """Listen no more; the socket goes with it."""
        super().stopService()
        port, self._port = self._port, None
        return (port.stopListening() if port else None) or succeed(None)


def _clear(path: str) -> None:
    """Remove a socket on which nobody listens."""
    try:
        if not stat.S_ISSOCK(os.stat(path, follow_symlinks=False).st_mode):
            raise SocketInUse(f"{path} is not a socket; move it away, or set another control in [server]")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(path) in (errno.ECONNREFUSED, errno.ENOENT):
            os.unlink(path)
            return
    raise SocketInUse(f"{path} is answered by another process; is vmtpd running already?")
