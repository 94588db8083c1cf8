"""Health tells the truth, and so does the page, when the engine's thread is gone."""

from __future__ import annotations

import queue
import threading

from fastapi import FastAPI
from starlette.testclient import TestClient

from app.api.operations import add_health_route
from app.engine.engine import STOPPED, Engine
from app.engine.jobs import Finished, Job


def client_of(engine) -> TestClient:
    app = FastAPI()
    add_health_route(app, engine)
    return TestClient(app)


def test_health_of_an_idle_and_of_a_busy_engine():
    engine, release, events = Engine(omni=None), threading.Event(), queue.Queue()
    with client_of(engine) as client:
        said = client.get("/health")
        assert said.status_code == 200
        assert said.json()["state"] == "idle"
        assert {"torch", "transformers", "gradio"} <= set(said.json()["versions"])

        def blocking(_):
            yield 1
            yield release.wait(20)

        engine.submit(blocking, events.put)
        while not engine.busy:
            events.get(timeout=20)
        engine.submit(lambda _: iter(()), events.put)
        said = client.get("/health").json()
        assert (said["state"], said["waiting"]) == ("working", 1)
        release.set()
    engine.close()


def test_health_of_a_stopped_engine(monkeypatch):
    engine, events = Engine(omni=None), queue.Queue()

    def dies(_):
        raise SystemError("the thread itself")

    monkeypatch.setattr(Job, "turn", dies)
    engine.submit(lambda _: iter(()), events.put)
    while not isinstance(events.get(timeout=20), Finished):
        pass
    with client_of(engine) as client:
        said = client.get("/health")
    assert said.status_code == 503
    assert (said.json()["state"], said.json()["detail"]) == ("stopped", STOPPED)
