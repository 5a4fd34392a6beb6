"""The server's side of a session: octets in, facts to decide and pieces of content out, replies in order.

The engine owns every octet of a session and does no I/O. Its owner feeds it and asks for events until there is none:

    engine.receive(data)
    while (event := engine.next_event()) is not None:
        ...                                     # events with a slot: engine.answer(event.slot, reply), now or later
    transport.write(engine.bytes_to_send())

An event that needs a decision stops the parsing until it is answered, since the answer says how the octets behind it are read: that is
what makes pipelining safe (RFC 2920). `End` alone does not stop it: the next transaction goes on while a message is being stored, and
the replies still leave in the order of their commands. At most 64 replies, or those of 256 KiB of content, wait for each other.

What is no decision is answered here: NOOP, HELP, VRFY, RSET, QUIT, bad lines, commands out of turn, content that is too large or damaged.

*Failures*: nothing that a peer sends raises. A peer that errs too often gets 421 and `closed` becomes true. Misuse by the owner,
such as a second answer to one question, is an AssertionError.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vmtp import commands
from vmtp.address import printable
from vmtp.errors import CommandError
from vmtp.framing import DataReader
from vmtp.replies import Reply
from vmtp.sasl import Challenge, Credentials, ServerExchange, server_exchange
from vmtp.server.events import Content, Data, End, Event, Hello, Login, Mail, Rcpt, Reset, Slot, StartTLS
from vmtp.states import AUTH, CLOSED, CONTENT, EXPECTED, MAIL, READY, SERVER, START, Phase

MAX_SLOTS = 64
MAX_WAITING = 256 * 1024
MAX_SASL_LINE = 12288
"""RFC 4954 section 4.3."""

BEGIN = Reply(354, "", "end with a dot on a line of its own")
_OK = Reply(250, "2.0.0", "ok")
_HELP = Reply(214, "2.0.0", "EHLO HELO STARTTLS AUTH MAIL RCPT DATA RSET NOOP VRFY HELP QUIT\nsee RFC 5321")
_VRFY = Reply(252, "2.5.2", "send a message and see")
_BYE = Reply(221, "2.0.0", "bye")
_UNKNOWN = Reply(500, "5.5.2", "not a command")
_TOO_LONG = Reply(500, "5.5.2", "line too long")
_BARE_LF = Reply(500, "5.5.2", "a command ends with CR LF")
_NOT_HERE = Reply(502, "5.5.1", "not offered here")
_NO_RECIPIENTS = Reply(554, "5.5.1", "no valid recipients")
_LOGGED_IN = Reply(503, "5.5.1", "logged in already")
_TLS_FIRST = Reply(530, "5.7.0", "STARTTLS comes first")
_NO_ARGUMENT = Reply(501, "5.5.4", "this command has no argument")
_TOO_LARGE = Reply(552, "5.3.4", "message too large")
_ERRORS = Reply(421, "4.7.0", "too many errors")
_JUNK = Reply(421, "4.7.0", "too many commands without a message")
_NOT_SMTP = Reply(421, "4.7.0", "this is SMTP")

_FOREIGN = frozenset({b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"PATCH", b"DELETE"})
"""Verbs of HTTP: what a browser was made to send must not be taken for commands."""

_ALONE = frozenset({b"STARTTLS", b"AUTH"})
"""What these change must not touch a transaction that is under way."""

_MAIL_PARAMS: Mapping[str, commands.Check] = {
    "SIZE": commands.is_number,
    "BODY": commands.is_body,
    "AUTH": commands.is_submitter,
}
_RCPT_PARAMS: Mapping[str, commands.Check] = {}

_TOO_MANY = "4.5.3"

OVERSHOOT = 10_000
"""Recipients put off as too many that count as no error: the first part of a long list is taken (RFC 5321 section 4.5.3.1.10)."""


@dataclass(slots=True)
class Limits:
    """What one session may cost: octets of a line and of a message, errors, commands without a message, seconds of silence."""

    line: int = 2048
    size: int = 50 * 1024 * 1024
    errors: int = 20
    junk: int = 100
    patience: float = 300.0


class Engine:
    """One session. `starttls` says whether TLS can be had, `tls` whether it is up, `mechanisms` what is offered under TLS."""

    def __init__(
        self,
        hostname: str,
        limits: Limits | None = None,
        *,
        starttls: bool = False,
        tls: bool = False,
        mechanisms: tuple[str, ...] = (),
    ) -> None:
        self.hostname = hostname
        self.limits = limits or Limits()
        self.starttls = starttls
        self.tls = tls
        self.mechanisms = mechanisms
        self.authenticated = False
        self.phase: Phase = START
        self._buffer = b""
        self._position = 0
        self._starved = True
        self._skipping = False
        self._out: list[bytes] = []
        self._slots: deque[Slot] = deque()
        self._waiting_octets = 0
        self._asked: Slot | None = None
        self._accepted: Callable[[], None] | None = None
        self._follows: Phase | None = None
        self._held = False
        self._data = DataReader()
        self._finished = False
        self._excuse: Reply | None = None
        self._exchange: ServerExchange | None = None
        self._mechanism = ""
        self._farewell: Reply | None = None
        self._errors = 0
        self._junk = 0
        self._overshoot = 0

    # What the owner asks.

    @property
    def closed(self) -> bool:
        """Whether the last reply is among the bytes to send: close behind them."""
        return self.phase == CLOSED and not self._slots

    @property
    def idle(self) -> bool:
        """Whether no transaction is open and no reply is owed."""
        return self.phase in (START, READY) and not self._slots

    @property
    def wants_input(self) -> bool:
        """Whether more octets are of use now; if not, stop reading."""
        return not self._paused or len(self._buffer) - self._position < 16384

    @property
    def patience(self) -> float:
        """Seconds to wait for the next octet (RFC 5321 section 4.5.3.2.7)."""
        return self.limits.patience

    def bytes_to_send(self) -> bytes:
        """What is to be written now; it is given once."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    # What the owner tells.

    def greet(self, reply: Reply) -> None:
        """Say 220, or 421 or 554 to a client that is not welcome (RFC 5321 section 3.1)."""
        if reply.ok:
            self._say(reply)
        else:
            self.close(reply)

    def retire(self, farewell: Reply) -> None:
        """Say this 421 as soon as no transaction is open, and close."""
        self._farewell = farewell
        if self.idle:
            self.close(farewell)

    def close(self, reply: Reply) -> None:
        """Say this last reply and read nothing more."""
        self.phase = CLOSED
        self._buffer, self._position = b"", 0
        self._say(reply)

    def tls_established(self) -> None:
        """The handshake is done. All that was known before it is forgotten (RFC 3207 section 4.2)."""
        self.tls = True
        self.authenticated = False
        self.phase = START

    def receive(self, data: bytes) -> None:
        """Take octets from the peer; `next_event` makes something of them."""
        if self.phase != CLOSED:
            rest = len(self._buffer) - self._position
            self._buffer = self._buffer[self._position :] + data if rest else data
            self._position = 0
            self._starved = False

    def next_event(self) -> Event | None:
        """The next event, or None: until more octets come, or until what was asked is answered."""
        while not (self._starved or self._paused or self.phase == CLOSED):
            event = self._read_content() if self.phase == CONTENT else self._read_line()
            if event is not None:
                return event
        return None

    def answer(self, slot: Slot, reply: Reply) -> None:
        """Answer an event. The reply leaves when all before it have."""
        assert slot.reply is None, "answered already"
        slot.reply = reply
        if slot is self._asked:
            self._asked = None
            if reply.ok and self._accepted:
                self._accepted()
        slots = self._slots
        while slots and (ready := slots[0].reply):
            self._waiting_octets -= slots.popleft().octets
            self._out.append(ready.wire)
        if not reply.ok:
            self._count_error(reply)
        if self._farewell and self.idle:
            self.close(self._farewell)

    def hello(self, event: Hello, text: str) -> Reply:
        """The 250 that greets a client and, after EHLO, offers the extensions (RFC 5321 section 4.1.1.1)."""
        if event.verb == "HELO":
            return Reply(250, "", f"{self.hostname} {text}")
        offers = ["PIPELINING", f"SIZE {self.limits.size}", "8BITMIME", "ENHANCEDSTATUSCODES"]
        if self.starttls and not self.tls:
            offers.append("STARTTLS")
        if self.mechanisms and self.tls and not self.authenticated:
            offers.append("AUTH " + " ".join(self.mechanisms))
        return Reply(250, "", "\n".join([f"{self.hostname} {text}", *offers, "HELP"]))

    # Replies.

    @property
    def _paused(self) -> bool:
        slots = self._slots
        return bool(slots) and (
            self._asked is not None or self._held or len(slots) >= MAX_SLOTS or self._waiting_octets > MAX_WAITING
        )

    def _say(self, reply: Reply) -> None:
        """Answer a command that needs no decision, in its turn."""
        if self._slots:
            slot = Slot()
            slot.reply = reply
            self._slots.append(slot)
        else:
            self._out.append(reply.wire)
        if not reply.ok:
            self._count_error(reply)

    def _ask(self, follows: Phase | None, accepted: Callable[[], None] | None = None) -> Slot:
        """A slot for a decision that parsing waits for, the phase that a positive answer leads to, and what else it does."""
        slot = self._asked = Slot()
        self._slots.append(slot)
        self._follows = follows
        self._accepted = accepted or self._enter
        return slot

    def _enter(self) -> None:
        if self._follows:
            self.phase = self._follows

    def _count_error(self, reply: Reply) -> None:
        if reply.enhanced == _TOO_MANY and self._overshoot < OVERSHOOT:
            self._overshoot += 1
            return
        self._errors += 1
        if self._errors > self.limits.errors and self.phase != CLOSED:
            self.close(_ERRORS)

    # Lines.

    def _read_line(self) -> Event | None:
        buffer, start = self._buffer, self._position
        limit = MAX_SASL_LINE if self.phase == AUTH else self.limits.line
        end = buffer.find(b"\n", start)
        if end < 0:
            self._starved = True
            if self._skipping or len(buffer) - start > limit:
                # The tail of an overlong line is dropped as it comes: it is never taken for a command.
                self._skipping = True
                self._buffer, self._position = b"", 0
            return None
        self._position = end + 1
        self._starved = end + 1 == len(buffer)
        if self._skipping or end - start > limit:
            self._skipping = False
            return self._refuse(_TOO_LONG)
        if end == start or buffer[end - 1] != 0x0D:
            return self._refuse(_BARE_LF)
        line = buffer[start : end - 1]
        try:
            if self.phase == AUTH:
                return self._respond(line)
            verb, argument = commands.read(line)
            allowed = SERVER[self.phase]
            if verb in _ALONE and self._hold(start):
                return None
            if verb in allowed:
                return _VERBS[verb](self, argument, allowed[verb])
            return self._out_of_turn(verb)
        except CommandError as error:
            return self._refuse(Reply(error.code, error.enhanced, error.text))

    def _hold(self, start: int) -> bool:
        """Whether the line at `start` must wait until every reply before it is out; then it is read again."""
        self._held = bool(self._slots)
        if self._held:
            self._position, self._starved = start, False
        return self._held

    def _refuse(self, reply: Reply) -> Event | None:
        if self.phase == AUTH:
            self._exchange, self.phase = None, READY
        self._say(reply)
        return None

    def _out_of_turn(self, verb: bytes) -> Event | None:
        if verb in _FOREIGN:
            self.close(_NOT_SMTP)
        elif verb == b"DATA" and self.phase == MAIL:
            self._say(_NO_RECIPIENTS)
        elif verb in _VERBS:
            self._say(Reply(503, "5.5.1", EXPECTED[self.phase]))
        else:
            self._say(_UNKNOWN)
        return None

    # Commands. Each takes its argument and the phase that follows when it is accepted.

    def _hello(self, verb: str, argument: bytes, follows: Phase | None) -> Event:
        name = commands.text(argument)
        if not name:
            raise CommandError(501, "5.5.4", f"usage: {verb} your.host.name")
        return Hello(self._ask(follows), verb, printable(name[:255]))

    def _mail(self, argument: bytes, follows: Phase | None) -> Event | None:
        sender, params = commands.read_mail(argument)
        if params:
            commands.check_params(params, _MAIL_PARAMS)
            if (commands.number(params.get("SIZE", "")) or 0) > self.limits.size:
                return self._refuse(_TOO_LARGE)
        return Mail(self._ask(follows), sender, params)

    def _rcpt(self, argument: bytes, follows: Phase | None) -> Event:
        recipient, params = commands.read_rcpt(argument)
        if params:
            commands.check_params(params, _RCPT_PARAMS)
        return Rcpt(self._ask(follows), recipient, params)

    def _start_data(self, argument: bytes, follows: Phase | None) -> Event:
        if argument:
            raise CommandError(501, "5.5.4", "DATA has no argument")
        return Data(self._ask(follows, self._begin_content))

    def _begin_content(self) -> None:
        self._enter()
        self._data = DataReader()
        self._excuse = None
        self._junk = self._overshoot = 0

    def _rset(self, argument: bytes, follows: Phase | None) -> Event | None:
        was_open = self.phase not in (START, READY)
        self._count_junk(_NO_ARGUMENT if argument else _OK)
        if not argument and follows and self.phase != CLOSED:
            self.phase = follows
        return Reset() if was_open and not argument else None

    def _quit(self, argument: bytes, follows: Phase | None) -> Event | None:
        was_open = self.phase not in (START, READY)
        self.close(_BYE)
        return Reset() if was_open else None

    def _count_junk(self, reply: Reply) -> None:
        self._junk += 1
        if self._junk > self.limits.junk:
            self.close(_JUNK)
        else:
            self._say(reply)

    def _help(self, argument: bytes, follows: Phase | None) -> None:
        self._count_junk(_HELP)

    def _noop(self, argument: bytes, follows: Phase | None) -> None:
        self._count_junk(_OK)

    def _vrfy(self, argument: bytes, follows: Phase | None) -> None:
        self._count_junk(_VRFY)

    def _expn(self, argument: bytes, follows: Phase | None) -> None:
        self._say(_NOT_HERE)

    def _start_tls(self, argument: bytes, follows: Phase | None) -> Event | None:
        if argument:
            raise CommandError(501, "5.5.4", "STARTTLS has no argument")
        if self.tls or not self.starttls:
            return self._refuse(_NOT_HERE)
        return StartTLS(self._ask(follows, self._forget_clear_text))

    def _forget_clear_text(self) -> None:
        # What stands behind STARTTLS came in clear, whole lines and begun ones: none of it is obeyed (RFC 3207 section 4.2).
        self._enter()
        self._buffer, self._position = b"", 0

    # Authentication (RFC 4954).

    def _auth(self, argument: bytes, follows: Phase | None) -> Event | None:
        if self.authenticated:
            return self._refuse(_LOGGED_IN)
        if not self.mechanisms:
            return self._refuse(_NOT_HERE)
        if not self.tls:
            return self._refuse(_TLS_FIRST)
        name, _, initial = commands.text(argument).partition(" ")
        if not name:
            raise CommandError(501, "5.5.4", "usage: AUTH mechanism")
        mechanism = name.upper()
        exchange = server_exchange(mechanism) if mechanism in self.mechanisms else None
        if exchange is None:
            raise CommandError(504, "5.5.4", f"the mechanism {name[:32]} is not offered")
        self._exchange, self._mechanism = exchange, mechanism
        return self._go_on(exchange.start(initial.encode() if initial else None))

    def _respond(self, line: bytes) -> Event | None:
        assert self._exchange is not None
        return self._go_on(self._exchange.respond(line))

    def _go_on(self, step: Challenge | Credentials) -> Event | None:
        if isinstance(step, Challenge):
            self.phase = AUTH
            self._say(Reply(334, "", step.text.decode("ascii")))
            return None
        self._exchange, self.phase = None, READY
        return Login(self._ask(READY, self._logged_in), self._mechanism, step)

    def _logged_in(self) -> None:
        self.authenticated = True

    # Content.

    def _read_content(self) -> Event | None:
        if self._finished:
            return self._finish_content()
        data = self._buffer[self._position :] if self._position else self._buffer
        piece, behind = self._data.receive(data)
        self._finished = behind is not None
        self._starved = behind is None
        self._buffer, self._position = behind or b"", 0
        if self._excuse:
            return None
        if self._data.damage:
            self._excuse = Reply(554, "5.6.0", f"{self._data.damage} in the message: lines end with CR LF")
        elif self._data.size > self.limits.size:
            self._excuse = _TOO_LARGE
        if self._excuse:
            return Reset()
        return Content(piece) if piece else None

    def _finish_content(self) -> Event | None:
        self._finished = False
        self._starved = not self._buffer
        self.phase = READY
        if self._excuse:
            return self._refuse(self._excuse)
        slot = Slot(self._data.size)
        self._slots.append(slot)
        self._waiting_octets += slot.octets
        return End(slot)


_VERBS: Mapping[bytes, Callable[[Engine, bytes, Phase | None], Event | None]] = {
    b"MAIL": Engine._mail,
    b"RCPT": Engine._rcpt,
    b"DATA": Engine._start_data,
    b"EHLO": lambda engine, argument, follows: engine._hello("EHLO", argument, follows),
    b"HELO": lambda engine, argument, follows: engine._hello("HELO", argument, follows),
    b"RSET": Engine._rset,
    b"QUIT": Engine._quit,
    b"NOOP": Engine._noop,
    b"HELP": Engine._help,
    b"VRFY": Engine._vrfy,
    b"EXPN": Engine._expn,
    b"AUTH": Engine._auth,
    b"STARTTLS": Engine._start_tls,
}
