"""Whether the engine works, as plain data for whoever watches it."""

from __future__ import annotations

from typing import Any

from app.engine.engine import Engine
from app.startup.versions import versions


def state_of(engine: Engine) -> dict[str, Any]:
    """``state`` ("idle", "working", or "stopped" with a ``detail``), jobs ``waiting``, and ``versions``."""
    state: dict[str, Any] = {"state": "working" if engine.busy else "idle", "waiting": engine.waiting}
    if not engine.healthy:
        state = {"state": "stopped", "detail": engine.trouble, "waiting": 0}
    return {**state, "versions": versions()}
