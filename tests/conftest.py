"""Shared fixtures: the reference checkpoints, the bundled model, a small model with a small autoencoder."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import core  # noqa: F401  (sets how OpenMP's threads wait, before PyTorch is imported)

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# no test finds, or leaves, what a person's own program keeps
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="haploomni-tests-")

import torch

REFERENCE = Path(__file__).parent / "parity" / "reference"


@pytest.fixture(scope="session", autouse=True)
def _state() -> Iterator[None]:
    yield
    shutil.rmtree(os.environ["XDG_STATE_HOME"], ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    # as many as were asked for: beside another busy program two threads are slower than one
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or max(1, min(4, os.cpu_count() or 1))))


@pytest.fixture(scope="session")
def bundled():
    """The bundled checkpoint, loaded once."""
    from core import HaploOmni

    return HaploOmni.load(None, device="cpu")


@pytest.fixture(scope="session")
def reference_model():
    """``reference_model("a")``: a reference checkpoint's model in float32, or in another precision."""
    from core import HaploOmniForConditionalGeneration

    loaded = {}

    def get(variant: str, dtype: torch.dtype = torch.float32):
        if (variant, dtype) not in loaded:
            folder = REFERENCE / variant / "checkpoint"
            loaded[variant, dtype] = HaploOmniForConditionalGeneration.from_pretrained(
                folder, dtype=dtype
            ).eval()
        return loaded[variant, dtype]

    return get


@pytest.fixture(scope="session")
def reference_processor():
    """``reference_processor("a")``: a reference checkpoint's processor."""
    from core import HaploOmniProcessor

    loaded = {}

    def get(variant: str):
        if variant not in loaded:
            loaded[variant] = HaploOmniProcessor.from_pretrained(REFERENCE / variant / "checkpoint")
        return loaded[variant]

    return get


@pytest.fixture(scope="session")
def reference_cases():
    """``reference_cases("a")``: ``{name: (description, {tensor's name: value})}`` of all cases."""
    from safetensors.torch import load_file

    loaded = {}

    def get(variant: str):
        if variant not in loaded:
            described = json.loads((REFERENCE / variant / "cases.json").read_text())["cases"]
            tensors = load_file(REFERENCE / variant / "cases.safetensors")
            loaded[variant] = {
                name: (case, {k.split("/", 1)[1]: v for k, v in tensors.items() if k.startswith(f"{name}/")})
                for name, case in described.items()
            }
        return loaded[variant]

    return get


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """(url, engine) of a running page, over a model of its own: a page changes how its model runs."""
    from app.engine.engine import Engine
    from app.engine.memory import plan_memory
    from app.engine.tickets import Tickets
    from app.launch import serve
    from app.services.library import Library
    from app.settings import Settings
    from core import HaploOmni

    omni = HaploOmni.load(None, device="cpu")
    memory = plan_memory(Settings(dtype="float32", device="cpu"))
    memory.attach(omni)
    engine = Engine(omni)
    library = Library(str(tmp_path_factory.mktemp("outputs")))
    tickets = Tickets(engine)
    page = serve(tickets, memory, library, Settings(), 0)
    yield page.local_url, engine
    page.close(verbose=False)
    tickets.close()
    engine.close()
    library.close()
