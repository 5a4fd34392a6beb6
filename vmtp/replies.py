"""Replies: a code, an enhanced code, a text (RFC 5321 section 4.2, RFC 2034).

A server makes them, a client reads them: `Reply` is one value for both. `ReplyReader` cuts a stream of octets into replies.

*Failures*: octets that are no reply raise `MalformedReply`, once for all: a stream out of step stays so. What the
reader keeps is bounded by lines, octets a line and octets a reply, whatever the peer sends.
"""

from __future__ import annotations

import re
from functools import lru_cache

from vmtp.errors import MalformedReply

MAX_LINE = 2048
"""Octets of one reply line. RFC 5321 section 4.5.3.1.5 has 512; peers exceed it."""

MAX_LINES = 256
"""Lines of one reply, unless the command allows for more."""

MAX_KEPT = 256
"""Octets of a reply that is kept for the next time it is said."""

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?\Z", re.DOTALL)
_ENHANCED = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?: |\Z)")
_CONTROLS = dict.fromkeys([*range(9), *range(10, 32), 127], "?")


class Reply:
    """One reply. `code` is 200 to 599, `enhanced` like "2.1.5" or "", `text` its text, lines divided by LF."""

    def __init__(self, code: int, enhanced: str, text: str) -> None:
        self.code = code
        self.enhanced = enhanced
        self.text = text
        self._wire: bytes | None = None

    @property
    def ok(self) -> bool:
        """Whether this is 2yz or 3yz."""
        return self.code < 400

    @property
    def temporary(self) -> bool:
        """Whether this is 4yz: the same may work later."""
        return 400 <= self.code < 500

    @property
    def status(self) -> str:
        """The enhanced code, or the least precise one of the reply's class (RFC 3463 section 3.1)."""
        return self.enhanced or f"{2 if self.ok else self.code // 100}.0.0"

    @property
    def wire(self) -> bytes:
        """The octets of this reply. Every line carries code and enhanced code (RFC 2034 section 4)."""
        if self._wire is None:  # functools.cached_property takes a lock, and this is the hottest path
            self._wire = self._encoded()
        return self._wire

    def _encoded(self) -> bytes:
        *lines, last = self.text.split("\n")
        lead = f"{self.enhanced} " if self.enhanced else ""
        text = "".join(f"{self.code}-{lead}{line}\r\n" for line in lines) + f"{self.code} {lead}{last}\r\n"
        return text.encode("utf-8", "backslashreplace")

    def __str__(self) -> str:
        lead = f"{self.code} {self.enhanced} " if self.enhanced else f"{self.code} "
        return (lead + " ".join(self.text.split("\n"))).rstrip()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code}, {self.enhanced!r}, {self.text!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reply):
            return NotImplemented
        return (self.code, self.enhanced, self.text) == (other.code, other.enhanced, other.text)

    def __hash__(self) -> int:
        return hash((self.code, self.enhanced, self.text))


class ReplyReader:
    """Cuts what a server sends into replies.

    Lines end with LF, with or without CR before it: a reply in a slightly wrong form is still the answer that was waited for.
    Control characters in texts become "?", so that a reply can be logged and shown.
    """

    def __init__(self, max_lines: int = MAX_LINES, max_octets: int = 65536) -> None:
        self.max_lines = max_lines
        self.max_octets = max_octets
        self._buffer = b""
        self._lines: list[tuple[int, str]] = []
        self._octets = 0
        self._broken: MalformedReply | None = None

    @property
    def residue(self) -> int:
        """How many octets were received that belong to no reply given out yet."""
        return len(self._buffer) + self._octets

    def receive(self, data: bytes) -> None:
        """Take octets from the peer."""
        self._buffer = self._buffer + data if self._buffer else data

    def next_reply(self) -> Reply | None:
        """The next whole reply, or None until more octets come.

        Raises `MalformedReply` for octets that are no reply.
        """
        if self._broken:
            raise self._broken
        while True:
            end = self._buffer.find(b"\n")
            if end < 0:
                if len(self._buffer) > MAX_LINE:
                    raise self._fail("a reply line is too long")
                return None
            line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
            if reply := self._take(line.removesuffix(b"\r")):
                return reply

    def _take(self, line: bytes) -> Reply | None:
        if not self._lines and len(line) <= MAX_KEPT and (reply := _single(line)):
            return reply
        match = _LINE.match(line)
        if match is None:
            raise self._fail("a reply line has no code")
        if len(line) > MAX_LINE:
            raise self._fail("a reply line is too long")
        code = int(match[1])
        text = _text(match)
        if self._lines and self._lines[0][0] != code:
            raise self._fail("the lines of a reply have different codes")
        if match[2] != b"-" and not self._lines:
            return _reply(code, [text])
        self._lines.append((code, text))
        self._octets += len(line) + 2
        if len(self._lines) > self.max_lines or self._octets > self.max_octets:
            raise self._fail("a reply is too long")
        if match[2] == b"-":
            return None
        texts = [text for _, text in self._lines]
        self._lines, self._octets = [], 0
        return _reply(code, texts)

    def _fail(self, text: str) -> MalformedReply:
        self._broken = MalformedReply(text)
        self._buffer, self._lines, self._octets = b"", [], 0
        return self._broken


@lru_cache(maxsize=64)
def _single(line: bytes) -> Reply | None:
    """A reply of one line, None for any other line. Servers say the same few all day long: they are kept."""
    match = _LINE.match(line)
    return _reply(int(match[1]), [_text(match)]) if match and match[2] != b"-" else None


def _text(match: re.Match[bytes]) -> str:
    return (match[3] or b"").decode("utf-8", "backslashreplace").translate(_CONTROLS)


def _reply(code: int, texts: list[str]) -> Reply:
    """Take the enhanced code off the lines, where it is of the code's class (RFC 2034 section 4)."""
    match = _ENHANCED.match(texts[0])
    if match is None or match[1] != str(code)[0]:
        return Reply(code, "", "\n".join(texts))
    enhanced = match[0].rstrip()
    lead = f"{enhanced} "
    return Reply(code, enhanced, "\n".join(text.removeprefix(lead) if text != enhanced else "" for text in texts))
