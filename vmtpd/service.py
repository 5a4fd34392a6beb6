"""The assembly: a configuration becomes a relay at work, and a relay at work comes to an orderly end.

The only room that knows all others, and the only one that imports the reactor: clocks, threads and randomness are handed on from here.

Start: raise limits, read certificates, bind sockets (with the privileges that twistd may drop later); then open the store, take up the
queue, open the doors, and the operator's socket last: when vmtpctl gets an answer, everything works.
Stop: no new clients, idle ones are told to go, transactions and deliveries under way may end within `stop-within`; the store closes
last. What was not answered by then was not promised.

*Failures*: what cannot start is one sentence on standard error and exit status 1. A broken disk ends the daemon in the same way: its
supervisor starts it again, and what was acknowledged is found in the store.
"""

from __future__ import annotations

import atexit
import gc
import os
import random
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from vmtp.server import Limits as SessionLimits
from vmtpd import machine, metrics, outcomes, qmgr
from vmtpd.admin import Admin
from vmtpd.auth.checker import Checker
from vmtpd.config import Config, Listener
from vmtpd.delivery.maildir import MaildirDelivery
from vmtpd.delivery.smtp import SMTPDelivery
from vmtpd.gateway.control import ControlSite
from vmtpd.gateway.unix import SocketInUse, UnixSocket
from vmtpd.interfaces import StoreUnusable
from vmtpd.local import Local
from vmtpd.logs import File, Lines
from vmtpd.mail import Lease
from vmtpd.policy.limits import Sessions
from vmtpd.policy.relay import RelayPolicy
from vmtpd.retry import Backoff
from vmtpd.rewrite import rewrite
from vmtpd.routing.resolver import Resolver
from vmtpd.routing.router import Router
from vmtpd.smtpd import tls
from vmtpd.smtpd.door import Door, House, Listening
from vmtpd.store.sqlite import WRITER, SQLiteStore
from vmtpd.store.threads import Perform, Worker

SPARE_FILES = 500
"""Descriptors beside those of clients: deliveries, contents, the store."""

SWITCH_INTERVAL = 0.0005
"""Seconds between two threads' turns. Python's 5 ms make each commit wait that long behind the reactor."""

GC_THRESHOLDS = (10000, 20, 20)
"""A message makes few cycles: looking for them after every 700 new objects, as Python does, costs more than it frees."""

PROBE_MAX = 3
"""A destination that is down is probed at the latest after so many times the first retry."""


