"""Tickets: a job that was asked for, followed as often as its owner likes, also after a reload or a restart.

Who asks gets a ticket and follows it; who goes away and comes back follows it again, from any event on.
A job whose last reader went away is given grace before it is cancelled.
An ended one is kept for its hour.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import threading
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

from app.engine.engine import Engine
from app.engine.event_log import EventLog
from app.engine.jobs import Event, Finished, Job, Progress, State
from app.engine.kinds import Kind
from app.engine.ticket_store import Record, TicketStore, digest
from app.errors import UNEXPECTED
from core.errors import BusyError, HaploOmniError, StoppedError, TicketError

HEARTBEAT_S = 1.0
GRACE_S = 30.0
KEEP_S = 3600.0
UNKNOWN = (
    "This job is not known here: its time is over, the program was restarted, or it is another visitor's; "
    "please ask again."
)
RESTARTED = "The program was restarted while this was being made; run it again."


@dataclass(eq=False)
class Ticket:
    """One job that was asked for.

    Args:
        id: nobody can guess it; empty where an earlier run of the program gave it.
        key: by what it is known here, the digest of its id.
        kind: of the job.
        job: what was asked, as plain data.
        owner: the digest of whose it is.
        grace_s: how long it goes on without a reader; None is to its end.
    """

    id: str
    key: str
    kind: Kind
    job: Any
    owner: str
    grace_s: float | None
    log: EventLog = field(default_factory=EventLog)
    live: Job | None = None
    address: str = ""
    unread_since_s: float | None = None
    ended_s: float | None = None  # by the monotonic clock, as the one above

    @property
    def ended(self) -> Finished | None:
        """How it ended, once it has."""
        return self.log.ended

    @property
    def values(self) -> list[Any]:
        """What came of it so far; of passing values the newest."""
        return [event.value for _, event in self.log.after(0) if isinstance(event, Progress)]


class Tickets:
    """Takes jobs and keeps their tickets.

    Args:
        engine: runs the jobs.
        store: where tickets outlive the program; None keeps them in memory alone.
        grace_s: how long a job without a reader goes on, in seconds.
        keep_s: how long an ended one is kept, in seconds.
        max_per_address: jobs of one address, running and waiting, before it refuses more; 0: no limit.
    """

    def __init__(
        self,
        engine: Engine,
        store: TicketStore | None = None,
        grace_s: float = GRACE_S,
        keep_s: float = KEEP_S,
        max_per_address: int = 0,
    ) -> None:
        self.engine = engine
        self.grace_s = grace_s
        self.keep_s = keep_s
        self.max_per_address = max_per_address
        self._store = store
        self._kinds: dict[str, Kind] = {}
        self._tickets: dict[str, Ticket] = {}
        self._lock = threading.Lock()
        self._due = threading.Condition(self._lock)
        self._closed = False
        self._tending = threading.Thread(target=self._tend, name="tickets", daemon=True)
        self._tending.start()

    def offer(self, kind: Kind) -> None:
        """Jobs of this kind can be asked for; those of an earlier run of the program are there again."""
        self._kinds[kind.name] = kind
        for record in self._store.read(kind.name) if self._store else ():
            self._restore(kind, record)

    def submit(
        self,
        kind: str,
        job: Any,
        owner: str,
        grace_s: float | None = None,
        finish: bool = False,
        address: str = "",
    ) -> Ticket:
        """Queue a job.

        Args:
            kind: the name of what was offered.
            job: plain picklable data.
            owner: whose it is; nobody else can follow, stop or fetch it.
            grace_s: how long it goes on without a reader; by default as long as all.
            finish: it goes on to its end without any.
            address: from where it was asked; of no address and of this machine's own there is no limit.

        Raises:
            BusyError: too many are waiting.
            StoppedError: the engine runs no jobs any more.
        """
        its = self._kinds[kind]
        ticket_id = secrets.token_urlsafe(24)
        grace_s = self.grace_s if grace_s is None else grace_s
        ticket = Ticket(ticket_id, digest(ticket_id), its, job, digest(owner), None if finish else grace_s)
        ticket.address = address if is_elsewhere(address) else ""
        expected_s, step_s = its.expected_s(job)
        with self._lock:
            self._refuse_when_full(ticket.address)
            self._tickets[ticket.key] = ticket
            ticket.unread_since_s = time.monotonic()
        self._write(ticket)
        try:
            ticket.live = self.engine.submit(
                lambda omni: its.work(omni, job),
                lambda event: self._on_event(ticket, event),
                lane=its.lane,
                owner=owner,
                attended=finish,
                expected_s=expected_s,
                expected_step_s=step_s,
            )
        except BaseException:
            self._drop(ticket)
            raise
        self._attend(ticket)  # who was quick reads already
        self._wake()
        return ticket

    def get(self, ticket_id: str, owner: str) -> Ticket:
        """The ticket of an id.

        Raises:
            TicketError: there is none, not any more, or it is somebody else's: who asks cannot tell which.
        """
        with self._lock:
            ticket = self._tickets.get(digest(ticket_id)) if isinstance(ticket_id, str) else None
        if ticket is None or not secrets.compare_digest(ticket.owner, digest(owner)):
            raise TicketError(UNKNOWN)
        return ticket

    async def follow(
        self, ticket_id: str, owner: str, after: int = 0
    ) -> AsyncGenerator[tuple[int, Event] | None, None]:
        """The events of a ticket with their numbers, from the one after ``after`` to the last.

        None is a heartbeat.
        As many readers as like may follow, each from where it left off.
        Read it inside ``contextlib.aclosing``.

        Raises:
            TicketError: see :meth:`get`.
        """
        ticket = self.get(ticket_id, owner)
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def tell() -> None:
            loop.call_soon_threadsafe(changed.set)

        ticket.log.join(tell)
        self._attend(ticket)
        try:
            while True:
                changed.clear()
                for number, event in ticket.log.after(after):
                    after = number
                    yield number, event
                    if isinstance(event, Finished):
                        return
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        await changed.wait()
                except TimeoutError:
                    self._refresh(ticket)
                    if not ticket.log.after(after):
                        yield None
        finally:
            if not ticket.log.leave(tell):
                ticket.unread_since_s = time.monotonic()
                self._attend(ticket)
                self._wake()

    def stop(self, ticket_id: str, owner: str) -> None:
        """Ask a job to stop: at once while it waits, else at its next step; its readers hear when it has.

        Raises:
            TicketError: see :meth:`get`.
        """
        ticket = self.get(ticket_id, owner)
        if ticket.live is not None:
            ticket.live.cancel()

    def close(self) -> None:
        """Tend the tickets no more; what the engine still runs is called restarted when it comes up again."""
        with self._lock:
            self._closed = True
            self._due.notify()

    # -- of one ticket

    def _on_event(self, ticket: Ticket, event: Event) -> None:
        """In the engine's thread, mostly."""
        ticket.log.add(event)
        if isinstance(event, Finished):
            ticket.live = None
            ticket.ended_s = time.monotonic()
            if not isinstance(event.error, StoppedError):  # what the program's end ended is to be run again
                self._write(ticket)
            self._wake()

    def _attend(self, ticket: Ticket) -> None:
        """Tell the engine whether somebody waits for a job; who asked for it to be finished does."""
        job = ticket.live
        if job is not None:
            self.engine.attend(job, ticket.grace_s is None or ticket.log.is_read)

    def _refresh(self, ticket: Ticket) -> None:
        """At a heartbeat: the wait as it is now, and the end where the engine has vanished."""
        job = ticket.live
        if job is None:
            return
        if not self.engine.alive:
            job.tell(Finished(State.FAILED, StoppedError(self.engine.trouble)))
        elif job.state is State.QUEUED:
            place = self.engine.wait_of(job)
            if place.ahead:
                job.tell(place)

    def _write(self, ticket: Ticket) -> None:
        """Keep a ticket on disk."""
        if self._store is None:
            return
        ended = ticket.ended
        result = None if ended is None else ticket.kind.result_record(ticket.values)
        record = Record(
            ticket.key,
            ticket.owner,
            ticket.kind.name,
            ticket.kind.to_record(ticket.job),
            "" if ended is None else ended.state.value,
            "" if ended is None else sentence(ended.error),
            result,
            time.time(),
        )
        self._store.write(record)

    def _restore(self, kind: Kind, record: Record) -> None:
        """A ticket of an earlier run of the program."""
        age_s = time.time() - record.written
        if not 0 <= age_s < self.keep_s:
            self._forget(record.key)
            return
        try:
            ticket = Ticket("", record.key, kind, kind.from_record(record.job), record.owner, None)
            if not record.state:
                ended = Finished(State.FAILED, StoppedError(RESTARTED))
            else:
                error = HaploOmniError(record.error) if record.error else None
                ended = Finished(State(record.state), error)
            for value in kind.from_result(ticket.job, record.result) if record.state else ():
                ticket.log.add(Progress(value, 0.0))
        except (HaploOmniError, ValueError, TypeError, KeyError):  # the result is gone, or of another version
            self._forget(record.key)
            return
        ticket.log.add(ended)
        ticket.ended_s = time.monotonic() - age_s
        with self._lock:
            self._tickets[record.key] = ticket

    def _drop(self, ticket: Ticket) -> None:
        """Nobody can ask for it any more."""
        with self._lock:
            self._tickets.pop(ticket.key, None)
        self._forget(ticket.key)

    def _refuse_when_full(self, address: str) -> None:
        """Raises BusyError where one address has enough jobs."""
        if not address or not self.max_per_address:
            return
        own = sum(known.address == address and known.ended is None for known in self._tickets.values())
        if own >= self.max_per_address:
            raise BusyError(
                f"{own} jobs of your address are running or waiting already; wait until one has ended."
            )

    def _forget(self, key: str) -> None:
        if self._store is not None:
            self._store.remove(key)

    # -- of all of them

    def _wake(self) -> None:
        with self._lock:
            self._due.notify()

    def _tend(self) -> None:
        """The thread: cancels what nobody reads any more, drops what has had its hour; else it sleeps."""
        while True:
            with self._lock:
                if self._closed:
                    return
                now = time.monotonic()
                dues = {ticket: self._due_s(ticket) for ticket in self._tickets.values()}
                due = [ticket for ticket, at_s in dues.items() if at_s is not None and at_s <= now]
                if not due:
                    coming = min((at_s for at_s in dues.values() if at_s is not None), default=None)
                    self._due.wait(None if coming is None else coming - now)
                    continue
            for ticket in due:
                job = ticket.live
                if ticket.ended is not None:
                    self._drop(ticket)
                elif job is not None:
                    ticket.grace_s = None  # once is enough
                    job.cancel()

    def _due_s(self, ticket: Ticket) -> float | None:
        """When something is to be done about a ticket, by the monotonic clock; None is never."""
        if ticket.ended is not None:
            return None if ticket.ended_s is None else ticket.ended_s + self.keep_s
        if ticket.grace_s is None or ticket.unread_since_s is None or ticket.log.is_read:
            return None
        return ticket.unread_since_s + ticket.grace_s


def is_elsewhere(address: str) -> bool:
    """Whether an address tells visitors apart: this machine's own is a proxy's, or of who runs it."""
    try:
        return not ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def sentence(error: BaseException | None) -> str:
    """What a person is told of an error; of one that nobody expected no details."""
    if error is None:
        return ""
    return str(error) if isinstance(error, HaploOmniError) else UNEXPECTED
