"""The client's side of a session, without I/O: octets in, events out; commands in, octets out (RFC 5321, RFC 2920).

Who drives it calls `receive` with what the peer sent (b"" at the end of the stream), and behind every call writes what
`bytes_to_send` gives. `send` takes a command, `body` the content behind 354. Several commands may be outstanding where PIPELINING
is offered; replies are matched to them in their order. What may be sent when is said by the tables of `states.py`.

`patience` is how long to wait for what is outstanding; when it is over, `expire` ends the session. No clock is read here.

*Failures*: misuse raises `InvalidInput`, and nothing of it is sent. What the peer does wrong comes as the last event, `Ended`, with the
error: a reply nobody asked for, one that is none, one of a class that its command cannot have, 421 (RFC 5321 section 3.8),
octets between the 220 to STARTTLS and the handshake, the end of the stream. What is kept is bounded by the reader of replies.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from vmtp.client.states import PATIENCE, PATIENCE_BLOCK, PATIENCE_ELSE, PIPELINED, REPLIES, SENDS, State, Turn
from vmtp.envelope import NOTHING
from vmtp.errors import (
    ConnectionClosed,
    InvalidInput,
    MalformedReply,
    RemoteError,
    TimedOut,
    TLSFailed,
    UnexpectedReply,
)
from vmtp.framing import DotStuffer, damage
from vmtp.replies import Reply, ReplyReader
from vmtp.sasl import MAX_RESPONSE

MAX_COMMAND = 2048
"""Octets of a command line: the longest of RFC 5321 section 4.5.3.1.4 with all extensions stays below."""

_OTHER = Turn((2, 3))


class TLSFacts(NamedTuple):
    """What a handshake brought: version ("TLSv1.3"), cipher, and whether the certificate was checked."""

    version: str
    cipher: str = ""
    verified: bool = False


class Answer(NamedTuple):
    """The reply to an operation."""

    operation: str
    reply: Reply


class Ended(NamedTuple):
    """The session is over: the last event of all."""

    error: RemoteError


Event = Answer | Ended


class Engine:
    """One session of a client. `capabilities` has the keywords of the last EHLO in capitals, with what stood behind each."""

    def __init__(self) -> None:
        self.state = State.GREETING
        self.capabilities: Mapping[str, str] = NOTHING
        self.tls: TLSFacts | None = None
        self.authenticated = False
        self.error: RemoteError | None = None
        self._reader = ReplyReader()
        self._outstanding: deque[str] = deque(["greeting"])
        self._out: list[bytes] = []
        self._stuffer = DotStuffer()
        self._cut = False

    @property
    def closed(self) -> bool:
        """Whether the session is over."""
        return self.state is State.CLOSED

    @property
    def wants_input(self) -> bool:
        """Whether a reply is outstanding."""
        return bool(self._outstanding)

    @property
    def patience(self) -> float:
        """Seconds to wait for what is outstanding now."""
        if self._outstanding:
            return PATIENCE.get(self._outstanding[0], PATIENCE_ELSE)
        return PATIENCE_BLOCK if self.state is State.BODY else PATIENCE_ELSE

    @property
    def size_limit(self) -> int | None:
        """The largest message that the server takes (RFC 1870 section 4); None where it does not say."""
        text = self.capabilities.get("SIZE", "")
        return int(text) or None if text.isdecimal() and text.isascii() and len(text) <= 20 else None

    @property
    def mechanisms(self) -> list[str]:
        """The mechanisms of AUTH, in capitals."""
        return self.capabilities.get("AUTH", "").upper().split()

    def offers(self, keyword: str) -> bool:
        """Whether the last EHLO offers an extension."""
        return keyword in self.capabilities

    # What we send

    def send(self, command: str) -> None:
        """A command line without its CRLF; in a login, the next line of it. Raises `InvalidInput`."""
        operation = "response" if self.state is State.CHALLENGED else command.partition(" ")[0].upper()
        self._check(operation, command)
        try:
            following = SENDS[self.state][operation]
        except KeyError:
            raise InvalidInput(f"out of turn: {self.state.value}", operation) from None
        if self._outstanding and not ("PIPELINING" in self.capabilities and self._outstanding[-1] in PIPELINED):
            raise InvalidInput("the reply to the last command must come first", operation)
        if following:
            self.state = following
        self._outstanding.append("AUTH" if operation == "response" else operation)
        self._out.append(command.encode() + b"\r\n")

    def _check(self, operation: str, command: str) -> None:
        if not command.isprintable():
            raise InvalidInput("a control character in a command", operation)
        if not command.isascii() and "SMTPUTF8" not in self.capabilities:
            raise InvalidInput("the server takes no characters outside of ASCII", operation)
        if len(command) > (MAX_RESPONSE if operation in ("AUTH", "response") else MAX_COMMAND):
            raise InvalidInput("a command line is too long", operation)

    def body(self, chunk: bytes, last: bool = False) -> None:
        """A piece of the content, as it is: dots and the end of it are put in here. Raises `InvalidInput`.

        Lines must end with CRLF: a CR or LF alone, or a NUL, could end the content for one reader and not for another.
        """
        if self.state is not State.BODY:
            raise InvalidInput(f"out of turn: {self.state.value}", "body")
        whole = b"\r" + chunk if self._cut else chunk
        self._cut = whole.endswith(b"\r") and not last
        if wrong := damage(whole[:-1] if self._cut else whole):
            raise InvalidInput(f"{wrong} in the content", "body")
        self._out.append(self._stuffer.feed(chunk))
        if last:
            self._out.append(self._stuffer.finish())
            self._stuffer = DotStuffer()
            self.state = State.SENT
            self._outstanding.append("body")

    def bytes_to_send(self) -> bytes:
        """What is to be written now; b"" for nothing."""
        if not self._out:
            return b""
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        return data

    def tls_established(self, facts: TLSFacts) -> None:
        """The handshake is made: before the greeting, or behind STARTTLS, when all that was learned is forgotten (RFC 3207 section 4.2)."""
        if self.state is State.HANDSHAKE:
            self.state = State.GREETED
        elif self.state is not State.GREETING or self._reader.residue:
            raise InvalidInput("out of turn: no handshake was agreed", "STARTTLS")
        self.tls = facts
        self.capabilities = NOTHING
        self.authenticated = False
        self._reader = ReplyReader()

    # What we hear

    def receive(self, data: bytes) -> list[Event]:
        """Octets of the peer, b"" for the end of the stream. Never raises: what is wrong comes as `Ended`."""
        if not data:
            return [self.end(ConnectionClosed("the connection was closed"))]
        if self.state is State.CLOSED:
            return []
        if self.state is State.HANDSHAKE:
            return [self._residue()]
        self._reader.receive(data)
        events: list[Event] = []
        try:
            while (reply := self._reader.next_reply()) is not None:
                if not self._take(reply, events):
                    break
        except MalformedReply as error:
            events.append(self.end(error))
        return events

    def expire(self) -> Ended:
        """The patience is over."""
        return self.end(TimedOut("the peer took too long"))

    def end(self, error: RemoteError) -> Ended:
        """End the session, by an error of the network. The first one stays."""
        if self.error is None:
            error.operation = error.operation or self._operation
            error.ambiguous = self.state is State.SENT
            self.error = error
        self.state = State.CLOSED
        self._outstanding.clear()
        self._out.clear()
        return Ended(self.error)

    @property
    def _operation(self) -> str:
        if self._outstanding:
            return self._outstanding[0]
        return {State.BODY: "body", State.HANDSHAKE: "STARTTLS"}.get(self.state, "")

    def _take(self, reply: Reply, events: list[Event]) -> bool:
        """One reply. Returns whether the session goes on."""
        if not self._outstanding:
            return self._take_unasked(reply, events)
        operation = self._outstanding[0]
        turn = REPLIES.get(operation, _OTHER)
        if reply.code < 400 and reply.code // 100 not in turn.good:
            events.append(self.end(UnexpectedReply(reply, operation)))
            return False
        self._outstanding.popleft()
        if moves := turn.accepted if reply.code < 400 else turn.refused:
            self.state = moves.get(self.state, self.state)
        if operation in ("EHLO", "HELO"):
            self.capabilities = _capabilities(reply) if operation == "EHLO" and reply.ok else NOTHING
        elif operation == "AUTH" and reply.ok:
            self.authenticated = reply.code < 300
            self.state = State.READY if self.authenticated else State.CHALLENGED
        events.append(Answer(operation, reply))
        if reply.code == 421:
            events.append(self.end(UnexpectedReply(reply, operation)))
        elif self.state is State.HANDSHAKE and self._reader.residue:
            events.append(self._residue())
        return self.state is not State.CLOSED

    def _take_unasked(self, reply: Reply, events: list[Event]) -> bool:
        """421, and a refusal of the content before its end, may come unasked and end the session; nothing else may."""
        if reply.code == 421 or (self.state is State.BODY and not reply.ok):
            events.append(self.end(UnexpectedReply(reply, self._operation)))
        else:
            events.append(self.end(MalformedReply("a reply that nobody asked for")))
        return False

    def _residue(self) -> Ended:
        return self.end(TLSFailed("the server sent data between its reply to STARTTLS and the handshake", "STARTTLS"))


def _capabilities(reply: Reply) -> Mapping[str, str]:
    """The lines behind the first of an EHLO reply; "AUTH=" is an old way to write "AUTH "."""
    found: dict[str, str] = {}
    for line in reply.text.split("\n")[1:]:
        keyword, _, params = line.strip().partition(" ")
        keyword = keyword.upper()
        if keyword.startswith("AUTH="):
            keyword, params = "AUTH", f"{keyword[5:]} {params}"
        if keyword == "AUTH":
            params = f"{found.get(keyword, '')} {params}"
        if keyword:
            found[keyword] = params.strip()
    return MappingProxyType(found)
