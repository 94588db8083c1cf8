"""Closed routes stay closed however they are written, and a file may be called what it likes."""

from __future__ import annotations

import asyncio
from urllib.parse import quote, unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.api.guard import CLOSED, Guard, is_closed

PREFIXES = ["", "/gradio_api", "/demo/gradio_api", "/a b/c", "/gradio_api/", "//gradio_api", "/GRADIO_API"]
NAMES = [f"{route}{end}" for route in sorted(CLOSED) for end in (".png", "_diagram.png", "", " (1).mp4")]
AWKWARD = [
    "file=http.png",
    "file=https:__x.png",
    "proxy=1.png",
    "http:.png",
    "a%2Fb.png",
    "100%.png",
    "ü ß.png",
    "x\ny.png",
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("route", sorted(CLOSED))
@pytest.mark.parametrize(
    "write", [str, str.upper, quote, lambda p: p.replace("/", "//"), lambda p: p + "/", lambda p: p + "/x"]
)
def test_closed_routes_are_closed(prefix, route, write):
    assert is_closed(write(f"{prefix}/{route}"))


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    "address",
    [
        "http://a.example/x.png",
        "https://a.example",
        "HTTPS://A.EXAMPLE",
        "http:/a",
        "file:///etc/passwd",
        "ftp://a",
        " http://a",
    ],
)
@pytest.mark.parametrize("way", ["file=", "FILE=", "proxy=", "Proxy="])
def test_other_hosts_are_closed(prefix, address, way):
    assert is_closed(f"{prefix}/{way}{address}")
    assert is_closed(f"{prefix}/{way}{quote(address)}")


FOLDERS = st.sampled_from(
    ["/tmp/gradio/0a1b", "/tmp/haploomni-x/deep_link", "C:/Users/x/Temp", "C:\\Users\\x\\Temp"]
)


@given(FOLDERS, st.text(min_size=1, max_size=60) | st.sampled_from(NAMES + AWKWARD))
@example("/tmp", "component_server_diagram.png")
@settings(max_examples=400, deadline=None)
def test_any_file_name_is_served(folder, name):
    for prefix in ("", "/gradio_api", "/demo/gradio_api"):
        assert not is_closed(f"{prefix}/file={folder}/{name}")


@pytest.mark.parametrize(
    "path", ["/", "/config", "/gradio_api/queue/join", "/gradio_api/upload", "/gradio_api/call/text_to_video"]
)
def test_what_the_page_uses_is_open(path):
    assert not is_closed(path)


def ask(path: str, headers: tuple = ()) -> int:
    """The status that a guarded application answers; the application itself says 200."""
    sent = []

    async def inner(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": list(headers)}
    asyncio.run(Guard(inner)(scope, None, send))
    return sent[0]["status"]


def test_the_guard_answers():
    assert ask("/gradio_api/process_recording") == 403
    assert ask(unquote("/gradio_api/%66ile=https://a.example")) == 403
    assert ask("/gradio_api/file=/tmp/process_recording.png") == 200
    large = ((b"content-length", b"9999999"),)
    assert ask("/gradio_api/queue/join", large) == 413
    assert ask("/gradio_api/upload", large) == 200


@pytest.mark.parametrize("error", [KeyError(999), TypeError("no such argument"), RuntimeError()])
def test_a_request_that_the_framework_fails_at_gets_a_sentence(error):
    sent = []

    async def failing(scope, receive, send):
        raise error

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/gradio_api/call/x", "headers": []}
    asyncio.run(Guard(failing)(scope, None, send))
    assert sent[0]["status"] == 400
    assert b"cannot be answered" in sent[1]["body"]


def test_a_failure_after_the_answer_began_is_the_servers():
    async def failing(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise OSError("gone")

    async def send(message):
        pass

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    with pytest.raises(OSError, match="gone"):
        asyncio.run(Guard(failing)(scope, None, send))
