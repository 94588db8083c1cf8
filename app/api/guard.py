"""Keeps visitors from routes of the web framework that this page does not use and that cost or leak."""

from __future__ import annotations

import logging
import re
from typing import Any
from urllib.parse import unquote

from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

logger = logging.getLogger(__name__)
# names of routes: a transcoder, states written to disk for ever, calls into components,
# records of other visitors' runs, and pages that write code; compared with whole parts of a path,
# so that files may be called what they like
CLOSED = frozenset(
    {
        "process_recording",
        "deep_link",
        "component_server",
        "monitoring",
        "profiling",
        "run-history",
        "runs",
        "vibe-edit",
        "undo-vibe-edit",
        "vibe-code",
        "vibe-starter-queries",
    }
)
FILE = re.compile(r"(?:^|/)file=(?P<target>.*)", re.IGNORECASE | re.DOTALL)
ADDRESS = re.compile(r"\s*[a-z][a-z0-9+.-]+:", re.IGNORECASE)  # two letters or more: C: is a drive
NOT_ANSWERED = "This request cannot be answered; /gradio_api/info describes what can be asked."
MAX_JSON_BYTES = 4 * 2**20


def is_closed(path: str) -> bool:
    """Whether a path leads to a closed route, under any prefix and however it is written.

    What follows ``file=`` is a file's own name and says nothing about routes, unless it is a host's address.
    """
    asked = FILE.search(path)
    if asked is not None and ADDRESS.match(unquote(asked["target"])):
        return True
    route = path if asked is None else path[: asked.start()]
    parts = re.split(r"[/\\]+", unquote(route).lower())
    return any(part.strip() in CLOSED or part.startswith("proxy=") for part in parts)


class Guard:
    """Pure ASGI middleware: refuses closed routes and large JSON bodies, explains failures."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if is_closed(path):
                await JSONResponse({"detail": "This page does not offer that."}, 403)(scope, receive, send)
                return
            headers = dict(scope["headers"])
            length = headers.get(b"content-length", b"0")
            if not path.endswith("/upload") and length.isdigit() and int(length) > MAX_JSON_BYTES:
                await JSONResponse({"detail": "The request is too large."}, 413)(scope, receive, send)
                return
        answering = False

        async def send_on(message: Any) -> None:
            nonlocal answering
            answering = True
            await send(message)

        try:
            await self.app(scope, receive, send_on)
        except ClientDisconnect:
            return  # who left in the middle of an upload hears no answer
        except Exception:
            # a function or argument that does not exist ends the framework's route in a KeyError or TypeError
            if answering or scope["type"] != "http":
                raise
            logger.warning("a request failed", exc_info=True)
            await JSONResponse({"detail": NOT_ANSWERED}, 400)(scope, receive, send)


def guarding() -> list[Middleware]:
    """What stands before the page."""
    return [Middleware(Guard)]
