"""Who may import whom: the table of docs/architecture.md, read from the sources."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent

IO = {
    *(
        "asyncio",
        "fcntl",
        "http",
        "io",
        "mmap",
        "multiprocessing",
        "os",
        "pathlib",
        "select",
        "selectors",
        "shutil",
        "signal",
    ),
    *("smtplib", "socket", "socketserver", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "urllib"),
    *("time.time", "time.monotonic", "time.perf_counter", "time.sleep", "time.localtime"),
}
"""Parts of the standard library that do I/O or tell the time; the protocol goes without them."""

VALUES = {
    *("mail", "interfaces", "options", "ini", "checks", "config", "reference", "logs", "metrics", "budget", "ids"),
    *("local", "machine"),
}
PURE = {"cleanup", "rewrite", "retry", "bounce", "policy"}
ROOMS = PURE | {"auth", "store", "routing", "delivery"}
QUEUE_MANAGER = {"qmgr", "destination", "outcomes"}
UPPER = QUEUE_MANAGER | {"smtpd", "gateway", "admin"}
TOP = {"service", "tap"}
CTL = {"ctl", "mail", "options", "ini", "checks", "config", "ids"}


def modules() -> Iterator[tuple[str, Path]]:
    """Our modules: dotted names and files."""
    for package in ("vmtp", "vmtpd"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> Iterator[str]:
    """What a module imports when it runs; imports for types alone do not count."""
    yield from _imports(ast.parse(path.read_text(encoding="utf-8")))


def _imports(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            for other in child.orelse:
                yield from _imports(other)
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif isinstance(child, ast.Attribute) and isinstance(child.value, ast.Name) and child.value.id == "time":
            yield f"time.{child.attr}"
        else:
            yield from _imports(child)


def room(name: str) -> str:
    """The room of a module of the daemon: its first name below vmtpd."""
    return ([*name.split("."), ""])[1]


def fault(name: str, imported: str) -> str:
    """What is wrong with an import, or "" where nothing is."""
    if imported == "twisted.internet.reactor" and name != "vmtpd.service":
        return "the reactor is passed in"
    package, _, _ = imported.partition(".")
    if package == "tests":
        return "tests are not shipped"
    return _protocol(name, package, imported) if name.split(".")[0] == "vmtp" else _daemon(name, package, imported)


def _protocol(name: str, package: str, imported: str) -> str:
    if package == "vmtp":
        outer = name.startswith("vmtp.transports") or name.endswith("__main__")
        return "" if outer or not imported.startswith("vmtp.transports") else "transports stand above"
    if package in sys.stdlib_module_names:
        core = not name.startswith("vmtp.transports") and not name.endswith("__main__")
        return "the protocol does no I/O" if core and {package, imported} & IO else ""
    return "" if name == "vmtp.transports.tx" else "the protocol needs the standard library alone"


def _daemon(name: str, package: str, imported: str) -> str:
    here, there = room(name), room(imported)
    own = package == "vmtpd" and there not in ("", "__version__")
    if here in TOP or (not own and package == "vmtpd"):
        return ""
    if here == "ctl":
        if package in ("twisted", "zope"):
            return "vmtpctl goes without Twisted"
        fine = there in CTL or imported.startswith("vmtpd.auth.users") or imported == "vmtpd.auth.users"
        return "" if not own or fine else "vmtpctl knows files and the socket alone"
    if here in VALUES:
        if package == "twisted" and not imported.startswith("twisted.logger"):
            return "values go without Twisted"
        return "" if not own or there in VALUES else "values stand below"
    if here in ROOMS:
        if imported.startswith("vmtp.transports"):
            return "" if here == "delivery" and imported.startswith("vmtp.transports.tx") else "delivery alone connects"
        return "" if not own or there in VALUES or there == here else "rooms meet over interfaces"
    if here in UPPER:
        fine = there in VALUES | PURE or there == here or (here, there) == ("gateway", "admin")
        fine = fine or {here, there} <= QUEUE_MANAGER
        return "" if not own or fine else "the rest comes as interfaces"
    return "" if here == "" else "the table does not know this room"


class ImportTests(SynchronousTestCase):
    """The walls of the house stand where the plan has them."""

    def test_table(self) -> None:
        """No module imports what its place in the house does not allow."""
        found = [
            f"{name} imports {imported}: {text}"
            for name, path in modules()
            for imported in imports(path)
            if (text := fault(name, imported))
        ]
        self.assertEqual(found, [])

    def test_table_can_fail(self) -> None:
        """The check sees the mistakes it is for."""
        for name, imported in (
            ("vmtp.replies", "socket"),
            ("vmtp.replies", "time.time"),
            ("vmtp.replies", "twisted.python.log"),
            ("vmtp.server.engine", "vmtp.transports.blocking.Connection"),
            ("vmtpd.config", "twisted.internet.defer.Deferred"),
            ("vmtpd.mail", "vmtpd.store.sqlite"),
            ("vmtpd.delivery.smtp", "vmtpd.routing.router.Router"),
            ("vmtpd.smtpd.session", "vmtpd.store.sqlite.SQLiteStore"),
            ("vmtpd.qmgr", "twisted.internet.reactor"),
            ("vmtpd.ctl.words", "vmtpd.admin.Admin"),
            ("vmtpd.ctl", "twisted.python.usage"),
        ):
            self.assertNotEqual(fault(name, imported), "", f"{name} may import {imported}")

    def test_vmtpctl_without_twisted(self) -> None:
        """vmtpctl answers at once, as nothing of Twisted is loaded for it, not even by what it imports."""
        code = "import sys, vmtpd.ctl; print([m for m in sys.modules if m.partition('.')[0] in ('twisted', 'zope')])"
        result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
        self.assertEqual((result.stdout.strip(), result.stderr), ("[]", ""))
