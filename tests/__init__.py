"""``core``, ``quantization`` and ``app`` mirror the tree; ``repository`` is about what lies around it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
