"""The rules that span several options: what no single option can get wrong.

config.py calls `listener` and `route` for each such section, which also fill in what depends on other options, then `whole`.
The dangerous mistakes are refused, not warned of: an open relay, a password in clear, mail in a circle.

*Failures*: each mistake is noted on the reading, with its remedy; nothing is raised.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import ssl
import stat
from collections.abc import Iterable
from typing import TYPE_CHECKING

from vmtpd.options import Network

if TYPE_CHECKING:
    from vmtpd.config import Config, Listener, Policy, RouteRule, Server
    from vmtpd.ini import Reading

LEAST_PREFIX = {4: 8, 6: 16}
"""The shortest prefix of a trusted network: nobody's own network is larger."""

MAX_SOCKET_PATH = 107
"""Octets of a unix socket's path."""


def listener(reading: Reading, one: Listener, server: Server, policy: Policy) -> Listener:
    """Check a listener, and fill in key, auth and networks."""
    section = f"listener {one.name}"
    encrypted = one.tls != "none"
    one = dataclasses.replace(
        one,
        key=one.key or one.certificate,
        auth=one.auth if reading.has(section, "auth") else encrypted and bool(server.users),
        networks=one.networks if reading.has(section, "networks") else policy.networks,
    )
    if not one.listen:
        reading.problem(section, "listen", "must be set, such as listen = *:25")
    _trusted(reading, section, one.networks if reading.has(section, "networks") else ())
    if encrypted and not one.certificate:
        reading.problem(section, "certificate", f"must be set with tls = {one.tls}")
    elif encrypted:
        _key_pair(reading, section, one)
    if one.auth and not encrypted:
        reading.problem(section, "auth", "logins are offered under TLS alone; set tls and certificate")
    if one.auth and not server.users:
        reading.problem(section, "auth", "needs users in [server], a file that `vmtpctl user add` writes")
    if one.role == "submission" and not one.auth:
        remedy = "set users in [server]" if encrypted else "set tls and certificate, and users in [server]"
        reading.problem(section, "role", f"submission is for logins alone, and none is possible here; {remedy}")
    return one


def route(reading: Reading, one: RouteRule) -> RouteRule:
    """Check a route, and fill in its TLS: of its hosts, or of the mail exchangers that DNS will name."""
    section = f"route {one.name}"
    if one.mx == bool(one.smarthost):
        text = "set one of smarthost and mx, not both" if one.mx else "set smarthost = submission://host, or mx = yes"
        reading.problem(section, "smarthost", text)
    if one.tls:
        for hop in one.smarthost:
            if hop.implicit and one.tls in ("none", "opportunistic"):
                reading.problem(section, "tls", f"smtps:// begins with TLS, which {one.tls} contradicts; write smtp://")
        one = dataclasses.replace(one, smarthost=tuple(hop._replace(tls=one.tls) for hop in one.smarthost))
    elif one.mx:
        one = dataclasses.replace(one, tls="opportunistic")
    if one.user and one.mx:
        reading.problem(section, "user", "mail hosts found by mx take no login; remove it, or set smarthost")
    if bool(one.user) != bool(one.password_file):
        missing, given = ("password-file", "user") if one.user else ("user", "password-file")
        reading.problem(section, given, f"needs {missing}")
    if one.user and any(hop.tls in ("none", "opportunistic") for hop in one.smarthost):
        reading.problem(
            section, "user", "a password never travels in clear; use submission:// or smtps://, or tls = required"
        )
    if one.password_file:
        _secret(reading, section, "password-file", one.password_file)
    if one.ca:
        try:
            ssl.create_default_context(cafile=one.ca)
        except (OSError, ssl.SSLError) as error:
            reading.problem(section, "ca", f"{one.ca} holds no authorities: {error.strerror or error}")
    return one


def whole(reading: Reading, config: Config) -> None:
    """Check what spans sections."""
    _trusted(reading, "policy", config.policy.networks)
    if len(os.fsencode(config.server.control)) > MAX_SOCKET_PATH:
        reading.problem(
            "server", "control", f"{config.server.control} is longer than a socket's path may be; set a shorter one"
        )
    if not config.listeners and not reading.problems:
        reading.problem("", "", "has no listener; add [listener main] with listen = *:25")
    if not config.routes and not config.local.domains and not reading.problems:
        reading.problem("", "", "has no way out for mail; add [route default] with smarthost = submission://host")
    if config.server.users and os.path.exists(config.server.users):
        _secret(reading, "server", "users", config.server.users, may_be_empty=True)
    _queue(reading, config)
    _local(reading, config)
    _once(reading, ((f"listener {one.name}", "listen", str(item)) for one in config.listeners for item in one.listen))
    _once(reading, ((f"route {one.name}", "domains", domain) for one in config.routes for domain in one.domains))
    _circle(reading, config)


