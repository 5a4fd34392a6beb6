"""Addresses: what stands between "<" and ">" (RFC 5321 section 4.1.2), and the domain to look up.

An address travels through the house as one string, local part as sent, domain in lower-case; "" is the null return path, and
a string without "@" a bare name such as `postmaster`, which the daemon completes. Every expression here runs in linear time.

Read more widely than the grammar: a domain may hold "_", a source route is read and ignored (RFC 5321 appendix C).

*Failures*: `AddressError` with a text that says what is wrong; it never repeats more than the address itself.
"""

from __future__ import annotations

import ipaddress
import re

from vmtp.errors import AddressError

MAX_LOCAL = 64
MAX_DOMAIN = 255
MAX_MAILBOX = 254
"""Octets of an address: a path has 256 with its brackets (RFC 5321 section 4.5.3.1)."""

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\U0010ffff-]+"
_LABEL = r"[A-Za-z0-9_\x80-\U0010ffff](?:[A-Za-z0-9_\x80-\U0010ffff-]*)"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*\.?"
_DOT_STRING = rf"{_ATOM}(?:\.{_ATOM})*"
_QUOTED = r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e\x80-\U0010ffff]|\\[\x20-\x7e])*"'
_LITERAL = r"\[[!-Z^-~]{1,253}\]"

_MAILBOX = re.compile(rf"(?P<local>{_DOT_STRING}|{_QUOTED})(?:@(?P<domain>{_DOMAIN}|{_LITERAL}))?")
_PATH = re.compile(rf"<(?:@{_DOMAIN}(?:,@{_DOMAIN})*:)?(?:{_MAILBOX.pattern})?>")
_PLAIN = re.compile(r"<([A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z0-9]+)>")
_NEEDLESS = re.compile(r"\\(.)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def parse_path(text: str, start: int = 0) -> tuple[str, int]:
    """Read a path such as `<ann@example.org>` at `start`. Returns the address and where it ends.

    `<>` gives "". Raises `AddressError`.
    """
    if (match := _PLAIN.match(text, start)) and len(match[1]) <= MAX_LOCAL:
        return match[1], match.end()
    match = _PATH.match(text, start)
    if match is None:
        raise AddressError("an address stands between < and >, as in <ann@example.org>")
    if match["local"] is None:
        if match.end() - match.start() > 2:
            raise AddressError("a source route without an address")
        return "", match.end()
    return _join(match["local"], match["domain"]), match.end()


def parse_mailbox(text: str) -> str:
    """Read an address without brackets, the whole text. Raises `AddressError`."""
    match = _MAILBOX.fullmatch(text)
    if match is None:
        raise AddressError(f"{printable(text[:MAX_MAILBOX])} is not an address such as ann@example.org")
    return _join(match["local"], match["domain"])


def _join(local: str, domain: str | None) -> str:
    if local[0] == '"':
        local = _unquoted(local)
    if len(local.encode()) > MAX_LOCAL:
        raise AddressError(f"the part before the @ has more than {MAX_LOCAL} octets")
    if domain is None:
        return local
    domain = check_domain(domain)
    address = f"{local}@{domain}"
    if len(address.encode()) > MAX_MAILBOX:
        raise AddressError(f"an address has at most {MAX_MAILBOX} octets")
    return address


def _unquoted(local: str) -> str:
    """The same local part in its plainest form: quotes that change nothing go (RFC 5321 section 4.1.2)."""
    inner = _NEEDLESS.sub(r"\1", local[1:-1])
    if re.fullmatch(_DOT_STRING, inner):
        return inner
    return '"' + inner.replace("\\", "\\\\").replace('"', '\\"') + '"'


def check_domain(domain: str) -> str:
    """A domain or address literal in the form that is stored and compared: lower-case, no final dot. Raises `AddressError`."""
    if domain.startswith("["):
        return _literal(domain)
    domain = domain.removesuffix(".").lower()
    if not re.fullmatch(_DOMAIN, domain):
        raise AddressError(f"{printable(domain[:MAX_DOMAIN])} is not a domain")
    ascii_form = to_ascii(domain)
    if len(ascii_form) > MAX_DOMAIN - 2 or any(len(label) > 63 for label in ascii_form.split(".")):
        raise AddressError("a domain has at most 253 octets, and 63 between its dots")
    return domain


def _literal(text: str) -> str:
    """RFC 5321 section 4.1.3."""
    inner = text[1:-1]
    try:
        if inner[:5].lower() == "ipv6:":
            return f"[IPv6:{ipaddress.IPv6Address(inner[5:])}]"
        return f"[{ipaddress.IPv4Address(inner)}]"
    except ValueError:
        raise AddressError(
            f"{printable(text)} is not an address literal such as [192.0.2.1] or [IPv6:2001:db8::1]"
        ) from None


def split(address: str) -> tuple[str, str]:
    """Local part and domain of an address; the domain of a bare name and of "" is ""."""
    local, at, domain = address.rpartition("@")
    return (local, domain) if at else (address, "")


def to_ascii(domain: str) -> str:
    """The A-label form of a domain (RFC 5890), which is looked up and compared. Raises `AddressError`."""
    if domain.isascii():
        return domain
    try:
        return domain.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise AddressError(f"{printable(domain[:MAX_DOMAIN])} is not a domain name") from None


def printable(text: str) -> str:
    """The text with "?" for what would move a cursor or end a line: fit for a reply and a log."""
    return _CONTROL.sub("?", text)
