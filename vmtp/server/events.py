"""What a server engine tells its owner: facts to decide, and pieces of content.

An event with a `slot` waits for one answer. Hot events are NamedTuples; a message is never one event as a whole.

*Failures*: none; these are values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from vmtp.replies import Reply
from vmtp.sasl import Credentials


class Slot:
    """The place of one reply among the others. `octets` is the content that waits with it."""

    __slots__ = ("octets", "reply")

    def __init__(self, octets: int = 0) -> None:
        self.reply: Reply | None = None
        self.octets = octets


class Hello(NamedTuple):
    """EHLO or HELO. Answer with `Engine.hello`, or refuse. An open transaction is gone."""

    slot: Slot
    verb: str
    name: str


class Mail(NamedTuple):
    """A sender, "" for the null return path, and the parameters of MAIL. 2yz opens a transaction."""

    slot: Slot
    sender: str
    params: Mapping[str, str]


class Rcpt(NamedTuple):
    """A recipient and the parameters of RCPT."""

    slot: Slot
    recipient: str
    params: Mapping[str, str]


class Data(NamedTuple):
    """Content is offered. 354 takes it."""

    slot: Slot


class Content(NamedTuple):
    """A piece of the content, dots unstuffed."""

    data: bytes


class End(NamedTuple):
    """The content is whole. 250 only when it is durable; other transactions may begin before that."""

    slot: Slot


class Reset(NamedTuple):
    """The open transaction is over, nothing of it is kept. The engine has answered, or will."""


class Login(NamedTuple):
    """Credentials to check. 235 or 535."""

    slot: Slot
    mechanism: str
    credentials: Credentials


class StartTLS(NamedTuple):
    """TLS is asked for. When 220 has been written, begin the handshake, then call `Engine.tls_established`."""

    slot: Slot


Event = Hello | Mail | Rcpt | Data | Content | End | Reset | Login | StartTLS
