"""A ticket is followed as often as its owner likes, a lost reader has grace, a restart forgets no result."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import aclosing
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.engine import Engine
from app.engine.event_log import EventLog
from app.engine.jobs import Finished, Passing, Progress, Queued, Started, State
from app.engine.ticket_store import TicketStore
from app.engine.tickets import UNKNOWN
from core.errors import BusyError, TicketError
from tests.app.engine.scripted import (
    OWNER,
    SOON_S,
    eventually,
    is_known,
    read,
    stream,
    tickets_of,
    values,
)

OTHER = "b" * 48


@pytest.fixture
def engine():
    made = Engine(omni="the model")
    yield made
    made.close()


@pytest.fixture
def tickets(engine):
    made = tickets_of(engine)
    yield made
    made.close()


@dataclass(frozen=True)
class Preview(Passing):
    step: int


def counting(steps, pause_s=0.0, log=None):
    def work(_):
        try:
            for i in range(steps):
                time.sleep(pause_s)
                yield i
        finally:
            if log is not None:
                log.append("closed")

    return work


def test_a_job_is_followed_again_and_by_several_readers(tickets):
    ticket = tickets.submit("scripted", counting(5), OWNER)

    async def three():
        return await asyncio.gather(*(read(tickets, ticket) for _ in range(3)))

    for seen in [*asyncio.run(three()), asyncio.run(read(tickets, ticket))]:
        assert values(seen) == [0, 1, 2, 3, 4]
        assert seen[-1][1] == Finished(State.DONE)


def test_a_reader_goes_on_where_it_left_off(tickets):
    ticket = tickets.submit("scripted", counting(30, 0.01), OWNER)
    first = asyncio.run(read(tickets, ticket, most=4))
    rest = asyncio.run(read(tickets, ticket, after=first[-1][0]))
    assert values(first + rest) == list(range(30))


@given(st.lists(st.sampled_from(["preview", "word", "queued", "started"]), max_size=30), st.integers(0, 31))
@settings(deadline=None)
def test_of_passing_events_only_the_newest_is_sent_and_no_other_is_lost(kinds, after):
    log = EventLog()
    made = []
    for number, kind in enumerate(kinds, 1):
        event = {
            "preview": Progress(Preview(number), 0.0),
            "word": Progress(number, 0.0),
            "queued": Queued(number),
            "started": Started(),
        }[kind]
        log.add(event)
        made.append((number, kind, event))
    sent = log.after(after)
    assert [item for item in sent if isinstance(getattr(item[1], "value", None), int)] == [
        (number, event) for number, kind, event in made if kind == "word" and number > after
    ]
    for group in (["preview"], ["queued", "started"]):
        newest = [(number, event) for number, kind, event in made if kind in group][-1:]
        events = [event for _, kind, event in made if kind in group]
        assert [item for item in sent if item[1] in events] == [item for item in newest if item[0] > after]
    assert [number for number, _ in sent] == sorted(number for number, _ in sent)


def test_a_reader_gets_no_backlog_of_previews(tickets):
    def work(_):
        for i in range(50):
            yield Preview(i)

    ticket = tickets.submit("scripted", work, OWNER)
    assert eventually(lambda: ticket.ended)
    assert values(asyncio.run(read(tickets, ticket))) == [Preview(49)]


@pytest.mark.parametrize("owner", [OTHER, "", OWNER[:-1]])
def test_nobody_else_can_follow_or_stop(tickets, owner):
    ticket = tickets.submit("scripted", counting(1000, 0.01), OWNER)
    for act in (tickets.get, tickets.stop):
        with pytest.raises(TicketError, match="not known here"):
            act(ticket.id, owner)
    with pytest.raises(TicketError, match="not known here"):
        asyncio.run(read(tickets, ticket, owner=owner))
    assert ticket.ended is None
    tickets.stop(ticket.id, OWNER)
    assert eventually(lambda: ticket.ended)


@pytest.mark.parametrize("wrong", ["", "guess", None, 5, [], "\ud83d"])
def test_what_is_no_ticket_is_refused_with_the_same_sentence(tickets, wrong):
    with pytest.raises(TicketError) as caught:
        tickets.get(wrong, OWNER)
    assert str(caught.value) == UNKNOWN


def test_ids_cannot_be_guessed(tickets):
    made = {tickets.submit("scripted", counting(0), f"owner {i}").id for i in range(8)}
    assert len(made) == 8 and all(len(ticket) >= 32 for ticket in made)


def test_without_a_reader_a_job_ends_after_its_grace_and_with_one_it_goes_on(engine):
    tickets, log = tickets_of(engine, grace_s=0.2), []
    left = tickets.submit("scripted", counting(1000, 0.01, log), OWNER)
    asyncio.run(read(tickets, left, most=3))
    assert eventually(lambda: left.ended), "its reader went away and did not come back"
    assert left.ended.state is State.CANCELLED and log == ["closed"]

    read_on = tickets.submit("scripted", counting(60, 0.01), OWNER)
    seen = asyncio.run(read(tickets, read_on))
    assert seen[-1][1] == Finished(State.DONE), "longer than the grace, with a reader all the time"
    tickets.close()


def test_a_reader_that_comes_back_within_the_grace_saves_the_job(engine):
    tickets = tickets_of(engine, grace_s=1.5)
    ticket = tickets.submit("scripted", counting(120, 0.02), OWNER)

    async def comes_and_goes():
        after = 0
        for _ in range(4):
            seen = await read(tickets, ticket, after, most=3)
            after = seen[-1][0]
            await asyncio.sleep(0.2)
        return await read(tickets, ticket, after)

    assert asyncio.run(comes_and_goes())[-1][1] == Finished(State.DONE)
    tickets.close()


def test_a_job_that_is_to_be_finished_needs_no_reader(engine):
    tickets = tickets_of(engine, grace_s=0.05)
    ticket = tickets.submit("scripted", counting(40, 0.02), OWNER, finish=True)
    assert eventually(lambda: ticket.ended)
    assert ticket.ended == Finished(State.DONE)
    tickets.close()


def test_one_of_two_readers_is_enough(engine):
    tickets = tickets_of(engine, grace_s=0.1)
    ticket = tickets.submit("scripted", counting(60, 0.01), OWNER)

    async def both():
        whole, _ = await asyncio.gather(read(tickets, ticket), read(tickets, ticket, most=2))
        return whole

    assert asyncio.run(both())[-1][1] == Finished(State.DONE)
    tickets.close()


def test_an_ended_job_has_its_time_and_then_is_gone(engine):
    tickets = tickets_of(engine, keep_s=0.3)
    ticket = tickets.submit("scripted", counting(1), OWNER)
    assert eventually(lambda: ticket.ended)
    assert tickets.get(ticket.id, OWNER) is ticket
    assert eventually(lambda: not is_known(tickets, ticket.id))
    tickets.close()


def test_stopped_is_said_when_the_model_is_free(tickets):
    release, log = threading.Event(), []

    def work(_):
        try:
            yield 1
            release.wait(SOON_S)
            yield 2
        finally:
            log.append("free")

    ticket = tickets.submit("scripted", work, OWNER)
    assert eventually(lambda: ticket.values)
    tickets.stop(ticket.id, OWNER)
    time.sleep(0.05)
    assert ticket.ended is None
    release.set()
    assert eventually(lambda: ticket.ended)
    assert log == ["free"]


def test_one_address_has_its_limit_and_this_machine_has_none(engine):
    tickets = tickets_of(engine, max_per_address=2)
    release = threading.Event()

    def waiting(_):
        yield release.wait(SOON_S)

    for i in range(2):
        tickets.submit("scripted", waiting, f"owner {i}", address="192.0.2.7")
    with pytest.raises(BusyError, match="2 jobs of your address"):
        tickets.submit("scripted", waiting, "owner 3", address="192.0.2.7")
    for i, address in enumerate(["192.0.2.8", "127.0.0.1", "127.0.0.1", "127.0.0.1", "::1", "", "proxy"]):
        tickets.submit("scripted", waiting, f"other {i}", address=address)
    release.set()
    tickets.close()


def test_a_refused_job_leaves_no_ticket(tmp_path):
    engine = Engine(omni=None, max_per_visitor=1)
    tickets = tickets_of(engine, store=TicketStore(tmp_path))
    release = threading.Event()

    def waiting(_):
        yield release.wait(SOON_S)

    tickets.submit("scripted", waiting, OWNER)
    with pytest.raises(BusyError):
        tickets.submit("scripted", waiting, OWNER)
    assert len(list(tmp_path.iterdir())) == 1
    release.set()
    engine.close()


def test_a_handler_that_goes_away_frees_the_engine(engine):
    tickets, log = tickets_of(engine, grace_s=0.0), []

    async def visitor():
        async with aclosing(stream(tickets, counting(1000, 0.01, log), grace_s=1.0)) as events:
            async for event in events:
                if isinstance(event, Progress):
                    return

    asyncio.run(visitor())
    assert eventually(lambda: log == ["closed"])
    tickets.close()


def test_a_slow_step_gives_heartbeats(tickets, monkeypatch):
    monkeypatch.setattr("app.engine.tickets.HEARTBEAT_S", 0.02)

    async def beats():
        return [event async for event in stream(tickets, counting(1, 0.3))]

    assert asyncio.run(beats()).count(None) >= 3


@pytest.mark.parametrize("turns_later", range(5))
def test_a_cancel_that_meets_an_event_is_not_forgotten(turns_later, tickets):
    release = threading.Event()

    def work(_):
        yield release.wait(SOON_S)

    ticket = tickets.submit("scripted", work, OWNER)

    async def stopped_while_an_event_arrives():
        reading = asyncio.create_task(read(tickets, ticket))
        while not ticket.log.is_read:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        ticket.log.add(Progress("word", 0.0))
        for _ in range(turns_later):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait({reading}, timeout=5)
        assert reading.cancelled()

    asyncio.run(stopped_while_an_event_arrives())
    assert not ticket.log.is_read
    release.set()
