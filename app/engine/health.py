"""Whether the engine works, as plain data for whoever watches it."""

from __future__ import annotations

from typing import Any

from app.engine.engine import Engine
from app.startup.versions import versions


def state_of(engine: Engine) -> dict[str, Any]:
    """``state``, jobs ``waiting``, and ``versions``.

    The state is "idle" or "working"; with a ``detail`` it is "hanging", where a step does not come back,
    or "stopped", where no job will be run any more.
    """
    state: dict[str, Any] = {"state": "working" if engine.busy else "idle", "waiting": engine.waiting}
    if engine.hanging:
        state |= {"state": "hanging", "detail": engine.hanging}
    if engine.trouble:
        state = {"state": "stopped", "detail": engine.trouble, "waiting": 0}
    return {**state, "versions": versions()}
