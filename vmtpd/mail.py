"""What travels through the daemon, as plain values: from the session that took a message to the outcome of its delivery.

The path: `Submission` (a session hands it over) becomes a `Message` (the store holds it); qmgr works on a `Lease` (a message and those of
its recipients that are ours to deliver now), asks for a `Route`, has it delivered, and gets an `Outcome` for each recipient, which
goes back into the store as a `Settlement`.

*Failures*: none; these are values. Times are seconds since the epoch, sizes are octets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from vmtp.envelope import NOTHING, Action, Envelope
from vmtp.replies import Reply

if TYPE_CHECKING:
    from vmtpd.interfaces import IContent

INLINE = 64 * 1024
"""Octets of a content that stays in memory and in the database's row; a larger one is a file."""

State = Literal["queued", "leased", "held", "done"]
"""Where a recipient stands; the legal moves are drawn in docs/architecture.md."""

Scope = Literal["host", "message", "recipient"]
"""What a trouble speaks about: every message to this host, this message, or this recipient alone."""

TLS = Literal["none", "opportunistic", "required", "verified"]
"""What a hop is owed: no TLS; TLS if offered, any certificate; TLS, any certificate; TLS and the right certificate."""


class Verdict(Reply):
    """A reply of the policy, with the reason for the log and the operator; the reply's text is what the client may know."""

    def __init__(self, code: int, enhanced: str, text: str, reason: str = "") -> None:
        super().__init__(code, enhanced, text)
        self.reason = reason or text


Role = Literal["relay", "submission", "inbound"]
"""Whom a listener serves: trusted networks and logins; logins alone; anybody, for our own domains alone."""


class Client(NamedTuple):
    """Who submitted: the login, else the certificate, else the address; never a whole network."""

    kind: Literal["login", "certificate", "address", "daemon"]
    name: str

    def __str__(self) -> str:
        return self.name if self.kind == "address" else f"{self.kind} {self.name}"


@dataclass(slots=True)
class Facts:
    """What is known of a session when a verdict is asked for. `tls` is the version, "" for none; `hello` the name that EHLO gave.

    `trusted` tells that the address is in a network that may relay here without a login.
    """

    listener: str
    role: Role
    address: str
    trusted: bool = False
    hello: str = ""
    extended: bool = False
    tls: str = ""
    login: str = ""

    @property
    def client(self) -> Client:
        """Who submits."""
        return Client("login", self.login) if self.login else Client("address", self.address)


@dataclass(slots=True, frozen=True)
class Submission:
    """A message on its way into the store. Everything that brings mail ends in one.

    `head` is our trace and what the message lacked; `content` the body as received, header included; delivered is head + content.
    `id` names it from here on (ids.py); `not_before` is 0 for at once.
    """

    id: int
    client: Client
    listener: str
    envelope: Envelope
    head: bytes
    content: IContent
    metadata: Mapping[str, str] = field(default_factory=dict)
    txid: str = ""
    not_before: float = 0.0


@dataclass(slots=True, frozen=True)
class Message:
    """A message that the store holds. `warned` tells that its sender was told of the delay."""

    id: int
    client: Client
    sender: str
    params: Mapping[str, str]
    arrived: float
    expires: float
    head: bytes
    content: IContent
    warned: bool = False

    @property
    def size(self) -> int:
        """Octets of what is delivered, before any rewriting."""
        return len(self.head) + self.content.size


class Addressee(NamedTuple):
    """A recipient of a stored message: its number in the message (from 1), address, RCPT parameters, tries so far."""

    n: int
    address: str
    params: Mapping[str, str] = NOTHING
    tries: int = 0


class Lease(NamedTuple):
    """A message and those of its recipients that this process delivers now; nobody else does until they are settled."""

    message: Message
    recipients: tuple[Addressee, ...]


class Hop(NamedTuple):
    """A host to hand mail to. `implicit` means TLS from the first octet (RFC 8314 section 3)."""

    host: str
    port: int
    tls: TLS
    implicit: bool = False


@dataclass(slots=True, frozen=True)
class Route:
    """How a recipient leaves: the agent, the hosts in their order, the login, the rewriting, and why this one.

    `destination` names the group that shares limits, back-off and connections. `recipient` replaces the envelope's where it is not "".
    `sender` replaces envelope sender and header From where it is not "". `folder` is the Maildir of the agent "maildir".
    `hello` is the name for EHLO. `password_file` and `ca` are paths; secrets are read when they are needed and never kept in a route.
    """

    name: str
    agent: Literal["smtp", "maildir"]
    destination: str
    why: str
    hosts: tuple[Hop, ...] = ()
    user: str = ""
    password_file: str = ""
    ca: str = ""
    sender: str = ""
    recipient: str = ""
    folder: str = ""


class Unroutable(NamedTuple):
    """No way out for a recipient: "failed" for good, or "delayed" where asking again may help (DNS trouble)."""

    action: Action
    status: str
    text: str


class Outcome(NamedTuple):
    """What became of one recipient in one attempt.

    `status` is the enhanced code (RFC 3463), `reply` the words of the peer or our own ("250 2.0.0 ok"), `host` who said so ("" where
    nobody was reached), `tls` the version in use ("TLSv1.3", "" for none), `scope` what a trouble speaks about.
    """

    n: int
    action: Action
    status: str
    reply: str
    host: str = ""
    tls: str = ""
    scope: Scope = "recipient"


class Settlement(NamedTuple):
    """An outcome on its way into the store: of which message, when it is due again (delayed), at which destination it waits.

    `attempt` is False where nothing was tried (the destination is known to be down), so that no try is counted.
    """

    message: int
    outcome: Outcome
    due: float = 0.0
    destination: str = ""
    attempt: bool = True
    warned: bool = False


class Wait(NamedTuple):
    """Why a message is not tried as it comes in: its destination is known to be down until `due`, by `reply`."""

    due: float
    reply: str


class Destination(NamedTuple):
    """What is remembered of a destination across restarts: "up", or "down" until a time, after so many failures, and why."""

    name: str
    state: Literal["up", "down"]
    until: float = 0.0
    failures: int = 0
    reply: str = ""


@dataclass(slots=True, frozen=True)
class QueueFilter:
    """Which recipients an operator means; an empty field means any. `recipient`, `sender` may be a whole address or "@domain"."""

    state: str = ""
    sender: str = ""
    recipient: str = ""
    destination: str = ""
    client: str = ""
    id: int = 0


class Counts(NamedTuple):
    """The queue in numbers: recipients by state, open messages and their octets, arrival of the oldest open one (0 for none)."""

    queued: int
    leased: int
    held: int
    messages: int
    octets: int
    oldest: float


Row = dict[str, Any]
"""What an operator is shown, ready for JSON."""
