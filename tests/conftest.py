"""Shared fixtures: the reference checkpoints, the bundled model, a small model with a small autoencoder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

REFERENCE = Path(__file__).parent / "parity" / "reference"


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    torch.set_num_threads(max(1, min(4, os.cpu_count() or 1)))


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
            loaded[variant, dtype] = HaploOmniForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval()
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
    """``reference_cases("a")``: the cases' descriptions and tensors, ``{name: (description, {tensor: value})}``."""
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
def served(bundled, tmp_path_factory):
    """(url, engine) of a running page."""
    from app.engine import Engine
    from app.launch import serve
    from app.memory import plan_memory
    from app.settings import Settings
    from app.storage import Storage

    keeper = plan_memory(Settings(dtype="float32", device="cpu"))
    keeper.attach(bundled)
    engine = Engine(bundled)
    storage = Storage(str(tmp_path_factory.mktemp("outputs")))
    page = serve(engine, keeper, storage, Settings(), 0)
    yield page.local_url, engine
    page.close(verbose=False)
    engine.close()
