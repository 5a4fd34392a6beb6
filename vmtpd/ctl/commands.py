"""What vmtpctl does, a function for each verb: ask the daemon or change a file, print, return the exit status.

*Failures*: the exceptions of the daemon, the configuration and the users file go up to `main`, which words them.
"""

from __future__ import annotations

import getpass
import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from datetime import datetime
from typing import Any

from vmtpd.auth import users
from vmtpd.config import Config, Listener, RouteRule, load, load_server
from vmtpd.ctl import words
from vmtpd.ctl.daemon import Daemon, Problem

OK, FAILED, USAGE, UNAVAILABLE, CONFIG = 0, 1, 2, 69, 78
"""Exit statuses; the last two are sysexits.h's EX_UNAVAILABLE and EX_CONFIG."""

FILTERS = ("state", "sender", "recipient", "destination", "client")
"""What the queue can be narrowed by."""


class Usage(Exception):
    """The arguments do not make sense together."""


def status(arguments: Namespace) -> int:
    """How the daemon is."""
    row = _daemon(arguments).get("/v1/status")
    return _print(arguments, row, lambda: words.status(row, _now(), _width()))


def queue(arguments: Namespace) -> int:
    """What waits, and why."""
    query = _filters(arguments) | {"limit": str(arguments.limit), "after": arguments.after}
    row = _daemon(arguments).get("/v1/queue", **query)

    def lines() -> list[str]:
        if not row["messages"]:
            return ["nothing waits here"]
        more = [f"more: vmtpctl queue --after {row['next']}"] if row.get("next") else []
        return words.queue(row["messages"], _now(), _width()) + more

    return _print(arguments, row, lines)


def show(arguments: Namespace) -> int:
    """The story of a message."""
    row = _daemon(arguments).get(f"/v1/messages/{_id(arguments.id)}")
    return _print(arguments, row, lambda: words.story(row, _now()))


def change(arguments: Namespace) -> int:
    """Retry, hold, release or delete."""
    verb, filters = arguments.verb, _filters(arguments)
    if bool(arguments.ids) + bool(filters) + arguments.all != 1:
        raise Usage(f"say what to {verb}: ids, or filters such as --recipient @example.org, or --all")
    daemon, count = _daemon(arguments), 0
    if arguments.ids:
        paths = [f"/v1/messages/{_id(id)}/{verb}" for id in arguments.ids]
        count = sum(daemon.post(path, {})["recipients"] for path in paths)
    else:
        count = daemon.post(f"/v1/queue/{verb}", filters or {"all": True})["recipients"]
    done = {"retry": "due now", "hold": "held", "release": "released", "delete": "deleted"}[verb]
    nothing = {
        "retry": "nothing of it waits for its next try",
        "hold": "nothing of it waits; what is being delivered goes on",
        "release": "nothing of it is held",
        "delete": "nothing of it waits or is held; what is being delivered goes on",
    }[verb]
    text = f"{count} recipient{'' if count == 1 else 's'} {done}" if count else nothing
    _print(arguments, {"verb": verb, "recipients": count}, lambda: [text])
    return OK if count else FAILED


def send_test(arguments: Namespace, pause: Callable[[float], None] = time.sleep) -> int:
    """Send a test message, and wait for what becomes of it if asked to."""
    daemon = _daemon(arguments)
    row = daemon.post("/v1/send-test", {"to": arguments.address})
    id = row["id"]
    if not arguments.wait:
        return _print(arguments, row, lambda: [f"sent as {id}; its way: vmtpctl show {id}"])
    for _ in range(max(int(arguments.timeout * 4), 1)):
        row = daemon.get(f"/v1/messages/{id}")
        recipient = (row.get("recipients") or [{}])[0]
        if recipient.get("state") == "done" or (recipient.get("state") == "queued" and recipient.get("reply")):
            break
        pause(0.25)
    else:
        recipient = {}
    good = recipient.get("state") == "done" and recipient.get("action") in ("relayed", "delivered", "expanded")
    _print(arguments, row, lambda: words.story(row, _now()))
    return OK if good else FAILED


def user(arguments: Namespace) -> int:
    """Keep the users file."""
    path = load_server(arguments.config).users
    if not path:
        raise Usage(f"{arguments.config} names no users file; set users in [server], such as users = users")
    match arguments.action:
        case "list":
            names = sorted(users.read(path)) if os.path.exists(path) else []
            return _print(arguments, {"users": names}, lambda: names)
        case "add":
            users.normal(arguments.name)
            users.add(path, arguments.name, _password())
        case "passwd":
            users.passwd(path, arguments.name, _password())
        case "remove":
            users.remove(path, arguments.name)
    return OK


def check_config(arguments: Namespace) -> int:
    """Check a configuration, and tell what it means."""
    config = load(arguments.file or arguments.config)
    summary = _summary(config)
    return _print(arguments, {"path": config.path, "ok": True}, lambda: [f"{config.path}: ok", *summary])


def _summary(config: Config) -> list[str]:
    lines = [f"  {config.server.hostname} keeps its mail in {config.server.data}"]
    lines += [f"  listener {one.name}: {_listener(one)}" for one in config.listeners]
    lines += [f"  route {one.name}: {_route(one)}" for one in config.routes]
    if config.local.domains:
        where = config.local.maildir or f"mail to {config.server.admin}"
        lines.append(f"  local: {' '.join(config.local.domains)} into {where}")
    path = config.server.users
    if path and os.path.exists(path):
        lines.append(f"  users: {len(users.read(path))} in {path}")
    elif path:
        lines.append(f"  users: none yet; vmtpctl user add NAME makes {path}")
    return lines


def _listener(one: Listener) -> str:
    doors = " ".join(str(item) for item in one.listen)
    serves = {
        "relay": f"relays for {' '.join(map(str, one.networks)) or 'no network'}{' and logins' if one.auth else ''}",
        "submission": "relays for logins alone",
        "inbound": "takes mail to local domains from anybody",
    }[one.role]
    return f"{doors}, {serves}, {'no TLS' if one.tls == 'none' else f'TLS {one.tls}'}"


def _route(one: RouteRule) -> str:
    what = " ".join(one.domains)
    if one.mx:
        return f"{what} to its own mail hosts, TLS {one.tls}"
    hosts = ", then ".join(f"{hop.host} port {hop.port}, TLS {hop.tls}" for hop in one.smarthost)
    return f"{what} to {hosts}{f', as {one.user}' if one.user else ''}"


def _daemon(arguments: Namespace) -> Daemon:
    return Daemon(arguments.socket or load_server(arguments.config).control)


def _filters(arguments: Namespace) -> dict[str, str]:
    return {name: value for name in FILTERS if (value := getattr(arguments, name))}


def _id(text: str) -> str:
    if not text.isalnum() or not text.isascii() or len(text) != 13:
        raise Problem(400, f"{words.clean(text)[:40]} is no queue id; they are 13 letters and digits")
    return text


def _password() -> str:
    """The password: asked for twice on a terminal, else the first line of the input."""
    if not sys.stdin.isatty():
        return sys.stdin.readline(users.MAX_PASSWORD + 2).rstrip("\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Once more: ") != password:
        raise users.UsersError("the two are not the same; nothing was changed")
    return password


def _print(arguments: Namespace, row: dict[str, Any], lines: Callable[[], list[str]]) -> int:
    for line in [json.dumps(row, indent=2)] if arguments.json else lines():
        print(line)
    return OK


def _now() -> datetime:
    return datetime.now().astimezone()


def _width() -> int | None:
    """Columns of the terminal; None where the output goes elsewhere."""
    if not sys.stdout.isatty():
        return None
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except OSError:
        return None
