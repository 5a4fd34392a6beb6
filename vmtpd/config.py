"""The configuration: one INI file, read at start and at reload into frozen values.

`load` reads the file; the classes below are its sections and their fields its options, each declared once (options.py).
ini.py does the reading, and the rules that span options stand in checks.py. Nothing here imports Twisted: vmtpctl reads
the same file.

*Failures*: `ConfigError`, whose text has one line for each mistake, up to 20.
"""

from __future__ import annotations

import dataclasses
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from vmtpd import checks
from vmtpd.ini import ConfigError, Reading, read
from vmtpd.mail import TLS, Hop, Role
from vmtpd.options import (
    ADDRESS,
    DOMAIN,
    DURATION,
    FILE,
    FOLDER,
    LISTEN,
    LOCAL_DOMAINS,
    MAILBOX,
    MAILBOXES,
    NETWORKS,
    PATTERNS,
    SIZE,
    SMARTHOSTS,
    SOCKET,
    TEXT,
    YES_NO,
    Listen,
    Network,
    factor,
    one_of,
    option,
    whole,
)


@dataclass(frozen=True, slots=True)
class Server:
    """The daemon itself: its name, where it keeps its mail, how it is reached by its operator."""

    hostname: str = option(
        DOMAIN,
        "",
        "The name we go by in greetings, EHLO and Received.",
        shown="the machine's full name; NAME.internal where it has none",
    )
    data: str = option(FOLDER, "/var/lib/vmtpd", "The folder of the queue. It must be on a disk that lasts.")
    control: str = option(
        SOCKET, "", "The unix socket by which vmtpctl reaches the daemon.", shown="`control` in the data folder"
    )
    origin: str = option(
        DOMAIN, "", "The domain that completes bare names, as cron's `root`.", shown="the value of `hostname`"
    )
    admin: str = option(
        ADDRESS,
        "",
        "Who gets mail to postmaster and root, to local names without a mailbox, and reports that have no other reader.",
        example="admin@example.org",
    )
    users: str = option(
        FILE,
        "",
        "The file of logins, written by `vmtpctl user`; the data folder is a good place. Without one nobody logs in.",
    )
    log: Literal["text", "json"] = option(
        one_of("text", "json"), "text", "The form of the lines that tell what happens to each message."
    )
    log_file: str = option(
        FILE,
        "",
        "Where these lines go; needed where twistd runs in the background and has no standard output.",
        shown="standard output",
    )


@dataclass(frozen=True, slots=True)
class Policy:
    """Whom we trust."""

    networks: tuple[Network, ...] = option(
        NETWORKS,
        "127.0.0.0/8 ::1/128",
        "Who may relay without a login. Only this machine at first: a relay that trusts too many is found by spammers.",
    )


