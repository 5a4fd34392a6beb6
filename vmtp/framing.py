"""The content of a DATA command on the wire: cut out of the stream, and put into it (RFC 5321 sections 4.1.1.4 and 4.5.2).

A server reads content with `DataReader`, a client writes it with `DotStuffer`. Both work on whole chunks: a line is never
looked at by itself.

Only CRLF "." CRLF ends the content. A CR or LF that stands alone, or a NUL, is no line end and no text (RFC 5321 section 2.3.8):
two servers that read it differently can be made to see two messages where one was sent. `DataReader` therefore reads such a content to its
true end, gives out no more of it, and says so in `damage`.

*Failures*: none raised. What is kept between two chunks is four octets.
"""

from __future__ import annotations

_END = b"\r\n.\r\n"


class DataReader:
    """Takes the octets behind DATA and gives the content, dots unstuffed, until its end."""

    __slots__ = ("_rest", "_started", "damage", "size")

    def __init__(self) -> None:
        self._rest = b"\r\n"  # the CRLF of the DATA line: content may be "." CRLF alone
        self._started = False
        self.size = 0
        self.damage = ""

    def receive(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Take octets. Returns a piece of content, and what stands behind the end: None while the end has not come."""
        data = self._rest + data
        end = data.find(_END)
        if end >= 0:
            piece, behind = data[: end + 2], data[end + 5 :]
            self._rest = b""
        else:
            kept = _open_end(data)
            piece, behind = data[: len(data) - kept], None
            self._rest = data[len(data) - kept :]
        if b"\r\n." in piece:
            piece = piece.replace(b"\r\n.", b"\r\n")
        if not self._started and (piece or behind is not None):
            piece, self._started = piece[2:], True
        self.size += len(piece)
        if not self.damage:
            self.damage = damage(piece)
        return (b"" if self.damage else piece), behind


def damage(piece: bytes) -> str:
    """What is wrong with octets that should be lines ended by CRLF; "" where nothing is. The piece holds whole CRLFs."""
    if b"\0" in piece:
        return "NUL"
    lines = piece.count(b"\r\n")
    if piece.count(b"\n") != lines:
        return "bare LF"
    if piece.count(b"\r") != lines:
        return "bare CR"
    return ""


def _open_end(data: bytes) -> int:
    """How many octets at the end of data may be the begin of CRLF "." CRLF."""
    for length in (4, 3, 2, 1):
        if data.endswith(_END[:length]):
            return length
    return 0


class DotStuffer:
    """Takes content in chunks and gives what goes on the wire behind the 354 reply."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b"\r\n"

    def feed(self, chunk: bytes) -> bytes:
        """The chunk with a second dot where a line begins with one, over the joints of chunks too."""
        if not chunk:
            return b""
        tail = self._tail
        self._tail = (tail + chunk[-2:])[-2:]
        if chunk[0] == 0x2E and tail == b"\r\n":
            chunk = b"." + chunk
        elif chunk[:2] == b"\n." and tail[-1:] == b"\r":
            chunk = b"\n.." + chunk[2:]
        return chunk.replace(b"\r\n.", b"\r\n..") if b"\r\n." in chunk else chunk

    def finish(self) -> bytes:
        """The end of the content: the CRLF that its last line lacks, and the dot."""
        return b".\r\n" if self._tail == b"\r\n" else b"\r\n.\r\n"
