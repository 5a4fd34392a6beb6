"""Logging in: the exchanges of SASL mechanisms, of both sides, without I/O (RFC 4422, RFC 4954).

A mechanism is a class in one of two tables: `ClientExchange` in `_CLIENT`, `ServerExchange` in `_SERVER`. The client's side speaks of plain
octets, since who sends them puts them into base64; the server's side reads lines as they came, since their form is part of what it judges.

PLAIN is RFC 4616. LOGIN has no standard, but prompts that its clients compare octet by octet.

*Failures*: the server's side raises `CommandError` with the reply; the client's side `InvalidInput` for a login that cannot be sent, and
`MalformedReply` for challenges that do not belong to the mechanism. No text and no repr holds a password.
"""

from __future__ import annotations

import binascii
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from vmtp.errors import CommandError, InvalidInput, MalformedReply

MAX_RESPONSE = 12288
"""Octets of one base64 line (RFC 4954 section 4)."""

PREFERENCE: Sequence[str] = ("PLAIN", "LOGIN")
"""The mechanisms that a client uses by itself, the best first."""


class Challenge(NamedTuple):
    """What the server asks next: base64, to stand behind 334."""

    text: bytes


class Credentials(NamedTuple):
    """Who wants to be whom: `authorization` is "" where it is the user himself (RFC 4616 section 2)."""

    authorization: str
    username: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials({self.authorization!r}, {self.username!r})"


def choose(offered: Iterable[str], allowed: Sequence[str] = PREFERENCE) -> str | None:
    """The first of the allowed mechanisms that is offered; None where there is none."""
    names = {name.upper() for name in offered}
    return next((name for name in allowed if name in names), None)


class ClientExchange(ABC):
    """The client's side of one login.

    `initial` is its first response, None for a mechanism where the server speaks first. It goes with AUTH, or answers an empty challenge.
    """

    initial: bytes | None = None

    @abstractmethod
    def respond(self, challenge: bytes) -> bytes:
        """The answer to a challenge behind `initial`. Raises `MalformedReply` for one too many."""


class PlainClient(ClientExchange):
    """PLAIN (RFC 4616)."""

    def __init__(self, user: str, password: str) -> None:
        self.initial = f"\0{user}\0{password}".encode()

    def respond(self, challenge: bytes) -> bytes:
        raise MalformedReply("a challenge too many for PLAIN", "AUTH")


class LoginClient(ClientExchange):
    """LOGIN: the name, then the password, whatever the prompts say."""

    def __init__(self, user: str, password: str) -> None:
        self._responses = [password.encode(), user.encode()]

    def respond(self, challenge: bytes) -> bytes:
        if not self._responses:
            raise MalformedReply("a challenge too many for LOGIN", "AUTH")
        return self._responses.pop()


_CLIENT = {"PLAIN": PlainClient, "LOGIN": LoginClient}


def exchange(mechanism: str, user: str, password: str) -> ClientExchange:
    """The client's side of a login. Raises `InvalidInput` for an unknown mechanism, an empty login or a NUL in it."""
    kind = _CLIENT.get(mechanism.upper())
    if kind is None:
        raise InvalidInput("a mechanism that is not known here", "AUTH")
    if not user or not password or "\0" in user or "\0" in password:
        raise InvalidInput("user name and password must not be empty nor hold a NUL", "AUTH")
    return kind(user, password)


class ServerExchange(ABC):
    """The server's side of one login. Both methods raise `CommandError` with the reply that ends it."""

    @abstractmethod
    def start(self, initial: bytes | None) -> Challenge | Credentials:
        """Begin, with the initial response as it stood in AUTH: None for none, b"=" for an empty one (RFC 4954 section 4)."""

    @abstractmethod
    def respond(self, line: bytes) -> Challenge | Credentials:
        """Take the next line, without its CRLF."""


class PlainServer(ServerExchange):
    """PLAIN (RFC 4616). An empty challenge asks for what was not sent with AUTH."""

    def start(self, initial: bytes | None) -> Challenge | Credentials:
        if initial is None:
            return Challenge(b"")
        return self._read(_initial(initial))

    def respond(self, line: bytes) -> Challenge | Credentials:
        return self._read(_response(line))

    def _read(self, message: bytes) -> Credentials:
        parts = message.split(b"\0")
        if len(parts) != 3:
            raise CommandError(
                501, "5.5.2", "PLAIN takes authorization, user name and password with a NUL between them"
            )
        return _credentials(*parts)


class LoginServer(ServerExchange):
    """LOGIN. The name may stand in AUTH already."""

    _USERNAME = Challenge(b"VXNlcm5hbWU6")
    _PASSWORD = Challenge(b"UGFzc3dvcmQ6")

    def __init__(self) -> None:
        self._user: bytes | None = None

    def start(self, initial: bytes | None) -> Challenge | Credentials:
        if initial is None:
            return self._USERNAME
        self._user = _initial(initial)
        return self._PASSWORD

    def respond(self, line: bytes) -> Challenge | Credentials:
        message = _response(line)
        if self._user is None:
            self._user = message
            return self._PASSWORD
        return _credentials(b"", self._user, message)


_SERVER: dict[str, type[ServerExchange]] = {"PLAIN": PlainServer, "LOGIN": LoginServer}


def server_exchange(mechanism: str) -> ServerExchange | None:
    """The server's side of a login; None for a mechanism that is not known here (504 5.5.4)."""
    kind = _SERVER.get(mechanism.upper())
    return kind() if kind else None


def _initial(text: bytes) -> bytes:
    """ "=" stands for an empty initial response: nothing could not be told from none."""
    return b"" if text == b"=" else _response(text)


def _response(line: bytes) -> bytes:
    """The octets behind one base64 line."""
    if line == b"*":
        raise CommandError(501, "5.7.0", "login cancelled")
    if len(line) > MAX_RESPONSE:
        raise CommandError(500, "5.5.6", "a login line is too long")
    try:
        return binascii.a2b_base64(line, strict_mode=True)
    except binascii.Error:
        raise CommandError(501, "5.5.2", "not base64") from None


def _credentials(authorization: bytes, user: bytes, password: bytes) -> Credentials:
    try:
        credentials = Credentials(authorization.decode(), user.decode(), password.decode())
    except UnicodeDecodeError:
        raise CommandError(501, "5.5.2", "a login that is not UTF-8") from None
    if not user or b"\0" in user or b"\0" in password:
        raise CommandError(501, "5.5.2", "an empty user name, or a NUL in a login")
    return credentials
