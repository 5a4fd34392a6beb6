"""vmtpctl on the command line, against a daemon that is a stub."""

import http.server
import io
import json
import os
import shutil
import socketserver
import sys
import tempfile
import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.vmtpd.stubs import ID, NEXT, told, waiting
from vmtpd.admin import shown
from vmtpd.auth import users
from vmtpd.ctl import main


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers from a table, and notes what was asked."""

    server: "Stub"

    def address_string(self) -> str:
        """A unix socket has no address."""
        return "unix"

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.command, self.path, json.loads(body) if body else None))
        status, row = self.server.answers.get(self.path, (404, {"detail": "there is no such path"}))
        octets = row if isinstance(row, bytes) else json.dumps(row).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(octets)))
        self.end_headers()
        self.wfile.write(octets)

    do_GET = do_POST = _answer


class Stub(socketserver.UnixStreamServer):
    """A daemon on a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__(path, Answers)
        self.asked: list[tuple[str, str, Any]] = []
        self.answers: dict[str, tuple[int, Any]] = {}


class MainTests(SynchronousTestCase):
    """What vmtpctl prints, and with which status it ends."""

    def setUp(self) -> None:
        """A configuration, and a daemon on its socket."""
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.config = os.path.join(self.folder, "test.ini")
        with open(self.config, "w") as file:
            file.write(
                "[server]\nhostname=relay.example.org\ndata = .\nusers = users\n"
                "[listener a]\nlisten=*:25\n[route r]\nsmarthost=submission://smtp.example.net\n"
            )
        self.daemon = Stub(os.path.join(self.folder, "control"))
        thread = threading.Thread(target=self.daemon.serve_forever, args=(0.01,))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.daemon.server_close)
        self.addCleanup(self.daemon.shutdown)

    def run_main(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        """Exit status, output and errors of a command."""
        out, err = io.StringIO(), io.StringIO()
        for name, stream in (("stdout", out), ("stderr", err), ("stdin", io.StringIO(stdin))):
            self.patch(sys, name, stream)
        try:
            status = main(["-c", self.config, *arguments])
        except SystemExit as end:
            status = int(end.code or 0)
        return status, out.getvalue(), err.getvalue()

    def test_queue(self) -> None:
        """The queue is asked for with the filters, and shown."""
        self.daemon.answers["/v1/queue?recipient=%40example.net&limit=5"] = (
            200,
            {"messages": [shown(waiting())], "next": ID},
        )
        status, out, err = self.run_main("queue", "--recipient", "@example.net", "--limit", "5")
        self.assertEqual((status, err), (0, ""))
        self.assertIn("bob@example.net", out)
        self.assertIn(f"more: vmtpctl queue --after {ID}", out)

    def test_empty_queue(self) -> None:
        """An empty queue is said to be so."""
        self.daemon.answers["/v1/queue?limit=100"] = (200, {"messages": [], "next": None})
        self.assertEqual(self.run_main("queue"), (0, "nothing waits here\n", ""))

    def test_json(self) -> None:
        """With --json, before or after the verb, programs get what the daemon said."""
        self.daemon.answers["/v1/status"] = (200, {"version": "1"})
        for arguments in (("--json", "status"), ("status", "--json")):
            status, out, _ = self.run_main(*arguments)
            self.assertEqual((status, json.loads(out)), (0, {"version": "1"}))

    def test_show(self) -> None:
        """The story of a message is shown; an unknown one ends with status 1 and the daemon's words."""
        self.daemon.answers[f"/v1/messages/{ID}"] = (200, shown(told()))
        self.assertIn("what happened", self.run_main("show", ID)[1])
        self.assertEqual(self.run_main("show", NEXT), (1, "", "vmtpctl: there is no such path\n"))
        self.assertEqual(self.run_main("show", "../../x")[0], 1)
        self.assertEqual(len(self.daemon.asked), 2)

    def test_changes(self) -> None:
        """Verbs go to messages, to what filters mean, or to everything."""
        self.daemon.answers = {
            f"/v1/messages/{ID}/hold": (200, {"recipients": 1}),
            f"/v1/messages/{NEXT}/hold": (200, {"recipients": 2}),
            "/v1/queue/delete": (200, {"recipients": 1}),
            "/v1/queue/retry": (200, {"recipients": 0}),
        }
        self.assertEqual(self.run_main("hold", ID, NEXT), (0, "3 recipients held\n", ""))
        self.assertEqual(self.run_main("delete", "--sender", "@example.org"), (0, "1 recipient deleted\n", ""))
        self.assertEqual(self.daemon.asked[-1], ("POST", "/v1/queue/delete", {"sender": "@example.org"}))
        self.assertEqual(self.run_main("retry", "--all")[:2], (1, "nothing of it waits for its next try\n"))
        self.assertEqual(self.daemon.asked[-1], ("POST", "/v1/queue/retry", {"all": True}))

    def test_a_change_must_be_meant(self) -> None:
        """A verb without anything, or with two ways of saying what, changes nothing and ends with status 2."""
        for arguments in ((), (ID, "--all"), (ID, "--sender", "a@b.example"), ("--all", "--state", "held")):
            status, out, err = self.run_main("delete", *arguments)
            self.assertEqual((status, out), (2, ""))
            self.assertIn("say what to delete", err)
        self.assertEqual(self.daemon.asked, [])

    def test_send_test(self) -> None:
        """A test message is sent; with --wait its story follows, and the status says whether it went out."""
        self.daemon.answers["/v1/send-test"] = (200, {"id": ID})
        self.assertEqual(
            self.run_main("send-test", "bob@example.net")[:2], (0, f"sent as {ID}; its way: vmtpctl show {ID}\n")
        )
        self.daemon.answers[f"/v1/messages/{ID}"] = (200, shown(told()))
        status, out, _ = self.run_main("send-test", "bob@example.net", "--wait")
        self.assertEqual((status, "451 4.3.0 later" in out), (1, True))
        row = shown(told())
        row["recipients"][0] |= {"state": "done", "action": "relayed", "reply": "250 ok"}
        self.daemon.answers[f"/v1/messages/{ID}"] = (200, row)
        status, out, _ = self.run_main("send-test", "bob@example.net", "--wait")
        self.assertEqual((status, "relayed: 250 ok" in out), (0, True))

    def test_nobody_answers(self) -> None:
        """Without a daemon the status is 69, and one sentence says what to do."""
        status, out, err = self.run_main("--socket", os.path.join(self.folder, "other"), "status")
        self.assertEqual((status, out, err.count("\n")), (69, "", 1))
        self.assertIn("systemctl start vmtpd", err)

    def test_somebody_else_answers(self) -> None:
        """What is no answer of the daemon's is not shown as one."""
        self.daemon.answers["/v1/status"] = (200, b"<html>")
        status, out, err = self.run_main("status")
        self.assertEqual((status, out), (69, ""))
        self.assertIn("is not vmtpd", err)

    def test_users(self) -> None:
        """Logins are kept without a password on the command line."""
        self.patch(users, "N", 1 << 10)
        self.assertEqual(self.run_main("user", "list"), (0, "", ""))
        self.assertEqual(self.run_main("user", "add", "Ann", stdin="correct horse\n"), (0, "", ""))
        self.assertEqual(self.run_main("user", "list"), (0, "ann\n", ""))
        self.assertTrue(users.verify(users.read(os.path.join(self.folder, "users")), "ann", "correct horse"))
        self.assertEqual(self.run_main("user", "passwd", "ann", stdin="short")[0], 1)
        self.assertEqual(self.run_main("user", "passwd", "ann", stdin="battery staple")[0], 0)
        self.assertEqual(self.run_main("user", "remove", "bob")[0], 1)
        self.assertEqual(self.run_main("user", "remove", "ann"), (0, "", ""))

    def test_no_users_file(self) -> None:
        """Where the configuration names no users file, that is said."""
        with open(self.config, "w") as file:
            file.write("[server]\n")
        status, _, err = self.run_main("user", "list")
        self.assertEqual((status, "set users in [server]" in err), (2, True))

    def test_check_config(self) -> None:
        """A good configuration is told in words."""
        status, out, _ = self.run_main("check-config")
        self.assertEqual(status, 0)
        for want in (
            "test.ini: ok",
            "listener a: *:25, relays for 127.0.0.0/8 ::1/128, no TLS",
            "route r: * to smtp.example.net port 587, TLS verified",
        ):
            self.assertIn(want, out)

    def test_bad_config(self) -> None:
        """With a bad configuration every verb ends with status 78 and says where."""
        with open(self.config, "w") as file:
            file.write("[server]\nadmin = me\n")
        for verb in ("status", "check-config"):
            status, out, err = self.run_main(verb)
            self.assertEqual((status, out), (78, ""))
            self.assertIn("test.ini:2: [server] admin", err)

    def test_usage(self) -> None:
        """Wrong arguments end with status 2."""
        for arguments in ((), ("burn",), ("show",), ("queue", "--state", "lost"), ("queue", "--limit", "x")):
            self.assertEqual(self.run_main(*arguments)[0], 2)
