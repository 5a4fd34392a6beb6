"""What the daemon asks of the machine: file descriptors, cores, a disk that lasts, sockets to listen on.

Where it stands: service asks before anything is opened.

*Failures*: `CannotListen`, one sentence with the address and the reason. The rest gives what it could find out.
"""

from __future__ import annotations

import os
import resource
import socket
from contextlib import suppress

FLEETING = frozenset({"tmpfs", "ramfs", "overlay", "aufs"})
"""File systems whose content does not outlive the machine, or the container."""

BACKLOG = 1024


class CannotListen(Exception):
    """A listener's address cannot be had."""


def raise_file_limit(wanted: int) -> int:
    """Allow for so many open files, as far as we may. Returns what there is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # a sandbox may forbid it
        return soft
    return wanted


def bind_to_one_core() -> set[int]:
    """Bind the calling thread, and those that it starts, to one core. Returns all that it was allowed, for `spread`.

    Of Python's threads one runs at a time. A lock that goes to and fro between two cores costs more than the work that it guards.
    """
    cores = os.sched_getaffinity(0)
    one = sorted(cores)[os.getpid() % len(cores)]
    with suppress(OSError):  # a sandbox may forbid it
        os.sched_setaffinity(0, {one})
    return cores


def spread(cores: set[int]) -> None:
    """Let the calling thread run on any of these cores: it works outside of Python's lock."""
    with suppress(OSError):
        os.sched_setaffinity(0, cores)


def file_system(path: str) -> str:
    """The type of the file system that a path is, or will be, on; "" where it cannot be told."""
    path = os.path.realpath(path)
    best, kind = "", ""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            for line in mounts:
                before, _, after = line.partition(" - ")
                point = before.split(" ")[4].replace("\\040", " ")
                inside = path == point or path.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= len(best):
                    best, kind = point, after.split(" ")[0]
    except (OSError, IndexError):
        return ""
    return kind


def listen(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for an address; "*" means every address of both families. Raises `CannotListen`."""
    try:
        if host == "*":
            return [_bound(socket.AF_INET, "0.0.0.0", port), *_if_possible("::", port)]
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return [_bound(family, str(address[0]), port)]
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = "; ports below 1024 need CAP_NET_BIND_SERVICE or root" if isinstance(error, PermissionError) else ""
        shown = f"[{host}]" if ":" in host else host
        raise CannotListen(f"cannot listen on {shown}:{port}: {reason}{remedy}") from None


def _if_possible(host: str, port: int) -> list[socket.socket]:
    """A socket for IPv6, none where the machine has no IPv6."""
    try:
        return [_bound(socket.AF_INET6, host, port)] if socket.has_ipv6 else []
    except OSError:
        return []


def _bound(family: int, host: str, port: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((host, port))
        made.listen(BACKLOG)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made
