"""What a browser sends back is checked: a visitor is who the browser says, and nobody by guessing."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from gradio.context import LocalContext

from app.web import browser_state
from app.web.browser_state import MAX_VISITORS, address, introduce, kept_values, saved_values, visitor

ME = "0123456789abcdef" * 3


@pytest.fixture
def asking():
    """``asking("session")``: from here on this page load asks."""
    tokens = []

    def ask(session, host="192.0.2.1"):
        request = SimpleNamespace(session_hash=session, client=SimpleNamespace(host=host))
        tokens.append(LocalContext.request.set(request))

    yield ask
    for token in reversed(tokens):
        LocalContext.request.reset(token)


def test_two_page_loads_of_one_browser_are_one_visitor(asking):
    asking("first")
    introduce({"owner": ME})
    assert visitor() == ME
    asking("second")
    assert visitor() == "second", "before it says who it is"
    introduce({"owner": ME})
    assert visitor() == ME
    assert address() == "192.0.2.1"


@pytest.mark.parametrize(
    "owner", ["", "short", ME[:-1], ME + "0", ME.upper(), "\ud83d" * 48, 5, None, [], {}]
)
def test_who_says_nothing_usable_is_the_page_load_alone(asking, owner):
    asking("third")
    introduce({"owner": owner})
    assert visitor() == "third"


@pytest.mark.parametrize("saved", [None, "", 5, [], {"x": 5}, {"x": [1]}, {"x": "ab"}])
def test_values_of_another_shape_are_nothing(saved):
    assert kept_values(saved, "x", 2) == [None, None]


def test_only_plain_values_come_back():
    assert kept_values({"x": [1, 2.5, "a", True, {"path": "/etc/passwd"}, [1]]}, "x", 6) == [
        1,
        2.5,
        "a",
        True,
        None,
        None,
    ]


def test_visitors_without_number_cost_no_memory_without_bound(asking, monkeypatch):
    monkeypatch.setattr(browser_state, "MAX_VISITORS", 5)
    for number in range(20):
        asking(f"session {number}")
        introduce({"owner": f"{number:048x}"})
    assert visitor() == f"{19:048x}"
    asking("session 0")
    assert visitor() == "session 0", "the oldest are forgotten"
    assert MAX_VISITORS > 1000


@pytest.mark.parametrize("text", [None, 5, "", "{", "[]", "5", "[" * 100_000, b"\xff", {"a": 1}])
def test_what_is_no_record_is_an_empty_one(text):
    assert saved_values(text) == {}
