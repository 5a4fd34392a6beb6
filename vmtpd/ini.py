"""Reading an INI file into sections that are dataclasses of options, with every mistake told at once.

config.py says which sections and options there are, checks.py which rules span them; this module knows neither.
Names are those of configparser: `name = value`, a longer value goes on in indented lines, comments are lines that begin with # or ;.

*Failures*: `ConfigError`, whose text has one line for each mistake: file, line, section, option, what was found, what is allowed.
"""

from __future__ import annotations

import configparser
import difflib
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from vmtpd.options import options

HOPELESS = 1000
"""Mistakes after which nobody looks for more."""

S = TypeVar("S")

MAX_FILE = 1 << 20
"""Octets of a configuration file."""

MAX_PROBLEMS = 20
"""Mistakes that one error tells; the rest is counted."""


class Problem(NamedTuple):
    """One mistake: the line (0 where it is not known), section and option ("" for none), and what to do about it."""

    line: int
    section: str
    option: str
    text: str

    def __str__(self) -> str:
        place = [f"[{self.section}]"] if self.section else []
        place += [self.option] if self.option else []
        line = f":{self.line}" if self.line else ""
        return f"{line}: {' '.join(place)}{': ' if place else ''}{self.text}"


class ConfigError(Exception):
    """The configuration cannot be used. The text has one line for each mistake, at most 20."""

    def __init__(self, path: str, problems: Iterable[Problem]) -> None:
        self.path = path
        self.problems = sorted(set(problems), key=lambda problem: problem.line)
        super().__init__(path, self.problems)

    def __str__(self) -> str:
        lines = [f"{self.path}{problem}" for problem in self.problems[:MAX_PROBLEMS]]
        if len(self.problems) > MAX_PROBLEMS:
            lines.append(f"{self.path}: and {len(self.problems) - MAX_PROBLEMS} more")
        return "\n".join(lines)


_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z")


class Reading:
    """One reading of a file: its lines, and the mistakes found so far."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.folder = os.path.dirname(os.path.abspath(path))
        self.problems: list[Problem] = []
        self._told: set[tuple[str, str]] = set()
        self._parser = configparser.ConfigParser(
            interpolation=None, delimiters=("=",), comment_prefixes=("#", ";"), default_section=""
        )
        self._lines = _line_numbers(text)
        try:
            self._parser.read_string(text, path)
        except configparser.Error as error:
            self.problems.extend(_syntax(error))
            raise ConfigError(path, self.problems) from None

    def problem(self, section: str, name: str, text: str) -> None:
        """Note a mistake; of each option the first alone, as what follows from it would only confuse.

        Raises `ConfigError` once it is clear that this is no configuration of ours.
        """
        if name and (section, name) in self._told:
            return
        self._told.add((section, name))
        line = self._lines.get((section, name)) or self._lines.get((section, ""), 0)
        self.problems.append(Problem(line, section, name, text))
        if len(self.problems) >= HOPELESS:
            raise ConfigError(self.path, self.problems)

    def named(self, word: str, section: type[S]) -> tuple[S, ...]:
        """All sections [word NAME], in their order."""
        found = (name.partition(" ") for name in self._parser.sections())
        return tuple(
            self.section(f"{word} {name}", section, name=name) for first, _, name in found if first == word and name
        )

    def section(self, title: str, section: type[S], **fields: Any) -> S:
        """One section; defaults where it is not in the file."""
        known = options(section)
        for key, text in self._parser.items(title) if self._parser.has_section(title) else ():
            if key not in known:
                self.problem(title, key, f"there is no such option{_nearest(key, known)}")
            elif text:
                field, declared = known[key]
                try:
                    value = declared.kind.parse(text)
                except ValueError as error:
                    self.problem(title, key, f"found {_quoted(text)}; {error}")
                    continue
                fields[field] = os.path.normpath(os.path.join(self.folder, value)) if declared.kind.is_path else value
        return section(**fields)

    def has(self, section: str, name: str) -> bool:
        """Whether the file gives an option a value."""
        return bool(self._parser.get(section, name, fallback=""))

    def check_names(self, known: Mapping[str, bool]) -> None:
        """Every section must be one that is known; the value says whether a name follows its word."""
        for name in self._parser.sections():
            word, _, rest = name.partition(" ")
            if word not in known:
                self.problem(name, "", f"there is no such section{_nearest(word, known)}")
            elif known[word] and not _NAME.match(rest):
                self.problem(name, "", f"give it a name of letters, digits and . _ -, such as [{word} main]")
            elif not known[word] and rest:
                self.problem(name, "", f"this section takes no name; write [{word}]")


def read(path: str) -> Reading:
    """Read a file. Raises `ConfigError` where it cannot be read or is no INI file; other mistakes are noted on the reading."""
    return Reading(path, _text(path))


def _text(path: str) -> str:
    """The text of the file, bounded. Raises `ConfigError`."""
    try:
        with open(path, "rb") as file:
            octets = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ConfigError(path, [Problem(0, "", "", f"cannot be read: {error.strerror}")]) from None
    if len(octets) > MAX_FILE:
        raise ConfigError(path, [Problem(0, "", "", "is larger than 1 MiB, which no configuration needs")])
    try:
        return octets.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise ConfigError(path, [Problem(line, "", "", "is not UTF-8 here; save the file as UTF-8")]) from None


def _line_numbers(text: str) -> dict[tuple[str, str], int]:
    """Where each section ("" as option) and option begins."""
    numbers: dict[tuple[str, str], int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\[(.+)\]", line):
            section = header[1]
            numbers.setdefault((section, ""), number)
        elif line[:1] not in ("#", ";", " ", "\t", "") and "=" in line:
            numbers.setdefault((section, line.partition("=")[0].strip().lower()), number)
    return numbers


def _syntax(error: configparser.Error) -> list[Problem]:
    """What configparser found, without the line's text: it may hold a secret that was put into the wrong file."""
    match error:
        case configparser.DuplicateOptionError():
            return [Problem(error.lineno or 0, error.section, error.option, "stands there twice; keep one")]
        case configparser.DuplicateSectionError():
            return [Problem(error.lineno or 0, error.section, "", "stands there twice; join the two")]
        case configparser.MissingSectionHeaderError():
            return [Problem(error.lineno, "", "", "comes before the first section; begin with a line such as [server]")]
        case configparser.ParsingError():
            text = "is neither [section], name = value, nor a comment"
            return [Problem(line, "", "", text) for line, _ in error.errors]
    return [Problem(0, "", "", "is not an INI file")]


def _nearest(word: str, known: Iterable[str]) -> str:
    """The remedy for an unknown name."""
    names = list(known)
    close = difflib.get_close_matches(word[:60], names, 1, 0.6)
    return f"; did you mean {close[0]}?" if close else f"; there are: {', '.join(names)}"


def _quoted(text: str) -> str:
    """A value as found, on one line and short."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text[:2000].split()))
    if "@" in line and "://" in line:
        return "a URL"
    return f'"{line[:60]}..."' if len(line) > 60 else f'"{line}"'
