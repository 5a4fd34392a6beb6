"""The log of mail: one line for each thing that happens to a message, in one form, for eyes and grep.

    2026-11-22T10:00:00Z 0gz3k7m2v9q4a relayed to=<ann@example.org> via=mx.example.org[192.0.2.1]:25 reply="250 2.0.0 ok"

Time, queue id (`-` where there is none), event, then name=value. A value with blanks, quotes or control characters stands in
double quotes, with backslash escapes, so that nobody can forge a line or a field. Or each line is a JSON object.
twisted.logger serves everything rarer; it costs twenty times as much.

*Failures*: lines that cannot be written are counted and told with the next one that can; mail goes on.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Protocol

MAX_LINES = 1000
"""Lines that are kept for the end of the turn; with more they are written at once."""

MAX_VALUE = 1000
"""Characters of a value."""


class Output(Protocol):
    """Where lines go: an open text file."""

    def write(self, text: str, /) -> object:
        """Take text."""

    def flush(self) -> object:
        """Hand on what was taken."""


class File:
    """A file to append to. When it was moved away, as by logrotate, it is made anew."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1

    def open(self) -> None:
        """Open it. Raises OSError."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def write(self, text: str, /) -> object:
        """Append text, at once. Raises OSError."""
        if not self._is_there():
            self.open()
        octets = text.encode("utf-8", "backslashreplace")
        while octets:
            octets = octets[os.write(self._descriptor, octets) :]
        return None

    def flush(self) -> object:
        """Nothing is kept."""
        return None

    def _is_there(self) -> bool:
        try:
            return self._descriptor >= 0 and os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except OSError:
            return False


class Lines:
    """The log. `later` calls a function once this turn is over (`callLater(0, ...)`); `wall` tells seconds since the epoch."""

    def __init__(
        self,
        output: Output,
        later: Callable[[Callable[[], None]], object],
        form: str = "text",
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._output = output
        self._later = later
        self._json = form == "json"
        self._wall = wall
        self._lines: list[str] = []
        self._lost = 0
        self._second = -1
        self._stamp = ""

    def write(self, event: str, id: str = "-", /, **fields: object) -> None:
        """Note an event of a message. Fields that are None or "" are left out."""
        now = int(self._wall())
        if now != self._second:
            self._second, self._stamp = now, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        if self._json:
            given = {name: _short(value) for name, value in fields.items() if value is not None and value != ""}
            line = json.dumps({"time": self._stamp, "id": id, "event": event, **given}) + "\n"
        else:
            line = f"{self._stamp} {id} {event}"
            for name, value in fields.items():
                if value is None or value == "":
                    continue
                text = value if type(value) is str else str(value)
                plain = text.isprintable() and " " not in text and '"' not in text and len(text) <= MAX_VALUE
                line += f" {name}={text if plain else quoted(text)}"
            line += "\n"
        lines = self._lines
        lines.append(line)
        if len(lines) == 1:
            self._later(self.flush)
        elif len(lines) >= MAX_LINES:
            self.flush()

    def flush(self) -> None:
        """Write what is kept; at the end of each turn, and at a stop."""
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        if self._lost:
            lines.insert(0, f"{self._stamp} - log-lost lines={self._lost}\n" if not self._json else self._lost_object())
        try:
            self._output.write("".join(lines))
            self._output.flush()
        except (OSError, ValueError):
            self._lost += len(lines) - (self._lost > 0)
        else:
            self._lost = 0

    def _lost_object(self) -> str:
        return json.dumps({"time": self._stamp, "id": "-", "event": "log-lost", "lines": self._lost}) + "\n"


def quoted(text: str) -> str:
    """A value in double quotes; what is not printable is escaped, what is too long is cut and ends in "..."."""
    if len(text) > MAX_VALUE:
        text = text[: MAX_VALUE - 3] + "..."
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return f'"{text}"'


def _short(value: object) -> object:
    """A value for JSON: numbers as they are, all else as text that is not too long."""
    if isinstance(value, int | float):
        return value
    text = str(value)
    return text if len(text) <= MAX_VALUE else text[: MAX_VALUE - 3] + "..."