@dataclass(frozen=True, slots=True)
class Listener:
    """A door: where it listens and whom it serves. Each has a section [listener NAME]."""

    name: str = ""
    listen: tuple[Listen, ...] = option(
        LISTEN,
        "",
        "Where: `address:port`, `[IPv6 address]:port`, `*:port`, one a line; `unix:/path`, `systemd:domain=INET:index=0`.",
        shown="must be set",
        example="*:25",
    )
    role: Role = option(
        one_of("relay", "submission", "inbound"),
        "relay",
        "`relay`: trusted networks and logins may send anywhere. `submission`: logins alone. "
        "`inbound`: anybody, but only to our local domains.",
    )
    tls: Literal["none", "starttls", "implicit"] = option(
        one_of("none", "starttls", "implicit"),
        "none",
        "`starttls` offers TLS, `implicit` begins with it. None at first, as TLS needs a certificate.",
    )
    certificate: str = option(FILE, "", "The certificate and its chain, PEM.", shown="must be set where TLS is on")
    key: str = option(FILE, "", "The private key, PEM, without a passphrase.", shown="the file of `certificate`")
    auth: bool = option(
        YES_NO, "", "Whether logins are offered, under TLS alone.", shown="yes where TLS is on and `users` is set"
    )
    networks: tuple[Network, ...] = option(
        NETWORKS, "", "Who may relay here without a login.", shown="the value in [policy]"
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may ask of us."""

    message_size: int = option(SIZE, "50M", "Octets of a message; the scans of an office printer fit.")
    recipients: int = option(whole(1, 100000), "1000", "Recipients of a message; RFC 5321 asks for at least 100.")
    line_length: int = option(whole(512, 65536), "2048", "Octets of a command line; RFC 5321 asks for at least 512.")
    errors: int = option(whole(1, 10000), "20", "Refused commands, after which a session is ended.")
    junk_commands: int = option(
        whole(1, 100000),
        "100",
        "Commands in a row that move no mail (NOOP, RSET, VRFY), after which a session is ended.",
    )
    connections: int = option(whole(1, 100000), "4000", "Sessions at once in total; each takes a file descriptor.")
    connections_per_client: int = option(
        whole(1, 100000), "400", "Sessions at once of one address; room for a busy host behind NAT, not for all of us."
    )
    timeout: float = option(
        DURATION, "5m", "How long we wait for a client; RFC 5321 section 4.5.3.2 asks for 5 minutes."
    )
    stop_within: float = option(
        DURATION, "20s", "How long sessions and deliveries may go on at a stop, below what service managers grant."
    )


@dataclass(frozen=True, slots=True)
class Queue:
    """How long and how often we try, how much at once, and what is remembered."""

    retry_first: float = option(DURATION, "5m", "The pause after the first try; greylisting is over by then.")
    retry_factor: float = option(factor(1, 10), "2", "Each pause is so many times the one before.")
    retry_max: float = option(DURATION, "4h", "The longest pause: mail leaves so soon after a long outage.")
    retry_jitter: int = option(
        whole(0, 50), "10", "Percent by which a pause varies, so that not all comes due at once."
    )
    lifetime: float = option(DURATION, "5d", "How long we try; RFC 5321 section 4.5.4.1 asks for 4 to 5 days.")
    warn_after: float = option(DURATION, "4h", "When the sender is told of the delay, once; 0 for never.")
    window: int = option(whole(1, 1000000), "1000", "Recipients in work at once; the rest waits on disk.")
    deliveries: int = option(whole(1, 10000), "100", "Deliveries at once in total.")
    deliveries_per_destination: int = option(
        whole(1, 10000), "20", "Deliveries at once to one destination; lower it where a provider limits connections."
    )
    messages_per_connection: int = option(whole(1, 100000), "1000", "Messages over one connection, before a new one.")
    idle_connection: float = option(DURATION, "10s", "How long a connection is kept for the next message.")
    connect_timeout: float = option(DURATION, "30s", "How long we wait for a host to take a connection.")
    history: float = option(DURATION, "7d", "How long the story of a message that is done is kept.")
    history_messages: int = option(whole(0, 100000000), "100000", "How many such stories are kept at most.")
    min_free: int = option(SIZE, "64M", "Free octets on the disk below which no mail is taken (452); deliveries go on.")


@dataclass(frozen=True, slots=True)
class Local:
    """Mail that stays here, in Maildir folders."""

    domains: tuple[str, ...] = option(LOCAL_DOMAINS, "", "The domains that end here; `*` for all.", shown="none")
    maildir: str = option(FOLDER, "", "The folder of the mailboxes: mailbox NAME is the Maildir `maildir`/NAME.")
    mailboxes: tuple[str, ...] = option(MAILBOXES, "", "The mailboxes, which are the local parts of our domains.")
    catch_all: str = option(
        MAILBOX,
        "",
        "The mailbox of every other local part. Without one they go to `admin`, and are refused where there is none.",
    )


@dataclass(frozen=True, slots=True)
class RouteRule:
    """Which way mail to some domains leaves. Each has a section [route NAME]; the most precise domain wins."""

    name: str = ""
    domains: tuple[str, ...] = option(
        PATTERNS, "*", "`example.org` for itself, `.example.org` for all below it, `*` for the rest."
    )
    smarthost: tuple[Hop, ...] = option(
        SMARTHOSTS,
        "",
        "The hosts that take our mail, tried in this order, one a line: `submission://host` (port 587, STARTTLS, "
        "certificate verified), `smtps://host` (465, TLS, verified), `smtp://host` or just `host` (25, TLS if offered).",
        shown="must be set unless `mx` is yes",
        example="submission://smtp.example.net",
    )
    mx: bool = option(YES_NO, "no", "Deliver to the domain's own mail hosts. Many providers block port 25 on the way.")
    user: str = option(TEXT, "", "The login at the smarthost; it needs verified or required TLS.")
    password_file: str = option(
        FILE, "", "The file whose first line is the password; not readable by others.", shown="must be set with `user`"
    )
    tls: TLS | Literal[""] = option(
        one_of("none", "opportunistic", "required", "verified"),
        "",
        "What TLS must be: none, if offered, with any certificate, or with the host's own.",
        shown="by the URL; opportunistic with `mx`",
    )
    ca: str = option(FILE, "", "Authorities to trust here, PEM.", shown="those of the system")
    sender: str = option(
        ADDRESS, "", "Replaces sender and From, for providers that take one address alone.", name="from"
    )


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration. Defaults that depend on others are filled in, paths are absolute."""

    path: str
    server: Server
    policy: Policy
    listeners: tuple[Listener, ...]
    limits: Limits
    queue: Queue
    local: Local
    routes: tuple[RouteRule, ...]


SECTIONS: dict[str, Any] = {
    "server": Server,
    "policy": Policy,
    "listener": Listener,
    "limits": Limits,
    "queue": Queue,
    "local": Local,
    "route": RouteRule,
}
"""The sections by the first word of their name; Listener and RouteRule take a second word and may come often."""


def load(path: str, fqdn: Callable[[], str] = socket.getfqdn) -> Config:
    """Read a configuration file.

    `fqdn` tells the machine's full name, asked only where `hostname` is not set. Raises `ConfigError`.
    """
    reading = read(path)
    reading.check_names({word: "name" in section.__dataclass_fields__ for word, section in SECTIONS.items()})
    server = _server(reading, fqdn)
    config = Config(
        path=os.path.abspath(path),
        server=server,
        policy=(policy := reading.section("policy", Policy)),
        listeners=tuple(checks.listener(reading, one, server, policy) for one in reading.named("listener", Listener)),
        limits=reading.section("limits", Limits),
        queue=reading.section("queue", Queue),
        local=reading.section("local", Local),
        routes=tuple(checks.route(reading, one) for one in reading.named("route", RouteRule)),
    )
    checks.whole(reading, config)
    if reading.problems:
        raise ConfigError(path, reading.problems)
    return config


def load_server(path: str) -> Server:
    """Read [server] alone, for a reader who may not open the secrets that `load` checks. Raises `ConfigError`."""
    reading = read(path)
    server = _server(reading, socket.gethostname)
    if reading.problems:
        raise ConfigError(path, reading.problems)
    return server


def _server(reading: Reading, fqdn: Callable[[], str]) -> Server:
    server = reading.section("server", Server)
    hostname = server.hostname or _hostname(fqdn())
    return dataclasses.replace(
        server,
        hostname=hostname,
        control=server.control or os.path.join(server.data, "control"),
        origin=server.origin or hostname,
    )


def _hostname(name: str) -> str:
    """A full name for a machine: what the resolver says, else its own name in the domain kept for private networks."""
    name = name.lower().rstrip(".")
    if "." in name and not name.startswith("localhost.") and not name.endswith(".arpa"):
        try:
            return DOMAIN.parse(name)
        except ValueError:
            pass
    own = re.sub(r"[^a-z0-9-]", "", socket.gethostname().split(".")[0].lower()).strip("-")
    return f"{own or 'localhost'}.internal"
