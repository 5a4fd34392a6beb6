"""Checks logins without keeping the daemon waiting: hashing takes some 50 ms, so it is done in threads.

A session asks `check`; at most two hashes are computed at once, and a bounded number waits. Devices log in for each mail, so the
last good password of a login is remembered for five minutes, as a digest under a key that dies with the process.
The users file is read again when it changes; what was remembered is forgotten then.

*Failures*: `Busy` and `Unavailable`, both answered with 454 4.7.0: the login may be right, and is worth another try. A users file
that cannot be read, or is damaged, is logged once for each state it is in; logins go on with what was read before.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.logger import Logger

from vmtpd.auth import users

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    Run = Callable[
        [Callable[[Mapping[str, users.Hash], str, str], bool], Mapping[str, users.Hash], str, str], Deferred[bool]
    ]

THREADS = 2
"""Hashes computed at once; each takes 16 MiB."""

WAITING = 200
"""Logins that may wait for a hash: about 5 s of work."""

KEEP = 300.0
"""Seconds for which a good password is remembered."""


class Unavailable(Exception):
    """Logins cannot be checked now."""


class Busy(Unavailable):
    """Too many logins wait already."""


class Checker:
    """The logins of one users file. `run` calls a function in a thread and gives a Deferred of its result."""

    log = Logger()

    def __init__(self, path: str, clock: IReactorTime, run: Run, key: bytes | None = None) -> None:
        self._path = path
        self._clock = clock
        self._run = run
        self._key = key or secrets.token_bytes(32)
        self._free = DeferredSemaphore(THREADS)
        self._waiting = 0
        self._users: Mapping[str, users.Hash] | None = None
        self._seen: tuple[int, int, int] | None = None
        self._good: dict[str, tuple[bytes, float]] = {}

    def check(self, name: str, password: str) -> Deferred[str | None]:
        """The login as it is to be called from here on, or None where login or password are wrong.

        The Deferred fails with `Busy` or `Unavailable`.
        """
        return Deferred.fromCoroutine(self._check(name.lower(), password))

    async def _check(self, name: str, password: str) -> str | None:
        self._reload()
        if self._remembers(name, password):
            return name
        if self._waiting >= WAITING:
            raise Busy("too many logins wait to be checked")
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._hash(name, password)
        finally:
            self._free.release()

    async def _hash(self, name: str, password: str) -> str | None:
        known = self._users
        if known is None:
            raise Unavailable("the users file cannot be read")
        # While this one waited, another session may have proved the same password.
        if self._remembers(name, password):
            return name
        if not await self._run(users.verify, known, name, password):
            return None
        if known is self._users:
            self._good[name] = (self._digest(name, password), self._clock.seconds() + KEEP)
        return name

    def _remembers(self, name: str, password: str) -> bool:
        good = self._good.get(name)
        if good is None:
            return False
        if good[1] <= self._clock.seconds():
            del self._good[name]
            return False
        return hmac.compare_digest(good[0], self._digest(name, password))

    def _digest(self, name: str, password: str) -> bytes:
        text = f"{name}\0{password}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, key=self._key, digest_size=32).digest()

    def _reload(self) -> None:
        """Read the file again where it is not the one that was read last."""
        state = _state(self._path)
        if state == self._seen:
            return
        self._seen = state
        try:
            self._users = users.read(self._path)
        except users.UsersError as error:
            self.log.error("logins: {error}", error=error)
            return
        self._good.clear()


def _state(path: str) -> tuple[int, int, int]:
    """What tells one state of the file from another; all zero where there is none."""
    try:
        facts = os.stat(path)
    except OSError:
        return 0, 0, 0
    return facts.st_ino, facts.st_mtime_ns, facts.st_size
