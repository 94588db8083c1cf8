"""HaploOmni: one transformer that understands images and videos and generates videos.

The model loads the public weights; the bundled small checkpoint works at once, offline, on a CPU.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

# Read by OpenMP when PyTorch is imported: threads that wait give their core away soon.
# Their long spinning makes two threads beside another busy program many times slower than one;
# on a quiet machine giving way costs nothing.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
# Gradio may run in the same process; a model library must not phone home on its own.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
# bitsandbytes, imported along with transformers, warns of an optional kernel; people cannot act on it
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

if TYPE_CHECKING:
    from core.config import HaploOmniConfig
    from core.model.modeling import HaploOmniForConditionalGeneration
    from core.pipelines import DenoiseStep, GeneratedVideo, HaploOmni
    from core.processor import HaploOmniProcessor

_HOMES = {
    "HaploOmniConfig": "core.config",
    "HaploOmniForConditionalGeneration": "core.model.modeling",
    "HaploOmniProcessor": "core.processor",
    "HaploOmni": "core.pipelines",
    "DenoiseStep": "core.pipelines",
    "GeneratedVideo": "core.pipelines",
}
__all__ = [
    "DenoiseStep",
    "GeneratedVideo",
    "HaploOmni",
    "HaploOmniConfig",
    "HaploOmniForConditionalGeneration",
    "HaploOmniProcessor",
]


def __getattr__(name: str) -> Any:
    """Import on first use: ``import core.config`` stays light; the model registers the Auto classes."""
    if name not in _HOMES:
        raise AttributeError(f"module 'core' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    if name in ("HaploOmniConfig", "HaploOmniForConditionalGeneration", "HaploOmniProcessor", "HaploOmni"):
        from core.registration import register_auto_classes

        register_auto_classes()
    globals()[name] = value
    return value
