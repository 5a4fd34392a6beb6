"""The procedures of a client: connect, login, send, reset, noop, quit. One set for every transport.

Each is a generator that works an `Engine` and yields what it needs from its driver:

- `Need.RECEIVE`: write what the engine has, wait for octets of the peer, give them to the engine, send its events back. The end of the
  connection, and of the patience, is told to the engine too, and comes as an event.
- `Need.FLUSH`: write what the engine has and wait until the peer reads. Events that come meanwhile are kept for the next RECEIVE.
- `Need.UPGRADE`: write, make the TLS handshake, tell the engine `tls_established`; raise `TLSFailed` into the generator otherwise.
- `Wait(what)`: wait for a Deferred or an awaitable that a content gave, and send its result back.

What a generator returns is the result. Where PIPELINING is offered, MAIL, every RCPT and DATA leave in one write (RFC 2920), many
recipients in groups small enough that neither side waits for the other to read.

*Failures*: `InvalidInput` and `ExtensionUnavailable` before anything is sent; other `RemoteError`s as they come. `send` alone returns the
error in its result, with the answers that some recipients had before.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Awaitable, Generator, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from vmtp import sasl
from vmtp.address import printable, split, to_ascii
from vmtp.client.engine import Answer, Engine, Event
from vmtp.client.states import State
from vmtp.envelope import Envelope, Recipient
from vmtp.errors import (
    AuthenticationFailed,
    ExtensionUnavailable,
    InvalidInput,
    RemoteError,
    UnexpectedReply,
)
from vmtp.replies import Reply

BLOCK = 65536
"""Octets of content in one write. A content up to here leaves in one write with its final dot."""

GROUP = 8192
"""Octets of commands that may wait for their replies: less than a socket buffers, in both directions."""

INITIAL = 360
"""Octets of an initial response that fit into a command line of 512 as base64; a longer one waits for a challenge (RFC 4954 section 4)."""

Posture = Literal["none", "opportunistic", "required", "verified"]
"""What to do about STARTTLS: leave it; use it if offered; insist. "verified" insists too: the driver checks the certificate."""


class Need(Enum):
    """What a procedure asks of its driver."""

    RECEIVE = "receive"
    FLUSH = "flush"
    UPGRADE = "upgrade"


class Wait(NamedTuple):
    """A request to wait for a result."""

    what: Any


T = TypeVar("T")
Steps = Generator[Need | Wait, Any, T]


class Content(Protocol):
    """What is sent as content: lines ended by CRLF, without dots added."""

    def read(self, n: int, /) -> bytes | Awaitable[bytes]:
        """Up to n octets, or an awaitable of them; b"" at the end."""


class SendResult(NamedTuple):
    """What became of a transaction.

    `answers` has for each recipient, in their order, the answer that settles it: a refusal of MAIL, RCPT or DATA, else the reply
    to the content; None where none came, and then `error` says why. `final` is the reply to the content, if it came. `error` is also set
    when the session ended behind the last answer that was needed. A 421 is the answer of all that have no other.
    """

    answers: tuple[Answer | None, ...]
    final: Reply | None = None
    error: RemoteError | None = None

    @property
    def good(self) -> bool:
        """Whether the message was taken for every recipient, and the session goes on."""
        taken = self.final is not None and self.final.ok and self.error is None
        return taken and all(answer is not None and answer.reply.ok for answer in self.answers)

    @property
    def replies(self) -> tuple[Reply | None, ...]:
        """The reply for each recipient."""
        return tuple(answer.reply if answer else None for answer in self.answers)


def connect(
    engine: Engine, hostname: str, tls: Posture = "opportunistic", *, implicit: bool = False
) -> Steps[Mapping[str, str]]:
    """Greeting, EHLO under our `hostname`, STARTTLS and EHLO again. Returns the capabilities.

    HELO where EHLO is not known (500, 502). `implicit`: TLS from the first octet (RFC 8314 section 3).
    Raises `UnexpectedReply`, `ExtensionUnavailable`, `TLSFailed`, `RemoteError`.
    """
    if not re.fullmatch(r"[!-~]{1,255}", hostname):
        raise InvalidInput("a host name for EHLO is printable ASCII without blanks", "EHLO")
    if implicit:
        yield Need.UPGRADE
    yield from _positive(engine)
    yield from _hello(engine, hostname)
    if implicit or tls == "none":
        return engine.capabilities
    if not engine.offers("STARTTLS"):
        if tls != "opportunistic":
            raise ExtensionUnavailable("STARTTLS", "STARTTLS")
        return engine.capabilities
    engine.send("STARTTLS")
    answer = yield from _answer(engine)
    if answer.reply.ok:
        yield Need.UPGRADE
        yield from _hello(engine, hostname)
    elif tls != "opportunistic":
        raise UnexpectedReply(answer.reply, "STARTTLS")
    return engine.capabilities


def _hello(engine: Engine, hostname: str) -> Steps[None]:
    engine.send(f"EHLO {hostname}")
    answer = yield from _answer(engine)
    if answer.reply.code in (500, 502):
        engine.send(f"HELO {hostname}")
        answer = yield from _answer(engine)
    if not answer.reply.ok:
        raise UnexpectedReply(answer.reply, answer.operation)


def login(engine: Engine, user: str, password: str, mechanism: str | None = None) -> Steps[Reply]:
    """Log in by AUTH, with the best mechanism that the server offers, or the one that is named. Never in clear.

    Raises `InvalidInput` without TLS, `ExtensionUnavailable`, `AuthenticationFailed`, `RemoteError`.
    """
    if engine.tls is None:
        raise InvalidInput("a password is not sent without TLS", "AUTH")
    allowed = (mechanism.upper(),) if mechanism else sasl.PREFERENCE
    chosen = sasl.choose(engine.mechanisms, allowed)
    if chosen is None:
        raise ExtensionUnavailable(f"AUTH {' or '.join(allowed)}", "AUTH")
    exchange = sasl.exchange(chosen, user, password)
    command = f"AUTH {chosen}"
    first = exchange.initial
    if first is not None and len(first) < INITIAL:
        command = f"{command} {b64encode(first).decode() or '='}"
        first = None
    engine.send(command)
    answer = yield from _answer(engine)
    while answer.reply.ok and not engine.authenticated:
        response = exchange.respond(_challenge(answer.reply)) if first is None else first
        first = None
        engine.send(b64encode(response).decode())
        answer = yield from _answer(engine)
    if not answer.reply.ok:
        raise AuthenticationFailed(answer.reply, "AUTH")
    return answer.reply


def _challenge(reply: Reply) -> bytes:
    try:
        return b64decode(reply.text, validate=True)
    except NotBase64:
        return reply.text.encode()  # what some servers say behind 334 is no base64; LOGIN and PLAIN do not read it


def send(engine: Engine, envelope: Envelope, content: Content, size: int = 0) -> Steps[SendResult]:
    """Hand over one message. `size` is its octets as well as they are known, 0 for unknown (RFC 1870).

    A refused recipient leaves the session as usable as before. A message larger than the server's limit, or one that needs SMTPUTF8
    where it is not offered, is answered here, by 552 5.3.4 and 550 5.6.7, with nothing sent.
    Raises `InvalidInput` for an address, a parameter or a content that must not be sent, and what reading the content
    raises; if `engine.state` is not READY afterwards, the content was begun and the session must not be used again.
    """
    if engine.size_limit and size > engine.size_limit:
        text = f"the message has {size} octets, the server takes {engine.size_limit}"
        return _here(envelope, Reply(552, "5.3.4", text))
    block = yield from _read(content)
    following = (yield from _read(content)) if block else b""
    utf8 = engine.offers("SMTPUTF8") and "SMTPUTF8" in envelope.params
    if not utf8 and (utf8 := _needs_utf8(envelope, block)) and not engine.offers("SMTPUTF8"):
        return _here(envelope, Reply(550, "5.6.7", "the message needs SMTPUTF8, which the server does not offer"))
    lines = _commands(engine, envelope, size, utf8)

    answers: list[Answer | None] = [None] * len(envelope.recipients)
    refused, data, error = yield from _transact(engine, lines, answers)
    if refused:
        return SendResult(tuple(refused for _ in answers), None, error)
    accepted = [n for n, answer in enumerate(answers) if answer and answer.reply.ok]
    if error is None and accepted and data is None:
        engine.send("DATA")
        got, error = yield from _answers(engine, 1)
        data = got[0] if got else None
    if error:
        return _cut(answers, accepted, error, data)
    if data is None or not data.reply.ok:
        return _settle(answers, accepted, data)
    if not accepted:
        return SendResult(tuple(answers), None, (yield from _nothing(engine)))
    while following and not engine.closed:
        engine.body(block)
        yield Need.FLUSH
        block, following = following, (yield from _read(content))
    if not engine.closed:
        engine.body(block, last=True)
    got, error = yield from _answers(engine, 1)
    if not got:
        return _cut(answers, accepted, error, None)
    return _settle(answers, accepted, got[0], error)


def _transact(
    engine: Engine, lines: list[str], answers: list[Answer | None]
) -> Steps[tuple[Answer | None, Answer | None, RemoteError | None]]:
    """MAIL and every RCPT, with PIPELINING also DATA. Fills `answers`; returns a refusal of MAIL, the answer to DATA, the error."""
    if engine.closed:  # while the content was read
        _, error = yield from _answers(engine, 1)
        return None, None, error
    piped = engine.offers("PIPELINING")
    if engine.state is not State.READY:
        lines.insert(0, "RSET")
    refused: Answer | None = None
    data: Answer | None = None
    n = 0
    for group, last in _groups(lines, GROUP if piped else 0):
        for line in group:
            engine.send(line)
        if ahead := last and piped:
            engine.send("DATA")
        got, error = yield from _answers(engine, len(group) + ahead)
        for answer in got:
            if answer.operation == "RCPT":
                answers[n] = answer
                n += 1
            elif answer.operation == "DATA":
                data = answer
            elif not answer.reply.ok:
                refused = refused or answer
        if error or refused:
            break
    if refused and data and data.reply.ok and not error:
        error = yield from _nothing(engine)
    return refused, data, error


def _nothing(engine: Engine) -> Steps[RemoteError | None]:
    """End a DATA that was taken though no recipient was (RFC 2920 section 3.1): no content, and no message."""
    engine.body(b"", last=True)
    _, error = yield from _answers(engine, 1)
    return error


def _groups(lines: Sequence[str], octets: int) -> Iterator[tuple[Sequence[str], bool]]:
    """Cut lines into groups of about so many octets, at least one line each; and whether it is the last group."""
    if octets and len(lines) <= 8:
        yield lines, True
        return
    begin = total = 0
    for n, line in enumerate(lines):
        total += len(line) + 2
        if total > octets and n > begin:
            yield lines[begin:n], False
            begin, total = n, len(line) + 2
    yield lines[begin:], True


def _settle(
    answers: list[Answer | None], accepted: list[int], answer: Answer | None, error: RemoteError | None = None
) -> SendResult:
    """The accepted recipients share the answer to DATA or to the content."""
    for n in accepted:
        answers[n] = answer
    final = answer.reply if answer and answer.operation == "body" else None
    return SendResult(tuple(answers), final, error)


def _cut(
    answers: list[Answer | None], accepted: list[int], error: RemoteError | None, answer: Answer | None
) -> SendResult:
    """The session ended before all was settled: by a reply, which answers for all the rest, or without one."""
    if isinstance(error, UnexpectedReply) and not error.reply.ok:
        answer = Answer(error.operation, error.reply)
    elif answer and answer.reply.ok:
        answer = None
    for n in accepted:
        answers[n] = answer
    return SendResult(tuple(each or answer for each in answers), None, error)


def _here(envelope: Envelope, reply: Reply) -> SendResult:
    """An answer that we give ourselves, with nothing sent."""
    return SendResult(tuple(Answer("MAIL", reply) for _ in envelope.recipients))


def _read(content: Content) -> Steps[bytes]:
    block = content.read(BLOCK)
    return block if isinstance(block, bytes) else (yield Wait(block))


def reset(engine: Engine) -> Steps[Reply]:
    """RSET. Raises `RemoteError`."""
    engine.send("RSET")
    return (yield from _positive(engine)).reply


def noop(engine: Engine) -> Steps[Reply]:
    """NOOP, to see whether the peer is there. Raises `RemoteError`."""
    engine.send("NOOP")
    return (yield from _positive(engine)).reply


def quit(engine: Engine) -> Steps[None]:
    """QUIT, as well as it goes: never raises for what the peer does."""
    if not engine.closed and not engine.wants_input and engine.state is not State.BODY:
        engine.send("QUIT")
        yield from _answers(engine, 1)


def _positive(engine: Engine) -> Steps[Answer]:
    """The next answer, which must be 2yz."""
    answer = yield from _answer(engine)
    if not answer.reply.ok:
        raise UnexpectedReply(answer.reply, answer.operation)
    return answer


def _answer(engine: Engine) -> Steps[Answer]:
    """The next answer. Raises the error that came in its stead, or with it."""
    got, error = yield from _answers(engine, 1)
    if error:
        raise error
    return got[0]


def _answers(engine: Engine, count: int) -> Steps[tuple[list[Answer], RemoteError | None]]:
    """The next so many answers, fewer where the session ended, and the error that ended it."""
    got: list[Answer] = []
    while len(got) < count:
        events: list[Event] = yield Need.RECEIVE
        for event in events:
            if isinstance(event, Answer):
                got.append(event)
            else:
                return got, event.error
    return got, None


# What stands in MAIL and RCPT

_ADDRESS = re.compile(
    r'(?:[^\x00-\x20\x7f-\x9f"<>@\\]+|"(?:[^\x00-\x1f\x7f-\x9f"\\]|\\[\x20-\x7e])*")(?:@[^\x00-\x20\x7f-\x9f"<>@\\]+)?'
)
_VALUE = re.compile(r"[!-<>-~]*")
_DSN_MAIL = frozenset({"RET", "ENVID"})
_DSN_RCPT = frozenset({"NOTIFY", "ORCPT"})


def sendable(address: str) -> bool:
    """Whether an address may stand between < and > in a command."""
    return len(address) <= 320 and _ADDRESS.fullmatch(address) is not None and address.isprintable()


def _commands(engine: Engine, envelope: Envelope, size: int, utf8: bool) -> list[str]:
    """MAIL and the RCPTs, with the parameters that the server takes. Raises `InvalidInput`."""
    sender, recipients, params = envelope
    if not recipients:
        raise InvalidInput("a message without recipients", "MAIL")
    mail = f"MAIL FROM:<{_path(sender, utf8, 'MAIL') if sender else ''}>"
    if size and engine.offers("SIZE"):
        mail += f" SIZE={size}"
    if params.get("BODY") == "8BITMIME" and engine.offers("8BITMIME"):
        mail += " BODY=8BITMIME"
    if utf8:
        mail += " SMTPUTF8"
    if engine.offers("DSN"):
        mail += _params(params, _DSN_MAIL, "MAIL")
        return [mail, *(_rcpt(each, utf8) + _params(each.params, _DSN_RCPT, "RCPT") for each in recipients)]
    return [mail, *(_rcpt(each, utf8) for each in recipients)]


def _rcpt(recipient: Recipient, utf8: bool) -> str:
    return f"RCPT TO:<{_path(recipient.address, utf8, 'RCPT')}>"


def _path(address: str, utf8: bool, operation: str) -> str:
    if not sendable(address):
        raise InvalidInput(f"{printable(address[:320])!a} is not an address to be sent", operation)
    if utf8 or address.isascii():
        return address
    local, domain = split(address)
    return f"{local}@{to_ascii(domain)}"


def _params(params: Mapping[str, str], which: frozenset[str], operation: str) -> str:
    text = ""
    for name, value in params.items():
        if name in which:
            if not _VALUE.fullmatch(value):
                raise InvalidInput(f"the value of {name} may not be sent", operation)
            text += f" {name}={value}"
    return text


def _needs_utf8(envelope: Envelope, block: bytes) -> bool:
    """Whether a local part is not ASCII, or the message was declared so and its header is not (RFC 6531 section 3.4)."""
    if not all(split(address)[0].isascii() for address in (envelope.sender, *(r.address for r in envelope.recipients))):
        return True
    return "SMTPUTF8" in envelope.params and not block[: block.find(b"\r\n\r\n")].isascii()
