"""vmtpctl: what an operator asks of the daemon and its files, on a command line.

It talks HTTP to the daemon's control socket and reads the same configuration; it never imports Twisted, so that it answers at once.

*Failures*: exit status 1 where something failed or was not found, 2 for wrong arguments, 69 where the daemon
does not answer, 78 for a bad configuration; each with a sentence on standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from vmtpd import __version__
from vmtpd.auth.users import UsersError
from vmtpd.ctl import commands
from vmtpd.ctl.daemon import Problem, Unreachable
from vmtpd.ini import ConfigError

DEFAULT_CONFIG = "/etc/vmtpd/vmtpd.ini"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status."""
    arguments = parser().parse_args(argv)
    arguments.config = arguments.config or os.environ.get("VMTPD_CONFIG") or DEFAULT_CONFIG
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except commands.Usage as error:
        return _fail(commands.USAGE, error)
    except Unreachable as error:
        return _fail(commands.UNAVAILABLE, error)
    except ConfigError as error:
        return _fail(commands.CONFIG, error)
    except (Problem, UsersError) as error:
        return _fail(commands.FAILED, error)
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; nothing more may be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return commands.OK
    except KeyboardInterrupt:
        return 130


def _fail(status: int, error: Exception) -> int:
    sys.stdout.flush()
    print(f"vmtpctl: {error}" if status != commands.CONFIG else error, file=sys.stderr)
    return status


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="vmtpctl", description="Look into vmtpd, and steer it.")
    top.add_argument(
        "-c", "--config", metavar="FILE", help=f"the configuration (default: $VMTPD_CONFIG, {DEFAULT_CONFIG})"
    )
    top.add_argument("--socket", metavar="PATH", help="the control socket, instead of the configuration's")
    top.add_argument("--json", action="store_true", help="print JSON")
    top.add_argument("--version", action="version", version=f"vmtpctl {__version__}")
    verbs = top.add_subparsers(required=True, metavar="VERB", dest="verb")

    _verb(verbs, "status", "how the daemon is").set_defaults(run=commands.status)

    queue = _verb(verbs, "queue", "what waits, and why")
    queue.set_defaults(run=commands.queue)
    _filters(queue)
    queue.add_argument("--limit", type=int, default=100, metavar="N", help="at most so many messages (default: 100)")
    queue.add_argument("--after", default="", metavar="ID", help="go on after this message")

    show = _verb(verbs, "show", "the whole story of a message")
    show.set_defaults(run=commands.show)
    show.add_argument("id", metavar="ID")

    for name, about in (
        ("retry", "try now what waits"),
        ("hold", "keep from being tried"),
        ("release", "try again what is held"),
        ("delete", "remove from the queue, without a report"),
    ):
        change = _verb(verbs, name, about)
        change.set_defaults(run=commands.change)
        change.add_argument("ids", nargs="*", metavar="ID")
        _filters(change)
        change.add_argument("--all", action="store_true", help="everything")

    test = _verb(verbs, "send-test", "send a short message, to try the way")
    test.set_defaults(run=commands.send_test)
    test.add_argument("address", metavar="ADDRESS")
    test.add_argument("--wait", action="store_true", help="tell what became of its first try")
    test.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="wait so long (default: 30)")

    user = _verb(verbs, "user", "keep the users file; passwords are asked for, or read from the input")
    user.set_defaults(run=commands.user)
    actions = user.add_subparsers(required=True, metavar="ACTION", dest="action")
    for name, about in (("add", "a new login"), ("passwd", "a new password"), ("remove", "take a login away")):
        actions.add_parser(name, help=about, description=about).add_argument("name", metavar="NAME")
    actions.add_parser("list", help="all logins")

    check = _verb(verbs, "check-config", "check a configuration")
    check.set_defaults(run=commands.check_config)
    check.add_argument("file", nargs="?", metavar="FILE")
    return top


def _verb(verbs: argparse._SubParsersAction[argparse.ArgumentParser], name: str, about: str) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=about, description=about)
    verb.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
    return verb


def _filters(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--state", default="", choices=("queued", "leased", "held"), help="where recipients stand")
    verb.add_argument("--sender", default="", metavar="ADDRESS", help="a sender, or @domain")
    verb.add_argument("--recipient", default="", metavar="ADDRESS", help="a recipient, or @domain")
    verb.add_argument("--destination", default="", metavar="NAME", help="the destination at which they wait")
    verb.add_argument("--client", default="", metavar="NAME", help="the address or login that handed it in")
