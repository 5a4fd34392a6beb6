"""What an option of the configuration can be: its kind, its default, and the sentence that explains it.

A section of the INI file is a frozen dataclass in config.py, and each of its fields is one option, declared once:

    retry_max: float = option(DURATION, "4h", "The longest pause between two tries.")

From that declaration come the parsing, the default, the option's name (`retry-max`), docs/configuration.md and etc/vmtpd.full.ini.

*Failures*: a kind raises ValueError with a text that says what is allowed; config.py adds file, line, section and option.
No text repeats a value that may hold a credential.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from vmtpd.mail import TLS, Hop

T = TypeVar("T")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_DURATION = re.compile(r"([0-9]{1,9})\s*([smhdw]?)\Z")
_SIZE = re.compile(r"([0-9]{1,12})\s*([KMGT]?)(?:i?B)?\Z", re.IGNORECASE)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_OCTETS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\Z")
_LOCAL_PART = re.compile(r"[^\s@<>()\[\],;:\\\"\x00-\x1f\x7f]{1,64}\Z")
_MAILBOX = re.compile(r"[a-z0-9_][a-z0-9._+-]{0,63}\Z")


@dataclasses.dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """A kind of value: what the docs call it, how its text is read (never an empty one), and what stands for no value."""

    name: str
    parse: Callable[[str], T]
    empty: Any = ""
    is_path: bool = False


class Option(NamedTuple):
    """The declaration of one option. `shown` words a default that is worked out; `example` is a value for what must be set."""

    kind: Kind[Any]
    default: str
    about: str
    name: str = ""
    shown: str = ""
    example: str = ""


class Listen(NamedTuple):
    """Where a listener listens: host ("*" for every address, "" for none) and port (0 for none), and Twisted's endpoint string.

    The endpoint of "*" is left "": which sockets that means depends on the machine.
    """

    host: str
    port: int
    endpoint: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else self.endpoint


def option(kind: Kind[T], default: str, about: str, *, name: str = "", shown: str = "", example: str = "") -> T:
    """Declare a field as an option. `default` is text, read as in the file; where it is "", the kind's empty value holds."""
    declared = Option(kind, default, about, name, shown, example)
    field: T = dataclasses.field(default=kind.parse(default) if default else kind.empty, metadata={"option": declared})
    return field


def options(section: type) -> dict[str, tuple[str, Option]]:
    """The options of a section: their names in the file, with the field and the declaration, in their order."""
    found = {}
    for field in dataclasses.fields(section):
        if declared := field.metadata.get("option"):
            found[declared.name or field.name.replace("_", "-")] = (field.name, declared)
    return found


