"""From a name to loaded weights: resolve, verify, load, report."""

from core.weights.load import Holding, LoadedCheckpoint, load_checkpoint, read_config, read_profile
from core.weights.resolve import bundled_checkpoint, resolve_checkpoint

__all__ = [
    "Holding",
    "LoadedCheckpoint",
    "bundled_checkpoint",
    "load_checkpoint",
    "read_config",
    "read_profile",
    "resolve_checkpoint",
]
