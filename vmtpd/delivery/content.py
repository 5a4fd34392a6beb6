"""A stored message as one stream: its head, which is ours, then the body as it was received.

*Failures*: what the store's reader fails with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zope.interface import implementer

from vmtpd.interfaces import IReader

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from vmtpd.mail import Message


@implementer(IReader)
class Whole:
    """A reader of head and body. A small message comes in one piece."""

    def __init__(self, message: Message) -> None:
        self._head = message.head
        self._reader = message.content.open()

    def read(self, n: int) -> bytes | Deferred[bytes]:
        head, self._head = self._head[:n], self._head[n:]
        if not head:
            return self._reader.read(n)
        if len(head) == n:
            return head
        piece = self._reader.read(n - len(head))
        return head + piece if isinstance(piece, bytes) else piece.addCallback(lambda piece: head + piece)

    def close(self) -> None:
        self._reader.close()
