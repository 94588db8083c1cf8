"""From a name to loaded weights: resolve, verify, load, report."""

from core.weights.load import LoadedCheckpoint, load_checkpoint
from core.weights.resolve import bundled_checkpoint, resolve_checkpoint

__all__ = ["LoadedCheckpoint", "bundled_checkpoint", "load_checkpoint", "resolve_checkpoint"]
