"""Whether the program works, for whoever watches it."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse

from app.engine.engine import Engine
from app.engine.health import state_of


def add_health_route(app: FastAPI, engine: Engine) -> None:
    """Answer ``GET /health``: 200 while jobs are taken and run, else 503."""

    async def health(_: Request) -> JSONResponse:
        return JSONResponse(state_of(engine), 200 if engine.healthy else 503)

    app.add_route("/health", health, methods=["GET"])
