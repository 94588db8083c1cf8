"""From a name to loaded weights: resolve, verify, load, report."""

from core.weights.load import LoadedCheckpoint, LoadOptions, load_checkpoint, read_profile
from core.weights.resolve import bundled_checkpoint, read_config, resolve_checkpoint

__all__ = [
    "LoadOptions",
    "LoadedCheckpoint",
    "bundled_checkpoint",
    "load_checkpoint",
    "read_config",
    "read_profile",
    "resolve_checkpoint",
]
