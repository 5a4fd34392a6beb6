"""Conversations as files (tests/dialogs/README.md): read here, played against whatever answers.

A dialog is a list of turns: octets of the client, and the lines that must come back. What plays it gives a function that takes
octets and returns those that came back.
"""

from __future__ import annotations

import ast
import fnmatch
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "dialogs"


class Turn(NamedTuple):
    """What the client sends (nothing, for the greeting), and the lines that answer it."""

    sent: bytes
    answers: list[str]


class Dialog(NamedTuple):
    """A conversation and what it shows."""

    name: str
    title: str
    turns: list[Turn]


def read(path: Path) -> Dialog:
    """Read a file. Raises ValueError for a line that is none of the three kinds."""
    title, sent, answers = "", b"", list[str]()
    turns = []
    for line in path.read_text("utf-8").splitlines():
        kind, text = line[:2], line[3:]
        if line.startswith("#"):
            title = title or line[1:].strip()
        elif kind in ("C:", "R:"):
            if answers:
                turns.append(Turn(sent, answers))
                sent, answers = b"", []
            sent += text.encode() + b"\r\n" if kind == "C:" else _octets(text)
        elif kind == "S:":
            answers.append(text)
        else:
            raise ValueError(f"{path.name}: {line!r} is no line of a dialog")
    return Dialog(path.stem, title, [*turns, Turn(sent, answers)])


def _octets(text: str) -> bytes:
    octets = ast.literal_eval(f"b'{text}'")
    assert isinstance(octets, bytes)
    return octets


def dialogs() -> Iterator[Dialog]:
    """All of them."""
    for path in sorted(FOLDER.glob("*.txt")):
        yield read(path)


def play(dialog: Dialog, send: Callable[[bytes], bytes], size: int = 0) -> None:
    """Hold a conversation, in pieces of `size` octets (0: each turn at once). Raises AssertionError where an answer differs."""
    for turn in dialog.turns:
        pieces = [turn.sent] if not size else [turn.sent[i : i + size] for i in range(0, len(turn.sent), size)]
        compare(dialog, turn, b"".join(send(piece) for piece in pieces or [b""]))


def compare(dialog: Dialog, turn: Turn, came: bytes) -> None:
    """Raise AssertionError where what came is not what answers a turn."""
    text = came.decode("utf-8")
    lines = text.split("\r\n")
    if lines.pop() != "" or len(lines) != len(turn.answers):
        raise AssertionError(f"{dialog.name}: to {turn.sent[-200:]!r} came {text!r}, not {turn.answers}")
    for line, wanted in zip(lines, turn.answers, strict=True):
        if not fnmatch.fnmatchcase(line, wanted.replace("[", "[[]")):
            raise AssertionError(f"{dialog.name}: to {turn.sent[-200:]!r} came {line!r}, not {wanted!r}")