def _queue(reading: Reading, config: Config) -> None:
    queue = config.queue
    if not 1 <= queue.retry_first <= queue.retry_max:
        reading.problem("queue", "retry-first", "must be at least 1s and at most retry-max")
    if queue.lifetime <= queue.retry_first:
        reading.problem("queue", "lifetime", "must be longer than retry-first, else nothing is ever tried again")
    if queue.warn_after > queue.lifetime and reading.has("queue", "warn-after"):
        reading.problem("queue", "warn-after", "must be shorter than lifetime; 0 for no warning")
    for name, value in (("idle-connection", queue.idle_connection), ("connect-timeout", queue.connect_timeout)):
        if not 1 <= value <= 3600:
            reading.problem("queue", name, "must be 1s to 1h")
    if not 1 <= config.limits.timeout <= 86400:
        reading.problem("limits", "timeout", "must be 1s to 1d")
    if not 64 << 10 <= config.limits.message_size <= 2 << 30:
        reading.problem("limits", "message-size", "must be 64K to 2G")


def _local(reading: Reading, config: Config) -> None:
    local = config.local
    for one in config.routes:
        for domain in set(one.domains) & set(local.domains) - {"*"}:
            reading.problem(f"route {one.name}", "domains", f"{domain} ends here by [local]; keep it in one of the two")
    if "*" in local.domains and config.routes:
        reading.problem(
            "local", "domains", "`*` keeps all mail here, so that no [route] is ever used; remove one of them"
        )
    if local.domains and not local.maildir and (local.mailboxes or local.catch_all):
        reading.problem("local", "maildir", "must be set, the folder in which mailboxes are made")
    if local.domains and not (local.mailboxes or local.catch_all or config.server.admin):
        reading.problem("local", "domains", "nobody could get this mail; set catch-all or mailboxes")
    if local.domains and not (local.mailboxes or local.catch_all) and _is_local(config, config.server.admin):
        reading.problem("server", "admin", "is in a local domain that has no mailbox; set catch-all in [local]")
    if (local.mailboxes or local.catch_all) and not local.domains:
        reading.problem("local", "domains", "must be set, else no mail comes to the mailboxes")


def _is_local(config: Config, address: str) -> bool:
    return bool(address) and bool({"*", address.rpartition("@")[2]} & set(config.local.domains))


def _trusted(reading: Reading, section: str, networks: Iterable[Network]) -> None:
    """Refuse an open relay."""
    for network in networks:
        if network.prefixlen < LEAST_PREFIX[network.version]:
            reading.problem(
                section,
                "networks",
                f"{network} would make this an open relay; name your own network, as 192.168.1.0/24",
            )


def _once(reading: Reading, found: Iterable[tuple[str, str, str]]) -> None:
    """Refuse what stands in two sections."""
    owners: dict[str, str] = {}
    for section, name, value in found:
        if (owner := owners.setdefault(value, section)) != section:
            reading.problem(section, name, f"{value} stands in [{owner}] too; keep it in one")


def _circle(reading: Reading, config: Config) -> None:
    """Refuse a smarthost that is ourselves."""
    own = {"localhost", config.server.hostname}
    doors = {(item.host, item.port) for one in config.listeners for item in one.listen if item.port}
    for one in config.routes:
        for hop in one.smarthost:
            here = hop.host in own or _is_loopback(hop.host)
            for host, port in doors:
                if port == hop.port and (hop.host == host or (here and (host == "*" or _is_own(host)))):
                    reading.problem(
                        f"route {one.name}", "smarthost", f"{hop.host}:{port} is our own listener: a circle"
                    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_own(host: str) -> bool:
    address = ipaddress.ip_address(host)
    return address.is_loopback or address.is_unspecified


def _secret(reading: Reading, section: str, name: str, path: str, may_be_empty: bool = False) -> None:
    """Check a file that holds secrets: it must be there, ours to read, and nobody else's."""
    try:
        facts = os.stat(path)
        with open(path, "rb"):
            pass
    except OSError as error:
        reading.problem(section, name, f"{path} cannot be read: {error.strerror}")
        return
    if not stat.S_ISREG(facts.st_mode):
        reading.problem(section, name, f"{path} is not a file")
    elif facts.st_mode & stat.S_IRWXO:
        reading.problem(section, name, f"{path} can be read by others; say chmod o= {path}")
    elif not facts.st_size and not may_be_empty:
        reading.problem(section, name, f"{path} is empty")


def _key_pair(reading: Reading, section: str, one: Listener) -> None:
    """Check that certificate and key can be read and belong together."""
    for name, path in (("certificate", one.certificate), ("key", one.key)):
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            reading.problem(section, name, f"{path} cannot be read: {error.strerror}")
            return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(one.certificate, one.key, lambda: "")
    except ssl.SSLError as error:
        matched = "the key does not belong to the certificate"
        reason = (
            matched if "MISMATCH" in (error.reason or "") else "certificate and key, PEM without passphrase, are needed"
        )
        reading.problem(section, "certificate", f"cannot be used: {reason}")
