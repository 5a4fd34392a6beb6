"""The control socket: HTTP and JSON on a unix socket, by which vmtpctl talks to the daemon.

    GET  /v1/status
    GET  /v1/queue?state=&sender=&recipient=&destination=&client=&limit=&after=
    GET  /v1/messages/ID
    POST /v1/messages/ID/{retry,hold,release,delete}
    POST /v1/queue/{retry,hold,release,delete}      the same filters as JSON; {"all": true} for everything
    POST /v1/send-test                              {"to": address}

Who may open the socket (mode 0660) may do all of it: the file system is the guard. It only turns HTTP into the verbs of admin.py.

*Failures*: answered as problem details (RFC 9457): 400 for what makes no sense, 404, 405, 413, and 503 while the store is broken,
full or asked for too much. Bugs are logged and answered with 500, without their text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from vmtpd.admin import VERBS, Refused, number, queue_filter
from vmtpd.interfaces import StoreBroken, StoreFull, TooMuch
from vmtpd.mail import QueueFilter, Row

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from vmtpd.admin import Admin

MAX_BODY = 64 << 10
"""Octets of a request's body."""

_TITLES = {
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Problem(Exception):
    """An answer other than what was asked for."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail


class ControlRequest(Request):
    """A request whose body is not kept beyond `MAX_BODY`; who goes on sending is cut off. `left` tells that nobody waits."""

    received = 0
    left = False

    def connectionLost(self, reason: Failure) -> None:
        """Note that the operator is gone. What was asked for is done all the same, as it may be under way."""
        self.left = True
        super().connectionLost(reason)

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a piece of the body, if there is room."""
        self.received += len(data)
        if self.received <= MAX_BODY:
            super().handleContentChunk(data)
        elif self.received > 16 * MAX_BODY and isinstance(self.channel, HTTPChannel):
            self.channel.forceAbortClient()


class ControlSite(Site):
    """The site of the control socket. It keeps no access log: changes are logged by admin.py, and looks are not news."""

    displayTracebacks = False
    noisy = False

    def __init__(self, admin: Admin, reactor: object = None) -> None:
        super().__init__(Control(admin), requestFactory=ControlRequest, timeout=60, reactor=reactor)

    def log(self, request: object) -> None:
        """Nothing."""


class Control(Resource):
    """All of the control socket's paths."""

    isLeaf = True
    log = Logger()

    def __init__(self, admin: Admin) -> None:
        super().__init__()
        self._admin = admin

    def render(self, request: ControlRequest) -> int:
        """Answer a request, now or once the store has answered."""
        answer = Deferred.fromCoroutine(self._answer(request))
        answer.addCallbacks(lambda row: _write(request, 200, row), self._failed, errbackArgs=(request,))
        answer.addErrback(lambda failure: self.log.failure("an answer could not be written", failure))
        return NOT_DONE_YET

    async def _answer(self, request: ControlRequest) -> Row:
        if request.received > MAX_BODY:
            raise Problem(413, f"a request has at most {MAX_BODY} octets")
        path = request.path.decode("ascii", "replace").strip("/").split("/")
        match request.method.decode("ascii", "replace"), path:
            case "GET", ["v1", "status"]:
                return await self._admin.status()
            case "GET", ["v1", "queue"]:
                return await self._queue(_query(request))
            case "GET", ["v1", "messages", id]:
                story = await self._admin.story(id)
                if story is None:
                    raise Problem(404, f"there is no message {id[:40]}; it may be older than the history that is kept")
                return story
            case "POST", ["v1", "messages", id, verb] if verb in VERBS:
                if await self._admin.story(id) is None:
                    raise Problem(404, f"there is no message {id[:40]}")
                return await self._change(verb, QueueFilter(id=number(id)))
            case "POST", ["v1", "queue", verb] if verb in VERBS:
                return await self._change(verb, _meant(_body(request)))
            case "POST", ["v1", "send-test"]:
                to = _body(request).get("to")
                if not isinstance(to, str):
                    raise Problem(400, 'the body must be {"to": address}')
                return {"id": await self._admin.send_test(to, _WHO)}
            case _, ["v1", "status" | "queue"] | ["v1", "messages", _]:
                raise Problem(405, "this can only be read, by GET")
            case _, ["v1", "send-test"] | ["v1", "queue", _] | ["v1", "messages", _, _]:
                raise Problem(405 if request.method != b"POST" else 404, f"POST it, with one of: {', '.join(VERBS)}")
        raise Problem(404, "there is no such path")

    async def _queue(self, query: Mapping[str, str]) -> Row:
        given = dict(query)
        limit, after = given.pop("limit", "100"), given.pop("after", "")
        if not limit.isdecimal() or len(limit) > 6:
            raise Problem(400, "limit must be a number")
        return await self._admin.queue(queue_filter(given), int(limit), after)

    async def _change(self, verb: str, which: QueueFilter) -> Row:
        return {"verb": verb, "recipients": await self._admin.change(verb, which, _WHO)}

    def _failed(self, failure: Failure, request: ControlRequest) -> None:
        error = failure.value
        match error:
            case Problem():
                status, detail = error.status, error.detail
            case Refused():
                status, detail = 400, str(error)
            case TooMuch():
                status, detail = 503, "too much to look through while mail flows; ask for less, or with more filters"
            case StoreFull():
                status, detail = 503, "the disk of the queue is full"
            case StoreBroken():
                status, detail = 503, "the disk of the queue failed; the daemon ends"
            case _:
                self.log.failure("a request of the operator failed", failure)
                status, detail = 500, "the daemon failed at this; its log says how"
        _write(request, status, {"title": _TITLES[status], "status": status, "detail": detail})


_WHO = "control"


def _write(request: ControlRequest, status: int, row: Row) -> None:
    if request.left:
        return
    kind = b"application/json" if status == 200 else b"application/problem+json"
    request.setResponseCode(status, _TITLES.get(status, "OK").encode("ascii"))
    request.setHeader(b"content-type", kind)
    request.setHeader(b"cache-control", b"no-store")
    octets = json.dumps(row, default=str).encode("ascii") + b"\n"
    request.setHeader(b"content-length", b"%d" % len(octets))
    request.write(octets)
    request.finish()


def _query(request: Request) -> dict[str, str]:
    """The query's fields, each once; empty ones are as good as absent."""
    fields: dict[str, str] = {}
    for name, values in (request.args or {}).items():
        if len(values) != 1:
            raise Problem(400, "a filter may be given once")
        if values[0]:
            fields[name.decode("utf-8", "replace")] = values[0].decode("utf-8", "replace")
    return fields


def _body(request: Request) -> dict[str, Any]:
    octets = request.content.read(MAX_BODY) if request.content else b""
    try:
        value = json.loads(octets or b"{}")
    except (ValueError, RecursionError):
        raise Problem(400, "the body is not JSON") from None
    if not isinstance(value, dict):
        raise Problem(400, "the body must be a JSON object")
    return value


def _meant(body: dict[str, Any]) -> QueueFilter:
    """The filter of a change: an empty one must be meant."""
    everything = body.pop("all", False)
    which = queue_filter(body)
    if which == QueueFilter() and everything is not True:
        raise Problem(400, 'name what is meant by a filter, or everything by "all": true')
    return which
