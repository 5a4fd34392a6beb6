"""The options written out: `python -m vmtpd.reference ini` and `... markdown`.

etc/vmtpd.full.ini and docs/configuration.md are made by this from the declarations in config.py; a test compares them.

*Failures*: none but a wrong argument, which is told with exit status 2.
"""

from __future__ import annotations

import dataclasses
import sys
import textwrap
from collections.abc import Iterator

from vmtpd.config import SECTIONS
from vmtpd.options import Option, options

_HEAD = """\
Every option of vmtpd, with its default where it has one, and the reason. A short file is enough: see vmtpd.ini.
An empty value means the default. Durations: 30s 5m 4h 5d. Sizes: 64K 50M. Longer values go on in indented lines.
A path that does not begin with / is meant from the folder of this file. Comments stand on lines of their own.
"""

_INTRODUCTION = """\
# Configuration

One INI file, by default `/etc/vmtpd/vmtpd.ini`. What is not set has its default, so that a working file is short:
[`etc/vmtpd.ini`](../etc/vmtpd.ini) serves a network with a smarthost, [`etc/demo.ini`](../etc/demo.ini) is for trying
things, and [`etc/vmtpd.full.ini`](../etc/vmtpd.full.ini) lists everything. `vmtpctl check-config FILE` tells all mistakes
of a file at once, with their lines; the daemon does not start with one.

* A value may go on in indented lines. Comments are lines that begin with `#` or `;`, never the end of a line with a value.
* Durations are a number and `s`, `m`, `h`, `d` or `w`; a plain number means seconds. Sizes are octets, or a number and `K`,
  `M`, `G`.
* A path that does not begin with `/` is meant from the folder of the file.
* Lists are divided by blanks, commas or line ends; `listen` and `smarthost` by blanks or line ends.
* What is a mistake of consequence is refused, not warned of: trusting a network so large that the relay would be open,
  a password over a connection without TLS, a file of secrets that others can read, a smarthost that is the relay itself.
"""


def full_ini() -> str:
    """The text of etc/vmtpd.full.ini."""
    parts = [_comment(_HEAD)]
    for word, title, section in _sections():
        parts.append(f"\n[{title}]\n{_comment(_doc(section))}\n")
        for name, (_, declared) in options(section).items():
            note = f"{declared.about} ({declared.kind.name})"
            default = declared.default or declared.example
            if declared.shown.startswith("must"):
                note += f" It {declared.shown}."
            elif declared.shown:
                note += f" Default: {declared.shown}."
            lead = "#" if not declared.default and (word, name) not in _NEEDED else ""
            parts.append(f"{_comment(note)}{lead}{name} = {default}".rstrip() + "\n")
    return "".join(parts)


def markdown() -> str:
    """The text of docs/configuration.md."""
    parts = [_INTRODUCTION]
    for word, _, section in _sections():
        title = f"[{word} NAME]" if "name" in _fields(section) else f"[{word}]"
        parts.append(f"\n## {title}\n\n{_doc(section)}\n\n| option | kind | default | meaning |\n|---|---|---|---|\n")
        for name, (_, declared) in options(section).items():
            kind = declared.kind.name.replace("|", "\\|")
            parts.append(f"| `{name}` | {kind} | {_default(declared)} | {declared.about} |\n")
    return "".join(parts)


_NEEDED = {("listener", "listen"), ("route", "smarthost"), ("server", "admin")}
"""Options that a working file sets, so that the full file can be read as it stands."""


def _sections() -> Iterator[tuple[str, str, type]]:
    for word, section in SECTIONS.items():
        named = {"listener": "listener main", "route": "route default"}
        yield word, named.get(word, word), section


def _fields(section: type) -> set[str]:
    return {field.name for field in dataclasses.fields(section)}


def _doc(section: type) -> str:
    return " ".join((section.__doc__ or "").split())


def _default(declared: Option) -> str:
    return f"`{declared.default}`" if declared.default else declared.shown or "none"


def _comment(text: str) -> str:
    lines = [line for part in text.splitlines() for line in textwrap.wrap(part, 118, break_on_hyphens=False)]
    return "".join(f"# {line}\n" for line in lines)


def main(arguments: list[str]) -> int:
    """Print what is asked for. Returns the exit status."""
    documents = {"ini": full_ini, "markdown": markdown}
    if len(arguments) != 1 or arguments[0] not in documents:
        print("usage: python -m vmtpd.reference ini|markdown", file=sys.stderr)
        return 2
    sys.stdout.write(documents[arguments[0]]())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
