"""What a client may send when: the state of a session as two tables (RFC 5321 section 4.1.4).

`SENDS` says what may be sent in a state, and in which state that leaves the sender at once: with PIPELINING it goes on before the
reply. `REPLIES` says which replies an operation takes as good, and how the state moves with a good and with a bad one: from a state to a
state, nothing where the sender has gone on meanwhile.

Operations are named by their verb, but two that have none: "greeting", which is waited for, and "body", the content behind 354.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple


class State(Enum):
    """Where the sender of a session stands."""

    __hash__ = object.__hash__  # Enum's own hashes the name anew each time

    GREETING = "the greeting has not come"
    REFUSED = "the greeting was a refusal"
    GREETED = "EHLO comes next"
    HELLO = "EHLO waits for its reply"
    READY = "no transaction is open"
    STARTTLS = "STARTTLS waits for its reply"
    HANDSHAKE = "the TLS handshake is to be made"
    AUTH = "AUTH waits for its reply"
    CHALLENGED = "the server waits for the next line of the login"
    MAIL = "a transaction without a recipient"
    RCPT = "a transaction with a recipient"
    DATA = "DATA waits for its reply"
    BODY = "the content is being sent"
    SENT = "the content is out, its reply is not in"
    QUIT = "QUIT waits for its reply"
    CLOSED = "nothing goes any more"


_ANYWHERE = {"NOOP": None, "QUIT": State.QUIT}

SENDS: Mapping[State, Mapping[str, State | None]] = {
    State.GREETING: {},
    State.REFUSED: {"QUIT": State.QUIT},
    State.GREETED: {"EHLO": State.HELLO, "HELO": State.HELLO, **_ANYWHERE},
    State.HELLO: {},
    State.READY: {
        "EHLO": State.HELLO,
        "HELO": State.HELLO,
        "STARTTLS": State.STARTTLS,
        "AUTH": State.AUTH,
        "MAIL": State.MAIL,
        "RSET": None,
        **_ANYWHERE,
    },
    State.STARTTLS: {},
    State.HANDSHAKE: {},
    State.AUTH: {},
    State.CHALLENGED: {"response": State.AUTH},
    State.MAIL: {"RCPT": State.RCPT, "RSET": State.READY, **_ANYWHERE},
    State.RCPT: {"RCPT": State.RCPT, "DATA": State.DATA, "RSET": State.READY, **_ANYWHERE},
    State.DATA: {},
    State.BODY: {"body": State.SENT},
    State.SENT: {},
    State.QUIT: {},
    State.CLOSED: {},
}
"""By state and operation: the state afterwards, None for the same."""


class Turn(NamedTuple):
    """What replies do to an operation: first digits that are good, and the moves of the state with a good and a bad one."""

    good: tuple[int, ...] = (2,)
    accepted: Mapping[State, State] = {}
    refused: Mapping[State, State] = {}


REPLIES: Mapping[str, Turn] = {
    "greeting": Turn((2,), {State.GREETING: State.GREETED}, {State.GREETING: State.REFUSED}),
    "EHLO": Turn((2,), {State.HELLO: State.READY}, {State.HELLO: State.GREETED}),
    "HELO": Turn((2,), {State.HELLO: State.READY}, {State.HELLO: State.GREETED}),
    "STARTTLS": Turn((2,), {State.STARTTLS: State.HANDSHAKE}, {State.STARTTLS: State.READY}),
    "AUTH": Turn((2, 3), {State.AUTH: State.READY}, {State.AUTH: State.READY}),
    "MAIL": Turn((2,), {}, {State.MAIL: State.READY}),
    "RCPT": Turn(),
    "DATA": Turn((3,), {State.DATA: State.BODY}, {State.DATA: State.RCPT}),
    "body": Turn((2,), {State.SENT: State.READY}, {State.SENT: State.READY}),
    "RSET": Turn(),
    "NOOP": Turn(),
    "QUIT": Turn((2,), {State.QUIT: State.CLOSED}, {State.QUIT: State.CLOSED}),
}

PIPELINED = frozenset({"MAIL", "RCPT", "RSET"})
"""Commands behind which others may follow at once; any other is the last of its group (RFC 2920 section 3.1)."""

PATIENCE: Mapping[str, float] = {"DATA": 120, "body": 600, "STARTTLS": 120, "QUIT": 30}
"""Seconds to wait for a reply; 300 for any other (RFC 5321 section 4.5.3.2)."""

PATIENCE_ELSE = 300.0
PATIENCE_HANDSHAKE = 60.0
PATIENCE_BLOCK = 180.0
"""Seconds to wait until the peer reads a piece of content (RFC 5321 section 4.5.3.2.5)."""
