"""A restarted program knows what was done, and says what was not."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from app.engine.engine import Engine
from app.engine.jobs import State
from app.engine.ticket_store import TicketStore
from app.engine.tickets import RESTARTED, Tickets
from core.errors import PromptError, TicketError
from tests.app.engine.scripted import OWNER, Scripted, eventually, is_known, read, values

OTHER = "b" * 48


def three(_):
    yield from range(3)


def fails(_):
    yield 1
    raise PromptError("The model does not know that.")


def breaks(_):
    yield 1
    raise KeyError("/secret/path")


def endless(_):
    while True:
        time.sleep(0.01)
        yield 1


def restarted(folder, **named):
    engine = Engine(omni=None)
    tickets = Tickets(engine, TicketStore(folder), **named)
    tickets.offer(Scripted(three=three, fails=fails, breaks=breaks, endless=endless))
    return engine, tickets


def test_a_restarted_program_knows_what_was_and_says_what_was_not_finished(tmp_path):
    engine, tickets = restarted(tmp_path)
    done = tickets.submit("scripted", three, OWNER)
    failed = tickets.submit("scripted", fails, OWNER)
    broken = tickets.submit("scripted", breaks, OWNER)
    assert eventually(lambda: done.ended and failed.ended and broken.ended)
    running = tickets.submit("scripted", endless, OWNER)
    waiting = tickets.submit("scripted", endless, OWNER)
    assert eventually(lambda: running.values)
    engine.close()
    tickets.close()
    text = "".join(path.read_text() for path in tmp_path.iterdir())
    assert OWNER not in text and done.id not in text and "secret" not in text

    engine, tickets = restarted(tmp_path)
    seen = asyncio.run(read(tickets, done))
    assert values(seen) == [0, 1, 2] and seen[-1][1].state is State.DONE
    assert str(tickets.get(failed.id, OWNER).ended.error) == "The model does not know that."
    assert "Something unexpected" in str(tickets.get(broken.id, OWNER).ended.error)
    for ticket in (running, waiting):
        known = tickets.get(ticket.id, OWNER)
        assert str(known.ended.error) == RESTARTED
        assert known.job is endless, "the recipe is there"
    with pytest.raises(TicketError):
        tickets.get(done.id, OTHER)
    engine.close()
    tickets.close()


def test_a_result_whose_time_is_over_is_not_found_again(tmp_path):
    engine, tickets = restarted(tmp_path)
    done = tickets.submit("scripted", three, OWNER)
    assert eventually(lambda: done.ended)
    engine.close()
    tickets.close()
    (path,) = tmp_path.iterdir()
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "written": time.time() - 100}))
    engine, tickets = restarted(tmp_path, keep_s=99)
    assert not is_known(tickets, done.id) and list(tmp_path.iterdir()) == []
    engine.close()
    tickets.close()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"key": 1}', "\x00", '{"key": "k", "extra": 2}'])
def test_a_file_that_is_no_ticket_stops_nothing(tmp_path, text):
    (tmp_path / "wrong.json").write_text(text)
    engine, tickets = restarted(tmp_path)
    ticket = tickets.submit("scripted", three, OWNER)
    assert eventually(lambda: ticket.ended)
    assert not (tmp_path / "wrong.json").exists()
    engine.close()
    tickets.close()


def test_a_disk_that_takes_nothing_costs_only_what_a_restart_would_find(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    engine, tickets = restarted(tmp_path)
    ticket = tickets.submit("scripted", three, OWNER)
    assert values(asyncio.run(read(tickets, ticket))) == [0, 1, 2]
    engine.close()
    tickets.close()
