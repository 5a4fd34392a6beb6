"""The users file: who may log in, with passwords hashed by scrypt (RFC 7914).

One login a line, `name:scrypt$N$r$p$salt$hash`, salt and hash in base64. `vmtpctl user` writes it, the daemon reads it again when
it changes. Names are compared in lower case and hold letters, digits and `. _ + - @`, so that an address may be one.

*Failures*: `UsersError`, with a sentence for the operator; it names lines and logins, never a password or a hash.
A change is written aside, synced and renamed, so that a reader finds the old file or the new one, whatever happens between.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

N, R, P = 1 << 14, 8, 1
"""The cost of a new hash: 16 MiB and some 50 ms."""

MAX_FILE = 4 << 20
MAX_USERS = 20000
MAX_PASSWORD = 1024
MIN_PASSWORD = 8

_NAME = re.compile(r"[a-z0-9][a-z0-9._@+-]{0,127}\Z")
_LINE = re.compile(
    r"scrypt\$([0-9]{1,7})\$([0-9]{1,2})\$([0-9]{1,2})\$([A-Za-z0-9+/=]{8,88})\$([A-Za-z0-9+/=]{40,88})\Z"
)


class UsersError(Exception):
    """The users file, a name or a password cannot be used; the text says why."""


class Hash(NamedTuple):
    """What is kept of a password: the cost, the salt and the result of scrypt."""

    n: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    def fits(self, password: str) -> bool:
        """Whether this is of that password. Takes as long for a wrong one as for the right one."""
        return hmac.compare_digest(_scrypt(password, self.salt, self.n, self.r, self.p, len(self.digest)), self.digest)

    def __str__(self) -> str:
        salt, digest = (base64.b64encode(octets).decode() for octets in (self.salt, self.digest))
        return f"scrypt${self.n}${self.r}${self.p}${salt}${digest}"


_NOBODY = Hash(N, R, P, bytes(16), bytes(32))


def normal(name: str) -> str:
    """The form in which a login is compared. Raises `UsersError` for a name that no login can have."""
    lower = name.lower()
    if not _NAME.match(lower):
        raise UsersError("a login is 1 to 128 letters, digits and . _ + - @, and begins with a letter or a digit")
    return lower


def hashed(password: str) -> Hash:
    """Hash a new password. Raises `UsersError` for one that is too short, too long, or holds control characters."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD or not password.isprintable():
        raise UsersError(f"a password is {MIN_PASSWORD} to {MAX_PASSWORD} printable characters")
    salt = secrets.token_bytes(16)
    return Hash(N, R, P, salt, _scrypt(password, salt, N, R, P, 32))


def verify(users: Mapping[str, Hash], name: str, password: str) -> bool:
    """Whether a login and its password are right. An unknown login costs as much time as a known one."""
    known = users.get(name.lower())
    right = (known or _NOBODY).fits(password[: MAX_PASSWORD + 1])
    return right and known is not None


def read(path: str) -> dict[str, Hash]:
    """The logins of a file. Raises `UsersError`."""
    try:
        with open(path, "rb") as file:
            octets = file.read(MAX_FILE + 1)
    except OSError as error:
        raise UsersError(f"{path} cannot be read: {error.strerror}") from None
    lines = octets.decode("utf-8", "replace").splitlines()
    if len(octets) > MAX_FILE or len(lines) > MAX_USERS:
        raise UsersError(f"{path} has more than {MAX_USERS} lines or 4 MiB")
    users: dict[str, Hash] = {}
    for number, line in enumerate(lines, 1):
        if line and not line.startswith("#"):
            name, _, text = line.partition(":")
            if not _NAME.match(name) or name in users or (known := _parsed(text)) is None:
                raise UsersError(
                    f"{path}:{number}: write name:scrypt$N$r$p$salt$hash, each name once; see vmtpctl user"
                )
            users[name] = known
    return users


def add(path: str, name: str, password: str) -> None:
    """Add a login; the file is made where there is none. Raises `UsersError`, also where the login is known."""
    with _changed(path) as users:
        if (name := normal(name)) in users:
            raise UsersError(f"{name} is there already; give it a new password with: vmtpctl user passwd {name}")
        users[name] = hashed(password)


def passwd(path: str, name: str, password: str) -> None:
    """Give a login a new password. Raises `UsersError`."""
    with _changed(path) as users:
        users[_known(users, name)] = hashed(password)


def remove(path: str, name: str) -> None:
    """Take a login away. Raises `UsersError`."""
    with _changed(path) as users:
        del users[_known(users, name)]


def _known(users: Mapping[str, Hash], name: str) -> str:
    if (name := normal(name)) not in users:
        raise UsersError(f"there is no login {name}")
    return name


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int, length: int) -> bytes:
    octets = password.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(octets, salt=salt, n=n, r=r, p=p, maxmem=256 * n * r + (1 << 20), dklen=length)


def _parsed(text: str) -> Hash | None:
    """A hash as written; None for what is none, or would cost more than we are willing to compute at each login."""
    match = _LINE.match(text)
    if match is None:
        return None
    n, r, p = int(match[1]), int(match[2]), int(match[3])
    if n & (n - 1) or not 1 << 10 <= n <= 1 << 17 or not 1 <= r <= 16 or not 1 <= p <= 4:
        return None
    try:
        salt, digest = base64.b64decode(match[4], validate=True), base64.b64decode(match[5], validate=True)
    except binascii.Error:
        return None
    return Hash(n, r, p, salt, digest) if len(digest) >= 30 else None


@contextlib.contextmanager
def _changed(path: str) -> Iterator[dict[str, Hash]]:
    """Read, let the caller change, and write, while nobody else does so (a lock on the folder)."""
    folder = os.path.dirname(os.path.abspath(path))
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            users = read(path) if os.path.exists(path) else {}
            yield users
            text = "".join(f"{name}:{known}\n" for name, known in sorted(users.items()))
            _replace(path, text.encode(), lambda: os.fsync(lock))
        finally:
            os.close(lock)
    except OSError as error:
        raise UsersError(f"{path} cannot be written: {error.strerror}") from None


def _replace(path: str, octets: bytes, sync_folder: Callable[[], None]) -> None:
    """Write a file aside and rename it. Owner and mode stay as they were; a new file is its folder's owner's, mode 0600."""
    aside = f"{path}.{secrets.token_hex(8)}"
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as file:
            old = os.stat(path) if os.path.exists(path) else None
            owner = old or os.stat(os.path.dirname(os.path.abspath(path)))
            if os.geteuid() == 0:
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            os.fchmod(descriptor, old.st_mode & 0o640 if old else 0o600)
            file.write(octets)
            file.flush()
            os.fsync(descriptor)
        os.rename(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise
    sync_folder()
