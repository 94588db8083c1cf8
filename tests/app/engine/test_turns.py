"""Who gets the model's time, on a clock of the test's own."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from app.engine.turns import Lane, Turns


def spend(turns: Turns[str], cost: dict[str, float], seconds: float) -> list[tuple[float, str]]:
    """Give turns for so long: when each began, and whose it was."""
    now = 0.0
    given = []
    while now < seconds:
        job = turns.next()
        assert job is not None
        given.append((now, job))
        turns.charge(job, cost[job])
        now += cost[job]
    return given


def time_of(given: list[tuple[float, str]], cost: dict[str, float]) -> Counter[str]:
    spent: Counter[str] = Counter()
    for _, job in given:
        spent[job] += cost[job]  # type: ignore[assignment]
    return spent


@pytest.mark.parametrize("token", [0.02, 0.2])
@pytest.mark.parametrize("step", [0.05, 2.0])
def test_a_chat_never_waits_for_more_than_one_step_and_the_clip_keeps_a_third(step, token):
    turns: Turns[str] = Turns()
    turns.add("clip", Lane.CLIP, "ada")
    turns.add("chat", Lane.CHAT, "ben")
    cost = {"clip": step, "chat": token}
    given = spend(turns, cost, 200.0)
    in_a_row = 0
    for _, job in given:
        in_a_row = in_a_row + 1 if job == "clip" else 0
        assert in_a_row * step <= max(2 * step, token), "no chat waits longer than two steps of a clip"
    assert time_of(given, cost)["clip"] >= 200.0 / 3 - 2 * (step + token)


def test_two_chats_share_evenly_and_so_do_visitors_with_many():
    turns: Turns[str] = Turns()
    cost = {"one": 0.03, "two": 0.01, "more": 0.01, "most": 0.01}
    turns.add("one", Lane.CHAT, "ada")
    for job in ("two", "more", "most"):
        turns.add(job, Lane.CHAT, "ben")
    spent = time_of(spend(turns, cost, 60.0), cost)
    assert spent["one"] == pytest.approx(30.0, abs=0.1)
    assert spent["two"] == pytest.approx(30.0, abs=0.1), "a visitor's first job goes before their second"


def test_who_was_away_has_saved_nothing_up():
    turns: Turns[str] = Turns()
    turns.add("clip", Lane.CLIP, "ada")
    spend(turns, {"clip": 1.0}, 500.0)
    turns.add("chat", Lane.CHAT, "ben")
    cost = {"clip": 1.0, "chat": 0.1}
    spent = time_of(spend(turns, cost, 30.0), cost)
    assert spent["clip"] >= 9.0, "the chat does not catch up what it never asked for"
    turns.add("late", Lane.CHAT, "cem")
    cost["late"] = 0.1
    spent = time_of(spend(turns, cost, 30.0), cost)
    assert spent["late"] == pytest.approx(spent["chat"], abs=0.3)


def test_nobody_pays_for_having_been_alone():
    turns: Turns[str] = Turns()
    cost = {"clip": 1.0, "chat": 0.1}
    turns.add("chat", Lane.CHAT, "ben")
    spend(turns, cost, 500.0)
    turns.remove("chat")
    turns.add("clip", Lane.CLIP, "ada")
    spend(turns, cost, 5.0)
    turns.add("chat", Lane.CHAT, "ben")
    spent = time_of(spend(turns, cost, 30.0), cost)
    assert spent["chat"] >= 18.0


def test_random_comings_and_goings_lose_nobody():
    rng = random.Random(0)
    turns: Turns[int] = Turns()
    left = {}
    done = 0
    for number in range(400):
        left[number] = rng.randint(1, 20)
        turns.add(number, rng.choice(list(Lane)), f"visitor {rng.randrange(5)}")
        while len(turns) > rng.randint(0, 8):
            job = turns.next()
            turns.charge(job, rng.expovariate(10.0))
            left[job] -= 1
            if not left[job]:
                turns.remove(job)
                done += 1
    while (job := turns.next()) is not None:
        turns.charge(job, 0.1)
        left[job] -= 1
        if not left[job]:
            turns.remove(job)
            done += 1
    assert done == 400 and len(turns) == 0
