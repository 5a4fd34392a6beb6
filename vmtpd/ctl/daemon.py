"""Talks to the daemon: HTTP and JSON over its control socket, by the standard library alone.

*Failures*: `Unreachable` where nobody answers, with what to do about it; `Problem` where the daemon says no, with its words.
"""

from __future__ import annotations

import http.client
import json
import socket
import urllib.parse
from typing import Any

MAX_ANSWER = 64 << 20
"""Octets of an answer."""


class Unreachable(Exception):
    """The daemon cannot be asked; the text says why, and what to do."""


class Problem(Exception):
    """The daemon refused; the text is its reason."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Daemon:
    """The daemon behind a control socket. Each request opens it anew."""

    def __init__(self, path: str, timeout: float = 30.0) -> None:
        self._path = path
        self._timeout = timeout

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Ask for something. Raises `Unreachable` and `Problem`."""
        text = urllib.parse.urlencode({name: value for name, value in query.items() if value})
        return self._request("GET", f"{path}?{text}" if text else path, None)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Have something done. Raises `Unreachable` and `Problem`."""
        return self._request("POST", path, json.dumps(body))

    def _request(self, method: str, path: str, body: str | None) -> dict[str, Any]:
        connection = _Connection(self._path, self._timeout)
        try:
            connection.request(method, path, body, {"Accept": "application/json"})
            response = connection.getresponse()
            octets = response.read(MAX_ANSWER)
        except (FileNotFoundError, ConnectionRefusedError):
            text = f"vmtpd does not run, or not with this configuration: nobody listens at {self._path}"
            raise Unreachable(f"{text}; start it, as by: systemctl start vmtpd") from None
        except PermissionError:
            raise Unreachable(f"you may not open {self._path}; ask as root, or as a member of its group") from None
        except TimeoutError:
            raise Unreachable(
                f"vmtpd does not answer at {self._path} within {self._timeout:g} s; see its log"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"vmtpd did not answer at {self._path}: {error}; see its log") from None
        finally:
            connection.close()
        try:
            answer = json.loads(octets)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise Unreachable(f"what listens at {self._path} is not vmtpd") from None
        if response.status != 200:
            raise Problem(response.status, str(answer.get("detail", response.reason)))
        return answer
