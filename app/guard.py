"""Keeps visitors from routes of the web framework that this page does not use and that cost or leak."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

CLOSED = ("/process_recording", "/proxy=", "/file=http", "/deep_link", "/component_server")
MAX_JSON_BYTES = 4 * 2**20


class Guard:
    """Pure ASGI middleware: refuses closed routes and oversized JSON bodies."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if any(part in path for part in CLOSED):
                await JSONResponse({"detail": "This page does not offer that."}, 403)(scope, receive, send)
                return
            headers = dict(scope["headers"])
            length = headers.get(b"content-length", b"0")
            if not path.endswith("/upload") and length.isdigit() and int(length) > MAX_JSON_BYTES:
                await JSONResponse({"detail": "The request is too large."}, 413)(scope, receive, send)
                return
        await self.app(scope, receive, send)
