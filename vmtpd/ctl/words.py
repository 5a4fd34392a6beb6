"""Plain words and columns: how vmtpctl shows what the daemon told it. Pure functions of rows and the time.

*Failures*: none; what a row lacks is left out. Control characters in texts from outside become "?", whatever the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

Row = dict[str, Any]

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


_TOWARDS = {"received": "from", "relayed": "to", "delivered": "to", "expanded": "to"}


def clean(text: object) -> str:
    """A text that is safe to show."""
    shown = "" if text is None else str(text)
    return shown if shown.isprintable() else "".join(c if c.isprintable() else "?" for c in shown)


def at(text: object, now: datetime) -> str:
    """A time of the daemon in local time: "10:05:00" for today, "2026-11-23 10:05" for other days."""
    moment = parsed(text)
    if moment is None:
        return "?"
    local, today = moment.astimezone(now.tzinfo), now
    return f"{local:%H:%M:%S}" if local.date() == today.date() else f"{local:%Y-%m-%d %H:%M}"


def parsed(text: object) -> datetime | None:
    """A time of the daemon."""
    try:
        return datetime.fromisoformat(str(text)) if text else None
    except ValueError:
        return None


def lasting(seconds: float) -> str:
    """A duration in its two largest units: "45 s", "4 min", "3 h 20 min", "4 d 23 h"."""
    left = max(int(seconds), 0)
    for i, (length, unit) in enumerate(_UNITS):
        if left >= length:
            below = (left % length) // _UNITS[i + 1][0] if i + 1 < len(_UNITS) else 0
            return f"{left // length} {unit}" + (f" {below} {_UNITS[i + 1][1]}" if below else "")
    return f"{left} s"


def since(text: object, now: datetime) -> str:
    """How long ago a time was."""
    moment = parsed(text)
    return lasting((now - moment).total_seconds()) if moment else "?"


def size(octets: object) -> str:
    """Octets in their largest unit."""
    if not isinstance(octets, int):
        return "?"
    number = float(octets)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1024
    return "?"


def until(text: object, now: datetime) -> str:
    """Until when, and how long that is: "until 10:05:00 (in 4 min)"."""
    moment = parsed(text)
    if moment is None or moment <= now:
        return "now"
    return f"until {at(text, now)} (in {lasting((moment - now).total_seconds())})"


def standing(recipient: Row, now: datetime) -> str:
    """Where a recipient stands, and why."""
    reply, tries, where = (
        clean(recipient.get("reply")),
        recipient.get("tries") or 0,
        clean(recipient.get("destination")),
    )
    why = f": {reply}" if reply else ""
    match recipient.get("state"):
        case "leased":
            return f"being delivered, try {tries + 1}"
        case "held":
            return f"held{f', after {_tries(tries)}' if tries else ''}{why}"
        case "done":
            action = clean(recipient.get("action"))
            return "deleted by the operator" if action in ("", "deleted") else f"{action}{why}"
    due = parsed(recipient.get("due"))
    if due is not None and due > now:
        return f"waiting {f'for {where} ' if where else ''}{until(recipient['due'], now)}{why}"
    return f"due now{f', after {_tries(tries)}{why}' if tries else ''}"


def happened(event: Row, now: datetime) -> str:
    """An event of a message in words."""
    host, tls, reply = clean(event.get("host")), clean(event.get("tls")), clean(event.get("reply"))
    text = clean(event.get("action"))
    if host:
        text += f" {_TOWARDS.get(text, 'by')} {host}{f' ({tls})' if tls else ''}"
    if reply:
        text += f": {reply}"
    if event.get("next"):
        text += f"; next try {at(event['next'], now)}"
    return text


def sender(address: object) -> str:
    """An envelope sender; the null return path has no address."""
    return clean(address) or "<> (a report)"


def story(row: Row, now: datetime) -> list[str]:
    """All that is known of a message."""
    recipients = row.get("recipients") or []
    names = {one.get("n"): clean(one.get("address")) for one in recipients}
    open_ones = [one for one in recipients if one.get("state") != "done"]
    whence = f"from {clean(row.get('client'))} at listener {clean(row.get('listener'))}"
    lines = [
        f"message   {clean(row.get('id'))}",
        f"sender    {sender(row.get('sender'))}",
        f"received  {at(row.get('arrived'), now)} ({since(row.get('arrived'), now)} ago) {whence}",
        f"size      {size(row.get('size'))}",
    ]
    if open_ones:
        lines.append(f"tried     {until(row.get('expires'), now)}, then the sender is told that it failed")
    lines += ["", "recipients"]
    lines += [f"  {names[one.get('n')]}: {standing(one, now)}" for one in recipients]
    lines += ["", "what happened"]
    for event in row.get("events") or []:
        whom = names.get(event.get("n"), "")
        lines.append(f"  {at(event.get('at'), now)}  {f'{whom}  ' if whom else ''}{happened(event, now)}")
    return lines


def queue(rows: Sequence[Row], now: datetime, width: int | None) -> list[str]:
    """The queue, a line for each recipient, fitted to a terminal of that width; not cut where there is none."""
    cells = [("ID", "AGE", "SIZE", "SENDER", "RECIPIENT", "STANDS")]
    for row in rows:
        lead = (clean(row.get("id")), since(row.get("arrived"), now), size(row.get("size")), sender(row.get("sender")))
        recipients = row.get("recipients") or []
        cells += [(*lead, clean(one.get("address")), standing(one, now)) for one in recipients]
        if row.get("more"):
            cells.append((*lead, "...", f"and more; see: vmtpctl show {clean(row.get('id'))}"))
    return table(cells, width, {3: 28, 4: 32})


def status(row: Row, now: datetime, width: int | None) -> list[str]:
    """The state of the daemon on a screen."""
    q, counted = row.get("queue") or {}, row.get("metrics") or {}
    oldest = f", the oldest of {since(q['oldest'], now)} ago" if q.get("oldest") else ""
    lines = [
        f"vmtpd {clean(row.get('version'))} on {clean(row.get('hostname'))}, up for {since(row.get('started'), now)}",
        f"config    {clean(row.get('config'))}",
    ]
    for one in row.get("listeners") or []:
        doors = " ".join(clean(item) for item in one.get("listen") or [])
        lines.append(
            f"listener  {clean(one.get('name'))}: {doors}, {clean(one.get('role'))}, TLS {clean(one.get('tls'))}"
        )
    lines += [
        f"queue     {q.get('queued', 0)} waiting, {q.get('leased', 0)} being delivered, {q.get('held', 0)} held",
        f"          {q.get('messages', 0)} messages, {size(q.get('octets', 0))}{oldest}",
    ]
    shown = [f"{clean(name).replace('_', ' ')} {value}" for name, value in counted.items() if value]
    lines += [f"counted   {line}" for line in _wrapped(shown or ["nothing yet"], (width or 120) - 10)]
    cells = [("DESTINATION", "STANDS")]
    cells += [(clean(one.get("name")), _destination(one, now)) for one in row.get("destinations") or []]
    return lines if len(cells) == 1 else [*lines, "", *table(cells, width, {0: 40})]


def _destination(one: Row, now: datetime) -> str:
    if one.get("state") == "down":
        reply = clean(one.get("reply"))
        return f"down {until(one.get('until'), now)}, {_tries(one.get('failures') or 0, 'failure')}{': ' + reply if reply else ''}"
    return f"up, {_tries(one.get('deliveries') or 0, 'delivery')} under way, {one.get('waiting') or 0} in line"


def _tries(count: int, noun: str = "try") -> str:
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{count} {noun if count == 1 else plural}"


def _wrapped(items: Iterable[str], width: int) -> list[str]:
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + len(item) + 2 <= width:
            lines[-1] += f", {item}"
        else:
            lines.append(item)
    return lines


def table(cells: Sequence[tuple[str, ...]], width: int | None, most: dict[int, int]) -> list[str]:
    """Columns under their heads, the last one as long as it is.

    On a terminal columns are cut at their `most`; where a line would still be too long, the last column goes below, as it says why.
    """
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    if width is None:
        return [_row(row, widths, "  ") for row in cells]
    widths = [min(each, most.get(i, each)) for i, each in enumerate(widths)]
    longest = sum(widths[:-1]) + 2 * len(widths[:-1]) + max(len(row[-1]) for row in cells)
    below = "  " if longest <= width else "\n    "
    lines = [line for row in cells for line in _row(row, widths, below).split("\n")]
    return [_cut(line, max(width, 20)) for line in lines]


def _row(row: tuple[str, ...], widths: Sequence[int], below: str) -> str:
    lead = "  ".join(_cut(cell, each).ljust(each) for cell, each in zip(row[:-1], widths[:-1], strict=True))
    return (lead if below == "  " else lead.rstrip()) + below + row[-1]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