class Relay(Service):
    """One daemon of one configuration."""

    log = Logger()

    def __init__(self, config: Config, reactor: Any = None, output: Any = None) -> None:
        if reactor is None:
            from twisted.internet import reactor
        self._config = config
        self._reactor: Any = reactor
        self._doors: list[Door] = []
        self._ports: list[IListeningPort] = []
        self._sockets: list[tuple[Listener, socket.socket]] = []
        self._contexts: dict[str, Any] = {}
        self._metrics = metrics.new()
        self._log_file = File(config.server.log_file) if config.server.log_file else None
        self._lines = Lines(
            output or self._log_file or sys.stdout, lambda flush: reactor.callLater(0, flush), config.server.log
        )
        self._store: SQLiteStore | None = None
        self._manager: qmgr.QueueManager | None = None
        self._agents: dict[str, Any] = {}
        self._control: UnixSocket | None = None
        self._cores: set[int] = set()
        self._prepared = False
        self._failed = False

    # Start.

    def privilegedStartService(self) -> None:
        """Take what may need root, while we have it: twistd calls this before it drops privileges, `twist` does not."""
        super().privilegedStartService()
        self._prepare()

    def _prepare(self) -> None:
        """The limit of open files, keys, ports below 1024."""
        config = self._config
        wanted = config.limits.connections + config.queue.deliveries + SPARE_FILES
        if machine.raise_file_limit(wanted) < wanted:
            self.log.warn("fewer than {wanted} files may be open: clients may be turned away", wanted=wanted)
        try:
            for listener in config.listeners:
                if listener.tls != "none":
                    self._contexts[listener.name] = tls.context(listener.certificate, listener.key)
                for where in listener.listen:
                    if where.port:
                        self._sockets += [(listener, made) for made in machine.listen(where.host, where.port)]
            if self._log_file:
                self._log_file.open()
        except (machine.CannotListen, tls.Unusable, OSError) as error:
            # Raised from here, an error would leave a twistd that goes to the background waiting for it for ever.
            self._end(str(error))
        self._prepared = True

    def startService(self) -> None:
        """Begin to work, as soon as the reactor runs."""
        super().startService()
        if not self._prepared:
            self._prepare()
        if self._failed:
            return
        sys.setswitchinterval(SWITCH_INTERVAL)
        self._cores = machine.bind_to_one_core()
        gc.set_threshold(*GC_THRESHOLDS)
        gc.freeze()
        begun = Deferred.fromCoroutine(self._begin())
        begun.addErrback(self._not_begun)

    async def _begin(self) -> None:
        config = self._config
        kind = machine.file_system(config.server.data)
        if kind in machine.FLEETING:
            self.log.warn(
                "{data} is on {kind}, which does not outlive the machine or container: accepted mail will be lost with it. "
                "Set data in [server] to a folder on a disk or volume.",
                data=config.server.data,
                kind=kind,
            )
        store = self._store = SQLiteStore(
            config.server.data,
            self._reactor,
            min_free=config.queue.min_free,
            history=config.queue.history,
            history_messages=config.queue.history_messages,
            worker=self._make_worker,
        )
        store.onBroken = self._store_broke
        await store.open()
        local = Local(
            hostname=config.server.hostname,
            origin=config.server.origin,
            domains=frozenset(config.local.domains),
            mailboxes=frozenset(config.local.mailboxes),
            catch_all=config.local.catch_all,
            admin=config.server.admin,
        )
        manager = self._manager = self._make_manager(store, local)
        await manager.start()
        house = House(
            hostname=config.server.hostname,
            local=local,
            store=store,
            submit=manager,
            policy=self._make_policy(local),
            clock=self._reactor,
            wall=time.time,
            lines=self._lines,
            metrics=self._metrics,
        )
        await self._open_doors(house)
        admin = Admin(config, store, manager, manager, self._metrics, self._lines)
        self._control = UnixSocket(self._reactor, config.server.control, ControlSite(admin))
        self._control.startService()
        self.log.info("ready: {doors}", doors=", ".join(self._shown()))

    def _in_thread(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Call a function in a thread, on whatever core is free."""
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._spread, function, *args)

    def _spread(self, function: Callable[..., Any], *args: Any) -> Any:
        machine.spread(self._cores)
        return function(*args)

    def _make_worker(self, name: str, perform: Perform) -> Worker:
        """A thread of the store. The writer's stays on the reactor's core: each waits for the other's turn with Python's lock."""
        begin = None if name == WRITER else partial(machine.spread, self._cores)
        return Worker(self._reactor, name, perform, begin)

    def _make_policy(self, local: Local) -> RelayPolicy:
        config = self._config
        sessions = Sessions(config.limits.connections, config.limits.connections_per_client)
        users = config.server.users
        check = Checker(users, self._reactor, self._in_thread).check if users else None
        return RelayPolicy(local, sessions, config.limits.recipients, check)

    def _make_manager(self, store: SQLiteStore, local: Local) -> qmgr.QueueManager:
        config, queue = self._config, self._config.queue
        resolver = Resolver(self._reactor, self._names, self._addresses)
        router = Router(local, config.local.maildir, config.routes, resolver)
        self._agents = {
            "smtp": SMTPDelivery(
                self._reactor,
                resolver,
                config.server.hostname,
                self._in_thread,
                rewrite,
                idle=queue.idle_connection,
                messages=queue.messages_per_connection,
                connect=queue.connect_timeout,
            ),
            "maildir": MaildirDelivery(config.server.hostname, self._in_thread),
        }
        jitter = queue.retry_jitter / 100
        backoff = Backoff(queue.retry_first, queue.retry_factor, queue.retry_max, jitter)
        probes = Backoff(
            queue.retry_first, queue.retry_factor, min(queue.retry_max, PROBE_MAX * queue.retry_first), jitter
        )

        def make_outcomes(settled: Callable[[Lease], None], awaited: Callable[[float], None]) -> outcomes.Outcomes:
            return outcomes.Outcomes(
                store,
                outcomes.Patience(backoff, queue.warn_after, queue.lifetime),
                hostname=config.server.hostname,
                admin=config.server.admin,
                clock=self._reactor,
                wall=time.time,
                chance=random.random,
                lines=self._lines,
                metrics=self._metrics,
                settled=settled,
                awaited=awaited,
            )

        return qmgr.QueueManager(
            store,
            router,
            self._agents,
            qmgr.Limits(queue.window, queue.deliveries, queue.deliveries_per_destination, queue.lifetime),
            probes,
            outcomes=make_outcomes,
            clock=self._reactor,
            wall=time.time,
            chance=random.random,
            metrics=self._metrics,
        )

    def _names(self) -> Any:
        """twisted.names, which only deliveries by MX need."""
        from twisted.names.client import Resolver as Names

        return Names(resolv="/etc/resolv.conf", reactor=self._reactor)

    def _addresses(self, host: str) -> Deferred[list[str]]:
        def ask() -> list[str]:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            return list(dict.fromkeys(str(address[0]) for *_, address in found))

        return self._in_thread(ask)

    async def _open_doors(self, house: House) -> None:
        limits = self._config.limits
        session_limits = SessionLimits(
            line=limits.line_length,
            size=limits.message_size,
            errors=limits.errors,
            junk=limits.junk_commands,
            patience=limits.timeout,
        )
        doors = {}
        for listener in self._config.listeners:
            context = self._contexts.get(listener.name)
            mechanisms = ("PLAIN", "LOGIN") if listener.auth else ()
            listening = Listening(
                listener.name, listener.role, listener.networks, listener.tls == "implicit", context, mechanisms
            )
            door = Door(house, listening, session_limits)
            self._doors.append(door)
            doors[listener.name] = TLSMemoryBIOFactory(context, False, door) if context and listening.implicit else door
            for where in listener.listen:
                if not where.port:
                    endpoint = serverFromString(self._reactor, where.endpoint)
                    self._ports.append(await endpoint.listen(doors[listener.name]))
        for listener, made in self._sockets:
            port = self._reactor.adoptStreamPort(made.fileno(), made.family, doors[listener.name])
            made.close()
            self._ports.append(port)
        self._sockets = []

    def _shown(self) -> list[str]:
        return [f"{one.name} on {', '.join(map(str, one.listen))}" for one in self._config.listeners]

    # Trouble.

    def _not_begun(self, failure: Failure) -> None:
        if failure.check(StoreUnusable, SocketInUse, OSError):
            self._end(failure.getErrorMessage())
        else:
            self.log.failure("vmtpd cannot start", failure)
            self._end("an internal error, see the log")

    def _store_broke(self, error: Exception) -> None:
        self._end(f"the store failed, nothing more is accepted: {error}")

    def _end(self, why: str) -> None:
        """Stop, and leave with status 1."""
        if not self._failed:
            self._failed = True
            print(f"vmtpd: {why}", file=sys.stderr, flush=True)
            atexit.register(_leave_with_1)
            self._reactor.callLater(0, self._reactor.stop)

    # Stop.

    def stopService(self) -> Deferred[None]:
        """Come to an end. Fires when nothing is under way any more, or `stop-within` is over."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        within = self._config.limits.stop_within
        if self._control:
            await self._control.stopService()
        for _, made in self._sockets:
            made.close()
        await _all([port.stopListening() for port in self._ports])
        under_way = [door.close() for door in self._doors]
        if self._manager and not self._failed:
            under_way.append(self._manager.stop())
        await self._at_most(_all(under_way), 0.0 if self._failed else within)
        for door in self._doors:
            door.abort()
        await self._at_most(_all([agent.close() for agent in self._agents.values()]), 2.0)
        if self._store:
            await self._store.close()
        self._lines.flush()

    async def _at_most(self, waited: Deferred[Any], seconds: float) -> None:
        """Wait, but not longer."""
        over: Deferred[None] = Deferred()
        timer = self._reactor.callLater(seconds, over.callback, None)
        await DeferredList([waited, over], fireOnOneCallback=True, consumeErrors=True)
        if timer.active():
            timer.cancel()


def _all(waited: list[Any]) -> Deferred[Any]:
    return DeferredList([each for each in waited if isinstance(each, Deferred)], consumeErrors=True)


def _leave_with_1() -> None:
    # twistd knows no way to end with a status; everything is closed by now.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
