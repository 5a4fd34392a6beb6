"""A message as a route wants it, where a provider takes mail from one address only.

Where it stands: at delivery, between the stored message, which never changes, and the agent. The envelope sender becomes the route's
address, but the null one, so that a report stays one. In the header, the author's address gives way to the route's and lives on as the name
and in Reply-To:

    From: Scanner <scan@printer.lan>    becomes    From: "Scanner" <office@example.org>
                                                   Reply-To: Scanner <scan@printer.lan>

The result depends on message and route alone, so that a repeat has the same octets. Nothing else of the header is touched, and not an octet
of the body. A header above 256 KiB is left as it is.

*Failures*: what the store's reader fails with.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from zope.interface import implementer

from vmtp.message import fields
from vmtpd.interfaces import IReader

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from vmtpd.mail import Message, Route

MAX_HEADER = 256 * 1024
BLOCK = 65536
GROWTH = 1024
"""Octets by which a message is announced larger than it is stored: its growth is known only when its header is read."""

MAX_NAME = 600
"""Octets of a display name, so that the line stays below 998 (RFC 5322 section 2.1.1)."""

_FOLD = re.compile(rb"\r\n(?=[ \t])")
_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")
_QUOTED = re.compile(rb'"(?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*"')
_ENCODED = re.compile(rb"(?:=\?[!->@-~]+\?[BbQq]\?[!->@-~]*\?=[ \t]*)+")
_ANGLE = re.compile(rb"(.*)<([^<>]*)>[^<>]*", re.DOTALL)


def rewrite(message: Message, route: Route) -> tuple[str, Callable[[], IReader], int]:
    """Envelope sender, what opens the content, and its octets as well as they are known. For routes with a `sender`."""
    return (route.sender if message.sender else ""), (lambda: Rewritten(message, route.sender)), message.size + GROWTH


@implementer(IReader)
class Rewritten:
    """A reader of the message with another author. The header is read whole before its first octet is given out."""

    def __init__(self, message: Message, sender: str) -> None:
        self._sender = sender
        self._reader = message.content.open()
        self._ready = message.head
        self._collecting = True

    def read(self, n: int) -> bytes | Deferred[bytes]:
        while self._collecting:
            piece = self._reader.read(BLOCK)
            if not isinstance(piece, bytes):
                return piece.addCallback(self._collect).addCallback(lambda _: self.read(n))
            self._collect(piece)
        if self._ready:
            piece, self._ready = self._ready[:n], self._ready[n:]
            return piece
        return self._reader.read(n)

    def close(self) -> None:
        self._reader.close()

    def _collect(self, piece: bytes) -> None:
        octets = self._ready + piece
        end = 0 if octets.startswith(b"\r\n") else octets.find(b"\r\n\r\n", 0, MAX_HEADER) + 2
        if end == 1 and not piece and octets.endswith(b"\r\n"):
            end = len(octets)
        self._collecting = end == 1 and bool(piece) and len(octets) <= MAX_HEADER
        self._ready = octets if end == 1 else header(octets[:end], self._sender) + octets[end:]


def header(octets: bytes, sender: str) -> bytes:
    """A header, with the CRLF of its last line, under another author."""
    found = list(fields(octets))
    authors = [field for name, field in found if name == b"from"]
    value = _value(authors[0]) if authors else b""
    if _address(value).lower() == sender.lower().encode():
        return octets
    new = b"From: " + _named(_name(value), sender)
    if value and all(name != b"reply-to" for name, _ in found):
        new += b"Reply-To:" + authors[0].partition(b":")[2]
    if not authors:
        found.append((b"from", b""))
    written = False
    parts: list[bytes] = []
    for name, field in found:
        if name != b"from":
            parts.append(field)
        elif not written:
            parts.append(new)
            written = True
    return b"".join(parts) + octets[sum(len(field) for _, field in found) :]


def _value(field: bytes) -> bytes:
    return _FOLD.sub(b"", field.partition(b":")[2]).strip()


def _address(value: bytes) -> bytes:
    match = _ANGLE.fullmatch(value)
    return (match[2] if match else value).strip()


def _name(value: bytes) -> bytes:
    """What the author is called: the display name, else the address; fit to stand before an address in angle brackets."""
    match = _ANGLE.fullmatch(value)
    name = (match[1].strip() if match else b"") or _address(value)
    if len(name) <= MAX_NAME and (_QUOTED.fullmatch(name) or _ENCODED.fullmatch(name)):
        return name
    plain = _CONTROLS.sub(b" ", name).replace(b"\\", b"").replace(b'"', b"").strip()
    if len(plain) > MAX_NAME:
        plain = plain[:MAX_NAME].decode("utf-8", "ignore").encode()
    return b'"' + plain + b'"' if plain else b""


def _named(name: bytes, sender: str) -> bytes:
    fold = b"\r\n " if len(name) + len(sender) > 70 else b" "
    return (name + fold if name else b"") + b"<" + sender.encode() + b">\r\n"
