"""The states of a server's session, as data (RFC 5321 section 4.1.4).

`SERVER` says which commands a phase allows and which phase follows when the command is accepted. What is not in the table is
answered 503. A refused command leaves the phase as it was. The engine asks this table and holds no order of its own.

*Failures*: none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

Phase = Literal["start", "ready", "mail", "rcpt", "content", "auth", "closed"]

START: Final = "start"
"""Connected, or TLS is fresh: nobody has said EHLO."""
READY: Final = "ready"
"""EHLO was said and no transaction is open."""
MAIL: Final = "mail"
"""A transaction with a sender and no recipient yet."""
RCPT: Final = "rcpt"
"""A transaction with at least one recipient."""
CONTENT: Final = "content"
"""354 was said: octets are content."""
AUTH: Final = "auth"
"""A SASL exchange is under way: a line is a response (RFC 4954 section 4)."""
CLOSED: Final = "closed"
"""Nothing more is read."""

_ANYWHERE: dict[bytes, Phase | None] = {b"NOOP": None, b"HELP": None, b"VRFY": None, b"EXPN": None, b"QUIT": CLOSED}
_HELLO: dict[bytes, Phase | None] = {b"EHLO": READY, b"HELO": READY, **_ANYWHERE}

SERVER: Final[Mapping[Phase, Mapping[bytes, Phase | None]]] = {
    START: {**_HELLO, b"RSET": START, b"STARTTLS": START},
    READY: {**_HELLO, b"RSET": READY, b"MAIL": MAIL, b"AUTH": READY, b"STARTTLS": START},
    MAIL: {**_HELLO, b"RSET": READY, b"RCPT": RCPT},
    RCPT: {**_HELLO, b"RSET": READY, b"RCPT": RCPT, b"DATA": CONTENT},
}
"""{phase: {verb: the phase after a positive reply, None for the same}}."""

EXPECTED: Final[Mapping[Phase, str]] = {
    START: "say EHLO first",
    READY: "MAIL comes first",
    MAIL: "a transaction is open: RCPT or RSET comes next",
    RCPT: "a transaction is open: RCPT, DATA or RSET comes next",
}
"""What a 503 tells in each phase."""
