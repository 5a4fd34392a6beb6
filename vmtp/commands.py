"""Command lines of SMTP, read from octets (RFC 5321 section 4.1).

A line comes without its CRLF. `read` splits verb and argument; `read_mail` and `read_rcpt` read the arguments with a path and parameters.
Nothing here knows the state of a session, nor which extensions it offers: `check_params` is told.

Read more widely than the grammar, since old devices write so: a space behind "FROM:" and "TO:", and an address without its brackets.

*Failures*: `CommandError` holds the reply. Numbers are digits, at most 20 of them: Python's int() reads more than that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType

from vmtp.address import parse_mailbox, parse_path, printable
from vmtp.envelope import NOTHING
from vmtp.errors import AddressError, CommandError

_VERB = re.compile(rb"[A-Za-z]{1,16}")
_FROM = re.compile(r"FROM: ?", re.IGNORECASE)
_TO = re.compile(r"TO: ?", re.IGNORECASE)
_BARE = re.compile(r"[^ <>]+")
_PARAM = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]{0,63})(?:=([!-<>-~\x80-\U0010ffff]+))?")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_NUMBER = re.compile(r"[0-9]{1,20}")

Check = Callable[[str], bool]
"""Whether a value is fit for a parameter. A parameter without a value gives ""."""


def read(line: bytes) -> tuple[bytes, bytes]:
    """Verb in capitals and argument. The verb is b"" where the line begins with none."""
    verb, _, argument = line.partition(b" ")
    if not verb.isalpha():
        match = _VERB.match(line)
        return (match[0].upper() if match and not line[match.end() :].strip() else b""), b""
    return verb.upper(), argument.strip(b" ")


def text(argument: bytes) -> str:
    """The argument as text: UTF-8 without controls. Raises `CommandError`."""
    try:
        decoded = argument.decode("utf-8")
    except UnicodeDecodeError:
        raise CommandError(501, "5.5.2", "not UTF-8") from None
    if not decoded.isprintable():
        raise CommandError(501, "5.5.2", "a control character in a command")
    return decoded


def read_mail(argument: bytes) -> tuple[str, Mapping[str, str]]:
    """The sender and the parameters of MAIL. Raises `CommandError`."""
    return _read(argument, _FROM, "MAIL FROM:<address>", "5.1.7")


def read_rcpt(argument: bytes) -> tuple[str, Mapping[str, str]]:
    """The recipient and the parameters of RCPT. Raises `CommandError`."""
    recipient, params = _read(argument, _TO, "RCPT TO:<address>", "5.1.3")
    if not recipient:
        raise CommandError(501, "5.1.3", "a recipient is not the null address")
    return recipient, params


# A printer writes the same two lines for each of its mails: what was read once need not be read again.
@lru_cache(maxsize=1024)
def _read(argument: bytes, lead: re.Pattern[str], usage: str, enhanced: str) -> tuple[str, Mapping[str, str]]:
    line = text(argument)
    start = lead.match(line)
    if start is None:
        raise CommandError(501, "5.5.4", f"usage: {usage}")
    try:
        if line.startswith("<", start.end()):
            address, end = parse_path(line, start.end())
        elif bare := _BARE.match(line, start.end()):
            address, end = parse_mailbox(bare[0]), bare.end()
        else:
            raise CommandError(501, "5.5.4", f"usage: {usage}")
    except AddressError as error:
        raise CommandError(501, enhanced, str(error)) from None
    if not address.isascii():
        raise CommandError(553, "5.6.7", "an address beyond ASCII needs SMTPUTF8, which is not offered")
    if end == len(line):
        return address, NOTHING
    return address, MappingProxyType(read_params(line[end:]))


def read_params(tail: str) -> dict[str, str]:
    """The parameters behind a path: each after one space, names in capitals. Raises `CommandError`."""
    if tail[0] != " ":
        raise CommandError(501, "5.5.4", "a space stands between an address and its parameters")
    params: dict[str, str] = {}
    for word in tail.split():
        match = _PARAM.fullmatch(word)
        if match is None:
            raise CommandError(501, "5.5.4", f"not a parameter: {printable(word[:64])}")
        name = match[1].upper()
        if name in params:
            raise CommandError(501, "5.5.4", f"{name} stands twice")
        params[name] = match[2] or ""
    return params


def check_params(params: Mapping[str, str], known: Mapping[str, Check]) -> None:
    """Refuse parameters that are not offered (555, RFC 5321 section 4.1.1.11) or whose value is none (501)."""
    for name, value in params.items():
        check = known.get(name)
        if check is None:
            raise CommandError(555, "5.5.4", f"the parameter {name} is not offered")
        if not check(value):
            raise CommandError(501, "5.5.4", f"the value of {name} is none")


def number(value: str) -> int | None:
    """The number that a value of ASCII digits stands for, else None."""
    return int(value) if _NUMBER.fullmatch(value) else None


def is_number(value: str) -> bool:
    """For SIZE (RFC 1870)."""
    return _NUMBER.fullmatch(value) is not None


def is_body(value: str) -> bool:
    """For BODY (RFC 6152)."""
    return value.upper() in {"7BIT", "8BITMIME"}


def is_submitter(value: str) -> bool:
    """For AUTH= of MAIL (RFC 4954 section 5): xtext or "<>"."""
    return value == "<>" or (value != "" and _XTEXT.fullmatch(value) is not None)