def split_host_port(text: str) -> tuple[str, int | None]:
    """Cut "host:port", "[v6]:port", "host" or "[v6]"; brackets go. Raises ValueError."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:\s]+))(?::([0-9]{1,5}))?", text)
    if match is None:
        raise ValueError("write host:port, with an IPv6 address in brackets: [::1]:25")
    if match[3] is None:
        return match[1] or match[2], None
    if not 0 < int(match[3]) < 65536:
        raise ValueError("write a port from 1 to 65535")
    return match[1] or match[2], int(match[3])


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,15}", text) or not low <= int(text) <= high:
            raise ValueError(f"write a whole number from {low} to {high}")
        return int(text)

    return parse


def whole(low: int, high: int) -> Kind[int]:
    """A whole number within bounds."""
    return Kind(f"number, {low} to {high}", _whole(low, high))


def factor(low: float, high: float) -> Kind[float]:
    """A number that may have decimals, within bounds."""

    def parse(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text) or not low <= float(text) <= high:
            raise ValueError(f"write a number from {low:g} to {high:g}")
        return float(text)

    return Kind(f"number, {low:g} to {high:g}", parse)


def one_of(*words: str) -> Kind[Any]:
    """One of a few words."""

    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"write one of: {', '.join(words)}")
        return text.lower()

    return Kind(", ".join(words[:-1]) + " or " + words[-1], parse)


def many(name: str, parse_one: Callable[[str], T], separators: str = r"[\s,]+") -> Kind[tuple[T, ...]]:
    """Several values, divided by blanks, commas or line ends; the same twice counts once."""

    def parse(text: str) -> tuple[T, ...]:
        return tuple(dict.fromkeys(parse_one(item) for item in re.split(separators, text) if item))

    return Kind(name, parse, ())


def _yes_no(text: str) -> bool:
    words = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}
    if text.lower() not in words:
        raise ValueError("write yes or no")
    return words[text.lower()]


def _duration(text: str) -> float:
    match = _DURATION.match(text)
    if match is None:
        raise ValueError("write a number and its unit: 30s, 5m, 4h or 5d; a plain number means seconds")
    return float(int(match[1]) * _SECONDS[match[2]])


def _size(text: str) -> int:
    match = _SIZE.match(text)
    if match is None:
        raise ValueError("write octets, or a number and K, M or G: 64K, 50M")
    return int(match[1]) * _OCTETS[match[2].lower()]


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("write a network such as 192.168.1.0/24 or fd00:1::/64, or a single address") from None
    raise ValueError(f"{text[:60]} has bits set beyond its prefix; write {meant} for the network, or the address alone")


def _domain(text: str) -> str:
    name = text.lower().removesuffix(".")
    if not _DOMAIN.match(name) or len(name) > 253:
        raise ValueError("write a domain name such as example.org (names beyond ASCII in their xn-- form)")
    return name


def _pattern(text: str) -> str:
    return text if text == "*" else "." + _domain(text[1:]) if text.startswith(".") else _domain(text)


def _local_domain(text: str) -> str:
    return text if text == "*" else _domain(text)


def _address(text: str) -> str:
    local, _, domain = text.rpartition("@")
    if not _LOCAL_PART.match(local):
        raise ValueError("write an address with its domain, such as postmaster@example.org")
    return f"{local}@{_domain(domain)}"


def _mailbox(text: str) -> str:
    if not _MAILBOX.match(text.lower()):
        raise ValueError("write a mailbox name of letters, digits and . _ + - (it becomes the name of a folder)")
    return text.lower()


def _text(text: str) -> str:
    if len(text) > 512 or not text.isprintable():
        raise ValueError("write one line of at most 512 printable characters")
    return text


def _listen(text: str) -> Listen:
    if re.match(r"(tcp|tcp6|unix|systemd):", text):
        return Listen("", 0, text)
    if text.startswith("/"):
        return Listen("", 0, "unix:" + text.replace("\\", "\\\\").replace(":", "\\:"))
    host, port = split_host_port(text)
    if port is None:
        raise ValueError("write host:port, *:port, or an endpoint such as systemd:domain=INET:index=0")
    if host == "*":
        return Listen("*", port, "")
    try:
        address = str(ipaddress.ip_address("127.0.0.1" if host.lower() == "localhost" else host))
    except ValueError:
        raise ValueError("write the IP address to listen on, or * for all of them") from None
    return Listen(address, port, f"tcp:{port}:interface={address.replace(':', chr(92) + ':')}")


def _smarthost(text: str) -> Hop:
    schemes: dict[str, tuple[int, TLS, bool]] = {
        "smtp": (25, "opportunistic", False),
        "submission": (587, "verified", False),
        "smtps": (465, "verified", True),
    }
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "smtp", text
    if "@" in rest:
        raise ValueError("a login does not belong in the URL; write it as user and password-file")
    if scheme.lower() not in schemes:
        raise ValueError("write smtp://host, submission://host (STARTTLS) or smtps://host (TLS from the start)")
    port, tls, implicit = schemes[scheme.lower()]
    host, chosen = split_host_port(rest.removesuffix("/"))
    name = str(ipaddress.IPv6Address(host)) if ":" in host else _domain(host)
    return Hop(name, chosen or port, tls, implicit)


YES_NO = Kind("yes or no", _yes_no, False)
DURATION = Kind("duration", _duration)
SIZE = Kind("size", _size)
NETWORKS = many("networks", _network)
DOMAIN = Kind("domain", _domain)
PATTERNS = many("domains", _pattern)
LOCAL_DOMAINS = many("domains", _local_domain)
ADDRESS = Kind("address", _address)
MAILBOX = Kind("mailbox name", _mailbox)
MAILBOXES = many("mailbox names", _mailbox)
TEXT = Kind("text", _text)
FILE = Kind("file", _text, is_path=True)
FOLDER = Kind("folder", _text, is_path=True)
SOCKET = Kind("unix socket", _text, is_path=True)
LISTEN = many("addresses or endpoints", _listen, r"\s+")
SMARTHOSTS = many("URLs", _smarthost, r"\s+")
